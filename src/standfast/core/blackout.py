"""How long a node that moves stood still, as its cluster has seen it: what can be known, and no more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Absence:
    """A time outside the membership, in seconds of the observer's clock. `until` None: not back yet."""

    since: float
    until: float | None = None


@dataclass(frozen=True)
class Watch:
    """What one member has seen of the node that moves. Each look makes a new one."""

    node: str
    absences: tuple[Absence, ...] = ()
    blind: bool = False
    """The observer lost other members too, or could not look: it may have been the one that was cut off."""

    @property
    def away(self) -> bool:
        """Whether the node was outside the membership at the last look."""
        return bool(self.absences) and self.absences[-1].until is None

    def look(self, members: frozenset[str], expected: frozenset[str], now: float) -> Watch:
        """One look at the membership. `expected`: who was a member in the beginning."""
        blind = self.blind or bool(expected - members - {self.node})
        absences = self.absences
        if self.node not in members and not self.away:
            absences = (*absences, Absence(now))
        elif self.node in members and self.away:
            absences = (*absences[:-1], Absence(absences[-1].since, now))
        return Watch(self.node, absences, blind)

    @property
    def away_seconds(self) -> float:
        """All times outside the membership that have ended, together."""
        return sum(one.until - one.since for one in self.absences if one.until is not None)

    def sentence(self, timeout_seconds: float | None) -> str:
        """For people. `timeout_seconds`: the heartbeat timeout that was in force."""
        if self.blind:
            return "not told: this node lost other members too"
        timeout = "the heartbeat timeout" if timeout_seconds is None else f"{timeout_seconds:.0f} s"
        if not self.absences:
            return f"{self.node} was never dropped, so it was shorter than {timeout} (the heartbeat timeout)"
        if self.away:
            return f"{self.node} was dropped and is not back yet"
        times = "" if len(self.absences) == 1 else f" in {len(self.absences)} times"
        text = f"{self.node} was dropped, and out of the membership for {self.away_seconds:.1f} s{times}"
        if timeout_seconds is None or len(self.absences) > 1:
            return text
        # A node is dropped one timeout after its last word, and runs for a while before it is back.
        return f"{text}: silent for up to {self.away_seconds + timeout_seconds:.0f} s in all"
