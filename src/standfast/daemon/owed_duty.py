"""Taking back what the record owes this node: how often it is tried, and the end of it in the record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from xml.etree import ElementTree as ET

from standfast.cluster import cmap, record_change
from standfast.cluster.record_change import NoRecordError
from standfast.cluster.run import EngineError
from standfast.core import owed, record
from standfast.core.owed import Debt
from standfast.core.record import Record
from standfast.daemon.heartbeat_duty import FileState

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
SETTLE_LIMIT_SECONDS = 10.0
PAUSE_SECONDS = 0.02
"""After a step, before the next look: the engine takes so long to show it."""

log = logging.getLogger("standfastd")


class Backoff:
    """When the next try is due: at once, then after 2 s, 4 s ... up to 5 minutes, for as long as it takes."""

    def __init__(self) -> None:
        self.wait_seconds = FIRST_WAIT_SECONDS
        self._next = 0.0

    def due(self, now: float, *, afresh: bool = False) -> bool:
        """Whether to try now (monotonic seconds); a yes moves the next on. `afresh`: a step has worked."""
        if afresh:
            self.reset()
        if now < self._next:
            return False
        if self._next:
            self.wait_seconds = min(2 * self.wait_seconds, LONGEST_WAIT_SECONDS)
        self._next = now + self.wait_seconds
        return True

    def reset(self) -> None:
        """Nothing to try: the next time begins at once."""
        self.wait_seconds, self._next = FIRST_WAIT_SECONDS, 0.0


def settle(node: str) -> None:
    """Take the entry of `node` out of the record. Raises what `record_change.change` does."""

    def without(found: Record, _: ET.Element) -> Record | None:
        return owed.without(found, node, owner=node) if owed.entry_of(found, node) is not None else None

    record_change.change(without, SETTLE_LIMIT_SECONDS)


class TakeBack:
    """The way of a node that was away when a window closed, back to its own values, one step a look."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        """`note`: kind and text for log and journal."""
        self._note = note
        self._backoff = Backoff()
        self._tried = Debt.NONE

    async def step(self, node: str, file: FileState) -> bool:
        """The next step, where one is due; whether one was done, so that a new look tells more."""
        debt = file.debt
        if debt not in (Debt.RELOAD, Debt.PAID):
            self._backoff.reset()
            return False
        afresh = file.changed or debt is not self._tried
        self._tried = debt
        if not self._backoff.due(time.monotonic(), afresh=afresh):
            return False
        log.warning("%s; %s", owed.sentence(node), debt.value)
        try:
            if debt is Debt.RELOAD:
                await asyncio.to_thread(cmap.reload)
            else:
                await asyncio.to_thread(settle, node)
                self._note("corosync.conf", "the old values are back, nothing is owed to this node any more")
        except (EngineError, record.RecordError, NoRecordError) as error:
            log.error("%s: %s; tried again in %.0f s", debt.value, error, self._backoff.wait_seconds)
            return False
        await asyncio.sleep(PAUSE_SECONDS)
        return True
