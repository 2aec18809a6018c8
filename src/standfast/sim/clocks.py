"""Clocks that lag by their node's blackout, for a while or until a person comes; what each daemon measures.

Mirrors daemon/clock_duty.py; what a sample means is decided by the production function (core.clocks). Played
in some runs only, with chance of their own: in the others all clocks agree, and are measured at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from standfast.core import clocks
from standfast.core.clocks import Clock, Limits, Sample, Verdict
from standfast.core.record import Phase, Record
from standfast.daemon.clock_duty import ASKED_LIMIT_SECONDS, ASKED_SECONDS, OUT_SECONDS
from standfast.sim.kernel import Steps

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

LAG_SHARE = 0.2
IDLE_SECONDS = 15.0
LIMITS = Limits()
BLACKOUTS_MS = ((3_000, 15_000), (10_000, 60_000), (10_000, 60_000), (30_000, 200_000))
NEVER = 0.6
"""Share of the lags that nothing mends but a person."""
MENDED_MS = ((0, 5_000), (5_000, 60_000), (60_000, 240_000))
"""After so long a time service has mended the others."""
MEASURED_MS = 20_000
"""What was measured may be so old when a close acts on it: a round of an idle cluster, and a write."""


def lags(seed: int) -> bool:
    """Whether clocks lag after a blackout in this run."""
    return random.Random(f"clocks {seed}").random() < LAG_SHARE


class Clocks:
    """The truth about the clocks of one run."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"clocks {seed}")
        self.lag = self.rng.random() < LAG_SHARE
        """Whether they lag after a blackout."""
        self.behind_s: dict[str, float] = {}
        self._since_ms: dict[str, int] = {}
        self._lags: dict[str, int] = {}
        self.overruled = 0
        """The window in which an operator has said that they are not to count."""

    def between(self, least_ms: int, most_ms: int) -> int:
        """A delay by chance of this story's own."""
        return least_ms + int(self.rng.random() * (most_ms - least_ms))

    def stood_still(self, node: Node, seconds: float) -> None:
        """A guest runs on after its blackout with the time at which it stopped."""
        if not self.lag:
            return
        self.behind_s[node.name] = self.behind_s.get(node.name, 0.0) + seconds
        self._since_ms[node.name] = self.world.kernel.now_ms
        number = self._lags[node.name] = self._lags.get(node.name, 0) + 1
        if self.rng.random() >= NEVER:
            delay_ms = self.between(*self.rng.choice(MENDED_MS))
            self.world.kernel.at(delay_ms, lambda: self._mended(node, number))

    def _mended(self, node: Node, number: int) -> None:
        if number == self._lags[node.name]:
            self.set_right(node.name)

    def set_right(self, name: str) -> None:
        """By its time service, by a boot, or by hand."""
        if self.behind_s.pop(name, 0.0) > LIMITS.threshold_seconds:
            self.world.kernel.say(name, "its clock is right again")

    def mended(self) -> None:
        """Everything is put right; sometimes nobody can do that for a clock, and an operator overrules it."""
        for name in list(self.behind_s):
            if self.rng.random() < 0.5:
                self.set_right(name)

    def apart(self, members: frozenset[str]) -> list[str]:
        """Members whose clock lags behind that of another by plainly more than the threshold, and for so long
        that everybody must have measured it."""
        now_ms = self.world.kernel.now_ms
        least = min((self.behind_s.get(name, 0.0) for name in members), default=0.0)
        bound = LIMITS.threshold_seconds + 1.0
        return [
            name
            for name in sorted(members)
            if self.behind_s.get(name, 0.0) - least > bound and now_ms - self._since_ms[name] > MEASURED_MS
        ]


class Measuring:
    """One daemon's ClockDuty."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.known: dict[str, Clock] = {}
        self.offsets: dict[str, float] = {}
        self.out: tuple[str, ...] = ()
        self.asked = 0
        self._told: object = None

    def ask(self, record: Record | None) -> bool:
        """What the record asks for; True: it is another epoch than before."""
        closing = record is not None and record.phase is Phase.CLOSING and not record.abort
        asked = record.prove if record is not None and closing else 0
        new, self.asked = asked != self.asked, asked
        self._tell()
        return new

    def quick(self, run: int) -> Steps:
        """Somebody has just asked: twice a second, until all is known."""
        asked, began_ms = self.asked, self.world.kernel.now_ms
        daemon = self.world.daemon_of(self.node)
        while daemon.alive and daemon.run == run and self.asked == asked and not self._all_known():
            if self.world.kernel.now_ms - began_ms > ASKED_LIMIT_SECONDS * 1000:
                return
            yield int(ASKED_SECONDS * 1000)
            yield from self._round()

    def forever(self, run: int) -> Steps:
        """Every 15 s, every 5 s while somebody is out."""
        daemon = self.world.daemon_of(self.node)
        while daemon.alive and daemon.run == run:
            yield from self._round()
            seconds = OUT_SECONDS if self.out or (self.asked and not self._all_known()) else IDLE_SECONDS
            yield int(seconds * 1000)

    def _others(self) -> list[str]:
        return sorted(self.node.ring.members - {self.node.name})

    def _all_known(self) -> bool:
        return set(self._fresh()) >= set(self._others())

    def _round(self) -> Steps:
        """Everybody who runs answers over the ring. (The samples of one round are taken as it ends.)"""
        node, clock = self.node, self.world.clocks
        record = node.cib.readable
        epoch = record.epoch if record is not None else 0
        yield clock.between(100, 160)
        for name in self._others():
            other = self.world.nodes[name]
            if other.running and other.ring is node.ring and not node.ring.stalled:
                offset = clock.behind_s.get(node.name, 0.0) - clock.behind_s.get(name, 0.0)
                sample = Sample(
                    offset, 0.01 + clock.rng.random() * 0.1, epoch, self.world.kernel.now_ms / 1000
                )
                self.known[name] = self.known.get(name, Clock()).heard(sample, LIMITS)
        if self._tell():
            self.world.daemon_of(node).report()

    def _fresh(self) -> Mapping[str, Clock]:
        now_s = self.world.kernel.now_ms / 1000
        found = {name: self.known[name].at(now_s) for name in self._others() if name in self.known}
        return {
            name: clock
            for name, clock in found.items()
            if clock.verdict is not Verdict.UNKNOWN and clock.since_epoch >= self.asked
        }

    def _tell(self) -> bool:
        """Whether what is told is another word than before."""
        self.known = {name: clock for name, clock in self.known.items() if name in self.node.ring.members}
        fresh = self._fresh()
        told = {}
        for name, clock in fresh.items():
            exact = clock.offset.offset_seconds if clock.offset is not None else 0.0
            before = self.offsets.get(name)
            told[name] = before if before is not None and not clocks.material(before, exact) else exact
        self.offsets = told
        self.out = tuple(sorted(name for name, clock in fresh.items() if clock.verdict is Verdict.OUT))
        now = (told, self.out, self.asked)
        new, self._told = now != self._told, now
        return new
