"""The world behind all emulators: hosts, domains, and what happens to them as time goes on.

Rules of this file:
* no I/O and no clock: every method takes `now` (seconds, any monotonic scale);
* `advance(now)` carries out all that is due and has to be called before anything is read;
* what must happen to real nodes is queued as `Effect`s and taken with `take_effects()`;
* a refused action raises `WorldError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from standfast.lab.emulators import migration, spconfig
from standfast.lab.emulators.model import (
    Domain,
    Effect,
    Host,
    Migration,
    Phase,
    Power,
    State,
    Status,
    Timing,
    WorldError,
)

MAX_STEPS_PER_ADVANCE = 10_000

Action = Literal["panic", "sir"]


class World:
    """All hosts of one site. Not thread-safe; one event loop owns it."""

    def __init__(self, hosts: Iterable[Host], timing: Timing) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.timing = timing
        self.migrations: list[Migration] = []
        self.doubles: list[str] = []
        self._effects: list[Effect] = []

    # --- looking -----------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        """Raises WorldError no-such-host."""
        if name not in self.hosts:
            raise WorldError("no-such-host", name=name)
        return self.hosts[name]

    def domain(self, host: str, name: str) -> Domain:
        """Raises WorldError no-such-domain."""
        found = self.host(host).find(name)
        if found is None:
            raise WorldError("no-such-domain", name=name)
        return found

    def running_on(self, name: str) -> list[str]:
        """Hosts on which a copy of the domain is alive: more than one is a disaster."""
        return [h.name for h in self.hosts.values() if (d := h.find(name)) is not None and d.alive]

    def migration_of(self, name: str) -> Migration | None:
        """The migration that is under way (or lost, phase LOST) for a domain."""
        open_phases = (Phase.COPYING, Phase.BLACKOUT, Phase.LOST)
        return next((m for m in self.migrations if m.name == name and m.phase in open_phases), None)

    # --- time --------------------------------------------------------------------------------

    def next_event(self) -> float | None:
        """When the world changes next by itself; None while nothing is under way."""
        times = [d.script[0][0] for h in self.hosts.values() for d in h.domains if d.script]
        times += [h.power_at for h in self.hosts.values() if h.power_at is not None]
        times += [t for m in self.migrations if (t := migration.due(m)) is not None]
        return min(times, default=None)

    def advance(self, now: float) -> None:
        """Carries out everything that is due, in the order of its time."""
        for _ in range(MAX_STEPS_PER_ADVANCE):
            due = self.next_event()
            if due is None or due > now:
                return
            self._step(due)
        raise RuntimeError("the emulated world does not come to rest")

    def _step(self, due: float) -> None:
        for current in self.migrations:
            if migration.due(current) == due:
                migration.step(self, current, due)
                return
        for host in self.hosts.values():
            if host.power_at == due:
                self._powered(host, due)
                return
            for domain in host.domains:
                if domain.script and domain.script[0][0] == due:
                    self._enter(host, domain, domain.script.pop(0)[1], due)
                    return

    def _enter(self, host: Host, domain: Domain, status: Status, now: float) -> None:
        domain.status = status
        if status is Status.HOST_STOPPED:
            domain.state = State.BOUND
            self.affect("power_off", domain)
        elif status is Status.SOLARIS_BOOTING:
            if [other for other in self.running_on(domain.name) if other != host.name]:
                self.doubles.append(domain.name)
            else:
                self.affect("power_on", domain)
        elif status is Status.SOLARIS_RUNNING:
            domain.started = now

    # --- real nodes --------------------------------------------------------------------------

    def affect(self, kind: Literal["freeze", "thaw", "power_off", "power_on"], domain: Domain) -> None:
        if domain.machine is not None:
            self._effects.append(Effect(kind, domain.machine))

    def take_effects(self) -> list[Effect]:
        taken, self._effects = self._effects, []
        return taken

    def machine_seen(self, machine: str, alive: bool, now: float) -> None:
        """The real node died or came up without us: the domain follows it."""
        for host in self.hosts.values():
            for domain in host.domains:
                if domain.machine != machine:
                    continue
                if not alive and domain.status is Status.SOLARIS_RUNNING:
                    migration.source_died(self, domain)
                    domain.hung = False
                    domain.state, domain.status, domain.lost = State.BOUND, Status.HOST_STOPPED, True
                elif alive and domain.lost and domain.state is State.BOUND:
                    domain.state, domain.status, domain.lost = State.ACTIVE, Status.SOLARIS_RUNNING, False
                    domain.started = now

    # --- guests ------------------------------------------------------------------------------

    def act(self, host: str, name: str, action: Action, now: float) -> bool:
        """Panics or resets a domain; False where it is down and nothing happens."""
        domain = self.domain(host, name)
        if domain.incoming:
            self.stop(host, name, now, force=True)
            return True
        if domain.state in (State.INACTIVE, State.BOUND):
            return False
        if migration.source_died(self, domain):
            return True
        t = self.timing
        down = [(0.0, Status.SOLARIS_PANICKING), (t.panicking_seconds, Status.SOLARIS_REBOOTING)]
        begin = down if action == "panic" else []
        self.affect("power_off", domain)
        domain.hung = False
        domain.state, domain.lost = State.ACTIVE, False
        offset = t.panicking_seconds + t.rebooting_seconds if action == "panic" else 0.0
        self._run(domain, now, begin + self._boot(offset, domain))
        self.advance(now)
        return True

    def _boot(self, offset: float, domain: Domain) -> list[tuple[float, Status]]:
        """From OpenBoot to a running Solaris, as far as the domain's boot policy goes."""
        if domain.boot == "stopped":
            return [(offset, Status.HOST_STOPPED)]
        part = self.timing.openboot_seconds
        steps = [(offset, Status.OPENBOOT_INITIALIZING), (offset + part, Status.OPENBOOT_RUNNING)]
        if domain.boot == "prompt":
            return steps
        return [
            *steps,
            (offset + 2 * part, Status.OPENBOOT_PRIMARY_BOOT_LOADER),
            (offset + 3 * part, Status.OPENBOOT_RUNNING_OS_BOOT),
            (offset + 4 * part, Status.SOLARIS_BOOTING),
            (offset + 4 * part + self.timing.booting_seconds, Status.SOLARIS_RUNNING),
        ]

    def _run(self, domain: Domain, now: float, steps: list[tuple[float, Status]]) -> None:
        domain.script = [(now + offset, status) for offset, status in steps]

    def stop(self, host: str, name: str, now: float, force: bool = False) -> None:
        """`ldm stop-domain`. Raises WorldError: no-such-domain, control-domain, not-active."""
        domain = self.domain(host, name)
        if domain.control:
            raise WorldError("control-domain", name=name)
        if domain.incoming:
            migration.target_destroyed(self, name)
            return
        if domain.state in (State.INACTIVE, State.BOUND):
            raise WorldError("not-active", name=name)
        if migration.source_died(self, domain):
            return
        domain.lost = False
        if force or domain.hung or domain.status is not Status.SOLARIS_RUNNING:
            domain.hung, domain.script = False, []
            self._enter(self.host(host), domain, Status.HOST_STOPPED, now)
            return
        domain.state = State.STOPPING
        halting = self.timing.halting_seconds
        self._run(domain, now, [(0.0, Status.SOLARIS_HALTING), (halting, Status.HOST_STOPPED)])
        self.advance(now)

    def start(self, host: str, name: str, now: float) -> None:
        """`ldm start-domain`. Raises WorldError: no-such-domain, already-active, not-bound."""
        domain = self.domain(host, name)
        if domain.alive:
            raise WorldError("already-active", name=name)
        if domain.state is not State.BOUND or domain.incoming:
            raise WorldError("not-bound", name=name)
        domain.state, domain.lost, domain.started = State.ACTIVE, False, now
        if domain.boot == "stopped":
            domain.status = Status.OPENBOOT_RUNNING
        else:
            self._run(domain, now, self._boot(0.0, domain))
        self.advance(now)

    def unbind(self, host: str, name: str) -> None:
        """`ldm unbind-domain`. Raises WorldError: no-such-domain, not-bound."""
        domain = self.domain(host, name)
        if domain.state is not State.BOUND or domain.incoming:
            raise WorldError("not-bound", name=name)
        domain.state = State.INACTIVE

    def bind(self, host: str, name: str) -> None:
        """`ldm bind-domain`. Raises WorldError: no-such-domain, already-bound."""
        domain = self.domain(host, name)
        if domain.state is not State.INACTIVE:
            raise WorldError("already-bound", name=name)
        domain.state = State.BOUND

    def hang(self, host: str, name: str, hung: bool = True) -> None:
        """The guest stops answering for good; hypervisor and XSCF go on calling it running."""
        domain = self.domain(host, name)
        domain.hung = hung
        self.affect("freeze" if hung else "thaw", domain)

    # --- hosts -------------------------------------------------------------------------------

    def power_off(self, host: str, now: float, crashed: bool = False) -> None:
        """The whole PPAR goes: at once, with everything on it."""
        this = self.host(host)
        migration.host_died(self, host, now)
        this.power, this.power_at = (Power.ABORTED if crashed else Power.OFF), None
        for domain in this.domains:
            domain.script = []
            if domain.alive and not domain.incoming:
                self.affect("power_off", domain)
            domain.state = State.BOUND if domain.state is not State.INACTIVE else State.INACTIVE
            domain.status, domain.hung, domain.lost, domain.mark = Status.HOST_STOPPED, False, False, "-"

    def power_on(self, host: str, now: float) -> None:
        """Starts the PPAR from the configuration chosen for the next power-on."""
        this = self.host(host)
        if this.power in (Power.RUNNING, Power.INITIALIZING):
            raise WorldError("already-on", name=host)
        this.power, this.power_at = Power.INITIALIZING, now + self.timing.power_on_seconds
        self.advance(now)

    def _powered(self, host: Host, now: float) -> None:
        host.power, host.power_at, host.current = Power.RUNNING, None, host.next_poweron
        host.domains = []
        for saved in host.configs[host.current].domains:
            domain = Domain(
                saved.name, State.BOUND, cpus=saved.cpus, memory_bytes=saved.memory_bytes, boot=saved.boot
            )
            domain.machine, domain.control = saved.machine, saved.control
            host.domains.append(domain)
            if saved.control:
                domain.state, domain.status, domain.started = State.ACTIVE, Status.SOLARIS_RUNNING, now
            elif saved.active:
                self.start(host.name, saved.name, now)

    # --- saved configurations ----------------------------------------------------------------

    def save(self, host: str, name: str, now: float) -> None:
        spconfig.save(self.host(host), name, now)
