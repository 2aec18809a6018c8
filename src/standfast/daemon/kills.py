"""Kills by hand that are under way on this node: each in a thread of its own, one a node, few at once.

A kill takes minutes. The default executor of asyncio is joined when the daemon ends, so a kill in it would
hold up SIGTERM until its limit; a daemon thread ends with the process. The fencer has the order by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

KILLS_AT_ONCE = 8


class Busy(Exception):
    """The kill was not begun; the text says why."""


class Kills:
    """Begins kills with `fence(node)`, which blocks until it has ended and raises what the fencer says."""

    def __init__(self, fence: Callable[[str], None]) -> None:
        self._fence = fence
        self._under_way: set[str] = set()

    def begin(self, node: str) -> asyncio.Future[None]:
        """Begin to kill `node`; the future ends with it, by what `fence` raised where it did. Raises Busy.

        A node counts as being killed until `fence` has returned, also where nobody waits for it any more.
        """
        if node in self._under_way:
            raise Busy(f"{node} is being killed already")
        if len(self._under_way) >= KILLS_AT_ONCE:
            raise Busy(f"{KILLS_AT_ONCE} kills are under way on this node; that of {node} was not begun")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end(error: Exception | None) -> None:
            self._under_way.discard(node)
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        def work() -> None:
            error: Exception | None = None
            try:
                self._fence(node)
            except Exception as raised:
                error = raised
            # The daemon may have ended meanwhile, and with it the loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, error)

        self._under_way.add(node)
        try:
            threading.Thread(target=work, name=f"kill-{node}", daemon=True).start()
        except RuntimeError:
            self._under_way.discard(node)
            raise
        return ended
