"""What follows from the end of a migration that ``standfast migrate`` has begun: pure, asked at every look.

Where the guest is comes from what all hosts say, never from how the migration ended: a host that says
"failed" may have moved the guest, and a connection that broke says nothing at all. The closed table:

    plainly on the target   close there, however it ended
    plainly on the source   close there, once it has stayed so for as long as this end can be late
    on its way              look on; past the limit, or where the operator wants it, cancel what we began
    on both, on a third host, in an error state, on none, not to be told
                            look on for a while, then stop and leave the window to its lease
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from standfast.core import by_kind
from standfast.core.evidence import MOVING, GuestState, HostAnswer
from standfast.core.gate import plainly_on
from standfast.core.messages import Message
from standfast.core.steps import HostEntry

LATE_ORDER_SECONDS = 15.0
"""An order whose session broke may begin later than that: so long the guest has to stay where it was."""
STEADY_SECONDS = 1.0
"""Any other finding has to be seen twice."""
ENDING_LIMIT_SECONDS = 60.0
"""A host that has said how it ended puts its own things in order within that."""
SILENT_LIMIT_SECONDS = 120.0
SCRUB_LIMIT_SECONDS = 480.0
"""After a cancel `ldm` hangs on both control domains for up to 7 minutes, while memory is scrubbed (Oracle VM
Server for SPARC release notes)."""


class Where(Enum):
    """Where the guest is, as all hosts together show it."""

    SOURCE = "source"
    TARGET = "target"
    BOTH = "both"
    ELSEWHERE = "elsewhere"
    MOVING = "moving"
    BROKEN = "broken"
    NOWHERE = "nowhere"
    UNKNOWN = "unknown"


class Ended(Enum):
    """How the order to migrate ended, as far as we were told."""

    NOT_BEGUN = "not begun"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """The host went silent, or our time limit passed: it may go on, or begin only now."""


def where(answers: Sequence[HostAnswer], source: str, target: str) -> Where:
    """The closed table, from one round of answers of all hosts."""
    states = [answer.state for answer in answers]
    running = [answer.host for answer in answers if answer.state is GuestState.RUNNING]
    if GuestState.ERROR in states:
        return Where.BROKEN
    if any(answer.job or answer.state in MOVING for answer in answers):
        return Where.MOVING
    if len(running) > 1:
        return Where.BOTH
    if plain := plainly_on(answers):
        return {source: Where.SOURCE, target: Where.TARGET}.get(plain, Where.ELSEWHERE)
    if states and all(state.proves_not_here for state in states):
        return Where.NOWHERE
    return Where.UNKNOWN


@dataclass(frozen=True)
class Sight:
    """One look after the end of the order. Times in seconds."""

    where: Where
    answers: tuple[HostAnswer, ...]
    steady_seconds: float
    """For how long every look has shown the same."""
    looked_seconds: float
    """Since the order ended, or since our cancel did."""
    over: bool = False
    """The migration's own limit has passed."""
    wanted: bool = False
    """The operator wants it cancelled."""
    cancelled: bool = False
    """We have ordered a cancel."""


@dataclass(frozen=True)
class CloseAt:
    """Close the window with the guest on this host."""

    host: str


@dataclass(frozen=True)
class LookAgain:
    """Nothing is plain yet."""

    why: str


@dataclass(frozen=True)
class CancelIt:
    """Cancel the migration at the source."""


@dataclass(frozen=True)
class LeaveOpen:
    """Nothing more can be done by itself: the window stays open until its lease ends."""

    message: Message


After = CloseAt | LookAgain | CancelIt | LeaveOpen


@dataclass(frozen=True)
class Move:
    """Which guest, and between which hosts."""

    guest: str
    node: str
    source: str
    target: str
    hosts: Mapping[str, HostEntry]
    """Every host of the configuration."""


def after(move: Move, ended: Ended, sight: Sight) -> After:
    """What to do after this look."""
    if sight.where is Where.TARGET:
        return CloseAt(move.target)
    if sight.where is Where.SOURCE:
        return _on_source(move, ended, sight)
    if sight.where is Where.MOVING and (ours := _ours(ended, sight)) is not None:
        return ours
    limit = _limit_seconds(sight)
    if sight.looked_seconds < limit or sight.steady_seconds < STEADY_SECONDS:
        return LookAgain(f"{_shown(sight)} (up to {limit:.0f} s)")
    return LeaveOpen(left_open(move, sight))


def _on_source(move: Move, ended: Ended, sight: Sight) -> After:
    needed = {Ended.NOT_BEGUN: 0.0, Ended.REFUSED: STEADY_SECONDS}.get(ended, LATE_ORDER_SECONDS)
    if sight.cancelled:
        needed = STEADY_SECONDS
    if sight.steady_seconds < needed:
        return LookAgain(f"{move.guest} to stay on {move.source} for {needed:.0f} s")
    return CloseAt(move.source)


def _ours(ended: Ended, sight: Sight) -> After | None:
    """A migration that goes on although our order has ended without a word. After a plain "no" of the host it
    is not known to be ours, and nobody else's is cancelled."""
    if ended is not Ended.UNKNOWN or sight.cancelled:
        return None
    return CancelIt() if sight.over or sight.wanted else LookAgain("the migration goes on at the host")


def _limit_seconds(sight: Sight) -> float:
    if sight.where is Where.UNKNOWN:
        return SCRUB_LIMIT_SECONDS if sight.cancelled else SILENT_LIMIT_SECONDS
    return SCRUB_LIMIT_SECONDS if sight.cancelled and sight.where is Where.MOVING else ENDING_LIMIT_SECONDS


def _shown(sight: Sight) -> str:
    return ", ".join(map(str, sight.answers)) or "no host answered"


# -- what is said where it stops ----------------------------------------------------------------------------


def left_open(move: Move, sight: Sight) -> Message:
    """What is seen, and what to type, where the guest is neither plainly on the source nor on the target."""
    guest, shown = move.guest, _shown(sight)
    close = f"standfast window close {guest}"
    on = [answer.host for answer in sight.answers if answer.state is GuestState.RUNNING]
    if sight.where is Where.BOTH:
        both = " or ".join(sorted(on))
        hint = f"{by_kind.stop(move.hosts, both, guest)}, then {close}"
        return Message("TWO_COPIES", f"two copies of {guest}: {shown}; stop one, mind its data",
                       node=move.node, next_command=hint)  # fmt: skip
    if sight.where is Where.ELSEWHERE:
        text = f"{guest} runs on {on[0]}, neither source nor target: {shown}"
        return Message("OTHER_HOST", text, node=move.node, host=on[0], next_command=f"{close} --to {on[0]}")
    if sight.where is Where.NOWHERE:
        start = by_kind.start(move.hosts, _kept_on(move, sight), guest)
        return Message("GUEST_STOPPED", f"{guest} runs on no host: {shown}",
                       node=move.node, next_command=f"{start}, then {close}")  # fmt: skip
    if sight.where in (Where.MOVING, Where.BROKEN):
        first = next(answer.host for answer in sight.answers if answer.job or answer.state in MOVING)
        look = by_kind.look(move.hosts, first, guest)
        if sight.where is Where.BROKEN:
            text = f"a migration has left a copy of {guest} that is neither alive nor gone: {shown}"
            hint = f"{look}; cancel it there, then {close}"
            return Message("MIGRATION_BROKEN", text, node=move.node, host=first, next_command=hint)
        text = f"{guest} is still being moved: {shown}"
        return Message("MIGRATING", text, node=move.node, host=first,
                       next_command=f"{look}; when it has ended: {close}")  # fmt: skip
    return _not_told(move, sight, close)


def _kept_on(move: Move, sight: Sight) -> str:
    """The one host that knows the stopped guest; empty: several or none."""
    kept = [answer.host for answer in sight.answers if answer.state is GuestState.STOPPED]
    return kept[0] if len(kept) == 1 else ""


def _not_told(move: Move, sight: Sight, close: str) -> Message:
    text = f"where {move.guest} is cannot be told: {_shown(sight)}"
    silent = [answer.host for answer in sight.answers if answer.state is GuestState.SILENT]
    if not silent:
        return Message("NO_PLACE", text, node=move.node,
                       next_command=f"{close} (when it runs plainly on one host)")  # fmt: skip
    hint = f"{close} (when {', '.join(silent)} answers; dead: runbook, a control domain is lost)"
    return Message("HOST_SILENT", text, node=move.node, host=silent[0], next_command=hint)


def left_to_lease(move: Move, lease_ends: str) -> Message:
    """A second interruption: the command ends at once, and nothing is closed."""
    look = by_kind.look(move.hosts, move.source, move.guest)
    hint = f"{look}; when it has ended: standfast window close {move.guest}"
    text = (
        f"left at once: the window of {move.guest} stays open until its lease ends ({lease_ends}), and a "
        "migration that was begun, or its cancel, goes on at the hosts"
    )
    return Message("LEFT_TO_LEASE", text, node=move.node, next_command=hint)
