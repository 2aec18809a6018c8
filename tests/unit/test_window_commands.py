"""Two commands at once, and daemons that were killed while theirs ran."""

from __future__ import annotations

import copy

import pytest
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core.evidence import GuestState
from standfast.core.record import Phase
from standfast.core.steps import CloseGoal, Done, OpenGoal, Stop

MOVED = {"ctrl3": GuestState.RUNNING}


def killed_in(goal: OpenGoal | CloseGoal, steps: int) -> FakeCluster:
    """A command of n1 that was killed together with the daemon: the last report says that it lives."""
    cluster = FakeCluster(3) if isinstance(goal, OpenGoal) else opened(3)
    if isinstance(goal, CloseGoal):
        cluster.guest_on = dict(MOVED)
    command = Command(cluster, goal, "n1")
    for _ in range(steps):
        command.act(command.look())
    cluster.nodes["n1"].deaf = True
    assert cluster.published["n1"].commanding
    return cluster


@pytest.mark.parametrize("goal", [OPEN, CLOSE])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_daemon_that_was_killed_with_its_command_is_named_and_nothing_goes_on_without_it(
    goal: OpenGoal | CloseGoal, steps: int
) -> None:
    cluster = killed_in(goal, steps)
    cluster.guest_on = dict(MOVED)
    before = cluster.record
    decision = drive(cluster, CLOSE, me="n2")
    assert codes(decision) == ["NO_REPORT"]
    assert isinstance(decision, Stop)
    assert decision.unfinished
    assert decision.messages[0].next_command == "systemctl start standfastd (on n1)"
    assert cluster.record == before.next()  # the roll call, and nothing else
    cluster.restart_daemon("n1")
    assert isinstance(drive(cluster, CLOSE, me="n2"), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == FakeCluster(3).facts()


def test_a_daemon_that_starts_again_while_it_is_waited_for_hands_its_window_over() -> None:
    cluster = killed_in(CLOSE, 4)

    def start(cluster: FakeCluster, number: int) -> None:
        if number == 2:
            cluster.restart_daemon("n1")

    assert isinstance(drive(cluster, CLOSE, me="n2", disturb=start), Done)


@pytest.mark.parametrize("steps", range(14))
@pytest.mark.parametrize("goal", [OPEN, CLOSE])
def test_a_live_command_survives_the_roll_call_of_another_and_finishes(
    goal: OpenGoal | CloseGoal, steps: int
) -> None:
    cluster = FakeCluster(3) if isinstance(goal, OpenGoal) else opened(3)
    before = copy.deepcopy(FakeCluster(3).facts())
    if isinstance(goal, CloseGoal):
        cluster.guest_on = dict(MOVED)
    first = Command(cluster, goal, "n1")
    step = first.look()
    for _ in range(steps):
        if isinstance(step, Done | Stop):
            return
        first.act(step)
        step = first.look()
    # `step` is decided on the old epoch: the second command comes between.
    if cluster.record.phase is not Phase.IDLE:
        assert codes(drive(cluster, goal, me="n2")) == ["BUSY"]
        assert not cluster.record.abort
    for _ in range(40):
        if isinstance(step, Done | Stop):
            break
        first.act(step)
        step = first.look()
    assert isinstance(step, Done), step
    if isinstance(goal, CloseGoal):
        assert cluster.facts() == before


def test_a_command_whose_window_was_taken_over_gives_way() -> None:
    """Its daemon was started anew and knows of no command: the other one goes on, and the first sees it."""
    cluster = opened(3)
    cluster.guest_on = dict(MOVED)
    first = Command(cluster, CLOSE, "n1")
    for _ in range(3):
        first.act(first.look())
    cluster.restart_daemon("n1")
    second = Command(cluster, CLOSE, "n2")
    for _ in range(2):
        second.act(second.look())
    assert cluster.record.owner == "n2"
    step = first.look()
    for _ in range(3):
        if isinstance(step, Stop):
            break
        first.act(step)
        step = first.look()
    assert codes(step) == ["BUSY"]
    for _ in range(40):
        step = second.look()
        if isinstance(step, Done | Stop):
            break
        second.act(step)
    assert isinstance(step, Done)
