"""The window's planner: one pure question, asked again after every step.

``decide(snapshot, goal)`` is the whole of it. It keeps no state, so an interrupted window is finished or
undone by whoever asks next, on whichever node, and gets the same answer.
"""

from __future__ import annotations

from dataclasses import replace

from standfast.core import closing, opening, raising
from standfast.core.record import Phase, Record
from standfast.core.steps import (
    CloseGoal,
    Decision,
    Done,
    Goal,
    LowerGoal,
    OpenGoal,
    RaiseGoal,
    Snapshot,
    Stop,
)

MAX_STEPS = 200
"""A whole opening or closing takes about a dozen steps and as many waits; more is a defect, not patience."""


def decide(snapshot: Snapshot, goal: Goal) -> Decision:
    """The next step toward `goal`, or that it is reached, or why it cannot be reached.

    An opening that failed is put back by the same command before it answers: a record that is closing with
    `abort` belongs to it.
    """
    if isinstance(goal, RaiseGoal):
        return raising.higher(snapshot, goal)
    if isinstance(goal, LowerGoal):
        return raising.lower(snapshot, goal)
    if isinstance(goal, CloseGoal):
        return closing.decide(snapshot, goal, goal.since_epoch)
    record = snapshot.record
    if record is not None and record.phase is Phase.CLOSING and record.abort:
        return closing.decide(snapshot, None, goal.since_epoch)
    return opening.decide(snapshot, goal)


def only_asked(before: Record | None, found: Record | None) -> bool:
    """Whether a closing was only asked whether its command is alive (`members.commander`): nothing but the
    epoch has moved. What it waits for it has then waited for all the while: else who asks again and again
    would have it wait for ever."""
    if before is None or found is None or found.phase is not Phase.CLOSING:
        return False
    return replace(found, epoch=before.epoch) == before


__all__ = [
    "MAX_STEPS",
    "CloseGoal",
    "Decision",
    "Done",
    "LowerGoal",
    "OpenGoal",
    "RaiseGoal",
    "Snapshot",
    "Stop",
    "decide",
    "only_asked",
]
