"""What goes wrong in a run: each fault begins, lasts, and is over at the latest when everything is mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from standfast.core.evidence import GuestState
from standfast.core.topology import Level
from standfast.sim.store import Cib, levels

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

LENGTHS_MS = ((100, 2_000), (3_000, 15_000), (15_000, 60_000), (60_000, 300_000))


class Faults:
    """The faults of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.happened: list[str] = []
        self.mended = False
        self.kinds: tuple[tuple[str, Callable[[], None]], ...] = (
            ("freeze", self.freeze),
            ("freeze", self.freeze),
            ("crash", self.crash),
            ("power off", self.power_off),
            ("hang", self.hang),
            ("partition", self.partition),
            ("daemon", self.daemon),
            ("silent", self.silence),
            ("lie", self.lie),
            ("lie", self.lie),
            ("kill", self.kill_command),
            ("kill", self.kill_command),
            ("file", self.file),
            ("deaf", self.deaf),
            ("structure", self.structure),
            ("topology", self.topology),
            ("unrelated", self.unrelated),
            ("damage", self.damage),
            ("facility", self.facility),
            ("move", self.move),
            ("host", self.host),
        )

    def one(self) -> None:
        """Something, now."""
        if self.mended:
            return
        name, do = self.kernel.rng.choice(self.kinds)
        self.happened.append(name)
        self.touched()
        do()

    def touched(self) -> None:
        """Somebody has interfered."""
        self.world.clean_since_ms = self.kernel.now_ms

    def _lasts(self, end: Callable[[], None]) -> None:
        length_ms = self.kernel.between(*self.kernel.rng.choice(LENGTHS_MS))

        def over() -> None:
            if not self.mended:
                self.touched()
                end()

        self.kernel.at(length_ms, over)

    def _node(self) -> Node:
        return self.world.nodes[self.kernel.rng.choice(list(self.world.nodes))]

    # -- nodes ---------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        node = self._node()
        node.stand("freeze", True)
        self._lasts(lambda: node.stand("freeze", False))

    def crash(self) -> None:
        guest = self.world.guest_of(self._node().name)
        if guest.os_alive:
            self.world.site.kill(guest, "panic")
            self.world.site.reboot(guest)

    def power_off(self) -> None:
        guest = self.world.guest_of(self._node().name)
        if guest.os_alive:
            self.world.site.kill(guest, "power off", power=False)

    def hang(self) -> None:
        node = self._node()
        guest = self.world.guest_of(node.name)
        if guest.os_alive:
            guest.hung = True
            node.stand("hang", True)

    def partition(self) -> None:
        names = list(self.world.nodes)
        cut = self.kernel.rng.sample(names, self.kernel.rng.randint(1, max(1, len(names) // 2)))
        for name in cut:
            self.world.network.side[name] = 1
        sides = [self.world.network.side[name] for name in names]
        for name, side in zip(names, sides, strict=True):
            # Where two cuts overlap those that are left behind are the ones that are lost.
            if name in cut or sides.count(side) * 2 <= len(names):
                self.world.nodes[name].last_loss = "partition"
        for node in self.world.nodes.values():
            node.trouble_ms = self.kernel.now_ms
        self.kernel.say("network", "cut off: %s", " ".join(cut))
        self.world.network.look()
        self._lasts(lambda: self.join(list(self.world.nodes)))

    def cut_off(self, name: str) -> None:
        """One of three or more is cut off: trouble of its own only."""
        self.happened.append("cut off")
        self.touched()
        node = self.world.nodes[name]
        self.world.network.side[name] = 1
        node.last_loss, node.trouble_ms = "partition", self.kernel.now_ms
        self.kernel.say("network", "cut off: %s", name)
        self.world.network.look()

    def join(self, troubled: list[str]) -> None:
        """The network is whole again. `troubled`: who may not be well because of it."""
        self.touched()
        self.kernel.say("network", "whole again")
        for name, node in self.world.nodes.items():
            self.world.network.side[name] = 0
            if name in troubled:
                node.trouble_ms = self.kernel.now_ms
        self.world.network.look()

    def daemon(self) -> None:
        daemon = self.world.daemon_of(self._node())
        daemon.die()
        self._lasts(lambda: None if daemon.alive else daemon.started())

    def daemons(self, names: list[str]) -> None:
        """These nodes' daemons are dead until somebody starts them: their gates see for themselves."""
        self.happened.append("daemons")
        self.touched()
        for name in names:
            self.world.daemons[name].die()

    def facility(self) -> None:
        node = self._node()
        node.facility = "stopped"
        self.world.daemon_of(node).poke(50)
        self._lasts(lambda: setattr(node, "facility", "running"))

    # -- hosts ---------------------------------------------------------------------------------------------

    def silence(self) -> None:
        name = self.kernel.rng.choice(list(self.world.site.hosts))
        entry = self.world.site.hosts[name]
        entry.silent_until_ms = self.kernel.now_ms + self.kernel.between(*self.kernel.rng.choice(LENGTHS_MS))
        self.kernel.say(name, "is silent")

    def lie(self) -> None:
        """One wrong answer: two in a row, the same way, is what no proof can survive."""
        for entry in self.world.site.hosts.values():
            if self.kernel.chance(0.6):
                entry.lies = 1
                entry.lie = self.kernel.rng.choice(
                    (GuestState.ABSENT, GuestState.ABSENT, GuestState.STOPPED, GuestState.RUNNING)
                )

    def host(self) -> None:
        """A host dies with all that runs there, and comes back without it."""
        site = self.world.site
        name = self.kernel.rng.choice(list(site.hosts))
        self.kernel.say(name, "dies")
        until_ms = self.kernel.now_ms + self.kernel.between(20_000, 200_000)
        if self.world.kills:
            site.lose(name, until_ms)
            return
        site.hosts[name].silent_until_ms = until_ms
        for guest in site.guests.values():
            if guest.host == name and guest.power:
                site.kill(guest, f"{name} is dead", power=False)

    def move(self) -> None:
        """Somebody moves a guest without a word."""
        guest = self.world.guest_of(self._node().name)
        target = self.kernel.rng.choice([name for name in self.world.site.hosts if name != guest.host])
        outcome = self.kernel.rng.choice(("moved", "moved", "cancelled", "failed"))
        self.world.move(guest, target, outcome, announced=False)

    # -- operators -----------------------------------------------------------------------------------------

    def kill_command(self) -> None:
        for node in self.world.nodes.values():
            if node.commanding is not None and node.commanding.alive:
                self.kernel.say(node.name, "its command is killed")
                node.commanding.kill()
                self.world.daemon_of(node).poke(30)
                return

    def file(self) -> None:
        node = self._node()
        node.file_trouble = "read-only"
        self._lasts(lambda: setattr(node, "file_trouble", ""))

    def deaf(self) -> None:
        self._node().deaf = 1

    def structure(self) -> None:
        node = self._node()
        node.structure = "edited by hand"
        self.kernel.say(node.name, "an operator edits corosync.conf")
        self.world.daemon_of(node).poke(50)

    def edit(self, change: Callable[[Cib], Cib], what: str) -> None:
        """A write of an operator's own."""
        node = self._node()
        if node.running:
            self.kernel.say(node.name, "an operator: %s", what)
            self.world.network.write(node, change, what, 20_000)(lambda result: None)

    def unrelated(self) -> None:
        self.edit(lambda cib: replace(cib, version=cib.version + 1), "writes something of his own")

    def topology(self) -> None:
        """A level loses its real device: a gate alone would be a success."""
        target = self._node().name
        one = [Level(level.index, level.devices[:1]) for level in levels(target)]
        self.world.edited = True
        if self.world.guarded and self.kernel.chance(0.5):
            # Somebody loads the configuration of before the window, all but the record.
            self.edit(
                lambda cib: replace(
                    cib,
                    version=cib.version + 1,
                    guarded=frozenset(),
                    levels={name: levels(name) for name in cib.levels},
                ),
                "loads the fencing of before the window",
            )
            return
        self.edit(
            lambda cib: replace(cib, version=cib.version + 1, levels={**cib.levels, target: tuple(one)}),
            f"takes the devices out of the levels of {target}",
        )

    def damage(self) -> None:
        """Somebody's hand in the record: it cannot be read, and is put right later."""
        self.world.edited = True
        self.edit(lambda cib: replace(cib, version=cib.version + 1, damage="damaged"), "damages the record")
        self._lasts(self._undo_damage)

    def _undo_damage(self) -> None:
        self.edit(lambda cib: replace(cib, version=cib.version + 1, damage=""), "puts the record right")

    # -- the end -------------------------------------------------------------------------------------------

    def mend(self) -> None:
        """Everything is put right, as the runbook has it."""
        self.mended = True
        world, site = self.world, self.world.site
        self.kernel.say("story", "everything is put right")
        world.clocks.mended()
        for entry in site.hosts.values():
            entry.silent_until_ms, entry.lies, entry.off_until_ms = -1, 0, -1
        for name in world.nodes:
            world.network.side[name] = 0
        for name, node in world.nodes.items():
            node.stand("freeze", False)
            guest = world.guest_of(name)
            if guest.hung or guest.half_moved:
                site.kill(guest, "ended by hand")
            if not guest.os_alive:
                self.kernel.at(1_000, lambda guest=guest: site.boot(guest))  # type: ignore[misc]
            node.file_trouble, node.deaf = "", 0
            node.facility = "running"
            if node.up and not world.daemons[name].alive:
                world.daemons[name].started()
            else:
                world.daemons[name].poke(100)
        world.network.look()

    def mend_store(self) -> None:
        """What operators had changed in the store, once there is one membership again."""
        main = self.world.main_ring()
        if main is not None and main.cib.record.open:
            # CONF_CHANGED says: put it back as it was.
            for name, old in main.cib.record.old.items():
                self.world.nodes[name].structure = old.structure
                self.world.daemons[name].poke(50)
        if self.world.edited:
            for ring in [self.world.main_ring()]:
                if ring is not None and (
                    ring.cib.damage or any(ring.cib.levels[n] != levels(n) for n in self.world.nodes)
                ):
                    self.edit(
                        lambda cib: replace(
                            cib,
                            version=cib.version + 1,
                            damage="",
                            guarded=frozenset(),
                            levels={name: levels(name) for name in cib.levels},
                        ),
                        "puts the store right",
                    )
