"""What a node's daemon does about a window past its lease: close it, arm it, alarm.

Mirrors daemon/lease_duty.py and the part of daemon/main.py that feeds it; what is done is decided by the
production functions (core.lease.decide, core.arming.armed). Reminders are not played.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from standfast.core import arming, clock_gate, lease
from standfast.core.arming import Arm
from standfast.core.clocks import THRESHOLD_SECONDS as THRESHOLD
from standfast.core.record import Record
from standfast.core.steps import CloseGoal, Done, LowerGoal, Stop
from standfast.sim.kernel import Process, Steps

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

WRITE_LIMIT_MS = 20_000
SILENT_MS = 2_000

Close = Callable[["Node", CloseGoal | LowerGoal, Callable[[Any], None]], Process | None]
"""Starts the operator's command on this node; None: another one has its lock."""


class Lease:
    """One daemon's LeaseDuty."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.kernel = world.kernel
        self._of: object = None
        self._begun: object = None
        self._due_s = 0.0
        self._work: Process | None = None
        self._tried_s: float | None = None
        self._refusal = ""
        self._armed_s: float | None = None
        self._arm_refusal = ""

    def step(self) -> None:
        """One look, each second."""
        node, record = self.node, self.node.cib.readable
        if record is None or not record.open:
            return
        of = (node.boot, record.window, record.lease_seconds)
        if of == self._begun and node.clock() < self._due_s:
            return
        seconds = node.sightings.see(record).window_seconds
        if seconds < record.lease_seconds:
            # Looked at each second by each node: what cannot be over yet is not asked for.
            self._begun, self._due_s = of, node.clock() + record.lease_seconds - seconds
            return
        quorate = self.world.fencer.quorate(node.ring)
        gone = sorted(set(node.cib.aims) - node.ring.members)
        absent = {name: node.sightings.absent(name, quorate=quorate) for name in gone}
        if (record.window, record.lease_seconds) != self._of:
            self._of = (record.window, record.lease_seconds)
            self._tried_s = self._armed_s = None
            self._refusal = self._arm_refusal = ""
        if self._work is not None and self._work.alive:
            return
        self._act(
            lease.LeaseView(
                me=node.name,
                members=node.ring.members,
                record=record,
                seconds_since_window_seen=seconds,
                reminded_percent=100,
                aims=node.cib.aims,
                seconds_since_attempt=self._since(self._tried_s),
                refusal=self._refusal,
                quorate=quorate,
                hosts=self.world.entries,
                absent_seconds=absent,
                seconds_since_arming=self._since(self._armed_s),
                arm_refusal=self._arm_refusal,
                clocks=clock_gate.in_the_way(record, node.name, node.ring.members, node.reports, THRESHOLD),
            )
        )

    def _since(self, then_s: float | None) -> float | None:
        return None if then_s is None else self.node.clock() - then_s

    def _act(self, view: lease.LeaseView) -> None:
        action = lease.decide(view)
        if isinstance(action, lease.AskHosts):
            self._work = self.node.spawn(self._ask(view))
        elif isinstance(action, lease.Close):
            self._close(action.goal)
        elif isinstance(action, Arm):
            self._arm(action, view.record)
        elif isinstance(action, lease.Over) and action.tried:
            self._tried_s, self._refusal = self.node.clock(), action.why

    def _ask(self, view: lease.LeaseView) -> Steps:
        site = self.world.site
        silent = any(site.silent(name) for name in site.hosts)
        yield SILENT_MS if silent else self.kernel.between(20, 150)
        where = {name: site.ask_all(aim.guest) for name, aim in view.aims.items()}
        self._work = None
        self._act(replace(view, where=where))

    def _close(self, goal: CloseGoal) -> None:
        self._tried_s, self._refusal = self.node.clock(), "it was killed"
        self.kernel.say(self.node.name, "the lease is over: -u %s %s", goal.guest, goal.target)
        self._work = self.world.close_by_lease(self.node, goal, self._closed)
        if self._work is None:
            self._refusal = "another command works on it"

    def _closed(self, outcome: Any) -> None:
        self._tried_s = self.node.clock()
        if isinstance(outcome, Stop):
            self._refusal = "; ".join(message.code for message in outcome.messages)
        elif isinstance(outcome, Done):
            self._refusal = ""

    def _arm(self, action: Arm, record: Record) -> None:
        new = arming.armed(record, action, self.node.cib.aims)
        self._armed_s = self.node.clock()
        if new is None or arming.came_back(action, self.node.ring.members):
            return
        self.world.arming(self.node.name, action.node)
        self._work = self.node.spawn(self._write(new, action))

    def _write(self, new: Record, arm: Arm) -> Steps:
        freed = (arm.former,) if arm.former else ()
        change = self.world.changed(new.epoch - 1, new, guard=arm.node, unguard=freed)
        what = f"armed for {arm.node}"
        answer = yield self.world.network.write(self.node, change, what, WRITE_LIMIT_MS)
        if answer == "conflict":
            self._armed_s = None  # the program reads the record again at once, and so does the next look
        self._arm_refusal = "" if answer == "ok" else str(answer)
