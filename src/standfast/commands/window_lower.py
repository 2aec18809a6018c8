"""``standfast window lower``: the heartbeat timeout as it was, where a command has left it raised.

The nodes type it by themselves (daemon/raised_duty.py). The window stays open, and the mover held.
"""

from __future__ import annotations

from standfast.commands import window_run
from standfast.commands.window_run import EXIT_DONE, Screen

PROGRAM = "standfast window lower"
LIMIT_SECONDS = 120.0


async def lower(screen: Screen, *, overdue: bool) -> int:
    """Lower it; the exit status. Raises Refused."""
    from standfast.core.steps import Done, LowerGoal
    from standfast.execute import Executor

    async with window_run.driving(PROGRAM) as (_, survey):
        snapshot, _ = await window_run.look(survey)
        record = snapshot.record
        if record is None or not record.open:
            return screen.end(EXIT_DONE, "no window is open: nothing is raised")
        goal = LowerGoal(record.window, record.epoch, overdue)
        outcome = await Executor(survey, goal, screen.say, LIMIT_SECONDS).run()
    if not isinstance(outcome, Done):
        return window_run.stopped(outcome, screen)
    return screen.end(EXIT_DONE, outcome.reason if outcome.changed else f"{outcome.reason}: nothing was done")
