"""What every kind of host keeps to: one suite for control domains, libvirt both ways, and hosts by hand."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hosts_kit import LdmSite, LibvirtSite, ManualSite, Site, emulated, libvirtd, sshd

from standfast.core.evidence import GuestState
from standfast.hosts.asking import ask_everywhere
from standfast.hosts.base import (
    CommandFailed,
    Host,
    HostBug,
    HostError,
    HostUnreachable,
    MigrationRefused,
    MovedByHand,
    NotSavedYet,
)

SLOTS = ("standfast-a", "standfast-b")
KINDS = ("ldm", "libvirt by ssh", "libvirt from here", "manual")
SLACK_SECONDS = 2.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd and libvirtd are started as root")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with libvirtd(tmp_path_factory.mktemp("libvirt") / "d") as address:
        yield address


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with sshd(tmp_path_factory.mktemp("sshd")) as login:
        yield login


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with contextlib.ExitStack() as stack:
        made: Site
        if request.param == "ldm":
            made = LdmSite(stack.enter_context(emulated(tmp_path)))
        elif request.param == "manual":
            made = ManualSite()
        else:
            login = request.getfixturevalue("door") if "ssh" in request.param else None
            made = LibvirtSite(request.getfixturevalue("daemon"), tmp_path, login)
        yield made
        made.heal()
        await made.host.close()


async def test_it_says_what_each_guest_is_to_it_and_of_whom_it_does_not_know_so(site: Site) -> None:
    host: Host = site.host  # the Protocol is fulfilled
    answers = await host.ask_each(["guest2", "app72", "guest1"])
    assert [answer.guest for answer in answers] == ["guest2", "app72", "guest1"]
    assert {answer.host for answer in answers} == {host.name}
    said = [answer.state for answer in answers]
    if site.kind == "manual":
        assert said == [GuestState.SILENT] * 3
        assert all("by hand" in answer.detail for answer in answers)
        with pytest.raises(HostUnreachable):
            await host.ask_all()
        return
    assert said == [GuestState.RUNNING, GuestState.STOPPED, GuestState.ABSENT]
    assert (await host.ask("guest2")).state is GuestState.RUNNING
    everybody = {answer.guest: answer.state for answer in await host.ask_all()}
    assert everybody["guest2"] is GuestState.RUNNING
    assert everybody["app72"] is GuestState.STOPPED
    assert "guest1" not in everybody


async def test_no_migration_is_reported_where_there_is_none(site: Site) -> None:
    if site.kind == "manual":
        with pytest.raises(HostUnreachable):
            await site.host.migration_job("guest2")
        return
    for guest in ("guest2", "app72", "guest1"):
        assert await site.host.migration_job(guest) is None


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "guest2; reboot", "$(reboot)", "guest2\n", "a'b", "x" * 300]
)
async def test_a_name_that_is_no_guests_is_our_own_slip_and_nobody_is_asked(site: Site, name: str) -> None:
    before = site.commands()
    host = site.host
    calls = [
        host.ask(name),
        host.migration_job(name),
        host.check_migration(name, site.target()),
        host.migrate(name, site.target(), lambda job: None, 5.0),
        host.cancel_migration(name, 5.0),
        host.stop(name),
    ]
    for call in calls:
        with pytest.raises(HostBug):
            await call
    assert site.commands() == before


async def test_a_guest_is_stopped_at_once_and_only_once(site: Site) -> None:
    if site.kind == "manual":
        with pytest.raises(MovedByHand, match="own tools"):
            await site.host.stop("guest2")
        return
    await site.host.stop("guest2")
    assert (await site.host.ask("guest2")).state is GuestState.STOPPED
    for guest in ("guest2", "guest1"):
        with pytest.raises(CommandFailed):
            await site.host.stop(guest)


async def test_a_daemon_that_is_down_is_silence_with_its_words_and_a_failed_command(site: Site) -> None:
    if site.kind == "manual":
        return
    site.refuse()
    answer = await site.host.ask("guest2")
    assert answer.state is GuestState.SILENT
    assert "onnect" in answer.detail
    with pytest.raises(CommandFailed, match="onnect"):
        await site.host.ask_all()
    with pytest.raises(CommandFailed):
        await site.host.stop("guest2")
    site.heal()
    assert (await site.host.ask("guest2")).state is GuestState.RUNNING


async def test_a_host_that_hangs_is_silent_within_the_limit_and_the_event_loop_runs_on(site: Site) -> None:
    if site.kind == "manual":
        return
    assert (await site.host.ask("guest2")).state is GuestState.RUNNING
    site.hang()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    ticking = asyncio.create_task(tick())
    began = time.monotonic()
    answer = await site.host.ask("guest2", 1.0)
    assert (answer.state, bool(answer.detail)) == (GuestState.SILENT, True)
    assert time.monotonic() - began < 1.0 + SLACK_SECONDS
    assert ticks > 20
    ticking.cancel()
    with pytest.raises(HostUnreachable) as late:
        await site.host.ask_all(0.5)
    assert not late.value.may_have_happened
    site.heal()
    assert (await site.host.ask("guest2")).state is GuestState.RUNNING


async def test_an_order_without_an_answer_may_have_happened(site: Site) -> None:
    if site.kind == "manual":
        return
    site.hang()
    with pytest.raises(HostUnreachable) as late:
        await site.host.stop("guest2", 1.0)
    assert late.value.may_have_happened


async def test_many_questions_at_once_are_all_answered(site: Site) -> None:
    answers = await asyncio.gather(*(site.host.ask("guest2", 20.0) for _ in range(12)))
    wanted = GuestState.SILENT if site.kind == "manual" else GuestState.RUNNING
    assert {answer.state for answer in answers} == {wanted}


async def test_a_closed_host_answers_again(site: Site) -> None:
    first = await site.host.ask("guest2")
    await site.host.close()
    await site.host.close()
    assert (await site.host.ask("guest2")).state is first.state


async def test_it_is_asked_together_with_others_and_never_fails_them(site: Site) -> None:
    site.hang()
    said = await ask_everywhere([site.host, ManualSite().host], ["guest2", "app72"], 1.0)
    assert [len(answers) for answers in said.values()] == [2, 2]
    assert {answer.state for answers in said.values() for answer in answers} == {GuestState.SILENT}


async def test_a_guest_that_is_not_there_is_not_migrated(site: Site) -> None:
    kinds = (MovedByHand,) if site.kind == "manual" else (MigrationRefused,)
    with pytest.raises(kinds):
        await site.host.check_migration("guest1", site.target(), 10.0)
    with pytest.raises(kinds):
        await site.host.migrate("guest1", site.target(), lambda job: None, 10.0)


async def test_where_no_migration_is_none_is_cancelled(site: Site) -> None:
    kind = MovedByHand if site.kind == "manual" else CommandFailed
    for guest in ("guest2", "guest1"):
        with pytest.raises(kind):
            await site.host.cancel_migration(guest, 10.0)


async def test_the_memory_of_a_guest_is_told_where_the_host_tells_it(site: Site) -> None:
    known = await site.host.memory_bytes("guest2")
    if site.kind == "manual":
        assert known is None
    else:
        assert known is not None
        assert known % 1024 == 0
        assert known >= 4096 << 10
    assert await site.host.memory_bytes("guest1") is None


async def test_what_is_saved_is_told_or_refused_with_what_to_do(site: Site) -> None:
    if site.kind == "manual":
        with pytest.raises(NotSavedYet, match="--saved host2"):
            await site.host.save_configuration(SLOTS, guest="guest2")
        return
    assert await site.host.save_configuration(SLOTS, guest="guest2")


async def test_every_error_names_the_host_in_one_sentence(site: Site) -> None:
    site.refuse()
    with pytest.raises(HostError) as told:
        await site.host.ask_all()
    assert told.value.host == site.host.name
    assert str(told.value).startswith(f"{site.host.name}: ")
    assert "\n" not in str(told.value)
