"""The copy of a guest at the host that sends it: how fast it may go on, and what is seen of it.

What a look means, and every limit: `core.holding`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from standfast.commands.migrate_show import Show
from standfast.core import holding
from standfast.core.holding import Look
from standfast.core.messages import Message, Severity
from standfast.hosts.base import Host, HostError, PacesMigration

PREPARE_TRIES = 3
DIRTY_LOOKS = 3
"""One is coarse: QEMU looks at 512 pages of a GiB (7.2), 2 MiB each in a guest of 512 MiB."""


class Source(Host, PacesMigration, Protocol):
    """The host that sends the guest."""


class Copy:
    """One copy. `stood_still` is called where this node has slept meanwhile, by what its looks show."""

    def __init__(
        self, guest: str, host: str, source: Source, show: Show, stood_still: Callable[[], None]
    ) -> None:
        self._guest, self._host, self._source, self._show = guest, host, source, show
        self._stood_still = stood_still
        self._memory_bytes: int | None = None
        self._full_rate = holding.FULL_RATE_MIB_PER_SECOND
        self._slower = False
        """The guest has a migration speed at its source that has to be taken back."""
        self._paced = False
        """It is slower now than its link, or was."""
        self._held_at: float | None = None
        self.hold_seconds: float | None = None
        """For so long it was held at its smallest rate."""
        self.dirty: float | None = None
        """Bytes a second that the guest writes; None: not known."""
        self.last: Look | None = None
        """The last look that showed the copy on its way, and the one before it."""
        self.before: Look | None = None
        self.carried = 0.0
        """Bytes a second that the link was seen to carry; 0: not known yet."""

    async def prepare(self, memory_bytes: int | None) -> None:
        """Before the order: what the guest writes (not known is no obstacle), and how fast it may be sent. A
        copy at full speed may be through before anybody has looked, so that without that there is no order:
        raises HostError. `memory_bytes`: of the guest; None: not known."""
        self._memory_bytes = memory_bytes
        measured: list[float] = []
        for _ in range(DIRTY_LOOKS):
            with contextlib.suppress(HostError):
                dirty = await self._source.dirty_bytes_per_second(self._guest)
                measured += [] if dirty is None else [dirty]
        if measured:
            self.dirty = sum(measured) / len(measured)
        for left in reversed(range(PREPARE_TRIES)):
            try:
                await self._set_first_rate()
                return
            except HostError:
                if not left:
                    raise

    async def _set_first_rate(self) -> None:
        rate = await self._source.copy_rate(self._guest)
        # What a command that was killed has left stays with the guest: no migration is to crawl by it.
        if rate not in (holding.HOLD_RATE_MIB_PER_SECOND, self.first_rate):
            self._full_rate = rate
        if self.first_rate != rate:
            self._slower = self.first_rate != self._full_rate
            await self._source.set_copy_rate(self._guest, self.first_rate)

    # -- what is seen ---------------------------------------------------------------------------------------

    async def look(self) -> Look | None:
        """None: it could not be seen on its way. The next look asks again; the order tells the end."""
        began = time.monotonic()
        try:
            job = await self._source.migration_job(self._guest)
        except HostError:
            return None
        finally:
            # A look has a limit of its own, which is shorter.
            if time.monotonic() - began > holding.STOOD_STILL_SECONDS:
                self._stood_still()
        # Before it has begun libvirt tells zeros.
        if job is None or not job.outgoing or not job.total_bytes or job.remaining_bytes is None:
            return None
        now = time.monotonic()
        look = Look(job, now, now - began)
        if holding.stood_still(look, self.last):
            self._stood_still()
        self.before, self.last = self.last, look
        if not self._paced:
            self.carried = holding.carried(look) or self.carried
        return look

    @property
    def seconds_unseen(self) -> float:
        """Since the last look that showed it; endless: none has."""
        return float("inf") if self.last is None else time.monotonic() - self.last.at

    def may_wait_unseen(self) -> bool:
        """Whether more than half of the way is left, by its last look."""
        return holding.may_wait_unseen(self.seconds_unseen, self.last)

    def must_pace(self, look: Look, before: Look | None) -> bool:
        """What was held goes on from there, unless it was held with much left, since nobody saw it."""
        held_near = self.held and holding.little_left(look, self.carried)
        return held_near or holding.must_pace(look, before, self.carried)

    # -- what is expected of it -----------------------------------------------------------------------------

    @property
    def converges(self) -> bool:
        """Whether the guest may switch over at the end of its first pass already."""
        return holding.converges(self.carried, self.dirty) or self._sent_as_told()

    def predicted_seconds(self) -> float | None:
        """How long the guest will stand still; None: it cannot be told."""
        predicted = holding.predicted_seconds(self.carried, self.dirty)
        if predicted is not None and self._sent_as_told():
            return min(predicted, holding.AUTO_LONGEST_SECONDS)
        return predicted

    def _sent_as_told(self) -> bool:
        """Whether the copy was made slower here than its link may be."""
        first = self.first_rate
        return first < self._full_rate and holding.sent_as_told(self.carried, first)

    # -- how fast it goes on --------------------------------------------------------------------------------

    @property
    def first_rate(self) -> int:
        """MiB/s of its first pass."""
        return holding.first_rate(self._full_rate, self._memory_bytes)

    @property
    def held(self) -> bool:
        """Whether it is held at its smallest rate, or was to be."""
        return self._held_at is not None

    async def hold(self) -> None:
        """Raises HostError."""
        self._held_at, self._slower, self._paced = time.monotonic(), True, True
        await self._source.set_copy_rate(self._guest, holding.HOLD_RATE_MIB_PER_SECOND)

    async def pace(self, look: Look) -> float | None:
        """The last part of it comes nearer, in steps that are seen. Bytes a second that it may reach by that;
        None: it stays as it was."""
        mib_per_second = holding.near_rate(look, self.first_rate)
        least_rate = min(self.carried, float(mib_per_second * holding.MIB))
        self._paced = True
        if holding.near(look, None, least_rate) or not await self.go_on(mib_per_second):
            return None
        return least_rate

    async def go_on(self, mib_per_second: int) -> bool:
        """No longer held."""
        self._slower = True
        try:
            await self._source.set_copy_rate(self._guest, mib_per_second)
        except HostError as error:
            self._show.say(f"the copy did not get its speed back: {error}")
            return False
        self.note_hold()
        return True

    def note_hold(self) -> None:
        """It is not held any more."""
        if self._held_at is not None:
            self.hold_seconds = time.monotonic() - self._held_at
        self._held_at = None

    async def speed_back(self) -> bool:
        """The speed that the guest had before, where it has another one by us."""
        if not self._slower:
            return True
        if not await self.go_on(self._full_rate):
            return False
        self._slower = False
        return True

    async def take_speed_back(self) -> None:
        """The same after its end; whoever has to do it by hand is told."""
        if not await self.speed_back():
            text = f"{self._guest} keeps a low migration speed on {self._host}, if it is there still"
            hint = f"virsh migrate-setspeed {self._guest} {self._full_rate} (on {self._host})"
            self._show.tell(Message("STILL_HELD", text, Severity.WARNING, host=self._host,
                                    next_command=hint))  # fmt: skip

    async def allow(self, limit_ms: int) -> None:
        """As the blackout that is allowed."""
        try:
            await self._source.set_downtime_limit(self._guest, limit_ms)
        except HostError as error:
            self._show.say(f"the downtime limit was not set, it may have switched over already: {error.what}")
