"""The switch of this node's shutdown facility: ``sdtool -e`` and ``-b``, kept in the record.

Rules of this file:

* The record's list decides, for this daemon as for the gate; a file of this node decides nothing.
* The marker in /run says what THIS boot has asked for. In the list without a marker: stopped before a
  reboot, and a reboot starts the facility. A marker that is only ``asked``: the write may land later than its
  answer, or when the member that was counted on is lost; so it is looked at again when the record shows it.
* A marker is made before the list is written, and taken away before the name is taken off it: a write that
  lands after a ``-b`` is taken back at the next look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Set
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast.cluster import cib, record_change, ring
from standfast.cluster.record_change import NoRecordError
from standfast.cluster.run import EngineError
from standfast.core import facility, record
from standfast.core.facility import LastNodeError
from standfast.core.record import Record
from standfast.daemon.owed_duty import Backoff

WRITE_LIMIT_SECONDS = 10.0

log = logging.getLogger("standfastd")

Change = Callable[[Record, Set[str], Set[str]], Record | None]
"""From record, members and the nodes of the CIB to the next record; None: there is nothing to change."""


class Asked(Enum):
    """What the marker says."""

    NOTHING = "nothing"
    ASKED = "asked"
    CONFIRMED = "confirmed"


class Switch:
    """The state of one node's facility, and how it is changed."""

    def __init__(self, marker: Path) -> None:
        """`marker`: a file that does not outlive the boot."""
        self.stopped = False
        self._marker = marker
        self._written = 0
        """Epoch of our own last write: an older copy of the record does not speak against it."""
        self._busy = asyncio.Lock()
        self._backoff = Backoff()

    def see(self, found: Record | None, damage: str, node: str) -> bool:
        """Take over what the record says; whether that changes the state. A damaged record says nothing."""
        if damage or (found is not None and found.epoch < self._written):
            return False
        return self._set(facility.is_stopped(found, node))

    async def stop(self, node: str) -> bool:
        """``sdtool -e``; whether the state has changed.

        Raises LastNodeError, NoRecordError, RecordError, CibUnknown (it may be carried out later),
        EngineError.
        """
        async with self._busy:
            return await asyncio.to_thread(self._stop, node)

    async def start(self, node: str) -> bool:
        """``sdtool -b``; whether the state has changed. Whatever it raises, the daemon goes on trying.

        Raises RecordError, EngineError.
        """
        async with self._busy:
            return await asyncio.to_thread(self._start, node)

    async def settle(self, found: Record | None, node: str) -> str:
        """At each look: what is left of an older boot, or of a write without an answer. Empty, or what was
        done. Never raises for what the world does; tried again, more and more rarely."""
        if self._busy.locked():
            return ""
        if not facility.is_stopped(found, node) or self._asked() is Asked.CONFIRMED:
            self._backoff.reset()
            return ""
        if not self._backoff.due(time.monotonic()):
            return ""
        async with self._busy:
            try:
                done = await asyncio.to_thread(self._settle, node)
            except (EngineError, record.RecordError, NoRecordError, OSError) as error:
                log.error("the list of stopped facilities: %s", error)
                return ""
        self._backoff.reset()
        return done

    def _set(self, stopped: bool) -> bool:
        changed, self.stopped = stopped is not self.stopped, stopped
        return changed

    def _stop(self, node: str) -> bool:
        if self._asked() is Asked.CONFIRMED and facility.is_stopped(_look()[0], node):
            return self._set(True)
        self._marker.write_text(Asked.ASKED.value)
        try:
            self._written = _write(lambda found, members, known: facility.stop(found, node, members, known))
        except cib.CibUnknown:
            raise
        except BaseException:
            self._marker.unlink(missing_ok=True)
            raise
        try:
            confirmed = self._confirmed(node)
        except (EngineError, record.RecordError) as error:
            raise cib.CibUnknown(str(error)) from None
        if not confirmed:
            raise LastNodeError(node)
        return self._set(True)

    def _confirmed(self, node: str) -> bool:
        """Whether another member's facility runs now that the write has landed: it may have waited for the
        ring until the only other one was dropped. If none does, the stop is taken back."""
        found, members, _ = _look()
        if facility.others(found, node, members):
            self._marker.write_text(Asked.CONFIRMED.value)
            return True
        self._take_off(node)
        return False

    def _start(self, node: str) -> bool:
        self._take_off(node)
        return self._set(False)

    def _take_off(self, node: str) -> None:
        self._marker.unlink(missing_ok=True)
        with contextlib.suppress(NoRecordError):
            self._written = _write(lambda found, _, known: facility.start(found, node, known))

    def _settle(self, node: str) -> str:
        if self._asked() is Asked.NOTHING:
            self._take_off(node)
            return "started: it was stopped before this node's last start, or its stop came after a start"
        return "stopped" if self._confirmed(node) else "started again: no other member's facility runs"

    def _asked(self) -> Asked:
        try:
            text = self._marker.read_text()
        except FileNotFoundError:
            return Asked.NOTHING
        # Cut off while it was written: nothing is confirmed.
        return Asked.CONFIRMED if text == Asked.CONFIRMED.value else Asked.ASKED


def _look() -> tuple[Record, frozenset[str], frozenset[str]]:
    """Record, members and nodes of the CIB as they are now."""
    tree = cib.query()
    found = record.read(tree)
    if found is None:
        raise NoRecordError("no node's service processor is registered")
    return found, ring.look().members, facility.configured(tree)


def _write(change: Change) -> int:
    """Change the list; the epoch at which it stands as wanted."""

    def decide(found: Record, tree: ET.Element) -> Record | None:
        return change(found, ring.look().members, facility.configured(tree))

    return record_change.change(decide, WRITE_LIMIT_SECONDS).epoch
