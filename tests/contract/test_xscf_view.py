"""A control domain without login, seen through its emulated XSCF: what it says before and after a move."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from xscf_site import Site, running_site

from standfast.core import hostlist
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.hostlist import HostList
from standfast.hosts import make
from standfast.hosts.base import (
    SAVED_BY_HAND,
    CommandFailed,
    Host,
    HostBug,
    LoginRefused,
    MigrationTarget,
    NotSavedYet,
)
from standfast.hosts.ldm import LdmHost
from standfast.hosts.xscf_view import HEAD_START_SECONDS, XscfHost

SLOTS = ("standfast-a", "standfast-b")
T = TypeVar("T")
Question = Callable[[dict[str, Host]], Coroutine[None, None, T]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    """The shared site, at rest."""
    shared.rest()
    return shared


def listed(site: Site) -> HostList:
    """The site's file, without any login."""
    found = hostlist.from_text(site.conf.read_text())
    return replace(found, hosts=tuple(replace(host, login="") for host in found.hosts))


def asked(site: Site, question: Question[T], **account: str) -> T:
    """Put a question to the adapters of a site, in the network of its hosts."""
    parameters = {
        "username": site.written.xscf_user,
        "connection": "ssh",
        "password_file": str(site.folder / "xscf-password"),
        **account,
    }

    async def ask() -> T:
        hosts = make.adapters(listed(site), parameters)
        try:
            return await question(hosts)
        finally:
            for host in hosts.values():
                await host.close()

    return site.threads.submit(asyncio.run, ask()).result(timeout=40)


def where(site: Site, guest: str = "guest2", **account: str) -> dict[str, HostAnswer]:
    """What each host says about a guest."""

    async def question(hosts: dict[str, Host]) -> dict[str, HostAnswer]:
        answers = await asyncio.gather(*(host.ask(guest) for host in hosts.values()))
        return dict(zip(hosts, answers, strict=True))

    return asked(site, question, **account)


def states(site: Site) -> dict[str, GuestState]:
    return {host: answer.state for host, answer in where(site).items()}


def saved(site: Site, host: str, runs_here: bool) -> str:
    """Whether a host is seen to be saved after guest2 came or left."""

    async def question(hosts: dict[str, Host]) -> str:
        return await hosts[host].save_configuration(SLOTS, guest="guest2", runs_here=runs_here)

    return asked(site, question)


# --- a move, from its beginning to its end ---------------------------------------------------


def test_a_move_is_believed_when_both_hosts_are_saved_and_not_before(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        assert states(site) == {
            "ctrl1": GuestState.ABSENT,
            "ctrl2": GuestState.RUNNING,
            "ctrl3": GuestState.ABSENT,
        }
        site.control.migrate("guest2", "ctrl3", duration_seconds=0.4, blackout_seconds=0.1)
        assert site.control.wait_migration("guest2")["phase"] == "done"

        answers = where(site)
        assert answers["ctrl2"].state is GuestState.STOPPED
        assert answers["ctrl3"].state is GuestState.UNKNOWN
        assert "by its XSCF: Unknown" in answers["ctrl3"].detail
        assert "not saved" in answers["ctrl3"].detail
        with pytest.raises(NotSavedYet, match="its XSCF shows guest2 as 'Unknown'"):
            saved(site, "ctrl3", True)
        with pytest.raises(NotSavedYet, match="its XSCF shows guest2 as 'Host stopped'"):
            saved(site, "ctrl2", False)

        typed(site, "ctrl3", "add-spconfig", "by-hand")
        assert states(site)["ctrl3"] is GuestState.RUNNING
        assert saved(site, "ctrl3", True) == SAVED_BY_HAND
        with pytest.raises(NotSavedYet):
            saved(site, "ctrl2", False)

        typed(site, "ctrl2", "add-spconfig", "by-hand")
        assert saved(site, "ctrl2", False) == SAVED_BY_HAND
        assert states(site) == {
            "ctrl1": GuestState.ABSENT,
            "ctrl2": GuestState.ABSENT,
            "ctrl3": GuestState.RUNNING,
        }
        with pytest.raises(NotSavedYet, match="does not list guest2"):
            saved(site, "ctrl2", True)


def typed(site: Site, host: str, *words: str) -> None:
    """Type an `ldm` command on a control domain, as an operator who can log in does."""

    async def command() -> None:
        found = hostlist.from_text(site.conf.read_text())
        adapter = make.adapters(found, None)[host]
        assert isinstance(adapter, LdmHost)
        await adapter._checked(list(words), 5.0)
        await adapter.close()

    site.threads.submit(asyncio.run, command()).result(timeout=20)


# --- ways --------------------------------------------------------------------------------------


def test_lan_1_answers_where_lan_0_is_dead(site: Site) -> None:
    for mode in ("refused", "silent"):
        site.control.clear()
        site.control.inject("path_dead", "ctrl2", "lan0", mode=mode)
        began = time.monotonic()
        assert states(site)["ctrl2"] is GuestState.RUNNING
        assert time.monotonic() - began < HEAD_START_SECONDS + 3.0


def test_without_an_answer_over_both_lans_a_host_is_silent_and_says_why(site: Site) -> None:
    for lan in ("lan0", "lan1"):
        site.control.inject("path_dead", "ctrl2", lan, mode="refused")
    answer = where(site)["ctrl2"]
    assert answer.state is GuestState.SILENT
    assert "LAN#0 10.20.30.72: no connection" in answer.detail
    assert "LAN#1 10.20.40.72: no connection" in answer.detail


def test_a_wrong_password_is_silence_on_every_host_and_named(site: Site, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-it\n")
    answers = where(site, password_file=str(wrong))
    assert {answer.state for answer in answers.values()} == {GuestState.SILENT}
    assert answers["ctrl2"].detail.count("login as xuser refused") == 2

    async def all_of(hosts: dict[str, Host]) -> None:
        await hosts["ctrl2"].ask_all()

    with pytest.raises(LoginRefused, match="ctrl2: its XSCF: LAN#0"):
        asked(site, all_of, password_file=str(wrong))


def test_without_a_password_file_or_a_registered_node_a_host_is_silent_and_nobody_is_asked(
    site: Site, tmp_path: Path
) -> None:
    mark = site.control.mark()
    assert "missing: No such file" in where(site, password_file=str(tmp_path / "missing"))["ctrl2"].detail
    assert "telnet" in where(site, connection="telnet")["ctrl2"].detail
    bare = make.adapters(listed(site), None)["ctrl2"]
    answer = asyncio.run(bare.ask("guest2"))
    assert (answer.state, answer.detail) == (GuestState.SILENT, make.NOT_REGISTERED)
    assert site.control.log(mark, event="login") == []


def test_a_standby_xscf_that_shows_no_table_is_not_taken_for_one_without_guests(site: Site) -> None:
    site.control.inject("standby", "ctrl2", "lan0")
    assert states(site)["ctrl2"] is GuestState.RUNNING
    site.control.inject("standby", "ctrl2", "lan1")
    assert states(site)["ctrl2"] is GuestState.SILENT


# --- a shell is kept ---------------------------------------------------------------------------


def test_many_questions_need_one_login_and_a_shell_that_was_cut_is_replaced(site: Site) -> None:
    async def question(hosts: dict[str, Host]) -> tuple[int, GuestState]:
        mark = site.control.mark()
        for _ in range(3):
            assert (await hosts["ctrl2"].ask("guest2")).state is GuestState.RUNNING
        logins = len(site.control.log(mark, event="login", host="ctrl2"))
        site.control.inject("cut", "ctrl2", "lan0", match="showdomainstatus", times=1)
        return logins, (await hosts["ctrl2"].ask("guest2")).state

    assert asked(site, question) == (1, GuestState.RUNNING)


def test_an_answer_is_never_older_than_its_question(site: Site) -> None:
    async def question(hosts: dict[str, Host]) -> list[GuestState]:
        first = (await hosts["ctrl1"].ask("guest1")).state
        site.control.inject("status_text", "ctrl1", "*", name="guest1", text="Host stopped")
        return [first, (await hosts["ctrl1"].ask("guest1")).state]

    assert asked(site, question) == [GuestState.RUNNING, GuestState.STOPPED]


def test_a_slow_login_is_silence_within_the_limit_and_is_there_for_the_next_question(site: Site) -> None:
    async def question(hosts: dict[str, Host]) -> list[GuestState]:
        site.control.inject("slow_prompt", "ctrl2", "*", seconds=1.0, times=1)
        began = time.monotonic()
        first = (await hosts["ctrl2"].ask("guest2", 0.5)).state
        assert time.monotonic() - began < 1.0
        await asyncio.sleep(1.0)
        return [first, (await hosts["ctrl2"].ask("guest2", 0.9)).state]

    assert asked(site, question) == [GuestState.SILENT, GuestState.RUNNING]


def test_a_host_that_is_closed_under_a_question_answers_it_with_silence_and_the_next_one_anew(
    site: Site,
) -> None:
    async def question(hosts: dict[str, Host]) -> list[GuestState]:
        site.control.inject("slow_prompt", "ctrl2", "*", seconds=1.0, times=1)
        asking = asyncio.create_task(hosts["ctrl2"].ask("guest2"))
        await asyncio.sleep(0.3)
        await hosts["ctrl2"].close()
        return [(await asking).state, (await hosts["ctrl2"].ask("guest2")).state]

    assert asked(site, question) == [GuestState.SILENT, GuestState.RUNNING]


# --- what cannot be done there --------------------------------------------------------------------


def test_changes_are_refused_before_anybody_is_asked(site: Site) -> None:
    target = MigrationTarget("10.20.50.73")

    async def question(hosts: dict[str, Host]) -> list[str]:
        host = hosts["ctrl2"]
        assert isinstance(host, XscfHost)
        refused = []
        for change in (
            host.migrate("guest2", target, lambda job: None, 5.0),
            host.check_migration("guest2", target),
            host.cancel_migration("guest2"),
            host.stop("guest2"),
            host.migration_job("guest2"),
            host.list_configurations(),
        ):
            with pytest.raises(CommandFailed, match="no login") as caught:
                await change
            refused.append(str(caught.value))
        with pytest.raises(HostBug):
            await host.ask("-p; reboot")
        return refused

    mark = site.control.mark()
    assert len(asked(site, question)) == 6
    assert site.control.log(mark, event="login") == []


def test_nothing_but_a_look_is_ever_typed(site: Site) -> None:
    mark = site.control.mark()
    where(site)
    lines = {str(entry["line"]) for entry in site.control.log(mark, event="command")}
    assert lines <= {"showdomainstatus -p 0", "showdomainstatus -p 1", "exit"}
    assert "showdomainstatus -p 1" in lines


def test_a_kill_that_the_xscf_cannot_prove_is_not_proven_by_its_own_word(site: Site, tmp_path: Path) -> None:
    bare = tmp_path / "clovmmigrate.conf"
    text = site.conf.read_text()
    bare.write_text("\n".join(line for line in text.splitlines() if not line.startswith("login =")) + "\n")
    site.control.call("stop", host="ctrl2", name="app72", force=True)
    try:
        called = site.call("off", "ctrl2", "app72", conf=bare)
        assert called.code == 1
        assert "no login for ctrl1, so ldm cannot be asked there" in called.err
        assert site.call("off", "ctrl2", "app72", conf=site.conf).code == 0
    finally:
        site.control.call("start", host="ctrl2", name="app72")
