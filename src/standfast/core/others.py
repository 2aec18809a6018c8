"""The guests for which a window is not being closed, and which may have moved in it all the same.

The heartbeat timeout comes down for all at once (invariant S5), so closing looks at every registered guest:

* One that is on its way, or that a host cannot place, keeps the window as it is; nothing is written, since
  its blackout may come at any moment.
* One that runs elsewhere than where its devices aim has to be closed by a ``-u`` of its own. The guest that
  was asked for is aimed and proven before that is said, or two guests that moved could never be closed.
* One that the window was opened for, or that a ``-u`` has named in it, must run plainly at its aim with all
  its agents proven, or its node must be proven off.

A guarded window is its mover's alone: a ``-u`` of another guest would take the record from the killing gate,
and leave the mover held by it with nobody who may act. So that one is closed first; where the mover is proven
off, its killing gate goes with the same write.

None of this holds for the repair of an aim without a window: there no heartbeat comes down.
"""

from __future__ import annotations

from collections.abc import Iterator

from standfast.core import by_kind, members
from standfast.core.evidence import MOVING, GuestState, HostAnswer
from standfast.core.gate import plainly_on
from standfast.core.messages import Message
from standfast.core.record import Record
from standfast.core.steps import CloseGoal, NodeAim, Snapshot

ON_ITS_WAY = MOVING | {GuestState.UNKNOWN}


def guarded(snapshot: Snapshot, goal: CloseGoal) -> Message | None:
    """Another node that only its killing gate may fence, while anything of it may be alive."""
    for node in sorted(snapshot.guarded - {goal.node} - snapshot.proven_off):
        aim = snapshot.aims.get(node)
        if aim is None:
            continue  # its agents were removed: nothing of it is closed by a -u of its own
        where = plainly_on(snapshot.places.get(aim.guest, ()))
        text = (
            f"a guarded window is open for {aim.guest}, and only its killing gate may fence {node}: it is "
            f"closed before anything is done for {goal.guest}"
        )
        return _message(aim, text, where, f"clovmmigrate -u {aim.guest} {where or 'HOST'}")
    return None


def moving(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Message | None:
    """Another guest that is on its way, or of which a host that answers cannot say what it is there."""
    for aim, answers in _others(snapshot, goal, record):
        found = [answer for answer in answers if answer.state in ON_ITS_WAY]
        if found:
            text = f"{aim.guest} is not plainly in one place: {_shown(found)}; the window is open for it too"
            hint = f"{by_kind.look(snapshot.hosts, found[0].host, aim.guest)}; when it has ended: "
            return _message(aim, text, found[0].host, hint + f"clovmmigrate -u {aim.guest} HOST")
    return None


def astray(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Message | None:
    """Another guest that runs where its devices do not aim; one of this window that runs nowhere plainly."""
    for aim, answers in _others(snapshot, goal, record):
        running = [answer.host for answer in answers if answer.state is GuestState.RUNNING]
        if len(running) > 1:
            text = f"two copies of {aim.guest}, on {' and on '.join(running)}: stop one, mind its data"
            stop = by_kind.stop(snapshot.hosts, " or ".join(running), aim.guest)
            hint = f"{stop}, then clovmmigrate -u {aim.guest} HOST"
            return _message(aim, text, running[0], hint)
        if running and running[0] != aim.host:
            aimed = aim.host or "no known host"
            text = f"{aim.guest} runs on {running[0]}, and its shutdown agents aim at {aimed}"
            return _message(aim, text, running[0], f"clovmmigrate -u {aim.guest} {running[0]}")
        unasked = members.unasked(snapshot, aim.host)
        if (
            not running
            and not unasked
            and aim.node in _movers(record)
            and aim.node not in snapshot.proven_off
        ):
            text = (
                f"the window is open for {aim.guest} too, which runs nowhere plainly and is not proven off "
                f"({_shown(answers)})"
            )
            hint = f"{by_kind.start(snapshot.hosts, '', aim.guest)}, then "
            return _message(aim, text, aim.host, hint + f"clovmmigrate -u {aim.guest} HOST")
    return None


def unproven(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Message | None:
    """A guest of this window that runs at its aim while an agent has not proven that. A proof from before the
    window counts: its devices aim where they did, and it is there."""
    for aim, _ in _others(snapshot, goal, record):
        if aim.node not in _movers(record) or aim.node in snapshot.proven_off:
            continue
        if late := members.unproven(snapshot, aim.node, 0):
            text = f"the window is open for {aim.guest} too, and it is not proven: {', '.join(late)}"
            return _message(aim, text, aim.host, f"clovmmigrate -u {aim.guest} {aim.host}")
    return None


def _others(
    snapshot: Snapshot, goal: CloseGoal, record: Record
) -> Iterator[tuple[NodeAim, tuple[HostAnswer, ...]]]:
    """Every other registered guest, with what hosts say that are not declared dead."""
    if not (record.open and record.old):
        return
    for _, aim in sorted(snapshot.aims.items()):
        if aim.node != goal.node:
            answers = snapshot.places.get(aim.guest, ())
            yield aim, tuple(answer for answer in answers if answer.host not in goal.skip_save)


def _movers(record: Record) -> frozenset[str]:
    """Nodes that the window was opened for, or that a ``-u`` has named in it."""
    return frozenset({record.mover, *record.settle})


def _shown(answers: tuple[HostAnswer, ...] | list[HostAnswer]) -> str:
    return ", ".join(map(str, answers))


def _message(aim: NodeAim, text: str, host: str, hint: str) -> Message:
    return Message("OTHER_GUEST", text, node=aim.node, host=host, next_command=hint)
