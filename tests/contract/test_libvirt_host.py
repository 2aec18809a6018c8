"""What is libvirt's own: identity, persistence, events, and answers of virsh that prove nothing."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from hosts_kit import IDENTITIES, LibvirtSite, libvirtd, sshd, xml

from standfast.core import libvirt_events
from standfast.core.evidence import GuestState, gone_everywhere
from standfast.core.libvirt_events import HostEvent
from standfast.daemon.listening import Listening
from standfast.hosts.base import (
    AnswerNotUnderstood,
    CommandFailed,
    HostBug,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    MigrationRefused,
    MigrationTarget,
    NotSavedYet,
)
from standfast.hosts.libvirt import GONE, PERSISTENT, LibvirtHost
from standfast.hosts.shell import SshLogin

SLOTS = ("standfast-a", "standfast-b")
OTHER = "99999999-2222-3333-4444-555555555555"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sshd and libvirtd are started as root")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with libvirtd(tmp_path_factory.mktemp("libvirt") / "d") as address:
        yield address


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLogin]:
    with sshd(tmp_path_factory.mktemp("sshd")) as login:
        yield login


@pytest.fixture(params=["ssh", "here"])
async def site(
    request: pytest.FixtureRequest, daemon: Path, door: SshLogin, tmp_path: Path
) -> AsyncIterator[LibvirtSite]:
    made = LibvirtSite(daemon, tmp_path, door if request.param == "ssh" else None)
    yield made
    made.heal()
    await made.host.close()


async def test_the_answer_has_the_guests_uuid_and_a_stranger_of_its_name_is_told_by_it(
    site: LibvirtSite,
) -> None:
    assert (await site.host.ask("app72")).identity == IDENTITIES["app72"]
    off = [await site.host.ask("app72")]
    site.virsh("undefine", "app72")
    site.virsh("define", "/dev/stdin", input=xml("app72", OTHER))
    other = [await site.host.ask("app72")]
    assert (other[0].state, other[0].identity) == (GuestState.STOPPED, OTHER)
    assert gone_everywhere(["host2"], [off, off])
    assert not gone_everywhere(["host2"], [off, other])


async def test_paused_transient_and_vanished_are_told_apart(site: LibvirtSite) -> None:
    seen = await site.host.ask("passing")
    assert (seen.state, seen.detail) == (GuestState.PAUSED, "paused (user), transient")
    site.virsh("resume", "passing")
    assert (await site.host.ask("passing")).state is GuestState.RUNNING
    await site.host.stop("passing")
    assert (await site.host.ask("passing")).state is GuestState.ABSENT


async def test_questions_need_no_write_access_and_orders_ask_for_it(site: LibvirtSite) -> None:
    await site.host.ask_all()
    await site.host.migration_job("guest2")
    assert all("--readonly" in call for call in site.calls() if call.startswith("call --quiet"))
    await site.host.stop("guest2")
    assert "--readonly" not in site.calls()[-1]
    assert all(site.uri in call for call in site.calls() if call.startswith("call --quiet"))


@pytest.mark.parametrize("mode", ["garbage", "half", "status", "nothing"])
async def test_an_answer_that_is_not_whole_is_never_absence(site: LibvirtSite, mode: str) -> None:
    site.misbehave(mode)
    for guest in ("guest2", "guest1"):
        answer = await site.host.ask(guest)
        assert answer.state is GuestState.SILENT
        assert answer.detail
    with pytest.raises(CommandFailed):
        await site.host.ask_all()
    with pytest.raises(CommandFailed) as told:
        await site.host.migration_job("guest2")
    assert isinstance(told.value, AnswerNotUnderstood) == (mode != "status")


async def test_a_persistent_guest_counts_as_saved_and_a_transient_one_not(site: LibvirtSite) -> None:
    assert await site.host.save_configuration(SLOTS, guest="guest2") == PERSISTENT
    with pytest.raises(NotSavedYet, match=r"virsh define passing\.xml"):
        await site.host.save_configuration(SLOTS, guest="passing")
    for guest in ("app72", "guest1"):
        with pytest.raises(NotSavedYet, match="does not run there"):
            await site.host.save_configuration(SLOTS, guest=guest)


async def test_a_host_that_a_guest_has_left_must_not_define_it_any_more(site: LibvirtSite) -> None:
    with pytest.raises(NotSavedYet, match="virsh undefine app72"):
        await site.host.save_configuration(SLOTS, guest="app72", runs_here=False)
    kept = LibvirtHost(replace(site.access, keep_definition=True))
    assert await kept.save_configuration(SLOTS, guest="app72", runs_here=False) == PERSISTENT
    with pytest.raises(NotSavedYet):
        await kept.save_configuration(SLOTS, guest="guest2", runs_here=False)
    await kept.close()
    site.virsh("undefine", "app72")
    assert await site.host.save_configuration(SLOTS, guest="app72", runs_here=False) == GONE


async def test_a_dry_run_finds_the_target_that_has_the_guest_or_its_name_or_does_not_answer(
    site: LibvirtSite,
) -> None:
    itself = MigrationTarget("10.20.50.73", uri=site.uri)
    with pytest.raises(MigrationRefused, match="runs on the target too"):
        await site.host.check_migration("guest2", itself)
    dead = MigrationTarget("10.20.50.73", uri="test+unix:///default?socket=/nonexistent")
    with pytest.raises(MigrationRefused, match="Failed to connect socket"):
        await site.host.check_migration("guest2", dead)
    # The test driver of another process has a domain `test` of its own, and nothing else.
    site.virsh("define", "/dev/stdin", input=xml("test", OTHER))
    with pytest.raises(MigrationRefused, match=f"this guest is test with {OTHER}"):
        await site.host.check_migration("test", MigrationTarget("10.20.50.73", uri="test:///default"))
    await site.host.check_migration("app72", MigrationTarget("10.20.50.73", uri="test:///default"))


async def test_a_dry_run_finds_the_network_that_the_target_does_not_have(site: LibvirtSite) -> None:
    """The test driver of another process has an active network `default`."""
    elsewhere = MigrationTarget("10.20.50.73", uri="test:///default")
    for network, why in (("default", None), ("nowhere", "no active network nowhere, which app72 uses")):
        nic = f"<interface type='network'><source network='{network}'/></interface>"
        with_nic = xml("app72").replace("</os>", f"</os><devices>{nic}</devices>")
        site.virsh("undefine", "app72")
        site.virsh("define", "/dev/stdin", input=with_nic)
        if why is None:
            await site.host.check_migration("app72", elsewhere)
        else:
            with pytest.raises(MigrationRefused, match=why):
                await site.host.check_migration("app72", elsewhere)


async def test_a_driver_that_cannot_migrate_is_a_refusal_in_its_own_words(site: LibvirtSite) -> None:
    with pytest.raises(MigrationRefused) as told:
        await site.host.migrate("guest2", site.target(), lambda job: None, 10.0)
    assert told.value.may_have_happened
    assert re.search("not supported|unsupported", told.value.reason), told.value.reason
    (call,) = [call for call in site.calls() if "migrate" in call]
    assert "--live --persistent --undefinesource" in call
    assert IDENTITIES["guest2"] in call
    for options in ("-x", ""):
        with pytest.raises((HostBug, MigrationRefused)):
            await site.host.migrate("guest2", MigrationTarget("h", uri=options or "-"), lambda job: None, 5.0)


async def test_a_session_that_is_cut_is_made_anew_for_a_question_and_not_for_an_order(
    site: LibvirtSite,
) -> None:
    if site.access.login is None:
        pytest.skip("there is no session to cut")
    assert (await site.host.ask("guest2")).state is GuestState.RUNNING
    _cut(site.access.login)
    assert (await site.host.ask("guest2")).state is GuestState.RUNNING
    site.hang()
    order = asyncio.create_task(site.host.stop("guest2", 20.0))
    deadline = time.monotonic() + 10
    while True:
        await asyncio.sleep(0.02)
        if [call for call in site.calls() if "destroy" in call]:
            break
        assert time.monotonic() < deadline
    _cut(site.access.login)
    with pytest.raises(HostUnreachable, match="cut before its end") as cut:
        await order
    assert cut.value.may_have_happened
    assert len([call for call in site.calls() if "destroy" in call]) == 1


def _cut(login: SshLogin) -> None:
    """End the sessions of this test's sshd, as a firewall or a restart does."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
            parent = Path("/proc", (path / "stat").read_text().rpartition(")")[2].split()[1], "cmdline")
            listener = parent.read_bytes()
        except OSError:
            continue
        if words.startswith(b"sshd: root") and str(Path(login.key_file).parent).encode() in listener:
            os.kill(int(path.name), 9)


async def test_refused_logins_and_unknown_keys_are_told_apart(site: LibvirtSite, tmp_path: Path) -> None:
    login = site.access.login
    if login is None:
        pytest.skip("nobody logs in")
    stranger = tmp_path / "stranger.key"
    stranger.touch(mode=0o600)
    stranger.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
    empty = tmp_path / "no_hosts"
    empty.touch()
    for changed, kind in (
        (replace(login, key_file=str(stranger)), LoginRefused),
        (replace(login, known_hosts_file=str(empty)), HostKeyUnknown),
        (replace(login, key_file=str(tmp_path / "missing")), HostBug),
        (replace(login, port=1), HostUnreachable),
    ):
        with pytest.raises(kind):
            await LibvirtHost(replace(site.access, login=changed)).ask_all()


async def test_events_are_told_as_they_happen_and_again_after_the_stream_was_lost(site: LibvirtSite) -> None:
    assert isinstance(site.host, LibvirtHost)
    told: list[HostEvent] = []

    async def listen() -> None:
        assert isinstance(site.host, LibvirtHost)
        async for event in site.host.events():
            told.append(event)

    listening = asyncio.create_task(listen())

    async def until(kind: str, what: str = "") -> HostEvent:
        deadline = time.monotonic() + 15
        while not (found := [event for event in told if event.kind == kind and what in event.what]):
            assert time.monotonic() < deadline, told
            assert not listening.done(), listening
            await asyncio.sleep(0.02)
        told.clear()
        return found[0]

    async def seen(order: str, what: str) -> HostEvent:
        # virsh registers a moment after it has said that it listens.
        await asyncio.sleep(0.3)
        await asyncio.to_thread(site.virsh, order, "guest2")
        return await until("lifecycle", what)

    await until(libvirt_events.LISTENING)
    stopped = await seen("suspend", "Suspended Paused")
    assert (stopped.guest, re.match(r"\d{4}-\d\d-\d\d ", stopped.at) is not None) == ("guest2", True)
    _end_listener(site)
    await until(libvirt_events.LOST)
    await until(libvirt_events.LISTENING)
    await seen("resume", "Resumed Unpaused")
    listening.cancel()
    await asyncio.wait({listening})
    await asyncio.sleep(0.2)
    assert not _listeners(site), "nothing is left behind"


async def test_a_daemon_that_listens_hears_of_a_guest_and_that_it_may_have_missed_something(
    site: LibvirtSite,
) -> None:
    heard: list[str] = []
    listening = Listening(heard.append)

    async def until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline, heard
            await asyncio.sleep(0.02)

    listening.follow({"host2": site.host})
    assert not listening.whole
    await until(lambda: listening.whole)
    assert heard == [""], "what was before is not told: look"
    await asyncio.sleep(0.3)  # virsh registers a moment after it has said that it listens
    await asyncio.to_thread(site.virsh, "destroy", "guest2")
    await until(lambda: "guest2" in heard)
    heard.clear()
    _end_listener(site)
    await until(lambda: not listening.whole)
    await until(lambda: listening.whole)
    assert heard == [""]
    listening.follow({})
    await until(lambda: not _listeners(site))
    listening.follow({"host2": site.host})
    await until(lambda: listening.whole)
    await listening.stop()
    await until(lambda: not _listeners(site))
    assert not listening.whole


def _listeners(site: LibvirtSite) -> list[int]:
    """The adapter's `virsh event`; the kit's own one sets no marks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if site.uri.encode() in words and words.startswith(b"virsh") and b"standfast:listening" in words:
            found.append(int(path.name))
    return found


def _end_listener(site: LibvirtSite) -> None:
    (pid,) = _listeners(site)
    os.kill(pid, 9)
