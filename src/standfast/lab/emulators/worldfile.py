"""The world file (JSON): what is emulated. Read strictly, written for figure 14.1 and for N nodes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import asyncssh
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from standfast.lab.emulators import spconfig
from standfast.lab.emulators.model import (
    FACTORY,
    GIB,
    BootPolicy,
    Domain,
    Host,
    State,
    Status,
    Timing,
)
from standfast.lab.emulators.site import User
from standfast.lab.emulators.world import World

INITIAL_CONFIG = "initial"
OLD_GUESTS_SECONDS = 86_400.0

Seconds = Annotated[float, Field(ge=0, le=86_400)]


class WorldFileError(Exception):
    """The world file cannot be used; the text names file, place and cause."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimingFile(_Strict):
    panicking_seconds: Seconds = Timing.panicking_seconds
    rebooting_seconds: Seconds = Timing.rebooting_seconds
    openboot_seconds: Seconds = Timing.openboot_seconds
    booting_seconds: Seconds = Timing.booting_seconds
    halting_seconds: Seconds = Timing.halting_seconds
    power_on_seconds: Seconds = Timing.power_on_seconds
    migration_seconds: Seconds = Timing.migration_seconds
    blackout_seconds: Seconds = Timing.blackout_seconds
    scrub_seconds: Seconds = Timing.scrub_seconds


class UserFile(_Strict):
    name: str
    password: str
    privileges: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    writes: bool = True


class DomainFile(_Strict):
    name: str
    cpus: int = 8
    memory_gib: int = 16
    boot: BootPolicy = "auto"
    machine: str | None = None
    state: State = State.ACTIVE


class HostFile(_Strict):
    name: str
    address: str
    xscf_lan0: str
    xscf_lan1: str
    ppar_id: int = Field(ge=0, le=15)
    key: str
    xscf_key: str
    cpus: int = 64
    memory_gib: int = 256
    save_after_migration: bool = False
    kex: tuple[str, ...] = ()
    """Key exchanges that the XSCF offers; empty for all. Old service processors have few."""
    domains: tuple[DomainFile, ...] = ()


class WorldFile(_Strict):
    format: int = Field(ge=1, le=1)
    port: int = Field(22, ge=0, le=65535)
    """For all endpoints; 0 takes a free one for each."""
    lab: str | None = None
    """The lab whose nodes are behind the domains; none: nothing is."""
    xscf_dialect: str | None = None
    ldm_dialect: str | None = None
    autologout_seconds: Seconds = 600.0
    timing: TimingFile = TimingFile()
    xscf_users: tuple[UserFile, ...]
    control_users: tuple[UserFile, ...]
    hosts: tuple[HostFile, ...]


def read(path: Path) -> WorldFile:
    """Raises WorldFileError."""
    try:
        return WorldFile.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise WorldFileError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise WorldFileError(f"{path}: " + "; ".join(lines)) from error


def world_of(file: WorldFile, now: float) -> World:
    """All domains run and every host's configuration is saved: a site at rest."""
    hosts = [_host(entry, now) for entry in file.hosts]
    return World(hosts, Timing(**file.timing.model_dump()))


def _host(entry: HostFile, now: float) -> Host:
    host = Host(entry.name, entry.ppar_id, entry.cpus, entry.memory_gib * GIB, entry.save_after_migration)
    began = now - OLD_GUESTS_SECONDS
    control = Domain("primary", cpus=8, control=True)
    host.domains.append(control)
    control.state, control.status, control.started = State.ACTIVE, Status.SOLARIS_RUNNING, began
    spconfig.save(host, FACTORY, now)
    for guest in entry.domains:
        domain = Domain(guest.name, guest.state, cpus=guest.cpus, memory_bytes=guest.memory_gib * GIB)
        domain.boot, domain.machine = guest.boot, guest.machine
        if guest.state is State.ACTIVE:
            domain.status, domain.started = Status.SOLARIS_RUNNING, began
        host.domains.append(domain)
    spconfig.save(host, INITIAL_CONFIG, now)
    return host


def users_of(entries: tuple[UserFile, ...]) -> dict[str, User]:
    return {u.name: User(u.name, u.password, u.privileges, u.keys, u.writes) for u in entries}


# --- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What a client of the written world needs."""

    world: Path
    client_key: Path
    known_hosts: Path
    """Written here for fixed ports; with free ports ask the running emulators."""
    xscf_user: str
    xscf_password: str
    control_user: str
    control_password: str


def write(
    directory: Path,
    nodes: int = 2,
    *,
    lab: str | None = None,
    loopback: bool = False,
    timing: dict[str, float] | None = None,
) -> Written:
    """Writes keys and a world for figure 14.1 (two nodes), or the same for N.

    Node cfguestK is domain guestK on host ctrlK; one more host is free for a move. On each host runs a
    bystander, app7K, which a stale name map can hit.

    Args:
        lab: id of the lab whose nodes are the guests.
        loopback: addresses in 127.0.0.0/8 and free ports, for tests.
        timing: durations that differ from the defaults of `Timing`, in seconds.
    """
    directory.mkdir(parents=True, exist_ok=True)
    client = asyncssh.generate_private_key("ssh-ed25519", comment="standfast lab")
    client_key = directory / "client.key"
    _secret(client_key, client.export_private_key("openssh"))
    public = client.export_public_key("openssh").decode().strip()
    xscf_password, control_password = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
    hosts = [_host_entry(directory, k, nodes, loopback) for k in range(1, nodes + 2)]
    file = WorldFile(
        format=1,
        port=0 if loopback else 22,
        lab=lab,
        timing=TimingFile(**(timing or {})),
        xscf_users=(
            UserFile(name="xuser", password=xscf_password, privileges=("platadm",)),
            UserFile(name="viewer", password=xscf_password, privileges=("platop",)),
        ),
        control_users=(
            UserFile(name="standfast", password=control_password, keys=(public,)),
            UserFile(name="reader", password=control_password, keys=(public,), writes=False),
        ),
        hosts=tuple(hosts),
    )
    world = directory / "world.json"
    _secret(world, file.model_dump_json(indent=1).encode())
    known = directory / "known_hosts"
    if not loopback:
        known.write_text("".join(known_hosts_lines(file, lambda _host, _endpoint: 22)))
    return Written(world, client_key, known, "xuser", xscf_password, "standfast", control_password)


def _secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _host_entry(directory: Path, k: int, nodes: int, loopback: bool) -> HostFile:
    keys = []
    for name in (f"ctrl{k}.key", f"xscf{k}.key"):
        _secret(directory / name, asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
        keys.append(str(directory / name))
    net = ("127.0.50", "127.0.30", "127.0.40") if loopback else ("10.20.50", "10.20.30", "10.20.40")
    guests = [DomainFile(name=f"app{70 + k}")]
    if k <= nodes:
        guests.insert(0, DomainFile(name=f"guest{k}", machine=f"cfguest{k}"))
    return HostFile(
        name=f"ctrl{k}",
        address=f"{net[0]}.{70 + k}",
        xscf_lan0=f"{net[1]}.{70 + k}",
        xscf_lan1=f"{net[2]}.{70 + k}",
        ppar_id=1 if k > nodes else 0,
        key=keys[0],
        xscf_key=keys[1],
        domains=tuple(guests),
    )


def known_hosts_lines(file: WorldFile, port_of: Callable[[str, str], int]) -> list[str]:
    """Lines of an OpenSSH known_hosts file for every endpoint."""
    lines = []
    for host in file.hosts:
        for endpoint, address in (
            ("ldm", host.address),
            ("lan0", host.xscf_lan0),
            ("lan1", host.xscf_lan1),
        ):
            key = asyncssh.read_private_key(host.key if endpoint == "ldm" else host.xscf_key)
            public = " ".join(key.export_public_key("openssh").decode().split()[:2])
            port = port_of(host.name, endpoint)
            names = [address, host.name] if endpoint == "ldm" else [address]
            marks = [name if port == 22 else f"[{name}]:{port}" for name in names]
            lines.append(f"{','.join(marks)} {public}\n")
    return lines
