"""``standfast migrate --raise just-in-time``: beside the order to migrate, from the hold to the lowering.

What is decided, and every limit: `core.holding`. What is raised and lowered, and by whom where this command
is gone: `core.raising`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from standfast.cluster import cmap
from standfast.cluster.run import EngineError
from standfast.commands.migrate_copy import Copy, Source
from standfast.commands.migrate_read_back import ReadBack, Seen
from standfast.commands.migrate_show import Show
from standfast.core import holding, raising
from standfast.core.holding import Budget, Look
from standfast.core.libvirt_events import HostEvent
from standfast.core.messages import Message, Severity
from standfast.core.migration import Move
from standfast.core.steps import Done, Goal, LowerGoal, RaiseGoal, Stop
from standfast.hosts.base import Host, HostError, HostUnreachable, TellsEvents

LOOK_SECONDS = 0.05
"""Between two looks at the job; each takes a call of virsh."""
GIVE_UP_LIMIT_SECONDS = 120.0
"""After giving up the order has to end by its cancel; then the heartbeat goes down whatever it shows. A raise
is given up that long before the nodes lower it by themselves."""
CANCEL_AGAIN_SECONDS = 2.0
UNSEEN_LIMIT_SECONDS = 15.0
"""An order ended without a word, and for so long no look has shown its migration: where the guest is is
another question."""
ASK_AHEAD_SECONDS = 3.0
RAISE_LIMIT_SECONDS = holding.HOLD_SECONDS
LOWER_LIMIT_SECONDS = 60.0
RESUMED = ("lifecycle", "Resumed Migrated")
"""What the target tells as soon as the guest runs there (libvirt 9.0.0)."""

Order = asyncio.Task[None]


class Runs(Protocol):
    """Drives one goal to its end (`execute.Executor`)."""

    def __call__(self, goal: Goal, limit_seconds: float) -> Runner: ...


class Runner(Protocol):
    """One goal under way."""

    async def run(self) -> Done | Stop: ...


class OwnCorosync(Protocol):
    """This node's corosync (`cluster.cmap`). Both raise EngineError."""

    def runtime(self) -> dict[str, int]: ...
    def set_timers(self, values: Mapping[str, int]) -> None: ...


@dataclass
class Figures:
    """What it came to, for the page. Seconds; None: it did not come to that."""

    budget_seconds: int | None = None
    why: str = ""
    hold_seconds: float | None = None
    """The copy was held at its smallest rate."""
    raised_seconds: float | None = None
    """For so long a death was seen late: from this node's own raise, the last, to its lowering, the first."""
    lowered_seconds: float | None = None
    """From the same moment until every member was seen to run its own values again."""
    lowered: bool = True


@dataclass(frozen=True)
class Ground:
    """What it stands on, looked at once the window is open."""

    window: int
    timeout_seconds: float
    """The longest heartbeat timeout of a member."""
    memory_bytes: int | None = None
    """Of the guest; None: not known."""


class JustInTime:
    """One raise. `gave_up`: the migration is being cancelled, or is to be, whoever wants it; nothing
    is let go any more. `why`: what is said of it, where it was given up here.
    """

    def __init__(
        self,
        move: Move,
        asked_seconds: int | None,
        source: Source,
        target: Host,
        show: Show,
        runs: Runs,
        seen: Seen,
        own: OwnCorosync = cmap,
    ) -> None:
        """`asked_seconds`: None means auto."""
        self._move, self._asked = move, asked_seconds
        self._source, self._target, self._show, self._runs, self._own = source, target, show, runs, own
        self.copy = Copy(move.guest, move.source, source, show, self._stood_still)
        self._read_back = ReadBack(seen)
        self._ground = Ground(0, 0.0)
        self._resumed = asyncio.Event()
        self._others_rise = False
        """There is something to lower, of which the record tells."""
        self._ran: dict[str, int] | None = None
        """What this node ran before it followed the others; None: it has not."""
        self._raised_at: float | None = None
        self._needed = 0.0
        """Seconds of blackout that the last passes have asked for, at most."""
        self._ordered_at = 0.0
        self._nothing_left = False
        """The source knows of no migration of this guest that could be cancelled."""
        self._began = 0.0
        """The raise of the others, by the clock of `time.monotonic`."""
        self._let = False
        """The guest may switch over: from now on it may stand still."""
        self.gave_up = asyncio.Event()
        self.why: Message | None = None
        self.in_force = False
        """It was raised, and read back from every member, before the guest was let go."""
        self.figures = Figures()

    async def prepare(self, ground: Ground) -> None:
        """Before the order. How fast the guest is sent has to be known and set, or there is none."""
        self._ground = ground
        try:
            await self.copy.prepare(ground.memory_bytes)
        except HostError as error:
            self.give_up(f"how fast {self._move.guest} is sent could not be set: {error}")

    async def beside(self, order: Order) -> None:
        """From the first look at the copy until the heartbeat is down again, however the order ends."""
        failure: Exception | None = None
        self._ordered_at = time.monotonic()
        async with self._listening():
            try:
                if await self._is_due(order) and (budget := await self._raise(order)) is not None:
                    await self._let_go(order, budget)
            except Exception as error:  # raised again when all is down
                failure = error
                self.give_up(f"it was not driven to its end: {error}")
            if self.gave_up.is_set():
                await self._cancelled(order)
            await self._end(order)
        if failure is not None:
            raise failure

    async def _cancelled(self, order: Order) -> None:
        """Wait until it is. A heartbeat that falls in the switch-over drops the node."""
        self.copy.note_hold()
        deadline = time.monotonic() + GIVE_UP_LIMIT_SECONDS
        await asyncio.wait({order}, timeout=GIVE_UP_LIMIT_SECONDS)
        if not order.done() or order.cancelled() or not _silent(order):
            return
        # Whoever gave that order cannot see whether its migration goes on at the host.
        while not self._resumed.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                await self._source.cancel_migration(self._move.guest, left)
                return
            except HostUnreachable as error:
                if error.may_have_happened:
                    return
                await asyncio.sleep(CANCEL_AGAIN_SECONDS)
            except HostError:
                self._nothing_left = True  # there is none that could be cancelled
                return

    def _over(self, order: Order) -> bool:
        """An order that ended without a word may go on at its host, for as long as that is seen."""
        if self.gave_up.is_set():
            return True
        if not order.done():
            return False
        unseen = min(self.copy.seconds_unseen, time.monotonic() - self._ordered_at)
        return not _silent(order) or self._resumed.is_set() or unseen > UNSEEN_LIMIT_SECONDS

    async def _pause(self, seconds: float, *ends: asyncio.Task[Any]) -> None:
        """No longer than until one of these ends that has not yet."""
        began = time.monotonic()
        if waiting := {task for task in ends if not task.done()}:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds)
        if time.monotonic() - began > seconds + holding.STOOD_STILL_SECONDS:
            self._stood_still()

    def _stood_still(self) -> None:
        if self._others_rise and not self._let:
            self.give_up("this node stood still, and the others may have given it up")

    # -- the raise of all others, and the hold where that is late ------------------------------------------

    async def _is_due(self, order: Order) -> bool:
        """Wait until the raise has to begin; False: it is not to begin any more."""
        while not self._over(order):
            look = await self.copy.look()
            if look is not None:
                if self._slipped(look, "the copy was through its first pass before the raise could begin"):
                    return False
                if holding.must_raise(look, self.copy.before, self.copy.carried):
                    return True
            await self._pause(LOOK_SECONDS, order)
        return False

    async def _raise(self, order: Order) -> Budget | None:
        """None: it is not raised on every other member, or too late."""
        predicted = self.copy.predicted_seconds()
        budget = holding.budget(self._asked, predicted, self._ground.timeout_seconds)
        if isinstance(budget, Message):
            self.why = budget
            self.gave_up.set()
            return None
        self.figures.budget_seconds, self.figures.why = budget.seconds, budget.why
        text = f"raising the heartbeat timeout to {budget.seconds} s: {budget.why}"
        self._show.enter("raising", text)
        self._others_rise = True
        self._began = time.monotonic()
        goal = RaiseGoal(self._move.node, self._ground.window, budget.seconds)
        self._read_back.begins(goal)
        rising = asyncio.create_task(self._runs(goal, RAISE_LIMIT_SECONDS).run())
        try:
            await self._watch(order, rising)
        except Exception:
            await rising  # nothing is lowered beside that
            raise
        outcome = await rising
        if self._over(order):
            return None
        if isinstance(outcome, Stop):
            self.give_up("; ".join(message.text for message in outcome.messages))
            return None
        self._read_back.came()
        return budget

    def _time_left(self, budget: Budget) -> float:
        """Seconds until a raise that does not end is to be given up: before the nodes lower it."""
        ends = self._began + raising.limit_seconds(budget.seconds) - GIVE_UP_LIMIT_SECONDS
        return ends - time.monotonic()

    async def _watch(self, order: Order, rising: asyncio.Task[Done | Stop]) -> None:
        """While it rises: whether the copy has to be held, and whether the hold still holds."""
        look = self.copy.last
        while not (rising.done() or self._over(order)):
            if self._slipped(look, "the hold slipped before every member ran the raised heartbeat timeout"):
                return
            if not self.copy.held and self._must_hold(look):
                await self._hold()
            if self.copy.held:
                pause = holding.held_pause_seconds(look)
            else:
                pause = holding.watch_pause_seconds(look, self.copy.before)
            await self._pause(pause, order, rising)
            if not rising.done():
                look = await self.copy.look()

    def _must_hold(self, look: Look | None) -> bool:
        """What is not seen for half of what it had left is held, too."""
        if look is None:
            return not self.copy.may_wait_unseen()
        return holding.must_hold(look, self.copy.before)

    def _slipped(self, look: Look | None, why: str) -> bool:
        """Whether the first pass is seen to be over; then it is given up."""
        if look is None or not holding.slipped(look):
            return False
        self.give_up(why)
        return True

    async def _hold(self) -> None:
        self._show.enter("holding", f"holding the switch-over of {self._move.guest}")
        try:
            await self.copy.hold()
        except HostError as error:
            self.give_up(f"the copy could not be held: {error}")

    # -- nearer, and this node follows ----------------------------------------------------------------------

    async def _let_go(self, order: Order, budget: Budget) -> None:
        """The switch-over does not begin before all of the raise is in force, if it is seen in time."""
        deadline = time.monotonic() + min(
            holding.NEARER_LIMIT_SECONDS + budget.seconds, self._time_left(budget) - budget.seconds
        )
        converges = self.copy.converges
        if converges:
            seen = await self._come_nearer(order, deadline)
        else:
            await self.copy.speed_back()
            seen = await self._pass_by_pass(order, deadline)
        if self._over(order) or not await self._follow(budget, seen=seen):
            return
        if not await self._is_in_force(order) or self._over(order):
            return
        self._show.enter("switching over", f"letting {self._move.guest} switch over")
        # If it stays held, the limit of the switch-over ends that.
        self._let = True
        released = await self.copy.speed_back()
        limit_ms = budget.first_downtime_ms(self.copy.carried, None if converges else self.copy.dirty)
        self._needed = holding.needed_seconds(self.copy.last, self.copy.carried)
        limit_ms = budget.wider_downtime_ms(limit_ms, self._needed, late=False)
        await self._switched(order, budget, limit_ms, released=released)

    async def _come_nearer(self, order: Order, deadline: float) -> bool:
        """Until little is left of the first pass; whether it was seen on its way still."""
        self._show.say("every other member is raised")
        copy, paced_until = self.copy, deadline
        least_rate: float | None = None
        while not self._over(order) and time.monotonic() < min(deadline, paced_until):
            before, look = copy.last, await copy.look()
            if look is None:
                if not copy.may_wait_unseen():
                    return False
            elif holding.slipped(look):
                return False  # the others are raised: to follow at once is better than to cancel
            elif least_rate is not None:
                if holding.near(look, before, least_rate):
                    return True
            elif copy.must_pace(look, before):
                self._read_back.ask_soon()
                paced_until = time.monotonic() + holding.PACED_LIMIT_SECONDS
                least_rate = await copy.pace(look)
                if least_rate is None:
                    return True
            elif copy.held:
                await copy.go_on(copy.first_rate)
            await self._pause(LOOK_SECONDS, order)
        return True

    async def _pass_by_pass(self, order: Order, deadline: float) -> bool:
        """Until what is left is what the guest writes again and again, or it has calmed down; whether it was
        seen on its way still."""
        self._show.say(f"every other member is raised; {self._move.guest} writes more than the link carries")
        second = False
        while not self._over(order) and time.monotonic() < deadline:
            look = await self.copy.look()
            if look is None:
                if not self.copy.may_wait_unseen():
                    return False
            elif holding.settled(look):
                return True
            elif not second and (look.job.iteration or 1) > 1:
                if holding.calmed(look, self.copy.carried):
                    return True
                second = True
            if look is not None and second and self._ends_soon(look):
                self._read_back.ask_soon()
            await self._pause(LOOK_SECONDS, order)
        return True

    def _ends_soon(self, look: Look) -> bool:
        return holding.ends_within(ASK_AHEAD_SECONDS, look, self.copy.carried)

    async def _is_in_force(self, order: Order) -> bool:
        """False: it is not any more, and was given up, or the guest has gone meanwhile."""
        events = {asyncio.create_task(event.wait()) for event in (self._resumed, self.gave_up)}
        try:
            ends: set[asyncio.Task[Any]] = set(events) if order.done() else {order, *events}
            why = await self._read_back.answer(ends)
            if why is None and order in ends and order.done() and not self._over(order):
                why = await self._read_back.answer(set(events))  # it ended without a word: all goes on
        finally:
            for event in events:
                event.cancel()
        if why:
            self.in_force = False
            self.give_up(f"the heartbeat timeout is not raised any more: {why}")
        return why == ""

    async def _follow(self, budget: Budget, *, seen: bool) -> bool:
        """This node, last of all: from here on a death is seen late. `seen`: the guest was on its way still,
        with something left, at the last look."""
        timers = raising.own_timers(budget.seconds)
        try:
            before = await asyncio.to_thread(self._own.runtime)
            self._ran = {name: before[name] for name in timers}
            began = time.monotonic()
            await asyncio.to_thread(self._own.set_timers, timers)
            self._raised_at = began
        except EngineError as error:
            self.give_up(f"this node's own heartbeat timeout was not raised: {error}")
            return False
        # Nobody has let it go yet, and something was left: unless this took long it is there still.
        self.in_force = seen and self.copy.seconds_unseen <= holding.NEAR_LEAD_SECONDS
        if not self.in_force:
            self._is_there(await self.copy.look())
        return not self.gave_up.is_set()

    def _is_there(self, look: Look | None) -> None:
        """After this node has followed: whoever is on its way still switches over with all raised."""
        if look is not None and holding.on_its_way(look) and not self._resumed.is_set():
            self.in_force = True

    async def _stop_following(self) -> None:
        """As before for the whole cluster: the shortest timeout of any member decides."""
        if self._ran is None:
            return
        try:
            await asyncio.to_thread(self._own.set_timers, self._ran)
        except EngineError as error:
            self._show.say(f"not lowered on this node at once, but with the others: {error}")
            return
        if self._raised_at is not None:
            self.figures.raised_seconds = time.monotonic() - self._raised_at

    # -- let go -------------------------------------------------------------------------------------------

    async def _switched(self, order: Order, budget: Budget, limit_ms: int, *, released: bool) -> None:
        """Until the guest runs on: on the target, or, after an order that failed plainly, on the source."""
        limit_seconds = min(holding.SWITCH_LIMIT_SECONDS + budget.seconds, self._time_left(budget))
        resumed = asyncio.create_task(self._resumed.wait())
        # Beside: in the blackout the source answers nothing, and the target's word is not to wait for that.
        widening = asyncio.create_task(self._widen(budget, limit_ms)) if released else None
        gave_up = asyncio.create_task(self.gave_up.wait())
        deadline = time.monotonic() + limit_seconds
        waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {order, resumed, gave_up}
        try:
            while waiting and (left := deadline - time.monotonic()) > 0:
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if {resumed, gave_up} & done or (order.done() and not _silent(order)):
                    return
                waiting -= done  # an order that ended without a word: it may go on
        finally:
            resumed.cancel()
            gave_up.cancel()
            if widening is not None:
                widening.cancel()
        guest = self._move.guest
        self.why = self.why or holding.not_switched(guest, limit_seconds, budget, self._needed)
        self.gave_up.set()

    async def _widen(self, budget: Budget, limit_ms: int) -> None:
        """Until it is cancelled: allow a guest that writes too much a blackout as long as it takes. (After
        the rate: the other way round it had moved before the second call; seen.)"""
        await self.copy.allow(limit_ms)
        longer_at = time.monotonic() + holding.LONGER_SECONDS
        while True:
            await asyncio.sleep(holding.WIDEN_SECONDS)
            self._is_there(look := await self.copy.look())
            self._needed = max(self._needed, holding.needed_seconds(look, self.copy.carried))
            wider = budget.wider_downtime_ms(limit_ms, self._needed, late=time.monotonic() >= longer_at)
            if self.gave_up.is_set():
                return  # what is being cancelled is not let go any more
            if wider > limit_ms:
                limit_ms, longer_at = wider, time.monotonic() + holding.LONGER_SECONDS
                await self.copy.allow(limit_ms)

    # -- down again ---------------------------------------------------------------------------------------

    async def _end(self, order: Order) -> None:
        """The heartbeat first, however it ended; then what is left of the hold."""
        if self.gave_up.is_set() and not (self._resumed.is_set() or _went_well(order) or self._nothing_left):
            self.in_force = False  # should it move all the same, it does so from now on
        await self._stop_following()
        await self._judge_by_the_answer()
        if self._others_rise:
            self._show.say("lowering the heartbeat timeout")
            outcome = await self._runs(LowerGoal(self._ground.window), LOWER_LIMIT_SECONDS).run()
            if isinstance(outcome, Done):
                self._note_down()
            else:
                self.figures.lowered = False
                for message in outcome.messages:
                    text = f"the heartbeat timeout is not down on every member yet: {message.text}"
                    self._show.tell(Message("NOT_LOWERED", text, Severity.WARNING, node=message.node,
                                            next_command="standfast window lower"))  # fmt: skip
        if not (self._resumed.is_set() or _went_well(order)):  # with the guest its speed has left the host
            await self.copy.take_speed_back()
        self.figures.hold_seconds = self.copy.hold_seconds

    async def _judge_by_the_answer(self) -> None:
        """Of a guest that went while it was asked whether all was in force still."""
        why = await self._read_back.late_answer()
        if why:
            self.in_force = False
            self.why = self.why or holding.given_up(why)

    def _note_down(self) -> None:
        if self._raised_at is None:
            return
        figures = self.figures
        figures.lowered_seconds = time.monotonic() - self._raised_at
        if figures.raised_seconds is None:
            figures.raised_seconds = figures.lowered_seconds

    def give_up(self, why: str) -> None:
        """Have the migration cancelled, or not ordered at all."""
        self.why = self.why or holding.given_up(why)
        self.gave_up.set()

    # -- what the target tells ----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        """Events of the target meanwhile; without them the end of the order tells the same a little later."""
        listening = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self) -> None:
        if not isinstance(self._target, TellsEvents):
            return
        with contextlib.suppress(HostError):
            async for event in self._target.events():
                if self._is_ours(event):
                    self._resumed.set()

    def _is_ours(self, event: HostEvent) -> bool:
        return event.guest == self._move.guest and (event.kind, event.what) == RESUMED


def _went_well(order: Order) -> bool:
    return order.done() and not order.cancelled() and order.exception() is None


def _silent(order: Order) -> bool:
    """Whether the order ended without a word of how."""
    if order.cancelled():
        return True
    error = order.exception()
    return isinstance(error, HostUnreachable) and error.may_have_happened
