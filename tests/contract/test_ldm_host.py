"""Control domains over ssh, asked and told on an emulated site."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from hosts_kit import Hosts, emulated

from standfast.core.evidence import GuestState
from standfast.core.jobs import MigrationJob
from standfast.hosts.base import (
    CommandFailed,
    Host,
    HostBug,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    MigrationRefused,
    MigrationTarget,
    NoRoomToSave,
)
from standfast.hosts.ldm import LdmHost

SLOTS = ("standfast-a", "standfast-b")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with emulated(tmp_path) as site:
        yield site


@pytest.fixture
async def ctrl2(hosts: Hosts) -> AsyncIterator[LdmHost]:
    host = LdmHost(hosts.login("ctrl2"))
    yield host
    await host.close()


async def test_a_host_says_what_each_guest_is_to_it_over_one_connection(hosts: Hosts, ctrl2: LdmHost) -> None:
    host: Host = ctrl2  # the Protocol is fulfilled
    assert (await host.ask("guest2")).state is GuestState.RUNNING
    mark = hosts.control.mark()
    assert (await host.ask("guest1")).state is GuestState.ABSENT
    assert {answer.guest for answer in await host.ask_all()} == {"guest2", "app72"}
    assert await host.migration_job("guest2") is None
    assert await host.migration_job("guest1") is None
    hosts.control.call("stop", host="ctrl2", name="app72")
    assert (await host.ask("app72")).state is GuestState.STOPPED
    assert hosts.control.log(mark, event="command", host="ctrl2")
    assert hosts.control.log(mark, event="login", host="ctrl2") == []


async def test_a_migration_is_seen_from_both_sides_with_its_progress(hosts: Hosts, ctrl2: LdmHost) -> None:
    seen: list[MigrationJob] = []
    ctrl3 = LdmHost(hosts.login("ctrl3"))
    move = asyncio.create_task(ctrl2.migrate("guest2", hosts.target("ctrl3"), seen.append, 20.0))
    end = time.monotonic() + 10
    while (await ctrl2.ask("guest2")).state is not GuestState.MIGRATING_OUT and time.monotonic() < end:
        pass
    assert (await ctrl3.ask("guest2")).state is GuestState.INCOMING
    arriving = await ctrl3.migration_job("guest2")
    assert arriving is not None
    assert not arriving.outgoing
    await move
    assert seen
    assert all(job.outgoing and job.progress_percent is not None for job in seen)
    assert (await ctrl2.ask("guest2")).state.proves_not_here
    assert (await ctrl3.ask("guest2")).state is GuestState.RUNNING
    await ctrl3.close()


async def test_a_dry_run_passes_or_gives_the_hosts_own_reason_and_changes_nothing(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    await ctrl2.check_migration("guest2", hosts.target("ctrl3"))
    hosts.control.inject("migration_refused", "ctrl2", "ldm", text="no such vds volume")
    with pytest.raises(MigrationRefused, match="no such vds volume"):
        await ctrl2.check_migration("guest2", hosts.target("ctrl3"))
    with pytest.raises(MigrationRefused):
        await ctrl2.migrate("guest2", hosts.target("ctrl3"), lambda job: None, 10.0)
    assert hosts.control.running("guest2") == ["ctrl2"]


async def test_a_wrong_password_of_the_target_is_a_refusal_without_the_password_in_it(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    wrong = replace(hosts.target("ctrl3"), password="wrong-secret")
    with pytest.raises(MigrationRefused) as refused:
        await ctrl2.migrate("guest2", wrong, lambda job: None, 10.0)
    assert "wrong-secret" not in str(refused.value)
    assert "wrong-secret" not in repr(wrong)


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_stopped_guest_moves_by_its_definition(hosts: Hosts, ctrl2: LdmHost, trusted: bool) -> None:
    hosts.control.call("stop", host="ctrl2", name="app72")
    target = hosts.target("ctrl3")
    if trusted:
        target = MigrationTarget(target.address)
    await ctrl2.check_migration("app72", target)
    await ctrl2.migrate("app72", target, lambda job: None, 20.0)
    ctrl3 = LdmHost(hosts.login("ctrl3"))
    assert (await ctrl2.ask("app72")).state is GuestState.ABSENT
    assert (await ctrl3.ask("app72")).state is GuestState.STOPPED
    await ctrl3.close()


async def test_a_cancelled_migration_leaves_the_guest_at_its_source(hosts: Hosts, ctrl2: LdmHost) -> None:
    move = asyncio.create_task(ctrl2.migrate("guest2", hosts.target("ctrl3"), lambda job: None, 20.0))
    end = time.monotonic() + 10
    while (await ctrl2.migration_job("guest2")) is None and time.monotonic() < end:
        pass
    await ctrl2.cancel_migration("guest2", 20.0)
    with pytest.raises(MigrationRefused):
        await move
    assert (await ctrl2.ask("guest2")).state is GuestState.RUNNING
    assert hosts.control.running("guest2") == ["ctrl2"]


async def test_a_cancel_ends_when_the_host_answers_again_and_its_limit_leaves_it_going_on(
    tmp_path: Path,
) -> None:
    with emulated(tmp_path / "slow", scrub_seconds=3.0) as hosts:
        ctrl2 = LdmHost(hosts.login("ctrl2"))
        for limit, late in ((1.0, True), (20.0, False)):
            move = asyncio.create_task(ctrl2.migrate("guest2", hosts.target("ctrl3"), lambda job: None, 20.0))
            end = time.monotonic() + 10
            while (await ctrl2.ask("guest2")).state is not GuestState.MIGRATING_OUT:
                assert time.monotonic() < end
            began = time.monotonic()
            if late:
                with pytest.raises(HostUnreachable) as reached:
                    await ctrl2.cancel_migration("guest2", limit)
                assert reached.value.may_have_happened
            else:
                await ctrl2.cancel_migration("guest2", limit)
                assert 3.0 <= time.monotonic() - began < 10.0
            with pytest.raises(MigrationRefused):
                await move
            while (await ctrl2.ask("guest2", 1.0)).state is not GuestState.RUNNING:
                assert time.monotonic() < end
        assert hosts.control.running("guest2") == ["ctrl2"]
        await ctrl2.close()


async def test_a_migration_outlives_our_limit_and_the_error_says_that_it_may_have_happened(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    with pytest.raises(HostUnreachable) as late:
        await ctrl2.migrate("guest2", hosts.target("ctrl3"), lambda job: None, 1.0)
    assert late.value.may_have_happened
    hosts.control.wait_migration("guest2")
    assert hosts.control.running("guest2") == ["ctrl3"]


async def test_a_guest_is_stopped_at_once(hosts: Hosts, ctrl2: LdmHost) -> None:
    hosts.control.call("hang", name="guest2")
    await ctrl2.stop("guest2")
    assert (await ctrl2.ask("guest2")).state is GuestState.STOPPED
    with pytest.raises(CommandFailed, match="not active"):
        await ctrl2.stop("guest2")


async def test_configurations_are_saved_in_two_slots_in_turn_and_others_stay(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    before = {configuration.name for configuration in await ctrl2.list_configurations()}
    saved = [await ctrl2.save_configuration(SLOTS) for _ in range(4)]
    assert saved == ["standfast-a", "standfast-b", "standfast-a", "standfast-b"]
    now = {configuration.name: configuration for configuration in await ctrl2.list_configurations()}
    assert set(now) == before | set(SLOTS)
    assert now["standfast-b"].current


async def test_a_full_list_is_refused_before_anything_is_removed(hosts: Hosts, ctrl2: LdmHost) -> None:
    for number in range(6):
        hosts.control.call("save", host="ctrl2", name=f"theirs{number}")
    before = await ctrl2.list_configurations()
    with pytest.raises(NoRoomToSave, match="nothing removed"):
        await ctrl2.save_configuration(SLOTS)
    assert await ctrl2.list_configurations() == before


async def test_a_migration_that_saves_by_itself_counts_as_saved(hosts: Hosts) -> None:
    for name in ("ctrl2", "ctrl3"):
        hosts.control.call("save_property", host=name, on=True)
    hosts.control.migrate("guest2", "ctrl3", duration_seconds=0.2, blackout_seconds=0.1)
    hosts.control.wait_migration("guest2")
    for name in ("ctrl2", "ctrl3"):
        host = LdmHost(hosts.login(name))
        assert await host.save_configuration(SLOTS) == "@post-migration"
        await host.close()


async def test_a_broken_connection_is_made_anew_for_the_next_question(hosts: Hosts, ctrl2: LdmHost) -> None:
    assert (await ctrl2.ask("guest2")).state is GuestState.RUNNING
    hosts.control.inject("cut", "ctrl2", "ldm", times=1, at="before")
    assert (await ctrl2.ask("guest2")).state is GuestState.RUNNING


async def test_a_change_that_is_cut_is_not_repeated_and_says_that_it_may_have_happened(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    hosts.control.inject("cut", "ctrl2", "ldm", times=1, match="add-spconfig", at="after")
    mark = hosts.control.mark()
    with pytest.raises(HostUnreachable) as cut:
        await ctrl2.save_configuration(SLOTS)
    assert cut.value.may_have_happened
    lines = [str(entry.get("line")) for entry in hosts.control.log(mark, event="command", host="ctrl2")]
    assert sum("add-spconfig" in line for line in lines) == 1
    assert await ctrl2.save_configuration(SLOTS) == "standfast-b"


@pytest.mark.parametrize("mode", ["silent", "refused"])
async def test_a_dead_path_is_silence_with_a_reason_within_the_limit(
    hosts: Hosts, ctrl2: LdmHost, mode: str
) -> None:
    assert (await ctrl2.ask("guest2")).state is GuestState.RUNNING
    hosts.control.inject("path_dead", "ctrl2", "ldm", mode=mode)
    began = time.monotonic()
    answer = await ctrl2.ask("guest2", 1.0)
    assert answer.state is GuestState.SILENT
    assert answer.detail
    assert time.monotonic() - began < 2.0
    hosts.control.clear()
    assert (await ctrl2.ask("guest2")).state is GuestState.RUNNING


async def test_a_daemon_that_is_down_is_silence_and_a_failed_command(hosts: Hosts, ctrl2: LdmHost) -> None:
    hosts.control.inject("ldmd_down", "ctrl2", "ldm")
    assert (await ctrl2.ask("guest2")).state is GuestState.SILENT
    with pytest.raises(CommandFailed, match="Connection refused"):
        await ctrl2.ask_all()


async def test_a_question_that_hangs_does_not_cut_a_change_that_runs_beside_it(
    hosts: Hosts, ctrl2: LdmHost
) -> None:
    move = asyncio.create_task(ctrl2.migrate("guest2", hosts.target("ctrl3"), lambda job: None, 20.0))
    hosts.control.inject("hang", "ctrl2", "ldm", match="list-domain -p", times=1)
    assert (await ctrl2.ask("guest2", 0.5)).state is GuestState.SILENT
    await move
    assert hosts.control.running("guest2") == ["ctrl3"]


async def test_refused_logins_unknown_keys_and_our_slips_are_told_apart(hosts: Hosts, tmp_path: Path) -> None:
    login = hosts.login("ctrl2")
    stranger = tmp_path / "stranger.key"
    stranger.touch(mode=0o600)
    stranger.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
    empty = tmp_path / "no_hosts"
    empty.write_text("", encoding="ascii")
    for changed, kind in (
        (replace(login, key_file=str(stranger)), LoginRefused),
        (replace(login, known_hosts_file=str(empty)), HostKeyUnknown),
        (replace(login, known_hosts_file=str(tmp_path / "missing")), HostBug),
        (replace(login, key_file=str(tmp_path / "missing")), HostBug),
        (replace(login, key_file=str(empty)), HostBug),
    ):
        with pytest.raises(kind):
            await LdmHost(changed).ask_all()
    with pytest.raises(HostBug):
        await LdmHost(login).ask("-p; reboot")
