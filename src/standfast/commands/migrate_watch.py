"""Sees, where ``standfast migrate`` runs, when the node that moves leaves the membership and returns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from standfast.cluster import ring, ring_watch
from standfast.cluster.run import EngineError
from standfast.core.blackout import Watch

LOOK_SECONDS = 2.0
"""Corosync tells each change at once; this is for where it does not."""
RETURN_POLL_SECONDS = 0.25


class Watcher:
    """What has been seen so far."""

    def __init__(self, node: str, expected: frozenset[str]) -> None:
        self.seen = Watch(node)
        self._expected = expected
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[Watcher]:
        """Look in the block, and once more at its end."""
        loop = asyncio.get_running_loop()

        def changed() -> None:
            # The thread outlives this loop by design: it ends with the process.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._changed.set)

        ring_watch.start(changed)
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _follow(self) -> None:
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    async def look(self) -> None:
        """Look now. That corosync does not answer for a moment says nothing."""
        with contextlib.suppress(EngineError):
            found = await asyncio.to_thread(ring.look)
            self.seen = self.seen.look(found.members, self._expected, time.monotonic())

    async def returned(self, limit_seconds: float, say: Callable[[str], None]) -> bool:
        """Wait until the node is in the membership; whether it came in time."""
        await self.look()
        deadline = time.monotonic() + limit_seconds
        if self.seen.away:
            say(f"waiting for {self.seen.node} to be in the membership again (up to {limit_seconds:.0f} s)")
        while self.seen.away and time.monotonic() < deadline:
            await asyncio.sleep(RETURN_POLL_SECONDS)
            await self.look()
        return not self.seen.away
