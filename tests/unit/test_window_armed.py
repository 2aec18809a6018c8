"""The planner from an armed window on: closed as a guarded one, after every prefix, and nothing is left."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from driver import codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core.arming import Arm, armed
from standfast.core.evidence import GuestState
from standfast.core.record import Armed, Mode, Phase, Totem
from standfast.core.steps import CloseGoal, Done, OpenGoal

FOR_N2 = dataclasses.replace(OPEN, mover="n2")
OTHER = CloseGoal(node="n1", guest="g1", target="ctrl1")


def arm(cluster: FakeCluster, node: str = "n2") -> None:
    """What a daemon's one write does."""
    found = cluster.record
    new = armed(found, Arm(node, found.window, found.mover), cluster.snapshot("n1").aims)
    assert new is not None
    cluster.record = new
    cluster.guarded.add(node)
    cluster.sync()


def lost_and_armed(goal: OpenGoal = FOR_N2, closing: int = 0) -> FakeCluster:
    """n2 is lost, after so many steps of a close, and the window is armed for it."""
    cluster = opened(3, goal)
    if closing:
        cluster.guest_on = {"ctrl3": GuestState.RUNNING}
        drive(cluster, CLOSE, limit=closing)
    cluster.gone = {"n2"}
    cluster.sync()
    arm(cluster)
    return cluster


@pytest.mark.parametrize("goal", [OPEN, FOR_N2])
@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(16))
def test_a_killed_mover_that_is_started_again_is_closed_from_every_prefix(
    steps: int, taker: str, goal: OpenGoal
) -> None:
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster = lost_and_armed(goal)
    assert (cluster.record.totem, cluster.record.mode) == (Totem.RAISED, Mode.GUARDED)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.come_back("n2")
    drive(cluster, CLOSE, limit=steps)
    assert isinstance(drive(cluster, CLOSE, me=taker), Done)
    assert cluster.facts() == before
    assert cluster.aims["n2"] == "ctrl3"
    assert (cluster.record.phase, cluster.record.mode, cluster.record.armed) == (
        Phase.IDLE,
        Mode.FROZEN,
        Armed.NO,
    )


@pytest.mark.parametrize("closing", range(1, 5))
def test_a_close_that_was_under_way_is_gone_on_with_from_the_armed_state(closing: int) -> None:
    cluster = lost_and_armed(closing=closing)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.come_back("n2")
    assert cluster.guarded == {"n2"}
    assert isinstance(drive(cluster, CLOSE, me="n3"), Done)
    assert cluster.guarded == set()


def test_while_the_mover_is_lost_and_not_proven_off_nothing_is_closed() -> None:
    cluster = lost_and_armed()
    assert codes(drive(cluster, CLOSE)) == ["MEMBER_MISSING"]
    assert codes(drive(cluster, OTHER)) == ["OTHER_GUEST"]
    assert cluster.guarded == {"n2"}
    assert cluster.record.phase is Phase.OPEN


@pytest.mark.parametrize("steps", range(12))
def test_where_the_mover_is_proven_off_the_u_of_another_guest_takes_the_killing_gate_out(steps: int) -> None:
    cluster = lost_and_armed()
    cluster.guest_on = {}
    cluster.proven_off = frozenset({"n2"})
    assert codes(drive(cluster, CLOSE)) == ["GUEST_STOPPED"]
    drive(cluster, OTHER, limit=steps)
    if cluster.record.open:
        drive(cluster, OTHER, me="n3")
    assert cluster.guarded == set()
    assert (cluster.record.phase, cluster.record.armed) == (Phase.IDLE, Armed.NO)


def test_a_former_mover_has_to_be_proven_too_before_the_window_closes() -> None:
    cluster = opened(3, dataclasses.replace(OPEN, mover="n1"))
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    cluster.gone = {"n2"}
    cluster.sync()
    arm(cluster)
    assert cluster.record.settle == ("n1",)
    cluster.come_back("n2")
    back = CloseGoal(node="n2", guest="g2", target="ctrl2")
    assert codes(drive(cluster, back)) == ["OTHER_GUEST"]
    assert isinstance(drive(cluster, CloseGoal(node="n1", guest="g1", target="ctrl3")), Done)
    assert cluster.aims["n1"] == "ctrl3"


def test_a_new_opening_is_refused_and_a_topology_changed_by_hand_is_put_right_by_it() -> None:
    cluster = lost_and_armed()
    assert codes(drive(cluster, FOR_N2)) == ["WINDOW_OPEN"]
    assert codes(drive(cluster, OPEN)) == ["WINDOW_OPEN"]
    cluster.guarded.clear()
    cluster.sync()
    guarded = dataclasses.replace(OPEN, mover="n2", budget_seconds=0, mode=Mode.GUARDED)
    # It is not confirmed, since n2 is being fenced, but its killing gate is there again.
    assert codes(drive(cluster, guarded)) == ["WINDOW_OPEN"]
    assert cluster.guarded == {"n2"}
    assert cluster.record.totem is Totem.RAISED


def test_what_was_not_proven_is_saved_anew_by_the_next_u() -> None:
    """The guest may have begun to move since its hosts have saved, and then its XSCF does not know it."""
    cluster = opened(3, FOR_N2)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, CLOSE)) == ["PROOF"]
    assert cluster.saves == ["ctrl2", "ctrl3"]
    cluster.agent_fails = set()
    assert isinstance(drive(cluster, CLOSE, me="n3"), Done)
    assert cluster.saves == ["ctrl2", "ctrl3", "ctrl2", "ctrl3"]


def test_what_people_have_said_is_not_asked_for_again() -> None:
    skipped = dataclasses.replace(CLOSE, skip_save={"ctrl2": "dead"})
    cluster = opened(3, FOR_N2)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, skipped)) == ["PROOF"]
    cluster.agent_fails = set()
    assert isinstance(drive(cluster, CLOSE, me="n3"), Done)
    assert cluster.saves == ["ctrl3", "ctrl3"]
