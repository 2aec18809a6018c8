"""Live migration between two emulated hosts: what `ldmd` does, as a timeline.

    copying   source runs (flags s), target copy is bound (flags t)
    blackout  source suspended; the state has been sent, so killing the source no longer stops the target
    done      source copy gone, target active
    failed    target copy gone, source active again (or dead, if that is why)
    lost      the network went after the state was sent: source in error (flag e) until
              `cancel-operation` restores it or it is destroyed. Never both alive.

Sources: Oracle VM Server for SPARC administration guides 3.3 to 3.5, "Migrating an Active Domain",
"Migrating Memory", "Recovering From a Failed Migration".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from standfast.lab.emulators import spconfig
from standfast.lab.emulators.model import (
    Domain,
    Host,
    Migration,
    Phase,
    State,
    Status,
    WorldError,
)

if TYPE_CHECKING:
    from standfast.lab.emulators.world import World

SHORTEST_COPY_SECONDS = 0.1


def due(migration: Migration) -> float | None:
    """When the migration goes on by itself."""
    if migration.stalled_at is not None:
        return None
    if migration.phase is Phase.COPYING:
        return migration.blackout_at
    return migration.ends_at if migration.phase is Phase.BLACKOUT else None


def obstacle(world: World, name: str, source: str, target: str, save: bool = False) -> WorldError | None:
    """Why a migration would fail now; None where it would start. This is also the dry run."""
    domain = world.host(source).find(name)
    if domain is None:
        return WorldError("no-such-domain", name=name)
    if target not in world.hosts or not world.hosts[target].control_domain_up:
        return WorldError("target-unreachable", target=target)
    there = world.hosts[target]
    if domain.control:
        return WorldError("control-domain", name=name)
    if target == source:
        return WorldError("same-host", name=name, target=target)
    if domain.mark != "-":
        return WorldError("migrating-already", name=name)
    if domain.state not in (State.ACTIVE, State.BOUND):
        return WorldError("not-migratable", name=name, state=domain.state.value)
    if domain.state is State.ACTIVE and domain.status is not Status.SOLARIS_RUNNING:
        return WorldError("at-openboot", name=name)
    if there.find(name) is not None:
        return WorldError("exists-on-target", name=name, target=target)
    if world.hosts[source].save_after_migration != there.save_after_migration and not save:
        return WorldError("save-property-differs", target=target)
    if sum(d.cpus for d in spconfig.bound_domains(there)) + domain.cpus > there.cpus:
        return WorldError("no-cpus", cpus=domain.cpus, target=target)
    used = sum(d.memory_bytes for d in spconfig.bound_domains(there))
    if used + domain.memory_bytes > there.memory_bytes:
        return WorldError("no-memory", gib=domain.memory_bytes >> 30, target=target)
    return None


def start(
    world: World,
    name: str,
    source: str,
    target: str,
    now: float,
    *,
    duration_seconds: float | None = None,
    blackout_seconds: float | None = None,
    save: bool = False,
) -> Migration:
    """Begins a migration. The duration contains the blackout, and is lengthened where it cannot.

    Raises WorldError for the reasons of `obstacle`.
    """
    refused = obstacle(world, name, source, target, save)
    if refused is not None:
        raise refused
    domain = world.domain(source, name)
    blackout = world.timing.blackout_seconds if blackout_seconds is None else blackout_seconds
    if domain.state is State.BOUND:
        blackout = 0.0
    whole = world.timing.migration_seconds if duration_seconds is None else duration_seconds
    copy = max(whole - blackout, SHORTEST_COPY_SECONDS)
    migration = Migration(name, source, target, now, copy, blackout, save)
    domain.mark = "s"
    arriving = Domain(name, State.BOUND, cpus=domain.cpus, memory_bytes=domain.memory_bytes, boot=domain.boot)
    arriving.mark = "t"
    world.hosts[target].domains.insert(1, arriving)
    world.migrations.append(migration)
    del world.migrations[:-100]
    return migration


def step(world: World, migration: Migration, now: float) -> None:
    """Carries out the next due part."""
    if migration.phase is Phase.COPYING:
        domain = world.domain(migration.source, migration.name)
        arriving = world.domain(migration.target, migration.name)
        arriving.machine, arriving.started, arriving.hung = domain.machine, domain.started, domain.hung
        migration.phase, migration.stalled_at = Phase.BLACKOUT, None
        migration.live = domain.state is State.ACTIVE
        if migration.live:
            domain.state, domain.status = State.SUSPENDED, Status.SOLARIS_SUSPENDED
            world.affect("freeze", domain)
    elif migration.phase is Phase.BLACKOUT:
        _arrive(world, migration)
        _remove(world.hosts[migration.source], migration.name)
        migration.phase = Phase.DONE
        both = [world.hosts[migration.source], world.hosts[migration.target]]
        if migration.save or all(host.save_after_migration for host in both):
            for host in both:
                spconfig.save(host, spconfig.POST_MIGRATION, now, overwrite=True)


def _arrive(world: World, migration: Migration) -> None:
    """The target copy goes on with everything of the source copy, the real node too."""
    target = world.domain(migration.target, migration.name)
    target.mark = "-"
    if migration.live:
        target.state, target.status = State.ACTIVE, Status.SOLARIS_RUNNING
        if not target.hung:
            world.affect("thaw", target)


def _remove(host: Host, name: str) -> None:
    """Takes a copy away, but never one that runs: a source that was powered on again may have one."""
    host.domains = [domain for domain in host.domains if domain.name != name or domain.alive]


def _resume_source(world: World, migration: Migration) -> None:
    domain = world.hosts[migration.source].find(migration.name)
    if domain is None:
        return
    domain.mark = "-"
    if domain.state is State.SUSPENDED:
        domain.state, domain.status = State.ACTIVE, Status.SOLARIS_RUNNING
        if not domain.hung:
            world.affect("thaw", domain)
    elif migration.source_killed:
        world.affect("power_off", domain)


def fail(world: World, migration: Migration, reason: str) -> None:
    """The migration ends without a move: target copy destroyed, source resumes."""
    _remove(world.hosts[migration.target], migration.name)
    _resume_source(world, migration)
    migration.phase, migration.reason, migration.stalled_at = Phase.FAILED, reason, None


def cancel(world: World, host: str, name: str, now: float) -> None:
    """`ldm cancel-operation migration NAME` on the source.

    Afterwards ldm hangs on both machines while memory is scrubbed. Raises WorldError: no-such-domain,
    no-migration, runs-on-target.
    """
    world.domain(host, name)
    migration = world.migration_of(name)
    if migration is None or migration.source != host:
        raise WorldError("no-migration", name=name)
    if migration.phase is Phase.LOST and migration.target in world.running_on(name):
        raise WorldError("runs-on-target", name=name, target=migration.target)
    fail(world, migration, "cancelled")
    for this in (migration.source, migration.target):
        world.hosts[this].ldm_hangs_until = now + world.timing.scrub_seconds


def stall(world: World, name: str, now: float, stalled: bool = True) -> None:
    """Progress stops, or goes on from where it was."""
    migration = world.migration_of(name)
    if migration is None or migration.phase is not Phase.COPYING:
        raise WorldError("no-migration", name=name)
    if stalled and migration.stalled_at is None:
        migration.stalled_at = now
    elif not stalled and migration.stalled_at is not None:
        migration.started += now - migration.stalled_at
        migration.stalled_at = None


def lose_network(world: World, name: str, now: float, runs_on_target: bool) -> None:
    """The network between both machines goes after the state was sent (flag e on the source)."""
    migration = world.migration_of(name)
    if migration is None or migration.phase is Phase.LOST:
        raise WorldError("no-migration", name=name)
    source = world.domain(migration.source, name)
    if migration.phase is Phase.COPYING:
        step(world, migration, now)
    if runs_on_target:
        _arrive(world, migration)
    else:
        _remove(world.hosts[migration.target], name)
    source.mark = "e"
    migration.phase, migration.reason = Phase.LOST, "network lost"


def source_died(world: World, domain: Domain) -> bool:
    """A source copy is being killed. True where nothing more is to be done for it.

    While memory is copied the migration fails and the kill goes on as usual. In the blackout the state
    has been sent: the source copy is gone, and the target comes alive all the same.
    """
    migration = world.migration_of(domain.name)
    if migration is None or domain.mark not in ("s", "e"):
        return False
    if migration.phase is Phase.COPYING:
        fail(world, migration, "source domain stopped")
        return False
    if migration.phase is Phase.BLACKOUT:
        migration.source_killed = True
        domain.state, domain.status, domain.mark = State.BOUND, Status.HOST_STOPPED, "-"
        return True
    on_target = migration.target in world.running_on(domain.name)
    if not on_target:
        world.affect("power_off", domain)
    domain.state = State.BOUND
    _remove(world.hosts[migration.source], domain.name)
    migration.phase = Phase.DONE if on_target else Phase.FAILED
    return True


def target_destroyed(world: World, name: str) -> None:
    """Someone destroyed the arriving copy: the source resumes."""
    migration = world.migration_of(name)
    if migration is None:
        raise WorldError("no-migration", name=name)
    fail(world, migration, "target copy destroyed")


def host_died(world: World, host: str, now: float) -> None:
    """A machine of a migration went down."""
    for migration in list(world.migrations):
        if migration.phase not in (Phase.COPYING, Phase.BLACKOUT, Phase.LOST):
            continue
        if migration.source == host:
            _source_host_died(world, migration)
        elif migration.target == host:
            _target_host_died(world, migration, now)


def _source_host_died(world: World, migration: Migration) -> None:
    if migration.phase is Phase.COPYING:
        fail(world, migration, "source machine down")
    else:
        source_died(world, world.domain(migration.source, migration.name))


def _target_host_died(world: World, migration: Migration, now: float) -> None:
    if migration.phase is Phase.COPYING:
        fail(world, migration, "target machine down")
    elif migration.phase is Phase.BLACKOUT:
        lose_network(world, migration.name, now, runs_on_target=False)
