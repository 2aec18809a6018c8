"""The order to migrate, and what became of it: asked of all hosts, never concluded from how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from standfast.commands.migrate_plan import Plan
from standfast.commands.migrate_raise import JustInTime
from standfast.commands.migrate_show import Show
from standfast.commands.migrate_stop import Interrupts, given_up
from standfast.core import migration
from standfast.core.evidence import HostAnswer
from standfast.core.messages import Message, Severity
from standfast.core.migration import CancelIt, CloseAt, Ended, LeaveOpen, LookAgain, Sight, Where
from standfast.hosts.base import (
    Host,
    HostBug,
    HostError,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    MigrationRefused,
    MovedByHand,
)

CANCEL_LIMIT_SECONDS = 600.0
CANCEL_TRIES = 10
CANCEL_AGAIN_SECONDS = 2.0
"""A host that has not begun yet has nothing to cancel."""
ENDED_LIMIT_SECONDS = 60.0
"""After a cancel the order itself has to end."""
LOOK_SECONDS = 1.0

Ask = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[HostAnswer, ...]]]]

_NOT_BEGUN = (HostUnreachable, LoginRefused, HostKeyUnknown, HostBug, MovedByHand, MigrationRefused)
"""What these say without `may_have_happened` was said before the order was given."""


class Course:
    """One migration at its hosts."""

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, Host],
        ask: Ask,
        show: Show,
        stop: Interrupts,
        raises: JustInTime | None = None,
    ) -> None:
        """`raises`: goes on beside the order, and may want it cancelled."""
        self._plan, self._hosts, self._ask = plan, hosts, ask
        self._show, self._stop, self._raises = show, stop, raises
        self._began: float | None = None
        self._cancelled = False
        self._tries = 0
        self.reason = ""
        """Why it failed, in the host's own words."""
        self.seconds = 0.0
        """How long it took, until it was seen to have ended."""

    @property
    def _source(self) -> Host:
        return self._hosts[self._plan.move.source]

    @property
    def _over(self) -> bool:
        return self._began is not None and time.monotonic() - self._began >= self._plan.limit_seconds

    @property
    def _gave_up(self) -> bool:
        return self._raises is not None and self._raises.gave_up.is_set()

    # -- the order ----------------------------------------------------------------------------------------

    async def migrate(self) -> Ended:
        """Give the order and wait for its end, or for the operator. Raises Left."""
        if self._stop.wanted.is_set() or self._gave_up:
            if self._raises is not None:
                await self._stop.through(self._raises.copy.take_speed_back())
            return Ended.NOT_BEGUN
        move = self._plan.move
        self._show.enter("migrating", f"migrating {move.guest} from {move.source} to {move.target}")
        self._show.migrating()
        self._began = time.monotonic()
        order = asyncio.create_task(
            self._source.migrate(move.guest, self._plan.target, self._show.progress, self._plan.limit_seconds)
        )
        ends = [asyncio.create_task(self._stop.wanted.wait())]
        beside: asyncio.Task[None] | None = None
        if self._raises is not None:
            ends.append(asyncio.create_task(self._raises.gave_up.wait()))
            beside = asyncio.create_task(self._raises.beside(order))
        try:
            await self._stop.through(asyncio.wait({order, *ends}, return_when=asyncio.FIRST_COMPLETED))
            if not order.done():
                if self._raises is not None:
                    self._raises.gave_up.set()  # what is being cancelled is not let go any more
                await self._stop.through(self._cancel_while(order))
            if beside is not None and self._raises is not None:
                # An order that ended without a word may go on, and with it what is beside.
                left = max(0.0, self._plan.limit_seconds - (time.monotonic() - self._began))
                both = asyncio.wait({beside, *ends}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                await self._stop.through(both)
                if not beside.done():
                    self._raises.gave_up.set()
                await self._stop.through(beside)
            return self._ended(order)
        finally:
            for end in ends:
                end.cancel()
            await given_up(order)  # our session only: the hosts go on
            if beside is not None:
                await given_up(beside)  # what it leaves raised the nodes lower

    async def _cancel_while(self, order: asyncio.Task[None]) -> None:
        while not order.done() and not self._cancelled:
            await self._cancel()
            await asyncio.wait({order}, timeout=CANCEL_AGAIN_SECONDS)
        await asyncio.wait({order}, timeout=ENDED_LIMIT_SECONDS)

    async def _cancel(self) -> None:
        """Order the cancel at the source. Whether it worked is what the next looks show."""
        move = self._plan.move
        self._tries += 1
        self._show.enter("cancelling", f"cancelling the migration of {move.guest} on {move.source}")
        try:
            await self._source.cancel_migration(move.guest, CANCEL_LIMIT_SECONDS)
            self._cancelled = True
        except HostError as error:
            self._cancelled = error.may_have_happened or self._tries >= CANCEL_TRIES
            text = f"the cancel was not carried out plainly: {error}"
            self._show.tell(Message("CANCEL_FAILED", text, Severity.WARNING, host=error.host))

    def _ended(self, order: asyncio.Task[None]) -> Ended:
        if not order.done() or order.cancelled():
            return Ended.UNKNOWN
        error = order.exception()
        if error is None:
            return Ended.DONE
        if not isinstance(error, HostError):
            raise error
        self.reason = str(error)
        if isinstance(error, _NOT_BEGUN) and not error.may_have_happened:
            return Ended.NOT_BEGUN
        return Ended.REFUSED if isinstance(error, MigrationRefused) else Ended.UNKNOWN

    # -- what became of it --------------------------------------------------------------------------------

    async def found(self, ended: Ended) -> CloseAt | LeaveOpen:
        """Look until it is plain where the guest is, or until the limits of `core.migration` have passed."""
        move = self._plan.move
        since, shown, shown_since, said = time.monotonic(), None, 0.0, ""
        while True:
            answers = (await self._ask([move.guest])).get(move.guest, ())
            now, place = time.monotonic(), migration.where(answers, move.source, move.target)
            if place is not shown:
                shown, shown_since = place, now
            sight = Sight(place, answers, now - shown_since, now - since, self._over,
                          self._stop.wanted.is_set() or self._gave_up, self._cancelled)  # fmt: skip
            step = migration.after(move, ended, sight)
            if isinstance(step, CloseAt | LeaveOpen):
                self._take_time(shown_since)
                return step
            if isinstance(step, CancelIt):
                await self._cancel()
                since = time.monotonic()
            elif isinstance(step, LookAgain) and step.why != said:
                said = step.why
                self._show.say(f"waiting: {said}")
            if place is Where.MOVING:
                await self._progress()
            await asyncio.sleep(LOOK_SECONDS)

    async def _progress(self) -> None:
        with contextlib.suppress(HostError):
            job = await self._source.migration_job(self._plan.move.guest)
            if job is not None:
                self._show.progress(job)

    def _take_time(self, until: float) -> None:
        if self._began is not None:
            self.seconds = until - self._began

    def how(self, ended: Ended, *, moved: bool) -> Message | None:
        """What is to be said of it beside where the guest is; None: it went as it should."""
        move = self._plan.move
        if moved:
            if self._raises is not None and not self._raises.in_force:
                why = self._raises.why.text if self._raises.why is not None else "nobody could look in time"
                text = f"{move.guest} has switched over, and the heartbeat timeout was not raised: {why}"
                return Message(
                    "MOVED_UNRAISED", text, Severity.WARNING, node=move.node, next_command="crm_mon -1"
                )
            if ended is Ended.DONE:
                return None
            text = f"it arrived all the same: {self.reason or 'nobody said how it ended'}"
            return Message("ARRIVED", text, Severity.WARNING, node=move.node, host=move.target)
        again = f"standfast migrate {move.guest} --to {move.target}"
        if self._stop.wanted.is_set():
            text = f"the migration of {move.guest} was cancelled by you"
            return Message("MIGRATION_CANCELLED", text, Severity.WARNING, node=move.node, next_command=again)
        if self._raises is not None and self._raises.why is not None:
            return self._raises.why
        if self._over:
            text = f"the migration of {move.guest} did not end within {self._plan.limit_seconds // 60} min"
            return Message("MIGRATION_LIMIT", text, node=move.node, next_command=f"{again} --lease MINUTES")
        why = self.reason or f"{move.source} said that it was done, and {move.guest} has stayed there"
        text = f"{move.guest} was not migrated: {why}"
        return Message("MIGRATION_FAILED", text, node=move.node, host=move.source, next_command=again)
