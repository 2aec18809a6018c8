"""Whether a raise that was read back from every member is in force still, as a guest is about to leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from standfast.cluster.run import EngineError
from standfast.core import holding, raising
from standfast.core.steps import RaiseGoal, Snapshot
from standfast.sightings import ring_number

LIMIT_SECONDS = 10.0
"""For one answer; a look at this node's copy of the cluster."""
TRIES = 3
AGAIN_SECONDS = 1.0
"""A slow node is no lost one, and a report may be late."""

Seen = Callable[[], Awaitable[Snapshot]]
"""A quick look at the cluster, as this node has it. Raises EngineError."""


class ReadBack:
    """Of one raise. What was seen is good for as long as a node may stand still."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._goal: RaiseGoal | None = None
        self._ring: int | None = None
        self._came_at = self._asked_at = float("-inf")
        self._answer: asyncio.Task[str] | None = None
        """Why it is not in force any more on every other member; empty: it is."""

    def begins(self, goal: RaiseGoal) -> None:
        """The raise does."""
        self._goal, self._ring = goal, ring_number()

    def came(self) -> None:
        """From every other member, just now."""
        self._came_at = time.monotonic()

    def ask_soon(self) -> None:
        """Beside the last part of the way, unless it was read back a moment ago or is being asked."""
        if self._answer is None and not _is_young(self._came_at):
            self._asked_at = time.monotonic()
            self._answer = asyncio.create_task(self._asked())

    async def answer(self, ends: set[asyncio.Task[Any]]) -> str | None:
        """By an answer that is young: empty where it is in force, else why not. None: one of `ends` has ended
        before."""
        while not _is_young(self._came_at):
            self.ask_soon()
            answer = self._answer
            assert answer is not None
            await asyncio.wait({answer, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                return None
            if (why := answer.result()) or _is_young(self._asked_at):
                return why
            self._answer = None
        return ""

    async def late_answer(self) -> str:
        """What was asked and is not answered yet; empty also where nothing was asked."""
        if self._answer is None:
            return ""
        try:
            return await self._answer
        except Exception as error:
            return f"it was not told: {error}"  # what is raised is to be lowered first

    async def _asked(self) -> str:
        why = f"the cluster does not answer here within {LIMIT_SECONDS:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_SECONDS):
                for left in reversed(range(TRIES)):
                    why = await self._judged()
                    if not (why and left):
                        break
                    await asyncio.sleep(AGAIN_SECONDS)
        return why

    async def _judged(self) -> str:
        assert self._goal is not None
        try:
            snapshot = await self._seen()
        except EngineError as error:
            return str(error)
        if ring_number() != self._ring:
            return "the ring of this node has changed"
        return raising.still_raised(snapshot, self._goal)


def _is_young(at: float) -> bool:
    return time.monotonic() - at <= holding.STOOD_STILL_SECONDS
