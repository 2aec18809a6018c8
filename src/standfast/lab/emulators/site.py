"""One running site: the world, what is wrong with it on purpose, the record, and who is behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from standfast.lab.emulators.dialect import Dialect
from standfast.lab.emulators.faults import FaultBook
from standfast.lab.emulators.log import CommandLog
from standfast.lab.emulators.machines import Machines
from standfast.lab.emulators.model import Effect
from standfast.lab.emulators.world import World

LONGEST_SLEEP_SECONDS = 1.0
MACHINE_LIMIT_SECONDS = 30.0


@dataclass(frozen=True)
class User:
    """An account; `keys` are lines of an authorized_keys file, `privileges` are the XSCF's names."""

    name: str
    password: str
    privileges: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    writes: bool = True


@dataclass
class Site:
    world: World
    machines: Machines
    log: CommandLog
    xscf_dialect: Dialect
    ldm_dialect: Dialect
    xscf_users: dict[str, User]
    control_users: dict[str, User]
    autologout_seconds: float
    addresses: dict[str, str]
    """Control domain address or name -> host name, for `ldm migrate-domain`."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Small files on control domains: host -> path -> text."""
    faults: FaultBook = field(default_factory=FaultBook)
    wall_offset: float = field(default_factory=lambda: time.time() - time.monotonic())
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def fresh(self) -> float:
        """Brings the world up to now, and answers now (monotonic seconds)."""
        now = time.monotonic()
        self.world.advance(now)
        return now

    def changed(self) -> None:
        """Somebody acted on the world: effects and timers have to be looked at."""
        self._wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once the world fulfils a condition. The caller sets the limit."""
        while not condition():
            await self.next_change()

    async def next_change(self) -> None:
        """Returns after the world was looked at again, at the latest after LONGEST_SLEEP_SECONDS."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def drive(self) -> None:
        """Lets time go on, for good: due changes, and their effects on real nodes in their order."""
        while True:
            self._wake.clear()
            self.fresh()
            for effect in self.world.take_effects():
                await self._carry_out(effect)
            await self._look_at_machines()
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
            due = self.world.next_event()
            pause = LONGEST_SLEEP_SECONDS if due is None else due - time.monotonic()
            try:
                async with asyncio.timeout(min(max(pause, 0.0), LONGEST_SLEEP_SECONDS)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _carry_out(self, effect: Effect) -> None:
        acts = {
            "freeze": self.machines.freeze,
            "thaw": self.machines.thaw,
            "power_off": self.machines.power_off,
            "power_on": self.machines.power_on,
        }
        begun = time.monotonic()
        try:
            async with asyncio.timeout(MACHINE_LIMIT_SECONDS):
                await acts[effect.kind](effect.machine)
        except Exception as error:  # a node that cannot be driven must not stop the hosts
            self.log.add("machine-error", machine=effect.machine, action=effect.kind, error=repr(error))
            return
        seconds = round(time.monotonic() - begun, 4)
        self.log.add("machine", machine=effect.machine, action=effect.kind, seconds=seconds)

    async def _look_at_machines(self) -> None:
        names = {d.machine for h in self.world.hosts.values() for d in h.domains if d.machine and d.alive}
        names |= {d.machine for h in self.world.hosts.values() for d in h.domains if d.machine and d.lost}
        for name in sorted(names):
            try:
                async with asyncio.timeout(MACHINE_LIMIT_SECONDS):
                    alive = await self.machines.alive(name)
            except Exception as error:
                self.log.add("machine-error", machine=name, action="alive", error=repr(error))
                continue
            self.world.machine_seen(name, alive, time.monotonic())
