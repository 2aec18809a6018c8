"""A node lowers what a command has left raised: when it is its turn, and again after a while."""

from __future__ import annotations

import asyncio

import pytest

from standfast.core.raising import RETRY_SECONDS, UNCOMMANDED_SECONDS, limit_seconds
from standfast.core.record import Phase, Record, Totem
from standfast.core.report import Report
from standfast.core.steps import LowerGoal
from standfast.daemon import raised_duty
from standfast.daemon.raised_duty import RaisedDuty, Seen

RAISED = Record(9, Phase.OPEN, "n1", "n2", totem=Totem.RAISED, window=4, budget_seconds=20, just_in_time=True)
ALL = frozenset({"n1", "n2", "n3"})


class Node:
    """The duty of n3, with a clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lowered: list[LowerGoal] = []
        self.said: list[str] = []
        self.refusal = ""
        self.duty = RaisedDuty(self.said.append, self.lower, lambda: self.now)

    async def lower(self, goal: LowerGoal) -> str:
        self.lowered.append(goal)
        return self.refusal

    async def at(
        self,
        seconds: float,
        *,
        commanding: bool = False,
        record: Record | None = RAISED,
        members: frozenset[str] = ALL,
    ) -> None:
        self.now = 1000.0 + seconds
        self.duty.step(Seen("n3", members, record, {"n1": Report("n1", commanding=commanding)}))
        await self.duty.ended()


TURN = UNCOMMANDED_SECONDS + 15.0
"""n3 is the second in the order."""


async def test_while_a_command_is_at_work_nothing_is_done() -> None:
    node = Node()
    for seconds in (0, 60, 150):
        await node.at(seconds, commanding=True)
    assert not node.lowered


async def test_after_its_end_it_counts_from_then() -> None:
    node = Node()
    await node.at(0, commanding=True)
    await node.at(60)
    await node.at(60 + TURN - 1)
    assert not node.lowered
    await node.at(60 + TURN)
    assert node.lowered == [LowerGoal(4, 9, overdue=False)]
    assert node.said == [
        "the heartbeat timeout is raised and no command drives it: lowering it",
        "the heartbeat timeout is as it was",
    ]


async def test_a_daemon_that_is_started_anew_hides_its_command_for_a_moment_only() -> None:
    node = Node()
    await node.at(0, commanding=True)
    await node.at(60)
    await node.at(63, commanding=True)
    await node.at(60 + TURN)
    assert not node.lowered


async def test_an_owner_that_is_no_member_drives_nothing() -> None:
    node = Node()
    for seconds in (0.0, UNCOMMANDED_SECONDS):
        await node.at(seconds, commanding=True, members=frozenset({"n2", "n3"}))
    assert node.lowered == [LowerGoal(4, 9, overdue=False)]


async def test_what_is_called_commanded_for_ever_is_overdue_in_the_end() -> None:
    node = Node()
    await node.at(0, commanding=True)
    await node.at(limit_seconds(20) + 15, commanding=True)
    assert node.lowered == [LowerGoal(4, 9, overdue=True)]


async def test_a_refusal_is_told_and_tried_again_after_a_while() -> None:
    node = Node()
    node.refusal = "the cluster cannot be written"
    await node.at(0)
    await node.at(TURN)
    await node.at(TURN + 1)
    assert len(node.lowered) == 1
    assert node.said[-1] == "not lowered: the cluster cannot be written"
    await node.at(TURN + RETRY_SECONDS)
    assert len(node.lowered) == 2


async def test_another_window_counts_anew() -> None:
    node = Node()
    await node.at(0)
    await node.at(10, record=RAISED.next(totem=Totem.ORIGINAL))
    await node.at(60, record=RAISED.next(window=20))
    assert not node.lowered
    await node.at(61, record=None)


async def test_the_command_is_what_an_operator_would_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[str, ...]] = []

    async def run(argv: tuple[str, ...], limit_seconds: float) -> raised_duty.own_command.Ended:
        given.append(argv)
        return raised_duty.own_command.Ended("no")

    monkeypatch.setattr(raised_duty.own_command, "run", run)
    assert await raised_duty.run_lower(LowerGoal(4)) == "no"
    await raised_duty.run_lower(LowerGoal(4, overdue=True))
    assert given == [
        ("standfast", "window", "lower", "--json"),
        ("standfast", "window", "lower", "--json", "--overdue"),
    ]
    await asyncio.sleep(0)
