"""The emulated world by itself: no socket, no clock, time is a number."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
from pathlib import Path

import pytest

from standfast.lab.emulators import migration, spconfig, worldfile
from standfast.lab.emulators import world as world_module
from standfast.lab.emulators.dialect import load
from standfast.lab.emulators.faults import FaultBook, FaultError
from standfast.lab.emulators.log import CommandLog
from standfast.lab.emulators.machines import NoMachines
from standfast.lab.emulators.model import (
    Domain,
    Effect,
    Host,
    Phase,
    Power,
    State,
    Status,
    Timing,
    WorldError,
)
from standfast.lab.emulators.site import Site
from standfast.lab.emulators.world import World

TIMING = Timing(migration_seconds=20, blackout_seconds=4, scrub_seconds=60)


def domain(name: str, machine: str | None = None, control: bool = False) -> Domain:
    return Domain(name, State.ACTIVE, Status.SOLARIS_RUNNING, machine=machine, control=control)


def figure() -> World:
    """Three hosts of figure 14.1, each with a bystander, at time 0."""
    hosts = []
    for k, ppar_id in ((1, 0), (2, 0), (3, 1)):
        host = Host(f"ctrl{k}", ppar_id, domains=[domain("primary", control=True)])
        spconfig.save(host, "factory-default", 0)
        if k < 3:
            host.domains.append(domain(f"guest{k}", f"cfguest{k}"))
        host.domains.append(domain(f"app7{k}"))
        spconfig.save(host, "initial", 0)
        hosts.append(host)
    return World(hosts, TIMING)


def moved() -> World:
    """guest2 has moved from ctrl2 to ctrl3; nobody has saved anything."""
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(20)
    world.take_effects()
    return world


def status(world: World, host: str, name: str) -> Status | None:
    return spconfig.xscf_status(world.hosts[host], name)


def hit(world: World, host: str, name: str) -> str | None:
    reached = spconfig.resolve(world.hosts[host], name)
    return reached.name if reached else None


def stages(world: World, host: str, name: str) -> list[Status]:
    """The states that a domain goes through from now on."""
    seen = [world.domain(host, name).status]
    while (due := world.next_event()) is not None:
        world.advance(due)
        seen.append(world.domain(host, name).status)
    return seen


# --- the two tables ------------------------------------------------------------------------------


def test_at_rest_every_name_reaches_its_own_domain() -> None:
    world = figure()
    for host in world.hosts.values():
        assert [spconfig.resolve(host, name) for name in spconfig.xscf_names(host)] == host.domains


def test_after_a_move_without_saving_the_destination_says_unknown_and_the_source_host_stopped() -> None:
    world = moved()
    assert status(world, "ctrl3", "guest2") is Status.UNKNOWN
    assert status(world, "ctrl2", "guest2") is Status.HOST_STOPPED
    assert world.running_on("guest2") == ["ctrl3"]


def test_after_a_move_without_saving_a_reset_by_name_hits_a_bystander_on_both_hosts() -> None:
    world = moved()
    assert hit(world, "ctrl2", "guest2") == "app72"
    assert hit(world, "ctrl3", "guest2") == "app73"
    assert hit(world, "ctrl3", "app73") == "guest2"
    assert hit(world, "ctrl2", "app72") is None


def test_the_destination_is_already_wrong_while_the_guest_is_still_arriving() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    assert status(world, "ctrl3", "guest2") is Status.UNKNOWN
    assert hit(world, "ctrl3", "app73") == "guest2"
    assert hit(world, "ctrl2", "guest2") == "guest2"


def test_saving_on_one_host_mends_that_host_only() -> None:
    world = moved()
    world.save("ctrl3", "standfast-a", 21)
    assert status(world, "ctrl3", "guest2") is Status.SOLARIS_RUNNING
    assert hit(world, "ctrl3", "guest2") == "guest2"
    assert hit(world, "ctrl2", "guest2") == "app72"
    world.save("ctrl2", "standfast-a", 22)
    assert status(world, "ctrl2", "guest2") is None


def test_a_move_with_save_needs_no_saving_by_hand() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0, save=True)
    world.advance(20)
    assert world.hosts["ctrl2"].current == world.hosts["ctrl3"].current == "@post-migration"
    assert hit(world, "ctrl3", "guest2") == "guest2"


def test_the_save_property_must_be_the_same_on_both_machines() -> None:
    world = figure()
    world.hosts["ctrl3"].save_after_migration = True
    why = migration.obstacle(world, "guest2", "ctrl2", "ctrl3")
    assert why is not None
    assert why.code == "save-property-differs"
    assert migration.obstacle(world, "guest2", "ctrl2", "ctrl3", save=True) is None


def test_only_eight_configurations_fit_and_no_name_twice() -> None:
    host = figure().hosts["ctrl1"]
    for number in range(6):
        spconfig.save(host, f"c{number}", 1)
    with pytest.raises(WorldError, match="config-full"):
        spconfig.save(host, "one-too-many", 1)
    with pytest.raises(WorldError, match="config-exists"):
        spconfig.save(host, "c0", 1)
    spconfig.remove(host, "c0")
    spconfig.save(host, "c0", 2)
    assert host.current == "c0"


@pytest.mark.parametrize(
    ("name", "code"),
    [("factory-default", "config-factory"), ("nix", "config-missing"), ("initial", "config-in-use")],
)
def test_some_configurations_cannot_be_removed(name: str, code: str) -> None:
    with pytest.raises(WorldError, match=code):
        spconfig.remove(figure().hosts["ctrl1"], name)


def test_a_power_cycle_brings_the_saved_table_back_and_loses_an_unsaved_guest() -> None:
    world = moved()
    world.power_off("ctrl3", 30)
    world.power_on("ctrl3", 31)
    world.advance(100)
    assert [d.name for d in world.hosts["ctrl3"].domains] == ["primary", "app73"]


def test_a_power_cycle_of_the_old_source_starts_a_second_copy_of_an_unsaved_guest() -> None:
    world = moved()
    world.power_off("ctrl2", 30)
    world.power_on("ctrl2", 31)
    world.take_effects()
    world.advance(100)
    assert world.running_on("guest2") == ["ctrl2", "ctrl3"]
    assert world.doubles == ["guest2"]
    assert Effect("power_on", "cfguest2") not in world.take_effects()


# --- panic and reset -----------------------------------------------------------------------------


def test_a_panic_goes_through_panicking_and_openboot_to_running() -> None:
    world = figure()
    assert world.act("ctrl1", "guest1", "panic", 10)
    assert stages(world, "ctrl1", "guest1") == [
        Status.SOLARIS_PANICKING,
        Status.SOLARIS_REBOOTING,
        Status.OPENBOOT_INITIALIZING,
        Status.OPENBOOT_RUNNING,
        Status.OPENBOOT_PRIMARY_BOOT_LOADER,
        Status.OPENBOOT_RUNNING_OS_BOOT,
        Status.SOLARIS_BOOTING,
        Status.SOLARIS_RUNNING,
    ]
    assert world.take_effects() == [Effect("power_off", "cfguest1"), Effect("power_on", "cfguest1")]


def test_a_reset_goes_straight_to_openboot() -> None:
    world = figure()
    world.act("ctrl1", "guest1", "sir", 10)
    seen = stages(world, "ctrl1", "guest1")
    assert seen[0] is Status.OPENBOOT_INITIALIZING
    assert seen[-1] is Status.SOLARIS_RUNNING


@pytest.mark.parametrize(
    ("policy", "last", "state"),
    [("prompt", Status.OPENBOOT_RUNNING, State.ACTIVE), ("stopped", Status.HOST_STOPPED, State.BOUND)],
)
def test_without_auto_boot_a_panicked_domain_stays_down(policy: str, last: Status, state: State) -> None:
    world = figure()
    world.domain("ctrl1", "guest1").boot = policy  # type: ignore[assignment]
    world.act("ctrl1", "guest1", "panic", 10)
    assert stages(world, "ctrl1", "guest1")[-1] is last
    assert world.domain("ctrl1", "guest1").state is state
    assert Effect("power_on", "cfguest1") not in world.take_effects()


def test_a_hung_domain_is_called_running_until_it_is_killed() -> None:
    world = figure()
    world.hang("ctrl1", "guest1")
    world.advance(1000)
    assert status(world, "ctrl1", "guest1") is Status.SOLARIS_RUNNING
    world.act("ctrl1", "guest1", "panic", 1000)
    assert not world.domain("ctrl1", "guest1").hung
    assert world.take_effects() == [Effect("freeze", "cfguest1"), Effect("power_off", "cfguest1")]


def test_a_panic_of_a_stopped_domain_does_nothing() -> None:
    world = figure()
    world.stop("ctrl1", "guest1", 1, force=True)
    assert not world.act("ctrl1", "guest1", "panic", 2)
    assert status(world, "ctrl1", "guest1") is Status.HOST_STOPPED


def test_a_graceful_stop_halts_first_and_a_start_boots() -> None:
    world = figure()
    world.stop("ctrl1", "guest1", 1)
    assert world.domain("ctrl1", "guest1").flags() == "sn----"
    assert stages(world, "ctrl1", "guest1") == [Status.SOLARIS_HALTING, Status.HOST_STOPPED]
    world.start("ctrl1", "guest1", 10)
    assert world.domain("ctrl1", "guest1").flags() == "-t----"
    assert stages(world, "ctrl1", "guest1")[-1] is Status.SOLARIS_RUNNING


def test_a_real_node_that_dies_or_comes_back_takes_its_domain_along() -> None:
    world = figure()
    world.machine_seen("cfguest1", False, 5)
    assert status(world, "ctrl1", "guest1") is Status.HOST_STOPPED
    world.machine_seen("cfguest1", True, 6)
    assert status(world, "ctrl1", "guest1") is Status.SOLARIS_RUNNING


# --- migration -----------------------------------------------------------------------------------


def test_a_migration_freezes_the_guest_for_exactly_the_blackout_at_its_end() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 100)
    world.advance(115.99)
    assert world.take_effects() == []
    world.advance(116)
    assert world.take_effects() == [Effect("freeze", "cfguest2")]
    assert status(world, "ctrl2", "guest2") is Status.SOLARIS_SUSPENDED
    world.advance(119.99)
    assert world.take_effects() == []
    world.advance(120)
    assert world.take_effects() == [Effect("thaw", "cfguest2")]
    assert world.running_on("guest2") == ["ctrl3"]
    assert world.hosts["ctrl2"].find("guest2") is None


def test_flags_and_states_of_both_copies_follow_the_migration() -> None:
    world = figure()
    current = migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    source, target = world.domain("ctrl2", "guest2"), world.domain("ctrl3", "guest2")
    assert (source.state.value, source.flags()) == ("active", "-n---s")
    assert (target.state.value, target.flags()) == ("bound", "-t---t")
    assert current.progress(10) == 50
    world.advance(20)
    assert (target.state.value, target.flags()) == ("active", "-n----")
    assert current.progress(20) == 100


@pytest.mark.parametrize("at", [1, 15.9, 16, 19.9])
def test_a_cancel_at_any_time_leaves_exactly_the_source_running(at: float) -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(at)
    migration.cancel(world, "ctrl2", "guest2", at)
    world.advance(1000)
    assert world.running_on("guest2") == ["ctrl2"]
    assert world.hosts["ctrl3"].find("guest2") is None
    kinds = [effect.kind for effect in world.take_effects()]
    assert kinds == (["freeze", "thaw"] if at >= 16 else [])
    assert hit(world, "ctrl3", "app73") == "app73"


def test_ldm_hangs_on_both_machines_after_a_cancel() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    migration.cancel(world, "ctrl2", "guest2", 5)
    assert {world.hosts[h].ldm_hangs_until for h in ("ctrl2", "ctrl3")} == {65}
    assert world.hosts["ctrl1"].ldm_hangs_until == 0


def test_a_panic_of_the_source_while_memory_is_copied_fails_the_migration() -> None:
    world = figure()
    current = migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.act("ctrl2", "guest2", "panic", 5)
    assert current.phase is Phase.FAILED
    assert world.hosts["ctrl3"].find("guest2") is None
    assert world.domain("ctrl2", "guest2").status is Status.SOLARIS_PANICKING


def test_a_kill_of_the_source_in_the_blackout_does_not_stop_the_target_copy() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(17)
    world.stop("ctrl2", "guest2", 17, force=True)
    assert world.running_on("guest2") == []
    world.advance(20)
    assert world.running_on("guest2") == ["ctrl3"]
    assert [effect.kind for effect in world.take_effects()] == ["freeze", "thaw"]


def test_killing_target_then_source_in_the_blackout_kills_the_guest() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(17)
    world.stop("ctrl3", "guest2", 17, force=True)
    assert world.running_on("guest2") == ["ctrl2"]
    world.stop("ctrl2", "guest2", 17.5, force=True)
    world.advance(1000)
    assert world.running_on("guest2") == []
    assert [effect.kind for effect in world.take_effects()] == ["freeze", "thaw", "power_off"]


def test_killing_source_then_target_in_the_blackout_kills_the_guest_too() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(17)
    world.stop("ctrl2", "guest2", 17, force=True)
    world.stop("ctrl3", "guest2", 17.5, force=True)
    world.advance(1000)
    assert world.running_on("guest2") == []
    assert world.take_effects()[-1] == Effect("power_off", "cfguest2")


@pytest.mark.parametrize("on_target", [True, False])
def test_a_network_lost_after_the_state_was_sent_leaves_one_copy_and_an_error_flag(on_target: bool) -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.advance(17)
    migration.lose_network(world, "guest2", 17, runs_on_target=on_target)
    world.advance(1000)
    assert world.domain("ctrl2", "guest2").flags() == "-n---e"
    assert world.running_on("guest2") == (["ctrl3"] if on_target else [])
    if on_target:
        with pytest.raises(WorldError, match="runs-on-target"):
            migration.cancel(world, "ctrl2", "guest2", 1001)
        world.stop("ctrl2", "guest2", 1002, force=True)
        assert world.running_on("guest2") == ["ctrl3"]
        assert Effect("power_off", "cfguest2") not in world.take_effects()
    else:
        migration.cancel(world, "ctrl2", "guest2", 1001)
        assert world.running_on("guest2") == ["ctrl2"]


def test_a_stalled_migration_goes_on_from_where_it_was() -> None:
    world = figure()
    current = migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    migration.stall(world, "guest2", 10)
    world.advance(500)
    assert current.progress(500) == 50
    migration.stall(world, "guest2", 510, stalled=False)
    world.advance(519.9)
    assert current.phase is not Phase.DONE
    world.advance(520)
    assert current.phase is Phase.DONE


def test_a_dead_source_machine_takes_the_guest_along_until_the_state_was_sent() -> None:
    early, late = figure(), figure()
    for world, at in ((early, 5.0), (late, 17.0)):
        migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
        world.advance(at)
        world.power_off("ctrl2", at, crashed=True)
        world.advance(1000)
    assert early.running_on("guest2") == []
    assert late.running_on("guest2") == ["ctrl3"]


def test_a_dead_target_machine_never_costs_the_guest() -> None:
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    world.power_off("ctrl3", 5)
    assert world.hosts["ctrl3"].power is Power.OFF
    world.advance(1000)
    assert world.running_on("guest2") == ["ctrl2"]


def refused(world: World, name: str = "guest2", target: str = "ctrl3") -> str:
    why = migration.obstacle(world, name, "ctrl2", target)
    return why.code if why else ""


def test_a_dry_run_names_what_stands_in_the_way() -> None:
    assert refused(figure()) == ""
    assert refused(figure(), target="ctrl9") == "target-unreachable"
    assert refused(figure(), target="ctrl2") == "same-host"
    assert refused(figure(), name="nix") == "no-such-domain"
    assert refused(figure(), name="primary") == "control-domain"
    world = figure()
    world.act("ctrl2", "guest2", "sir", 0)
    assert refused(world) == "at-openboot"
    world = figure()
    world.hosts["ctrl3"].cpus = 20
    assert refused(world) == "no-cpus"
    world = figure()
    world.hosts["ctrl3"].memory_bytes = 40 << 30
    assert refused(world) == "no-memory"
    world = figure()
    migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
    assert refused(world) == "migrating-already"


def test_a_guest_never_has_two_live_copies_whatever_is_done_at_whatever_time() -> None:
    acts = ("cancel", "kill-source", "kill-target", "panic", "lost-there", "lost-here", "source-off")
    times = (1.0, 16.0, 18.0)
    for first, second in itertools.product(itertools.product(acts, times), repeat=2):
        world = figure()
        migration.start(world, "guest2", "ctrl2", "ctrl3", 0)
        for act, at in sorted((first, second), key=lambda pair: pair[1]):
            world.advance(at)
            _try(world, act, at)
            assert len(world.running_on("guest2")) <= 1, (first, second)
        world.advance(1000)
        assert len(world.running_on("guest2")) <= 1, (first, second)


def _try(world: World, act: str, at: float) -> None:
    try:
        if act == "cancel":
            migration.cancel(world, "ctrl2", "guest2", at)
        elif act == "kill-source":
            world.stop("ctrl2", "guest2", at, force=True)
        elif act == "kill-target":
            world.stop("ctrl3", "guest2", at, force=True)
        elif act == "panic":
            world.act("ctrl2", "guest2", "panic", at)
        elif act == "source-off":
            world.power_off("ctrl2", at)
        else:
            migration.lose_network(world, "guest2", at, runs_on_target=act == "lost-there")
    except WorldError:
        pass


@pytest.mark.parametrize("nodes", [2, 5])
def test_the_written_world_is_the_manual_figure_for_any_number_of_nodes(tmp_path: Path, nodes: int) -> None:
    written = worldfile.write(tmp_path, nodes, lab="x1")
    file = worldfile.read(written.world)
    world = worldfile.world_of(file, 0)
    assert [h.ppar_id for h in world.hosts.values()] == [0] * nodes + [1]
    guests = {d.name: d.machine for h in world.hosts.values() for d in h.domains if d.machine}
    assert guests == {f"guest{k}": f"cfguest{k}" for k in range(1, nodes + 1)}
    assert all(len(h.domains) >= 2 for h in world.hosts.values())
    first = file.hosts[0]
    assert (first.address, first.xscf_lan0, first.xscf_lan1) == ("10.20.50.71", "10.20.30.71", "10.20.40.71")
    known = [line.split(" ")[0] for line in written.known_hosts.read_text().splitlines()]
    assert known[:3] == ["10.20.50.71,ctrl1", "10.20.30.71", "10.20.40.71"]
    assert len(known) == 3 * (nodes + 1)


# --- around it -----------------------------------------------------------------------------------


def test_every_status_power_state_and_refusal_has_a_text() -> None:
    xscf, ldm = load("xscf"), load("ldm")
    texts = [xscf.text(f"status.{status.value}") for status in Status]
    assert texts[:3] == ["Host stopped", "Solaris booting", "Solaris running"]
    assert len(set(texts)) == len(Status)
    assert len({xscf.text(f"ppar.{power.value}") for power in Power}) == len(Power)
    source = "".join(inspect.getsource(module) for module in (world_module, migration, spconfig))
    codes = set(re.findall(r'WorldError\("([a-z-]+)"', source))
    assert len(codes) > 20
    only_for_control = {"already-on"}
    assert [code for code in codes - only_for_control if ldm.find(f"errors.{code}") is None] == []


def test_the_newest_fault_wins_and_one_with_a_number_of_times_wears_out() -> None:
    book = FaultBook()
    book.inject("latency", "ctrl1", params={"seconds": 5})
    book.inject("latency", "ctrl1", "lan0", times=1, params={"seconds": 1})
    found = [book.find("latency", "ctrl1", "lan0") for _ in range(2)]
    assert [fault.seconds() for fault in found if fault] == [1.0, 5.0]
    assert book.find("latency", "ctrl2", "lan0") is None
    assert book.clear(kind="latency") == 1


@pytest.mark.parametrize(
    ("kind", "endpoint", "params"),
    [("flood", "lan0", {}), ("latency", "lan7", {}), ("latency", "lan0", {"minutes": 1})],
)
def test_a_fault_that_does_not_exist_is_refused(kind: str, endpoint: str, params: dict[str, object]) -> None:
    with pytest.raises(FaultError):
        FaultBook().inject(kind, "ctrl1", endpoint, params=params)


class Recorder(NoMachines):
    """Real nodes that only note what is done to them; freezing cfguest1 fails."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def freeze(self, name: str) -> None:
        if name == "cfguest1":
            raise RuntimeError("no such cgroup")
        self.calls.append(("freeze", name))

    async def thaw(self, name: str) -> None:
        self.calls.append(("thaw", name))


async def test_the_driver_carries_effects_out_in_order_and_survives_a_node_that_cannot_be_driven() -> None:
    machines = Recorder()
    xscf, ldm = load("xscf"), load("ldm")
    site = Site(figure(), machines, CommandLog(None), xscf, ldm, {}, {}, 600, {})
    driver = asyncio.create_task(site.drive())
    now = site.fresh()
    site.world.hang("ctrl1", "guest1")
    current = migration.start(
        site.world, "guest2", "ctrl2", "ctrl3", now, duration_seconds=0.2, blackout_seconds=0.1
    )
    site.changed()
    async with asyncio.timeout(5):
        await site.until(lambda: current.phase is Phase.DONE)
        await site.until(lambda: len(machines.calls) == 2)
    driver.cancel()
    assert machines.calls == [("freeze", "cfguest2"), ("thaw", "cfguest2")]
    assert [entry["machine"] for entry in site.log.query(event="machine-error")] == ["cfguest1"]
