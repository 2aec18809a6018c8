"""What people do in a run: -p, the migration, -u; sometimes two at once; in the end all is well."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from standfast.core import heartbeat
from standfast.core.evidence import GuestState
from standfast.core.record import Mode, Phase
from standfast.core.steps import CloseGoal, Done, Goal, LowerGoal, OpenGoal, Stop
from standfast.sim import store
from standfast.sim.clock_story import ClockStory
from standfast.sim.command import Command
from standfast.sim.faults import Faults
from standfast.sim.guarded_story import GuardedStory
from standfast.sim.kernel import Process, Steps
from standfast.sim.lease_story import LeaseStory
from standfast.sim.raise_story import RaiseStory, Watch
from standfast.sim.site import Guest
from standfast.sim.store import Cib

if TYPE_CHECKING:
    from standfast.sim.daemon import Daemon
    from standfast.sim.node import Node
    from standfast.sim.ring import Ring
    from standfast.sim.world import World

BUDGETS_S = (20, 33, 60, 120, 600)
LEASES_S = (60, 120, 300, 900)
TRIES = 8
_PRINTED = re.compile(r"clovmmigrate -u (\S+) (\S+)")
NOTICED_LIMIT_S = 60.0
"""The invariant."""
DAEMON_DEAD = 0.4
"""Share of the moves without a word in which the daemon whose turn it is to look has just been killed."""


class Story:
    """One run's people."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.faults = Faults(world)
        self.at_work = 0
        self.begun = 0
        self.windows = 0
        self.over = False
        world.close_by_lease = self._by_lease

    def steps(self) -> Steps:
        """All of it."""
        rng = self.kernel.rng
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 5))):
            self.kernel.at(self.kernel.between(0, rng.choice((3_000, 20_000, 150_000))), self.faults.one)
        Process(self.kernel.at, self._lease_watch())
        yield self.kernel.between(500, 1_500)
        guest = self.world.guest_of(self._node().name)
        target = rng.choice([name for name in self.world.site.hosts if name != guest.host])
        if self.kernel.chance(0.08):
            yield from self._without_a_word(guest, target)
        elif self.world.driven:
            Process(self.kernel.at, Watch(self).steps())
            yield from RaiseStory(self).window(guest, target)
        elif self.world.guarded:
            yield from GuardedStory(self).window(guest, target)
        elif self.world.forgotten:
            yield from LeaseStory(self).window(guest, target)
        else:
            yield from self._window(guest, target)
        if self.world.clocks.lag:
            yield from ClockStory(self).goes_on()
        yield from self._mended()
        self.over = True

    def _window(self, guest: Guest, target: str) -> Steps:
        rng = self.kernel.rng
        budget, lease = rng.choice(BUDGETS_S), rng.choice(LEASES_S)
        mover = "" if self.kernel.chance(0.3) else guest.node
        opening = self.open(mover, budget, lease)
        if self.kernel.chance(0.2):
            other = (
                self.open(mover, rng.choice((budget, 60)), lease)
                if self.kernel.chance(0.7)
                else self.close(guest)
            )
            self.kernel.at(self.kernel.between(0, 4_000), lambda: self.aside("the other operator", other))
        outcome = yield from self.command("-p", opening)
        if not isinstance(outcome, Done) and self.kernel.chance(0.5):
            yield self.kernel.between(1_000, 20_000)
            outcome = yield from self.command("-p", opening)
        if isinstance(outcome, Done) or self.kernel.chance(0.1):
            how = rng.choice(("moved", "moved", "moved", "cancelled", "failed"))
            yield self.kernel.between(100, 5_000)
            yield self.world.move(guest, target, how, announced=isinstance(outcome, Done))
        if self.kernel.chance(0.12):
            yield self.kernel.between(1_000, 30_000)
            self.faults.one()
            yield lease * 1000 + 100_000
        yield self.kernel.between(100, 20_000)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if self.kernel.chance(0.1):
                self.kernel.at(
                    self.kernel.between(0, 3_000), lambda: self.aside("the other -u", self.close(guest))
                )
            outcome = yield from self.command("-u", self.close(guest))
            if isinstance(outcome, Done):
                break
            yield self.kernel.between(1_000, 30_000)

    def _without_a_word(self, guest: Guest, target: str) -> Steps:
        quiet, home = not self.faults.happened, guest.host
        moved = yield self.world.move(guest, target, "moved", announced=False)
        began = self.kernel.now_ms
        self.world.noticed_at.pop(guest.node, None)
        if moved and guest.os_alive and self.kernel.chance(0.25):
            # And back: its devices aim where it is, and its XSCF does not know it until somebody saves.
            yield self.kernel.between(1_000, 30_000)
            yield self.world.move(guest, home, "moved", announced=False)
        elif moved and self.kernel.chance(0.3):
            limit_ms = int(NOTICED_LIMIT_S * 1000) + 5_000
            if self.world.beside.random() < DAEMON_DEAD:
                self._who_looks(guest).die()
            while self.kernel.now_ms - began < limit_ms and guest.node not in self.world.noticed_at:
                yield 5_000
            if quiet and not self.faults.happened and guest.os_alive:
                at_ms = self.world.noticed_at.get(guest.node)
                after = None if at_ms is None else (at_ms - began) / 1000
                self.world.check.now_ms = self.kernel.now_ms
                self.world.check.noticed(guest.node, after, NOTICED_LIMIT_S)
        elif moved and guest.os_alive and self.kernel.chance(0.6):
            yield from self._lost_unseen(guest)

    def _who_looks(self, guest: Guest) -> Daemon:
        """The first daemon by name, and not the one of the guest's own node."""
        return next(self.world.daemons[name] for name in sorted(self.world.nodes) if name != guest.node)

    def _lost_unseen(self, guest: Guest) -> Steps:
        """The node of a guest that moved without a word stands still, while the host that has it is silent; a
        control domain that answers again may list nothing at first. Nobody may call that guest gone."""
        entry, node = self.world.site.hosts[guest.host], self.world.nodes[guest.node]
        entry.silent_until_ms = self.kernel.now_ms + self.kernel.between(20_000, 120_000)
        if self.kernel.chance(0.6):
            entry.lies, entry.lie = 1, GuestState.ABSENT
        self.kernel.say(guest.host, "is silent")
        self.faults.happened.append("lost unseen")
        self.faults.touched()
        node.stand("freeze", True)
        yield self.kernel.between(30_000, 150_000)
        node.stand("freeze", False)

    # -- commands ------------------------------------------------------------------------------------------

    def open(
        self, mover: str, budget: int, lease: int, mode: Mode = Mode.FROZEN, target: str = ""
    ) -> Callable[[Cib], Goal | None]:
        """-p, or a guarded window's opening."""
        return lambda cib: OpenGoal(
            mover, budget, lease, self.kernel.chance(0.1), "", cib.record.epoch, mode, target
        )

    def close(self, guest: Guest, host: str = "", ignore: str = "") -> Callable[[Cib], Goal | None]:
        """-u of this guest, for `host` if that was printed, otherwise for where it is or is going. `ignore`:
        why clocks are not to count."""

        def goal(cib: Cib) -> Goal:
            target = guest.moving_to if guest.moving_to and self.kernel.chance(0.5) else guest.host
            target = host or target
            if ignore:
                self.world.clocks.overruled = cib.record.window
            return CloseGoal(
                guest.node, guest.name, target, since_epoch=cib.record.epoch, ignore_clocks=ignore
            )

        return goal

    def _node(self) -> Node:
        return self.world.nodes[self.kernel.rng.choice(list(self.world.nodes))]

    def _start(
        self,
        name: str,
        goal: Callable[[Cib], Goal | None],
        ended: Callable[[Any], None] = lambda outcome: None,
        dies: float = 0.12,
        chosen: Node | None = None,
    ) -> Process | None:
        able = [node for node in self.world.nodes.values() if node.running and node.joined]
        if not able:
            return None
        node = chosen or self.kernel.rng.choice(able)
        if node.commanding is not None and node.commanding.alive:
            return None
        command = Command(self.world, node, name, goal)
        if self.kernel.chance(dies):
            command.dies_at = self.kernel.rng.randint(1, 12)
        return self.begin(command, ended)

    def begin(self, command: Command, ended: Callable[[Any], None]) -> Process | None:
        """Start it on its node; None: another one is at work there."""
        node = command.node
        if node.commanding is not None and node.commanding.alive:
            return None
        self.at_work += 1
        self.begun += 1
        number = self.begun
        alone = self.at_work == 1

        def finished(outcome: Any) -> None:
            self.world.daemon_of(node).poke(30)
            self._judge(command, outcome, alone and self.begun == number)
            ended(outcome)

        node.command_ms = self.kernel.now_ms
        node.commanding = process = node.spawn(command.run(), finished)
        self.world.daemon_of(node).poke(30)
        return process

    def _by_lease(
        self, node: Node, goal: CloseGoal | LowerGoal, ended: Callable[[Any], None]
    ) -> Process | None:
        """The operator's command, started by a node's daemon."""

        def since(cib: Cib) -> Goal:
            return replace(goal, since_epoch=cib.record.epoch)

        name = "lower" if isinstance(goal, LowerGoal) else "-u at the end of the lease"
        return self._start(name, since, ended, dies=0.05, chosen=node)

    def aside(self, name: str, goal: Callable[[Cib], Goal | None]) -> None:
        self._start(name, goal)

    def command(self, name: str, goal: Callable[[Cib], Goal | None], dies: float = 0.12) -> Steps:
        result: list[Any] = []
        process = self._start(name, goal, result.append, dies)
        if process is None:
            yield 2_000
            return None
        began = self.kernel.now_ms
        while not result and self.kernel.now_ms - began < 400_000:
            yield 500
            if not process.alive:
                break
        return result[0] if result else None

    def _judge(self, command: Command, outcome: Any, alone: bool) -> None:
        check = self.world.check
        self.at_work -= 1
        check.now_ms = self.kernel.now_ms
        if isinstance(outcome, Stop):
            codes = " ".join(message.code for message in outcome.messages)
            self.kernel.say(command.node.name, "%s refused: %s", command.name, codes)
            check.refused(
                command.name,
                codes,
                unfinished=outcome.unfinished,
                next_commands=all(message.next_command for message in outcome.messages)
                or any(code in codes for code in ("BUSY", "COROSYNC_CONF", "RUNTIME", "CONF_CHANGED")),
            )
            if not outcome.unfinished and alone and not set(codes.split()) & {"GUEST_STOPPED", "RECORD"}:
                self._nothing_left_soon(command)
        elif isinstance(outcome, Done):
            self.kernel.say(command.node.name, "%s done: %s", command.name, outcome.reason)
            if isinstance(command.goal, OpenGoal):
                self._announce(command)
            elif alone and isinstance(command.goal, CloseGoal):
                self._nothing_left_soon(command)

    def _nothing_left_soon(self, command: Command) -> None:
        """Judged by the store of those who are together. Who is cut off can speak of his own half only, and
        what the other half had is no word of his once they have met; nor what a smaller half had, of anybody
        who spoke before."""
        begun, own, said_ms = self.begun, command.node.ring, self.kernel.now_ms
        cut_off = own is not self.world.main_ring()

        def look() -> None:
            ring = own if cut_off else self.world.main_ring()
            if self.begun != begun or (cut_off and own.over) or self.world.overruled_ms >= said_ms:
                return
            if ring is None or ring.stalled:
                # What was sent lands when the ring turns again.
                self.kernel.at(1_000, look)
            else:
                self.world.check.now_ms = self.kernel.now_ms
                self.world.check.told_nothing_left(ring.cib.record.phase.value, command.name)

        self.kernel.at(1_000, look)

    def _announce(self, command: Command) -> None:
        ring = self.world.main_ring()
        if ring is None or command.node.name not in ring.members:
            return
        self.windows += 1
        seen, now = command.memory.record, ring.cib.record
        self.world.check.announced(
            seen.window if seen is not None else 0,
            seen.mover if seen is not None else "",
            now.lease_seconds,
            now.budget_seconds * 1000,
            {name: heartbeat.timeout_ms(self.world.nodes[name].runtime) for name in sorted(ring.members)},
            in_store=now.window if now.open else 0,
        )
        if now.mode is Mode.GUARDED and now.open and not self.world.edited:
            kills = store.kill_levels(now.mover)
            others = [self.world.nodes[name] for name in sorted(ring.members) if name != now.mover]
            fencers = {node.name: node.fencing.levels[now.mover] == kills for node in others}
            self.world.check.told_guarded(now.mover, fencers)

    # -- the lease and the end -----------------------------------------------------------------------------

    def _lease_watch(self) -> Steps:
        check = self.world.check
        while not self.over:
            yield 30_000
            ring = self.world.main_ring()
            quiet_s = (self.kernel.now_ms - self.world.clean_since_ms) / 1000
            if ring is None or not ring.cib.record.open or self.world.clock_stops or quiet_s < 150:
                continue
            # A lease counts from when a node first saw the window, and anew from its boot (design.md, 4).
            known_s = [
                node.clock() - node.knows_since_s
                for name, node in self.world.nodes.items()
                if name in ring.members
                and node.running
                and node.window == ring.cib.record.window
                and self.world.daemons[name].alive
            ]
            check.now_ms = self.kernel.now_ms
            over_s = max(known_s, default=0.0) - ring.cib.record.lease_seconds
            check.past_lease(over_s, somebody_lives=bool(known_s) and not ring.stalled)

    def _mended(self) -> Steps:
        world = self.world
        while any(guest.moving_to for guest in world.site.guests.values()):
            yield 5_000
        self.faults.mend()
        for _ in range(300):
            yield 5_000
            ring = world.main_ring()
            if (
                ring is not None
                and len(ring.members) == len(world.nodes)
                and all(node.joined and not node.still for node in world.nodes.values())
            ):
                break
            if world.kills:
                self._start_again()
        self.faults.mend_store()
        yield 12_000
        last = "nothing was tried"
        told: tuple[Guest, str] | None = None
        for number in range(TRIES):
            if world.kills:
                yield from self._all_well()
            guest = self._to_close()
            if guest is None:
                break
            whose, host = told if told is not None else (guest, "")
            goal = self.close(whose, host, self._overrules(last))
            outcome = yield from self.command("-u", goal, dies=0.0 if number > 2 else 0.1)
            told, last = self._told(outcome), str(outcome)[:300]
            # A command that waits for clocks does so for a minute.
            taken = world.clocks.lag and (outcome is None or "BUSY" in last)
            yield 20_000 if taken else 3_000
        yield 40_000
        self._judge_end(last)
        ring = world.main_ring()
        # One that was killed just now is still a member, and with a second death there is no quorum.
        well = (
            ring is not None
            and not ring.stalled
            and len(ring.members) == len(world.nodes)
            and all(node.running and node.joined for node in world.nodes.values())
            and not world.fencer.under_way
        )
        if world.check.found or not well or self.kernel.chance(0.7):
            return
        yield from self._death()

    def _overrules(self, last: str) -> str:
        """What is typed after a refusal for clocks that nobody has set right meanwhile."""
        return "nothing sets them" if "CLOCKS" in last and self.world.clocks.behind_s else ""

    def _all_well(self) -> Steps:
        """Who was killed a moment ago boots first."""
        for _ in range(60):
            if all(node.running and node.joined for node in self.world.nodes.values()):
                return
            self._start_again()
            yield 3_000

    def _start_again(self) -> None:
        """A killing gate may have stopped what had just been started."""
        for guest in self.world.site.guests.values():
            if not guest.power and not guest.os_alive:
                self.world.site.boot(guest)

    def _to_close(self) -> Guest | None:
        """Whom the next -u is for: the window's mover, or one whose devices do not reach it."""
        world = self.world
        ring = world.main_ring()
        if ring is None:
            return next(iter(world.site.guests.values()))
        record = ring.cib.record
        wrong = [guest for guest in world.site.guests.values() if not self._reached(guest, ring)]
        if wrong:
            return wrong[0]
        if record.phase is Phase.IDLE:
            return None
        return world.guest_of(record.mover or next(iter(world.nodes)))

    def _reached(self, guest: Guest, ring: Ring) -> bool:
        """Whether its devices would hit this guest, and no other."""
        aimed = ring.cib.aims[guest.node].host == guest.host
        return aimed and guest.name not in self.world.site.hosts[guest.host].stale

    def _told(self, outcome: Any) -> tuple[Guest, str] | None:
        """The -u that a refusal prints, for the operator to type next: whose, and with which host."""
        for message in outcome.messages if isinstance(outcome, Stop) else ():
            found = _PRINTED.search(message.next_command)
            if found is not None and found[1] in self.world.site.guests:
                return self.world.site.guests[found[1]], found[2] if found[2] in self.world.site.hosts else ""
        return None

    def _judge_end(self, last: str) -> None:
        world, check = self.world, self.world.check
        check.now_ms = self.kernel.now_ms
        ring = world.main_ring()
        phase = ring.cib.record.phase.value if ring is not None else "nowhere"
        check.ended(phase, last)
        if ring is None or phase != "idle":
            return
        if not ring.stalled and all(node.running and node.joined for node in world.nodes.values()):
            for guest in world.site.guests.values():
                check.reached(guest.name, by_its_devices=self._reached(guest, ring), last=last)
        runs = heartbeat.expected_runtime(world.base, len(world.nodes))
        for name, node in world.nodes.items():
            check.as_before(name, keys=node.keys, was=world.base, ran=runs, runs=node.runtime)
        left = []
        if ring.cib.maintenance:
            left.append(f"maintenance-mode is {ring.cib.maintenance}")
        left += [f"the guarded window's fencing of {name}" for name in sorted(ring.cib.guarded)]
        left += [f"levels of {name}" for name in world.nodes if ring.cib.levels[name] != store.levels(name)]
        check.leftovers(left)

    def _death(self) -> Steps:
        """Armed again: a real death is recovered as it would be without us."""
        world = self.world
        node = self._node()
        guest = world.guest_of(node.name)
        limit_ms = max(heartbeat.timeout_ms(one.runtime) for one in world.nodes.values())
        began = self.kernel.now_ms
        self.kernel.say("story", "%s really dies", node.name)
        if self.kernel.chance(0.5):
            guest.hung = True
            node.stand("hang", True)
        else:
            world.site.kill(guest, "power off", power=False)
        yield limit_ms + 40_000
        world.check.now_ms = self.kernel.now_ms
        at_ms = world.recovered_at.get(node.name)
        if at_ms is not None or not guest.os_alive or guest.hung:
            world.check.recovery(node.name, None if at_ms is None else at_ms - began, limit_ms)
