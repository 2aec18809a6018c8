"""What ``standfast migrate`` shows: the progress in a line, and the page at the end. Text in, text out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from standfast.core.jobs import MigrationJob

BAR_CELLS = 24
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """A number of bytes with three digits or so: ``1.5 GiB``."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def clock(seconds: float) -> str:
    """``0:42``, ``1:02:03``."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def milliseconds(count: int) -> str:
    """``310 ms``, ``4.2 s``."""
    return f"{count} ms" if count < 1000 else f"{count / 1000:.1f} s"


def facts(job: MigrationJob) -> Iterator[str]:
    """What the host tells of it, and nothing that it does not tell."""
    if job.progress_percent is not None:
        yield f"{job.progress_percent} %"
    if job.copied_bytes is not None:
        yield f"{size(job.copied_bytes)} copied"
    if job.remaining_bytes is not None:
        yield f"{size(job.remaining_bytes)} left"
    if job.rate_bytes_per_second:
        yield f"{size(job.rate_bytes_per_second)}/s"
    if job.iteration is not None and job.iteration > 1:
        yield f"pass {job.iteration}"
    if job.downtime_ms is not None:
        yield f"blackout {milliseconds(job.downtime_ms)}" + ("" if job.done else " expected")


def plain(job: MigrationJob, seconds: float) -> str:
    """One line for a log."""
    return f"{clock(seconds)}  {', '.join(facts(job)) or 'under way'}"


def live(job: MigrationJob | None, seconds: float, columns: int) -> str:
    """The same with a bar, never wider than the terminal."""
    percent = job.progress_percent if job is not None else None
    if percent is None:
        at = int(seconds) % BAR_CELLS
        bar = "." * at + "#" + "." * (BAR_CELLS - at - 1)
    else:
        full = BAR_CELLS * max(0, min(percent, 100)) // 100
        bar = "#" * full + "." * (BAR_CELLS - full)
    told = ", ".join(facts(job)) if job is not None else "begins"
    return f"[{bar}] {told or 'under way'}  {clock(seconds)}"[: max(columns - 1, 20)]


class Raised(Protocol):
    """What a raise just in time came to (`migrate_raise.Figures`)."""

    budget_seconds: int | None
    hold_seconds: float | None
    raised_seconds: float | None
    lowered_seconds: float | None
    lowered: bool


@dataclass
class Summary:
    """What is known at the end. None, or an empty text: not known, and then the page says so."""

    guest: str
    node: str
    source: str
    target: str
    now_on: str = ""
    how: str = ""
    migration_seconds: float | None = None
    last: MigrationJob | None = None
    """The last that a host told of the migration."""
    hypervisor_ms: int | None = None
    cluster: str = ""
    dropped_seconds: float | None = None
    """How long the node was outside the membership; None: not known."""
    timeout_seconds: float | None = None
    raised: bool = False
    open_seconds: float | None = None
    opening_seconds: float | None = None
    closing_seconds: float | None = None
    closed: bool = False
    proven_from: tuple[str, ...] = ()
    begun: bool = field(default=False)
    """Whether the order to migrate was given."""
    just_in_time: Raised | None = None
    """What a raise just in time came to, where one was asked for."""

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "guest": self.guest, "node": self.node, "source": self.source, "target": self.target,
            "now_on": self.now_on, "how": self.how, "migration_seconds": _rounded(self.migration_seconds),
            "blackout_ms_by_hypervisor": self.hypervisor_ms, "blackout_by_cluster": self.cluster,
            "dropped_seconds": _rounded(self.dropped_seconds), "timeout_seconds": self.timeout_seconds,
            "raised": self.raised, "just_in_time": self._just_in_time(), "window_closed": self.closed,
            "window_seconds": _rounded(self.open_seconds),
            "opening_seconds": _rounded(self.opening_seconds),
            "closing_seconds": _rounded(self.closing_seconds), "proven_from": list(self.proven_from),
        }  # fmt: skip

    def _just_in_time(self) -> dict[str, object] | None:
        told = self.just_in_time
        if told is None:
            return None
        return {
            "budget_seconds": told.budget_seconds, "hold_seconds": _rounded(told.hold_seconds),
            "raised_seconds": _rounded(told.raised_seconds),
            "lowered_seconds": _rounded(told.lowered_seconds), "lowered": told.lowered,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The page."""
        yield f"{self.guest} ({self.node}): {self.source} to {self.target}: {self.how}"
        if self.now_on:
            yield row("is on", self.now_on)
        if self.migration_seconds is not None:
            yield row("migration", ", ".join([f"{self.migration_seconds:.1f} s", *self._amount()]))
        if self.begun:
            told = "not told by this kind of host"
            if self.hypervisor_ms is not None:
                told = milliseconds(self.hypervisor_ms)
            yield row("blackout", f"by the hypervisor: {told}")
            yield row("", f"by the cluster: {self.cluster or 'not looked at'}")
        yield from self._window()

    def _amount(self) -> Iterator[str]:
        if self.last is not None and self.last.copied_bytes is not None:
            yield f"{size(self.last.copied_bytes)} copied"
        if self.last is not None and self.last.iteration is not None:
            yield f"{self.last.iteration} passes"

    def _window(self) -> Iterator[str]:
        if self.timeout_seconds is not None:
            yield row("heartbeat", f"timeout {self.timeout_seconds:.0f} s, {self._kept()}")
        if self.open_seconds is None:
            return
        took = [f"open for {self.open_seconds:.1f} s"]
        if self.opening_seconds is not None:
            took.append(f"opened in {self.opening_seconds:.1f} s")
        if self.closing_seconds is not None and self.closed:
            took.append(f"closed in {self.closing_seconds:.1f} s")
        yield row("window", ", ".join(took) if self.closed else f"STILL OPEN ({', '.join(took)})")
        if self.closed:
            seen = ", ".join(self.proven_from)
            yield row("fencing", f"aims at {self.now_on}" + (f", proven from {seen}" if seen else ""))

    def _kept(self) -> str:
        told = self.just_in_time
        if told is None:
            return "raised for the window" if self.raised else "not raised"
        if told.raised_seconds is None:
            return "not raised"
        up = f"raised to {told.budget_seconds} s for {told.raised_seconds:.1f} s around the switch-over"
        return up if told.lowered else f"{up}, NOT DOWN on every member yet"


def row(name: str, text: str) -> str:
    """One line of the page."""
    return f"  {name:<11}{text}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
