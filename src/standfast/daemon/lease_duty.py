"""What this node does about a window that stays open: reminders, and at the end its close, or arming.

The decision is `core.lease`; here are its hands. Closing is the operator's own command, started as a process:
it has its lock, its limits and its words, and a daemon that dies takes nothing half-done with it but what the
next ``clovmmigrate -u`` understands.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from standfast.core import lease, names
from standfast.core.arming import Arm
from standfast.core.evidence import HostAnswer
from standfast.core.record import Record
from standfast.core.steps import CloseGoal, HostEntry, NodeAim
from standfast.daemon import arm_window, own_command

CLOSE_LIMIT_SECONDS = 360.0
"""More than the command's own limit."""
HOOK_LIMIT_SECONDS = 30.0
REASON = "the lease is over"

Where = Mapping[str, tuple[HostAnswer, ...]]


@dataclass(frozen=True)
class Seen:
    """What the daemon knows at this look."""

    me: str
    members: frozenset[str]
    record: Record
    window_seconds: float
    """Since this node first saw the window."""
    aims: Mapping[str, NodeAim]
    quorate: bool = False
    hosts: Mapping[str, HostEntry] = field(default_factory=dict)
    absent_seconds: Mapping[str, float] = field(default_factory=dict)
    clocks: str = ""
    not_killing: tuple[str, ...] = ()


class LeaseDuty:
    """Asked at each look of the daemon; remembers what it has done about the present window."""

    def __init__(
        self,
        ask: Callable[[Mapping[str, NodeAim]], Awaitable[Where]],
        tell: Callable[[str], None],
        close: Callable[[CloseGoal], Awaitable[str]] | None = None,
        remind: Callable[[int, float, Record], Awaitable[str]] | None = None,
        arm: Callable[[Arm, Mapping[str, NodeAim]], Awaitable[str]] | None = None,
    ) -> None:
        """`ask`: node -> what all hosts say of its guest. `tell`: one line for log and journal."""
        self.over: lease.Over | None = None
        """The lease is over and the window stays: for the alarm."""
        self._ask, self._tell = ask, tell
        self._close, self._remind = close or run_close, remind or run_hook
        self._arm = arm or arm_window.run_arm
        self._of: object = None
        self._reminded = 0
        self._tried_at: float | None = None
        self._refusal = ""
        self._armed_at: float | None = None
        self._arm_refusal = ""
        self._closing: asyncio.Task[None] | None = None
        self._reminding: set[asyncio.Task[None]] = set()

    async def step(self, seen: Seen) -> None:
        """Do what is due now. Never raises for what the world does; long work goes on by itself."""
        record = seen.record
        if (record.window, record.lease_seconds) != self._of:
            self._of = (record.window, record.lease_seconds)
            self._reminded, self._tried_at, self._refusal = 0, None, ""
            self._armed_at, self._arm_refusal = None, ""
        if self._closing is not None and not self._closing.done():
            return
        view = lease.LeaseView(
            me=seen.me,
            members=seen.members,
            record=record,
            seconds_since_window_seen=seen.window_seconds,
            reminded_percent=self._reminded,
            aims=seen.aims,
            seconds_since_attempt=_since(self._tried_at),
            refusal=self._refusal,
            quorate=seen.quorate,
            hosts=seen.hosts,
            absent_seconds=seen.absent_seconds,
            seconds_since_arming=_since(self._armed_at),
            arm_refusal=self._arm_refusal,
            clocks=seen.clocks,
            not_killing=seen.not_killing,
        )
        action = lease.decide(view)
        if isinstance(action, lease.AskHosts):
            action = lease.decide(replace(view, where=await self._ask(seen.aims)))
        self.over = action if isinstance(action, lease.Over) else None
        if self.over is not None and self.over.tried:
            self._tried_at, self._refusal = time.monotonic(), self.over.why
        if isinstance(action, lease.Remind):
            self._reminded = action.percent
            self._tell(reminder(action, record))
            # Not waited for: the daemon has its node to look after, and a site's program may take its time.
            self._reminding.add(task := asyncio.create_task(self._call_site(action, record)))
            task.add_done_callback(self._reminding.discard)
        elif isinstance(action, lease.Close):
            self._tried_at = time.monotonic()
            self._closing = asyncio.create_task(self._try(action.goal))
        elif isinstance(action, Arm):
            self._armed_at = time.monotonic()
            self._closing = asyncio.create_task(self._try_to_arm(action, seen.aims))

    async def ended(self) -> None:
        """Wait for what goes on by itself."""
        await asyncio.gather(*self._reminding, *([self._closing] if self._closing else []))

    async def _call_site(self, action: lease.Remind, record: Record) -> None:
        if trouble := await self._remind(action.percent, action.seconds_left, record):
            self._tell(trouble)

    async def _try(self, goal: CloseGoal) -> None:
        self._tell(f"the lease is over: closing the window with clovmmigrate -u {goal.guest} {goal.target}")
        self._refusal = await self._close(goal)
        self._tried_at = time.monotonic()
        self._tell(f"not closed: {self._refusal}" if self._refusal else "the window is closed")

    async def _try_to_arm(self, action: Arm, aims: Mapping[str, NodeAim]) -> None:
        self._tell(
            f"the lease is over, the window cannot be closed and {action.node} is lost: arming it, so that "
            f"the killing gate of {action.node} acts"
        )
        self._arm_refusal = await self._arm(action, aims)
        self._armed_at = time.monotonic()
        if self._arm_refusal:
            self._tell(f"not armed: {self._arm_refusal}")


def _since(then: float | None) -> float | None:
    return None if then is None else time.monotonic() - then


def reminder(action: lease.Remind, record: Record) -> str:
    """The line for the log."""
    who = record.mover or "every node"
    return (
        f"the window for {who} is still {record.phase.value}: {action.percent} % of its lease are over, "
        f"{action.seconds_left / 60:.0f} min are left; close it with clovmmigrate -u source-ldom target-host"
    )


async def run_close(goal: CloseGoal, program: str = "clovmmigrate") -> str:
    """Close as an operator would. Empty: it is closed; else why not, and what to type."""
    argv = (program, "-u", goal.guest, goal.target, "--yes", "--json", "--reason", REASON)
    return (await own_command.run(argv, CLOSE_LIMIT_SECONDS)).refusal


async def run_hook(percent: int, seconds_left: float, record: Record, program: str = names.LEASE_HOOK) -> str:
    """Call the site's program, if there is one: PERCENT SECONDS-LEFT MOVER. Empty, or what went wrong."""
    if not os.access(program, os.X_OK):
        return ""
    argv = (program, str(percent), str(round(seconds_left)), record.mover)
    code, _, errors = await own_command.start(argv, HOOK_LIMIT_SECONDS)
    if code is None:
        return f"{program} did not end within {HOOK_LIMIT_SECONDS:.0f} s, or could not be started"
    return f"{program} ended with exit code {code}: {' '.join(errors.split())[-200:]}" if code else ""
