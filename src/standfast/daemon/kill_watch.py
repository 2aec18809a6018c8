"""How the kills of a node ended that this node's fencer carried out, also those that Pacemaker asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from standfast.cluster import fencer
from standfast.cluster.run import EngineError
from standfast.daemon.board import Board

LOOK_SECONDS = 1.0
MAX_LOOKS = 120


class KillWatch:
    """Knows the kills of former times; a node that is lost is looked after until it is back."""

    def __init__(self, board: Board, note: Callable[[str, str], None]) -> None:
        """`note`: kind and text for log and journal."""
        self._board, self._note = board, note
        self._old: set[fencer.FencingEvent] = set()

    async def so_far(self, node: str) -> None:
        """A node that is a member now was killed before, not this time: the fencer remembers for long."""
        with contextlib.suppress(EngineError):
            self._old |= set(await asyncio.to_thread(fencer.history, node))

    async def follow(self, node: str, me: str, back: Callable[[], bool]) -> None:
        """When the fencer of this node, `me`, has killed `node`, its agents show it."""
        for _ in range(MAX_LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(EngineError):
                events = await asyncio.to_thread(fencer.history, node)
                done = [
                    e for e in events if e.status == "success" and e.delegate == me and e not in self._old
                ]
                if done:
                    self._board.shut(node, "KillWorked")
                    self._note("fencing", f"{node} was killed by this node ({done[0].action})")
                    return
            if back():
                return
