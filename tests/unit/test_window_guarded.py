"""The planner in guarded mode: the mover's topology goes in with "open" and out with the proof."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, HOSTS, OPEN, FakeCluster

from standfast.core.evidence import GuestState
from standfast.core.record import Mode, Phase, Totem
from standfast.core.steps import CloseGoal, Done, Guard, Reload, Stop, Unguard
from standfast.core.window import decide

GUARDED = dataclasses.replace(OPEN, mover="n2", budget_seconds=0, mode=Mode.GUARDED, target="ctrl3")
BACK = CloseGoal(node="n2", guest="g2", target="ctrl2")
MOVED = {"ctrl3": GuestState.RUNNING}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_it_raises_nothing_and_leaves_nothing(count: int) -> None:
    cluster = FakeCluster(count)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, GUARDED), Done)
    assert (cluster.record.phase, cluster.record.mode, cluster.record.totem) == (
        Phase.OPEN,
        Mode.GUARDED,
        Totem.ORIGINAL,
    )
    assert (cluster.record.source, cluster.record.target) == ("ctrl2", "ctrl3")
    assert cluster.guarded == {"n2"}
    assert not any(line.startswith("Reload") for line in cluster.log)
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.facts() == before
    assert (cluster.record.phase, cluster.record.mode) == (Phase.IDLE, Mode.FROZEN)
    assert cluster.aims["n2"] == "ctrl3"
    assert "n2" in cluster.record.settle


def test_a_guarded_window_with_a_budget_raises_and_lowers_as_well() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, dataclasses.replace(GUARDED, budget_seconds=60)), Done)
    assert cluster.record.totem is Totem.RAISED
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("taker", ["n1", "n2", "n3"])
@pytest.mark.parametrize("steps", range(9))
def test_an_opening_killed_after_any_step_is_finished_by_a_second_one(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    drive(cluster, GUARDED, limit=steps)
    assert isinstance(drive(cluster, GUARDED, me=taker), Done)
    assert cluster.guarded == {"n2"}


@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(9))
def test_an_opening_killed_after_any_step_is_put_back_by_closing(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, GUARDED, limit=steps)
    assert isinstance(drive(cluster, BACK, me=taker), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(14))
def test_a_closing_killed_after_any_step_is_finished_by_the_next(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, GUARDED)
    cluster.guest_on = dict(MOVED)
    drive(cluster, CLOSE, limit=steps)
    assert isinstance(drive(cluster, CLOSE, me=taker), Done)
    assert cluster.facts() == before
    assert cluster.aims["n2"] == "ctrl3"


def test_the_killing_gate_stays_until_every_agent_has_proven_itself() -> None:
    cluster = opened(3, GUARDED)
    cluster.guest_on = dict(MOVED)
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, CLOSE)) == ["PROOF"]
    assert cluster.guarded == {"n2"}
    cluster.agent_fails = set()
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.guarded == set()


def test_a_fencer_that_does_not_follow_undoes_the_opening() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    cluster.slow_fencers = {"n3"}
    drive(cluster, GUARDED)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert "fencers of n3" in cluster.record.why


def test_the_mover_s_own_fencer_is_not_waited_for() -> None:
    cluster = FakeCluster(3)
    cluster.slow_fencers = {"n2"}
    assert isinstance(drive(cluster, GUARDED), Done)


def test_a_topology_that_somebody_changed_by_hand_is_put_right_by_opening_again() -> None:
    cluster = opened(3, GUARDED)
    cluster.guarded.clear()
    command = Command(cluster, GUARDED, "n1")
    step = command.look()
    while not isinstance(step, Guard):
        assert not isinstance(step, Done)
        command.act(step)
        step = command.look()
    command.act(step)
    assert cluster.guarded == {"n2"}


def test_what_was_left_without_a_window_is_taken_out_by_u() -> None:
    cluster = FakeCluster(2)
    cluster.guarded = {"n2"}
    assert isinstance(drive(cluster, BACK), Done)
    assert cluster.guarded == set()


def test_one_kind_of_window_is_not_opened_over_another() -> None:
    cluster = opened(2, GUARDED)
    assert codes(drive(cluster, OPEN)) == ["WINDOW_OPEN"]
    frozen = opened(2, dataclasses.replace(OPEN, mover="n2"))
    assert codes(drive(frozen, dataclasses.replace(GUARDED, budget_seconds=600))) == ["WINDOW_OPEN"]


def test_it_needs_a_guest_and_a_login_everywhere() -> None:
    cluster = FakeCluster(2)
    assert codes(drive(cluster, dataclasses.replace(GUARDED, mover=""))) == ["NO_MOVER"]
    cluster = FakeCluster(2)
    cluster.hosts = HOSTS | {"ctrl3": dataclasses.replace(HOSTS["ctrl3"], login=False)}
    assert codes(drive(cluster, GUARDED)) == ["NEEDS_LOGIN"]


def test_no_step_of_it_reloads_or_writes_the_topology_without_the_record() -> None:
    cluster = FakeCluster(2)
    command = Command(cluster, GUARDED, "n1")
    for _ in range(30):
        step = command.look()
        assert not isinstance(step, Reload)
        if isinstance(step, Guard):
            assert step.record.phase is Phase.OPEN
        if isinstance(step, Done):
            break
        command.act(step)
    cluster.guest_on = dict(MOVED)
    closing = Command(cluster, CLOSE, "n1")
    for _ in range(30):
        step = closing.look()
        if isinstance(step, Unguard):
            assert step.record.aimed
            assert decide(cluster.snapshot("n1"), closing.goal) == step
        if isinstance(step, Done):
            return
        closing.act(step)
    raise AssertionError("not closed")


def test_a_host_that_another_node_lives_on_is_warned_of_and_not_refused() -> None:
    done = drive(FakeCluster(3), dataclasses.replace(GUARDED, target="ctrl1"))
    assert isinstance(done, Done)
    assert [message.code for message in done.warnings] == ["NEIGHBOURS"]
    assert "g1 (n1), g3 (n3)" in done.warnings[0].text
    empty = drive(FakeCluster(3), GUARDED)
    assert isinstance(empty, Done)
    assert empty.warnings == ()


# -- closing for another guest -------------------------------------------------------------------------------

OTHER = CloseGoal(node="n1", guest="g1", target="ctrl1")


@pytest.mark.parametrize("steps", range(9))
def test_a_guarded_window_is_not_closed_for_another_guest(steps: int) -> None:
    """Whatever was done of its opening: its mover is never left with its killing gate alone."""
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, GUARDED, limit=steps)
    held, record = set(cluster.guarded), cluster.record
    outcome = drive(cluster, OTHER)
    if held:
        assert codes(outcome) == ["OTHER_GUEST"]
        assert isinstance(outcome, Stop)
        assert (outcome.unfinished, cluster.guarded) == (True, held)
        assert outcome.messages[0].next_command == "clovmmigrate -u g2 ctrl2"
        assert cluster.record.mover == record.mover == "n2"
        assert isinstance(drive(cluster, BACK), Done)
    else:
        assert isinstance(outcome, Done)
    assert cluster.facts() == before


def test_nor_while_it_is_being_closed_or_moved() -> None:
    cluster = opened(3, GUARDED)
    cluster.guest_on = dict(MOVED)
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, CLOSE)) == ["PROOF"]
    outcome = drive(cluster, OTHER)
    assert codes(outcome) == ["OTHER_GUEST"]
    assert isinstance(outcome, Stop)
    assert outcome.messages[0].next_command == "clovmmigrate -u g2 ctrl3"
    cluster.guest_on = {"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}
    outcome = drive(cluster, OTHER)
    assert isinstance(outcome, Stop)
    assert outcome.messages[0].next_command == "clovmmigrate -u g2 HOST"


def test_a_mover_that_is_proven_off_leaves_its_killing_gate_with_the_first_write() -> None:
    cluster = opened(3, GUARDED)
    cluster.gone, cluster.proven_off = {"n2"}, frozenset({"n2"})
    cluster.guest_on = {}
    cluster.sync()
    command = Command(cluster, OTHER, "n1")
    while not isinstance(step := command.look(), Unguard):
        assert not isinstance(step, Done | Stop)
        command.act(step)
    assert (step.nodes, step.record.phase, step.record.mover) == (("n2",), Phase.CLOSING, "n1")
    assert "n2" in step.record.settle
    command.act(step)
    assert isinstance(drive(cluster, OTHER), Done)
    assert (cluster.guarded, cluster.record.phase) == (set(), Phase.IDLE)


@pytest.mark.parametrize("target", ["ctrl2", "ctrl3"])
def test_a_guest_that_moved_too_is_closed_after_the_mover_s_killing_gate_is_gone(target: str) -> None:
    cluster = opened(3, GUARDED)
    before = copy.deepcopy(cluster.facts())
    cluster.guest_on = {target: GuestState.RUNNING}
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    mine = dataclasses.replace(CLOSE, target=target)
    other = dataclasses.replace(OTHER, target="ctrl3")
    assert codes(drive(cluster, other)) == ["OTHER_GUEST"]
    outcome = drive(cluster, mine)
    assert isinstance(outcome, Stop)
    assert outcome.messages[0].next_command == "clovmmigrate -u g1 ctrl3"
    assert (cluster.guarded, cluster.aims["n2"], cluster.record.phase) == (set(), target, Phase.CLOSING)
    assert isinstance(drive(cluster, other), Done)
    assert cluster.aims["n1"] == "ctrl3"
    assert cluster.facts()[:2] == before[:2]
