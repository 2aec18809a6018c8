"""One cluster node: it runs, stands still, dies and boots; its copy of the store; its corosync's values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from standfast.core import heartbeat
from standfast.core.report import Report
from standfast.sightings import RING_STEP, Sightings
from standfast.sim.kernel import Process, Steps
from standfast.sim.ring import Carried, Ring
from standfast.sim.store import Cib, Conflict

if TYPE_CHECKING:
    from standfast.sim.world import World


class MemorySightings(Sightings):
    """The production sightings with their file in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("", clock, lambda: "boot")
        self._there: dict[str, float] = {}

    def _read(self) -> dict[str, float]:
        return self._there

    def _times(self) -> tuple[float, dict[str, float], dict[str, float]]:
        # This file never fails, so what the process saw itself is in it.
        return self._clock(), self._there, self._there

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        yield

    def _replace(self, times: dict[str, float]) -> None:
        self._there = times


class Node:
    """A guest as a member of the cluster."""

    ring: Ring

    def __init__(self, world: World, name: str, guest: str, cib: Cib, keys: dict[str, str]) -> None:
        self.world = world
        self.kernel = world.kernel
        self.name = name
        self.guest = guest
        self.window = 0
        """The window that its copy of the store has; 0: none."""
        self.knows_since_s = 0.0
        """Its clock when this boot's copy first had that window: what its lease is counted from."""
        self.cib = cib
        self.up = True
        self.joined = True
        self.still: set[str] = set()
        """Why it stands still: blackout, freeze, hang."""
        self.boot = 1
        self.booted_ms = 0
        self.keys = dict(keys)
        self.structure = "as installed"
        self.file_trouble = ""
        self.deaf = 0
        """So many reloads its corosync ignores."""
        self.runtime = heartbeat.expected_runtime(keys, len(world.guests))
        self.reports: dict[str, Report] = {}
        self.published: Report | None = None
        self.commanding: Process | None = None
        self.command_ms = 0
        """When its last command began."""
        self.facility = "running"
        self.lost_ms = 0
        self.since_ms = 0
        self.last_loss = ""
        """Why the others lost it the last time, in truth."""
        self.carried: list[Carried] = []
        """Its own writes that were carried out and may not be in its own copy yet, in order."""
        self._deferred: list[Callable[[], None]] = []
        self._wakers: list[Callable[[Any], None]] = []
        self.sightings = MemorySightings(self.clock)
        self._fencing = cib
        self.trouble_ms = -1_000_000
        """When something other than a blackout last kept it from being a good member."""

    @property
    def fencing(self) -> Cib:
        """The store as this node's own fencer has it: a moment later, and old for 1 to 2 s after a start."""
        return self._fencing if self.world.kills else self.cib

    def clock(self) -> float:
        """CLOCK_BOOTTIME; in a blackout it stands still where the run says so."""
        return (self.kernel.now_ms - self.booted_ms - self.lost_ms) / 1000 + 1.0

    @property
    def running(self) -> bool:
        """It executes."""
        return self.up and not self.still

    # -- events of this node -------------------------------------------------------------------------------

    def later(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Call `do` on this node; not before it runs again, never after a reboot."""
        boot = self.boot

        def due() -> None:
            if self.boot != boot or not self.up:
                return
            if self.still:
                self._deferred.append(due)
            else:
                do()

        self.kernel.at(delay_ms, due)

    def spawn(self, steps: Steps, ended: Callable[[Any], None] = lambda result: None) -> Process:
        """A process on this node."""
        return Process(self.later, steps, ended)

    def stand(self, why: str, still: bool) -> None:
        """Begin or end one reason for standing still."""
        was = bool(self.still)
        (self.still.add if still else self.still.discard)(why)
        if why != "blackout":
            self.trouble_ms = self.kernel.now_ms
        if why == "blackout" and not still and self.still:
            # The blackout is over, but it stands still for another reason: it hangs.
            self.last_loss = min(self.still)
        if bool(self.still) == was or not self.up:
            return
        if self.still:
            self.since_ms = self.kernel.now_ms
            self.last_loss = why
            self.kernel.say(self.name, "stands still (%s)", why)
        else:
            if self.world.clock_stops:
                self.lost_ms += self.kernel.now_ms - self.since_ms
            if why == "blackout":
                self.world.clocks.stood_still(self, (self.kernel.now_ms - self.since_ms) / 1000)
            self.kernel.say(self.name, "runs on after %.1f s", (self.kernel.now_ms - self.since_ms) / 1000)
            waiting, self._deferred = self._deferred, []
            for due in waiting:
                self.kernel.at(self.kernel.between(0, 30), due)
            if self.ring.over:
                self.world.network.wakes_alone(self)
        self.world.network.look()

    def die(self) -> None:
        """Everything that was not on disk is gone."""
        if not self.up:
            return
        self.up, self.joined = False, False
        self.still.clear()
        self.last_loss, self.trouble_ms = "death", self.kernel.now_ms
        self.boot += 1
        self._deferred, self._wakers = [], []
        self.published, self.reports = None, {}
        self.commanding = None
        self.facility = "running"
        ring = self.ring
        self.carried = []
        ring.queue = [
            sent for sent in ring.queue if sent.sender != self.name or (sent.out and self.kernel.chance(0.5))
        ]
        self.world.network.look()

    def start(self) -> None:
        """Boot: corosync starts with its file, the engine with the old store from the disk."""
        if self.up:
            return
        self.up, self.booted_ms, self.lost_ms = True, self.kernel.now_ms, 0
        self.world.clocks.set_right(self.name)
        self.trouble_ms = self.kernel.now_ms
        self.boot += 1
        self.sightings = MemorySightings(self.clock)
        self.knows_since_s = self.clock()
        if self.cib.damage:
            self.window = 0
        self.runtime = heartbeat.expected_runtime(self.keys, len(self.world.guests))
        alone = Ring(frozenset({self.name}), self.cib, number=self.ring.number + RING_STEP)
        self.ring = alone
        self.reports = {}
        self.world.ran(self)
        self.kernel.say(
            self.name, "is up, alone; heartbeat timeout %d ms", heartbeat.timeout_ms(self.runtime)
        )
        self.world.daemon_of(self).started()
        self.world.network.look()

    # -- store and reports ---------------------------------------------------------------------------------

    def delivered(self, ring: Ring, cib: Cib) -> None:
        """A write has reached this node's copy."""
        if self.ring is ring and cib.version >= self.cib.version:
            self._take(cib)
            self.world.daemon_of(self).poke(self.kernel.between(10, 40))

    def _take(self, cib: Cib) -> None:
        self.cib = cib
        if self.world.kills:
            delay_ms = self.world.fencer_lag_ms(self)
            self.later(delay_ms, lambda: self._fencer_has(cib))
        if cib.damage:
            return  # nobody can read which window that is; once it is mended the lease goes on, or begins
        number = cib.record.window if cib.record.open else 0
        if number != self.window:
            self.window, self.knows_since_s = number, self.clock()

    def _fencer_has(self, cib: Cib) -> None:
        if cib.version >= self._fencing.version:
            self._fencing = cib
            self.world.daemon_of(self).poke(20)

    def caught_up(self, last: Carried) -> None:
        """What this node wrote, up to `last`, is in its own copy before its own engine answers.

        Where it slept while others carried that out and left it behind, its corosync gives it its own message
        all the same, before that of any later membership (self-delivery of Totem's extended virtual
        synchrony): the write is then made to its own old copy, and refused there as it is anywhere.
        """
        while last in self.carried:
            own = self.carried.pop(0)
            if self.cib.version >= own.after.version:
                continue
            if own.ring is self.ring:
                self.delivered(own.ring, own.after)
            else:
                with contextlib.suppress(Conflict):
                    self._take(own.change(self.cib))
                    self.world.daemon_of(self).poke(self.kernel.between(10, 40))

    def entered(self, ring: Ring, *, synced: bool) -> None:
        """A new membership. The store of those that had left it arrives a second later."""
        daemon = self.world.daemon_of(self)
        if synced:
            daemon.tick()
            return

        def sync() -> None:
            if self.ring is ring:
                if ring.cib.version > self.cib.version:
                    self._take(ring.cib)
                if not self.joined:
                    self.later(self.kernel.between(100, 1500), self._join)
                daemon.poke(20)

        self.later(self.kernel.between(300, 1500), sync)
        daemon.tick()

    def _join(self) -> None:
        self.joined = True

    def heard_of(self, other: Node) -> None:
        """What `other` has published last has arrived."""
        if other.published is not None:
            self.heard(other.published)

    def heard(self, report: Report) -> None:
        """A report has arrived."""
        if report.node in self.ring.members:
            self.reports[report.node] = report
            wakers, self._wakers = self._wakers, []
            for wake in wakers:
                wake(None)

    def changed(self, limit_ms: int) -> Callable[[Callable[[Any], None]], None]:
        """An effect: until some report arrives, at most so long."""

        def effect(resume: Callable[[Any], None]) -> None:
            self._wakers.append(resume)
            self.later(limit_ms, lambda: resume(None))

        return effect

    # -- corosync ------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Take the values of the file as it is now. Knet defaults lag one reload behind, as measured."""
        if self.deaf > 0:
            self.deaf -= 1
            self.kernel.say(self.name, "its corosync ignores the reload")
            return
        before = self.runtime
        after = heartbeat.expected_runtime(self.keys, len(self.world.guests))
        pongs = int(self.keys.get(heartbeat.PONG_COUNT, 0)) or 2
        if not self.keys.get(heartbeat.PING_INTERVAL):
            after["knet_ping_interval"] = before["token"] // (pongs * 2)
        if not self.keys.get(heartbeat.PING_TIMEOUT):
            after["knet_ping_timeout"] = before["token"] // pongs
        if after != before:
            self.runtime = after
            old, new = heartbeat.timeout_ms(before), heartbeat.timeout_ms(after)
            if old != new:
                self.kernel.say(self.name, "heartbeat timeout %d -> %d ms", old, new)
            self.world.ran(self, old, new)
            self.world.daemon_of(self).values()
