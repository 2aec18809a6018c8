"""Saved domain configurations, and how the XSCF finds a domain through them.

Two tables. The hypervisor has the list of domains as they are. The XSCF has the list of names of the
configuration that was saved last, followed by names that only the hypervisor has reported. It passes
the POSITION of a name down, so it hits the right domain only while both lists agree. A domain that
arrives goes to the front of the hypervisor's guests, one that leaves closes the gap: after a migration
the lists differ on both machines until `ldm add-spconfig` was run there.

That much is documented (SPARC M12/M10 notes C120-0105, 3.1.5: Unknown on the destination, Host stopped
on the source, reset may hit another guest, on both). That it happens by position is our model of it.
"""

from __future__ import annotations

from standfast.lab.emulators.model import (
    FACTORY,
    Domain,
    Host,
    Power,
    SavedConfig,
    SavedDomain,
    State,
    Status,
    WorldError,
)

MAX_CONFIGS = 8
"""With factory-default. Recalled for M10, not confirmed by a manual."""

POST_MIGRATION = "@post-migration"
"""Oracle VM Server for SPARC 3.5: saved by both machines themselves."""


def _picture(host: Host) -> tuple[SavedDomain, ...]:
    return tuple(
        SavedDomain(d.name, d.alive, d.cpus, d.memory_bytes, d.boot, d.machine, d.control)
        for d in bound_domains(host)
    )


def bound_domains(host: Host) -> list[Domain]:
    """The hypervisor's list, in its order."""
    return [domain for domain in host.domains if domain.state is not State.INACTIVE]


def save(host: Host, name: str, now: float, overwrite: bool = False) -> None:
    """`ldm add-spconfig`. Raises WorldError: config-exists, config-full."""
    if name in host.configs and not overwrite:
        raise WorldError("config-exists", name=name)
    if name not in host.configs and len(host.configs) >= MAX_CONFIGS:
        raise WorldError("config-full", limit=MAX_CONFIGS)
    host.configs.pop(name, None)
    host.configs[name] = SavedConfig(name, _picture(host), now)
    host.current = host.next_poweron = name


def remove(host: Host, name: str) -> None:
    """`ldm remove-spconfig`. Raises WorldError: config-missing, config-factory, config-in-use."""
    if name not in host.configs:
        raise WorldError("config-missing", name=name)
    if name == FACTORY:
        raise WorldError("config-factory", name=name)
    if name in (host.current, host.next_poweron):
        raise WorldError("config-in-use", name=name)
    del host.configs[name]


def select(host: Host, name: str) -> None:
    """`ldm set-spconfig`: for the next power-on; the XSCF goes on with the current one."""
    if name not in host.configs:
        raise WorldError("config-missing", name=name)
    host.next_poweron = name


def xscf_names(host: Host) -> list[str]:
    """Every name the XSCF lists, in its order."""
    saved = host.configs[host.current].names
    if host.power is not Power.RUNNING:
        return saved
    return saved + [d.name for d in bound_domains(host) if d.name not in saved]


def xscf_status(host: Host, name: str) -> Status | None:
    """What the XSCF says about a name; None where it does not list it."""
    if name not in xscf_names(host):
        return None
    if name not in host.configs[host.current].names:
        return Status.UNKNOWN
    domain = host.find(name)
    if host.power is not Power.RUNNING or domain is None or domain.incoming or domain.mark == "e":
        return Status.HOST_STOPPED
    return domain.status


def resolve(host: Host, name: str) -> Domain | None:
    """The domain that a command of the XSCF for `name` really reaches; None for nobody."""
    names, domains = xscf_names(host), bound_domains(host)
    position = names.index(name)
    return domains[position] if position < len(domains) else None
