"""What `ldm list-domain` prints, for people and for programs."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from standfast.lab.emulators.dialect import Dialect
from standfast.lab.emulators.model import GIB, Domain, Host, Phase, State
from standfast.lab.emulators.world import World

_NAMESPACE = uuid.UUID("8f9a3c52-6c0e-4d5c-9f5b-2a8c6a1d0e11")


class Lister:
    """Listings of one host at one instant."""

    def __init__(self, world: World, host: Host, say: Dialect, xscf: Dialect, now: float) -> None:
        self._world, self._host, self._say, self._xscf, self._now = world, host, say, xscf, now

    def table(self, domains: Sequence[Domain], machine: bool, long: bool) -> str:
        """`ldm list-domain`, with -p (machine) and -l (long)."""
        if machine:
            rows = [self._machine_row(domain, long) for domain in domains]
            return self._say.text("list.version") + "".join(rows)
        header = self._say.text("list.header")
        if not long:
            return header + "".join(self._row(domain) for domain in domains)
        return "\n".join(header + self._row(domain) + self._long(domain) for domain in domains)

    def _row(self, domain: Domain) -> str:
        runs = domain.alive or domain.state is State.SUSPENDED
        return self._say.text(
            "list.row",
            name=domain.name,
            state=domain.state.value,
            flags=domain.flags(),
            cons=self._console(domain),
            cpus=domain.cpus,
            memory=f"{domain.memory_bytes // GIB}G",
            util="0.4%" if runs else "",
            norm="0.4%" if runs else "",
            uptime=_uptime(self._now - domain.started) if runs else "",
        )

    def _machine_row(self, domain: Domain, long: bool) -> str:
        runs = domain.alive or domain.state is State.SUSPENDED
        more = ""
        if long and runs:
            more = self._say.text("list.softstate_machine", status=self._softstate(domain))
        row = self._say.text(
            "list.machine",
            name=domain.name,
            state=domain.state.value,
            flags=_words(domain) if long else domain.flags(),
            cons=self._console(domain),
            cpus=domain.cpus,
            bytes=domain.memory_bytes,
            util="0.4" if runs else "",
            uptime=int(self._now - domain.started) if runs else "",
            more=more,
        )
        if not long:
            return row
        identity = uuid.uuid5(_NAMESPACE, domain.machine or f"{domain.name}")
        status = self._status(domain, machine=True)
        return row + self._say.text("list.uuid_machine", uuid=identity) + status

    def _long(self, domain: Domain) -> str:
        text = self._status(domain, machine=False)
        if domain.alive:
            text = self._say.text("list.softstate", status=self._softstate(domain)) + text
        return text

    def _softstate(self, domain: Domain) -> str:
        return self._xscf.text(f"status.{domain.status.value}")

    def _console(self, domain: Domain) -> str:
        if domain.control:
            return "UART"
        if domain.state is State.INACTIVE:
            return ""
        return str(5000 + self._host.domains.index(domain))

    def status(self, domains: Sequence[Domain], machine: bool) -> str:
        """`ldm list-domain -o status`: the STATUS part is there only while a migration is."""
        if machine:
            parts = [
                self._say.text("list.status_machine_name", name=d.name) + self._status(d, True)
                for d in domains
            ]
            return self._say.text("list.version") + "".join(parts)
        parts = [self._say.text("list.status_name", name=d.name) + self._status(d, False) for d in domains]
        return "\n".join(parts)

    def _status(self, domain: Domain, machine: bool) -> str:
        current = self._world.migration_of(domain.name)
        here = self._host.name
        if current is None or here not in (current.source, current.target) or domain.mark == "-":
            return ""
        progress = current.progress(self._now)
        kind = "source" if here == current.source else "target"
        peer = current.target if kind == "source" else current.source
        if machine:
            error = "yes" if current.phase is Phase.LOST else "no"
            return self._say.text(f"list.status_machine_{kind}", progress=progress, error=error, peer=peer)
        return self._say.text(f"list.status_{kind}", progress=f"{progress}%", peer=peer)


def _words(domain: Domain) -> str:
    """FLAGS as words, as `-l -p` has them."""
    second = {"n": "normal", "t": "transition"}
    flags = domain.flags()
    words = [second[flags[1]]] if flags[1] in second else []
    words += ["control", "vio-service"] if domain.control else []
    words += ["stopping"] if flags[0] == "s" else []
    last = {"s": "migration-source", "t": "migration-target", "e": "migration-error"}
    return ",".join(words + ([last[flags[5]]] if flags[5] in last else []))


def _uptime(seconds: float) -> str:
    minutes, hours, days = int(seconds) // 60 % 60, int(seconds) // 3600 % 24, int(seconds) // 86400
    if days:
        return f"{days}d {hours}h {minutes}m"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m"
