"""What a node knows of guests that are astray, and the command that it would type about one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from standfast.core import strays
from standfast.core.record import Record
from standfast.core.report import Report
from standfast.core.steps import HostEntry, NodeAim
from standfast.core.strays import Kind, Sight, Tries

REPAIR_LEASE_MINUTES = 10
"""A repair that the nodes began and cannot finish holds fencing for so long at most."""


@dataclass
class Entry:
    """One guest that is astray, as this node has seen or heard it."""

    sight: Sight
    since: float
    confirmed: float
    """When it was last seen, or heard of."""
    told_by: str = ""
    """The node that has told it; empty: seen by this one."""
    sights: int = 0
    """Own looks in a row that have shown it plainly there."""
    tries: Tries = field(default_factory=Tries)
    tried_at: float = 0.0
    obstacle: str = ""
    """Why nothing is tried now, where the nodes may."""

    def tried(self, now: float) -> Tries:
        """What was tried, as of now."""
        return replace(self.tries, seconds_since=now - self.tried_at)


@dataclass(frozen=True)
class View:
    """What this node knows at one turn."""

    record: Record
    aims: Mapping[str, NodeAim]
    hosts: Mapping[str, HostEntry]
    reports: Mapping[str, Report]
    able: frozenset[str]
    repairs: bool
    opens: bool

    @property
    def expected(self) -> bool:
        """Whether a guest may move: a window is open. One that waits for clocks only has armed fencing, and
        what moves then is told; its own -u mends it, and nothing is begun here."""
        return self.record.open and not self.record.waits_for_clocks


def order(aim: NodeAim, sight: Sight) -> tuple[str, ...]:
    """What an operator would type."""
    if sight.kind is Kind.MOVING:
        to = ("--to", sight.host) if sight.host else ()
        return ("standfast", "window", "open", aim.guest, *to, "--reason", strays.AUTO_REASON, "--json")
    lease = ("--lease", str(REPAIR_LEASE_MINUTES))
    return ("standfast", "window", "repair", aim.guest, *lease, "--json")
