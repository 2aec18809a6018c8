"""``standfast migrate --raise just-in-time``: beside the order to migrate, from the hold to the lowering.

What is decided, and every limit: `core.holding`. What is raised and lowered, and by whom where this command
is gone: `core.raising`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from standfast.cluster import cmap
from standfast.cluster.run import EngineError
from standfast.commands.migrate_show import Show
from standfast.core import holding, raising
from standfast.core.holding import Budget, Look
from standfast.core.libvirt_events import HostEvent
from standfast.core.messages import Message, Severity
from standfast.core.migration import Move
from standfast.core.steps import Done, Goal, LowerGoal, RaiseGoal, Snapshot, Stop
from standfast.hosts.base import Host, HostError, HostUnreachable, PacesMigration, TellsEvents
from standfast.sightings import ring_number

LOOK_SECONDS = 0.05
"""Between two looks at the job; each takes a call of virsh."""
GIVE_UP_LIMIT_SECONDS = 120.0
"""After giving up the order has to end by its cancel; then the heartbeat goes down whatever it shows. A raise
is given up that long before the nodes lower it by themselves."""
CANCEL_AGAIN_SECONDS = 2.0
UNSEEN_LIMIT_SECONDS = 15.0
"""An order ended without a word, and for so long no look has shown its migration: where the guest is is
another question."""
ASKED_LIMIT_SECONDS = 10.0
"""Whether it is in force still on all others; a look at this node's copy."""
ASKED_TRIES = 3
ASKED_AGAIN_SECONDS = 1.0
"""A slow node is no lost one, and a report may be late."""
ASK_AHEAD_SECONDS = 3.0
PREPARE_TRIES = 3
DIRTY_LOOKS = 3
"""One is coarse: QEMU looks at 512 pages of a GiB (7.2), 2 MiB each in a guest of 512 MiB."""
RAISE_LIMIT_SECONDS = holding.HOLD_SECONDS
LOWER_LIMIT_SECONDS = 60.0
RESUMED = ("lifecycle", "Resumed Migrated")
"""What the target tells as soon as the guest runs there (libvirt 9.0.0)."""

Order = asyncio.Task[None]
Seen = Callable[[], Awaitable[Snapshot]]
"""A quick look at the cluster, as this node has it. Raises EngineError."""


class Source(Host, PacesMigration, Protocol):
    """The host that sends the guest."""


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
        self._seen = seen
        self._ground = Ground(0, 0.0)
        self._full_rate = holding.FULL_RATE_MIB_PER_SECOND
        self._slower = False
        """The guest has a migration speed at its source that has to be taken back."""
        self._dirty: float | None = None
        self._resumed = asyncio.Event()
        self._held_at: float | None = None
        self._others_rise = False
        """There is something to lower, of which the record tells."""
        self._ran: dict[str, int] | None = None
        """What this node ran before it followed the others; None: it has not."""
        self._raised_at: float | None = None
        self._last: Look | None = None
        """The last look that showed the copy on its way, and the one before it."""
        self._before: Look | None = None
        self._paced = False
        """It is slower now than its link, or was."""
        self._carried = 0.0
        """Bytes a second that the link was seen to carry; 0: not known yet."""
        self._needed = 0.0
        """Seconds of blackout that the last passes have asked for, at most."""
        self._ordered_at = 0.0
        self._nothing_left = False
        """The source knows of no migration of this guest that could be cancelled."""
        self._ring: int | None = None
        """The number of this node's ring as the raise began."""
        self._began = 0.0
        """The raise of the others, by the clock of `time.monotonic`."""
        self._read_back_at = self._asked_at = float("-inf")
        self._answer: asyncio.Task[str] | None = None
        """Why it is not in force any more on every other member; empty: it is."""
        self._let = False
        """The guest may switch over: from now on it may stand still."""
        self.gave_up = asyncio.Event()
        self.why: Message | None = None
        self.in_force = False
        """It was raised, and read back from every member, before the guest was let go."""
        self.figures = Figures()

    async def prepare(self, ground: Ground) -> None:
        """Before the order: what the guest writes (not known is no obstacle), and how fast it may be sent. A
        copy at full speed may be through before anybody has looked: without that there is no order."""
        self._ground = ground
        guest = self._move.guest
        measured: list[float] = []
        for _ in range(DIRTY_LOOKS):
            with contextlib.suppress(HostError):
                dirty = await self._source.dirty_bytes_per_second(guest)
                measured += [] if dirty is None else [dirty]
        if measured:
            self._dirty = sum(measured) / len(measured)
        for left in reversed(range(PREPARE_TRIES)):
            try:
                await self._set_first_rate()
                return
            except HostError as error:
                if not left:
                    self.give_up(f"how fast {guest} is sent could not be set: {error}")

    async def _set_first_rate(self) -> None:
        guest = self._move.guest
        rate = await self._source.copy_rate(guest)
        # What a command that was killed has left stays with the guest: no migration is to crawl by it.
        if rate not in (holding.HOLD_RATE_MIB_PER_SECOND, self._first_rate()):
            self._full_rate = rate
        first = self._first_rate()
        if first != rate:
            self._slower = first != self._full_rate
            await self._source.set_copy_rate(guest, first)

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
        self._note_hold()
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
        unseen = time.monotonic() - (self._last.at if self._last is not None else self._ordered_at)
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

    def _first_rate(self) -> int:
        return holding.first_rate(self._full_rate, self._ground.memory_bytes)

    def _sent_as_told(self) -> bool:
        """Whether the copy was made slower here than its link may be."""
        first = self._first_rate()
        return first < self._full_rate and holding.sent_as_told(self._carried, first)

    def _converges(self) -> bool:
        return holding.converges(self._carried, self._dirty) or self._sent_as_told()

    # -- what is seen of the copy ---------------------------------------------------------------------------

    async def _look(self) -> Look | None:
        began = time.monotonic()
        try:
            job = await self._source.migration_job(self._move.guest)
        except HostError:
            return None  # the next look asks again; the order tells the end
        finally:
            # A look has a limit of its own, which is shorter.
            if time.monotonic() - began > holding.STOOD_STILL_SECONDS:
                self._stood_still()
        # Before it has begun libvirt tells zeros.
        if job is None or not job.outgoing or not job.total_bytes or job.remaining_bytes is None:
            return None
        now = time.monotonic()
        look = Look(job, now, now - began)
        if holding.stood_still(look, self._last):
            self._stood_still()
        self._before, self._last = self._last, look
        if not self._paced:
            self._carried = holding.carried(look) or self._carried
        return look

    # -- the raise of all others, and the hold where that is late ------------------------------------------

    async def _is_due(self, order: Order) -> bool:
        """Wait until the raise has to begin; False: it is not to begin any more."""
        while not self._over(order):
            look = await self._look()
            if look is not None:
                if self._slipped(look, "the copy was through its first pass before the raise could begin"):
                    return False
                if holding.must_raise(look, self._before, self._carried):
                    return True
            await self._pause(LOOK_SECONDS, order)
        return False

    async def _raise(self, order: Order) -> Budget | None:
        """None: it is not raised on every other member, or too late."""
        predicted = holding.predicted_seconds(self._carried, self._dirty)
        if predicted is not None and self._sent_as_told():
            predicted = min(predicted, holding.AUTO_LONGEST_SECONDS)
        budget = holding.budget(self._asked, predicted, self._ground.timeout_seconds)
        if isinstance(budget, Message):
            self.why = budget
            self.gave_up.set()
            return None
        self.figures.budget_seconds, self.figures.why = budget.seconds, budget.why
        text = f"raising the heartbeat timeout to {budget.seconds} s: {budget.why}"
        self._show.enter("raising", text)
        self._others_rise = True
        self._began, self._ring = time.monotonic(), ring_number()
        rising = asyncio.create_task(self._runs(self._goal(budget), RAISE_LIMIT_SECONDS).run())
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
        self._read_back_at = time.monotonic()
        return budget

    def _goal(self, budget: Budget) -> RaiseGoal:
        return RaiseGoal(self._move.node, self._ground.window, budget.seconds)

    def _time_left(self, budget: Budget) -> float:
        """Seconds until a raise that does not end is to be given up: before the nodes lower it."""
        ends = self._began + raising.limit_seconds(budget.seconds) - GIVE_UP_LIMIT_SECONDS
        return ends - time.monotonic()

    async def _watch(self, order: Order, rising: asyncio.Task[Done | Stop]) -> None:
        """While it rises: whether the copy has to be held, and whether the hold still holds."""
        look = self._last
        while not (rising.done() or self._over(order)):
            if self._slipped(look, "the hold slipped before every member ran the raised heartbeat timeout"):
                return
            held = self._held_at is not None
            if not held and self._must_hold(look):
                await self._hold()
                held = True
            pause = (
                holding.held_pause_seconds(look) if held else holding.watch_pause_seconds(look, self._before)
            )
            await self._pause(pause, order, rising)
            if not rising.done():
                look = await self._look()

    def _must_hold(self, look: Look | None) -> bool:
        """What is not seen for half of what it had left is held, too."""
        if look is None:
            return not self._may_wait_unseen()
        return holding.must_hold(look, self._before)

    def _slipped(self, look: Look | None, why: str) -> bool:
        """Whether the first pass is seen to be over; then it is given up."""
        if look is None or not holding.slipped(look):
            return False
        self.give_up(why)
        return True

    async def _hold(self) -> None:
        guest = self._move.guest
        self._show.enter("holding", f"holding the switch-over of {guest}")
        self._held_at, self._slower, self._paced = time.monotonic(), True, True
        try:
            await self._source.set_copy_rate(guest, holding.HOLD_RATE_MIB_PER_SECOND)
        except HostError as error:
            self.give_up(f"the copy could not be held: {error}")

    # -- nearer, and this node follows ----------------------------------------------------------------------

    async def _let_go(self, order: Order, budget: Budget) -> None:
        """The switch-over does not begin before all of the raise is in force, if it is seen in time."""
        deadline = time.monotonic() + min(
            holding.NEARER_LIMIT_SECONDS + budget.seconds, self._time_left(budget) - budget.seconds
        )
        converges = self._converges()
        if converges:
            seen = await self._come_nearer(order, budget, deadline)
        else:
            await self._speed_back()
            seen = await self._pass_by_pass(order, budget, deadline)
        if self._over(order) or not await self._follow(budget, seen=seen):
            return
        if not await self._is_in_force(order, budget) or self._over(order):
            return
        self._show.enter("switching over", f"letting {self._move.guest} switch over")
        # If it stays held, the limit of the switch-over ends that.
        self._let = True
        released = await self._speed_back()
        limit_ms = budget.first_downtime_ms(self._carried, None if converges else self._dirty)
        self._needed = holding.needed_seconds(self._last, self._carried)
        limit_ms = budget.wider_downtime_ms(limit_ms, self._needed, late=False)
        await self._switched(order, budget, limit_ms, released=released)

    async def _come_nearer(self, order: Order, budget: Budget, deadline: float) -> bool:
        """Until little is left of the first pass; whether it was seen on its way still."""
        self._show.say("every other member is raised")
        pace, least_rate, paced_until = 0, 0.0, deadline
        while not self._over(order) and time.monotonic() < min(deadline, paced_until):
            before, look = self._last, await self._look()
            if look is None:
                if not self._may_wait_unseen():
                    return False
            elif holding.slipped(look):
                return False  # the others are raised: to follow at once is better than to cancel
            elif not pace and self._must_pace(look, before):
                self._ask_soon(budget)
                pace = holding.near_rate(look, self._first_rate())
                paced_until = time.monotonic() + holding.PACED_LIMIT_SECONDS
                least_rate = min(self._carried, float(pace * holding.MIB))
                self._paced = True
                if holding.near(look, None, least_rate) or not await self._go_on(pace):
                    return True
            elif pace and holding.near(look, before, least_rate):
                return True
            elif not pace and self._held_at is not None:
                await self._go_on(self._first_rate())
            await self._pause(LOOK_SECONDS, order)
        return True

    def _must_pace(self, look: Look, before: Look | None) -> bool:
        """What was held goes on from there, unless it was held with much left, since nobody saw it."""
        held_near = self._held_at is not None and holding.little_left(look, self._carried)
        return held_near or holding.must_pace(look, before, self._carried)

    async def _pass_by_pass(self, order: Order, budget: Budget, deadline: float) -> bool:
        """Until what is left is what the guest writes again and again, or it has calmed down; whether it was
        seen on its way still."""
        self._show.say(f"every other member is raised; {self._move.guest} writes more than the link carries")
        second = False
        while not self._over(order) and time.monotonic() < deadline:
            look = await self._look()
            if look is None:
                if not self._may_wait_unseen():
                    return False
            elif holding.settled(look):
                return True
            elif not second and (look.job.iteration or 1) > 1:
                if holding.calmed(look, self._carried):
                    return True
                second = True
            if look is not None and second and holding.ends_within(ASK_AHEAD_SECONDS, look, self._carried):
                self._ask_soon(budget)
            await self._pause(LOOK_SECONDS, order)
        return True

    def _ask_soon(self, budget: Budget) -> None:
        """Beside the last part of the way: whether all that was read back is in force still."""
        if self._answer is None and not self._is_young(self._read_back_at):
            self._asked_at = time.monotonic()
            self._answer = asyncio.create_task(self._still_raised(budget))

    async def _is_in_force(self, order: Order, budget: Budget) -> bool:
        """By an answer that is no older than a node may stand still. False: it is not, or the guest has gone
        meanwhile."""
        while not self._is_young(self._read_back_at):
            self._ask_soon(budget)
            answer = self._answer
            assert answer is not None
            ends = [order] if not order.done() else []
            events = [asyncio.create_task(event.wait()) for event in (self._resumed, self.gave_up)]
            try:
                await asyncio.wait({answer, *ends, *events}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for event in events:
                    event.cancel()
            if not answer.done():
                return False
            if why := answer.result():
                self._not_any_more(why)
                return False
            if self._is_young(self._asked_at):
                return True
            self._answer = None
        return True

    def _is_young(self, at: float) -> bool:
        """What was seen then is no older than a node may stand still."""
        return time.monotonic() - at <= holding.STOOD_STILL_SECONDS

    def _not_any_more(self, why: str) -> None:
        self.in_force = False
        self.give_up(f"the heartbeat timeout is not raised any more: {why}")

    async def _still_raised(self, budget: Budget) -> str:
        why = f"the cluster does not answer here within {ASKED_LIMIT_SECONDS:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASKED_LIMIT_SECONDS):
                for left in reversed(range(ASKED_TRIES)):
                    why = await self._judged(budget)
                    if not (why and left):
                        break
                    await asyncio.sleep(ASKED_AGAIN_SECONDS)
        return why

    async def _judged(self, budget: Budget) -> str:
        try:
            snapshot = await self._seen()
        except EngineError as error:
            return str(error)
        if ring_number() != self._ring:
            return "the ring of this node has changed"
        return raising.still_raised(snapshot, self._goal(budget))

    def _may_wait_unseen(self) -> bool:
        last = self._last
        return last is not None and holding.may_wait_unseen(time.monotonic() - last.at, last)

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
        late = self._last is None or time.monotonic() - self._last.at > holding.NEAR_LEAD_SECONDS
        self.in_force = seen and not late
        if not self.in_force:
            self._is_there(await self._look())
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

    async def _allow(self, limit_ms: int) -> None:
        try:
            await self._source.set_downtime_limit(self._move.guest, limit_ms)
        except HostError as error:
            self._show.say(f"the downtime limit was not set, it may have switched over already: {error.what}")

    async def _speed_back(self) -> bool:
        if not self._slower:
            return True
        if not await self._go_on(self._full_rate):
            return False
        self._slower = False
        return True

    async def _go_on(self, mib_per_second: int) -> bool:
        """No longer held."""
        self._slower = True
        try:
            await self._source.set_copy_rate(self._move.guest, mib_per_second)
        except HostError as error:
            self._show.say(f"the copy did not get its speed back: {error}")
            return False
        self._note_hold()
        return True

    def _note_hold(self) -> None:
        if self._held_at is not None:
            self.figures.hold_seconds = time.monotonic() - self._held_at
        self._held_at = None

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
        await self._allow(limit_ms)
        longer_at = time.monotonic() + holding.LONGER_SECONDS
        while True:
            await asyncio.sleep(holding.WIDEN_SECONDS)
            self._is_there(look := await self._look())
            self._needed = max(self._needed, holding.needed_seconds(look, self._carried))
            wider = budget.wider_downtime_ms(limit_ms, self._needed, late=time.monotonic() >= longer_at)
            if self.gave_up.is_set():
                return  # what is being cancelled is not let go any more
            if wider > limit_ms:
                limit_ms, longer_at = wider, time.monotonic() + holding.LONGER_SECONDS
                await self._allow(limit_ms)

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
            await self.take_speed_back()

    async def _judge_by_the_answer(self) -> None:
        """Of a guest that went while it was asked whether all was in force still."""
        if self._answer is None:
            return
        try:
            why = await self._answer
        except Exception as error:
            why = f"it was not told: {error}"  # what is raised is to be lowered first
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

    async def take_speed_back(self) -> None:
        """Give the guest the speed that it had at its source, where it has another one by us."""
        if not await self._speed_back():
            guest = self._move.guest
            text = f"{guest} keeps a low migration speed on {self._move.source}, if it is there still"
            hint = f"virsh migrate-setspeed {guest} {self._full_rate} (on {self._move.source})"
            self._show.tell(Message("STILL_HELD", text, Severity.WARNING, host=self._move.source,
                                    next_command=hint))  # fmt: skip

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
