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
from typing import Protocol

from standfast.cluster import cmap
from standfast.cluster.run import EngineError
from standfast.commands.migrate_show import Show
from standfast.core import holding, raising
from standfast.core.holding import Budget, Look
from standfast.core.libvirt_events import HostEvent
from standfast.core.messages import Message, Severity
from standfast.core.migration import Move
from standfast.core.steps import Done, Goal, LowerGoal, RaiseGoal, Stop
from standfast.hosts.base import Host, HostError, HostUnreachable, PacesMigration, TellsEvents

LOOK_SECONDS = 0.05
"""Between two looks at the job; each takes a call of virsh."""
GIVE_UP_LIMIT_SECONDS = 120.0
"""After giving up the order has to end by its cancel; then the heartbeat goes down whatever it shows."""
PREPARE_TRIES = 3
RAISE_LIMIT_SECONDS = holding.HOLD_SECONDS
LOWER_LIMIT_SECONDS = 60.0
THROUGH = "the copy was through its first pass before this node could follow the others"
RESUMED = ("lifecycle", "Resumed Migrated")
"""What the target tells as soon as the guest runs there (libvirt 9.0.0)."""

Order = asyncio.Task[None]


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
        own: OwnCorosync = cmap,
    ) -> None:
        """`asked_seconds`: None means auto."""
        self._move, self._asked = move, asked_seconds
        self._source, self._target, self._show, self._runs, self._own = source, target, show, runs, own
        self._ground = Ground(0, 0.0)
        self._full_rate = holding.FULL_RATE_MIB_PER_SECOND
        self._slower = False
        """The guest has a migration speed at its source that has to be taken back."""
        self._dirty: float | None = None
        self._resumed = asyncio.Event()
        self._held_at: float | None = None
        self._others_rise = False
        """There is something to lower, of which the record tells."""
        self._before: dict[str, int] | None = None
        """What this node ran before it followed the others; None: it has not."""
        self._raised_at = 0.0
        self._seen_at = 0.0
        """The last look that showed the copy on its way."""
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
        with contextlib.suppress(HostError):
            self._dirty = await self._source.dirty_bytes_per_second(guest)
        for left in reversed(range(PREPARE_TRIES)):
            try:
                await self._set_first_rate()
                return
            except HostError as error:
                if not left:
                    self.give_up(f"how fast {guest} is sent could not be set: {error}")

    async def _set_first_rate(self) -> None:
        guest, memory_bytes = self._move.guest, self._ground.memory_bytes
        rate = await self._source.copy_rate(guest)
        # What a command that was killed has left stays with the guest: no migration is to crawl by it.
        first = holding.first_rate(self._full_rate, memory_bytes)
        if rate not in (holding.HOLD_RATE_MIB_PER_SECOND, first):
            self._full_rate = rate
        first = holding.first_rate(self._full_rate, memory_bytes)
        if first != rate:
            self._slower = first != self._full_rate
            await self._source.set_copy_rate(guest, first)

    async def beside(self, order: Order) -> None:
        """From the first look at the copy until the heartbeat is down again, however the order ends."""
        async with self._listening():
            if (held := await self._hold(order)) is not None:
                await self._raise_and_let_go(order, *held)
            if self.gave_up.is_set():
                # Not before it is cancelled: a heartbeat that falls in the switch-over drops the node.
                await asyncio.wait({order}, timeout=GIVE_UP_LIMIT_SECONDS)
            await self._end(order)

    async def _raise_and_let_go(self, order: Order, look: Look, rate: float) -> None:
        """The switch-over never begins before all of the raise is in force."""
        budget = await self._raise(order, look, rate)
        if budget is None:
            return
        if budget.seconds >= holding.LEAST_NEAR_BUDGET_SECONDS:
            await self._come_nearer(order, rate)
        if not (order.done() or self.gave_up.is_set()) and await self._follow(budget):
            self._show.enter("switching over", f"letting {self._move.guest} switch over")
            # If it stays held, the limit of the switch-over ends that.
            released = await self._speed_back()
            limit_ms = budget.first_downtime_ms(rate, self._dirty)
            await self._switched(order, budget, limit_ms, released=released)

    # -- the hold -----------------------------------------------------------------------------------------

    async def _hold(self, order: Order) -> tuple[Look, float] | None:
        """The look by which the copy was held, and its rate until then; None: nothing is held."""
        before: Look | None = None
        while not order.done() and not self.gave_up.is_set():
            look = await self._look()
            if look is not None:
                if self._slipped(look, "the copy was through its first pass before it could be held"):
                    return None
                if holding.must_hold(look, before):
                    guest = self._move.guest
                    self._show.enter("holding", f"holding the switch-over of {guest}")
                    return (look, holding.rate(look, before)) if await self._slow() else None
                before = look
            await asyncio.wait({order}, timeout=LOOK_SECONDS)
        return None

    async def _look(self) -> Look | None:
        began = time.monotonic()
        try:
            job = await self._source.migration_job(self._move.guest)
        except HostError:
            return None  # the next look asks again; the order tells the end
        # Before it has begun libvirt tells zeros.
        if job is None or not job.outgoing or not job.total_bytes or job.remaining_bytes is None:
            return None
        self._seen_at = now = time.monotonic()
        return Look(job, now, now - began)

    def _slipped(self, look: Look | None, why: str) -> bool:
        """Whether the first pass is seen to be over; then it is given up."""
        if look is None or not holding.slipped(look):
            return False
        self.give_up(why)
        return True

    async def _slow(self) -> bool:
        self._held_at, self._slower = time.monotonic(), True
        try:
            await self._source.set_copy_rate(self._move.guest, holding.HOLD_RATE_MIB_PER_SECOND)
        except HostError as error:
            self.give_up(f"the copy could not be held: {error}")
            return False
        return True

    # -- the raise ----------------------------------------------------------------------------------------

    async def _raise(self, order: Order, look: Look, rate: float) -> Budget | None:
        """None: it is not raised on every other member, or too late."""
        predicted = holding.predicted_seconds(look.remaining, rate, self._dirty)
        budget = holding.budget(self._asked, predicted, self._ground.timeout_seconds)
        if isinstance(budget, Message):
            self.why = budget
            self.gave_up.set()
            return None
        self.figures.budget_seconds, self.figures.why = budget.seconds, budget.why
        self._show.say(f"raising the heartbeat timeout to {budget.seconds} s: {budget.why}")
        self._others_rise = True
        goal = RaiseGoal(self._move.node, self._ground.window, budget.seconds)
        rising = asyncio.create_task(self._runs(goal, RAISE_LIMIT_SECONDS).run())
        await self._watch(order, rising)
        outcome = await rising
        if order.done() or self.gave_up.is_set():
            return None
        if isinstance(outcome, Stop):
            self.give_up("; ".join(message.text for message in outcome.messages))
            return None
        return budget

    async def _come_nearer(self, order: Order, rate: float) -> None:
        """Until little is left, or the time for that is. What is not seen may be through at any moment."""
        look = await self._look()
        if look is None or self._slipped(look, THROUGH):
            return
        pace = holding.near_rate(look, self._full_rate)
        rate = min(rate, float(pace * holding.MIB))
        if holding.near(look, None, rate) or not await self._go_on(pace):
            return
        self._show.say(f"every other member is raised: on at {pace} MiB/s")
        before: Look | None = None
        deadline = time.monotonic() + holding.NEAR_LIMIT_SECONDS
        while not (order.done() or self.gave_up.is_set() or time.monotonic() >= deadline):
            await asyncio.wait({order}, timeout=LOOK_SECONDS)
            look = await self._look()
            if look is None or self._slipped(look, THROUGH) or holding.near(look, before, rate):
                return
            before = look

    async def _follow(self, budget: Budget) -> bool:
        """This node, last of all: from here on a death is seen late."""
        timers = raising.own_timers(budget.seconds)
        try:
            before = await asyncio.to_thread(self._own.runtime)
            self._before = {name: before[name] for name in timers}
            self._raised_at = time.monotonic()
            await asyncio.to_thread(self._own.set_timers, timers)
        except EngineError as error:
            self.give_up(f"this node's own heartbeat timeout was not raised: {error}")
            return False
        # Nobody has let it go yet, and something was left: unless this took long it is there still.
        late = time.monotonic() - self._seen_at > holding.NEAR_LEAD_SECONDS
        self.in_force = not late or await self._look() is not None
        return not self.gave_up.is_set()

    async def _stop_following(self) -> None:
        """As before for the whole cluster: the shortest timeout of any member decides."""
        if self._before is None:
            return
        try:
            await asyncio.to_thread(self._own.set_timers, self._before)
        except EngineError as error:
            self._show.say(f"not lowered on this node at once, but with the others: {error}")
            return
        self.figures.raised_seconds = time.monotonic() - self._raised_at

    async def _watch(self, order: Order, rising: asyncio.Task[Done | Stop]) -> None:
        """While it rises: whether the hold still holds."""
        while not rising.done() and not order.done() and not self.gave_up.is_set():
            look = await self._look()
            if rising.done():
                return
            if self._slipped(look, "the hold slipped before every member ran the raised heartbeat timeout"):
                return
            pause = holding.held_pause_seconds(look)
            await asyncio.wait({order, rising}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)

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
        try:
            await self._source.set_copy_rate(self._move.guest, mib_per_second)
        except HostError as error:
            self._show.say(f"the copy did not get its speed back: {error}")
            return False
        if self._held_at is not None:
            self.figures.hold_seconds = time.monotonic() - self._held_at
        self._held_at = None
        return True

    async def _switched(self, order: Order, budget: Budget, limit_ms: int, *, released: bool) -> None:
        """Until the guest runs on: on the target, or, after an order that failed plainly, on the source."""
        limit_seconds = holding.SWITCH_LIMIT_SECONDS + budget.seconds
        resumed = asyncio.create_task(self._resumed.wait())
        # Beside: in the blackout the source answers nothing, and the target's word is not to wait for that.
        widening = asyncio.create_task(self._widen(budget, limit_ms)) if released else None
        deadline = time.monotonic() + limit_seconds
        waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {order, resumed}
        try:
            while waiting and (left := deadline - time.monotonic()) > 0:
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if resumed in done or (order.done() and not _silent(order)):
                    return
                waiting -= done  # an order that ended without a word: it may go on
        finally:
            resumed.cancel()
            if widening is not None:
                widening.cancel()
        self.give_up(f"{self._move.guest} had not switched over {limit_seconds:.0f} s after the raise")

    async def _widen(self, budget: Budget, limit_ms: int) -> None:
        """Until it is cancelled: allow a guest that writes too much a blackout as long as it takes. (After
        the rate: the other way round it had moved before the second call; seen.)"""
        await self._allow(limit_ms)
        longer_at = time.monotonic() + holding.LONGER_SECONDS
        while True:
            await asyncio.sleep(holding.WIDEN_SECONDS)
            look = await self._look()
            wider = budget.wider_downtime_ms(limit_ms, look, late=time.monotonic() >= longer_at)
            if wider > limit_ms:
                limit_ms, longer_at = wider, time.monotonic() + holding.LONGER_SECONDS
                await self._allow(limit_ms)

    # -- down again ---------------------------------------------------------------------------------------

    async def _end(self, order: Order) -> None:
        """The heartbeat first, however it ended; then what is left of the hold."""
        await self._stop_following()
        if self._others_rise:
            self._show.say("lowering the heartbeat timeout")
            outcome = await self._runs(LowerGoal(self._ground.window), LOWER_LIMIT_SECONDS).run()
            self._note_down()
            if isinstance(outcome, Stop):
                self.figures.lowered = False
                for message in outcome.messages:
                    text = f"the heartbeat timeout is not down on every member yet: {message.text}"
                    self._show.tell(Message("NOT_LOWERED", text, Severity.WARNING, node=message.node,
                                            next_command="standfast window lower"))  # fmt: skip
        if not (self._resumed.is_set() or _went_well(order)):  # with the guest its speed has left the host
            await self.take_speed_back()

    def _note_down(self) -> None:
        if self._before is None:
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
    return isinstance(order.exception(), HostUnreachable)
