"""Pacemaker as measured: who is lost is fenced, level by level, and starts wait for all outstanding fencing.

A gate that says yes alone is a success. A refusal is followed by the next try at once. What has been released
by a return is tried once more by another peer. A device runs where a member has it, never on its target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from standfast.core.device_objects import GATE_LIMIT_SECONDS
from standfast.core.guarded import KILL_LIMIT_SECONDS
from standfast.core.topology import Device, Level
from standfast.sim import gate, killing
from standfast.sim.kernel import Process, Steps
from standfast.sim.ring import Ring

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

CALL_LIMIT_MS = 60_000
GATE_LIMIT_MS = GATE_LIMIT_SECONDS * 1200
"""The fencer that has asked waits for a time-out, and a fifth of it, also where the executor is dead."""
KILL_LIMIT_MS = KILL_LIMIT_SECONDS * 1000
NO_DEVICE_MS = 500
"""The fencer finds nobody who has the device, and says so."""
RETRY_MS = 40


class Fencer:
    """All fencing of the cluster."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.clean: set[str] = set()
        """Nodes that are known to be down."""
        self.under_way: dict[tuple[int, str], Ring] = {}

    def quorate(self, ring: Ring) -> bool:
        """Whether this membership may act. Two nodes: each alone, once both have been together."""
        count = len(self.world.nodes)
        if count == 2:
            return len(ring.members) == 2 or self.world.met(next(iter(ring.members)))
        return len(ring.members) * 2 > count

    def outstanding(self, ring: Ring) -> list[str]:
        """Who is being fenced by this membership."""
        return sorted(target for (number, target) in self.under_way if number == id(ring))

    def pending(self, ring: Ring) -> list[str]:
        """What the fencers' history shows as pending: also what was asked for in an earlier membership."""
        return sorted(
            {target for (_, target), asked in self.under_way.items() if asked.members & ring.members}
        )

    def membership(self, ring: Ring) -> None:
        """A new membership: whoever is missing and not known to be down is fenced."""
        self.clean -= ring.members
        if not self.quorate(ring):
            self.world.stopped_services(ring)
            return
        for target in sorted(set(self.world.nodes) - ring.members - self.clean):
            self.under_way[id(ring), target] = ring
            Process(self.kernel.at, self._fence(ring, target), lambda _, t=target: self._end(ring, t))  # type: ignore[misc]
        self._recover(ring)

    def _end(self, ring: Ring, target: str) -> None:
        self.under_way.pop((id(ring), target), None)
        self._recover(ring)

    def _recover(self, ring: Ring) -> None:
        if not ring.over and not self.outstanding(ring):
            for target in sorted(self.clean - ring.members):
                self.kernel.at(
                    self.kernel.between(50, 200),
                    lambda target=target: self.world.recovered(ring, target),  # type: ignore[misc]
                )

    def _fence(self, ring: Ring, target: str) -> Steps:
        lost = self.world.incarnation(target)
        began_ms = self.kernel.now_ms
        self.world.fencing_asked(target)
        yield self.kernel.between(50, 1100)
        while not ring.over:
            coordinator = self._coordinator(ring)
            if coordinator is None:
                yield 1_000
                continue
            if coordinator.booted_ms > began_ms:
                # Who asked has restarted, and knows nothing of it any more.
                return False
            done = yield from self._levels(ring, target, coordinator)
            if done:
                self.world.fenced(target, lost)
                if not ring.over:
                    self.clean.add(target)
                return True
            yield RETRY_MS
        coordinator = self._coordinator(ring)
        if coordinator is None or target not in coordinator.ring.members or coordinator.booted_ms > began_ms:
            return False
        # Released by the return; the call under way is given to one more peer.
        if (yield from self._levels(ring, target, coordinator)):
            self.world.fenced(target, lost)
        return False

    def _coordinator(self, ring: Ring) -> Node | None:
        alive = [self.world.nodes[name] for name in sorted(ring.members)]
        return next((node for node in alive if node.running), None)

    def _levels(self, ring: Ring, target: str, coordinator: Node) -> Steps:
        boot = coordinator.boot
        for level in coordinator.fencing.levels.get(target, ()):
            good = bool(level.devices)
            for device in level.devices:
                executor = self._executor(ring, target, device)
                if executor is None:
                    if self.world.kills:
                        yield NO_DEVICE_MS
                    return False
                if device.parameters.get("kill"):
                    steps = killing.call(self.world, executor, target)
                    good = yield self._call(executor, target, steps, KILL_LIMIT_MS)
                elif device.agent == "fence_standfast":
                    steps = gate.call(self.world, executor, target, level)
                    good = yield self._call(executor, target, steps, GATE_LIMIT_MS)
                else:
                    good = yield self._call(executor, target, self._device(executor, target, level))
                if coordinator.boot != boot:
                    # Who asked for it is dead: what it had begun ends with it.
                    return False
                if not good:
                    break
            if good:
                return True
        return False

    def _executor(self, ring: Ring, target: str, device: Device) -> Node | None:
        nodes = [self.world.nodes[name] for name in sorted(ring.members) if name != target]
        alive = [node for node in nodes if node.running and self._has(node, target, device)]
        return self.kernel.rng.choice(alive) if alive else None

    def _has(self, executor: Node, target: str, device: Device) -> bool:
        """Whether this device may run there, as that node's own fencer has it (core/guarded.py)."""
        guarded = executor.fencing.guarded
        if device.parameters.get("kill"):
            return target in guarded
        banned = executor.name in guarded and len(self.world.nodes) > 2
        return target not in guarded and not banned

    def _call(
        self, executor: Node, target: str, steps: Steps, limit_ms: int = CALL_LIMIT_MS
    ) -> Callable[[Any], None]:
        def effect(resume: Callable[[Any], None]) -> None:
            process = executor.spawn(steps, lambda result: resume(bool(result)))

            def late() -> None:
                if process.alive:
                    process.kill()
                    self.world.fencing_asked(target)
                    self.world.lost_calls.add(target)
                resume(False)

            self.kernel.at(limit_ms, late)

        return effect

    def _device(self, executor: Node, target: str, level: Level) -> Steps:
        """fence_xscf: the production proof over what this XSCF shows, then the hosts where it is in doubt."""
        del level
        result = yield from gate.kill(self.world, executor, target)
        return result
