"""``standfast migrate --cold``: a stopped guest has no blackout, is no member, and needs no window.

Its agents go on aiming at the source until it runs at the target and a closing proves them there, or
``standfast window repair`` aims them at the host that knows it; once it runs the gate holds what would aim
wrong (rule `elsewhere`).
"""

from __future__ import annotations

import asyncio
import time

from standfast.commands.migrate_plan import Plan, not_possible
from standfast.commands.migrate_show import Show
from standfast.commands.window_run import EXIT_DONE, EXIT_REFUSED
from standfast.core import by_kind, migration_before
from standfast.core.evidence import HostAnswer
from standfast.core.messages import Message, Refused
from standfast.hosts.base import HostError, MigrationRefused
from standfast.survey import Survey

MOVE_LIMIT_SECONDS = 300.0
LOOK_LIMIT_SECONDS = 30.0
LOOK_SECONDS = 1.0


async def move(plan: Plan, survey: Survey, show: Show) -> int:
    """Move the definition, see where it is, and say what comes next. Raises Refused."""
    what = plan.move
    answers = (await survey.ask([what.guest])).get(what.guest, ())
    if (wrong := migration_before.placed(what, answers, cold=True)) is not None:
        raise Refused(wrong)  # somebody has started it meanwhile: it would be migrated live, without a window
    show.enter("migrating", f"moving {what.guest}, which is stopped, from {what.source} to {what.target}")
    failed: HostError | None = None
    try:
        await survey.hosts[what.source].migrate(what.guest, plan.target, show.progress, MOVE_LIMIT_SECONDS)
    except HostError as error:
        failed = error
    arrived, answers = await _looked(plan, survey, failed)
    shown = ", ".join(map(str, answers))
    if arrived:
        start = by_kind.start(what.hosts, what.target, what.guest)
        show.say(f"next: {start}, then standfast window close {what.guest} --to {what.target}")
        text = f"{what.guest} is on {what.target}, stopped; its fencing still aims at {what.source}"
        return show.end(EXIT_DONE, text)
    if failed is not None and migration_before.placed(what, answers, cold=True) is None:
        show.tell(not_possible(what, failed))
        return show.end(EXIT_REFUSED, f"{what.guest} is still on {what.source}, stopped: {shown}")
    text = f"it is not plain where {what.guest} is now: {shown}" + (f" ({failed})" if failed else "")
    hint = "start it on no host before it is known to one alone; then standfast window close GUEST --to HOST"
    show.tell(Message("NO_PLACE", text, node=what.node, next_command=hint))
    return show.end(EXIT_REFUSED, "")


async def _looked(
    plan: Plan, survey: Survey, failed: HostError | None
) -> tuple[bool, tuple[HostAnswer, ...]]:
    """Whether it has arrived, by two looks at least: an order whose end nobody told may be late."""
    what, deadline = plan.move, time.monotonic() + LOOK_LIMIT_SECONDS
    late = failed is not None and failed.may_have_happened and not isinstance(failed, MigrationRefused)
    while True:
        answers = (await survey.ask([what.guest])).get(what.guest, ())
        if migration_before.arrived(what, answers):
            return True, answers
        plain = failed is not None and migration_before.placed(what, answers, cold=True) is None
        if (plain and not late) or time.monotonic() > deadline:
            return False, answers
        await asyncio.sleep(LOOK_SECONDS)
