"""What happens while only clocks are in the way of a close: fencing is armed, the heartbeat is still raised.

Who dies is recovered as soon as the raised timeout lets it be seen (L3); a guest moves once more, and nobody
kills it or is killed by it (S8); operators type -u, also of another guest, and overrule what nobody mends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from standfast.core import heartbeat
from standfast.sim.kernel import Steps
from standfast.sim.site import Guest

if TYPE_CHECKING:
    from standfast.sim.ring import Ring
    from standfast.sim.story import Story

THINGS = 3
WHAT = ("dies", "dies", "dies", "moves", "moves", "moves", "other", "waits")
WHAT_OF_TWO = ("dies", "dies", "moves", "moves", "moves", "moves", "moves", "other")
"""Of two nodes one that was moved without a word may wake up alone, and then believes that it may act."""
LONG, LONG_OF_TWO = 0.7, 0.9
"""Share of the moves whose blackout is longer than the raised timeout."""
SETTLED_MS = (16_000, 60_000)
RELEASE_S = 60.0
"""One that a gate has held for what hosts said has so long to come back."""
FENCER_S = 25.0
"""What the fencer and a device need."""
BACK = 0.4
"""Share of the moves after which it is moved back."""
SHORT_MS = 1_000
LONGEST_MS = 150_000
"""A timeout that is raised further is not slept through: the run would be too long."""


class ClockStory:
    """The people of a window whose guests are proven, and whose clocks do not agree."""

    def __init__(self, story: Story) -> None:
        self.story, self.world, self.kernel = story, story.world, story.kernel
        self.clocks = story.world.clocks

    def goes_on(self) -> Steps:
        """Up to three things happen, for as long as it waits."""
        for _ in range(THINGS):
            ring = self._waiting()
            if ring is None:
                return
            mover = self.world.guest_of(ring.cib.record.mover)
            what = self.clocks.rng.choice(WHAT_OF_TWO if len(self.world.nodes) == 2 else WHAT)
            self.kernel.say("story", "only clocks are in the way: %s", what)
            if what == "dies":
                yield from self._dies(mover)
                return
            if what == "moves":
                yield from self._moves(mover)
            elif what == "other":
                other = self._choose([one for one in self.world.site.guests.values() if one is not mover])
                yield from self.story.command("-u", self.story.close(other), dies=0.0)
            yield self.clocks.between(1_000, 60_000)
            ignore = "they are known to be wrong" if self.clocks.rng.random() < 0.3 else ""
            yield from self.story.command("-u", self.story.close(mover, ignore=ignore), dies=0.0)

    def _choose(self, guests: list[Guest]) -> Guest:
        return self.clocks.rng.choice(guests)

    def _waiting(self) -> Ring | None:
        """The membership that acts, where all of it waits for clocks only."""
        ring = self.world.main_ring()
        if ring is None or ring.cib.damage or not ring.cib.record.waits_for_clocks:
            return None
        well = len(ring.members) == len(self.world.nodes) and not ring.stalled
        return ring if well and not any(one.moving_to for one in self.world.site.guests.values()) else None

    def _moves(self, guest: Guest) -> Steps:
        """It moves once more, and nobody says so: for a moment, or for longer than the raised timeout."""
        ring = self.world.main_ring()
        hosts = [name for name in self.world.site.hosts if name != guest.host]
        target = self.clocks.rng.choice(hosts)
        yield self.clocks.between(*SETTLED_MS)
        timeout_ms = max(heartbeat.timeout_ms(node.runtime) for node in self.world.nodes.values())
        blackout_ms = self.clocks.between(100, 10_000)
        long = LONG_OF_TWO if len(self.world.nodes) == 2 else LONG
        if self.clocks.rng.random() < long and timeout_ms < LONGEST_MS:
            blackout_ms = timeout_ms + self.clocks.between(5_000, 60_000)
        outcome = "moved" if self.clocks.rng.random() < 0.8 else "failed"
        if ring is not self.world.main_ring() or not guest.os_alive or guest.moving_to:
            return
        home = guest.host
        yield self.world.move(guest, target, outcome, announced=False, blackout_ms=blackout_ms)
        if self.clocks.rng.random() < BACK and guest.os_alive and guest.host != home and not guest.moving_to:
            # Its devices aim where it is, and its service processor does not know it.
            yield self.clocks.between(1_000, 20_000)
            yield self.world.move(guest, home, "moved", announced=False, blackout_ms=SHORT_MS)
        yield self.clocks.between(20_000, 90_000)

    def _dies(self, mover: Guest) -> Steps:
        """The mover, or another node, hangs or loses its power."""
        guests = list(self.world.site.guests.values())
        guest = mover if self.clocks.rng.random() < 0.5 else self._choose(guests)
        yield self.clocks.between(100, SETTLED_MS[1])
        ring = self._waiting()
        if ring is None or not guest.os_alive or guest.hung or self.story.at_work:
            return
        if ring.cib.aims[guest.node].host != guest.host:
            return  # it has moved, and nobody has said so: it is held
        faults, window = self.story.faults, ring.cib.record.window
        clean, began_ms = not faults.happened, self.kernel.now_ms
        timeouts = [heartbeat.timeout_ms(node.runtime) / 1000 for node in self.world.nodes.values()]
        limit_s = max(timeouts) + RELEASE_S + FENCER_S
        self.kernel.say("story", "%s really dies", guest.node)
        if self.clocks.rng.random() < 0.6:
            guest.hung = True
            self.world.nodes[guest.node].stand("hang", True)
        else:
            self.world.site.kill(guest, "power off", power=False)
        while guest.node not in self.world.recovered_at:
            if (self.kernel.now_ms - began_ms) / 1000 > limit_s:
                break
            yield 1_000
        ring = self.world.main_ring()
        if not clean or faults.happened or ring is None or guest.node in ring.members:
            return
        if ring.cib.record.window != window or not ring.cib.record.open:
            return
        at_ms = self.world.recovered_at.get(guest.node)
        self.world.check.now_ms = self.kernel.now_ms
        self.world.check.recovered_proven(
            guest.node, None if at_ms is None else (at_ms - began_ms) / 1000, limit_s
        )
