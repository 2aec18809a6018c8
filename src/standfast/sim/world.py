"""One whole run: nodes, hosts, network, store, fencer and checkers, tied together."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from standfast.core import heartbeat
from standfast.core.record import Phase, Record, Totem
from standfast.core.steps import HostEntry
from standfast.sim import store
from standfast.sim.checkers import Checkers, Held, Killed, Stopped
from standfast.sim.clocks import BLACKOUTS_MS as LAGGING_MS
from standfast.sim.clocks import Clocks
from standfast.sim.daemon import Daemon
from standfast.sim.fencer import Fencer
from standfast.sim.kernel import Effect, Kernel, Process
from standfast.sim.lease import Close
from standfast.sim.node import Node
from standfast.sim.ring import Network, Ring
from standfast.sim.rules import Rules
from standfast.sim.site import BOOT_AGAIN_MS, Guest, Site
from standfast.sim.store import Change, Cib

GUARDED_SHARE = 0.3
FORGOTTEN_SHARE = 0.3
"""Of the others."""
DRIVEN_SHARE = 0.2
"""Of the guarded ones."""
GUARDED_BLACKOUTS_MS = ((100, 3_000), (3_000, 15_000), (10_000, 40_000), (30_000, 100_000), (60_000, 150_000))
UNTROUBLED_MS = 100_000
UNBROKEN_MARGIN_MS = 1_000
JUST_STARTED_MS = 3_000
JUST_RESUMED_MS = 40_000
"""So long one that has been moved without a word may act on nobody: it holds for 45 s."""
ASKED_MS = 3_000
"""What a host says may be so old when it is acted on."""
LOST, LATE, SLOW = 0.08, 0.03, 0.15
"""Share of the orders to a control domain that are lost, take longer than anybody waits, or some seconds."""
BLACKOUTS_MS = ((50, 2_000), (50, 2_000), (3_000, 15_000), (10_000, 60_000), (30_000, 200_000))
HOSTS = ("ctrl1", "ctrl2", "ctrl3")
BASES: tuple[dict[str, str], ...] = (
    {"token": "4545", "consensus": "5455"},
    {"token": "10000"},
    {},
    {"token": "4545", "consensus": "5455", "token_coefficient": "0"},
    {"token": "20000", "consensus": "24000"},
)


def _extra(seed: int) -> random.Random:
    return random.Random(f"guarded {seed}")


def guarded(seed: int) -> bool:
    """Whether the window of this run is guarded."""
    return _extra(seed).random() < GUARDED_SHARE


def _driven(seed: int) -> bool:
    return random.Random(f"driven {seed}").random() < DRIVEN_SHARE


def driven(seed: int) -> bool:
    """Whether the window of this run is guarded, and its heartbeat is raised just in time."""
    return guarded(seed) and _driven(seed)


def forgotten(seed: int) -> bool:
    """Whether the window of this run is frozen, and outlives its lease."""
    extra = _extra(seed)
    return extra.random() >= GUARDED_SHARE and extra.random() < FORGOTTEN_SHARE


class World:
    """The state of one run."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.kernel = kernel = Kernel(seed)
        self.rules = rules
        self.check = Checkers()
        count = kernel.rng.choice((2, 2, 3, 3, 3, 4))
        self.base = dict(kernel.rng.choice(BASES))
        self.clock_stops = kernel.chance(0.5)
        self.clocks = Clocks(self, seed)
        self.acting: Node | None = None
        """The node whose device orders something just now."""
        self.extra = _extra(seed)
        """Chance of its own for everything that only a run with a guarded window has."""
        self.beside = random.Random(f"beside {seed}")
        """Chance of its own for what is played beside a run, and changes nothing of it."""
        self.fuse = random.Random(f"fuse {seed}")
        """The same for what a raise just in time does on its own node."""
        self.guarded = self.extra.random() < GUARDED_SHARE
        """The window of this run is guarded."""
        self.driven = self.guarded and _driven(seed)
        """Its migration is driven by one command, which raises the heartbeat just in time."""
        self.released: tuple[str, int, int] | None = None
        """Mover, window, and budget in ms of a guest that was let go with the heartbeat raised for it."""
        self.forgotten = not self.guarded and self.extra.random() < FORGOTTEN_SHARE
        """The window of this run is frozen, and outlives its lease."""
        self.kills = self.guarded or self.forgotten
        """Killing gates may act in this run, and the nodes do what is due at the end of a lease."""
        self.close_by_lease: Close = lambda node, goal, ended: None
        """The story's: the operator's -u, started by a node."""
        self.dropped_ms: dict[str, int] = {}
        """Since when a node is missing from the membership that may act."""
        self.lost_calls: set[str] = set()
        """Whose fencing was lost with its executor, and was given to another one at its limit."""
        self.order_troubles = 0
        """Orders of killing gates that were lost, or slow."""
        self.joined_ms: dict[str, int] = {}
        """Since when a node is in it again."""
        self.short_ticks = False
        self.entries = {
            name: HostEntry(name, n % 2, f"10.0.1.{n}", f"10.0.2.{n}", n) for n, name in enumerate(HOSTS, 1)
        }
        self.guests = {f"n{n}": f"g{n}" for n in range(1, count + 1)}
        places = {f"g{n}": (f"n{n}", HOSTS[(n - 1) % len(HOSTS)]) for n in range(1, count + 1)}
        self.site = Site(kernel, HOSTS, places)
        self.cib = Cib(
            version=1,
            record=Record.fresh("", 1),
            aims={
                n: store.aim(n, g, places[g][1], self.entries[places[g][1]].weight)
                for n, g in self.guests.items()
            },
            levels={node: store.levels(node) for node in self.guests},
        )
        self.nodes: dict[str, Node] = {}
        for name, guest in self.guests.items():
            self.nodes[name] = Node(self, name, guest, self.cib, self.base)
        self.network = Network(self, self.cib)
        self.fencer = Fencer(self)
        self.daemons = {name: Daemon(self, node) for name, node in self.nodes.items()}
        self.met_once = set(self.nodes)
        self.fencing_began: dict[str, int] = {}
        self.held_for_window: set[str] = set()
        """Whose present fencing is held because of a window: by the last answer that a gate gave."""
        self.recovered_at: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.stopped: set[str] = set()
        self.edited = False
        self.noticed_at: dict[str, int] = {}
        self.closing_since_ms = 0
        self.lowering_ms = 0
        """When the command began that has begun to lower the heartbeat."""
        self.overruled_ms = -1
        """When the store of the membership that might act last gave way to that of one that it met."""
        self.clean_since_ms = 0
        """Since when nobody has interfered: no fault, no hand-written change."""
        self.site.died = self._died
        self.site.booted = self._booted
        self.site.stands_still = self._stands_still
        self.site.killed = self._killed

    # -- lookups -------------------------------------------------------------------------------------------

    def daemon_of(self, node: Node) -> Daemon:
        """The node's standfastd."""
        return self.daemons[node.name]

    def main_ring(self) -> Ring | None:
        """The membership that is alive and quorate; the larger one where two believe so."""
        rings = {id(n.ring): n.ring for n in self.nodes.values() if n.running and not n.ring.over}
        good = [ring for ring in rings.values() if self.fencer.quorate(ring)]
        return max(good, key=lambda ring: (len(ring.members), ring.cib.version), default=None)

    def met(self, name: str) -> bool:
        """Two nodes: whether this one has seen the other since it started (wait_for_all)."""
        return name in self.met_once

    def guest_of(self, node: str) -> Guest:
        """The guest that is this node."""
        return self.site.guests[self.guests[node]]

    def incarnation(self, node: str) -> int:
        """The node's living incarnation; 0: it is dead."""
        guest = self.guest_of(node)
        return guest.incarnation if guest.os_alive else 0

    # -- what happens to guests ----------------------------------------------------------------------------

    def _died(self, guest: Guest, why: str) -> None:
        del why
        self.met_once.discard(guest.node)
        self.nodes[guest.node].die()

    def _stands_still(self, guest: Guest, still: bool) -> None:
        if not still:
            self._ran_on(guest, self.kernel.now_ms - self.nodes[guest.node].since_ms)
        self.nodes[guest.node].stand("blackout", still)

    def _booted(self, guest: Guest) -> None:
        self.kernel.at(self.kernel.between(1_000, 5_000), lambda: self._started(guest, guest.incarnation))

    def _started(self, guest: Guest, incarnation: int) -> None:
        if guest.os_alive and guest.incarnation == incarnation and guest.in_blackout:
            self.kernel.at(BOOT_AGAIN_MS, lambda: self._started(guest, incarnation))
        elif guest.os_alive and guest.incarnation == incarnation:
            self.stopped.discard(guest.node)
            self.nodes[guest.node].start()

    def _killed(self, victim: Guest, wanted: str) -> None:
        self._now()
        aimed = self.site.guests[wanted]
        began = max(self.fencing_began.get(aimed.node, 0), 0)
        quiet = self.kernel.now_ms - self.site.unquiet_ms > 15_000
        self.check.killed(
            Killed(
                victim.name,
                wanted,
                alive=victim.os_alive,
                hung=victim.hung,
                loss=self.nodes[victim.node].last_loss,
                move_began_ms=aimed.move_began_ms,
                call_began_ms=began,
                answers_good=quiet,
                levels_whole=not self.edited,
                came_back=aimed.node in self.held_for_window and self._is_member(victim.node),
                guarded=self.guarded,
                untroubled=self._untroubled(victim),
                lost_call=self.kills and aimed.node in self.lost_calls,
                by_astray=self._astray(),
            )
        )

    def _astray(self) -> str:
        """Of two nodes: the one that acts, where it has just come out of a blackout, alone, and is not where
        its devices aim."""
        node = self.acting
        if node is None or len(self.nodes) > 2 or node.ring.members != {node.name}:
            return ""
        guest = self.guest_of(node.name)
        just = node.last_loss == "blackout" and self.kernel.now_ms - guest.resumed_ms < JUST_RESUMED_MS
        return node.name if just and guest.host != node.cib.aims[node.name].host else ""

    def _is_member(self, name: str) -> bool:
        node, ring = self.nodes[name], self.main_ring()
        return node.running and ring is node.ring and len(ring.members) > 1

    def move(
        self, guest: Guest, target: str, outcome: str, *, announced: bool, blackout_ms: int = 0
    ) -> Effect:
        """Begin a live migration; as an effect it resumes with whether the guest has moved."""
        copy_ms = self.kernel.between(1_000, 20_000)
        lengths = GUARDED_BLACKOUTS_MS if self.guarded else LAGGING_MS if self.clocks.lag else BLACKOUTS_MS
        blackout_ms = blackout_ms or self.kernel.between(*self.kernel.rng.choice(lengths))
        steps = self.site.migrate(guest, target, copy_ms, blackout_ms, outcome, announced=announced)
        waiting: list[Callable[[Any], None]] = []
        result: list[Any] = []

        def ended(moved: Any) -> None:
            result.append(moved)
            for resume in waiting:
                resume(moved)

        Process(self.kernel.at, steps, ended)
        return lambda resume: resume(result[0]) if result else waiting.append(resume)

    # -- the fencer's side ---------------------------------------------------------------------------------

    def fencing_asked(self, target: str) -> None:
        """A membership has lost `target`, and asks for its fencing. Also: a call was lost with its executor,
        and is given to another at its limit, as without us."""
        self.held_for_window.discard(target)
        self.lost_calls.discard(target)

    def gate_called(self, executor: str, target: str) -> None:
        """A gate begins to look."""
        del executor
        self.fencing_began[target] = self.kernel.now_ms

    def gate_answered(self, executor: str, target: str, allow: bool, rule: str, looked_ms: int) -> None:
        """A gate has answered by what it saw at `looked_ms`: long ago, if its node stood still since then."""
        self._now()
        node = self.nodes[executor]
        if allow:
            if target not in node.ring.members:
                # It is killed while it is away, as without us, however long the device may take.
                self.held_for_window.discard(target)
            return
        if self.check.because_of_a_window():
            self.held_for_window.add(target)
        guest = self.guest_of(target)
        dead_ms = looked_ms - guest.off_since_ms if not guest.power else -1
        quiet_ms = looked_ms - max(self.site.unquiet_ms, self.clean_since_ms)
        ago_s = (self.kernel.now_ms - looked_ms) / 1000
        plain = node.facility == "running" and not node.cib.damage and not self.edited
        self.check.held(
            Held(
                target,
                executor,
                dead_for_s=dead_ms / 1000 if guest.off_since_ms >= 0 and not guest.power else -1.0,
                knows_for_s=node.clock() - node.knows_since_s - ago_s if node.window else 0.0,
                quiet_s=quiet_ms / 1000 if plain and node.joined else 0.0,
                rule=rule,
            )
        )

    # -- the end of a lease ----------------------------------------------------------------------------------

    def changed(
        self, expected_epoch: int, record: Record, guard: str, unguard: tuple[str, ...] = ()
    ) -> Change:
        """A node's own patch that arms a window."""
        return store.written(expected_epoch, record, guard=guard, unguard=unguard)

    def arming(self, executor: str, target: str) -> None:
        """A node is about to arm the window for `target`: what is true at this instant."""
        self._now()
        now, guest = self.kernel.now_ms, self.guest_of(target)
        quiet = now - self.site.unquiet_ms > 15_000
        ring = self.nodes[executor].ring
        under_way = [
            one.name
            for one in self.site.guests.values()
            if one.moving_to and quiet and now - one.move_began_ms > ASKED_MS
        ]
        self.kernel.say(executor, "arms the window for %s", target)
        self.check.armed(
            target,
            executor,
            member=target in ring.members and self._is_member(target),
            quorate=self.fencer.quorate(ring),
            moving=", ".join(under_way),
            off=not guest.power and quiet and now - guest.off_since_ms > ASKED_MS,
        )

    # -- the killing gate ----------------------------------------------------------------------------------

    def fencer_lag_ms(self, node: Node) -> int:
        """How much later than the store a node's fencer has the topology (measured: 0.2 s; 1 to 2 s at its
        start)."""
        young = self.kernel.now_ms - node.booted_ms < 5_000 and node.booted_ms > 0
        slow = self.extra.random() < 0.05
        least_ms, most_ms = (1_000, 2_000) if young or slow else (10, 200)
        return least_ms + int(self.extra.random() * (most_ms - least_ms))

    def members_are(self, ring: Ring) -> None:
        """A membership has formed: who is missing from the one that may act, who is back in it."""
        if not self.fencer.quorate(ring) or ring is not self.main_ring():
            return
        if len(ring.members) == 1 and any(node.running for node in self._apart_from(ring)):
            return  # one that has just woken up, or was cut off: nobody is lost by its word
        for name in self.nodes:
            if name in ring.members:
                if self.dropped_ms.pop(name, None) is not None:
                    self.joined_ms[name] = self.kernel.now_ms
            else:
                self.dropped_ms.setdefault(name, self.kernel.now_ms)

    def _apart_from(self, ring: Ring) -> list[Node]:
        return [node for name, node in self.nodes.items() if name not in ring.members]

    def proven(self, executor: str, target: str) -> None:
        """A killing gate says done."""
        self._now()
        guest = self.guest_of(target)
        # Started again after it was seen gone: another life, as after any fencing.
        runs = guest.power and self.kernel.now_ms - guest.booted_ms > JUST_STARTED_MS
        self.check.proven_gone(target, executor, power=runs, on_its_way=bool(guest.moving_to))

    def order(self, executor: str, host: str, name: str, *, kill: bool, looked_ms: int) -> int:
        """An order of a killing gate to a host: how long it takes, as far as its sender sees. `looked_ms`:
        when that host answered it the last time."""
        del executor
        given_ms, fate = self.kernel.now_ms, self.extra.random()
        takes_ms = 50 + int(self.extra.random() * 250)
        if self.site.silent(host):
            self.order_troubles += 1
            return 10_000
        if fate < LOST + LATE + SLOW:
            self.order_troubles += 1
        if fate < LOST:
            self.kernel.say(host, "an order is lost: %s", name)
            return takes_ms
        if fate < LOST + LATE:
            takes_ms = 10_000 + int(self.extra.random() * 10_000)
        elif fate < LOST + LATE + SLOW:
            takes_ms = 500 + int(self.extra.random() * 9_000)
        other_lives = self.extra.random() < 0.5

        def carried_out() -> None:
            if self.site.silent(host):
                return
            if not kill:
                self._cancelling(self.site.guests[name], given_ms)
                self.site.cancel(host, name)
                return
            self._stopping(self.site.guests[name], host, given_ms, looked_ms)
            began_ms = self.site.guests[name].move_began_ms
            if self.site.stop(host, name, other_lives=other_lives) and began_ms < given_ms:
                # (Of a migration that began after the order nobody could know: it stays unproven.)
                self._now()
                self.check.came_alive(name, host)

        self.kernel.at(takes_ms, carried_out)
        return takes_ms

    def _cancelling(self, guest: Guest, given_ms: int) -> None:
        self._now()
        dropped_ms = self.dropped_ms.get(guest.node, given_ms)
        if guest.in_blackout and self._untroubled(guest):
            self.check.cancelled(guest.node, (given_ms - dropped_ms) / 1000)

    def _stopping(self, guest: Guest, host: str, given_ms: int, looked_ms: int) -> None:
        if guest.host != host or not guest.power:
            return
        self._now()
        now, node = self.kernel.now_ms, self.nodes[guest.node]
        joined = self.joined_ms.get(guest.node, -1)
        dropped = self.dropped_ms.get(guest.node, now)
        self.check.stopped(
            Stopped(
                guest.node,
                alive=guest.os_alive and not guest.hung,
                loss=node.last_loss,
                in_blackout=guest.in_blackout,
                blackout_after_drop_s=(guest.blackout_ends_ms - dropped) / 1000,
                resumed_s=(now - guest.resumed_ms) / 1000 if guest.resumed_ms >= 0 else None,
                seen_running=0 <= guest.resumed_ms < looked_ms and not guest.in_blackout,
                member_when_given=guest.node not in self.dropped_ms and node.running and joined < given_ms,
                untroubled=self._untroubled(guest),
            )
        )

    def _untroubled(self, guest: Guest) -> bool:
        """Nothing but a blackout has kept this node from being a good member for a long while."""
        node = self.nodes[guest.node]
        ago_ms = self.kernel.now_ms - node.trouble_ms
        good = guest.os_alive and not guest.hung and not (node.still - {"blackout"})
        # Of two nodes that are cut off from each other neither is the good one.
        sides = self.network.side.values() if len(self.nodes) == 2 else [self.network.side[node.name]]
        return good and ago_ms > UNTROUBLED_MS and not any(sides)

    def fenced(self, target: str, lost: int) -> None:
        """The fencer believes that the target is down."""
        self._now()
        guest = self.guest_of(target)
        self.kernel.say("fencer", "%s is fenced", target)
        self.lost[target] = lost
        self.check.fenced(
            target,
            lost_incarnation=lost,
            incarnation=guest.incarnation,
            alive=guest.os_alive and lost > 0 and not self._as_without_us(guest),
        )

    def _as_without_us(self, guest: Guest) -> bool:
        """Moved without a word, with a host silent or wrong: nobody could know, plain Pacemaker neither."""
        quiet = self.kernel.now_ms - self.site.unquiet_ms > 15_000
        return bool(guest.moving_to) and not guest.announced and not quiet

    def recovered(self, ring: Ring, target: str) -> None:
        """Services of `target` start on another member."""
        if target not in self.lost or target in self.recovered_at or ring.over:
            return
        self._now()
        guest = self.guest_of(target)
        self.recovered_at[target] = self.kernel.now_ms
        self.kernel.say("fencer", "the services of %s start elsewhere", target)
        self.check.started(
            target,
            lost_incarnation=self.lost[target],
            incarnation=guest.incarnation,
            alive=guest.os_alive and not self._as_without_us(guest),
            serves=target not in self.stopped,
        )

    def stopped_services(self, ring: Ring) -> None:
        """A membership without quorum stops what it runs."""
        self.stopped |= ring.members

    # -- the store and the ring ----------------------------------------------------------------------------

    def committed(self, before: Cib, after: Cib, writer: str, what: str) -> None:
        """A write was carried out."""
        self._now()
        if after.record is before.record:
            return
        record = after.record
        if record.phase is Phase.IDLE and after.guarded and not self.edited:
            self.check.leftovers([f"the guarded window's fencing of {', '.join(sorted(after.guarded))}"])
        if record.phase is Phase.CLOSING and before.record.phase is not Phase.CLOSING:
            self.closing_since_ms = self.kernel.now_ms
        self.kernel.say(writer, "epoch %d %s: %s", record.epoch, record.phase.value, what)
        self._closing(before, after, self.nodes[writer])
        self.check.written(
            base=record.epoch - 1,
            epoch=record.epoch,
            phase=record.phase.value,
            number=record.window,
            lease_s=record.lease_seconds,
            writer=writer,
            standing=before.record.epoch,
            proven=record.proven,
        )

    def _closing(self, before: Cib, after: Cib, writer: Node) -> None:
        """What a closing says with this write: that all is proven; that the heartbeat may come down."""
        was, record, ring = before.record, after.record, self.main_ring()
        quiet = self.kernel.now_ms - self.site.unquiet_ms > 15_000
        if record.proven and not was.proven and quiet and not self.check.spoiled:
            self.check.armed_again([node for node in self.nodes if self._left_behind(node, after)])
        lowers = was.totem is Totem.RAISED and record.totem is Totem.EXPLICIT and not record.abort
        if lowers:
            self.lowering_ms = writer.command_ms
        if lowers and ring is not None:
            overruled = self.clocks.overruled == record.window
            self.check.lowers(self.clocks.apart(ring.members), overruled=overruled)

    def _left_behind(self, name: str, after: Cib) -> bool:
        """Whether its guest has moved in this window, with a word, before it was closed, and its devices do
        not reach it. (Of one that is back where they aim, and that no -u has named, nobody asks a proof.)"""
        guest, record = self.guest_of(name), after.record
        in_time = self.check.store_since_ms <= guest.move_began_ms <= self.closing_since_ms
        named = name == record.mover or name in record.settle
        stale = named and guest.name in self.site.hosts[guest.host].stale
        reached = guest.host == after.aims[name].host and not stale
        return guest.os_alive and guest.announced and in_time and not (reached or guest.moving_to)

    def merged(self, ring: Ring, acted: Ring | None) -> None:
        """Two memberships have met. `acted`: the one that might act until now, if it is one of them."""
        self._now()
        record = ring.cib.record
        if acted is not None and acted.cib.record != record:
            self.overruled_ms = self.kernel.now_ms
            self.check.overruled(
                epoch=record.epoch,
                phase=record.phase.value,
                number=record.window if record.open else 0,
                lease_s=record.lease_seconds,
                proven=record.proven,
            )
        if len(ring.members) == len(self.nodes):
            self.met_once |= set(self.nodes)
        if self.fencer.quorate(ring):
            self.stopped -= ring.members
        for name in ring.members:
            self.recovered_at.pop(name, None)
            self.lost.pop(name, None)
            self.ran(self.nodes[name])

    def ran(self, node: Node, old_ms: int = 0, new_ms: int = 0) -> None:
        """A node's corosync runs other values."""
        self._now()
        ring = self.main_ring()
        if ring is None or node.name not in ring.members:
            return
        record = ring.cib.record
        timeout_ms = heartbeat.timeout_ms(node.runtime)
        self.check.ran(
            node.name,
            timeout_ms=timeout_ms,
            # Just in time: promised when the guest is let go, and judged then.
            promised_ms=0 if record.just_in_time else record.budget_seconds * 1000,
            phase=record.phase.value,
        )
        if new_ms < old_ms and record.open and record.mover and not self.check.spoiled:
            self._lowered(node, ring)

    def _lowered(self, node: Node, ring: Ring) -> None:
        record = ring.cib.record
        guest = self.guest_of(record.mover)
        host = ring.cib.aims[record.mover].host
        quiet = self.kernel.now_ms - self.site.unquiet_ms > 60_000
        self.check.lowered(
            node.name,
            record.mover,
            reachable=guest.host == host and guest.name not in self.site.hosts[host].stale,
            moved_again=guest.move_began_ms > (self.lowering_ms if quiet else self.closing_since_ms),
            alive=guest.os_alive,
            aborted=record.abort,
            held=record.just_in_time and record.holds,
        )

    # -- a raise just in time ------------------------------------------------------------------------------

    def let_go(self, guest: Guest, window: int, budget_ms: int) -> None:
        """Its command has the guest switch over, believing that every member runs this timeout."""
        self._now()
        ring = self.main_ring()
        if ring is None or ring.cib.record.window != window:
            return
        runs = {name: heartbeat.timeout_ms(self.nodes[name].runtime) for name in sorted(ring.members)}
        self.check.let_go(guest.node, runs, budget_ms)
        self.released = (guest.node, window, budget_ms)

    def _ran_on(self, guest: Guest, still_ms: int) -> None:
        """A guest runs on after a blackout."""
        released, self.released = self.released, None
        ring = self.main_ring()
        if released is None or ring is None or released[0] != guest.node:
            return
        record = ring.cib.record
        kept = record.raised_now and record.window == released[1]
        self._now()
        short = still_ms < released[2] - UNBROKEN_MARGIN_MS
        if kept and short and self._untroubled(guest) and self._others_well(guest, still_ms):
            self.check.unbroken(guest.node, dropped=guest.node in self.dropped_ms, still_s=still_ms / 1000)

    def _others_well(self, guest: Guest, still_ms: int) -> bool:
        """No other node was silent in these last moments: the ring waits for both from the first one's on."""
        others = [node for name, node in self.nodes.items() if name != guest.node]
        since_ms = self.kernel.now_ms - still_ms
        return all(node.running and node.trouble_ms < since_ms for node in others)

    def alarmed(self, node: str) -> None:
        """A node alarms."""
        del node
        self._now()
        self.check.alarm()

    def noticed(self, node: str) -> None:
        """The guest of this node is seen astray, or an agent does not see it: everybody can see that."""
        self.noticed_at.setdefault(node, self.kernel.now_ms)

    def _now(self) -> None:
        self.check.now_ms = self.kernel.now_ms
