"""Runs the steps that the planner yields: look, ask, do one step, look again.

Nothing is remembered between two looks but what this process itself did at the present epoch (reloads issued,
waits begun), so killing it at any instant leaves a state that the next command understands.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree as ET

from standfast.cluster import cib, cmap
from standfast.cluster.run import LATE_LIMIT_SECONDS, EngineError
from standfast.core import devices, guarded, record
from standfast.core.by_hand import what_to_type
from standfast.core.messages import Message, Severity
from standfast.core.names import RECORD_SET_ID
from standfast.core.record import Phase, Record
from standfast.core.report import Report
from standfast.core.steps import (
    Barrier,
    CloseGoal,
    Decision,
    Done,
    Goal,
    Guard,
    LowerGoal,
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
from standfast.core.window import MAX_STEPS, decide, only_asked
from standfast.hosts.base import SAVED_BY_HAND, Host, HostError, NoRoomToSave, NotSavedYet
from standfast.sightings import ring_number
from standfast.survey import Survey, needs_controller, needs_whole

POLL_SECONDS = 0.02
SLOW_POLL_SECONDS = 0.25
QUICK_SECONDS = 1.0
LOOK_SECONDS = 0.5
"""The whole picture is taken anew so often while nobody reports anything new."""
MAX_CONFLICTS = 20
MAX_UNKNOWN = 3
TOTAL_LIMIT_SECONDS = 300.0
OVERTAKEN_SECONDS = 2.0
"""A final word after a look that took longer is compared with the record once more."""
RELEASE_LOOK_SECONDS = 10.0
"""Nor is a guest let go after one that took longer. Shorter than any timeout raised for it (20 s)."""
SAVE_LIMIT_SECONDS = 60.0
BARRIER_LIMIT_SECONDS = 20.0
POST_MIGRATION = "@post-migration"
SAVE_SLOTS = ("standfast-a", "standfast-b")

Say = Callable[[str], None]


@dataclass
class _Memory:
    """What this process did since the record moved to `epoch`."""

    epoch: int = -1
    record: Record | None = None
    reloads: int = 0
    barriers: int = 0
    ring: int | None = None
    """The number of this node's ring at the first look that could read it."""
    waits: dict[str, float] = field(default_factory=dict)
    news: str = ""
    """The last that was said of a wait that goes on."""
    aborted: str = ""
    warnings: tuple[Message, ...] = ()
    conflicts: int = 0
    unknown: int = 0

    @property
    def open(self) -> bool:
        """Whether a window was open at the last look."""
        return self.record is not None and self.record.open

    def at(self, found: Record | None) -> None:
        before, self.record = self.record, found
        epoch = found.epoch if found is not None else -1
        if epoch != self.epoch:
            self.epoch = epoch
            if not only_asked(before, found):
                self.reloads, self.barriers, self.waits = 0, 0, {}

    def expired(self, limits: Mapping[str, float]) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(key for key, since in self.waits.items() if now - since > limits.get(key, 0.0))


@dataclass
class Executor:
    """Drives one goal on this node. `say` gets one line for each thing that happens."""

    survey: Survey
    goal: Goal
    say: Say = lambda line: None
    total_limit_seconds: float = TOTAL_LIMIT_SECONDS

    async def run(self) -> Done | Stop:
        """Until the goal is reached or cannot be. Every end names what is left and what to type next."""
        memory, limits = _Memory(), dict[str, float]()
        deadline = time.monotonic() + self.total_limit_seconds
        whole, steps, answered = True, 0, time.monotonic()
        while steps < MAX_STEPS and time.monotonic() < deadline:
            began = time.monotonic()
            try:
                snapshot, tree = await self._look(whole, memory, limits)
            except EngineError as error:
                # A look changes nothing. One that timed out has taken its time: this loop does not spin.
                if error.timed_out and time.monotonic() - answered < LATE_LIMIT_SECONDS:
                    self.say(f"{error}; looking again")
                    continue
                return Stop((Message("ENGINE", f"the cluster does not answer here: {error}"),), memory.open)
            answered = time.monotonic()
            if memory.aborted and snapshot.record is not None and snapshot.record.phase is Phase.IDLE:
                return Stop((_rolled_back(memory.aborted),), unfinished=False)
            whole = self._whole(snapshot.record)
            decision = decide(snapshot, self.goal)
            if await self._overtaken(decision, snapshot, time.monotonic() - began):
                memory.barriers = 0
                continue
            if isinstance(decision, Done):
                warnings = (*memory.warnings, *decision.warnings)
                return replace(decision, changed=self._changed(snapshot, steps), warnings=warnings)
            if isinstance(decision, Stop):
                return decision
            if isinstance(decision, Wait):
                await self._wait(decision, snapshot, memory, limits)
                continue
            steps += 1
            outcome = await self._do(decision, tree, memory)
            if isinstance(outcome, Stop):
                return outcome
            if outcome and isinstance(decision, WriteRecord | Reaim | Guard | Unguard | Reload):
                whole = await self._await_members(decision, snapshot, memory, limits)
        return Stop(
            (Message("TOO_LONG", f"not finished after {self.total_limit_seconds:.0f} s and {steps} steps"),),
            unfinished=True,
        )

    async def _overtaken(self, decision: Decision, snapshot: Snapshot, took_seconds: float) -> bool:
        """Whether a word that nothing is left is already stale: a host that is silent makes a look long, and
        what another command had sent, when the ring stood still, may have been carried out meanwhile."""
        if isinstance(self.goal, RaiseGoal):
            # Who lets a guest go has looked right before it. The others lower nothing that is shorter ago.
            return isinstance(decision, Done) and took_seconds >= RELEASE_LOOK_SECONDS
        final = isinstance(decision, Done) or (isinstance(decision, Stop) and not decision.unfinished)
        if not final or took_seconds < OVERTAKEN_SECONDS:
            return False
        try:
            now, _ = await self.survey.take(quick=True)
        except EngineError:
            return False
        if now.record == snapshot.record:
            return False
        self.say("the window has changed meanwhile; looking again")
        return True

    def _changed(self, snapshot: Snapshot, steps: int) -> bool:
        """Whether this command has done it: opening again takes over, asks, and changes no window."""
        if isinstance(self.goal, OpenGoal) and snapshot.record is not None:
            return snapshot.record.window > self.goal.since_epoch
        return steps > 0

    async def plan(self) -> tuple[Decision, Snapshot]:
        """The first decision and what it was made from; changes nothing (dry run)."""
        snapshot, _ = await self._look(True, _Memory(), {})
        return decide(snapshot, self.goal), snapshot

    async def _look(
        self, whole: bool, memory: _Memory, limits: Mapping[str, float]
    ) -> tuple[Snapshot, ET.Element]:
        guest = self.goal.guest if isinstance(self.goal, CloseGoal) else ""
        off = isinstance(self.goal, CloseGoal) and self.goal.off
        ask = self._asks(memory.record)
        if isinstance(self.goal, RaiseGoal | LowerGoal):
            snapshot, tree = await self.survey.take(quick=True)
        else:
            snapshot, tree = await self.survey.take(guest, whole=whole, controller=ask, off=off)
        if self._whole(snapshot.record) and not (whole and ask is self._asks(snapshot.record)):
            ask = self._asks(snapshot.record)
            snapshot, tree = await self.survey.take(guest, controller=ask, off=off)
        memory.at(snapshot.record)
        if isinstance(self.goal, RaiseGoal):
            number = await asyncio.to_thread(ring_number)
            memory.ring = number if memory.ring is None else memory.ring
            snapshot = replace(snapshot, ring_changed=number != memory.ring)
        expired = memory.expired(limits)
        return replace(snapshot, reloads=memory.reloads, barriers=memory.barriers, expired=expired), tree

    def _whole(self, found: Record | None) -> bool:
        return needs_whole(found, self.goal)

    def _asks(self, found: Record | None) -> bool:
        return needs_controller(found, self.goal, self.survey.me)

    async def _await_members(
        self,
        step: WriteRecord | Reaim | Guard | Unguard | Reload,
        snapshot: Snapshot,
        memory: _Memory,
        limits: dict[str, float],
    ) -> bool:
        """After a step that the members have to follow: wait for their word before the next look.

        What comes next is foreseen from the step alone, and only a Wait is believed: all else is decided from
        what is read again. Returns whether that look must be a whole one.
        """
        if not isinstance(step, Reload):
            memory.at(step.record)
            snapshot = replace(snapshot, record=step.record)
        foreseen = replace(snapshot, reloads=memory.reloads, expired=memory.expired(limits))
        if isinstance(wait := decide(foreseen, self.goal), Wait):
            await self._wait(wait, foreseen, memory, limits)
        return self._whole(memory.record)

    async def _wait(self, wait: Wait, snapshot: Snapshot, memory: _Memory, limits: dict[str, float]) -> None:
        if wait.key not in memory.waits:
            memory.waits[wait.key] = time.monotonic()
            limits[wait.key] = wait.limit_seconds
            self.say(f"waiting for {wait.reason} (up to {wait.limit_seconds:.0f} s)")
        elif wait.news and wait.news != memory.news:
            self.say(wait.news)
        memory.news = wait.news or memory.news
        waited = time.monotonic() - memory.waits[wait.key]
        quick = waited < QUICK_SECONDS

        def over(reports: Mapping[str, Report]) -> bool:
            return decide(replace(snapshot, reports=reports), self.goal) != wait

        await self.survey.reported(over, LOOK_SECONDS, POLL_SECONDS if quick else SLOW_POLL_SECONDS)

    async def _do(self, step: Step, tree: ET.Element, memory: _Memory) -> Stop | bool:
        """One step; whether it was carried out.

        A lost race means: look again. A timed-out one is UNKNOWN: barrier, then look again."""
        self.say(str(getattr(step, "reason", step)))
        if isinstance(step, WriteRecord) and step.record.abort and isinstance(self.goal, OpenGoal):
            memory.aborted = memory.aborted or step.record.why
        try:
            await self._act(step, tree, memory)
        except cib.CibConflict:
            memory.conflicts += 1
            if memory.conflicts > MAX_CONFLICTS:
                return Stop(
                    (Message("CONTENDED", "somebody else keeps changing the record"),), unfinished=True
                )
            return False
        except (cib.CibUnknown, cmap.ReloadUnknown) as error:
            memory.unknown += 1
            return await self._barrier(str(error), memory) or False
        except (cib.CibError, EngineError) as error:
            return Stop((Message("ENGINE", f"{step.reason}: {error}"),), unfinished=memory.open)
        except record.RecordError as error:
            return Stop((Message("RECORD", f"{step.reason}: {error}"),), unfinished=memory.open)
        except HostError as error:
            return Stop((_not_saved(error, self.goal),), unfinished=memory.open)
        except devices.DeviceError as error:
            return Stop((Message("DEVICES", str(error)),), unfinished=True)
        if isinstance(step, WriteRecord | Unguard):
            memory.warnings += step.warnings
        return True

    async def _act(self, step: Step, tree: ET.Element, memory: _Memory) -> None:
        match step:
            case WriteRecord(record=new, maintenance_mode=mode):
                await self._write(tree, new, maintenance_mode=mode)
            case Reaim(record=new, node=node, host=host):
                await self._write(tree, new, wanted=devices.reaim(tree, node, host))
            case Guard(record=new, node=node):
                await self._write(tree, new, wanted=guarded.guard(tree, node))
            case Unguard(record=new, nodes=nodes):
                opened = tree
                for node in nodes:
                    opened = guarded.unguard(opened, node)
                await self._write(tree, new, wanted=opened)
            case Reload():
                memory.reloads += 1
                await asyncio.to_thread(cmap.reload)
            case Barrier():
                await asyncio.to_thread(cib.barrier, BARRIER_LIMIT_SECONDS)
                memory.barriers += 1
            case SaveConfiguration(host=host_name, runs_here=here):
                guest = self.goal.guest if isinstance(self.goal, CloseGoal) else ""
                name = await _save(self.survey.hosts[host_name], guest, here)
                if name == SAVED_BY_HAND:
                    self.say(f"the configuration of {host_name} is saved {name}")
                else:
                    self.say(f"{host_name} has saved its configuration as {name}")
                found = record.read(tree)
                if found is not None:
                    await self._write(tree, found.next(saved={**found.saved, host_name: name}))
            case Wait():
                pass

    async def _write(
        self,
        original: ET.Element,
        new: Record,
        *,
        wanted: ET.Element | None = None,
        maintenance_mode: str | None = None,
    ) -> None:
        changed = copy.deepcopy(original) if wanted is None else wanted
        record.write(changed, new)
        if maintenance_mode is not None:
            _set_maintenance(changed, maintenance_mode)
        await asyncio.to_thread(cib.apply, original, changed)

    async def _barrier(self, what: str, memory: _Memory) -> Stop | None:
        self.say(f"unknown whether it was carried out ({what}); waiting for the ring")
        if memory.unknown <= MAX_UNKNOWN:
            try:
                await asyncio.to_thread(cib.barrier, BARRIER_LIMIT_SECONDS)
            except (cib.CibError, EngineError) as error:
                what = f"{what}; {error}"
            else:
                return None
        text = f"the cluster cannot be written at the moment (a member does not answer?): {what}"
        return Stop((Message("STALLED", text),), unfinished=True)


async def _save(host: Host, guest: str, runs_here: bool) -> str:
    """Save under one of our two names. Only where there is no room for it, a current ``@post-migration`` that
    the machines saved by themselves is taken: it may be left over from an earlier migration, and then the
    proof that follows does not find the guest."""
    try:
        return await host.save_configuration(
            SAVE_SLOTS,
            accept_post_migration=False,
            guest=guest,
            runs_here=runs_here,
            limit_seconds=SAVE_LIMIT_SECONDS,
        )
    except NoRoomToSave as full:
        found = await host.list_configurations()
        if any(entry.current and entry.name == POST_MIGRATION for entry in found):
            return POST_MIGRATION
        raise full from None


def _rolled_back(why: str) -> Message:
    return Message("ROLLED_BACK", f"the window was not opened, every node is as before: {why}")


def _not_saved(error: HostError, goal: Goal) -> Message:
    hint = ""
    if isinstance(goal, CloseGoal) and isinstance(error, NotSavedYet):
        hint = what_to_type(goal, [error.host])
        if error.host != goal.target:
            hint += f"; if that was done already: the same with --saved {error.host}"
    elif isinstance(goal, CloseGoal):
        hint = (
            f"ldm add-spconfig NAME (on {error.host}), or clovmmigrate -u {goal.guest} {goal.target} "
            f'--skip-save {error.host} --reason "..."'
        )
    plain = "is not plainly saved yet" if isinstance(error, NotSavedYet) else "was not saved"
    text = f"the domain configuration on {error.host} {plain}: {error.what}"
    return Message("NOT_SAVED", text, Severity.ERROR, host=error.host, next_command=hint)


def _set_maintenance(tree: ET.Element, value: str) -> None:
    """maintenance-mode in the user's own property set; empty: as if it had never been set."""
    options = tree.find("./configuration/crm_config")
    if options is None:
        return
    for group in options.findall("cluster_property_set"):
        for pair in group.findall("nvpair"):
            if pair.get("name") == "maintenance-mode":
                if value:
                    pair.set("value", value)
                else:
                    group.remove(pair)
                return
    others = [group for group in options if group.get("id") != RECORD_SET_ID]
    if others and value:
        identifier = f"{others[0].get('id')}-maintenance-mode"
        ET.SubElement(others[0], "nvpair", {"id": identifier, "name": "maintenance-mode", "value": value})
