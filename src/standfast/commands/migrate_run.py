"""Drives ``standfast migrate``: open, migrate, look, close. What follows from each end: `core.migration`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import click

from standfast.commands import migrate_cold, window_run
from standfast.commands.migrate import Order
from standfast.commands.migrate_copy import Source
from standfast.commands.migrate_order import Course
from standfast.commands.migrate_plan import Plan, memory_bytes, prepared
from standfast.commands.migrate_raise import Ground, JustInTime
from standfast.commands.migrate_show import PROGRAM, Show
from standfast.commands.migrate_stop import Interrupts, Left
from standfast.commands.migrate_text import Summary
from standfast.commands.migrate_watch import Watcher
from standfast.commands.window_run import EXIT_DONE, EXIT_REFUSED, EXIT_UNFINISHED
from standfast.config import Config
from standfast.core import heartbeat, members
from standfast.core.messages import Refused
from standfast.core.migration import Ended, LeaveOpen, left_to_lease
from standfast.core.steps import CloseGoal, Done, Goal, Snapshot, Stop
from standfast.execute import Executor
from standfast.survey import Survey

RETURN_LIMIT_SECONDS = 120.0
"""A guest that ran again was a member after 33 s in the slowest run measured."""
TICK_SECONDS = 1.0


async def work(order: Order, show: Show) -> int:
    """Carry out the order; its exit status. Raises Refused."""
    async with window_run.driving(PROGRAM) as (config, survey):
        show.enter("preflight", f"preflight of {order.guest}")
        plan = await prepared(order, config, survey)
        show.event("preflight", **plan.as_json())
        asks = sys.stdin.isatty() and show.terminal and not (order.yes or order.as_json)
        if order.dry_run or asks:
            for line in plan.lines(cold=order.cold):
                show.say(line)
        if order.dry_run:
            return show.end(EXIT_DONE, "nothing was changed (dry run)")
        if asks:
            click.confirm(f"Move {plan.move.guest} to {plan.move.target} now?", abort=True, err=True)
        if order.cold:
            return await migrate_cold.move(plan, survey, show)
        stop = Interrupts(show, asks=asks)
        async with stop.heard():
            return await Drive(plan, config, survey, show, stop).run()


class Drive:
    """One migration, from an open window to a closed one."""

    def __init__(self, plan: Plan, config: Config, survey: Survey, show: Show, stop: Interrupts) -> None:
        self._plan, self._config, self._survey = plan, config, survey
        self._show, self._stop = show, stop
        move = plan.move
        self._page = Summary(move.guest, move.node, move.source, move.target)
        self._opened_at: float | None = None
        self._left = window_run.NOT_FINISHED
        """The last line where it cannot be finished."""

    async def run(self) -> int:
        """Its exit status."""
        try:
            return await self._run()
        except Left:
            ends = window_run.clock(self._plan.goal.lease_seconds)
            self._show.tell(left_to_lease(self._plan.move, ends))
        except Refused as refused:
            # The cluster does not answer here any more: nothing is closed from this node.
            for message in refused.messages:
                self._show.tell(replace(message, next_command=f"standfast window close {self._page.guest}"))
        return self._show.end(EXIT_UNFINISHED, self._left)

    async def _run(self) -> int:
        if (refused := await self._stop.through(self._open())) is not None:
            return refused
        watcher = Watcher(self._plan.move.node, self._plan.snapshot.members)
        async with watcher.looking(), self._ticking():
            code, how, text = await self._course(watcher)
            await watcher.look()
        return self._end(code, how, text, watcher)

    async def _course(self, watcher: Watcher) -> tuple[int, str, str]:
        """With the window open: exit status, how it went in a word, and the last line."""
        guest, target = self._plan.move.guest, self._plan.move.target
        raises = await self._stop.through(self._just_in_time())
        course = Course(self._plan, self._survey.hosts, self._survey.ask, self._show, self._stop, raises)
        ended = await course.migrate()
        found = await self._stop.through(course.found(ended))
        self._show.migrated()
        self._stop.answered()
        self._note(course, ended)
        self._page.just_in_time = raises.figures if raises is not None else None
        if isinstance(found, LeaveOpen):
            self._show.tell(found.message)
            return EXIT_UNFINISHED, "not finished", ""
        moved = found.host == target
        how, self._page.now_on = "moved" if moved else "not moved", found.host
        if (message := course.how(ended, moved=moved)) is not None:
            self._show.tell(message)
        if (trouble := await self._stop.through(self._close(found.host, watcher))) is not None:
            return trouble, how, ""
        if moved:
            return EXIT_DONE, how, f"{guest} is on {target}, and fencing is proven there"
        return EXIT_REFUSED, how, f"{guest} is on {found.host} as before, and the window is closed"

    async def _just_in_time(self) -> JustInTime | None:
        """What raises the heartbeat beside the order, where that was asked for; the window is open."""
        if not self._plan.goal.just_in_time:
            return None
        move, hosts = self._plan.move, self._survey.hosts
        source = cast(Source, hosts[move.source])  # the preflight has looked
        snapshot, _ = await window_run.look(self._survey)
        window = snapshot.record.window if snapshot.record is not None else 0
        longest_seconds = members.longest_timeout_seconds(snapshot.reports)
        asked = self._plan.raise_seconds
        target = hosts[move.target]
        raises = JustInTime(move, asked, source, target, self._show, self._executor, self._seen)
        memory = self._plan.memory_bytes or await memory_bytes(self._survey, move)
        if memory is None:
            raises.give_up(f"{move.source} does not tell the memory of {move.guest}")
        else:
            await raises.prepare(Ground(window, longest_seconds, memory))
        return raises

    async def _seen(self) -> Snapshot:
        return (await self._survey.take(quick=True))[0]

    def _executor(self, goal: Goal, limit_seconds: float) -> Executor:
        return Executor(self._survey, goal, self._show.say, limit_seconds)

    # -- the window ---------------------------------------------------------------------------------------

    async def _open(self) -> int | None:
        """None: it is open. Else the exit status, and all is said."""
        goal, began = self._plan.goal, time.monotonic()
        self._show.enter("opening", f"opening a {goal.mode.value} window for {self._plan.move.guest}")
        outcome = await Executor(self._survey, goal, self._show.say).run()
        if not isinstance(outcome, Done):
            code = self._stopped(outcome)
            return self._show.end(code, self._left if outcome.unfinished else "")
        for warning in outcome.warnings:
            self._show.tell(warning)
        self._opened_at = time.monotonic()
        self._page.opening_seconds = self._opened_at - began
        ends = window_run.clock(goal.lease_seconds)
        self._show.say(f"open; its lease ends at {ends} ({goal.lease_seconds // 60} min)")
        await self._timeout()
        return None

    async def _timeout(self) -> None:
        """The heartbeat timeout that is in force now, for the page."""
        with contextlib.suppress(Refused):
            await self._look_at_timeout()

    async def _look_at_timeout(self) -> None:
        snapshot, _ = await window_run.look(self._survey)
        report = snapshot.reports.get(snapshot.me)
        if report is not None and report.runtime:
            self._page.timeout_seconds = heartbeat.timeout_ms(report.runtime) / 1000
        self._page.raised = bool(snapshot.record is not None and snapshot.record.budget_seconds)

    async def _close(self, host: str, watcher: Watcher) -> int | None:
        """None: it is closed. Else the exit status."""
        move = self._plan.move
        self._show.enter("closing", f"closing the window with {move.guest} on {host}")
        self._stop.ask_no_more("the window is being closed")
        await watcher.returned(RETURN_LIMIT_SECONDS, self._show.say)
        began = time.monotonic()
        wish = window_run.Wish(False, (move.guest, host), False, None, None, (), (), "")
        goal = await window_run.goal_of(wish, self._config, self._survey, PROGRAM)
        assert isinstance(goal, CloseGoal)
        outcome = await Executor(self._survey, goal, self._show.say).run()
        self._page.closing_seconds = time.monotonic() - began
        if not isinstance(outcome, Done):
            return self._stopped(outcome)
        for warning in outcome.warnings:
            self._show.tell(warning)
        self._page.closed = True
        with contextlib.suppress(Refused):
            await window_run.tidy(goal, self._survey, self._show.say)
            snapshot, _ = await window_run.look(self._survey)
            running = (node for node in sorted(snapshot.members) if members.facility_runs(snapshot, node))
            self._page.proven_from = tuple(running)
        return None

    def _stopped(self, outcome: Stop) -> int:
        for message in outcome.messages:
            self._show.tell(message)
        self._left = window_run.not_finished(outcome)
        return EXIT_UNFINISHED if outcome.unfinished or self._opened_at is not None else EXIT_REFUSED

    # -- the page -----------------------------------------------------------------------------------------

    def _note(self, course: Course, ended: Ended) -> None:
        self._page.begun = ended is not Ended.NOT_BEGUN
        self._page.migration_seconds = course.seconds if self._page.begun else None
        self._page.last = self._show.last
        if self._show.last is not None and self._show.last.done:
            self._page.hypervisor_ms = self._show.last.downtime_ms

    def _end(self, code: int, how: str, text: str, watcher: Watcher) -> int:
        page, seen = self._page, watcher.seen
        page.how = how
        if self._opened_at is not None:
            page.open_seconds = time.monotonic() - self._opened_at
        page.cluster = seen.sentence(page.timeout_seconds)
        page.dropped_seconds = None if seen.blind or seen.away else seen.away_seconds
        self._show.summary(page)
        if code == EXIT_UNFINISHED:
            text = self._left
        return self._show.end(code, text)

    @contextlib.asynccontextmanager
    async def _ticking(self) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self._show.tick()

        task = asyncio.create_task(tick())
        try:
            yield
        finally:
            task.cancel()
