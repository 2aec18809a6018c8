"""What a node's daemon does about a heartbeat that was raised just in time and is left raised.

Mirrors daemon/raised_duty.py; what is seen and done is decided by `core.raising.Book`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from standfast.core import raising
from standfast.sim.kernel import Process

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World


class Raised:
    """One daemon's RaisedDuty."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self._book = raising.Book()
        self._work: Process | None = None

    def step(self) -> None:
        """One look, each second."""
        node, record = self.node, self.node.cib.readable
        busy = self._work is not None and self._work.alive
        goal = self._book.turn(node.name, node.ring.members, record, node.reports, node.clock(), busy=busy)
        if goal is not None:
            self._work = self.world.close_by_lease(node, goal, self._ended)

    def _ended(self, outcome: Any) -> None:
        del outcome
        self._book.tried(self.node.clock())
