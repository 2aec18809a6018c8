"""The raise beside a migration at a host with libvirt that is played: held, raised, let go, lowered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_migrate_course import Site, hurry
from test_migration import HOSTS, MOVE

from standfast.cluster.cmap import CmapError
from standfast.cluster.run import EngineError
from standfast.commands import migrate_order, migrate_raise, migrate_read_back
from standfast.commands.migrate_order import Course
from standfast.commands.migrate_raise import Ground, JustInTime
from standfast.commands.migrate_show import Show
from standfast.commands.migrate_stop import Interrupts, Left
from standfast.core import holding, raising
from standfast.core.evidence import GuestState
from standfast.core.holding import MIB
from standfast.core.jobs import MigrationJob
from standfast.core.libvirt_events import HostEvent
from standfast.core.messages import Message
from standfast.core.migration import CloseAt, Ended
from standfast.core.steps import Done, Goal, LowerGoal, RaiseGoal, Stop
from standfast.hosts.base import CommandFailed, HostUnreachable, MigrationRefused, PacesMigration, TellsEvents

FULL = 1000
NEARER = f"speed {round(holding.NEAR_MIB / holding.NEAR_LEAD_SECONDS)}"
"""At this host a look takes no time."""
RAISED = ["raised", NEARER]
"""What a host and the cluster see until this node follows."""
HELD = ["speed 1", *RAISED]
"""The same where so little is left as the raise begins that the copy has to be held."""
LITTLE_MIB = 85.0


class Paced(Site):
    """A source that copies at the rate that it is told, and lets go once it is fast and little is left."""

    def __init__(self, left_mib: float = 200.0, *, empties: bool = False) -> None:
        super().__init__()
        self.left, self.iteration, self.speed, self.limit_ms = left_mib, 1, FULL, 0
        self.rate_mib, self.falls = 10.0, 10.0
        """What it tells of its speed, in a second; by how much less is left at each look."""
        self.empties = empties
        """The last of its memory goes at once, however slow the copy is."""
        self.told: list[str] = []
        self.left_at: list[float] = []
        """What was left at each new speed."""
        self.lost: Callable[[], BaseException] | None = None
        """How the session of the order breaks at the release."""
        self.switches = True
        self.ends = asyncio.Event()
        self.kept_speed = FULL
        self.unpaced = ""
        self.elapsed_ms: int | None = None
        self.dirty: float | None = 1.0 * MIB

    async def copy_rate(self, guest: str) -> int:
        return self.kept_speed

    async def set_copy_rate(self, guest: str, mib_per_second: int) -> None:
        if self.unpaced == "always" or (self.unpaced == "release" and mib_per_second != 1):
            raise CommandFailed("ctrl2", "no such job")
        self.speed = mib_per_second
        self.left_at.append(self.left)
        self.told.append(f"speed {mib_per_second}")
        if mib_per_second >= FULL and self.switches and self.states["ctrl3"] is GuestState.INCOMING:
            asyncio.get_running_loop().call_later(0.02, self.switched)

    async def set_downtime_limit(self, guest: str, milliseconds: int) -> None:
        self.told.append(f"limit {milliseconds}")

    async def dirty_bytes_per_second(self, guest: str) -> float | None:
        return self.dirty

    def switched(self) -> None:
        self.told.append("runs on")
        self.on("ctrl3")
        self.ends.set()

    async def migrate(self, guest: str, target: object, progress: Callable[..., None], limit: float) -> None:
        self.moving()
        await self.ends.wait()
        await asyncio.sleep(0.05)  # virsh ends some 0.3 s after the guest runs on
        if self.lost is not None:
            raise self.lost()
        if (error := self.end(self)) is not None:
            raise error

    async def cancel_migration(self, guest: str, limit_seconds: float) -> None:
        self.told.append("cancelled")
        await super().cancel_migration(guest, limit_seconds)
        self.ends.set()

    async def migration_job(self, guest: str) -> MigrationJob:
        falls = self.falls if self.speed != 1 else 0.05
        self.left = 0.0 if self.empties and self.speed == 1 else self.left - falls
        if self.left <= 0:
            self.iteration, self.left = 2, 0.1
        return MigrationJob(
            guest,
            50,
            False,
            "ctrl3",
            True,
            remaining_bytes=round(self.left * MIB),
            total_bytes=512 * MIB,
            rate_bytes_per_second=round(self.rate_mib * MIB),
            iteration=self.iteration,
            elapsed_ms=self.elapsed_ms,
        )


class Target:
    """Tells that the guest runs on."""

    def __init__(self, source: Paced, *, mute: bool = False) -> None:
        self.source, self.mute = source, mute

    async def events(self) -> AsyncIterator[HostEvent]:
        yield HostEvent("lifecycle", MOVE.guest, "Started Migrated")
        yield HostEvent("lifecycle", "another", "Resumed Migrated")
        if self.mute:
            raise HostUnreachable("ctrl3", "cut")
        await self.source.ends.wait()
        # Who has died, or was cancelled, tells of no guest.
        if "cancelled" not in self.source.told and self.source.states["ctrl2"] is not GuestState.RUNNING:
            yield HostEvent("lifecycle", MOVE.guest, "Resumed Migrated")
        await asyncio.Event().wait()


class Cluster:
    """Plays the raise and the lowering; notes their place among what the host was told."""

    def __init__(self, source: Paced) -> None:
        self.source = source
        self.raises: Done | Stop = Done("raised")
        self.lowers: Done | Stop = Done("lowered")
        self.takes = 0.02
        self.goals: list[Goal] = []

    def __call__(self, goal: Goal, limit_seconds: float) -> SimpleNamespace:
        self.goals.append(goal)

        async def run() -> Done | Stop:
            up = isinstance(goal, RaiseGoal)
            await asyncio.sleep(self.takes if up else 0)
            self.source.told.append("raised" if up else "lowered")
            return self.raises if up else self.lowers

        return SimpleNamespace(run=run)


class Own:
    """This node's corosync."""

    def __init__(self, source: Paced) -> None:
        self.source = source
        self.runs = {"token": 4545, "token_retransmit": 1082, "hold": 855, "consensus": 5454, "other": 1}
        self.refuses: dict[str, str] = {}

    def runtime(self) -> dict[str, int]:
        self._maybe("read")
        return dict(self.runs)

    def set_timers(self, values: Mapping[str, int]) -> None:
        word = "own up" if values["token"] > 4545 else "own down"
        self._maybe(word)
        self.runs = {**self.runs, **values}
        self.source.told.append(word)

    def _maybe(self, word: str) -> None:
        if word in self.refuses:
            raise CmapError(self.refuses[word])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(migrate_raise, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(holding, "WIDEN_SECONDS", 0.001)
    monkeypatch.setattr(raising, "still_raised", lambda seen, goal: seen)
    monkeypatch.setattr(migrate_read_back, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(migrate_raise, "CANCEL_AGAIN_SECONDS", 0.01)


class Play:
    """One move with a raise."""

    def __init__(
        self, source: Paced, *, asked: int | None = None, mute: bool = False, long_ago: bool = True
    ) -> None:
        self.source, self.cluster = source, Cluster(source)
        show = Show(as_json=True)
        self.stop = Interrupts(show, asks=False)
        self.own = Own(source)
        target = Target(source, mute=mute)
        self.changed = ""
        """Why it is not in force any more."""
        self.raises = JustInTime(MOVE, asked, source, target, show, self.cluster, self.seen, self.own)  # type: ignore[arg-type]
        if long_ago:  # what was read back is too old as the guest is let go
            self.raises._read_back.came = lambda: None  # type: ignore[method-assign]
        plan = SimpleNamespace(move=MOVE, target=None, limit_seconds=60.0)
        hosts = {"ctrl2": source}
        self.course = Course(plan, hosts, source.ask, show, self.stop, self.raises)  # type: ignore[arg-type]

    async def seen(self) -> str:
        """In place of a snapshot: what it would be judged as."""
        return self.changed

    async def run(self, memory_bytes: int | None = None) -> tuple[Ended, object]:
        await self.raises.prepare(Ground(7, 10.0, memory_bytes))
        how = await self.course.migrate()
        return how, await self.course.found(how)

    @property
    def said(self) -> str:
        assert self.raises.why is not None
        return f"{self.raises.why.code}: {self.raises.why.text}"


def test_what_is_played_has_what_the_real_ones_have() -> None:
    assert isinstance(Paced(), PacesMigration)
    assert isinstance(Target(Paced()), TellsEvents)


@pytest.mark.parametrize(("left_mib", "until"), [(200.0, RAISED), (LITTLE_MIB, HELD)])
async def test_raised_let_go_by_speed_then_limit_and_lowered_as_it_runs_on(
    left_mib: float, until: list[str]
) -> None:
    play = Play(Paced(left_mib))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert play.source.told == [
        *until, "own up", f"speed {FULL}", "limit 300", "runs on", "own down", "lowered",
    ]  # fmt: skip
    assert play.own.runs == Own(play.source).runs
    up, down = play.cluster.goals
    assert up == RaiseGoal(MOVE.node, 7, holding.LEAST_BUDGET_SECONDS)
    assert down == LowerGoal(7)
    figures = play.raises.figures
    assert figures.budget_seconds == 20
    assert (figures.hold_seconds is not None) is (until is HELD)
    assert figures.raised_seconds is not None
    assert figures.lowered_seconds is not None
    assert figures.raised_seconds < figures.lowered_seconds
    assert figures.lowered
    assert play.course.how(Ended.DONE, moved=True) is None


async def test_a_copy_with_little_left_is_let_go_from_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "SLIPPED_BYTES", 0)
    monkeypatch.setattr(holding, "NEAR_LEAD_SECONDS", 1000.0)
    source = Paced(LITTLE_MIB)
    assert await Play(source).run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:5] == ["speed 1", "raised", "own up", f"speed {FULL}", "limit 300"]


class Through(Paced):
    """Is through its first pass as soon as it was told that; what it shows then is less than can be held."""

    after = "raised"

    async def migration_job(self, guest: str) -> MigrationJob:
        if self.told[-1:] == [self.after]:
            self.iteration = 2
        return await super().migration_job(guest)


@pytest.mark.parametrize("after", ["raised", NEARER])
async def test_this_node_follows_at_once_where_the_pass_is_over_and_the_others_are_raised(after: str) -> None:
    source = Through(LITTLE_MIB)
    source.falls, source.after = 0.1, after
    play = Play(source)
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    at = source.told.index(after) + 1
    assert source.told[at : at + 3] == ["own up", f"speed {FULL}", "limit 300"]
    assert play.raises.in_force, "the guest was seen on its way after this node had followed"


async def test_one_that_is_gone_when_this_node_has_followed_is_told_as_not_raised() -> None:
    class Gone(Through):
        async def migration_job(self, guest: str) -> MigrationJob:
            if "own up" in self.told:
                raise HostUnreachable("ctrl2", "virsh: no such job")
            return await super().migration_job(guest)

    play = Play(Gone(LITTLE_MIB))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert not play.raises.in_force
    told = play.course.how(Ended.DONE, moved=True)
    assert told is not None
    assert told.code == "MOVED_UNRAISED"
    assert play.source.told[-2:] == ["own down", "lowered"]


@pytest.mark.parametrize("dirty", [1.0 * MIB, 9.0 * MIB])
async def test_a_node_that_stood_still_after_the_raise_lets_nobody_go(dirty: float) -> None:
    class Asleep(Paced):
        async def migration_job(self, guest: str) -> MigrationJob:
            self.elapsed_ms = (self.elapsed_ms or 0) + (9000 if "raised" in self.told else 100)
            return await super().migration_job(guest)

    source = Asleep()
    source.dirty = dirty
    play = Play(source)
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert "own up" not in source.told
    assert source.told[-2:] in (["cancelled", "lowered"], ["lowered", f"speed {FULL}"])
    assert "this node stood still" in play.said


class Busy(Paced):
    """Writes more than the link carries: no pass gets it further."""

    def __init__(self) -> None:
        super().__init__()
        self.dirty, self.switches, self.passes, self.looks = 9.0 * MIB, False, 3, 0

    async def migration_job(self, guest: str) -> MigrationJob:
        self.looks += 1
        self.falls = 0.0
        told = await super().migration_job(guest)
        self.iteration = min(1 + self.looks // 10, self.passes)
        left_mib = 200 if self.iteration == 1 else 24
        return replace(told, iteration=self.iteration, remaining_bytes=left_mib * MIB)

    async def set_downtime_limit(self, guest: str, milliseconds: int) -> None:
        await super().set_downtime_limit(guest, milliseconds)
        if milliseconds >= 2400:
            self.switched()


async def test_where_the_guest_writes_more_than_the_link_carries_this_node_follows_in_the_third_pass() -> (
    None
):
    source = Busy()
    play = Play(source)
    whole = play.own.set_timers
    seen: list[int] = []

    def noted(values: Mapping[str, int]) -> None:
        seen.append(source.iteration)
        whole(values)

    play.own.set_timers = noted  # type: ignore[method-assign]
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    limit = source.told[2]
    assert limit.startswith("limit 30"), "what is left takes 2.4 s, and the look some ms"
    assert source.told == ["raised", "own up", limit, "runs on", "own down", "lowered"]
    assert seen == [3, 3]
    assert play.raises.in_force


async def test_such_a_guest_that_has_calmed_down_meanwhile_is_followed_in_its_second_pass() -> None:
    class Calm(Busy):
        async def migration_job(self, guest: str) -> MigrationJob:
            told = await super().migration_job(guest)
            return replace(told, remaining_bytes=3 * MIB) if self.iteration == 2 else told

    source = Calm()
    play = Play(source)
    watching = asyncio.create_task(once(source, "limit 1125", source.switched))
    source.passes = 99
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    await watching
    assert source.told[:3] == ["raised", "own up", "limit 1125"]


async def test_a_copy_that_is_as_fast_as_it_was_let_may_converge_at_full_speed() -> None:
    """A small guest's first pass is slow because it was told to be: the link may carry much more."""
    source = Paced()
    source.dirty, source.rate_mib = 16.0 * MIB, 17.0
    play = Play(source)
    assert await play.run(512 * MIB) == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:4] == ["speed 18", "raised", "speed 18", "own up"], "as the first pass, paced"


async def test_what_comes_nearer_unseen_is_raised_after_half_of_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "PACED_LIMIT_SECONDS", 60.0)

    class Blind(Paced):
        blind = 0

        async def migration_job(self, guest: str) -> MigrationJob:
            if NEARER in self.told and "own up" not in self.told:
                self.blind += 1
                raise HostUnreachable("ctrl2", "virsh list: no answer within 5 s")
            return await super().migration_job(guest)

    source = Blind(76.0)
    source.falls, source.rate_mib = 0.1, 200.0
    play = Play(source)
    began = time.monotonic()
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:5] == [*HELD, "own up", f"speed {FULL}"]
    assert source.blind > 1, "it has waited, for some tenths of a second"
    assert time.monotonic() - began < 5.0
    assert play.raises.in_force, "it was seen on its way after this node had followed"


async def test_what_comes_nearer_too_slowly_is_let_go_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PACED_LIMIT_SECONDS", 0.0)
    source = Paced(LITTLE_MIB)
    source.falls = 0.1
    assert await Play(source).run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:4] == [*HELD, "own up"]
    assert source.left_at[2] > 70


async def test_a_copy_that_gets_slower_after_the_raise_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "NEARER_LIMIT_SECONDS", 0.05 - holding.LEAST_BUDGET_SECONDS)
    source = Paced()
    source.falls = 0.0
    watching = asyncio.create_task(once(source, "limit 300", source.switched))
    assert await Play(source).run() == (Ended.DONE, CloseAt("ctrl3"))
    await watching
    assert source.told[:3] == ["raised", "own up", "limit 300"]


async def test_it_comes_nearer_until_little_is_left() -> None:
    source = Paced(LITTLE_MIB)
    source.falls = 0.1
    source.left = 76.0
    play = Play(source)
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:5] == [*HELD, "own up", f"speed {FULL}"]
    held, nearer, released = source.left_at
    assert held > nearer > 70
    assert 2 < released < 60
    assert play.raises.in_force


async def test_one_that_has_gone_while_this_node_was_late_to_follow_is_told_as_not_raised() -> None:
    class Gone(Paced):
        async def migration_job(self, guest: str) -> MigrationJob:
            if "own up" in self.told:
                raise HostUnreachable("ctrl2", "virsh: no such job")
            return await super().migration_job(guest)

    source = Gone()
    play = Play(source)
    whole = play.own.set_timers

    def slowly(values: Mapping[str, int]) -> None:
        time.sleep(holding.NEAR_LEAD_SECONDS + 0.1)
        whole(values)

    play.own.set_timers = slowly  # type: ignore[method-assign]
    how, _ = await play.run()
    told = play.course.how(how, moved=True)
    assert told is not None
    assert told.code == "MOVED_UNRAISED"


async def test_a_speed_that_does_not_come_back_leaves_it_held_where_it_is() -> None:
    class Once(Paced):
        refusals = 1

        async def set_copy_rate(self, guest: str, mib_per_second: int) -> None:
            if mib_per_second != 1 and self.refusals:
                self.refusals -= 1
                raise CommandFailed("ctrl2", "no such job")
            await super().set_copy_rate(guest, mib_per_second)

    play = Play(Once(LITTLE_MIB))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert play.source.told[:4] == ["speed 1", "raised", "own up", f"speed {FULL}"]


async def test_an_interruption_while_it_comes_nearer_cancels_and_lets_nobody_go() -> None:
    source = Paced(76.0)
    play = Play(source)
    source.falls = 0.1
    watching = asyncio.create_task(once(source, NEARER, play.stop.interrupt))
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    await watching
    assert source.told == [*HELD, "cancelled", "lowered", f"speed {FULL}"]
    assert not play.raises.in_force


async def test_what_is_not_in_force_any_more_lets_nobody_go() -> None:
    play = Play(Paced())
    play.changed = "n3 does not run it any more"
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert f"speed {FULL}" not in play.source.told[: play.source.told.index("cancelled")]
    assert "limit 300" not in play.source.told
    assert play.source.told[-3:-1] == ["own down", "lowered"]
    assert "not raised any more: n3 does not run it" in play.said
    assert not play.raises.in_force


async def test_what_was_read_back_a_moment_ago_is_not_asked_for_again() -> None:
    play = Play(Paced(), long_ago=False)
    play.changed = "n3 does not run it any more"
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert play.raises.in_force


async def test_a_report_that_is_late_is_waited_for_as_it_is_asked_again() -> None:
    play = Play(Paced())
    answers = [EngineError("no answer within 5 s"), "standfastd of n3 does not report", ""]

    async def seen() -> str:
        found = answers.pop(0)
        if isinstance(found, EngineError):
            raise found
        return found

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert not answers
    assert play.raises.in_force


async def test_a_ring_that_has_formed_anew_since_the_raise_lets_nobody_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = Play(Paced())
    monkeypatch.setattr(migrate_read_back, "ring_number", lambda: len(play.source.told))
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert "the ring of this node has changed" in play.said


async def test_an_answer_that_is_too_old_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(Busy())
    asked: list[str] = []

    async def seen() -> str:
        asked.append(play.source.told[-1])
        if len(asked) == 1:
            play.raises._read_back._asked_at -= holding.STOOD_STILL_SECONDS
        return ""

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert asked == ["raised", "own up"]
    assert play.raises.in_force


@pytest.mark.parametrize("why", ["", "n3 does not run it any more"])
async def test_a_guest_that_goes_while_it_is_asked_is_lowered_at_once_and_judged_by_the_answer(
    why: str,
) -> None:
    play = Play(Paced())
    source = play.source

    async def seen() -> str:
        if "runs on" not in source.told:
            await once(source, "own up", source.switched)
        await once(source, "own down")
        return why

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[-3:] == ["runs on", "own down", "lowered"]
    told = play.course.how(Ended.DONE, moved=True)
    assert (told.code if told else "") == ("MOVED_UNRAISED" if why else "")


async def test_a_cluster_that_does_not_answer_as_it_is_asked_again_lets_nobody_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate_read_back, "LIMIT_SECONDS", 0.01)
    play = Play(Paced())

    async def seen() -> str:
        await asyncio.Event().wait()
        return ""

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert "does not answer here" in play.said


async def test_an_answer_that_came_after_the_switch_over_is_no_sight_of_a_guest_on_its_way() -> None:
    class Late(Through):
        async def migration_job(self, guest: str) -> MigrationJob:
            told = await super().migration_job(guest)
            return replace(told, remaining_bytes=0) if "own up" in self.told else told

    play = Play(Late(LITTLE_MIB))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert not play.raises.in_force
    told = play.course.how(Ended.DONE, moved=True)
    assert told is not None
    assert told.code == "MOVED_UNRAISED"


async def test_a_copy_that_nobody_sees_while_it_is_raised_is_held() -> None:
    class Blind(Paced):
        async def migration_job(self, guest: str) -> MigrationJob:
            if self.looks and "raised" not in self.told:
                raise HostUnreachable("ctrl2", "virsh list: no answer within 5 s")
            self.looks += 1
            return await super().migration_job(guest)

        looks = 0

    source = Blind(399.0)
    source.rate_mib = 1000.0
    play = Play(source)
    play.cluster.takes = 1.0
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told[:2] == ["speed 1", "raised"]


async def test_it_is_lowered_before_virsh_has_ended() -> None:
    play = Play(Paced())
    whole = play.source.migrate

    async def migrate(*given: object) -> None:
        await whole(*given)  # type: ignore[arg-type]
        await once(play.source, "lowered", lambda: None)
        play.source.told.append("virsh ended")

    play.source.migrate = migrate  # type: ignore[method-assign]
    await play.run()
    assert play.source.told.index("lowered") < play.source.told.index("virsh ended")


async def test_what_libvirt_tells_before_the_copy_has_begun_is_not_taken_for_its_end() -> None:
    source = Paced()
    whole, looks = source.migration_job, [0]

    async def job(guest: str) -> MigrationJob:
        looks[0] += 1
        if looks[0] < 4:
            return MigrationJob(guest, None, False, "", True, remaining_bytes=0, total_bytes=0)
        return await whole(guest)

    source.migration_job = job  # type: ignore[method-assign]
    assert await Play(source).run() == (Ended.DONE, CloseAt("ctrl3"))


async def test_without_events_the_end_of_the_order_lowers_it() -> None:
    play = Play(Paced(), mute=True)
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    assert play.source.told[-3:] == ["runs on", "own down", "lowered"]


async def test_a_number_is_what_it_is_raised_to() -> None:
    play = Play(Paced(), asked=45)
    await play.run()
    assert play.cluster.goals[0] == RaiseGoal(MOVE.node, 7, 45)


async def test_a_guest_that_writes_all_the_time_is_allowed_a_longer_blackout_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "LONGER_SECONDS", 0.01)
    source = Paced()
    source.switches = False
    play = Play(source)
    watching = asyncio.create_task(once(source, "limit 2400", source.switched))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    await watching
    told = [word for word in source.told if word.startswith("limit")]
    assert told[:4] == ["limit 300", "limit 600", "limit 1200", "limit 2400"]
    assert source.told[-1] == "lowered"


@pytest.mark.parametrize("left", [1, 18])
async def test_a_speed_that_a_killed_command_has_left_is_not_taken_for_the_guests_own(left: int) -> None:
    source = Paced(LITTLE_MIB)
    source.kept_speed = left
    play = Play(source)
    await play.run(512 * MIB)
    assert source.told[0] == ("speed 18" if left == 1 else "speed 1")
    assert f"speed {holding.FULL_RATE_MIB_PER_SECOND}" in source.told


async def test_a_small_guest_is_sent_slowly_until_it_is_held_and_gets_its_speed_back() -> None:
    play = Play(Paced(LITTLE_MIB))
    await play.run(512 * MIB)
    assert play.source.told[:6] == ["speed 18", "speed 1", "raised", "speed 18", "own up", f"speed {FULL}"]


async def test_an_order_that_fails_before_the_hold_gives_the_speed_back_too() -> None:
    source = Paced(left_mib=1e9)

    def fails(site: Site) -> MigrationRefused:
        site.on("ctrl2")
        return MigrationRefused("ctrl2", "no room", may_have_happened=True)

    source.end = fails
    source.ends.set()
    play = Play(source, mute=True)
    assert await play.run(512 * MIB) == (Ended.REFUSED, CloseAt("ctrl2"))
    assert source.told == ["speed 18", f"speed {FULL}"]
    assert not play.cluster.goals


async def test_one_that_has_moved_before_it_could_be_held_has_taken_its_speed_along(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Paced(left_mib=1e9)
    source.end = lambda site: site.on("ctrl3")
    source.ends.set()
    play = Play(source, mute=True)
    assert await play.run(512 * MIB) == (Ended.DONE, CloseAt("ctrl3"))
    assert source.told == ["speed 18"]
    assert "STILL_HELD" not in capsys.readouterr().out


async def test_the_targets_word_is_not_kept_waiting_by_a_source_that_answers_nothing_in_the_blackout() -> (
    None
):
    class Still(Paced):
        async def set_downtime_limit(self, guest: str, milliseconds: int) -> None:
            await asyncio.Event().wait()

    play = Play(Still())
    assert await asyncio.wait_for(play.run(), 20.0) == (Ended.DONE, CloseAt("ctrl3"))
    assert play.source.told[-3:] == ["runs on", "own down", "lowered"]


async def test_what_a_pass_has_left_is_allowed_at_once() -> None:
    source = Paced()
    source.switches = False
    whole = source.migration_job

    async def job(guest: str) -> MigrationJob:
        told = await whole(guest)
        if "limit 300" not in source.told:
            return told
        return replace(told, iteration=3, remaining_bytes=24 * MIB)

    source.migration_job = job  # type: ignore[method-assign]
    play = Play(source)
    watching = asyncio.create_task(once(source, "limit 3000", source.switched))
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    await watching
    assert [word for word in source.told if word.startswith("limit")] == ["limit 300", "limit 3000"]


# -- what goes wrong ----------------------------------------------------------------------------------------


def cut() -> HostUnreachable:
    """The session of the order breaks; its migration may go on at the host."""
    return HostUnreachable("ctrl2", "cut", may_have_happened=True)


async def cancelled_without_a_word(source: Paced) -> Play:
    """The session breaks after the release, and the guest does not switch over: cancelled, then lowered."""
    source.switches = False
    source.lost = cut
    play = Play(source, mute=True)
    breaking = asyncio.create_task(once(source, "limit 300", source.ends.set))
    assert await play.run() == (Ended.UNKNOWN, CloseAt("ctrl2"))
    await breaking
    told = source.told[source.told.index("limit 300") + 1 :]
    assert told[:3] == ["cancelled", "own down", "lowered"]
    return play


async def once(source: Paced, told: str, *then: Callable[[], object]) -> None:
    """As soon as the host was told that."""
    while told not in source.told:  # noqa: ASYNC110 - the host has no event for it
        await asyncio.sleep(0.001)
    for do in then:
        do()
        await asyncio.sleep(0.01)


def not_raised(why: str = "n3 did not take it") -> Stop:
    return Stop((Message("NOT_RAISED", why, next_command="look"),), unfinished=True)


async def test_a_raise_that_fails_cancels_lowers_and_gives_the_speed_back() -> None:
    play = Play(Paced(LITTLE_MIB))
    play.cluster.raises = not_raised()
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert play.source.told == ["speed 1", "raised", "cancelled", "lowered", f"speed {FULL}"]
    assert "n3 did not take it" in play.said
    message = play.course.how(Ended.REFUSED, moved=False)
    assert message is play.raises.why


@pytest.mark.parametrize("refuses", ["read", "own up"])
async def test_a_node_that_cannot_raise_itself_lets_nobody_go(refuses: str) -> None:
    play = Play(Paced(LITTLE_MIB))
    play.own.refuses[refuses] = "corosync does not take token 9090"
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    # Where nobody knows what it runs now, its old timers are set all the same.
    told = [word for word in play.source.told if word != "own down"]
    assert told == [*HELD, "cancelled", "lowered", f"speed {FULL}"]
    assert ("own down" in play.source.told) is (refuses == "own up")
    assert "does not take token 9090" in play.said
    assert not play.raises.in_force


async def test_a_node_that_cannot_lower_itself_at_once_is_lowered_with_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    play = Play(Paced())
    play.own.refuses["own down"] = "no answer"
    assert await play.run() == (Ended.DONE, CloseAt("ctrl3"))
    figures = play.raises.figures
    assert figures.raised_seconds == figures.lowered_seconds is not None
    assert "not lowered on this node at once, but with the others: no answer" in capsys.readouterr().out


async def test_a_hold_that_slips_before_the_raise_is_read_back_is_cancelled_and_never_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "HELD_LOOK_MOST_SECONDS", 0.01)
    monkeypatch.setattr(holding, "HELD_LOOK_LEAST_SECONDS", 0.01)
    play = Play(Paced(LITTLE_MIB, empties=True))
    play.cluster.takes = 0.3
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert play.source.told == ["speed 1", "cancelled", "raised", "lowered", f"speed {FULL}"]
    assert "slipped before every member" in play.said


async def test_a_copy_that_was_never_seen_in_its_first_pass_is_cancelled() -> None:
    source = Paced()
    source.iteration = 2
    play = Play(source)
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert source.told == ["cancelled"]
    assert not play.cluster.goals


async def test_a_host_that_does_not_slow_down_is_cancelled() -> None:
    source = Paced(LITTLE_MIB)
    source.unpaced = "always"
    play = Play(source)
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert "could not be held" in play.said
    assert source.told[-1] == "lowered"
    assert not play.raises.in_force


async def test_raised_and_not_switched_over_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "SWITCH_LIMIT_SECONDS", -19.8)
    source = Paced()
    source.switches = False
    play = Play(source)
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert source.told[-3:] == ["cancelled", "own down", "lowered"]
    assert "had not switched over" in play.said


async def test_a_prediction_above_what_auto_takes_raises_nothing_and_cancels() -> None:
    source = Paced()

    async def busy(guest: str) -> float:
        return 2e9 * MIB

    source.dirty_bytes_per_second = busy  # type: ignore[method-assign, assignment]
    play = Play(source)
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    assert source.told == ["cancelled"]
    assert not play.cluster.goals


async def test_an_interruption_while_it_is_held_cancels_and_then_lowers() -> None:
    play = Play(Paced(LITTLE_MIB))
    play.cluster.takes = 0.3
    watching = asyncio.create_task(once(play.source, "speed 1", play.stop.interrupt))
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    await watching
    told = play.source.told
    assert told.index("cancelled") < told.index("lowered")
    assert "limit 300" not in told
    message = play.course.how(Ended.REFUSED, moved=False)
    assert message is not None
    assert message.code == "MIGRATION_CANCELLED"


async def test_a_second_interruption_leaves_at_once_what_is_raised_to_the_nodes() -> None:
    source = Paced(LITTLE_MIB)
    source.cancel_fails = 100
    play = Play(source)
    play.cluster.takes = 5.0
    watching = asyncio.create_task(once(source, "speed 1", play.stop.interrupt, play.stop.interrupt))
    await play.raises.prepare(Ground(7, 10.0))
    with pytest.raises(Left):
        await play.course.migrate()
    await watching
    assert "lowered" not in source.told


@pytest.mark.parametrize("after", ["speed 1", "raised"])
async def test_a_target_that_dies_while_held_lowers_and_closes_at_the_source(after: str) -> None:
    source = Paced(LITTLE_MIB)
    play = Play(source)
    play.cluster.takes = 0.05
    source.switches = False

    def dies() -> None:
        source.on("ctrl2")
        source.end = lambda site: MigrationRefused(
            "ctrl2", "Connection reset by peer", may_have_happened=True
        )
        source.ends.set()

    watching = asyncio.create_task(once(source, after, dies))
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    await watching
    assert "lowered" in source.told
    assert source.speed == FULL


async def test_an_order_whose_session_broke_is_lowered_when_the_target_tells_that_it_runs_on() -> None:
    source = Paced()
    source.switches = False
    source.lost = cut
    play = Play(source)

    # The session breaks, and the target tells.
    watching = asyncio.create_task(once(source, "limit 300", source.ends.set, lambda: source.on("ctrl3")))
    assert await play.run() == (Ended.UNKNOWN, CloseAt("ctrl3"))
    await watching
    assert source.told[-1] == "lowered"


@pytest.mark.parametrize("at", ["speed 1", "raised", "own up"])
async def test_an_order_whose_session_broke_is_raised_for_all_the_same(at: str) -> None:
    source = Paced(LITTLE_MIB)
    source.switches = False
    source.lost = cut
    play = Play(source)
    play.cluster.takes = 0.1
    whole = source.switched
    breaking = asyncio.create_task(once(source, at, source.ends.set))
    moving = asyncio.create_task(once(source, "limit 300", whole))
    # The target is mute where the session of its events breaks, too.
    play.raises._target = Target(source, mute=True)  # type: ignore[assignment]

    async def tells() -> None:
        await once(source, "runs on", play.raises._resumed.set)

    telling = asyncio.create_task(tells())
    assert await play.run() == (Ended.UNKNOWN, CloseAt("ctrl3"))
    for task in (breaking, moving, telling):
        await task
    assert source.told == [
        *HELD, "own up", f"speed {FULL}", "limit 300", "runs on", "own down", "lowered",
    ]  # fmt: skip
    assert play.raises.in_force


async def test_a_session_that_breaks_while_it_is_asked_once_more_takes_nothing_back() -> None:
    source = Paced()
    source.switches = False
    broken = asyncio.Event()

    def lost() -> HostUnreachable:
        broken.set()
        return cut()

    source.lost = lost
    play = Play(source)
    play.raises._target = Target(source, mute=True)  # type: ignore[assignment]

    async def seen() -> str:
        await once(source, "own up", source.ends.set)
        await broken.wait()
        await asyncio.sleep(0.01)  # the order ends with the loop's next turn
        return ""

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    moving = asyncio.create_task(once(source, "limit 300", source.switched, play.raises._resumed.set))
    assert await play.run() == (Ended.UNKNOWN, CloseAt("ctrl3"))
    await moving
    assert source.told[-4:] == ["limit 300", "runs on", "own down", "lowered"]
    assert play.raises.in_force


async def test_an_order_that_was_never_given_ends_at_once() -> None:
    source = Paced(1e9)
    source.lost = lambda: HostUnreachable("ctrl2", "no answer within 5 s")
    source.ends.set()
    play = Play(source, mute=True)
    how, _ = await asyncio.wait_for(play.run(), 10.0)
    assert how is Ended.NOT_BEGUN
    assert not play.cluster.goals


async def test_an_order_without_a_word_whose_migration_nobody_sees_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate_raise, "UNSEEN_LIMIT_SECONDS", 0.05)

    class Gone(Paced):
        async def migration_job(self, guest: str) -> None:  # type: ignore[override]
            return None

    source = Gone()

    def lost() -> HostUnreachable:
        source.on("ctrl3")
        return cut()

    source.lost = lost
    source.ends.set()
    play = Play(source, mute=True)
    how, found = await asyncio.wait_for(play.run(), 10.0)
    assert (how, found) == (Ended.UNKNOWN, CloseAt("ctrl3"))
    assert not play.cluster.goals


async def test_a_cancel_that_gets_no_answer_is_tried_again_before_it_is_lowered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "SWITCH_LIMIT_SECONDS", -19.8)

    class Mute(Paced):
        tries = 0

        async def cancel_migration(self, guest: str, limit_seconds: float) -> None:
            self.tries += 1
            if self.tries < 3:
                raise HostUnreachable("ctrl2", "virsh domjobinfo: no answer within 5 s")
            await super().cancel_migration(guest, limit_seconds)

    source = Mute()
    await cancelled_without_a_word(source)
    assert source.tries == 3


async def test_what_had_arrived_without_a_word_is_not_told_as_unraised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "SWITCH_LIMIT_SECONDS", -19.8)

    class Left(Paced):
        async def cancel_migration(self, guest: str, limit_seconds: float) -> None:
            raise CommandFailed("ctrl2", f"no migration of {guest} from this host to cancel")

    source = Left()
    source.lost = cut
    play = Play(source, mute=True)
    assert await play.run() == (Ended.UNKNOWN, CloseAt("ctrl3"))
    assert play.raises.in_force
    told = play.course.how(Ended.UNKNOWN, moved=True)
    assert told is not None
    assert told.code == "ARRIVED"


async def test_what_went_on_without_a_word_is_cancelled_before_it_is_lowered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "SWITCH_LIMIT_SECONDS", -19.8)
    play = await cancelled_without_a_word(Paced())
    assert not play.raises.in_force


async def test_after_an_interruption_no_longer_blackout_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "LONGER_SECONDS", 0.01)
    source = Paced()
    source.switches = False
    source.cancel_fails = 3
    monkeypatch.setattr(migrate_order, "CANCEL_AGAIN_SECONDS", 0.05)
    play = Play(source)
    watching = asyncio.create_task(once(source, "limit 600", play.stop.interrupt))
    assert await play.run() == (Ended.REFUSED, CloseAt("ctrl2"))
    await watching
    told = [word for word in source.told if word.startswith("limit")]
    assert told in (["limit 300", "limit 600"], ["limit 300", "limit 600", "limit 1200"])


async def test_a_defect_beside_the_order_cancels_and_lowers_before_it_is_told() -> None:
    play = Play(Paced())

    async def seen() -> str:
        raise RuntimeError("a defect")

    play.raises._read_back._seen = seen  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="a defect"):
        await play.run()
    assert play.source.told[-3:] == ["cancelled", "own down", "lowered"] or (
        play.source.told[-4:-1] == ["cancelled", "own down", "lowered"]
    )


async def test_what_cannot_be_lowered_is_said_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    play = Play(Paced())
    play.cluster.lowers = Stop((Message("STALLED", "the cluster cannot be written"),), unfinished=True)
    await play.run()
    told = capsys.readouterr().out
    assert "NOT_LOWERED" in told
    assert "standfast window lower" in told
    assert not play.raises.figures.lowered


async def test_a_speed_that_does_not_come_back_is_said_with_what_to_type(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Paced(LITTLE_MIB)
    source.unpaced = "release"
    play = Play(source)
    play.cluster.raises = not_raised()
    await play.run()
    told = capsys.readouterr().out
    assert "STILL_HELD" in told
    assert f"virsh migrate-setspeed {MOVE.guest} {FULL} (on ctrl2)" in told


def test_every_host_of_the_move_is_known() -> None:
    assert {MOVE.source, MOVE.target} <= set(HOSTS)


async def test_a_speed_that_cannot_be_set_means_no_order_at_all() -> None:
    play = Play(Paced())
    play.source.unpaced = "always"
    how, _ = await play.run(512 * MIB)
    assert how is Ended.NOT_BEGUN
    assert play.source.told == []
    assert "how fast guest2 is sent could not be set" in play.said


async def test_a_speed_is_set_at_the_second_try() -> None:
    class Late(Paced):
        tries = 0

        async def copy_rate(self, guest: str) -> int:
            self.tries += 1
            if self.tries == 1:
                raise HostUnreachable("ctrl2", "virsh migrate-getspeed: no answer within 10 s")
            return await super().copy_rate(guest)

    play = Play(Late())
    await play.run(512 * MIB)
    assert play.source.told[0] == "speed 18"
    assert play.raises.in_force


async def test_a_guest_that_moved_before_anybody_could_look_is_told_as_not_raised() -> None:
    class Blind(Paced):
        async def migration_job(self, guest: str) -> MigrationJob:
            raise HostUnreachable("ctrl2", "virsh list: no answer within 5 s")

        async def migrate(self, *given: object) -> None:
            self.switched()

    play = Play(Blind())
    how, found = await play.run(512 * MIB)
    assert (how, getattr(found, "host", "")) == (Ended.DONE, "ctrl3")
    told = play.course.how(how, moved=True)
    assert told is not None
    assert told.code == "MOVED_UNRAISED"
    assert not play.cluster.goals


async def test_who_is_stopped_before_the_order_gives_the_speed_back() -> None:
    play = Play(Paced())
    await play.raises.prepare(Ground(7, 10.0, 512 * MIB))
    play.stop.wanted.set()
    assert await play.course.migrate() is Ended.NOT_BEGUN
    assert play.source.told == ["speed 18", f"speed {FULL}"]


async def test_a_first_speed_that_was_perhaps_set_is_taken_back_or_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    play = Play(Paced())
    play.source.unpaced = "always"
    await play.run(512 * MIB)
    assert "STILL_HELD" in capsys.readouterr().out


async def test_what_a_guest_writes_is_the_mean_of_what_was_measured() -> None:
    source = Paced()
    told: list[float | Exception] = [CommandFailed("ctrl2", "busy"), 2.0 * MIB, 4.0 * MIB]

    async def measured(guest: str) -> float | None:
        found = told.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    source.dirty_bytes_per_second = measured  # type: ignore[method-assign]
    play = Play(source)
    await play.raises.prepare(Ground(7, 10.0))
    assert play.raises.copy.dirty == 3.0 * MIB
    told[:] = [5.0 * MIB, 7.0 * MIB, 9.0 * MIB]
    await play.raises.prepare(Ground(7, 10.0))
    assert play.raises.copy.dirty == 7.0 * MIB
