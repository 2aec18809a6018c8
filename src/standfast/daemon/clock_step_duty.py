"""This node sets its own clock, where clovmmigrate.conf and the decision (`core.clock_step`) allow it.

By the site's own means: chronyd and its time source, or the RTC, which a hypervisor keeps going while its
guest stands still. Whether it has helped is measured over corosync, not taken from what the program answers:
``chronyc makestep`` answers 200 OK where it has stepped nothing (measured).

Nothing here holds up the daemon: programs run in threads with a limit, and one try at a time goes on by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from standfast.cluster import run
from standfast.cluster.clock_watch import reading
from standfast.core import clock_step
from standfast.core.clock_gate import MEND
from standfast.core.clock_step import CHRONY, OFF, Lag, Seen, Shift
from standfast.core.clocks import Clock
from standfast.core.record import Record

CALL_LIMIT_SECONDS = 5.0
"""Of one call of chronyc."""
SELECT_LIMIT_SECONDS = 20.0
"""Until chronyd has a source again: 4.8 s in all (measured, chrony 4.3, burst 4/4)."""
SELECT_POLL_SECONDS = 0.5
TICK_LIMIT_SECONDS = 1.5
TICK_POLL_SECONDS = 0.01
RTC_READ_LIMIT_SECONDS = 5.0
"""An RTC counts whole seconds: it is watched until it goes to the next one."""
RTC_SET_LIMIT_SECONDS = 10.0
"""hwclock waits for the next second of the RTC."""
READ_BACK_LIMIT_SECONDS = 10.0
"""Two samples in a row of every other node, one each half second here."""

log = logging.getLogger("standfastd")


@dataclass(frozen=True)
class Programs:
    """What this node's clock is set with."""

    chronyc: str = "chronyc"
    hwclock: str = "hwclock"
    rtc: str = "/dev/rtc0"
    rtc_seconds: str = "/sys/class/rtc/rtc0/since_epoch"
    """What that RTC shows, in seconds, read as UTC (Linux, Documentation/ABI/testing/sysfs-class-rtc)."""


class Measured(Protocol):
    """What knows the other nodes' clocks (`daemon.clock_duty.ClockDuty`)."""

    @property
    def measured(self) -> asyncio.Event: ...
    def known(self) -> Mapping[str, Clock]: ...
    def hurry(self, wanted: bool) -> None: ...


@dataclass(frozen=True)
class _Tried:
    """What a try came to. `acted`: the clock may have been set."""

    acted: bool
    why: str = ""
    """Why it was not set, or may not have been; empty: the program says that it was."""


class ClockStepDuty:
    """Looked after by the daemon: `look` at each of its looks."""

    def __init__(
        self,
        clocks: Measured,
        changed: Callable[[], None],
        note: Callable[[str], None],
        programs: Programs | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed`: the report is another one now. `note`: one line for log and journal. `now`: the clock
        that stamps samples."""
        self._clocks, self._changed, self._note, self._now = clocks, changed, note, now
        self._programs = programs or Programs()
        self._seen = Seen("")
        self._window, self._tries = 0, 0
        self._ended: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.told = ""
        """For the report: what this node does or has done about its clock in this window."""

    def look(
        self,
        me: str,
        members: frozenset[str],
        record: Record | None,
        *,
        way: str,
        threshold_seconds: float,
    ) -> None:
        """What the daemon sees. Begins a try where one is due."""
        self._seen = Seen(me, members, record, {}, threshold_seconds)
        if record is not None and record.open and record.window != self._window:
            self._window, self._tries, self._ended = record.window, 0, None
            self._say("")
        if self._busy():
            return
        if record is None or not record.open:
            self._say("")
        since = None if self._ended is None else self._now() - self._ended
        if way == OFF or not clock_step.due(self._tries, since):
            return
        found = self._lag()
        if found is not None:
            self._tries += 1
            self._task = asyncio.create_task(self._try(way, self._tries, found))

    async def ended(self) -> None:
        """Wait for what goes on by itself."""
        if self._task is not None:
            await self._task

    def _busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def _now_seen(self) -> Seen:
        seen = self._seen
        return Seen(
            seen.me, seen.members, seen.record, self._clocks.known(), seen.threshold_seconds, self._now()
        )

    def _lag(self) -> Lag | None:
        return clock_step.lag(self._now_seen())

    def _say(self, text: str) -> None:
        if text != self.told:
            self.told = text
            self._changed()

    # -- one try -------------------------------------------------------------------------------------------

    async def _try(self, way: str, number: int, found: Lag) -> None:
        began = self._now()
        self._say(clock_step.trying(way, number))
        self._note(f"{self._seen.me} {self.told}: {found.shown}")
        self._clocks.hurry(True)
        try:
            tried = await (self._by_chrony() if way == CHRONY else self._by_rtc())
            since = self._now()
            agrees = await self._read_back(found, since) if tried.acted else False
            self._tell_end(way, number, found, tried, took_seconds=self._now() - began, agrees=agrees)
        except Exception:
            log.exception("setting the clock failed")
            self._say(clock_step.failed(way, number, "a defect in standfastd; its log has more"))
        finally:
            self._clocks.hurry(False)
            self._ended = self._now()

    def _tell_end(
        self, way: str, number: int, before: Lag, tried: _Tried, *, took_seconds: float, agrees: bool
    ) -> None:
        after = clock_step.shown(self._now_seen(), before.others)
        if agrees:
            self._say(clock_step.helped(way, number, after))
            self._note(f"{self._seen.me} {self.told} (before: {before.shown}); took {took_seconds:.1f} s")
            return
        why = tried.why or "it does not agree with the others"
        if tried.acted:
            why += f"; {after or 'it was not measured afterwards'}"
            why += f" (before: {before.shown})" if after != before.shown else " as before"
        self._say(clock_step.failed(way, number, why))
        self._note(f"{self._seen.me} {self.told}; type: {MEND}")

    async def _read_back(self, found: Lag, since: float) -> bool:
        """Whether the clock agrees with the others by what is measured from now on."""
        deadline = self._now() + READ_BACK_LIMIT_SECONDS
        while not clock_step.agree(self._now_seen(), found.others, since):
            left = deadline - self._now()
            if left <= 0:
                return False
            self._clocks.measured.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._clocks.measured.wait()
        return True

    def _against(self, source: str, shift: Shift) -> str:
        """Why a source must not set the clock now; empty: it shows what the other nodes show."""
        found = self._lag()
        if found is None:
            return "it is no longer waited for, or no longer certain that it is wrong: nothing was set"
        return "" if found.fits(shift) else clock_step.differs(source, shift, found)

    async def _by_chrony(self) -> _Tried:
        chronyc = self._programs.chronyc
        # A guest that stood still has lost its sources: without new ones makestep does nothing.
        fresh = await self._run(chronyc, "-n", "-m", "reset sources", "burst 4/4")
        if not fresh.ok:
            return _Tried(False, f"chronyc reset sources: {fresh.complaint()}")
        deadline = self._now() + SELECT_LIMIT_SECONDS
        while True:
            said = await self._run(chronyc, "-n", "-c", "sources")
            if said.ok and clock_step.chrony_selected(said.stdout):
                break
            if self._now() >= deadline:
                why = f"chronyd has not selected a source within {SELECT_LIMIT_SECONDS:.0f} s"
                return _Tried(False, f"{why}: nothing was set")
            await asyncio.sleep(SELECT_POLL_SECONDS)
        said = await self._run(chronyc, "-n", "-c", "tracking")
        shift = clock_step.chrony_shift(said.stdout) if said.ok else None
        if shift is None:
            return _Tried(False, "chronyc tracking does not tell how far the clock is off: nothing was set")
        if why := self._against("the time of chronyd", shift):
            # A makestep directive of its own may have set the clock as soon as it had a source.
            return _Tried(True, why)
        done = await self._run(chronyc, "makestep")
        return _Tried(True, "" if done.ok else f"chronyc makestep: {done.complaint()}")

    async def _by_rtc(self) -> _Tried:
        path = self._programs.rtc_seconds
        try:
            async with asyncio.timeout(RTC_READ_LIMIT_SECONDS):
                shift = await asyncio.to_thread(_watch_rtc, path)
        except (OSError, ValueError) as error:
            why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None)
            return _Tried(False, f"the RTC cannot be read ({path}: {why or error}): nothing was set")
        if shift is None:
            return _Tried(False, f"the RTC stands still ({path}): nothing was set")
        if why := self._against("the RTC, if it is in UTC,", shift):
            return _Tried(False, why)
        done = await self._run(
            self._programs.hwclock,
            "--hctosys",
            "--utc",
            "--noadjfile",
            f"--rtc={self._programs.rtc}",
            limit_seconds=RTC_SET_LIMIT_SECONDS,
        )
        return _Tried(True, "" if done.ok else f"hwclock --hctosys: {done.complaint()}")

    async def _run(self, *argv: str, limit_seconds: float = CALL_LIMIT_SECONDS) -> run.Result:
        return await asyncio.to_thread(run.run, argv, limit_seconds=limit_seconds)


def _watch_rtc(path: str) -> Shift | None:
    """By how much the RTC would set the clock; None: it stands still. Raises OSError, ValueError."""
    deadline = reading().steady + TICK_LIMIT_SECONDS
    first, before = int(Path(path).read_text()), reading().wall
    while True:
        last = reading().steady >= deadline
        time.sleep(TICK_POLL_SECONDS)
        now, after = int(Path(path).read_text()), reading().wall
        if now != first:
            return clock_step.rtc_shift(now, before, after)
        if last:
            return None
        before = after
