"""What a node's daemon does about a heartbeat that was raised just in time and is left raised.

Mirrors daemon/raised_duty.py; what is done is decided by `core.raising.turn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from standfast.core import raising
from standfast.core.raising import RaisedView
from standfast.core.record import Record
from standfast.sim.kernel import Process

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World


class Raised:
    """One daemon's RaisedDuty."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self._window = 0
        self._raised_s = 0.0
        self._left_s: float | None = None
        self._tried_s: float | None = None
        self._work: Process | None = None

    def step(self) -> None:
        """One look, each second."""
        node, record = self.node, self.node.cib.readable
        if record is None or not record.just_in_time:
            return
        if not raising.is_up(record, node.ring.members, node.reports):
            self._window, self._left_s, self._tried_s = 0, None, None
            return
        now = node.clock()
        if record.window != self._window:
            self._window, self._raised_s, self._left_s, self._tried_s = record.window, now, None, None
        if self._commanded(record):
            self._left_s = None
        elif self._left_s is None:
            self._left_s = now
        if self._work is not None and self._work.alive:
            return
        goal = raising.turn(
            RaisedView(
                node.name,
                node.ring.members,
                record,
                True,
                now - self._raised_s,
                None if self._left_s is None else now - self._left_s,
                None if self._tried_s is None else now - self._tried_s,
            )
        )
        if goal is not None:
            self._tried_s = now
            self._work = self.world.close_by_lease(node, goal, self._ended)

    def _commanded(self, record: Record) -> bool:
        report = self.node.reports.get(record.owner)
        return record.owner in self.node.ring.members and report is not None and report.commanding

    def _ended(self, outcome: Any) -> None:
        del outcome
        self._tried_s = self.node.clock()
