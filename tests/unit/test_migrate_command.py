"""``standfast migrate`` as a whole, with the window and the hosts played: exit statuses, Ctrl-C, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from fake_cluster import FakeCluster
from test_migrate_course import HOSTS, MOVE, Site, lands
from test_migrate_raise import Own, Paced, Target
from test_setup_documents import complete

from standfast import config
from standfast.cluster import cmap
from standfast.commands import (
    migrate_cold,
    migrate_order,
    migrate_plan,
    migrate_raise,
    migrate_run,
    window_run,
)
from standfast.commands.migrate import Order
from standfast.commands.migrate_show import Show
from standfast.commands.migrate_stop import Interrupts
from standfast.commands.standfast import main
from standfast.core import migration, raising
from standfast.core.blackout import Watch
from standfast.core.evidence import GuestState
from standfast.core.libvirt import Domain
from standfast.core.messages import Message, Refused
from standfast.core.record import Mode
from standfast.core.steps import CloseGoal, Done, Goal, LowerGoal, OpenGoal, RaiseGoal, Snapshot, Stop
from standfast.hosts.base import HostUnreachable, MigrationRefused, MigrationTarget
from standfast.hosts.libvirt import LibvirtAccess, LibvirtHost

SAMPLE = Path(__file__).parents[2] / "packaging" / "clovmmigrate.conf.sample"
OPEN = OpenGoal("cfguest2", 0, 900, mode=Mode.GUARDED, target="ctrl3")


class Window:
    """Plays opening and closing; notes with which host it was closed."""

    opening: Done | Stop = Done("open")
    closing: Done | Stop = Done("closed")
    closed_at: list[str]
    moved: list[str]
    """What was wanted of the heartbeat."""

    def __init__(self) -> None:
        self.closed_at, self.moved = [], []

    def executor(self, _: object, goal: Goal, say: object, limit_seconds: float = 0) -> SimpleNamespace:
        async def run() -> Done | Stop:
            if isinstance(goal, RaiseGoal | LowerGoal):
                self.moved.append(type(goal).__name__)
                return Done("as wanted")
            if isinstance(goal, CloseGoal):
                self.closed_at.append(goal.target)
                return self.closing
            return self.opening

        return SimpleNamespace(run=run)


class Watcher:
    """Sees nothing of the membership change."""

    def __init__(self, node: str, expected: frozenset[str]) -> None:
        self.seen = Watch(node)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[Watcher]:
        yield self

    async def look(self) -> None:
        pass

    async def returned(self, limit_seconds: float, say: object) -> bool:
        return True


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Window:
    made = Window()

    async def look(_: object) -> tuple[Snapshot, None]:
        return FakeCluster(3).snapshot("n1"), None

    async def goal_of(wish: window_run.Wish, *_: object) -> CloseGoal:
        return CloseGoal(MOVE.node, *wish.operands)

    async def tidy(*_: object) -> None:
        pass

    monkeypatch.setattr(migrate_run, "Executor", made.executor)
    monkeypatch.setattr(migrate_run, "Watcher", Watcher)
    for name, value in (("look", look), ("goal_of", goal_of), ("tidy", tidy)):
        monkeypatch.setattr(window_run, name, value)
    for name in ("LATE_ORDER_SECONDS", "STEADY_SECONDS", "ENDING_LIMIT_SECONDS"):
        monkeypatch.setattr(migration, name, 0.02)
    monkeypatch.setattr(migrate_order, "LOOK_SECONDS", 0.01)
    return made


def plan() -> migrate_plan.Plan:
    return migrate_plan.Plan(
        MOVE, OPEN, MigrationTarget("10.0.0.3"), None, None, FakeCluster(3).snapshot("n1")
    )


async def drive(site: Site, interrupted: int = 0) -> int:
    show = Show(as_json=True)
    stop = Interrupts(show, asks=False)
    survey = SimpleNamespace(hosts={"ctrl2": site}, ask=site.ask)
    for number in range(interrupted):
        asyncio.get_running_loop().call_later(0.05 * (number + 1), stop.interrupt)
    return await migrate_run.Drive(plan(), None, survey, show, stop).run()  # type: ignore[arg-type]


def events(told: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in told.splitlines()]


# -- how it ends ------------------------------------------------------------------------------------------


async def test_it_moves_and_closes_with_the_target(
    window: Window, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await drive(Site(lands("ctrl3"))) == 0
    assert window.closed_at == ["ctrl3"]
    told = events(capsys.readouterr().out)
    assert [event["phase"] for event in told if event["event"] == "phase"] == [
        "opening",
        "migrating",
        "closing",
    ]
    assert [event["event"] for event in told][-2:] == ["summary", "end"]
    assert told[-2]["window_closed"] is True
    assert told[-1]["exit"] == 0


async def test_a_window_that_does_not_open_begins_no_migration(window: Window) -> None:
    window.opening = Stop((Message("AGENT", "an agent failed"),), unfinished=False)
    site = Site(lands("ctrl3"))
    assert await drive(site) == 1
    assert (window.closed_at, site.states["ctrl2"]) == ([], GuestState.RUNNING)
    window.opening = Stop((Message("BUSY", "somebody"),), unfinished=True)
    assert await drive(site) == 3


async def test_a_window_that_does_not_close_is_not_finished_although_the_guest_has_moved(
    window: Window, capsys: pytest.CaptureFixture[str]
) -> None:
    window.closing = Stop((Message("PROOF", "not proven"),), unfinished=True)
    assert await drive(Site(lands("ctrl3"))) == 3
    told = events(capsys.readouterr().out)
    assert (told[-2]["now_on"], told[-2]["window_closed"]) == ("ctrl3", False)


async def test_a_cluster_that_does_not_answer_for_the_closing_leaves_an_open_window_and_says_so(
    window: Window, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nobody(*_: object) -> None:
        raise Refused(Message("NO_CLUSTER", "the cluster is not running on this node"))

    monkeypatch.setattr(window_run, "goal_of", nobody)
    assert await drive(Site(lands("ctrl3"))) == 3
    told = events(capsys.readouterr().out)
    assert told[-2]["next"] == "standfast window close guest2"


async def test_an_interruption_closes_with_the_source_and_is_a_failure(window: Window) -> None:
    site = Site()
    site.hangs = True
    assert await drive(site, interrupted=1) == 1
    assert (window.closed_at, site.cancels) == (["ctrl2"], 1)


async def test_a_second_interruption_closes_nothing(
    window: Window, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site()
    site.hangs, site.cancel_fails = True, 100
    assert await drive(site, interrupted=2) == 3
    assert window.closed_at == []
    codes = [event["code"] for event in events(capsys.readouterr().out) if event["event"] == "message"]
    assert codes[-1] == "LEFT_TO_LEASE"


# -- Ctrl-C at a terminal ---------------------------------------------------------------------------------


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield writing
        os.close(writing)


async def test_at_a_terminal_ctrl_c_asks_and_a_no_goes_on(keyboard: int) -> None:
    stop = Interrupts(Show(terminal=True), asks=True)
    stop.interrupt()
    os.write(keyboard, b"n\n")
    await asyncio.sleep(0.05)
    assert not stop.wanted.is_set()
    stop.interrupt()  # asks anew
    os.write(keyboard, b"y\n")
    await asyncio.sleep(0.05)
    assert stop.wanted.is_set()
    assert not stop.leave.is_set()


async def test_ctrl_c_at_its_own_question_leaves(keyboard: int) -> None:
    stop = Interrupts(Show(terminal=True), asks=True)
    stop.interrupt()
    stop.interrupt()
    assert stop.leave.is_set()
    stop.answered()


async def test_while_the_window_is_closed_there_is_nothing_to_ask_about(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = Interrupts(Show(), asks=True)
    stop.ask_no_more("the window is being closed")
    stop.interrupt()
    assert stop.wanted.is_set()
    assert "the window is being closed; Ctrl-C once more leaves" in capsys.readouterr().err


async def test_sigterm_never_asks() -> None:
    stop = Interrupts(Show(), asks=True)
    stop.terminate()
    assert stop.wanted.is_set()
    stop.terminate()
    assert stop.leave.is_set()


JIT = ("guest2", "--to", "ctrl3", "--raise", "just-in-time")

# -- the command line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["guest2"], "Missing option '--to'"),
        (["guest2", "--to", "ctrl3", "--budget", "3"], "is not in the range"),
        (["guest2", "--to", "ctrl3", "--mode", "frozen", "--budget", "none"], "a frozen window raises"),
        (["guest2", "--to", "ctrl3", "--target-user", "root"], "--target-password-file"),
        (["guest2", "--to", "ctrl3", "--cold", "--lease", "10"], "--cold opens no window"),
        ([*JIT, "--mode", "frozen"], "a frozen window raises at once"),
        ([*JIT, "--budget", "none"], "goes with --budget auto or SECONDS"),
        ([*JIT, "--budget", "601"], "600 s at most"),
        ([*JIT, "--budget", "19"], "at least 20"),
        ([*JIT, "--cold"], "goes without --raise just-in-time"),
        ([*JIT, "--postcopy"], "--postcopy goes without --raise just-in-time"),
        (["guest2", "--to", "ctrl3", "--postcopy", "--cold"], "--postcopy goes without --cold"),
    ],
)
def test_what_cannot_be_meant_is_usage(words: list[str], why: str) -> None:
    done = CliRunner().invoke(main, ["migrate", *words])
    assert done.exit_code == 2
    assert why in done.output


def test_a_refusal_is_one_event_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def driving(_: str) -> AsyncIterator[None]:
        raise Refused(Message("NOT_ROOT", "this needs root", next_command="sudo ..."))
        yield

    monkeypatch.setattr(window_run, "driving", driving)
    done = CliRunner().invoke(main, ["migrate", "guest2", "--to", "ctrl3", "--json"])
    assert done.exit_code == 1
    assert [event["event"] for event in events(done.output)] == ["message", "end"]


def test_completion_offers_every_option_guests_and_hosts() -> None:
    command = main.get_command(None, "migrate")  # type: ignore[arg-type]
    assert command is not None
    wanted = {word for parameter in command.params for word in parameter.opts if word.startswith("-")}
    assert wanted - set(complete("standfast", "migrate", "guest2", "-")) == set()
    assert "migrate" in complete("standfast", "mi")


# -- where to ---------------------------------------------------------------------------------------------


def test_control_domains_trust_each_other_unless_a_password_is_given(tmp_path: Path) -> None:
    listed = config.load(str(SAMPLE)).config
    order = Order("guest2", "ctrl3")
    assert migrate_plan.target_of(order, listed, MOVE) == MigrationTarget("10.20.50.73")
    secret = tmp_path / "password"
    secret.write_text("se cret\n")
    order = replace(order, password_file=str(secret))
    found = migrate_plan.target_of(order, listed, MOVE)
    assert (found.user, found.password) == ("standfast", "se cret")
    assert "se cret" not in repr(found)
    assert migrate_plan.target_of(replace(order, target_user="root"), listed, MOVE).user == "root"


LIBVIRT = """
format = 1
[[control_domain]]
name = "ctrl2"
address = "10.0.0.2"
kind = "libvirt"
login = "standfast"
[[control_domain]]
name = "ctrl3"
address = "10.0.0.3"
kind = "libvirt"
{more}
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('login = "standfast"', MigrationTarget("10.0.0.3", "standfast")),
        ('uri = "qemu+tls://h3/system"', MigrationTarget("10.0.0.3", uri="qemu+tls://h3/system")),
    ],
)
def test_libvirt_hosts_reach_each_other_by_uri_or_login(
    tmp_path: Path, more: str, expected: MigrationTarget
) -> None:
    path = tmp_path / "clovmmigrate.conf"
    path.write_text(LIBVIRT.format(more=more))
    listed = config.load(str(path)).config
    assert migrate_plan.target_of(Order("guest2", "ctrl3"), listed, MOVE) == expected
    with pytest.raises(Refused) as caught:
        migrate_plan.target_of(Order("guest2", "ctrl3", password_file="x"), listed, MOVE)
    assert [message.code for message in caught.value.messages] == ["NO_PASSWORD"]


def test_post_copy_is_for_libvirt_and_told_to_its_host(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        migrate_plan.target_of(Order("guest2", "ctrl3", postcopy=True), config.load(str(SAMPLE)).config, MOVE)
    assert [message.code for message in caught.value.messages] == ["NO_POSTCOPY"]
    path = tmp_path / "clovmmigrate.conf"
    path.write_text(LIBVIRT.format(more='login = "standfast"'))
    listed = config.load(str(path)).config
    target = migrate_plan.target_of(Order("guest2", "ctrl3", postcopy=True), listed, MOVE)
    assert target.postcopy
    host = LibvirtHost(LibvirtAccess("ctrl2", "test:///default"))
    domain = Domain("guest2", "11111111-2222-3333-4444-555555555555", 1, 1, active=True, persistent=True)
    words = host._migrate_words(domain, "qemu+ssh://ctrl3/system", target)
    assert " ".join(words).startswith(
        "migrate --p2p --live --persistent --undefinesource --postcopy --postcopy-"
    )
    stopped = replace(domain, active=False)
    assert "--postcopy" not in host._migrate_words(stopped, "qemu+ssh://ctrl3/system", target)


def test_the_risk_of_post_copy_stands_in_its_help() -> None:
    told = " ".join(CliRunner().invoke(main, ["migrate", "--help"]).output.split())
    assert "RISK: if the source or the network dies in this second phase, GUEST is lost" in told


# -- a raise just in time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [Done("raised"), None])
async def test_the_whole_move_with_a_raise_tells_what_it_came_to(
    window: Window, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raises: Done | None
) -> None:
    monkeypatch.setattr(migrate_raise, "LOOK_SECONDS", 0.001)
    source = Paced()
    own = Own(source)
    monkeypatch.setattr(cmap, "runtime", own.runtime)
    monkeypatch.setattr(cmap, "set_timers", own.set_timers)
    if raises is None:
        source.unpaced = "always"  # it cannot be held
    asked: list[bool] = []

    async def take(*, quick: bool) -> tuple[Snapshot, None]:
        asked.append(quick)
        return FakeCluster(3).snapshot("n1"), None

    monkeypatch.setattr(raising, "still_raised", lambda snapshot, goal: "" if snapshot.me == "n1" else "?")
    survey = SimpleNamespace(hosts={"ctrl2": source, "ctrl3": Target(source)}, ask=source.ask, take=take)
    show = Show(as_json=True)
    given = replace(plan(), goal=replace(OPEN, just_in_time=True), memory_bytes=512 * 1024 * 1024)
    driven = migrate_run.Drive(given, None, survey, show, Interrupts(show, asks=False))  # type: ignore[arg-type]
    code = await driven.run()
    told = events(capsys.readouterr().out)
    (page,) = [event for event in told if event["event"] == "summary"]
    found = page["just_in_time"]
    assert isinstance(found, dict)
    if raises is None:
        assert (code, window.closed_at, window.moved) == (1, ["ctrl2"], [])
        assert found["raised_seconds"] is None
        assert "NOT_RAISED" in [event.get("code") for event in told]
        return
    assert (code, window.closed_at, window.moved) == (0, ["ctrl3"], ["RaiseGoal", "LowerGoal"])
    assert found["budget_seconds"] == 20
    assert found["hold_seconds"] is None, "the raise was not late"
    assert not asked, "it was read back a moment ago"
    assert found["raised_seconds"] is not None
    assert found["lowered"] is True


def paced(host: object, budget: int | str | None) -> list[Message]:
    order = Order("guest2", "ctrl3", budget=budget, raises="just-in-time")
    survey = SimpleNamespace(hosts={"ctrl2": host})
    return migrate_plan._paced(order, survey, MOVE, FakeCluster(3).snapshot("n1"))  # type: ignore[arg-type]


def test_a_host_that_cannot_hold_the_copy_is_refused_with_what_to_type() -> None:
    (found,) = paced(Site(), None)
    assert found.code == "NOT_JUST_IN_TIME"
    assert found.next_command == (
        "standfast migrate guest2 --to ctrl3 --budget SECONDS, for the whole window"
    )


@pytest.mark.parametrize(("budget", "codes"), [(None, []), ("auto", []), (45, []), (10, ["NOT_RAISED"])])
def test_a_number_that_is_no_raise_is_refused_before_anything_is_begun(
    budget: int | str | None, codes: list[str]
) -> None:
    host = LibvirtHost(LibvirtAccess("ctrl2", "test:///default"))
    assert [message.code for message in paced(host, budget)] == codes


def test_the_number_is_not_raised_for_the_whole_window() -> None:
    wish = migrate_plan._wish(Order("guest2", "ctrl3", budget=45, raises="just-in-time"))
    assert (wish.budget_seconds, wish.raise_if_needed, wish.just_in_time) == (None, False, True)
    wish = migrate_plan._wish(Order("guest2", "ctrl3", budget="auto", raises="just-in-time"))
    assert (wish.budget_seconds, wish.raise_if_needed, wish.just_in_time) == (None, False, True)
    wish = migrate_plan._wish(Order("guest2", "ctrl3", budget=45))
    assert (wish.budget_seconds, wish.just_in_time) == (45, False)


# -- cold -------------------------------------------------------------------------------------------------


class Stopped(Site):
    """A stopped guest, whose definition lands where `end` puts it."""

    def __init__(self, end: object) -> None:
        super().__init__(end)  # type: ignore[arg-type]
        self.states = dict.fromkeys(HOSTS, GuestState.ABSENT) | {"ctrl2": GuestState.STOPPED}

    def moving(self) -> None:
        pass

    def kept_on(self, host: str) -> None:
        self.states = dict.fromkeys(HOSTS, GuestState.ABSENT) | {host: GuestState.STOPPED}


async def cold(site: Site, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(migrate_cold, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(migrate_cold, "LOOK_LIMIT_SECONDS", 0.1)
    survey = SimpleNamespace(hosts={"ctrl2": site}, ask=site.ask)
    return await migrate_cold.move(plan(), survey, Show(as_json=True))  # type: ignore[arg-type]


async def test_a_stopped_guest_moves_without_a_window_and_the_next_steps_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await cold(Stopped(lambda site: site.kept_on("ctrl3")), monkeypatch) == 0
    told = capsys.readouterr().out
    assert "ldm start-domain guest2 (on ctrl3), then standfast window close guest2 --to ctrl3" in told
    assert "its fencing still aims at ctrl2" in told


@pytest.mark.parametrize(
    "error",
    [
        MigrationRefused("ctrl2", "no room", may_have_happened=True),
        HostUnreachable("ctrl2", "cut", may_have_happened=True),
    ],
)
async def test_a_cold_move_that_fails_says_that_the_guest_is_where_it_was(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await cold(Stopped(lambda site: error), monkeypatch) == 1
    assert "still on ctrl2, stopped" in capsys.readouterr().out


async def test_a_guest_that_was_started_meanwhile_is_not_moved_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused) as caught:
        await cold(Site(lands("ctrl3")), monkeypatch)
    assert [message.code for message in caught.value.messages] == ["NOT_STOPPED"]
