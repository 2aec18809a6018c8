"""A frozen window that nobody closes: it outlives its lease, and the nodes close it, arm it, or alarm.

The mover is alive, hangs, loses its power, is left half-moved, is cut off, or is in a blackout as the lease
ends. Where nobody interferes and it is really dead, it has to be recovered in time (L3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from standfast.core import heartbeat
from standfast.core.steps import Done
from standfast.sim.kernel import Steps
from standfast.sim.site import Guest

if TYPE_CHECKING:
    from standfast.sim.story import Story

BUDGETS_S = (20, 33, 60, 120)
LEASES_S = (60, 60, 120, 300)
WHAT = (
    "hangs",
    "hangs",
    "hangs after its move",
    "power off",
    "half-moved",
    "half-moved",
    "alive",
    "cut off",
    "another cut off",
    "another hangs",
    "blackout at the end",
    "moves after the end",
    "stuck",
)
ABSENT_S = 60.0
"""A node that arms has seen the absence for so long, and each one after it 30 s longer."""
STAGGER_S = 30.0
CLOSE_S = 60.0
"""The attempt to close comes first."""
PLAIN_S = 60.0
HALF_S = 360.0
"""A copy that is neither alive nor gone is waited for: the hold limit, and a minute after the cancel."""
FENCER_S = 30.0
TROUBLE_S = 30.0
"""One order that was lost, or slow."""


class LeaseStory:
    """The people of one frozen window, who forget it."""

    def __init__(self, story: Story) -> None:
        self.story, self.world, self.kernel = story, story.world, story.kernel

    def window(self, guest: Guest, target: str) -> Steps:
        """From the opening to what comes of it, and sometimes a -u in the end."""
        rng, story = self.kernel.rng, self.story
        budget, lease = rng.choice(BUDGETS_S), rng.choice(LEASES_S)
        mover = "" if self.kernel.chance(0.35) else guest.node
        outcome = yield from story.command("-p", story.open(mover, budget, lease), dies=0.03)
        if not isinstance(outcome, Done):
            return
        ends_ms = self.kernel.now_ms + lease * 1000
        if not mover and self.kernel.chance(0.4):
            self._another_moves(guest)
        yield from self._what_happens(guest, target, ends_ms)
        if not mover and self.kernel.chance(0.5):
            yield from self._second_death(guest)
        if self.kernel.chance(0.3):
            other = self.world.guest_of(rng.choice(list(self.world.nodes)))
            yield from story.command("-u", story.close(other if self.kernel.chance(0.3) else guest))
            yield self.kernel.between(1_000, 60_000)

    def _what_happens(self, guest: Guest, target: str, ends_ms: int) -> Steps:
        what = self.kernel.rng.choice(WHAT)
        self.kernel.say("story", "the window is forgotten: %s", what)
        yield self.kernel.between(100, 20_000)
        late_ms = ends_ms - self.kernel.now_ms + self.kernel.between(-20_000, 60_000)
        if what == "alive":
            if self.kernel.chance(0.7):
                yield self.world.move(guest, target, "moved", announced=True)
        elif what == "blackout at the end":
            blackout_ms = self.kernel.between(20_000, 200_000)
            yield max(0, ends_ms - self.kernel.now_ms - self.kernel.between(0, blackout_ms + 20_000))
            yield self.world.move(guest, target, "moved", announced=True, blackout_ms=blackout_ms)
        elif what == "moves after the end":
            yield max(0, late_ms + 30_000)
            yield self.world.move(guest, target, "moved", announced=True, blackout_ms=100_000)
        elif what == "stuck":
            self.world.move(guest, target, "stuck", announced=True, blackout_ms=3_600_000)
        elif what == "cut off" or what == "another cut off":
            yield from self._cut_off(guest, other=what != "cut off", late_ms=late_ms)
        else:
            yield from self._dies(guest, target, what, late_ms)
            return
        yield max(0, ends_ms - self.kernel.now_ms) + self.kernel.between(60_000, 400_000)
        if what == "stuck" and guest.moving_to:
            self.world.site.cancel(guest.host, guest.name)
            yield self.kernel.between(20_000, 200_000)

    def _another_moves(self, guest: Guest) -> None:
        """A window for every node is for this guest too."""
        others = [one for one in self.world.site.guests.values() if one is not guest]
        other = self.kernel.rng.choice(others)
        target = self.kernel.rng.choice([name for name in self.world.site.hosts if name != other.host])
        self.world.move(other, target, "moved", announced=True)

    def _second_death(self, guest: Guest) -> Steps:
        """Who was killed is back, and the window is still there, as another node hangs: whose host may not
        have saved."""
        ring = self.world.main_ring()
        if ring is None or not ring.cib.guarded or self.story.faults.mended:
            return
        self.world.site.boot(guest)
        for _ in range(40):
            yield 2_000
            ring = self.world.main_ring()
            if ring is not None and len(ring.members) == len(self.world.nodes):
                break
        victim = self.kernel.rng.choice([one for one in self.world.site.guests.values() if one is not guest])
        if victim.os_alive and not victim.moving_to and not self.story.faults.mended:
            self.story.faults.happened.append("a second death")
            self.story.faults.touched()
            self.kernel.say("story", "%s hangs too", victim.node)
            victim.hung = True
            self.world.nodes[victim.node].stand("hang", True)
            yield self.kernel.between(60_000, 200_000)

    def _cut_off(self, guest: Guest, *, other: bool, late_ms: int) -> Steps:
        names = [name for name in self.world.nodes if (name != guest.node) == other]
        yield max(0, late_ms)
        if self.story.faults.mended:
            return
        self.story.faults.cut_off(self.kernel.rng.choice(names))
        for node in self.world.nodes.values():
            node.trouble_ms = self.kernel.now_ms
            if len(self.world.nodes) == 2:
                node.last_loss = "partition"  # each has lost the other
        yield self.kernel.between(30_000, 400_000)
        if not self.story.faults.mended:
            self.story.faults.join(list(self.world.nodes))

    def _dies(self, guest: Guest, target: str, what: str, late_ms: int) -> Steps:
        victim = guest
        if what == "another hangs":
            names = [name for name in self.world.nodes if name != guest.node]
            victim = self.world.guest_of(self.kernel.rng.choice(names))
        elif what == "hangs after its move":
            yield self.world.move(guest, target, "moved", announced=True)
        if self.kernel.chance(0.4):
            yield max(0, late_ms)
        if not victim.os_alive or victim.hung or victim.moving_to or self.story.faults.mended:
            return
        ring = self.world.main_ring()
        window = ring.cib.record.window if ring is not None and ring.cib.record.open else 0
        self.kernel.say("story", "%s really dies: %s", victim.node, what)
        if what == "power off":
            self.world.site.kill(victim, "power off", power=False)
        elif what == "half-moved":
            yield self.world.move(victim, target, "half", announced=True)
        else:
            victim.hung = True
            self.world.nodes[victim.node].stand("hang", True)
        yield from self._recovered(victim, what, window)

    def _recovered(self, guest: Guest, what: str, window: int) -> Steps:
        world, began_ms, troubles = self.world, self.kernel.now_ms, self.world.order_troubles
        ring = world.main_ring()
        if ring is None or not ring.cib.record.holds or ring.cib.record.window != window:
            return  # what moves after the nodes have closed it, or armed fencing, has no window
        lease_left_s = ring.cib.record.lease_seconds - (began_ms - world.check.store_since_ms) / 1000
        clean = not self.story.faults.happened
        timeout_s = max(heartbeat.timeout_ms(node.runtime) for node in world.nodes.values()) / 1000
        limit_s = (
            max(lease_left_s, timeout_s) + CLOSE_S + ABSENT_S + STAGGER_S * (len(world.nodes) + 1) + FENCER_S
        )
        limit_s += HALF_S if what == "half-moved" else PLAIN_S
        while guest.node not in world.recovered_at:
            over_s = (self.kernel.now_ms - began_ms) / 1000 - TROUBLE_S * (world.order_troubles - troubles)
            if over_s > limit_s:
                break
            yield 1_000
        ring = world.main_ring()
        if not clean or self.story.faults.happened or ring is None or guest.node in ring.members:
            return
        if len(world.nodes) - 1 > len(ring.members) or not world.fencer.quorate(ring):
            return
        at_ms = world.recovered_at.get(guest.node)
        world.check.now_ms = self.kernel.now_ms
        world.check.recovered_guarded(what, None if at_ms is None else (at_ms - began_ms) / 1000, limit_s)
