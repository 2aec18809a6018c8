"""What must be true before ``standfast migrate`` opens a window, and for how long it is opened.

The window's own preflight (`core.preflight`) and the hosts' dry run come in addition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from standfast.core import by_kind
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.gate import plainly_on
from standfast.core.messages import Message
from standfast.core.migration import Move, Where, where
from standfast.core.steps import Snapshot

ASSUMED_BYTES_PER_SECOND = 110_000_000
"""What 1 Gbit/s carries: the slowest network that memory is sent over, as long as nothing else is known."""
PASSES = 2
"""Memory that is written meanwhile is sent again."""
FIXED_SECONDS = 30
LEAST_LEASE_SECONDS = 15 * 60
MOST_LEASE_SECONDS = 24 * 3600
CLOSING_SECONDS = 300
"""Of the lease, kept for closing: the limit of that command."""


def predicted_seconds(memory_bytes: int | None) -> int | None:
    """How long the migration of a guest with so much memory may take; None: nothing is known."""
    if memory_bytes is None:
        return None
    return FIXED_SECONDS + PASSES * memory_bytes // ASSUMED_BYTES_PER_SECOND


def lease_seconds(asked_minutes: int | None, predicted: int | None, default_minutes: int) -> int:
    """How long the window may stay open: what was asked for, else twice the prediction, else the file's."""
    if asked_minutes is not None:
        return 60 * asked_minutes
    if predicted is None:
        return 60 * default_minutes
    minutes = -(-2 * predicted // 60)
    return max(LEAST_LEASE_SECONDS, min(60 * minutes, MOST_LEASE_SECONDS))


def limit_seconds(lease: int) -> int:
    """How long the migration may take: so that a lease that is not very short leaves time to close."""
    return max(lease // 2, lease - CLOSING_SECONDS)


def who_and_where(snapshot: Snapshot, move: Move) -> tuple[Message, ...]:
    """What speaks against it before any host is asked."""
    return (*_kinds(move), *_from_here(snapshot, move), *_window(snapshot))


def _kinds(move: Move) -> Iterator[Message]:
    by_hand = [name for name in dict.fromkeys((move.source, move.target)) if _kind(move, name) == "manual"]
    if by_hand:
        yield Message(
            "MOVED_BY_HAND",
            f"{', '.join(by_hand)} is of kind manual: a person moves guests there",
            host=by_hand[0],
            next_command=f"clovmmigrate -p {move.guest}; move it with the hosts' own tools; see it run on "
            f"{move.target} and not on {move.source}; clovmmigrate -u {move.guest} {move.target}",
        )
        return
    for name in dict.fromkeys((move.source, move.target)):
        if name in move.hosts and not move.hosts[name].login:
            yield Message(
                "NEEDS_LOGIN",
                f"{name} has no login: nobody can migrate a guest from or to it by a command",
                host=name,
                next_command=f"put a login for {name} into clovmmigrate.conf, or move it by hand: "
                f"clovmmigrate -p {move.guest}",
            )


def _kind(move: Move, host: str) -> str:
    return move.hosts[host].kind if host in move.hosts else ""


def _from_here(snapshot: Snapshot, move: Move) -> Iterator[Message]:
    """The node that moves stands still in the blackout, and this command with it."""
    if move.node != snapshot.me:
        return
    others = sorted(snapshot.members - {move.node})
    where_else = others[0] if others else "another node"
    yield Message(
        "ON_THE_MOVER",
        f"this node is {move.node}, the guest that moves: in its blackout this command would stand still too",
        node=move.node,
        next_command=f"standfast migrate {move.guest} --to {move.target} (on {where_else})",
    )


def _window(snapshot: Snapshot) -> Iterator[Message]:
    record = snapshot.record
    if record is not None and record.open:
        who = record.mover or "every node"
        text = f"a window is {record.phase.value} already, for {who}"
        yield Message("WINDOW_OPEN", text, next_command="standfast window status")


def source_of(answers: Sequence[HostAnswer], aim: str) -> str:
    """The host that a migration would begin on: where it plainly runs, else the one that keeps it stopped,
    else the one at which its agents aim."""
    stopped = [answer.host for answer in answers if answer.state is GuestState.STOPPED]
    return plainly_on(answers) or (stopped[0] if len(stopped) == 1 else aim)


def placed(move: Move, answers: Sequence[HostAnswer], *, cold: bool) -> Message | None:
    """Whether the guest is where a migration can begin: running plainly on the source, or (cold) stopped."""
    place = where(answers, move.source, move.target)
    shown = ", ".join(map(str, answers)) or "no host answered"
    again = f"standfast migrate {move.guest} --to {move.target}"
    if cold and place is Where.NOWHERE:
        return _kept(move, answers, shown)
    if place is Where.SOURCE and not cold:
        return None
    if place is Where.SOURCE:
        text = f"{move.guest} runs on {move.source}: --cold is for a stopped guest"
        return Message("NOT_STOPPED", text, node=move.node, next_command=again)
    if place is Where.NOWHERE:
        hint = f"{by_kind.start(move.hosts, '', move.guest)}, or {again} --cold"
        return Message("GUEST_STOPPED", f"{move.guest} is stopped: {shown}",
                       node=move.node, next_command=hint)  # fmt: skip
    if place is Where.TARGET:
        text = f"{move.guest} runs on {move.target} already"
        hint = f"standfast window close {move.guest} --to {move.target} (proves its fencing there)"
        return Message("HERE_ALREADY", text, host=move.target, next_command=hint)
    if place in (Where.MOVING, Where.BROKEN):
        return Message("MIGRATING", f"{move.guest} is being moved by somebody: {shown}",
                       node=move.node, next_command="wait for its end, or cancel it there")  # fmt: skip
    text = f"{move.guest} is not plainly on one host: {shown}"
    return Message("NO_PLACE", text, node=move.node, next_command="standfast verify")


def _kept(move: Move, answers: Sequence[HostAnswer], shown: str) -> Message | None:
    kept = [answer.host for answer in answers if answer.state is GuestState.STOPPED]
    if kept == [move.source] and move.source != move.target:
        return None
    if kept == [move.target]:
        text = f"{move.guest} is on {move.target} already, stopped"
        hint = (
            f"{by_kind.start(move.hosts, move.target, move.guest)}, then standfast window close {move.guest}"
        )
        return Message("HERE_ALREADY", text, host=move.target, next_command=hint)
    text = f"{move.guest} is not stopped on exactly one host: {shown}"
    return Message(
        "NO_PLACE", text, node=move.node, next_command="take away what is left of it on the others"
    )


def arrived(move: Move, answers: Sequence[HostAnswer]) -> bool:
    """Whether a guest that is moved while it is stopped is known to the target alone."""
    states = {answer.host: answer.state for answer in answers}
    here = states.pop(move.target, None) is GuestState.STOPPED
    return here and all(state is GuestState.ABSENT for state in states.values())


def others(
    snapshot: Snapshot, move: Move, places: Mapping[str, Sequence[HostAnswer]], *, forced: bool
) -> tuple[Message, ...]:
    """Other guests of the cluster: none on its way, and none on the target unless that is forced."""
    found = []
    for aim in snapshot.aims.values():
        if aim.guest == move.guest:
            continue
        answers = places.get(aim.guest, ())
        if where(answers, aim.host, "") in (Where.MOVING, Where.BROKEN):
            text = f"another guest of this cluster is being moved: {', '.join(map(str, answers))}"
            found.append(Message("OTHER_GUEST", text, node=aim.node,
                                 next_command=f"wait, then standfast window close {aim.guest}"))  # fmt: skip
        there = any(answer.host == move.target and answer.state.is_present for answer in answers)
        if (there or (not answers and aim.host == move.target)) and not forced:
            text = (
                f"{move.target} has another node of this cluster already: {aim.guest} ({aim.node}); if that "
                "machine fails, both are lost at once"
            )
            hint = "another host, or the same with --force"
            found.append(Message("NEIGHBOURS", text, node=aim.node, host=move.target,
                                 next_command=hint, force="--force"))  # fmt: skip
    return tuple(found)
