"""A node's part in noticing guests that somebody moves without a window.

Mirrors daemon/stray_duty.py: who looks, and what is seen, is decided by the production functions
(core.strays). Nothing is repaired here, and hosts tell no events. Questions are asked beside the run: they
use up no wrong answer that is meant for a gate, and nothing of the run's chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from standfast.core import strays
from standfast.core.steps import NodeAim
from standfast.core.strays import Kind, Sight
from standfast.daemon.stray_duty import CLOSELY_SECONDS, HEARD_SECONDS, LOOK_SECONDS

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

TURN_MS = 5_000
"""The daemon shortens its turns while a guest is on its way; nothing is judged by that here."""
HEARD_MS = int(HEARD_SECONDS * 1000)


class Strays:
    """One daemon's share."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node = world, node
        self.turned_ms = -HEARD_MS
        """When this daemon last answered the others (they exchange their clocks)."""
        self._looked: dict[str, int] = {}
        self._seen: dict[str, Sight] = {}

    def turn(self) -> None:
        """Look at what is this node's turn."""
        now_ms = self.world.kernel.now_ms
        record, aims = self.node.cib.readable, self.node.cib.aims
        self.turned_ms = now_ms
        able = self._able()
        if record is None or (record.open and not record.waits_for_clocks) or self._busy(able):
            self._seen.clear()
            return
        for name, aim in aims.items():
            if strays.looks_at(name, able) == self.node.name and self._due(name, now_ms):
                self._looked[name] = now_ms
                self._see(aim)

    def _due(self, name: str, now_ms: int) -> bool:
        moving = name in self._seen and self._seen[name].kind is Kind.MOVING
        period = CLOSELY_SECONDS if moving else LOOK_SECONDS
        return now_ms - self._looked.get(name, -1_000_000) >= period * 1000

    def _able(self) -> frozenset[str]:
        """Members whose daemon was heard of, and this node."""
        since = self.world.kernel.now_ms - HEARD_MS
        heard = {n for n in self.node.ring.members if self.world.daemons[n].strays.turned_ms >= since}
        return frozenset(heard | {self.node.name})

    def _busy(self, able: frozenset[str]) -> bool:
        nodes = (self.world.nodes[name] for name in able)
        return any(node.commanding is not None and node.commanding.alive for node in nodes)

    def _see(self, aim: NodeAim) -> None:
        site = self.world.site
        if aim.host in site.hosts and strays.at_home(site.peek(aim.host, aim.guest)):
            sight = Sight(Kind.HOME, aim.host)
        else:
            sight = strays.judge(aim, [site.peek(host, aim.guest) for host in site.hosts], self.world.entries)
        if sight.astray:
            if self._seen.get(aim.node) != sight:
                self.world.kernel.say(self.node.name, "alarm: %s is %s", aim.guest, sight.word)
            self._seen[aim.node] = sight
            self.world.noticed(aim.node)
        elif sight.kind is not Kind.UNKNOWN:
            self._seen.pop(aim.node, None)
