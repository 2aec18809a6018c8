"""Do the clocks of two nodes agree? Samples in; offsets, verdicts and the words for operators out.

A sample is an interval: the other node's clock minus ours, give or take half of the round trip. It decides
only what its whole interval decides, so a slow ring makes no verdict, neither a good nor a bad one.

* Out of sync is called at once, by one sample that lies wholly beyond the threshold.
* In agreement only by two samples in a row. A node that stands still while an answer is under way to it has
  not counted that time itself (a paused guest's clocks all stop; measured), so one such sample can look good.
* Back in agreement only well within the threshold: a clock at the limit must not send messages by turns.
* A verdict comes from a sample alone; those before it only make the offset that is shown more exact.

Pure: seconds come in, nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

KEPT_SAMPLES = 4
AGREEING_SAMPLES = 2
BACK_SHARE = 0.8
"""Who was out of sync agrees again below this share of the threshold."""
MAX_UNCERTAINTY_SHARE = 0.5
"""A sample less certain than this share of the threshold is none."""
STALE_SECONDS = 60.0
"""After so long without a sample nothing is known; four rounds of an idle cluster."""
MATERIAL_SECONDS = 0.5
"""A change of an offset by less is not told to the other nodes."""


THRESHOLD_SECONDS = 5
PERIOD_SECONDS = 60
"""What applies where clovmmigrate.conf says nothing."""


@dataclass(frozen=True)
class Limits:
    """Of clovmmigrate.conf."""

    threshold_seconds: float = THRESHOLD_SECONDS
    period_seconds: float = PERIOD_SECONDS
    """Between two messages (WRP, 35) about one host."""


@dataclass(frozen=True)
class Sample:
    """One exchange with another node."""

    offset_seconds: float
    """The other's clock minus ours: negative where it is behind."""
    uncertainty_seconds: float
    epoch: int
    """Of the record, in this node's copy, when the exchange began."""
    at_seconds: float
    """When it was complete, by a clock of this node that never steps."""


class Verdict(Enum):
    """What is known about another node's clock."""

    UNKNOWN = "unknown"
    AGREES = "agrees"
    OUT = "out"


def narrowed(samples: tuple[Sample, ...]) -> Sample:
    """The newest sample, made more certain by those before it that do not contradict it.

    Where the newest contradicts one, a clock was set or stood still in between: only what came after counts.
    Raises ValueError without a sample.
    """
    if not samples:
        raise ValueError("no sample")
    newest = samples[-1]
    low = newest.offset_seconds - newest.uncertainty_seconds
    high = newest.offset_seconds + newest.uncertainty_seconds
    for older in reversed(samples[:-1]):
        lower = max(low, older.offset_seconds - older.uncertainty_seconds)
        upper = min(high, older.offset_seconds + older.uncertainty_seconds)
        if lower > upper:
            break
        low, high = lower, upper
    return replace(newest, offset_seconds=(low + high) / 2, uncertainty_seconds=(high - low) / 2)


@dataclass(frozen=True)
class Clock:
    """What one node knows of the clock of one other. `heard` gives what it knows after one more sample."""

    samples: tuple[Sample, ...] = ()
    verdict: Verdict = Verdict.UNKNOWN
    since_epoch: int = -1
    """Every sample behind the verdict began at this epoch of the record or later."""
    agreeing: tuple[int, ...] = ()
    """Epochs of the latest samples in a row that agree."""

    def heard(self, sample: Sample, limits: Limits) -> Clock:
        """After one more sample. One that is too uncertain to decide anything changes nothing."""
        if sample.uncertainty_seconds > limits.threshold_seconds * MAX_UNCERTAINTY_SHARE:
            return self
        kept = (*self.samples, sample)[-KEPT_SAMPLES:]
        # By this sample alone: what older ones say may be from before the clock stood still.
        least = abs(sample.offset_seconds) - sample.uncertainty_seconds
        most = abs(sample.offset_seconds) + sample.uncertainty_seconds
        bound = limits.threshold_seconds * (BACK_SHARE if self.verdict is Verdict.OUT else 1.0)
        if least > limits.threshold_seconds:
            return Clock(kept, Verdict.OUT, sample.epoch)
        if most > bound:
            # Still out of sync, and that is news; that it still agrees is not said by this sample.
            since = sample.epoch if self.verdict is Verdict.OUT else self.since_epoch
            return replace(self, samples=kept, agreeing=(), since_epoch=since)
        row = (*self.agreeing, sample.epoch)[-AGREEING_SAMPLES:]
        if len(row) < AGREEING_SAMPLES:
            return replace(self, samples=kept, agreeing=row)
        return Clock(kept, Verdict.AGREES, row[0], row)

    def at(self, now_seconds: float) -> Clock:
        """As it is now: what was known too long ago is not known any more."""
        fresh = self.samples and now_seconds - self.samples[-1].at_seconds <= STALE_SECONDS
        return self if fresh else Clock()

    @property
    def offset(self) -> Sample | None:
        """The best word on the offset; None: none."""
        return narrowed(self.samples) if self.samples else None


def material(told: float | None, now: float) -> bool:
    """Whether an offset has changed so much that the others should hear it."""
    return told is None or abs(told - now) >= MATERIAL_SECONDS


# -- whose clock it is -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blame:
    """Whose clock differs. `certain`: a majority agrees without them, or it is the one that has moved."""

    names: tuple[str, ...] = ()
    certain: bool = True
    why: str = ""


def blamed(positions: Mapping[str, float], threshold_seconds: float, mover: str = "") -> Blame:
    """Whose clock is out of sync. `positions`: each node's clock minus that of one of them.

    With three nodes and more it is who is not among the majority that agrees. Of two it is the mover of the
    last window. Else nobody can tell, and all that differ are named.
    """
    if max(positions.values(), default=0.0) - min(positions.values(), default=0.0) <= threshold_seconds:
        return Blame()
    groups = [
        frozenset(name for name, p in positions.items() if low <= p <= low + threshold_seconds)
        for low in positions.values()
    ]
    most = max(len(group) for group in groups)
    outside = sorted(set(positions).difference(*(group for group in groups if len(group) == most)))
    if 2 * most > len(positions) and outside:
        return Blame(tuple(outside), True, f"{most} of {len(positions)} nodes agree with one another")
    if len(positions) == 2 and mover in positions:
        return Blame((mover,), True, "it is the node that was moved last")
    apart = sorted(
        name
        for name, p in positions.items()
        if any(abs(p - other) > threshold_seconds for other in positions.values())
    )
    return Blame(tuple(apart), False, "nobody can tell which of them is right")


def difference(offset_seconds: float, node: str, than: str) -> str:
    """An offset in words."""
    word = "behind" if offset_seconds < 0 else "ahead of"
    return f"{node} is {abs(offset_seconds):.1f} s {word} {than}"


# -- the words ---------------------------------------------------------------------------------------------

FIRST, FURTHER, AGAIN = 34, 35, 34
_LOST = (
    "Cluster host {host} is no longer in time sync with local node. "
    "Sane operation of RMS can no longer be guaranteed."
)
_MORE = " Further out-of-sync messages will appear in the syslog."
SWITCHLOG_END = ": ===="


def first_text(host: str) -> str:
    """Text of (WRP, 34). Source: PRIMECLUSTER Installation and Administration Guide 4.3, 14.3.3."""
    return _LOST.format(host=host) + _MORE


def further_text(host: str) -> str:
    """Text of (WRP, 35). Source: the same page."""
    return _LOST.format(host=host)


def again_text(host: str) -> str:
    """Text of the line that ends both; ours, since the page only says that they stop."""
    return f"Cluster host {host} is in time sync with local node again."


def coded(number: int, text: str) -> str:
    """A message as the page prints it."""
    return f"(WRP, {number}) {text}"


def switchlog_entry(stamp: str, number: int, severity: str, text: str) -> str:
    """One entry of a switchlog, with its end mark. `stamp`: ``yyyy-mm-dd hh:mm:ss.xxx``, local time.

    Source: RMS with Wizard Tools Configuration and Administration Guide 4.6, F.7.1.
    """
    return f"{stamp}: (WRP, {number}): {severity}: {text}\n{SWITCHLOG_END}\n"
