"""What happens in a guarded window: blackouts of any length, real deaths, other nodes that die.

Whoever really dies while nobody interferes has to be recovered in time (L3); how soon depends on what its
hosts can show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from standfast.core import confirmed, heartbeat
from standfast.core.record import Mode, Phase
from standfast.core.steps import Done
from standfast.sim.kernel import Steps
from standfast.sim.site import Guest
from standfast.sim.store import Cib, written

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.story import Story

WORD_TRIES = 5
"""So often a write of the command that calls a host dead is made anew after a lost race."""
BUDGETS_S = (0, 0, 0, 0, 20, 33, 60, 120)
LEASES_S = (60, 300, 900, 1800)
OUTCOMES = ("moved",) * 5 + ("cancelled", "failed", "failed", "stuck")
STUCK_MS = 3_600_000
WRONG_TO_GATE = 0.15
FENCER_S = 25.0
"""What fencer, two rounds of questions and an order need beside the limits of the gate."""
PLAIN_S = 60.0
HOLD_LIMIT_S = 300.0
GRACE_S = 60.0
"""What is cancelled when the hold limit is over may run on for so long."""
LOOKED_S = 10.0
"""So long before a death the nodes' daemons have been looking: 5 s are needed."""
POWER_S = 20.0
"""A silent host is waited for at each question."""
TROUBLE_S = 25.0
"""One order that was lost, or slow."""


class GuardedStory:
    """The people of one guarded window."""

    def __init__(self, story: Story) -> None:
        self.story, self.world, self.kernel = story, story.world, story.kernel
        self.opened_ms = 0

    def window(self, guest: Guest, target: str) -> Steps:
        """From the opening to the last try to close."""
        rng, story = self.kernel.rng, self.story
        budget, lease = rng.choice(BUDGETS_S), rng.choice(LEASES_S)
        said = target if self.kernel.chance(0.8) else ""
        opening = story.open(guest.node, budget, lease, Mode.GUARDED, said)
        if self.kernel.chance(0.15):
            frozen = story.open(guest.node, 60, lease)
            other = rng.choice((opening, frozen, story.close(guest)))
            self.kernel.at(self.kernel.between(0, 6_000), lambda: story.aside("the other operator", other))
        outcome = yield from story.command("open", opening)
        if not isinstance(outcome, Done) and self.kernel.chance(0.6):
            yield self.kernel.between(1_000, 20_000)
            outcome = yield from story.command("open", opening)
        self.opened_ms = self.kernel.now_ms
        if isinstance(outcome, Done):
            self._asides(guest)
            yield from self._what_happens(guest, target)
        elif self.kernel.chance(0.15):
            yield self.world.move(guest, target, "moved", announced=False)
        yield self.kernel.between(100, 20_000)
        for _ in range(rng.choice((1, 1, 2, 3))):
            other_guest = self.world.guest_of(rng.choice(list(self.world.nodes)))
            closed = other_guest if self.kernel.chance(0.08) else guest
            outcome = yield from story.command("-u", story.close(closed))
            if isinstance(outcome, Done):
                break
            yield self.kernel.between(1_000, 30_000)

    def _asides(self, guest: Guest) -> None:
        """What other people do meanwhile."""
        story = self.story
        at_ms = self.kernel.between(1_000, 120_000)
        if self.kernel.chance(0.1):
            self.kernel.at(at_ms, lambda: story.aside("the other -u", story.close(guest)))
        elif self.kernel.chance(0.1):
            self.kernel.at(at_ms, self._extend)

    def _extend(self) -> None:
        def longer(now: Cib) -> Cib:
            if now.damage or not now.record.open:
                return now
            record = now.record.next(lease_seconds=now.record.lease_seconds + 600)
            return written(now.record.epoch, record)(now)

        able = [node for node in self.world.nodes.values() if node.running and node.joined]
        if able and not self.story.faults.mended:
            node = self.kernel.rng.choice(able)
            self.world.network.write(node, longer, "a longer lease", 20_000)(lambda answer: None)

    # -- what happens in it --------------------------------------------------------------------------------

    def _what_happens(self, guest: Guest, target: str) -> Steps:
        rng = self.kernel.rng
        yield self.kernel.between(100, 30_000)
        if self.world.extra.random() < WRONG_TO_GATE:
            # One whole round in which nobody has it; the next one says how it is.
            for name in (guest.host, target):
                self.world.site.hosts[name].wrong_to_gate = True
        if self.kernel.chance(0.25):
            yield from self._dies_at_rest(guest)
            return
        if self.kernel.chance(0.1):
            yield from self._while_one_is_cut_off(guest, target)
            return
        if self.kernel.chance(0.06):
            yield from self._called_dead(guest)
            return
        outcome = rng.choice(OUTCOMES)
        blackout_ms = STUCK_MS if outcome == "stuck" else 0
        if self.kernel.chance(0.15):
            self.kernel.at(self.kernel.between(0, 60_000), self._another_dies(guest))
        how = rng.choice(("",) * 6 + ("hangs in it", "hangs after it", "stopped in it", "source off"))
        if how in ("hangs in it", "stopped in it", "source off") and outcome != "stuck":
            at_ms = self.kernel.between(500, 30_000)
            self.kernel.at(at_ms, lambda: self.die(guest, how))
        moving = self.world.move(guest, target, outcome, announced=True, blackout_ms=blackout_ms)
        if outcome == "stuck":
            yield from self._stuck(guest)
            return
        began_ms = self.kernel.now_ms
        yield moving
        if how == "hangs after it" and guest.os_alive:
            yield self.kernel.between(0, 5_000)
            self.die(guest, how)
        if how and (guest.hung or not guest.power):
            # The limits count from the last thing that could have been a blackout.
            ended_ms = max(self.kernel.now_ms, began_ms)
            limit_s = POWER_S if how == "source off" else PLAIN_S if guest.hung else 0.0
            yield from self._recovered(guest, how, ended_ms, limit_s)

    def die(self, guest: Guest, how: str) -> None:
        """The mover really dies in this way."""
        if not guest.os_alive or guest.hung or self.story.faults.mended:
            return
        self.kernel.say("story", "%s really dies: %s", guest.node, how)
        if how.startswith("hangs"):
            guest.hung = True
            self.world.nodes[guest.node].stand("hang", True)
        elif how == "source off":
            self.world.site.lose(guest.host, self.kernel.now_ms + 1_000_000)
        else:
            self.world.site.kill(guest, "power off", power=False)

    def _while_one_is_cut_off(self, guest: Guest, target: str) -> Steps:
        """A node on a host of the migration, which nobody fences, is cut off for minutes, and comes back in
        the blackout: what it has seen meanwhile was its own absence."""
        names = [
            name
            for name in self.world.nodes
            if name != guest.node and self.world.guest_of(name).host in (guest.host, target)
        ]
        if len(self.world.nodes) < 3 or not names or self.story.faults.mended:
            return
        other = self.kernel.rng.choice(names)
        self.story.faults.cut_off(other)
        yield self.kernel.between(250_000, 330_000)
        moving = self.world.move(guest, target, "moved", announced=True, blackout_ms=100_000)
        yield 500
        while guest.moving_to and not guest.in_blackout and guest.os_alive:
            yield 500
        yield self.kernel.between(0, 60_000)
        if not self.story.faults.mended:
            self.story.faults.join([other])
        yield moving

    def _called_dead(self, guest: Guest) -> Steps:
        """A host without power, whose service processor is silent too, is called dead by a person. Later it
        is back, with the guest, and falls silent once more while that lives: the word says nothing of it."""
        world, host, node = self.world, self.world.site.hosts[guest.host], self.world.nodes[guest.node]
        if not guest.os_alive or self.story.faults.mended:
            return
        self.story.faults.happened.append("called dead")
        self.story.faults.touched()
        world.site.lose(host.name, self.kernel.now_ms + 1_000_000)
        host.power_answers = False
        yield self.kernel.between(12_000, 40_000)
        speaker = self._confirm(guest, host.name)
        others = [one for one in world.nodes.values() if one.running and one not in (speaker, node)]
        if speaker is not None and speaker is not node and others and self.kernel.chance(0.4):
            # Its command stands still between the two questions, until the host is silent again. Not where
            # it is alone: its clock may stand still too, and nobody could tell it (README, "Known holes").
            yield 1_500
            speaker.stand("freeze", True)
        yield self.kernel.between(20_000, 60_000)
        host.silent_until_ms = host.off_until_ms = self.kernel.now_ms
        world.site.boot(guest)
        for _ in range(60):
            ring = world.main_ring()
            if node.running and node.joined and ring is node.ring and len(ring.members) > 1:
                break
            yield 2_000
        yield self.kernel.between(2_000, 20_000)
        if not self.story.faults.mended:
            host.silent_until_ms = self.kernel.now_ms + self.kernel.between(60_000, 150_000)
            self.kernel.say(host.name, "is silent")
            node.stand("freeze", True)
            if speaker is not None:
                yield self.kernel.between(500, 8_000)
                speaker.stand("freeze", False)
            yield self.kernel.between(40_000, 120_000)
            node.stand("freeze", False)

    def _confirm(self, guest: Guest, host: str) -> Node | None:
        """Have somebody type the command; on which node."""
        able = [node for node in self.world.nodes.values() if node.running and node.joined]
        if able and self.world.site.silent(host) and not self.story.faults.mended:
            self.kernel.say("story", "%s is called dead", host)
            node = self.kernel.rng.choice(able)
            node.spawn(self._word(node, guest, host))
            return node
        return None

    def _word(self, node: Node, guest: Guest, host: str) -> Steps:
        """The command (commands/window_actions.py): a note, another question, the word."""
        noted = None
        for step in (confirmed.asking, lambda record, host: confirmed.said(record, host, "seen")):
            for _ in range(WORD_TRIES):
                looked = node.cib.readable
                if looked is None or not looked.open or looked.mode is not Mode.GUARDED:
                    return
                if looked.mover != guest.node or not self.world.site.silent(host):
                    return
                if noted is not None and confirmed.asked(looked).get(host) != noted:
                    return
                change = written(looked.epoch, step(looked, host))
                answer = yield self.world.network.write(node, change, f"{host} is called dead", 20_000)
                if answer == "unknown":
                    return
                if answer == "ok":
                    noted = looked.epoch + 1
                    break
            else:
                return
            yield 5_000  # as long as a question to a silent host takes

    def _dies_at_rest(self, guest: Guest) -> Steps:
        """Before its migration."""
        how = self.kernel.rng.choice(("hangs at rest", "stopped at rest", "source off"))
        looked_s = (self.kernel.now_ms - self.opened_ms) / 1000
        self.die(guest, how)
        if guest.hung or not guest.power:
            limit_s = {"stopped at rest": 0.0, "source off": POWER_S}.get(how, PLAIN_S)
            if how == "hangs at rest" and looked_s > LOOKED_S:
                limit_s = 0.0
            yield from self._recovered(guest, how, self.kernel.now_ms, limit_s)

    def _stuck(self, guest: Guest) -> Steps:
        """The blackout does not end: it is cancelled at the hold limit, or killed a minute later."""
        yield 500  # the move has begun
        while guest.moving_to and not guest.in_blackout and guest.os_alive:
            yield 500
        began_ms = self.kernel.now_ms
        while guest.in_blackout and guest.node not in self.world.dropped_ms:
            yield 500
        without = [name for name in self.world.nodes if name != guest.node] if self.kernel.chance(0.4) else []
        if without and not self.story.faults.mended:
            self.story.faults.daemons(without)
        yield from self._recovered(guest, "stuck", began_ms, HOLD_LIMIT_S + GRACE_S)
        if without:
            # What the killing gate goes on doing when its guest is back: nothing.
            yield 90_000
        for name in without:
            if self.world.nodes[name].up and not self.world.daemons[name].alive:
                self.world.daemons[name].started()
        if guest.moving_to:
            self.world.site.cancel(guest.host, guest.name)

    def _another_dies(self, guest: Guest) -> Callable[[], None]:
        others = [name for name in self.world.nodes if name != guest.node]

        def now() -> None:
            other = self.world.guest_of(self.kernel.rng.choice(others))
            if not other.os_alive or other.hung or self.story.faults.mended:
                return
            self.story.faults.happened.append("another node")
            self.story.faults.touched()
            if self.kernel.chance(0.4):
                other.hung = True
                self.world.nodes[other.node].stand("hang", True)
            else:
                self.world.site.kill(other, "panic")
                self.world.site.reboot(other)

        return now

    def _recovered(self, guest: Guest, how: str, since_ms: int, limit_s: float) -> Steps:
        world = self.world
        ring = world.main_ring()
        timeouts = [heartbeat.timeout_ms(node.runtime) / 1000 for node in world.nodes.values()]
        limit_s += max(timeouts) + FENCER_S
        troubles = world.order_troubles
        clean = not self.story.faults.happened and all(
            entry.power_answers or entry.off_until_ms < self.kernel.now_ms
            for entry in world.site.hosts.values()
        )
        clean = clean and ring is not None and ring.cib.record.phase is Phase.OPEN
        window = ring.cib.record.window if ring is not None else 0

        def limit() -> float:
            return limit_s + TROUBLE_S * (world.order_troubles - troubles)

        while (self.kernel.now_ms - since_ms) / 1000 < limit() and guest.node not in world.recovered_at:
            yield 1_000
            now = world.main_ring()
            alive = guest.os_alive and not guest.hung and not world.nodes[guest.node].still
            if now is not None and guest.node in now.members and alive and guest.node not in world.dropped_ms:
                return  # it is back
        ring = world.main_ring()
        if not clean or self.story.faults.happened or ring is None or guest.node in ring.members:
            return
        if ring.cib.record.window != window or ring.cib.record.phase is not Phase.OPEN:
            return
        at_ms = world.recovered_at.get(guest.node)
        world.check.now_ms = self.kernel.now_ms
        world.check.recovered_guarded(how, None if at_ms is None else (at_ms - since_ms) / 1000, limit())
