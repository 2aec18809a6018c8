"""May this node set its own clock, and by how much? Samples and the record in; a lag, a yes or no, words out.

Only where clovmmigrate.conf allows it (`clock_step`), only while a record waits for clocks, and only its own:

* It must be certain that it is this node's clock that is wrong (`core.clocks.blamed`), by what every other
  member was just measured to show, and one of those that agree must not have moved in this window: of several
  guests that moved, those that lag alike would be the majority.
* Of two nodes it is the one that has moved, and only where it is behind: a blackout puts no clock ahead.
* A source of time is believed only where it shows what the other nodes show. Two that know nothing of each
  other, the nodes and the source, then say the same; a source that is wrong itself, an RTC in local time or
  one that was set from the wrong clock moves nothing.

Pure: seconds come in, nothing here reads a clock or sets one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from standfast.core import clocks
from standfast.core.clocks import THRESHOLD_SECONDS, Clock, Sample, Verdict
from standfast.core.record import Record

OFF, CHRONY, RTC = "off", "chrony", "rtc"
"""The values of `clock_step` in clovmmigrate.conf (`core.fields.CLOCK_STEPS`)."""
MAX_TRIES = 3
"""In one window, for one life of the daemon. What three could not mend needs a person."""
PAUSE_SECONDS = 15.0
"""Between the end of a try and the next one."""
FRESH_SECONDS = 15.0
"""Three rounds while somebody is out of sync: what is older may be from before a further blackout."""
TOLERANCE_SECONDS = 1.0
"""A source may differ by so much more than measured: the other nodes' clocks were once set from their RTCs,
which count whole seconds."""
MAX_TOLD_CHARS = 240


@dataclass(frozen=True)
class Seen:
    """What this node knows at this moment."""

    me: str
    members: frozenset[str] = frozenset()
    record: Record | None = None
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    """Of every other member that is measured, since the closing has asked."""
    threshold_seconds: float = THRESHOLD_SECONDS
    now_seconds: float = 0.0
    """By the clock that stamps samples."""


@dataclass(frozen=True)
class Shift:
    """By how much a source of time would move this node's clock, in seconds; positive: forward."""

    seconds: float
    uncertainty_seconds: float = 0.0


@dataclass(frozen=True)
class Lag:
    """By how much this node's clock may be moved so that it agrees with those of the others, in seconds;
    positive: forward."""

    low_seconds: float
    high_seconds: float
    others: tuple[str, ...]
    """Who agrees with one another."""
    shown: str
    """How far it is from the one that it differs most from, in words."""

    def fits(self, shift: Shift) -> bool:
        """Whether a source shows what the other nodes show."""
        low, high = (
            shift.seconds - shift.uncertainty_seconds,
            shift.seconds + shift.uncertainty_seconds,
        )
        return self.low_seconds <= low and high <= self.high_seconds


def lag(seen: Seen) -> Lag | None:
    """By how much this node's clock is wrong and may be set; None: it is not, it may not, or nobody knows."""
    record = seen.record
    if record is None or not record.waits_for_clocks or seen.me not in seen.members:
        return None
    found = _measured(seen)
    if not found or set(found) != seen.members - {seen.me}:
        return None
    # Who is out of sync stays it below the threshold too, until it agrees again. One that does by its last
    # sample was just set: a second one will say so.
    out = [abs(found[node].offset_seconds) for node in found if seen.clocks[node].verdict is Verdict.OUT]
    if max(out, default=0.0) <= clocks.BACK_SHARE * seen.threshold_seconds:
        return None
    positions = {seen.me: 0.0} | {node: sample.offset_seconds for node, sample in found.items()}
    threshold = min(seen.threshold_seconds, max(out) * (1 - 1e-9))
    blame = clocks.blamed(positions, threshold, record.mover)
    if not blame.certain or seen.me not in blame.names:
        return None
    agreeing = {node: sample for node, sample in found.items() if node not in blame.names}
    if not set(agreeing) - set(record.settle):
        return None
    if len(positions) == 2 and min(positions.values()) < 0:
        return None
    return _range(seen, agreeing)


def due(tries: int, seconds_since_try: float | None) -> bool:
    """Whether it may be tried now. `tries`: in this window. None: nothing was tried yet."""
    return tries < MAX_TRIES and (seconds_since_try is None or seconds_since_try >= PAUSE_SECONDS)


def agree(seen: Seen, others: tuple[str, ...], since_seconds: float) -> bool:
    """Whether this node's clock agrees with those of `others`, measured after `since_seconds`."""
    return all(
        (clock := seen.clocks.get(node)) is not None
        and clock.verdict is Verdict.AGREES
        and clock.samples[-1].at_seconds > since_seconds
        for node in others
    )


def shown(seen: Seen, others: tuple[str, ...]) -> str:
    """How far this node's clock is from that of the others it differs most from, as measured last; empty: not
    measured."""
    found = {node: sample for node, sample in _measured(seen).items() if node in others}
    return _farthest(seen.me, found) if found else ""


def _measured(seen: Seen) -> dict[str, Sample]:
    """Node -> its clock minus ours, where that was measured just now."""
    found = {node: clock.offset for node, clock in seen.clocks.items() if node in seen.members}
    return {
        node: sample
        for node, sample in found.items()
        if sample is not None and seen.now_seconds - sample.at_seconds <= FRESH_SECONDS
    }


def _farthest(me: str, found: Mapping[str, Sample]) -> str:
    than = max(sorted(found), key=lambda node: abs(found[node].offset_seconds))
    return clocks.difference(-found[than].offset_seconds, me, than)


def _range(seen: Seen, agreeing: Mapping[str, Sample]) -> Lag:
    """To among the others' clocks, give or take what is not known better, and so that it agrees with each.
    Since they agree with one another there is such a place."""
    least = min(agreeing.values(), key=lambda sample: sample.offset_seconds)
    most = max(agreeing.values(), key=lambda sample: sample.offset_seconds)
    near = clocks.BACK_SHARE * seen.threshold_seconds
    low = max(
        least.offset_seconds - least.uncertainty_seconds - TOLERANCE_SECONDS, most.offset_seconds - near
    )
    high = min(
        most.offset_seconds + most.uncertainty_seconds + TOLERANCE_SECONDS, least.offset_seconds + near
    )
    return Lag(low, high, tuple(sorted(agreeing)), _farthest(seen.me, agreeing))


# -- what the sources say ------------------------------------------------------------------------------------

_SELECTED = "*"
_NOT_SYNCHRONISED = "Not synchronised"
_CORRECTION, _LEAP_STATUS = 4, 13


def chrony_selected(sources: str) -> bool:
    """Whether ``chronyc -n -c sources`` shows a source that is selected: ``^,*,ADDRESS,...``. Until then
    ``makestep`` answers 200 OK and steps nothing (measured, chrony 4.3)."""
    rows = (line.split(",") for line in sources.splitlines())
    return any(len(row) > 2 and row[1] == _SELECTED for row in rows)


def chrony_shift(tracking: str) -> Shift | None:
    """By how much ``makestep`` would set the clock: "System time" of ``chronyc -n -c tracking``, positive
    where the clock is slow. None: not synchronised, or it cannot be read.

    Source: chronyc(1), tracking; order and sign seen with chrony 4.3 and a clock 8 s behind.
    """
    row = tracking.strip().split(",")
    try:
        seconds = float(row[_CORRECTION])
        known = row[_LEAP_STATUS] != _NOT_SYNCHRONISED
    except (IndexError, ValueError):
        return None
    return Shift(seconds) if known and abs(seconds) < float("inf") else None


def rtc_shift(seconds: int, before: float, after: float) -> Shift:
    """By how much an RTC would set the clock, if it is in UTC: it went to `seconds` between two moments, at
    which this node's clock showed `before` and `after`."""
    return Shift(seconds - (before + after) / 2, abs(after - before) / 2)


# -- the words -----------------------------------------------------------------------------------------------


def trying(way: str, number: int) -> str:
    """What a node says of itself while it tries."""
    return f"is setting its clock ({_which(way, number)})"


def helped(way: str, number: int, now: str) -> str:
    """What it says when its clock agrees."""
    return f"has set its clock ({_which(way, number)}): {now}"


def failed(way: str, number: int, why: str) -> str:
    """What it says when its clock does not agree."""
    return f"could not set its clock right ({_which(way, number)}): {why}"[:MAX_TOLD_CHARS]


def differs(source: str, shift: Shift, found: Lag) -> str:
    """A source does not show what the other nodes show."""
    word = "ahead of" if shift.seconds > 0 else "behind"
    by = f"{abs(shift.seconds):.1f} s {word}"
    return f"{source} is {by} this clock, but {found.shown}: nothing was set"


def _which(way: str, number: int) -> str:
    return f"{way}, try {number} of {MAX_TRIES}"
