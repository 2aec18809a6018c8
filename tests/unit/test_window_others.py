"""A window is every guest's that moves in it: closing it for one never leaves another unproven."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from driver import codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core import heartbeat
from standfast.core.evidence import GuestState
from standfast.core.record import Phase
from standfast.core.steps import CloseGoal, Done, Stop

FOR_G2 = replace(OPEN, mover="n2")
G1 = CloseGoal(node="n1", guest="g1", target="ctrl1")


def raised(cluster: FakeCluster) -> bool:
    return all(heartbeat.timeout_ms(node.runtime) == 600_000 for node in cluster.nodes.values())


@pytest.mark.parametrize("goal", [OPEN, FOR_G2])
@pytest.mark.parametrize(
    ("places", "host"),
    [
        ({"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}, "ctrl2"),
        ({"ctrl3": GuestState.INCOMING}, "ctrl3"),
        ({"ctrl2": GuestState.ERROR, "ctrl3": GuestState.RUNNING}, "ctrl2"),
        ({"ctrl2": GuestState.RUNNING, "ctrl3": GuestState.UNKNOWN}, "ctrl3"),
        ({"ctrl3": GuestState.RUNNING}, "ctrl3"),
        ({"ctrl2": GuestState.RUNNING, "ctrl3": GuestState.RUNNING}, "ctrl2"),
    ],
)
def test_another_guest_that_is_not_plainly_at_its_aim_is_named_and_nothing_is_changed(
    goal: object, places: dict[str, GuestState], host: str
) -> None:
    cluster = opened(3, goal)  # type: ignore[arg-type]
    cluster.guest_on = places
    before = cluster.record
    decision = drive(cluster, G1)
    assert codes(decision) == ["OTHER_GUEST"]
    assert isinstance(decision, Stop)
    assert decision.unfinished
    message = decision.messages[0]
    assert "g2" in message.text
    assert message.host == host
    assert "clovmmigrate -u g2 " in message.next_command
    assert cluster.record == before
    assert raised(cluster)


def test_the_host_where_the_other_guest_runs_stands_in_the_next_command() -> None:
    cluster = opened(3, FOR_G2)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    decision = drive(cluster, G1)
    assert isinstance(decision, Stop)
    assert decision.messages[0].next_command == "clovmmigrate -u g2 ctrl3"


def test_two_guests_that_moved_in_one_window_are_closed_one_after_the_other() -> None:
    cluster = opened(3)
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    first = drive(cluster, CLOSE)
    assert codes(first) == ["OTHER_GUEST"]
    assert isinstance(first, Stop)
    assert first.messages[0].next_command == "clovmmigrate -u g1 ctrl3"
    assert cluster.aims["n2"] == "ctrl3"
    assert raised(cluster)
    assert isinstance(drive(cluster, replace(G1, target="ctrl3")), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert cluster.record.settle == ("n1", "n2")


def test_a_mover_whose_agents_did_not_prove_themselves_is_not_forgotten_by_closing_for_another() -> None:
    cluster = opened(3, FOR_G2)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.agent_fails.add("SA-n2")
    assert codes(drive(cluster, CLOSE)) == ["PROOF"]
    assert codes(drive(cluster, G1)) == ["OTHER_GUEST"]
    assert raised(cluster)
    cluster.agent_fails.clear()
    assert isinstance(drive(cluster, CLOSE), Done)


def test_a_mover_that_is_a_member_and_runs_nowhere_plainly_keeps_the_window() -> None:
    for places in ({"ctrl2": GuestState.PAUSED}, {"ctrl2": GuestState.CRASHED}, {}):
        cluster = opened(3, FOR_G2)
        cluster.guest_on = places
        assert codes(drive(cluster, G1)) == ["OTHER_GUEST"]


def test_a_mover_that_is_proven_off_does_not_keep_the_window() -> None:
    cluster = opened(3, FOR_G2)
    cluster.guest_on = {"ctrl2": GuestState.STOPPED}
    cluster.gone, cluster.proven_off = {"n2"}, frozenset({"n2"})
    assert isinstance(drive(cluster, G1), Done)
    assert cluster.record.settle == ("n1", "n2")


def test_a_mover_that_stayed_plainly_at_its_aim_does_not_keep_the_window() -> None:
    cluster = opened(3, FOR_G2)
    assert isinstance(drive(cluster, G1), Done)
    assert cluster.record.settle == ("n1", "n2")


def test_two_guests_that_moved_unannounced_can_be_repaired_one_after_the_other() -> None:
    cluster = FakeCluster(3)
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    assert isinstance(drive(cluster, CLOSE), Done)
    assert isinstance(drive(cluster, replace(G1, target="ctrl3")), Done)
    assert cluster.record.settle == ("n1", "n2")


def test_a_dead_host_that_is_skipped_does_not_speak_for_other_guests() -> None:
    cluster = opened(2)
    for guest in cluster.guests:
        cluster.guests[guest]["ctrl2"] = GuestState.SILENT
    cluster.guest_on["ctrl3"] = GuestState.RUNNING
    assert isinstance(drive(cluster, replace(CLOSE, skip_save={"ctrl2": "burnt"})), Done)


@pytest.mark.parametrize("steps", range(24))
def test_a_closing_of_two_guests_killed_after_any_step_is_finished_on_another_node(steps: int) -> None:
    cluster = opened(3)
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    goals = [CLOSE, replace(G1, target="ctrl3")]
    drive(cluster, goals[0], limit=steps)
    drive(cluster, goals[1], limit=max(0, steps - 8))
    for goal in goals:
        drive(cluster, goal, me="n3")
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert (cluster.aims["n1"], cluster.aims["n2"]) == ("ctrl3", "ctrl3")


def test_a_node_that_is_unregistered_while_its_proof_is_waited_for_is_named() -> None:
    cluster = opened()
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    drive(cluster, CLOSE)
    cluster.agent_hangs.add("SA-n2")

    def remove(cluster: FakeCluster, number: int) -> None:
        if number == 2:
            cluster.unregister("n2")

    decision = drive(cluster, CLOSE, disturb=remove)
    assert codes(decision) == ["NOT_REGISTERED"]
    assert isinstance(decision, Stop)
    assert not decision.unfinished
