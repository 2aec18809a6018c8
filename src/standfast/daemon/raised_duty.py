"""What this node does about a heartbeat that was raised just in time, and that no command lowers any more.

The decision is `core.raising.turn`; here are its hands: the operator's own command, started as a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from standfast.core import raising
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
        self._book = raising.Book()
        self._work: asyncio.Task[None] | None = None

    def step(self, seen: Seen) -> None:
        """Do what is due now. Never raises for what the world does; the lowering goes on by itself."""
        busy = self._work is not None and not self._work.done()
        goal = self._book.turn(seen.me, seen.members, seen.record, seen.reports, self._clock(), busy=busy)
        if goal is not None:
            self._work = asyncio.create_task(self._try(goal))

    async def ended(self) -> None:
        """Wait for what goes on by itself."""
        if self._work is not None:
            await self._work

    async def _try(self, goal: LowerGoal) -> None:
        why = "for longer than any command may have it" if goal.overdue else "and no command drives it"
        self._tell(f"the heartbeat timeout is raised {why}: lowering it")
        refusal = await self._lower(goal)
        self._book.tried(self._clock())
        self._tell(f"not lowered: {refusal}" if refusal else "the heartbeat timeout is as it was")


async def run_lower(goal: LowerGoal) -> str:
    """Lower as an operator would. Empty: it is down; else why not, and what to type."""
    argv = ("standfast", "window", "lower", "--json", *(["--overdue"] if goal.overdue else []))
    return (await own_command.run(argv, LIMIT_SECONDS)).refusal
