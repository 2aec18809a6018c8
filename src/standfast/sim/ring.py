"""Corosync as measured: one ring for those who hear each other, which stands still for a silent member.

While a member does not answer, nothing that is sent is carried out (66 of 66 writes hung). After the shortest
member's token + consensus the others form a new ring without it. What was sent and given up by its sender is
carried out when the ring turns again (5 of 5), in the order of each sender, not in that of all. A join in a
stall costs one consensus. Each side of a partition goes on with the store as it has it; when they meet, the
higher version wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from standfast.core import heartbeat
from standfast.sightings import RING_STEP
from standfast.sim.store import Change, Cib, Conflict

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World


WAKES_ALONE = 0.6


@dataclass(eq=False)
class Sent:
    """One message under way."""

    sender: str
    carry_out: Callable[[Ring], None]
    out: bool
    """It may have reached others: the ring was turning. In a stall it waits in its sender's own corosync."""


@dataclass(eq=False)
class Ring:
    """One membership."""

    members: frozenset[str]
    cib: Cib
    queue: list[Sent] = field(default_factory=list)
    stalled: bool = False
    over: bool = False
    """Another ring has taken its place; only a node that slept through that still believes in it."""
    pumping: bool = False
    stalls: int = 0
    timed: bool = False
    written_ms: int = -100_000
    number: int = RING_STEP


@dataclass(eq=False)
class Carried:
    """One write of a node's own that was carried out: where, what the store was after it, what it changes."""

    ring: Ring
    after: Cib
    change: Change


class Network:
    """All rings of one run."""

    def __init__(self, world: World, cib: Cib) -> None:
        self.world = world
        self.kernel = world.kernel
        self.side: dict[str, int] = dict.fromkeys(world.nodes, 0)
        first = Ring(frozenset(world.nodes), cib)
        for node in world.nodes.values():
            node.ring = first
        self._merging: set[int] = set()

    # -- sending -------------------------------------------------------------------------------------------

    def send(self, sender: Node, carry_out: Callable[[Ring], None]) -> None:
        """Hand a message to the ring of `sender`; it may be carried out much later, or never."""
        sender.ring.queue.append(
            Sent(sender.name, carry_out, out=not (sender.ring.stalled or sender.ring.over))
        )
        self._pump_soon(sender.ring)

    def write(self, sender: Node, change: Change, what: str, limit_ms: int) -> Callable[[Any], None]:
        """An effect: write the store. Resumes with ok, conflict, or unknown after `limit_ms`."""

        def effect(resume: Callable[[str], None]) -> None:
            def carry_out(ring: Ring) -> None:
                before = ring.cib
                try:
                    after = change(before)
                except Conflict:
                    self.kernel.say(sender.name, "its write is refused: %s", what)
                    sender.later(self.kernel.between(5, 20), lambda: resume("conflict"))
                    return
                delay_ms = self.kernel.between(5, 20)
                self.commit(ring, before, after, sender.name, what, delay_ms)
                own = Carried(ring, after, change)
                sender.carried.append(own)

                def answer() -> None:
                    sender.caught_up(own)
                    resume("ok")

                sender.later(delay_ms, answer)

            self.send(sender, carry_out)
            sender.later(limit_ms, lambda: resume("unknown"))

        return effect

    def barrier(self, sender: Node, limit_ms: int) -> Callable[[Any], None]:
        """An effect: wait until what this node sent before has been carried out. ok or unknown.

        The node's own engine answers, which carries out in order what comes to it: what this node sent before
        is in its own copy then (the killed write first, 6 of 6).
        """

        def effect(resume: Callable[[str], None]) -> None:
            def carry_out(ring: Ring) -> None:
                del ring
                last = sender.carried[-1] if sender.carried else None

                def answer() -> None:
                    if last is not None:
                        sender.caught_up(last)
                    resume("ok")

                sender.later(self.kernel.between(5, 20), answer)

            self.send(sender, carry_out)
            sender.later(limit_ms, lambda: resume("unknown"))

        return effect

    def reload(self, sender: Node, limit_ms: int) -> Callable[[Any], None]:
        """An effect: every member's corosync reads its file, as it is at that moment. ok or unknown."""

        def effect(resume: Callable[[str], None]) -> None:
            def carry_out(ring: Ring) -> None:
                self.kernel.say(sender.name, "its reload goes around the ring")
                for node in self._on(ring):
                    node.later(self.kernel.between(5, 40), node.reload)
                sender.later(self.kernel.between(5, 20), lambda: resume("ok"))

            self.send(sender, carry_out)
            sender.later(limit_ms, lambda: resume("unknown"))

        return effect

    def publish(self, sender: Node, report: Any) -> None:
        """The node's private attribute: shown on the others when the ring has turned."""

        def carry_out(ring: Ring) -> None:
            sender.published = report
            for node in self._on(ring):
                node.later(self.kernel.between(3, 20), lambda node=node: node.heard(report))  # type: ignore[misc]

        self.send(sender, carry_out)

    def commit(self, ring: Ring, before: Cib, after: Cib, writer: str, what: str, own_delay_ms: int) -> None:
        """`after` is the store of this ring; each member sees it a moment later."""
        ring.cib = after
        ring.written_ms = self.kernel.now_ms
        self.world.committed(before, after, writer, what)
        for node in self._on(ring):
            delay_ms = own_delay_ms if node.name == writer else self.kernel.between(5, 40)
            node.later(delay_ms, lambda node=node: node.delivered(ring, after))  # type: ignore[misc]

    def _pump_soon(self, ring: Ring) -> None:
        if not (ring.pumping or ring.stalled or ring.over):
            ring.pumping = True
            self.kernel.at(self.kernel.between(3, 20), lambda: self._pump(ring))

    def _pump(self, ring: Ring) -> None:
        ring.pumping = False
        while ring.queue and not (ring.stalled or ring.over):
            waiting = list(dict.fromkeys(sent.sender for sent in ring.queue))
            chosen = self.kernel.rng.choice(waiting) if len(waiting) > 1 else waiting[0]
            sent = next(sent for sent in ring.queue if sent.sender == chosen)
            ring.queue.remove(sent)
            sent.carry_out(ring)

    # -- membership ----------------------------------------------------------------------------------------

    def _on(self, ring: Ring) -> list[Node]:
        return [node for node in self.world.nodes.values() if node.ring is ring and node.up]

    def look(self) -> None:
        """Somebody's life or the network has changed: which rings stand still, which can meet?"""
        for ring in {id(node.ring): node.ring for node in self.world.nodes.values()}.values():
            if ring.over:
                continue
            whole = self._whole(ring)
            if not whole:
                alive = [node for node in self._on(ring) if node.running]
                if not ring.timed and alive:
                    ring.timed = True
                    wait_ms = min(heartbeat.timeout_ms(node.runtime) for node in alive)
                    self._expire_after(ring, wait_ms)
                ring.stalled = True
            elif ring.stalled:
                ring.stalled = ring.timed = False
                ring.stalls += 1
                self._pump_soon(ring)
        self._meet()

    def wakes_alone(self, node: Node) -> None:
        """One that has slept until it was dropped is by itself at first, as its corosync has it: with two
        nodes it may act, and what it believes of the other is from before. (Where killing gates act only.)"""
        world = self.world
        alone = (world.kills or world.clocks.lag) and len(world.nodes) == 2 and node.cib.record.open
        if alone and world.extra.random() < WAKES_ALONE:
            number = node.ring.number + RING_STEP
            made = Ring(frozenset({node.name}), node.cib, written_ms=self.kernel.now_ms, number=number)
            self._enter(made, [node])

    def _expire_after(self, ring: Ring, wait_ms: int) -> None:
        stall = ring.stalls

        def expire() -> None:
            if ring.stalled and ring.stalls == stall and not ring.over:
                self.form(ring)

        self.kernel.at(wait_ms, expire)

    def _whole(self, ring: Ring) -> bool:
        nodes = [self.world.nodes[name] for name in ring.members]
        sides = {self.side[node.name] for node in nodes}
        return len(sides) == 1 and all(node.running and node.ring is ring for node in nodes)

    def form(self, ring: Ring) -> None:
        """The members that hear each other go on without the rest."""
        ring.over = True
        groups: dict[int, list[Node]] = {}
        for node in self._on(ring):
            if node.running:
                groups.setdefault(self.side[node.name], []).append(node)
        new = []
        for nodes in groups.values():
            names = frozenset(node.name for node in nodes)
            number = ring.number + RING_STEP
            made = Ring(names, ring.cib, written_ms=ring.written_ms, number=number)
            new.append(made)
            self._enter(made, nodes)
        kept = []
        for sent in ring.queue:
            homes = [made for made in new if sent.sender in made.members]
            if not homes and sent.out and new and self.kernel.chance(0.5):
                homes = [self.kernel.rng.choice(new)]
            for home in homes:
                home.queue.append(sent)
            if not homes and self.world.nodes[sent.sender].up:
                # It waits in its sender's corosync until that meets the others, and ends with it.
                sent.out = False
                kept.append(sent)
        ring.queue = kept
        for made in new:
            self._pump_soon(made)
        self.look()

    def _meet(self) -> None:
        for side in sorted(set(self.side.values())):
            alive = [n for n in self.world.nodes.values() if n.running and self.side[n.name] == side]
            if self._apart(alive) and side not in self._merging:
                self._merging.add(side)
                delay_ms = self.kernel.between(200, 1200)
                stalled = [n for n in alive if n.ring.stalled and not n.ring.over]
                if stalled and not all(
                    self.world.nodes[name] in alive for node in stalled for name in node.ring.members
                ):
                    # A join in a stall: the consensus runs from here, and then the silent one is left out.
                    # (Not where the one that was silent has booted, and is itself who joins.)
                    delay_ms = min(node.runtime["consensus"] for node in stalled)
                elif self.kernel.chance(0.25 if self.world.kills or self.world.clocks.lag else 0.05):
                    delay_ms = self.kernel.between(2000, 30_000)
                self.kernel.at(delay_ms, lambda side=side: self._merge(side))  # type: ignore[misc]

    @staticmethod
    def _apart(alive: list[Node]) -> bool:
        return len({id(node.ring) for node in alive}) > 1 or any(node.ring.over for node in alive)

    def _merge(self, side: int) -> None:
        self._merging.discard(side)
        alive = [n for n in self.world.nodes.values() if n.running and self.side[n.name] == side]
        rings = {id(node.ring): node.ring for node in alive}
        if not self._apart(alive):
            self.look()
            return
        main = self.world.main_ring()
        acted = main if main is not None and id(main) in rings else None
        best = max((ring.cib for ring in rings.values()), key=lambda cib: cib.version)
        best = max([best, *(node.cib for node in alive)], key=lambda cib: cib.version)
        number = max(ring.number for ring in rings.values()) + RING_STEP
        made = Ring(
            frozenset(node.name for node in alive), best, written_ms=self.kernel.now_ms, number=number
        )
        for ring in rings.values():
            made.queue += [sent for sent in ring.queue if sent.out or sent.sender in made.members]
            ring.over, ring.queue = True, [sent for sent in ring.queue if sent not in made.queue]
        self._enter(made, alive)
        # A cluster that has met writes on above both versions.
        made.cib = replace(best, version=best.version + 1)
        self.world.merged(made, acted)
        if main is None and any(ring.cib.record != made.cib.record for ring in rings.values()):
            # Nobody could act, so nobody knows whose store it was that gave way.
            self.world.overruled_ms = self.kernel.now_ms
        self._pump_soon(made)
        self.look()

    def _enter(self, ring: Ring, nodes: list[Node]) -> None:
        self.kernel.say("ring", "members: %s", " ".join(sorted(ring.members)))
        for node in nodes:
            missed = node.ring.members - ring.members
            new = ring.members - node.ring.members
            for name in missed:
                node.reports.pop(name, None)
            synced = not new and node.ring.cib is ring.cib
            node.ring = ring
            node.entered(ring, synced=synced)
        for node in nodes:
            for other in nodes:
                if other is not node and other.published is not None:
                    # Whatever it tells by then: its node sends its own value once more where it differs.
                    node.later(
                        self.kernel.between(50, 500),
                        lambda node=node, other=other: node.heard_of(other),  # type: ignore[misc]
                    )
        self.world.fencer.membership(ring)
        if self.world.kills:
            self.world.members_are(ring)
