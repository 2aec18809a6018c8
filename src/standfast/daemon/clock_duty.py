"""The clocks of the other nodes, as this node sees them: measured, reported, and complained about.

The messages are those of the PRIMECLUSTER page: (WRP, 34) once, in the switchlog and the syslog, when a host
goes out of sync; (WRP, 35) in the syslog for as long as it lasts; and a line of ours when it agrees again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from standfast.cluster.clock_watch import IDLE_SECONDS, ClockWatch
from standfast.core import clocks
from standfast.core.clocks import Clock, Limits, Sample, Verdict
from standfast.core.names import SWITCHLOG_FILE

OUT_SECONDS = 5.0
"""Between two rounds while somebody is out of sync: the end should be seen soon."""
ASKED_SECONDS = 0.5
"""Between two rounds when a closing has just asked and waits for the answer, and when a node is new."""
ASKED_LIMIT_SECONDS = 30.0
"""Who has not answered by then does not measure, or its clock waits for a person."""

EXPLAIN_SECONDS = 2.0
"""So long after the first of a round has come all of it has."""

log = logging.getLogger("standfastd")


class Watch(Protocol):
    """What measures (`cluster.clock_watch.ClockWatch`)."""

    def start(self) -> None: ...
    def want(self, me: str, epoch: int, period_seconds: float) -> None: ...
    def take(self) -> list[tuple[str, Sample]]: ...
    @property
    def trouble(self) -> str: ...


@dataclass(frozen=True)
class Told:
    """What this node says to the others about clocks."""

    offsets: Mapping[str, float]
    """Node -> its clock minus ours, in seconds, where that is known well enough for a verdict."""
    out: tuple[str, ...]
    """Which of them are out of sync."""
    asked_at: int
    """All that is told was measured at this epoch of the record or later; 0: at any."""
    error: str


class ClockDuty:
    """Looked after by the daemon: `look` at each of its looks, `heard` when there are samples."""

    def __init__(
        self,
        changed: Callable[[], None],
        make: Callable[[Callable[[], None]], Watch] = ClockWatch,
        switchlog: str = SWITCHLOG_FILE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed`: the report is another one now. `make`: makes the watch, given what it calls."""
        self._changed, self._make, self._switchlog, self._now = changed, make, switchlog, now
        self._watch: Watch | None = None
        self._clocks: dict[str, Clock] = {}
        self._me = self._mover = ""
        self._members: frozenset[str] = frozenset()
        self._limits = Limits()
        self._asked, self._asked_since = 0, 0.0
        self._epoch, self._hurried = 0, False
        self.measured = asyncio.Event()
        """Set with each round of samples; whoever waits for one clears it."""
        self._announced: dict[str, float] = {}
        """Host that was called out of sync -> when that was last said."""
        self._offsets: dict[str, float] = {}
        self._warned = ""
        self._unexplained = 0.0
        """When a host was called out of sync and it was not said yet whose clock it is; 0: it was."""
        self._wake = asyncio.Event()
        self.told = Told({}, (), 0, "")

    def start(self, news: Callable[[Callable[[], None]], None]) -> None:
        """Begin to measure. `news(what)` has `what` called in the daemon's loop; may come from any thread."""
        self._watch = self._make(lambda: news(self.heard))
        self._watch.start()

    def look(
        self,
        me: str,
        members: frozenset[str],
        *,
        epoch: int = 0,
        asked: int = 0,
        mover: str = "",
        limits: Limits | None = None,
    ) -> None:
        """What the daemon sees. `asked`: epoch from which a measurement counts for a closing; 0: none asks.
        `limits`: of the configuration; None: it cannot be read, those of before stay."""
        if limits is not None:
            self._limits = limits
        if asked != self._asked or members - self._members:
            self._asked, self._asked_since = asked, self._now()
        self._me, self._members, self._mover, self._epoch = me, members, mover, epoch
        for gone in (set(self._clocks) | set(self._announced)) - members:
            self._clocks.pop(gone, None)
            self._offsets.pop(gone, None)
            if self._announced.pop(gone, None) is not None:
                log.warning("%s has left the membership; its clock was out of sync", gone)
        if self._watch is not None and me:
            self.heard()
            self._watch.want(me, epoch, self._period())

    def hurry(self, wanted: bool) -> None:
        """Measure twice a second, as long as that is wanted: a clock is being set."""
        self._hurried = wanted
        if self._watch is not None and self._me:
            self._watch.want(self._me, self._epoch, self._period())

    def _period(self) -> float:
        if self._hurried:
            return ASKED_SECONDS
        known = len(self._fresh()) == len(self._members - {self._me})
        if not known and self._now() - self._asked_since < ASKED_LIMIT_SECONDS:
            return ASKED_SECONDS
        return OUT_SECONDS if self._announced or (self._asked and not known) else IDLE_SECONDS

    def heard(self) -> None:
        """Take what was measured; say what is new."""
        if self._watch is None:
            return
        for node, sample in self._watch.take():
            if node in self._members:
                self._clocks[node] = self._clocks.get(node, Clock()).heard(sample, self._limits)
        self._complain()
        self._tell(self._watch.trouble)
        self.measured.set()

    def known(self) -> dict[str, Clock]:
        """Other member -> its clock, where that is known, and measured since a closing has asked."""
        return self._fresh()

    def _fresh(self) -> dict[str, Clock]:
        """What is known of each node, and was measured since it was asked for."""
        now = {node: clock.at(self._now()) for node, clock in self._clocks.items()}
        return {
            node: clock
            for node, clock in now.items()
            if clock.verdict is not Verdict.UNKNOWN and clock.since_epoch >= self._asked
        }

    def _tell(self, trouble: str) -> None:
        if trouble != self._warned:
            log.warning("clocks are not measured: %s", trouble) if trouble else log.info(
                "clocks are measured"
            )
            self._warned = trouble
        fresh = self._fresh()
        offsets = {}
        for node, clock in sorted(fresh.items()):
            found = clock.offset
            exact = found.offset_seconds if found is not None else 0.0
            before = self._offsets.get(node)
            offsets[node] = before if before is not None and not clocks.material(before, exact) else exact
        self._offsets = {**self._offsets, **offsets}
        out = tuple(sorted(node for node, clock in fresh.items() if clock.verdict is Verdict.OUT))
        told = Told({node: round(value, 1) for node, value in offsets.items()}, out, self._asked, trouble)
        if told != self.told:
            self.told = told
            self._changed()

    # -- messages ------------------------------------------------------------------------------------------

    def _complain(self) -> None:
        now = self._now()
        for node, clock in sorted(self._clocks.items()):
            if clock.verdict is Verdict.OUT and node not in self._announced:
                self._announced[node] = now
                text = clocks.first_text(node)
                log.warning("%s", clocks.coded(clocks.FIRST, text))
                self._note("WARNING", text)
                self._unexplained = self._unexplained or now
                self._wake.set()
            elif clock.verdict is Verdict.AGREES and node in self._announced:
                del self._announced[node]
                text = clocks.again_text(node)
                log.warning("%s", clocks.coded(clocks.AGAIN, text))
                self._note("NOTICE", text)

    def remind(self) -> None:
        """Say it again of each host that is out of sync, where that is due; and whose clock it is."""
        now = self._now()
        if self._unexplained and now - self._unexplained >= EXPLAIN_SECONDS:
            log.warning("%s", self._explained())
            self._unexplained = 0.0
        for node, said in sorted(self._announced.items()):
            clock = self._clocks.get(node, Clock()).at(now)
            if clock.verdict is Verdict.OUT and now - said >= self._limits.period_seconds:
                self._announced[node] = now
                log.warning("%s", clocks.coded(clocks.FURTHER, clocks.further_text(node)))

    async def watch(self) -> None:
        """Until cancelled: remind, and see that what was measured grows old."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0 if self._announced else IDLE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self.heard()
            self.remind()

    def _explained(self) -> str:
        """Whose clock it is, in a sentence. By what was measured in the same round or later: where this
        node's own clock lags, those that were not measured since would seem to agree with it."""
        since = self._unexplained - EXPLAIN_SECONDS
        positions = {self._me: 0.0}
        for node, clock in self._clocks.items():
            found = clock.offset
            if found is not None and found.at_seconds >= since:
                positions[node] = found.offset_seconds
        blame = clocks.blamed(positions, self._limits.threshold_seconds, self._mover)
        shown = ", ".join(
            clocks.difference(offset, node, self._me)
            for node, offset in sorted(positions.items())
            if abs(offset) > self._limits.threshold_seconds
        )
        whose = f"{shown or 'all clocks agree by now'} (clocks)"
        return f"{whose}; out of sync: {', '.join(blame.names)}, {blame.why}" if blame.names else whose

    def heard_within(self, seconds: float) -> frozenset[str]:
        """Other members whose daemon has answered in the last `seconds`: a daemon that was killed, or hangs,
        leaves a report that looks as good as new, and answers nothing."""
        since = self._now() - seconds
        return frozenset(
            node
            for node, clock in self._clocks.items()
            if clock.samples and clock.samples[-1].at_seconds >= since
        )

    def shown(self) -> list[dict[str, object]]:
        """Of every other member what this node knows now, for people and programs."""
        rows: list[dict[str, object]] = []
        for node in sorted(self._members - {self._me}):
            clock = self._clocks.get(node, Clock()).at(self._now())
            found = clock.offset
            rows.append(
                {
                    "host": node,
                    "clock": clock.verdict.value,
                    "offset_seconds": None if found is None else round(found.offset_seconds, 3),
                    "uncertainty_seconds": None if found is None else round(found.uncertainty_seconds, 3),
                    "measured_seconds_ago": None if found is None else round(self._now() - found.at_seconds),
                }
            )
        return rows

    def _note(self, severity: str, text: str) -> None:
        number = clocks.FIRST if severity == "WARNING" else clocks.AGAIN
        # A wall-clock time for people, of the very clock that may be wrong: nothing is decided by it.
        stamp = datetime.now().isoformat(" ", "milliseconds")
        entry = clocks.switchlog_entry(stamp, number, severity, text)
        try:
            with Path(self._switchlog).open("a", encoding="utf-8") as file:
                file.write(entry)
        except OSError as error:
            log.warning("cannot write %s: %s", self._switchlog, error.strerror)
