"""One command, clovmmigrate -p or -u, as execute.py drives it: look, ask the planner, one step, look again.

Mirrors Executor: what timed out is UNKNOWN and is followed by a barrier of this node, a lost race by a new
look.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from standfast.core import evidence, window
from standfast.core.evidence import HostAnswer
from standfast.core.messages import Message
from standfast.core.record import Phase, Record
from standfast.core.steps import (
    Barrier,
    CloseGoal,
    Done,
    Goal,
    Guard,
    OpenGoal,
    RaiseGoal,
    Reaim,
    Reload,
    SaveConfiguration,
    Snapshot,
    Step,
    Stop,
    Unguard,
    Wait,
    WriteRecord,
)
from standfast.sim import gate
from standfast.sim.kernel import Effect, Steps
from standfast.sim.store import Cib, written
from standfast.survey import needs_controller, needs_whole

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

WRITE_LIMIT_MS = 20_000
RELOAD_LIMIT_MS = 10_000
BARRIER_LIMIT_MS = 20_000
TOTAL_LIMIT_MS = 300_000
MAX_CONFLICTS = 20
MAX_UNKNOWN = 3
LOOK_MS = 500
OVERTAKEN_MS = 2_000
RELEASE_LOOK_MS = 10_000
QUIET_MS = 1_000
"""The controller does not call itself idle for a second after each write."""

Look = Generator[Effect, Any, tuple[Snapshot, Cib]]


@dataclass
class Memory:
    """What this command did since the record moved to `epoch`."""

    epoch: int = -1
    record: Record | None = None
    """As last seen, or written by this command."""
    seen: Record | None = None
    reloads: int = 0
    barriers: int = 0
    ring: int | None = None
    waits: dict[str, int] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    aborted: str = ""
    conflicts: int = 0
    unknown: int = 0

    def at(self, found: Record | None) -> None:
        before, self.record, self.seen = self.seen, found, found
        epoch = found.epoch if found is not None else -1
        if epoch != self.epoch:
            self.epoch = epoch
            if not window.only_asked(before, found):
                self.reloads, self.barriers, self.waits = 0, 0, {}

    @property
    def open(self) -> bool:
        return self.record is not None and self.record.open


class Command:
    """One run of the program on one node."""

    def __init__(self, world: World, node: Node, name: str, goal: Callable[[Cib], Goal | None]) -> None:
        self.world, self.node, self.name = world, node, name
        self.kernel = world.kernel
        self.make_goal = goal
        self.goal: Goal
        self.steps = 0
        self.dies_at = -1
        """The step at which it is killed; -1: never."""
        self.memory = Memory()

    def run(self) -> Steps:
        """Until Done or Stop; None: it was killed."""
        yield self.kernel.between(100, 300)
        goal = self.make_goal(self.node.cib)
        if goal is None:
            return Stop((Message("UNKNOWN_GUEST", "", next_command="clsnmpsetup -l"),), unfinished=False)
        return (yield from self.toward(goal))

    def toward(self, goal: Goal) -> Steps:
        """One goal, as one Executor drives it."""
        self.goal, self.memory = goal, Memory()
        memory, deadline, whole = self.memory, self.kernel.now_ms + TOTAL_LIMIT_MS, True
        while self.steps < window.MAX_STEPS and self.kernel.now_ms < deadline:
            began_ms = self.kernel.now_ms
            snapshot, cib = yield from self._look(whole)
            if memory.aborted and snapshot.record is not None and snapshot.record.phase is Phase.IDLE:
                text = f"the window was not opened: {memory.aborted}"
                return Stop((Message("ROLLED_BACK", text, next_command="-p again"),), unfinished=False)
            whole = self._whole(snapshot.record)
            decision = window.decide(snapshot, goal)
            if isinstance(decision, Done | Stop):
                if not self._overtaken(decision, snapshot.record, self.kernel.now_ms - began_ms):
                    return decision
                memory.barriers = 0
                continue
            if isinstance(decision, Wait):
                yield from self._wait(decision)
                continue
            self.steps += 1
            if self.steps == self.dies_at:
                half = self.kernel.chance(0.5)
                if not half:
                    return self._killed()
            stop = yield from self._do(decision, cib)
            if stop is not None:
                return stop
            if isinstance(decision, WriteRecord | Reaim | Guard | Unguard):
                memory.record = decision.record
                whole = self._whole(decision.record)
        return Stop((Message("TOO_LONG", "not finished", next_command="the same again"),), unfinished=True)

    def _overtaken(self, decision: Done | Stop, seen: Record | None, took_ms: int) -> bool:
        if isinstance(self.goal, RaiseGoal):
            return isinstance(decision, Done) and took_ms >= RELEASE_LOOK_MS
        final = isinstance(decision, Done) or not decision.unfinished
        return final and took_ms >= OVERTAKEN_MS and self.node.cib.readable != seen

    def _killed(self) -> None:
        self.kernel.say(self.node.name, "%s is killed before its step %d", self.name, self.steps)

    # -- looking -------------------------------------------------------------------------------------------

    def _whole(self, found: Record | None) -> bool:
        return needs_whole(found, self.goal)

    def _asks(self, found: Record | None) -> bool:
        return needs_controller(found, self.goal, self.node.name)

    def _look(self, whole: bool) -> Look:
        memory = self.memory
        asks = self._asks(memory.record)
        snapshot, cib = yield from self._take(whole, asks)
        again = self._asks(snapshot.record)
        if self._whole(snapshot.record) and not (whole and asks is again):
            snapshot, cib = yield from self._take(True, again)
        memory.at(snapshot.record)
        now = self.kernel.now_ms
        gone = {k for k, since in memory.waits.items() if now - since > memory.limits[k] * 1000}
        expired, number = frozenset(gone), self.node.ring.number
        if isinstance(self.goal, RaiseGoal):
            memory.ring = number if memory.ring is None else memory.ring
            snapshot = replace(snapshot, ring_changed=number != memory.ring)
        return replace(snapshot, reloads=memory.reloads, barriers=memory.barriers, expired=expired), cib

    def _take(self, whole: bool, controller: bool) -> Look:
        node, world = self.node, self.world
        cib, members = node.cib, node.ring.members
        reports = {name: report for name, report in node.reports.items() if name in members}
        yield self.kernel.between(15, 60)
        record = cib.readable
        absent = sorted(set(record.old) - members) if record is not None and record.open else []
        snapshot = Snapshot(
            me=node.name,
            record=record,
            record_error=cib.damage,
            configured=tuple(world.nodes),
            members=members,
            reports=reports,
            maintenance_mode=cib.maintenance,
            hosts=world.entries,
            aims=cib.aims,
            guarded=cib.guarded,
            guard_whole=cib.guard_whole,
        )
        if whole or absent:
            snapshot = yield from self._more(snapshot, cib, absent, controller)
        return snapshot, cib

    def _more(self, snapshot: Snapshot, cib: Cib, absent: list[str], controller: bool) -> Steps:
        node, world = self.node, self.world
        pending = world.fencer.pending(node.ring)
        idle: bool | None = None
        calm = not pending and all(world.nodes[name].joined for name in node.ring.members)
        if controller:
            first = min(node.ring.members)
            if node.ring.stalled and first != node.name:
                yield 2_000
            else:
                idle = calm and self.kernel.now_ms - node.ring.written_ms > QUIET_MS
        guest = self.goal.guest if isinstance(self.goal, CloseGoal) else ""
        places: dict[str, tuple[HostAnswer, ...]] = {}
        for each in sorted({aim.guest for aim in cib.aims.values()}) if guest else ():
            places[each] = yield from self._ask(each)
        off = set()
        for name in absent:
            aim = cib.aims.get(name)
            if aim is not None:
                rounds = [(yield from self._ask(aim.guest)), (yield from self._ask(aim.guest))]
                if evidence.gone_everywhere(list(world.site.hosts), rounds):
                    off.add(name)
        unwell = {name: "offline" for name in world.nodes if name not in snapshot.members}
        unwell |= {n: "still joining" for n in sorted(snapshot.members) if not world.nodes[n].joined}
        back = next((aim.node for aim in cib.aims.values() if aim.guest == guest), "")
        return replace(
            snapshot,
            cluster_idle=idle,
            cluster_quiet=calm,
            fencing_pending=tuple(pending),
            unwell=unwell,
            places=places,
            proven_off=frozenset(off),
            seconds_since_return=node.sightings.seconds_since_return(back) if back else None,
        )

    def _ask(self, guest: str) -> Steps:
        if any(self.world.site.silent(name) for name in self.world.site.hosts):
            yield 4_000
        answers = yield from gate.ask(self.world, self.node, guest)
        return answers

    def _wait(self, wait: Wait) -> Steps:
        memory = self.memory
        if wait.key not in memory.waits:
            memory.waits[wait.key] = self.kernel.now_ms
            memory.limits[wait.key] = wait.limit_seconds
            self.kernel.say(self.node.name, "%s waits for %s", self.name, wait.reason)
        yield self.node.changed(LOOK_MS)

    # -- doing ---------------------------------------------------------------------------------------------

    def _do(self, step: Step, cib: Cib) -> Steps:
        memory = self.memory
        self.kernel.say(self.node.name, "%s: %s", self.name, step.reason)
        if isinstance(step, WriteRecord) and step.record.abort and isinstance(self.goal, OpenGoal):
            memory.aborted = memory.aborted or step.record.why
        outcome = yield from self._act(step, cib)
        if isinstance(outcome, Stop):
            return outcome
        if outcome == "conflict":
            memory.conflicts += 1
            if memory.conflicts > MAX_CONFLICTS:
                return Stop((Message("CONTENDED", "", next_command="again"),), unfinished=True)
        if outcome == "unknown":
            if self.world.rules.unknown_is_failed:
                return Stop((Message("ENGINE", "", next_command="again"),), unfinished=memory.open)
            memory.unknown += 1
            return (yield from self._barrier())
        return None

    def _act(self, step: Step, cib: Cib) -> Steps:
        match step:
            case WriteRecord(record=new, maintenance_mode=mode):
                return (yield from self._write(cib, new, step.reason, maintenance=mode))
            case Reaim(record=new, node=name, host=host):
                return (yield from self._write(cib, new, step.reason, reaim=(name, host)))
            case Guard(record=new, node=name):
                return (yield from self._write(cib, new, step.reason, guard=name))
            case Unguard(record=new, nodes=nodes):
                return (yield from self._write(cib, new, step.reason, unguard=nodes))
            case Reload():
                self.memory.reloads += 1
                return (yield self.world.network.reload(self.node, RELOAD_LIMIT_MS))
            case Barrier():
                answer = yield self.world.network.barrier(self.node, BARRIER_LIMIT_MS)
                self.memory.barriers += answer == "ok"
                return answer
            case SaveConfiguration(host=host_name):
                yield self.kernel.between(500, 3000)
                if self.world.site.silent(host_name):
                    text = f"the domain configuration on {host_name} was not saved"
                    return Stop(
                        (Message("NOT_SAVED", text, next_command="ldm add-spconfig"),), self.memory.open
                    )
                self.world.site.save(host_name)
                found = cib.readable
                if found is None:
                    return "ok"
                saved = {**found.saved, host_name: "standfast-a"}
                return (yield from self._write(cib, found.next(saved=saved), f"saved on {host_name}"))
        return "ok"

    def _write(self, cib: Cib, new: Record, what: str, **changes: Any) -> Steps:
        rules = self.world.rules
        change = rules.write(written, cib, new, changes)
        answer = yield self.world.network.write(self.node, change, what, WRITE_LIMIT_MS)
        return answer

    def _barrier(self) -> Steps:
        self.kernel.say(self.node.name, "%s: unknown whether that was carried out; barrier", self.name)
        if self.memory.unknown <= MAX_UNKNOWN:
            answer = yield self.world.network.barrier(self.node, BARRIER_LIMIT_MS)
            if answer == "ok":
                return None
        return Stop((Message("STALLED", "", next_command="the same again"),), unfinished=True)
