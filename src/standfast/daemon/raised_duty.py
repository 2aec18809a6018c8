"""What this node does about a heartbeat that was raised just in time, and that no command lowers any more.

The decision is `core.raising.turn`; here are its hands: the operator's own command, started as a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from standfast.core import raising
from standfast.core.raising import RaisedView
from standfast.core.record import Record
from standfast.core.report import Report
from standfast.core.steps import LowerGoal
from standfast.daemon import own_command

LIMIT_SECONDS = 150.0
"""More than the command's own."""


@dataclass(frozen=True)
class Seen:
    """What the daemon knows at this look."""

    me: str
    members: frozenset[str]
    record: Record | None
    reports: Mapping[str, Report]


class RaisedDuty:
    """Asked at each look of the daemon. One that is started anew counts anew: late, never early."""

    def __init__(
        self,
        tell: Callable[[str], None],
        lower: Callable[[LowerGoal], Awaitable[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lower`: carries it out; empty: it is down, else why not."""
        self._tell, self._lower, self._clock = tell, lower or run_lower, clock
        self._window = 0
        self._raised_at = 0.0
        self._left_at: float | None = None
        self._tried_at: float | None = None
        self._work: asyncio.Task[None] | None = None

    def step(self, seen: Seen) -> None:
        """Do what is due now. Never raises for what the world does; the lowering goes on by itself."""
        record, now = seen.record, self._clock()
        if record is None or not raising.is_up(record, seen.members, seen.reports):
            self._window, self._left_at, self._tried_at = 0, None, None
            return
        if record.window != self._window:
            self._window, self._raised_at, self._left_at, self._tried_at = record.window, now, None, None
        if commanded(record, seen.members, seen.reports):
            self._left_at = None
        elif self._left_at is None:
            self._left_at = now
        if self._work is not None and not self._work.done():
            return
        view = RaisedView(
            seen.me,
            seen.members,
            record,
            True,
            now - self._raised_at,
            None if self._left_at is None else now - self._left_at,
            None if self._tried_at is None else now - self._tried_at,
        )
        if (goal := raising.turn(view)) is not None:
            self._tried_at = now
            self._work = asyncio.create_task(self._try(goal))

    async def ended(self) -> None:
        """Wait for what goes on by itself."""
        if self._work is not None:
            await self._work

    async def _try(self, goal: LowerGoal) -> None:
        why = "for longer than any command may have it" if goal.overdue else "and no command drives it"
        self._tell(f"the heartbeat timeout is raised {why}: lowering it")
        refusal = await self._lower(goal)
        self._tried_at = self._clock()
        self._tell(f"not lowered: {refusal}" if refusal else "the heartbeat timeout is as it was")


def commanded(record: Record, members: frozenset[str], reports: Mapping[str, Report]) -> bool:
    """Whether the owner of the window is there, and says that a command is alive on it."""
    report = reports.get(record.owner)
    return record.owner in members and report is not None and report.commanding


async def run_lower(goal: LowerGoal) -> str:
    """Lower as an operator would. Empty: it is down; else why not, and what to type."""
    argv = ("standfast", "window", "lower", "--json", *(["--overdue"] if goal.overdue else []))
    return (await own_command.run(argv, LIMIT_SECONDS)).refusal
