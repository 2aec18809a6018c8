"""The heartbeat does not come down before all clocks agree: the limit, the override, who is not asked."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from click.testing import CliRunner
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.commands import clovmmigrate, migration_plan
from standfast.commands.window import window
from standfast.core import clock_gate
from standfast.core.evidence import GuestState
from standfast.core.record import Mode, Phase, Totem
from standfast.core.steps import CloseGoal, Done, Stop, Wait

IGNORE = dataclasses.replace(CLOSE, ignore_clocks="the clock card of n2 is broken")
GUARDED = dataclasses.replace(OPEN, mover="n2", budget_seconds=0, mode=Mode.GUARDED, target="ctrl3")
MOVED = {"ctrl3": GuestState.RUNNING}


def moved(count: int = 3, goal: object = OPEN) -> FakeCluster:
    """A window in which g2 has come to ctrl3."""
    cluster = opened(count, goal)  # type: ignore[arg-type]
    cluster.guest_on = dict(MOVED)
    return cluster


def stop(cluster: FakeCluster, goal: CloseGoal = CLOSE) -> Stop:
    ended = drive(cluster, goal)
    assert isinstance(ended, Stop), ended
    return ended


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_lagging_clock_keeps_the_heartbeat_up_and_is_named(count: int) -> None:
    cluster = moved(count)
    cluster.clock_ahead = {"n2": -20.0}
    (said,) = stop(cluster).messages
    assert (said.code, said.node, said.force) == ("CLOCKS", "n2", "--ignore-clocks")
    assert "n2 is 20.0 s behind n" in said.text
    assert "chronyc" in said.next_command
    assert "(on n2)" in said.next_command
    assert "clovmmigrate -u g2 ctrl3" in said.next_command
    assert (cluster.record.phase, cluster.record.totem) == (Phase.CLOSING, Totem.RAISED)
    assert cluster.record.waits_for_clocks
    assert "fencing is armed again, only the heartbeat timeout is still raised" in said.text
    assert {node.keys["token"] for node in cluster.nodes.values()} == {"272727"}
    assert not any(line.startswith("Reload: old") for line in cluster.log)


def test_it_is_said_while_it_waits_that_a_node_sets_its_clock_and_what_came_of_it() -> None:
    cluster = moved()
    cluster.clock_ahead = {"n2": -20.0}
    command, waits = Command(cluster, CLOSE, "n1"), list[Wait]()
    tries = ["is setting its clock (rtc, try 1 of 3)", "could not set its clock right (rtc, try 3 of 3): no"]
    left = list(tries)
    while not isinstance(step := command.look(), Done | Stop):
        if isinstance(step, Wait) and step.key == "clocks":
            waits.append(step)
            if not left:
                break
            cluster.clock_steps = {"n2": left.pop(0)}
            cluster.sync()
        else:
            command.act(step)
    assert [wait.news for wait in waits] == ["", *(f"n2 {text}" for text in tries)]
    assert all(wait.reason.endswith(wait.news) for wait in waits)
    assert all("n2 is 20.0 s behind n" in wait.reason for wait in waits)
    (message,) = stop(cluster).messages
    assert f"n2 {tries[-1]}" in message.text


def test_who_has_set_its_clock_is_no_trouble_where_all_agree() -> None:
    cluster = moved()
    cluster.clock_steps = {"n2": "has set its clock (rtc, try 1 of 3): n2 is 0.1 s behind n1"}
    assert isinstance(drive(cluster, CLOSE), Done)


def test_the_plan_says_that_a_node_may_set_its_clock() -> None:
    snapshot = dataclasses.replace(moved().snapshot("n1"), clock_step="rtc")
    line = "a node whose clock is to blame sets it by itself (rtc)"
    assert line in list(migration_plan.lines(CLOSE, snapshot))
    assert line not in list(migration_plan.lines(IGNORE, snapshot))
    assert line not in list(migration_plan.lines(CLOSE, moved().snapshot("n1")))


def test_it_goes_on_as_soon_as_the_clock_is_right() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, OPEN), Done)
    cluster.guest_on = dict(MOVED)
    cluster.clock_ahead = {"n2": -20.0}
    command = Command(cluster, CLOSE, "n1")
    for _ in range(40):
        step = command.look()
        if isinstance(step, Wait) and step.key == "clocks":
            cluster.clock_ahead = {}
            cluster.sync()
        elif isinstance(step, Done):
            break
        else:
            command.act(step)
    assert isinstance(step, Done)
    assert not step.warnings
    assert cluster.facts() == before


def test_a_measurement_of_before_the_proof_does_not_count() -> None:
    cluster = moved()
    cluster.stale_clocks = True
    (said,) = stop(cluster).messages
    assert said.code == "CLOCKS"
    assert "has not measured them yet" in said.text
    cluster.stale_clocks = False
    assert isinstance(drive(cluster, CLOSE), Done)


def test_a_daemon_of_before_clocks_were_measured_is_named_and_does_not_block_for_ever() -> None:
    cluster = moved()
    cluster.no_clocks = {"n3"}
    (said,) = stop(cluster).messages
    assert said.code == "CLOCKS"
    assert "its daemon is older and does not measure" in said.text or "no plain offset of n3" in said.text
    assert isinstance(drive(cluster, IGNORE), Done)


def test_an_operator_may_overrule_it_and_reads_at_the_end_what_he_has_overruled() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, OPEN), Done)
    cluster.guest_on = dict(MOVED)
    cluster.clock_ahead = {"n2": -20.0}
    stop(cluster)
    assert isinstance(drive(cluster, IGNORE), Done)
    assert cluster.facts() == before


def test_what_is_overruled_stands_in_the_step_that_does_it() -> None:
    for goal in (OPEN, dataclasses.replace(GUARDED, budget_seconds=60)):
        cluster = moved(3, goal)
        cluster.clock_ahead = {"n2": -20.0}
        command = Command(cluster, IGNORE, "n1")
        told = []
        while not isinstance(step := command.look(), Done):
            told += list(getattr(step, "warnings", ()))
            command.act(step)
        assert [message.code for message in told] == ["CLOCKS"]
        assert "n2 is 20.0 s behind" in told[0].text
        assert "the clock card of n2 is broken" in told[0].text


def test_an_override_that_was_not_needed_says_nothing() -> None:
    cluster = moved()
    command = Command(cluster, IGNORE, "n1")
    while not isinstance(step := command.look(), Done):
        assert not getattr(step, "warnings", ())
        command.act(step)


def test_a_window_that_raised_nothing_is_closed_with_a_warning() -> None:
    cluster = moved(3, GUARDED)
    cluster.clock_ahead = {"n2": -20.0}
    command = Command(cluster, CLOSE, "n1")
    told = []
    while not isinstance(step := command.look(), Done):
        told += list(getattr(step, "warnings", ()))
        command.act(step)
    assert [(message.code, message.severity.value, message.node) for message in told] == [
        ("CLOCKS", "warning", "n2")
    ]


def test_the_repair_of_an_aim_without_a_window_asks_for_no_clock() -> None:
    cluster = FakeCluster(3)
    cluster.guest_on = dict(MOVED)
    cluster.clock_ahead = {"n2": -20.0}
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.aims["n2"] == "ctrl3"


def test_an_opening_that_is_rolled_back_asks_for_no_clock() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    cluster.clock_ahead = {"n2": -20.0}
    cluster.nodes["n3"].unwritable = "no space"
    ended = drive(cluster, OPEN)
    assert isinstance(ended, Stop)
    assert "CLOCKS" not in codes(ended)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before


def test_the_override_needs_a_reason_and_belongs_to_u() -> None:
    for command, words, said in (
        (clovmmigrate.main, ["-u", "guest2", "ctrl3", "--ignore-clocks"], "--ignore-clocks needs --reason"),
        (clovmmigrate.main, ["-p", "guest2", "--ignore-clocks", "--reason", "x"], "belong to -u"),
        (window, ["close", "guest2", "--ignore-clocks", "--reason", " "], "--ignore-clocks needs --reason"),
    ):
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 2
        assert said in done.output


def test_the_plan_says_whether_clocks_are_waited_for() -> None:
    snapshot = moved().snapshot("n1")
    plan = list(migration_plan.lines(CLOSE, snapshot))
    assert plan.index("fencing armed") < plan.index("the clocks of all nodes have to agree")
    lines = list(migration_plan.lines(IGNORE, snapshot))
    assert "the clocks of all nodes are not waited for: the clock card of n2 is broken" in lines
    assert not any("clocks" in line for line in migration_plan.lines(CLOSE, moved(3, GUARDED).snapshot("n1")))


def test_a_daemon_is_told_what_is_in_the_way_of_a_window_that_waits_for_clocks_only() -> None:
    cluster = moved()
    cluster.clock_ahead = {"n2": -20.0}

    def in_the_way() -> str:
        members = set(cluster.members())
        return clock_gate.in_the_way(cluster.record, "n1", members, cluster.published, 5.0)

    assert in_the_way() == "", "it is not proven yet"
    stop(cluster)
    assert in_the_way().startswith("n2 is 20.0 s behind n1")
    cluster.clock_ahead = {}
    cluster.sync()
    assert in_the_way() == ""
