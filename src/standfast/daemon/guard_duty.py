"""A node's part in a guarded window: what its fencer would use on the mover, and how its guest is seen.

Two things that the killing gate and the planner need and cannot see by themselves: whether this node's
fencer has taken the killing gate as the only device of the mover, and since when the mover's guest has been
seen running plainly, second by second. The second turns a silence into a proof: a guest that ran without a
pause while its node was lost did not stand still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from standfast.cluster import fencer, record_change
from standfast.cluster.record_change import NoRecordError
from standfast.cluster.run import EngineError
from standfast.core import confirmed, topology
from standfast.core.gate import plainly_on
from standfast.core.guarded import kill_id
from standfast.core.record import Record, RecordError
from standfast.hosts.asking import ask_everywhere

if TYPE_CHECKING:
    from standfast.daemon.known import Known
    from standfast.hosts.base import Host
    from standfast.sightings import Sightings

POLL_SECONDS = 1.0
ASK_LIMIT_SECONDS = 2.0
FENCER_LIMIT_SECONDS = 3.0
WRITE_LIMIT_SECONDS = 10.0

log = logging.getLogger("standfastd")


class GuardDuty:
    """One daemon's share of guarded windows."""

    def __init__(
        self,
        known: Known,
        hosts: Callable[[], Mapping[str, Host]],
        sightings: Sightings,
    ) -> None:
        self._known, self._hosts, self._sightings = known, hosts, sightings
        self.killing = ""
        """Node that this node's fencer would fence by its killing gate and by nothing else."""
        self._followed = confirmed.Followed()
        self._began = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @property
    def mover(self) -> str:
        """The mover of a guarded window, as a node sees it that is not the mover itself; else empty."""
        return self._mover_of(self._known.record)

    def _mover_of(self, found: Record | None) -> str:
        mover = found.guarded_mover if found is not None else ""
        return mover if mover != self._known.node else ""

    async def look(self) -> None:
        """After each look at the CIB: ask the fencer, note a mover that is away."""
        mover = self.mover
        if not mover:
            self.killing = ""
            return
        self._began.set()
        if mover not in self._known.members:
            quorate = topology.quorate(self._known.tree)
            await asyncio.to_thread(self._sightings.dropped, mover, quorate=quorate)
        try:
            used = await asyncio.to_thread(fencer.devices_for, mover, FENCER_LIMIT_SECONDS)
        except EngineError:
            used = ()
        self.killing = mover if used == (kill_id(mover),) else ""

    async def watch(self) -> None:
        """For ever: in a guarded window, ask the hosts every second where the mover's guest runs."""
        while True:
            found, damaged = self._known.record, bool(self._known.record_error)
            mover = self._mover_of(self._followed.of(found, damaged=damaged))
            if not mover:
                self._began.clear()
                await self._began.wait()
                continue
            aim = self._known.aims().get(mover)
            if aim is not None:
                guest = aim.guest
                answers = (await ask_everywhere(self._hosts().values(), [guest], ASK_LIMIT_SECONDS))[guest]
                if words := self._followed.heard(answers):
                    await self._overtake(words, write=found is not None)
                where = plainly_on(answers)
                if where and len(answers) == len(self._hosts()):
                    await asyncio.to_thread(self._sightings.plain, guest, where)
            await asyncio.sleep(POLL_SECONDS)

    async def _overtake(self, words: Mapping[str, int], *, write: bool) -> None:
        """Hosts answer that a person has called dead, or is about to (host -> epoch of that): noted for this
        node's gate at once, and in the record for all. The write is not waited for: it takes as long as the
        ring."""
        for host, epoch in words.items():
            await asyncio.to_thread(self._sightings.overtaken, host, epoch)
        if write and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write(words))

    async def _write(self, words: Mapping[str, int]) -> None:
        def overtake(found: Record, _: ET.Element) -> Record | None:
            return confirmed.overtake(found, words)

        try:
            await asyncio.to_thread(record_change.change, overtake, WRITE_LIMIT_SECONDS)
        except (EngineError, RecordError, NoRecordError) as error:
            log.error("that %s has answered since it was called dead: %s", ", ".join(words), error)
        else:
            log.warning("%s has answered: a person's word that it is dead counts no more", ", ".join(words))
