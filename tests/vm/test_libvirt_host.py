"""`LibvirtHost` against real libvirt: asked before, during and after migrations, which it starts and ends.

The guest that moves here is none of the cluster's nodes: 3 GiB without a system, which libvirt migrates like
any other. At 1 MiB/s its empty pages take several seconds, so a migration lasts until a test lets it go.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from standfast.core import libvirt_events
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.holding import FULL_RATE_MIB_PER_SECOND
from standfast.core.jobs import MigrationJob
from standfast.core.libvirt_events import HostEvent
from standfast.hosts.base import HostUnreachable, MigrationRefused, MigrationTarget, NotSavedYet
from standfast.hosts.libvirt import GONE, PERSISTENT, LibvirtAccess, LibvirtHost
from standfast.hosts.shell import SshLogin
from standfast.lab.layout import netns
from standfast.lab.network import SWITCH
from standfast.lab.vm import emulator, layout
from standfast.lab.vm.cluster import VmLab

pytestmark = [pytest.mark.timeout(300), pytest.mark.lab, pytest.mark.full]
T = TypeVar("T")
SLOTS = ("standfast-a", "standfast-b")
SPARE = "spare"
IDENTITY = "5b5b5b5b-1111-2222-3333-444444444444"
OTHER = "6b6b6b6b-1111-2222-3333-444444444444"
LIMIT_SECONDS = 60.0
ASK_SECONDS = 10.0
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Site:
    """The lab's hosts as `LibvirtHost` reaches them; `way` is ssh or tcp."""

    lab: VmLab
    folder: Path
    way: str

    def access(self, name: str) -> LibvirtAccess:
        number = layout.number_of(name)
        address = layout.host_address(number)
        if self.way == "tcp":
            return LibvirtAccess(name, uri=f"qemu+tcp://{address}/system")
        known = self.folder / f"known_{name}"
        known.write_text(f"{address} {(self.lab.root / 'keys' / f'{name}.pub').read_text()}")
        key = str(self.lab.root / "keys/guests")
        return LibvirtAccess(name, login=SshLogin(name, address, "root", key, str(known)))

    def target(self, name: str) -> MigrationTarget:
        number = layout.number_of(name)
        return MigrationTarget(
            layout.host_address(number),
            # With tcp this machine's virsh asks the target too, and it does not know the lab's names.
            uri=f"qemu+tcp://{layout.host_address(number)}/system",
            migration_uri=f"tcp://{layout.migration_address(number)}",
        )

    def virsh(self, host: str, *words: str, input: str | None = None) -> str:
        return self.lab.host(host).must_virsh(*words, input=input)

    def define(self, host: str, *, start: bool = True, identity: str = IDENTITY) -> None:
        self.virsh(host, "define", "/dev/stdin", input=self.xml(identity))
        if start:
            self.virsh(host, "start", SPARE)

    def slow(self, host: str) -> None:
        self.virsh(host, "migrate-setspeed", SPARE, "1")

    def let_go(self, host: str) -> None:
        self.virsh(host, "migrate-setspeed", SPARE, "1000")

    def clean(self) -> None:
        for name in self.lab.spec.hosts:
            host = self.lab.host(name)
            host.virsh("destroy", SPARE)
            host.virsh("undefine", SPARE)
            assert SPARE not in host.domains()

    def xml(self, identity: str) -> str:
        kind = "kvm" if self.lab.spec.accelerator == "kvm" else "qemu"
        return f"""<domain type='{kind}'><name>{SPARE}</name><uuid>{identity}</uuid>
<memory unit='MiB'>3072</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
<devices><emulator>{layout.INSIDE}/own/bin/{emulator.NAME}</emulator><memballoon model='none'/></devices>
</domain>"""

    def run(self, work: Callable[["Talk"], Awaitable[T]]) -> T:
        """Run in a thread whose sockets and programs are in the lab's own network."""

        async def main() -> T:
            talk = Talk(self)
            try:
                async with asyncio.timeout(2 * LIMIT_SECONDS):
                    return await work(talk)
            finally:
                await talk.close()

        def inside() -> T:
            fd = os.open(netns(self.lab.root, SWITCH), os.O_RDONLY)
            try:
                if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            return asyncio.run(main())

        with ThreadPoolExecutor(1) as one:
            return one.submit(inside).result()


class Talk:
    """The adapters of the hosts, and what tests do with several of them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.hosts = {name: LibvirtHost(site.access(name)) for name in site.lab.spec.hosts}
        self.progress: list[MigrationJob] = []

    def __getitem__(self, name: str) -> LibvirtHost:
        return self.hosts[name]

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.close()

    async def states(self, guest: str = SPARE) -> dict[str, HostAnswer]:
        """What all hosts say, asked at once."""
        said = await asyncio.gather(*(host.ask(guest, ASK_SECONDS) for host in self.hosts.values()))
        return {answer.host: answer for answer in said}

    async def until(self, wanted: dict[str, GuestState], guest: str = SPARE) -> dict[str, HostAnswer]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            said = await self.states(guest)
            if all(said[host].state is state for host, state in wanted.items()):
                return said
            assert time.monotonic() < deadline, {host: str(answer) for host, answer in said.items()}

    def migrating(self, source: str, target: str, limit_seconds: float = LIMIT_SECONDS) -> asyncio.Task[None]:
        return asyncio.create_task(
            self[source].migrate(SPARE, self.site.target(target), self.progress.append, limit_seconds)
        )

    async def on_its_way(self, source: str, target: str) -> dict[str, HostAnswer]:
        return await self.until({source: GuestState.MIGRATING_OUT, target: GuestState.INCOMING})


async def true(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        if condition():
            return
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.05)


@pytest.fixture(params=["ssh", "tcp"])
def site(shared: VmLab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(shared, tmp_path, request.param)
    made.clean()
    yield made
    made.clean()


def test_a_guest_is_known_by_the_uuid_that_it_reads_in_its_own_hardware(site: Site) -> None:
    inside = site.lab.exec("guest1", ["cat", "/sys/class/dmi/id/product_uuid"]).stdout.strip().lower()
    home = site.lab.must_place("guest1").name

    async def work(talk: Talk) -> dict[str, HostAnswer]:
        return await talk.states("guest1")

    said = site.run(work)
    assert (said[home].state, said[home].identity) == (GuestState.RUNNING, inside), str(said[home])
    assert {answer.state for host, answer in said.items() if host != home} == {GuestState.ABSENT}


def test_the_pace_of_a_guest_is_read_set_and_measured(site: Site) -> None:
    site.define("host1")

    async def work(talk: Talk) -> tuple[int, int, float | None]:
        host = talk["host1"]
        before = await host.copy_rate(SPARE)
        await host.set_copy_rate(SPARE, 26)
        return before, await host.copy_rate(SPARE), await host.dirty_bytes_per_second(SPARE)

    before, after, dirty = site.run(work)
    assert (before, after) == (FULL_RATE_MIB_PER_SECOND, 26)
    assert dirty is not None


def test_a_migration_is_tried_seen_from_both_sides_with_its_figures_and_leaves_nothing_behind(
    site: Site,
) -> None:
    site.define("host1")
    site.slow("host1")

    async def work(talk: Talk) -> None:
        before = await talk.states()
        assert [answer.state for answer in before.values()] == [
            GuestState.RUNNING,
            GuestState.ABSENT,
            GuestState.ABSENT,
        ]
        await talk["host1"].check_migration(SPARE, site.target("host2"))
        move = talk.migrating("host1", "host2")
        during = await talk.on_its_way("host1", "host2")
        assert {during[host].identity for host in ("host1", "host2")} == {IDENTITY}
        assert during["host1"].job
        assert during["host2"].job
        arriving = await talk["host2"].migration_job(SPARE)
        assert arriving is not None
        assert not arriving.outgoing
        with pytest.raises(MigrationRefused, match="nothing was begun"):
            await talk["host1"].check_migration(SPARE, site.target("host3"))
        # In its first second a job may have no rate yet.
        await true(lambda: any(job.rate_bytes_per_second for job in talk.progress))
        site.let_go("host1")
        await move
        after = await talk.until({"host1": GuestState.ABSENT, "host2": GuestState.RUNNING})
        assert "transient" not in after["host2"].detail
        assert await talk["host2"].save_configuration(SLOTS, guest=SPARE) == PERSISTENT
        assert await talk["host1"].save_configuration(SLOTS, guest=SPARE, runs_here=False) == GONE
        first, last = talk.progress[0], talk.progress[-1]
        assert (first.outgoing, first.done, first.iteration) == (True, False, 1)
        assert first.total_bytes is not None
        assert first.total_bytes >= 3 << 30
        assert first.remaining_bytes is not None
        assert 0 < first.remaining_bytes < first.total_bytes
        assert (last.done, last.failed, last.progress_percent) == (True, False, 100)
        assert last.downtime_ms is not None
        assert 0 <= last.downtime_ms < 10_000
        assert await talk["host2"].completed_job(SPARE) == last
        assert await talk["host2"].migration_job(SPARE) is None

    site.run(work)


def test_a_cancelled_migration_leaves_the_guest_running_at_its_source(site: Site) -> None:
    site.define("host1")
    site.slow("host1")

    async def work(talk: Talk) -> None:
        move = talk.migrating("host1", "host2")
        await talk.on_its_way("host1", "host2")
        await talk["host1"].cancel_migration(SPARE, 20.0)
        after = await talk["host1"].ask(SPARE)
        assert (after.state, after.job) == (GuestState.RUNNING, False)
        with pytest.raises(MigrationRefused, match="cancel"):
            await move
        await talk.until({"host1": GuestState.RUNNING, "host2": GuestState.ABSENT})

    site.run(work)


def test_a_migration_outlives_our_limit_and_the_error_says_that_it_may_have_happened(site: Site) -> None:
    site.define("host1")
    site.slow("host1")

    async def work(talk: Talk) -> None:
        with pytest.raises(HostUnreachable) as late:
            await talk.migrating("host1", "host2", 2.0)
        assert late.value.may_have_happened
        await talk.on_its_way("host1", "host2")
        site.let_go("host1")
        await talk.until({"host1": GuestState.ABSENT, "host2": GuestState.RUNNING})

    site.run(work)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_guest_is_stopped_in_the_middle_of_its_migration_on_either_side(site: Site, side: str) -> None:
    site.define("host1")
    site.slow("host1")

    async def work(talk: Talk) -> None:
        move = talk.migrating("host1", "host2")
        await talk.on_its_way("host1", "host2")
        await talk["host1" if side == "source" else "host2"].stop(SPARE)
        with pytest.raises(MigrationRefused):
            await move
        left = GuestState.STOPPED if side == "source" else GuestState.RUNNING
        await talk.until({"host1": left, "host2": GuestState.ABSENT})

    site.run(work)


def test_a_transient_guest_stays_transient_and_does_not_count_as_saved(site: Site) -> None:
    site.virsh("host1", "create", "/dev/stdin", input=site.xml(IDENTITY))

    async def work(talk: Talk) -> None:
        assert "transient" in (await talk["host1"].ask(SPARE)).detail
        await talk.migrating("host1", "host2")
        after = await talk.until({"host1": GuestState.ABSENT, "host2": GuestState.RUNNING})
        assert "transient" in after["host2"].detail
        with pytest.raises(NotSavedYet, match="virsh define"):
            await talk["host2"].save_configuration(SLOTS, guest=SPARE)
        await talk["host2"].stop(SPARE)
        await talk.until({"host1": GuestState.ABSENT, "host2": GuestState.ABSENT})

    site.run(work)


def test_a_definition_that_was_kept_on_the_source_is_seen_and_does_not_count_as_saved(site: Site) -> None:
    site.define("host1")

    async def work(talk: Talk) -> None:
        keeping = LibvirtHost(replace(site.access("host1"), keep_definition=True))
        await keeping.migrate(SPARE, site.target("host2"), talk.progress.append, LIMIT_SECONDS)
        after = await talk.until({"host1": GuestState.STOPPED, "host2": GuestState.RUNNING})
        assert after["host1"].detail == "shut off (migrated)"
        with pytest.raises(NotSavedYet, match="virsh undefine spare"):
            await talk["host1"].save_configuration(SLOTS, guest=SPARE, runs_here=False)
        assert await keeping.save_configuration(SLOTS, guest=SPARE, runs_here=False) == PERSISTENT
        await talk["host2"].check_migration(SPARE, site.target("host1"))
        await talk["host2"].migrate(SPARE, site.target("host1"), talk.progress.append, LIMIT_SECONDS)
        await talk.until({"host1": GuestState.RUNNING, "host2": GuestState.ABSENT})
        await keeping.close()

    site.run(work)


def test_a_stopped_guest_moves_by_its_definition(site: Site) -> None:
    site.define("host1", start=False)

    async def work(talk: Talk) -> None:
        await talk["host1"].check_migration(SPARE, site.target("host2"))
        await talk.migrating("host1", "host2")
        await talk.until({"host1": GuestState.ABSENT, "host2": GuestState.STOPPED})
        assert talk.progress == []

    site.run(work)


def test_a_dry_run_refuses_what_cannot_work(site: Site) -> None:
    site.define("host1")
    site.define("host2", start=False, identity=OTHER)

    async def work(talk: Talk) -> None:
        host = talk["host1"]
        with pytest.raises(MigrationRefused, match=f"the target has spare with the UUID {OTHER}"):
            await host.check_migration(SPARE, site.target("host2"))
        nobody = replace(site.target("host3"), uri="qemu+tcp://10.88.0.203:1/system")
        with pytest.raises(MigrationRefused, match="unable to connect to server"):
            await host.check_migration(SPARE, nobody)
        await host.check_migration(SPARE, site.target("host3"))
        await talk.until({"host1": GuestState.RUNNING, "host2": GuestState.STOPPED})

    site.run(work)


def test_events_of_both_hosts_tell_the_move_and_its_downtime(site: Site) -> None:
    site.define("host1")
    told: list[tuple[str, HostEvent]] = []

    async def listen(talk: Talk, name: str) -> None:
        async for event in talk[name].events():
            told.append((name, event))

    async def work(talk: Talk) -> None:
        listening = [asyncio.create_task(listen(talk, name)) for name in ("host1", "host2")]
        await true(lambda: [event.kind for _, event in told].count(libvirt_events.LISTENING) == 2)
        await asyncio.sleep(0.5)  # virsh registers a moment after it has said that it listens
        await talk.migrating("host1", "host2")
        wanted = {("host2", "Resumed Migrated"), ("host1", "Stopped Migrated"), ("host1", "job-completed")}
        await true(lambda: wanted <= {(name, event.what or event.kind) for name, event in told})
        (done,) = [event for _, event in told if event.kind == "job-completed"]
        assert int(done.figures["downtime"]) >= 0
        for task in listening:
            task.cancel()
        await asyncio.wait(listening)

    site.run(work)


def test_the_target_tells_of_a_move_before_its_memory_is_sent_and_the_source_at_the_switch_over(
    site: Site,
) -> None:
    """What a window that opens itself can build on."""
    if site.way != "ssh":
        pytest.skip("one way is enough for this one")
    site.define("host1")
    site.slow("host1")
    told: list[tuple[float, str, str]] = []

    async def listen(talk: Talk, name: str) -> None:
        async for event in talk[name].events():
            if event.guest in ("", SPARE):
                told.append((time.monotonic(), name, event.what or event.kind))

    def when(name: str, what: str) -> float | None:
        return next((at for at, host, said in told if (host, said) == (name, what)), None)

    async def work(talk: Talk) -> None:
        listening = [asyncio.create_task(listen(talk, name)) for name in ("host1", "host2")]
        await true(lambda: [what for _, _, what in told].count(libvirt_events.LISTENING) == 2)
        await asyncio.sleep(0.5)  # virsh registers a moment after it has said that it listens
        began = time.monotonic()
        move = talk.migrating("host1", "host2")
        await true(lambda: when("host2", "Started Migrated") is not None)
        during = await talk.on_its_way("host1", "host2")
        assert during["host1"].job
        assert when("host1", "Suspended Migrated") is None
        site.let_go("host1")
        await move
        await true(lambda: when("host2", "Resumed Migrated") is not None)
        for at, host, what in told:
            print(f"{at - began:7.2f} s {host} {what}")
        started, suspended = when("host2", "Started Migrated"), when("host1", "Suspended Migrated")
        assert started is not None
        assert suspended is not None
        assert started < suspended
        for task in listening:
            task.cancel()
        await asyncio.wait(listening)

    site.run(work)


def test_no_instant_of_a_long_blackout_looks_like_two_copies_or_none(site: Site, lab: VmLab) -> None:
    """A node of the cluster, held in its switch-over: paused here, not running there."""
    if site.way != "ssh":
        pytest.skip("one way is enough for this one")
    rounds: list[dict[str, HostAnswer]] = []

    async def work(talk: Talk) -> None:
        move = asyncio.create_task(asyncio.to_thread(lab.migrate, "guest1", "host3", blackout_seconds=4))
        while not move.done():
            rounds.append(await talk.states("guest1"))
        await move
        await talk.until({"host1": GuestState.ABSENT, "host3": GuestState.RUNNING}, "guest1")

    site.run(work)
    for said in rounds:
        running = [host for host, answer in said.items() if answer.state is GuestState.RUNNING]
        assert len(running) <= 1, {host: str(answer) for host, answer in said.items()}
        assert not all(answer.state.proves_not_here for answer in said.values()), said
    held = [
        said
        for said in rounds
        if said["host1"].state is GuestState.MIGRATING_OUT and "paused" in said["host1"].detail
    ]
    assert held, {str(said["host1"]) for said in rounds}
    assert {said["host3"].state for said in held} <= {
        GuestState.INCOMING,
        GuestState.SILENT,
        GuestState.UNKNOWN,
    }
    assert GuestState.INCOMING in {said["host3"].state for said in rounds}
    lab.wait_settled()
    lab.migrate("guest1", "host1")
