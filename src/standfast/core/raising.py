"""The heartbeat raised just in time: in an open guarded window, while its command holds the switch-over.

raise: members and files are as the opening has noted them -> record `raised` with the budget -> every file
rewritten -> one reload -> read back from EVERY member -> a barrier, after which this node is in the ring in
which it began. This node's own file keeps its token in that, and gets the knet values only. Since the
shortest timeout of any member decides for all, a death is seen as early as ever all that time. Then the
command has this node's corosync follow through its map, in some milliseconds, and lets the guest switch over.
lower: this node through its map again, by which all is as before; then at leisure record `lowered` -> every
file rewritten -> one reload, which also undoes what stands in a map alone -> read back. The knet values stay
raised until the closing takes them back with the rest (`Totem.LOWERED`).

* What is late while the others are raised already is the death of this node itself: with two nodes, and of
  the ring as a whole, nobody else has a short timeout.
* Once in a window: after it was lowered nothing raises it again, so that who lowers never races who raises.
* A raise that does not come to its end is not taken back here: its command cancels the migration first, since
  a heartbeat that falls in the switch-over drops the node. What a dead command leaves raised the nodes lower
  (`turn`), long before the lease is over.
* The mover is held all that time by its killing gate: to lower before proof and clocks arms nobody.
* The record keeps the budget to the end of the window. What counts from a drop (`killing.timeout_seconds`)
  then never counts less than what was in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from standfast.core import heartbeat, lowering, members
from standfast.core.messages import Message
from standfast.core.record import Armed, Mode, Phase, Record, Totem
from standfast.core.report import Report
from standfast.core.steps import (
    Barrier,
    Decision,
    Done,
    LowerGoal,
    RaiseGoal,
    Reload,
    Snapshot,
    Stop,
    Wait,
    WriteRecord,
)

UNCOMMANDED_SECONDS = 5.0
"""So long no command has to be seen that drives the raised window. (Its daemon tells at once that it has
ended. To one that is started anew the command tells at once that it is there.)"""
RAISED_LIMIT_SECONDS = 360.0
"""So long, and twice the budget, no command has it raised, whatever it says: its own limits end it sooner
(core/holding.py). The last report of a daemon that was killed calls its command alive for ever."""
STAGGER_SECONDS = 15.0
"""How much later than the node before it in the order a node acts; more than to lower takes."""
RETRY_SECONDS = 30.0
"""Between two attempts of one node."""
BY_HAND = "standfast window lower"


def higher(snapshot: Snapshot, goal: RaiseGoal) -> Decision:
    """The next step toward the raised timeout."""
    record = snapshot.record
    if record is None or (wrong := _not_ours(snapshot, record, goal)):
        return _not_raised(snapshot, wrong if record is not None else snapshot.record_error or "no record")
    changed = snapshot.members ^ set(record.old)
    if changed:
        return _not_raised(
            snapshot, f"the membership is not that of the opening: {', '.join(sorted(changed))}"
        )
    if record.totem is Totem.ORIGINAL:
        if why := _not_as_noted(snapshot, record, goal):
            return _not_raised(snapshot, why)
        new = record.next(totem=Totem.RAISED, budget_seconds=goal.budget_seconds)
        return WriteRecord(new, f"raise the heartbeat timeout to {goal.budget_seconds} s")
    if record.totem is not Totem.RAISED or record.budget_seconds != goal.budget_seconds:
        return _not_raised(snapshot, f"it is {record.totem.value} already, from {record.budget_seconds} s")
    wanted = partial(members.raised_keys, record)
    for step in (
        members.files(snapshot, record, wanted),
        members.runtime(
            snapshot,
            lambda node, report: members.shows(report, members.runtime_of(wanted(node))),
            f"{record.budget_seconds} s on all members but {snapshot.me}",
        ),
    ):
        if isinstance(step, Message):
            return _not_raised(snapshot, step.text)
        if step is not None:
            return step
    if snapshot.ring_changed:
        return _not_raised(
            snapshot, f"the ring of {snapshot.me} has changed meanwhile: it may have stood still"
        )
    if not snapshot.barriers:
        # All that was read is this node's own copy. If it stood still the others may have lowered it since:
        # by the barrier it has met them, in a new ring, some tenths of a second before its copy is new.
        return Barrier("the ring turns, with this node in it")
    return Done(f"every member but {snapshot.me} runs a heartbeat timeout of {record.budget_seconds} s")


def still_raised(snapshot: Snapshot, goal: RaiseGoal) -> str:
    """Why it is not in force any more on every member but this one; empty: it is, by this node's copy."""
    record = snapshot.record
    if record is None:
        return snapshot.record_error or "no record"
    if wrong := _not_ours(snapshot, record, goal):
        return wrong
    if record.totem is not Totem.RAISED or record.budget_seconds != goal.budget_seconds:
        return f"it is {record.totem.value} again, from {record.budget_seconds} s"
    if changed := snapshot.members ^ set(record.old):
        return f"the membership is not that of the opening: {', '.join(sorted(changed))}"
    if not commanded(record, snapshot.members, snapshot.reports):
        return f"standfastd of {snapshot.me} does not tell of this command: the others would lower it"
    for node in sorted(snapshot.members - {snapshot.me}):
        report = snapshot.reports.get(node)
        if report is None:
            return members.silent(node).text
        if not members.shows(report, members.runtime_of(members.raised_keys(record, node))):
            return f"{node} does not run it any more"
    return ""


def own_timers(budget_seconds: int) -> dict[str, int]:
    """What the node that drives it runs from the release to the resume, by their names in the map, in ms."""
    raised = members.runtime_of(heartbeat.raised(budget_seconds))
    return {name: raised[name] for name in heartbeat.TIMERS}


def _not_ours(snapshot: Snapshot, record: Record, goal: RaiseGoal) -> str:
    """Why this is not the open window of the command that asks; empty: it is."""
    if record.phase is not Phase.OPEN or record.window != goal.window or record.mover != goal.mover:
        return "its window is not open any more"
    if not record.just_in_time or record.mode is not Mode.GUARDED or record.armed is not Armed.NO:
        return "its window was not opened for a raise just in time"
    if record.owner != snapshot.me:
        return f"a command on {record.owner} has taken the window over"
    if goal.mover not in snapshot.guard_whole:
        return f"{goal.mover} is not fenced by its killing gate alone any more"
    return ""


def _not_as_noted(snapshot: Snapshot, record: Record, goal: RaiseGoal) -> str:
    """Why the way back would not lead where every member is now; empty: it does."""
    for node in sorted(snapshot.members):
        report, old = snapshot.reports.get(node), record.old[node]
        if report is None:
            return members.silent(node).text
        if report.file_error:
            return f"{node}: {report.file_error}"
        if dict(report.file_keys) != dict(old.file_keys) or not members.shows(
            report, members.comparable(old.runtime)
        ):
            return f"the heartbeat of {node} is not what it was when the window opened"
        if heartbeat.timeout_ms(old.runtime) >= goal.budget_seconds * 1000:
            return f"the heartbeat timeout of {node} is not shorter than {goal.budget_seconds} s"
    changed = lowering.edited(snapshot, record, None)
    return changed.text if changed is not None else ""


def _not_raised(snapshot: Snapshot, why: str) -> Stop:
    open_now = snapshot.record is not None and snapshot.record.open
    message = Message("NOT_RAISED", f"the heartbeat timeout was not raised on every member: {why}",
                      next_command="standfast window status")  # fmt: skip
    return Stop((message,), unfinished=open_now)


# -- down again ---------------------------------------------------------------------------------------------


def lower(snapshot: Snapshot, goal: LowerGoal) -> Decision:
    """The next step toward the heartbeat timeout of before the raise."""
    record = snapshot.record
    if record is None:
        return Stop((Message("RECORD", snapshot.record_error or "no record", next_command=BY_HAND),), False)
    if not record.just_in_time or record.window != goal.window or record.phase is not Phase.OPEN:
        return Done("nothing is raised just in time", changed=False)
    if record.totem is Totem.ORIGINAL:
        return Done("the heartbeat timeout was not raised", changed=False)
    if not goal.overdue and (busy := members.commander(snapshot, record, goal.since_epoch)) is not None:
        return busy
    return step_down(snapshot, record) or Done("every member runs its own heartbeat timeout again")


def step_down(snapshot: Snapshot, record: Record) -> Decision | None:
    """The next step down of a window that was raised just in time; None: it is down, but for the knet values.

    Who is away does not count: its daemon follows the record as it comes back, and the closing has every
    member read back.
    """
    if record.totem is Totem.RAISED:
        down = record.next(totem=Totem.LOWERED, owner=snapshot.me)
        return WriteRecord(down, "the heartbeat timeout as it was")

    def wanted(node: str) -> dict[str, str]:
        report = snapshot.reports.get(node)
        return dict(members.wanted_keys(record, node, report.file_keys if report else {}))

    def fits(node: str, report: Report) -> bool:
        old = members.old_of(record, node)
        # One that the raise has not reached runs its old values still.
        return old is None or heartbeat.timeout_ms(report.runtime) == heartbeat.timeout_ms(old.runtime)

    found = members.files(snapshot, record, wanted)
    if isinstance(found, Wait):
        return found
    # A member that does not follow keeps nobody else raised: the shortest timeout of any member decides.
    step = members.runtime(snapshot, fits, "the old heartbeat timeout on all members")
    if isinstance(step, Reload | Wait):
        return step
    wrong = found or step
    if wrong is None:
        return None
    return Stop((Message(wrong.code, wrong.text, node=wrong.node, next_command=BY_HAND),), unfinished=True)


# -- what a command has left raised -------------------------------------------------------------------------


def is_up(record: Record, present: frozenset[str], reports: Mapping[str, Report]) -> bool:
    """Whether a window is raised just in time, or a member still runs that although the record is lowered.

    Its command has ended between the two, or the member was away then.
    """
    if not record.just_in_time or record.phase is not Phase.OPEN or record.totem is Totem.ORIGINAL:
        return False
    return record.totem is Totem.RAISED or any(
        (old := members.old_of(record, node)) is not None
        and bool(report.runtime)
        and heartbeat.timeout_ms(report.runtime) > heartbeat.timeout_ms(old.runtime)
        for node, report in reports.items()
        if node in present
    )


@dataclass(frozen=True)
class RaisedView:
    """What one node knows of a window that is raised just in time. Durations in seconds."""

    me: str
    members: frozenset[str]
    record: Record
    up: bool
    """`is_up`."""
    seconds_raised: float
    """For how long this node has seen that."""
    seconds_uncommanded: float | None = None
    """For how long the owner has been no member, or its report has told of no command; None: one is at
    work."""
    seconds_since_attempt: float | None = None
    """Since this node last tried to lower it; None: it has not."""


def limit_seconds(budget_seconds: int) -> float:
    """After that the nodes lower it, whatever its command says; from the write that raised it on."""
    return RAISED_LIMIT_SECONDS + 2 * budget_seconds


def turn(view: RaisedView) -> LowerGoal | None:
    """Whether this node lowers it now. One after the other, the mover last: it may be the one that stands
    still."""
    record = view.record
    if not view.up or view.me not in view.members:
        return None
    order = [*sorted(view.members - {record.mover}), *sorted(view.members & {record.mover})]
    later_seconds = order.index(view.me) * STAGGER_SECONDS
    overdue = view.seconds_raised >= limit_seconds(record.budget_seconds) + later_seconds
    left = view.seconds_uncommanded
    if not overdue and (left is None or left < UNCOMMANDED_SECONDS + later_seconds):
        return None
    if view.seconds_since_attempt is not None and view.seconds_since_attempt < RETRY_SECONDS:
        return None
    return LowerGoal(record.window, record.epoch, overdue)


def commanded(record: Record, present: frozenset[str], reports: Mapping[str, Report]) -> bool:
    """Whether the owner of the window is there, and says that a command is alive on it."""
    report = reports.get(record.owner)
    return record.owner in present and report is not None and report.commanding


class Book:
    """What one node has seen of a raise, look by look, by its own clock. A new one counts anew: late, never
    early."""

    def __init__(self) -> None:
        self._window = 0
        self._raised_at = 0.0
        self._left_at: float | None = None
        self._tried_at: float | None = None

    def turn(
        self,
        me: str,
        present: frozenset[str],
        record: Record | None,
        reports: Mapping[str, Report],
        now: float,
        *,
        busy: bool,
    ) -> LowerGoal | None:
        """One look. Whether this node lowers it now, which counts as tried; not while it is `busy` so."""
        if record is None or not is_up(record, present, reports):
            self._window, self._left_at, self._tried_at = 0, None, None
            return None
        if record.window != self._window:
            self._window, self._raised_at, self._left_at, self._tried_at = record.window, now, None, None
        if commanded(record, present, reports):
            self._left_at = None
        elif self._left_at is None:
            self._left_at = now
        if busy:
            return None
        left = None if self._left_at is None else now - self._left_at
        tried = None if self._tried_at is None else now - self._tried_at
        goal = turn(RaisedView(me, present, record, True, now - self._raised_at, left, tried))
        if goal is not None:
            self.tried(now)
        return goal

    def tried(self, now: float) -> None:
        """An attempt begins, or has ended."""
        self._tried_at = now
