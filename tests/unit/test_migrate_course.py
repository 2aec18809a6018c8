"""The order to migrate at hosts that fail in every way: looked at, cancelled once, never assumed."""

from __future__ import annotations

import asyncio
import gc
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from test_migration import HOSTS, MOVE

from standfast.commands import migrate_order
from standfast.commands.migrate_order import Course
from standfast.commands.migrate_show import Show
from standfast.commands.migrate_stop import Interrupts, Left
from standfast.core import migration
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.jobs import MigrationJob
from standfast.core.migration import CloseAt, Ended, LeaveOpen
from standfast.hosts.base import CommandFailed, HostUnreachable, MigrationRefused

G = GuestState


class Site:
    """A source host and what all hosts say: the guest is where it is, and moves when the host wants it."""

    def __init__(self, end: Callable[[Site], BaseException | None] = lambda site: None) -> None:
        self.states = dict.fromkeys(HOSTS, G.ABSENT) | {"ctrl2": G.RUNNING}
        self.end = end
        self.cancels = 0
        self.cancel_fails = 0
        self.stuck = asyncio.Event()
        self.hangs = False

    def moving(self) -> None:
        self.states |= {"ctrl2": G.MIGRATING_OUT, "ctrl3": G.INCOMING}

    def on(self, host: str) -> None:
        self.states = dict.fromkeys(HOSTS, G.ABSENT) | {host: G.RUNNING}

    async def ask(self, guests: Sequence[str]) -> dict[str, tuple[HostAnswer, ...]]:
        return {g: tuple(HostAnswer(h, g, s) for h, s in self.states.items()) for g in guests}

    async def migrate(self, guest: str, target: object, progress: Callable[..., None], limit: float) -> None:
        self.moving()
        progress(MigrationJob(guest, 40, False, "ctrl3", True))
        if self.hangs:
            await self.stuck.wait()
        if (error := self.end(self)) is not None:
            raise error

    async def cancel_migration(self, guest: str, limit_seconds: float) -> None:
        self.cancels += 1
        if self.cancels <= self.cancel_fails:
            raise CommandFailed("ctrl2", "no migration in progress")
        self.on("ctrl2")
        self.end = lambda site: MigrationRefused("ctrl2", "cancelled", may_have_happened=True)
        self.stuck.set()

    async def migration_job(self, guest: str) -> MigrationJob:
        return MigrationJob(guest, 50, False, "ctrl3", True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short limits and looks for an order and what comes after it."""
    for name in ("LATE_ORDER_SECONDS", "STEADY_SECONDS", "ENDING_LIMIT_SECONDS", "SILENT_LIMIT_SECONDS"):
        monkeypatch.setattr(migration, name, 0.05)
    for name in ("LOOK_SECONDS", "CANCEL_AGAIN_SECONDS"):
        monkeypatch.setattr(migrate_order, name, 0.01)


def course(site: Site, limit_seconds: float = 60.0) -> tuple[Course, Interrupts]:
    show = Show(as_json=True)
    stop = Interrupts(show, asks=False)
    plan = SimpleNamespace(move=MOVE, target=None, limit_seconds=limit_seconds)
    return Course(plan, {"ctrl2": site}, site.ask, show, stop), stop  # type: ignore[arg-type, dict-item]


def lands(host: str) -> Callable[[Site], None]:
    return lambda site: site.on(host)


async def ended(run: Course) -> tuple[Ended, CloseAt | LeaveOpen]:
    how = await run.migrate()
    return how, await run.found(how)


async def test_a_migration_that_ends_well_is_closed_at_the_target() -> None:
    run, _ = course(Site(lands("ctrl3")))
    assert await ended(run) == (Ended.DONE, CloseAt("ctrl3"))
    assert run.how(Ended.DONE, moved=True) is None


async def test_one_that_the_host_calls_failed_is_closed_where_the_guest_is() -> None:
    def failed(site: Site) -> MigrationRefused:
        site.on("ctrl2")
        return MigrationRefused("ctrl2", "Timed out", may_have_happened=True)

    run, _ = course(Site(failed))
    assert await ended(run) == (Ended.REFUSED, CloseAt("ctrl2"))
    message = run.how(Ended.REFUSED, moved=False)
    assert message is not None
    assert (message.code, "Timed out" in message.text) == ("MIGRATION_FAILED", True)


async def test_one_that_the_host_calls_failed_and_that_arrived_is_closed_at_the_target() -> None:
    def failed(site: Site) -> MigrationRefused:
        site.on("ctrl3")
        return MigrationRefused("ctrl2", "Timed out", may_have_happened=True)

    run, _ = course(Site(failed))
    assert await ended(run) == (Ended.REFUSED, CloseAt("ctrl3"))
    message = run.how(Ended.REFUSED, moved=True)
    assert message is not None
    assert message.code == "ARRIVED"


async def test_a_host_that_went_silent_is_followed_until_the_guest_has_arrived() -> None:
    site = Site(lambda site: HostUnreachable("ctrl2", "cut", may_have_happened=True))
    run, _ = course(site)
    how = await run.migrate()
    assert how is Ended.UNKNOWN
    asyncio.get_running_loop().call_later(0.2, site.on, "ctrl3")
    assert await run.found(how) == CloseAt("ctrl3")
    assert site.cancels == 0


async def test_a_host_that_was_never_reached_has_begun_nothing() -> None:
    def dead(site: Site) -> HostUnreachable:
        site.on("ctrl2")
        return HostUnreachable("ctrl2", "no connection")

    run, _ = course(Site(dead))
    assert await ended(run) == (Ended.NOT_BEGUN, CloseAt("ctrl2"))


async def test_a_migration_past_its_limit_is_cancelled() -> None:
    site = Site(lambda site: HostUnreachable("ctrl2", "no answer in time", may_have_happened=True))
    run, _ = course(site, limit_seconds=0.0)
    assert await ended(run) == (Ended.UNKNOWN, CloseAt("ctrl2"))
    assert site.cancels == 1
    message = run.how(Ended.UNKNOWN, moved=False)
    assert message is not None
    assert message.code == "MIGRATION_LIMIT"


async def test_an_interruption_cancels_once_and_closes_with_the_source() -> None:
    site = Site()
    site.hangs = True
    run, stop = course(site)
    asyncio.get_running_loop().call_later(0.05, stop.interrupt)
    assert await ended(run) == (Ended.REFUSED, CloseAt("ctrl2"))
    assert site.cancels == 1
    message = run.how(Ended.REFUSED, moved=False)
    assert message is not None
    assert message.code == "MIGRATION_CANCELLED"


async def test_a_host_that_has_not_begun_yet_is_told_to_cancel_again() -> None:
    site = Site()
    site.hangs, site.cancel_fails = True, 2
    run, stop = course(site)
    asyncio.get_running_loop().call_later(0.05, stop.interrupt)
    assert await ended(run) == (Ended.REFUSED, CloseAt("ctrl2"))
    assert site.cancels == 3


async def test_an_interruption_before_the_order_gives_none() -> None:
    site = Site(lands("ctrl3"))
    run, stop = course(site)
    stop.interrupt()
    assert await ended(run) == (Ended.NOT_BEGUN, CloseAt("ctrl2"))


async def test_a_second_interruption_leaves_at_once_and_cancels_nothing_more() -> None:
    site = Site()
    site.hangs, site.cancel_fails = True, 100
    run, stop = course(site)
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    loop.call_later(0.03, stop.interrupt)
    loop.call_later(0.06, stop.interrupt)
    with pytest.raises(Left):
        await run.migrate()
    gc.collect()
    assert complaints == []


async def test_an_order_that_fails_while_its_cancel_is_left_is_not_complained_of() -> None:
    site = Site()
    site.hangs = True
    run, stop = course(site)
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def scrubbing(guest: str, limit_seconds: float) -> None:
        site.end = lambda site: MigrationRefused("ctrl2", "cancelled", may_have_happened=True)
        site.stuck.set()
        await asyncio.sleep(60)

    site.cancel_migration = scrubbing  # type: ignore[method-assign]
    loop.call_later(0.03, stop.interrupt)
    loop.call_later(0.1, stop.interrupt)
    with pytest.raises(Left):
        await run.migrate()
    gc.collect()
    assert complaints == []


async def test_a_guest_that_is_on_no_host_is_left_with_what_to_type() -> None:
    def lost(site: Site) -> None:
        site.states = dict.fromkeys(HOSTS, G.ABSENT)

    run, _ = course(Site(lost))
    _, found = await ended(run)
    assert isinstance(found, LeaveOpen)
    assert found.message.code == "GUEST_STOPPED"


async def test_every_event_is_one_json_object_a_line() -> None:
    with redirect_stdout(io.StringIO()) as told:
        run, _ = course(Site(lands("ctrl3")))
        await ended(run)
    events = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["phase", "progress"]
    assert events[1]["progress_percent"] == 40
    assert all(event["seconds"] >= 0 for event in events)
