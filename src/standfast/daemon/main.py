"""standfastd: watch, follow the record, report, test, alarm. One per node.

It coordinates nothing: a command drives the window, and each node's daemon makes its own node follow the
record. It survives the engine's going and coming, since everything that it knows it can read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast import config, refusals
from standfast.cluster import cib, cmap, corosync_map, rescue_file, ring, ring_watch
from standfast.cluster.run import LATE_LIMIT_SECONDS, EngineError, pause_seconds
from standfast.core import clock_gate, devices, heartbeat, members, names, owed, record, topology
from standfast.core.aims import entries
from standfast.core.clock_step import OFF
from standfast.core.clocks import THRESHOLD_SECONDS
from standfast.core.evidence import HostAnswer
from standfast.core.record import Phase, Record, Totem
from standfast.core.report import Report, decode_all
from standfast.core.steps import NodeAim
from standfast.daemon import alarms, arm_window, away, heartbeat_duty
from standfast.daemon.agent_tests import AgentTests, Around
from standfast.daemon.board import Board, Row
from standfast.daemon.clock_duty import ClockDuty
from standfast.daemon.clock_step_duty import ClockStepDuty
from standfast.daemon.facility_switch import Switch
from standfast.daemon.fencer_duty import FencerDuty
from standfast.daemon.guard_duty import GuardDuty
from standfast.daemon.kill_watch import KillWatch
from standfast.daemon.known import RETRY_SECONDS, Known
from standfast.daemon.lease_duty import LeaseDuty
from standfast.daemon.lease_duty import Seen as LeaseSeen
from standfast.daemon.owed_duty import TakeBack
from standfast.daemon.publisher import Publisher
from standfast.daemon.raised_duty import RaisedDuty
from standfast.daemon.raised_duty import Seen as RaisedSeen
from standfast.daemon.stray_duty import StrayDuty
from standfast.daemon.watch import FolderWatch, WatchError
from standfast.hosts import make
from standfast.hosts.asking import ask_everywhere
from standfast.hosts.base import Host
from standfast.journal import Journal
from standfast.sightings import Sightings, ring_number

TICK_IDLE_SECONDS = 10.0
TICK_WINDOW_SECONDS = 1.0
VALUES_POLL_SECONDS = 0.02
VALUES_LIMIT_SECONDS = 10.0
ALARM_PERIOD_SECONDS = 60.0
MAX_SAID_CHARS = 160

log = logging.getLogger("standfastd")


class Daemon:
    """All tasks of one node's daemon."""

    def __init__(self) -> None:
        self.known = Known()
        self.journal = Journal()
        self.sightings = Sightings()
        self.hosts: dict[str, Host] = {}
        self._account: dict[str, str] | None = None
        self.commanding = 0
        self._publisher = Publisher(self.known, self.report)
        self._kick = asyncio.Event()
        self._changed = asyncio.Event()
        self._ticked = 0.0
        self._tick_took_seconds = 0.0
        self._engine_answered = float("-inf")
        """When the engine last answered all that it was asked."""
        self._back = TakeBack(self._note)
        self._disagrees_since: float | None = None
        self.lease = LeaseDuty(self._where_all, lambda text: self._note("lease", text))
        self.raised = RaisedDuty(partial(self._note, "heartbeat"))
        self._expects: object = None
        self._expects_since = 0.0
        self._blind = ""
        self._answered: tuple[str, ...] = ()
        self._answers_seen: object = None
        self._looked_at = 0
        """Epoch of the record at which everything that a report tells was looked at."""
        self._config_seen: tuple[int, int, int] | None = None
        self.board = Board(self.touched)
        self.guard = GuardDuty(self.known, lambda: self.hosts, self.sightings)
        self._kills = KillWatch(self.board, self._note)
        self.fencer = FencerDuty(self._look_again)
        self.tests = AgentTests(
            self.known,
            self.board,
            Around(
                lambda: self.hosts,
                lambda: self.facility == "running",
                self.touched,
                self._fencer_anew,
                self._spawn,
            ),
        )
        self.switch = Switch(Path(names.STOPPED_MARKER_FILE))
        self.clocks = ClockDuty(self.touched)
        self.strays = StrayDuty(
            self.known,
            lambda: self.hosts,
            self.clocks.heard_within,
            idle=lambda: self.commanding == 0,
            facility=lambda: self.facility == "running",
            tell=self._note,
            changed=self.touched,
            sightings=self.sightings,
        )
        self.clock_step = ClockStepDuty(self.clocks, self.touched, partial(self._note, "clock"))
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def facility(self) -> str:
        """running, or stopped by ``sdtool -e``."""
        return "stopped" if self.switch.stopped else "running"

    def facility_moved(self) -> None:
        """The facility of this node was stopped or started."""
        self._note("facility", self.facility)
        if self.switch.stopped:
            self.board.stop()
        else:
            self.board.start_anew()
        self.touched()

    async def _settle_facility(self) -> None:
        # Not waited for: the write takes as long as the ring, and the daemon has its node to look after.
        if done := await self.switch.settle(self.known.record, self.known.node):
            self._note("facility", done)
            self._kick.set()

    def touched(self) -> None:
        """Something changed that a report tells."""
        self._publisher.touched()

    async def run(self) -> None:
        """Until cancelled."""
        self.reread()
        loop = asyncio.get_running_loop()
        ring_watch.start(lambda: _tell(loop, self._ring_moved))
        self.clocks.start(partial(_tell, loop))
        async with asyncio.TaskGroup() as group:
            duties = (
                self._publisher.publish,
                self.tests.periodically,
                self.guard.watch,
                self.clocks.watch,
                self.strays.watch,
            )
            for task in (self._follow, self._alarms, *duties):
                group.create_task(self._forever(task))

    async def _forever(self, task: Callable[[], Coroutine[None, None, None]]) -> None:
        """A defect in one task is logged and the task goes on: the others must not die of it."""
        while True:
            try:
                await task()
            except Exception:
                log.exception("task %s failed; it starts again", task.__name__)
            await asyncio.sleep(RETRY_SECONDS)

    # -- configuration ------------------------------------------------------------------------------------

    def reread(self) -> None:
        """Read clovmmigrate.conf again (start, ``sdtool -r``)."""
        self._config_seen = _stamp(names.CONFIG_FILE)
        try:
            loaded = config.load()
        except config.ConfigError as error:
            self.known.config, self.known.config_error = None, " ".join(str(error).split())
        else:
            self.known.config, self.known.config_error = loaded, ""
        self._make_hosts()
        self.touched()

    def _make_hosts(self) -> None:
        loaded, old = self.known.config, self.hosts
        if loaded is None:
            # A file that is broken takes no evidence away: the hosts of the last good one are asked on.
            return
        self.hosts = make.adapters(loaded.config.hosts, self._account)
        for host in old.values():
            self._spawn(host.close())

    def _see_account(self, tree: ET.Element) -> None:
        """Hosts without login are asked through their XSCF, with the data of a registered device."""
        account = devices.account(tree)
        if account != self._account:
            self._account = account
            self._make_hosts()

    # -- following the record -----------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            watch = FolderWatch(names.CIB_DIR, names.CIB_FILE)
        except WatchError as error:
            # No Pacemaker here yet, or no more. Without a watch each restart of this task is a look.
            if str(error) != self._blind:
                log.warning("cannot watch the CIB: %s", error)
            self._blind = str(error)
            await self._refresh()
            return
        self._blind = ""
        self._changed = watch.changed
        try:
            while not watch.lost:
                await self._refresh()
                await _first(watch.changed, self._kick, limit_seconds=self._tick_seconds())
        finally:
            watch.close()

    async def _refresh(self) -> None:
        known = self.known
        try:
            # A write of the configuration changes no membership: the ring is looked at on each tick only.
            tick, began = self._tick_due(), time.monotonic()
            tree, runtime, running = await asyncio.gather(
                asyncio.to_thread(_configuration, None if tick else known.tree),
                asyncio.to_thread(cmap.runtime),
                asyncio.to_thread(cmap.configuration, corosync_map.PREFIXES),
            )
            seen = await asyncio.to_thread(ring.look) if tick else None
            if tick:
                self._tick_took_seconds = time.monotonic() - began
        except EngineError as error:
            if (
                known.engine
                and error.timed_out
                and time.monotonic() - self._engine_answered < LATE_LIMIT_SECONDS
            ):
                # A node that is slow is not one without an engine. The look has taken its time.
                log.info("%s; looking again", error)
                self._ring_moved()
                return
            if known.engine:
                log.warning("the cluster engine does not answer: %s", error)
            known.engine, known.members = False, frozenset()
            self._publisher.forget()
            self.touched()
            return
        self._engine_answered = time.monotonic()
        if seen is not None:
            known.node = seen.own
        if not known.engine:
            log.info("the cluster engine answers; this node is %s", known.node)
        known.engine, known.tree, known.runtime = True, tree, runtime
        self._see_account(tree)
        if seen is not None:
            await self._publisher.look()
            self._see_members(seen.members)
            if _stamp(names.CONFIG_FILE) != self._config_seen:
                log.info("%s has changed; reading it again", names.CONFIG_FILE)
                self.reread()
        self._see_record(tree)
        self._see_clocks()
        await self._see_answers()
        await self.guard.look()
        self._spawn(self._settle_facility())
        known.file = await asyncio.to_thread(
            heartbeat_duty.converge,
            known.record,
            known.node,
            known.runtime,
            running=running,
            membership=known.members,
        )
        await self.fencer.look(tree, known.node, known.record.prove if known.record else 0)
        # Only now: a report of this epoch must not tell what the file was at the one before.
        self._looked_at = known.record.epoch if known.record else 0
        if known.file.changed:
            self._note("corosync.conf", f"totem is {known.record.totem.value if known.record else '?'}")
        self.touched()
        if trouble := await asyncio.to_thread(rescue_file.keep, tree):
            log.warning("%s", trouble)
        self.tests.follow(self.board.follow(tree))
        if seen is not None:
            self._keep_raised()
            await self._keep_lease()
        await self._values()

    def _ring_moved(self) -> None:
        self._ticked = float("-inf")
        self._kick.set()

    def _tick_seconds(self) -> float:
        if not self.known.window and self.known.engine:
            return TICK_IDLE_SECONDS
        return min(pause_seconds(TICK_WINDOW_SECONDS, self._tick_took_seconds), TICK_IDLE_SECONDS)

    def _tick_due(self) -> bool:
        now = time.monotonic()
        if self.known.engine and self.known.node and now - self._ticked < self._tick_seconds() * 0.9:
            return False
        self._ticked = now
        return True

    def _see_members(self, parts: frozenset[str]) -> None:
        if (number := ring_number()) is not None:
            self.sightings.met(number, parts)
        for node in parts - self.known.members:
            self._spawn(self._kills.so_far(node))
            # Our own first look is no return of anybody.
            if self.known.members:
                self.sightings.returned(node)
                self._note("membership", f"{node} is in the membership")
        if not self.known.members:
            # Whoever was away before this daemon began is watched as one that leaves now.
            for node in set(self.known.aims()) - parts:
                self._spawn(self._watch_away(node))
        for node in self.known.members - parts:
            self._note("membership", f"{node} left the membership")
            self._spawn(self._kills.follow(node, self.known.node, partial(self._is_member, node)))
            self._spawn(self._watch_away(node))
        self.known.members = parts

    def _is_member(self, node: str) -> bool:
        return node in self.known.members

    async def _watch_away(self, node: str) -> None:
        """While `node` is away: note for the gate of this node whether its guest is on its way."""
        found = self.known.aims().get(node)
        if found is None or node == self.known.node:
            return

        def aim() -> str:
            now = self.known.aims().get(node)
            return now.host if now is not None else ""

        await away.watch(
            found.guest,
            aim,
            lambda: self.hosts,
            lambda: self.known.engine and not self._is_member(node),
            lambda: self.sightings.held(node),
        )

    async def _keep_lease(self) -> None:
        known = self.known
        if known.record is None or not known.record.open or known.tree is None or known.config is None:
            self.lease.over = None
            return
        found, aims = known.record, known.aims()
        seconds = self.sightings.see(found).window_seconds
        quorate = topology.quorate(known.tree)
        gone = sorted(set(aims) - known.members) if seconds >= found.lease_seconds else []
        threshold = known.config.config.clock_threshold_seconds
        reports = decode_all(self.known.texts) if found.waits_for_clocks else {}
        await self.lease.step(
            LeaseSeen(
                known.node,
                known.members,
                found,
                seconds,
                aims,
                quorate=quorate,
                hosts=entries(known.config.config.hosts.hosts),
                absent_seconds={node: self.sightings.absent(node, quorate=quorate) for node in gone},
                clocks=clock_gate.in_the_way(found, known.node, known.members, reports, threshold),
                not_killing=arm_window.not_killing(found, known.members, self.known.texts),
            )
        )

    def _keep_raised(self) -> None:
        known = self.known
        jit = known.record is not None and known.record.open and known.record.just_in_time
        reports = decode_all(known.texts) if jit else {}
        self.raised.step(RaisedSeen(known.node, known.members, known.record, reports))

    async def _where_all(self, asked: Mapping[str, NodeAim]) -> dict[str, tuple[HostAnswer, ...]]:
        """Node -> what every host says of its guest."""
        guests = [aim.guest for aim in asked.values()]
        told = await ask_everywhere(self.hosts.values(), guests, away.ASK_LIMIT_SECONDS)
        return {node: told[aim.guest] for node, aim in asked.items()}

    def _see_record(self, tree: ET.Element) -> None:
        known = self.known
        before = known.record
        known.record, known.record_error = record.read_or_why(tree)
        if known.record is not None:
            self.sightings.see(known.record)
            if before is None or before.epoch != known.record.epoch:
                found = known.record
                proven = ", proven" if found.proven else ""
                self._note(
                    "record",
                    f"{found.phase.value}{proven}, totem {found.totem.value}, owner {found.owner or '-'}",
                )
        if self.switch.see(known.record, known.record_error, known.node):
            self.facility_moved()
            if not self.switch.stopped:
                self._spawn(self.tests.test_all())

    def _see_clocks(self) -> None:
        """A closing asks anew: what was measured before its guest was where it is now says nothing."""
        known, found = self.known, self.known.record
        # An opening that is rolled back has moved nobody, and waits for no clock.
        closing = found is not None and found.phase is Phase.CLOSING and not found.abort
        self.clocks.look(
            known.node,
            known.members,
            epoch=found.epoch if found is not None else 0,
            asked=found.prove if found is not None and closing else 0,
            mover=found.mover if found is not None else "",
            limits=known.config.config.clock_limits if known.config is not None else None,
        )
        conf = known.config.config if known.config is not None else None
        self.clock_step.look(
            known.node,
            known.members,
            found,
            way=conf.clock_step if conf is not None else OFF,
            threshold_seconds=conf.clock_threshold_seconds if conf is not None else THRESHOLD_SECONDS,
        )

    async def _see_answers(self) -> None:
        """What the gates have answered is told to the end of the window, and kept until a new one begins."""
        found = self.known.record
        if found is None or not found.open or not found.mover:
            return
        # Asked for after each write of the record, and nearly always nothing was answered since.
        seen = (found.window, found.mover, _stamp(names.GATE_LOG_FILE))
        if seen == self._answers_seen:
            return
        self._answers_seen = seen
        open_for = self.sightings.see(found).window_seconds
        # The log has wall-clock times, and the history of a fencer too.
        since = time.time() - open_for  # noqa: TID251
        self._answered = await asyncio.to_thread(refusals.answers, names.GATE_LOG_FILE, found.mover, since)

    async def _values(self) -> None:
        """Watch the running values closely while a reload is expected: the planner waits for our word."""
        found = self.known.record
        self._compare()
        if found is None or not found.open:
            if self.known.tree is not None and await self._back.step(self.known.node, self.known.file):
                self._kick.set()
            return
        wanted = _wanted_runtime(found, self.known.node)
        # Closely only for a while after something has moved: an opening that was left may stay for hours.
        expects = (found.epoch, tuple(sorted(self.known.file.keys.items())))
        if expects != self._expects:
            self._expects, self._expects_since = expects, time.monotonic()
        deadline = self._expects_since + VALUES_LIMIT_SECONDS
        while wanted and not members.runs(self.known.runtime, wanted) and time.monotonic() < deadline:
            if self._kick.is_set() or self._changed.is_set():
                return
            await asyncio.sleep(VALUES_POLL_SECONDS)
            with contextlib.suppress(EngineError):
                self.known.runtime = await asyncio.to_thread(cmap.runtime)
        self.touched()

    def _compare(self) -> None:
        """Note since when corosync has not run what its file yields: told only, never mended by us."""
        known = self.known
        old = known.record.old.get(known.node) if known.record else None
        before = old is not None and dict(old.file_keys) == dict(known.file.keys)
        right = owed.agrees(known.runtime, known.file.fresh) or (
            old is not None and before and members.runs(known.runtime, members.comparable(old.runtime))
        )
        if right or known.window:
            self._disagrees_since = None
        elif self._disagrees_since is None:
            self._disagrees_since = time.monotonic()

    # -- reporting ----------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What this node says to the others now."""
        known, rows, clocks = self.known, self.board.rows, self.clocks.told
        return Report(
            node=known.node,
            epoch=self._looked_at,
            file_keys=dict(known.file.keys),
            file_error=known.file.error,
            structure=known.file.structure,
            rest=known.file.rest,
            nodes=known.file.nodes,
            unloaded=known.file.unloaded,
            runtime=dict(known.runtime),
            members=tuple(sorted(known.members)),
            config=known.config.fingerprint if known.config else "",
            config_error=known.config_error,
            agents={identifier: _shown(row) for identifier, row in rows.items()},
            proofs={i: row.proof or row.failed for i, row in rows.items() if row.proof or row.failed},
            hosts=dict(known.probed.hosts),
            logins=dict(known.probed.logins),
            facility=self.facility,
            killing=self.guard.killing,
            answered=self._answered,
            fencer=dict(self.fencer.differs),
            fencer_error=self.fencer.error,
            identity=known.identity,
            clocks=clocks.offsets,
            clocks_out=clocks.out,
            clocks_at=clocks.asked_at,
            clock_error=clocks.error,
            watches=self.strays.watches,
            strays=self.strays.told,
            clock_step=self.clock_step.told,
            commanding=self.commanding > 0,
            just_in_time=True,
        )

    # -- alarms -------------------------------------------------------------------------------------------

    async def _alarms(self) -> None:
        while True:
            for text in self.alarms():
                log.error("ALARM: %s", text)
            await asyncio.sleep(ALARM_PERIOD_SECONDS)

    def alarms(self) -> list[str]:
        """What must not stay as it is, one sentence each, with what to type."""
        found = self.known.record
        open_since = self.sightings.see(found).window_seconds if found is not None and found.open else 0.0
        began = self._disagrees_since
        disagrees = 0.0 if began is None else time.monotonic() - began
        told = alarms.found(self.known, open_since, self.lease.over, disagrees, self.facility)
        return [*told, *self.fencer.alarms(), *self.strays.alarms()]

    # -- small things -------------------------------------------------------------------------------------

    def _look_again(self, after_seconds: float) -> None:
        asyncio.get_running_loop().call_later(after_seconds, self._kick.set)

    def _fencer_anew(self) -> None:
        self.fencer.forget()
        self._kick.set()

    def kick(self) -> None:
        """Look again now."""
        self._kick.set()

    def _note(self, kind: str, text: str) -> None:
        epoch = self.known.record.epoch if self.known.record else 0
        log.info("%s: %s (epoch %d)", kind, text, epoch)
        trouble = self.journal.add(kind, text, epoch=epoch, node=self.known.node)
        if trouble:
            log.warning("%s", trouble)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Call it in the loop, from another thread; a loop that has ended hears nothing."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what)


def _configuration(known: ET.Element | None) -> ET.Element:
    """The CIB: from its file where that is not older than what is `known`, else of Pacemaker itself.

    Each tick knows nothing and asks, which shows that Pacemaker answers.
    """
    if known is not None:
        with contextlib.suppress(cib.CibError):
            found = cib.stored(f"{names.CIB_DIR}/{names.CIB_FILE}")
            if cib.version(found) >= cib.version(known):
                # Not a change of the configuration, so the file may be behind in it.
                found.set("have-quorum", known.get("have-quorum", ""))
                return found
    return cib.query()


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What tells that a file is another one than before; None: there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _wanted_runtime(found: Record, node: str) -> Mapping[str, int]:
    if found.phase is Phase.IDLE:
        return {}
    if found.totem is Totem.RAISED:
        wanted = members.runtime_of(members.raised_keys(found, node))
        # Just in time, the timers of the node that drives it are its command's own matter.
        left = heartbeat.TIMERS if found.just_in_time and node == found.owner else ()
        return {name: value for name, value in wanted.items() if name not in left}
    old = members.old_of(found, node)
    if old and found.totem is Totem.LOWERED:
        return members.runtime_of(members.lowered_keys(found, old))
    return members.comparable(old.runtime) if old else {}


def _shown(row: Row) -> str:
    """One word for the report, the worse of the two states, and why where it is a failure."""
    state = row.init_state if row.init_state in ("InitFailed", "UnInitWorked") else row.test_state
    return f"{state}: {row.said[:MAX_SAID_CHARS]}" if row.said and state.endswith("Failed") else state


async def _first(*events: asyncio.Event, limit_seconds: float) -> None:
    """Wait for any of the events, at most so long; all are cleared."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        for event in events:
            event.clear()
