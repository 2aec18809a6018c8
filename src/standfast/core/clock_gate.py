"""The clock gate: the heartbeat does not come down before all members' clocks agree. Fencing does not wait.

A guest's clock lags by its whole blackout (measured: 6.6 s after 6.6 s). What runs on it takes that for the
time; the cluster should fail over quickly again only when its nodes agree what time it is. Believed is what
every member has measured of every other one at an epoch of this closing, after the guest was found where it
is: a clock that agreed before its blackout says nothing.

Pure: a snapshot in, the next step or a remark out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from standfast.core import clocks
from standfast.core.messages import Message, Severity
from standfast.core.record import ONLY_RAISED, Record
from standfast.core.report import Report
from standfast.core.steps import CloseGoal, Snapshot, Stop, Wait

LIMIT_SECONDS = 60.0
"""A time server that is reached mends a clock within 5 s (measured); what takes longer needs a person."""
MEASURED_LIMIT_SECONDS = 3.0
"""A closing that asks is answered within a second or two: so long it waits before it writes that it waits."""
MAX_NAMED = 3
OVERRIDE = "--ignore-clocks"
MEND = "chronyc -m 'reset sources' 'burst 4/4'; sleep 8; chronyc makestep; date"
"""After a blackout ``makestep`` alone answers 200 OK and changes nothing: the sources were lost (measured,
chrony 4.3). With fresh ones it stepped, 4.8 s in all."""


def before_lowering(snapshot: Snapshot, record: Record, goal: CloseGoal) -> Wait | Stop | None:
    """What is still in the way of lowering the heartbeat; None: the clocks agree, or are not to count."""
    found = trouble(snapshot, record, record.prove)
    if found is None or goal.ignore_clocks:
        return None
    if "clocks" not in snapshot.expired:
        return Wait("clocks", LIMIT_SECONDS, f"the clocks to agree: {found.text}", stepping(snapshot))
    again = f"clovmmigrate -u {goal.guest} {goal.target}"
    message = Message(
        "CLOCKS",
        f"waited {LIMIT_SECONDS:.0f} s for the clocks to agree: {found.text}; {ONLY_RAISED} (move no guest "
        "before that is down)",
        node=found.node,
        next_command=f'{found.next_command}, then {again}; or as it is: {again} {OVERRIDE} --reason "..."',
        force=OVERRIDE,
    )
    return Stop((message,), unfinished=True)


def measured_soon(snapshot: Snapshot, record: Record) -> Wait | None:
    """A moment for measurements that have not come yet; None: it is over, or somebody does not measure, or is
    known to be out of sync."""
    late = list(_unmeasured(snapshot, record.prove))
    never = any(report.clock_error for report in snapshot.reports.values())
    if not late or never or "measured" in snapshot.expired or any(_apart(snapshot, record.prove)):
        return None
    return Wait("measured", MEASURED_LIMIT_SECONDS, f"the clocks to be measured: {late[0][1]}")


def ignored(snapshot: Snapshot, record: Record, goal: CloseGoal) -> tuple[Message, ...]:
    """What an operator has overruled; empty: nothing."""
    found = trouble(snapshot, record, record.prove) if goal.ignore_clocks else None
    if found is None:
        return ()
    text = f"the clocks were not waited for ({goal.ignore_clocks}): {found.text}"
    next_command = f"{found.next_command} (standfast window status shows them)"
    return (Message("CLOCKS", text, Severity.WARNING, node=found.node, next_command=next_command),)


def remark(snapshot: Snapshot, record: Record) -> tuple[Message, ...]:
    """At the end of a window that has raised nothing, and so waits for no clock."""
    found = trouble(snapshot, record, 0)
    if found is None:
        return ()
    return (
        Message("CLOCKS", found.text, Severity.WARNING, node=found.node, next_command=found.next_command),
    )


def stepping(snapshot: Snapshot) -> str:
    """Which members set their own clocks, or have tried to in this window; empty: none."""
    reporting = sorted(snapshot.members & set(snapshot.reports))
    told = ((node, snapshot.reports[node].clock_step) for node in reporting)
    return "; ".join(f"{node} {text}" for node, text in told if text)


def in_the_way(
    record: Record, me: str, members: Set[str], reports: Mapping[str, Report], threshold_seconds: float
) -> str:
    """For a daemon: why a window that waits for its clocks cannot be closed yet; empty: it can."""
    if not record.waits_for_clocks:
        return ""
    snapshot = Snapshot(
        me, record, members=frozenset(members), reports=reports, clock_threshold_seconds=threshold_seconds
    )
    found = trouble(snapshot, record, record.prove)
    return "" if found is None else found.text


def trouble(snapshot: Snapshot, record: Record, since_epoch: int) -> Message | None:
    """Why it cannot be said that all members' clocks agree, measured since this epoch, and which of them are
    being set; None: it can."""
    found, steps = _trouble(snapshot, record, since_epoch), stepping(snapshot)
    return replace(found, text=f"{found.text}; {steps}") if found is not None and steps else found


def _trouble(snapshot: Snapshot, record: Record, since_epoch: int) -> Message | None:
    apart = sorted(_apart(snapshot, since_epoch))
    if apart:
        return _out(snapshot, record, apart)
    late = list(_unmeasured(snapshot, since_epoch))
    if not late:
        return None
    node, why = late[0]
    more = f", and {len(late) - 1} more" if len(late) > 1 else ""
    return Message(
        "CLOCKS",
        f"the clocks are not known to agree: {why}{more}",
        node=node,
        next_command=f"sdtool -s (on {node}), systemctl status standfastd (on {node})",
    )


def _apart(snapshot: Snapshot, since_epoch: int) -> Iterator[tuple[str, str]]:
    for node, report in _told(snapshot, since_epoch).items():
        for other in report.clocks_out:
            if other in snapshot.members:
                yield node, other


def _told(snapshot: Snapshot, since_epoch: int) -> dict[str, Report]:
    """The members whose word on clocks is of this epoch or later."""
    return {
        node: report
        for node, report in sorted(snapshot.reports.items())
        if node in snapshot.members and report.clocks_at >= since_epoch
    }


def _unmeasured(snapshot: Snapshot, since_epoch: int) -> Iterator[tuple[str, str]]:
    """Members that have not measured all others, and why."""
    told = _told(snapshot, since_epoch)
    for node in sorted(snapshot.members):
        report = snapshot.reports.get(node)
        if report is None:
            yield node, f"standfastd of {node} does not report"
        elif report.clock_error:
            yield node, f"{node} does not measure: {report.clock_error}"
        elif node not in told:
            yield node, f"{node} has not measured them yet since its agents were asked to prove themselves"
        elif missing := sorted(snapshot.members - {node} - set(report.clocks)):
            yield missing[0], f"{node} has measured no plain offset of {', '.join(missing[:MAX_NAMED])}"


def _out(snapshot: Snapshot, record: Record, apart: list[tuple[str, str]]) -> Message:
    """Some clocks differ: whose it is, as the member sees it that has measured most."""
    reports = snapshot.reports
    # The commanding node where it sees a difference, so that two commands tell the same story.
    first = min(apart, key=lambda pair: (-len(reports[pair[0]].clocks), pair[0] != snapshot.me, pair))[0]
    positions = {first: 0.0} | {
        node: offset for node, offset in reports[first].clocks.items() if node in snapshot.members
    }
    # Rounded, an offset may look smaller than the threshold that it has passed.
    least = min(
        (abs(positions[node]) for node in reports[first].clocks_out if node in positions), default=0.0
    )
    threshold = min(snapshot.clock_threshold_seconds, least * (1 - 1e-9))
    blame = clocks.blamed(positions, threshold, record.mover)
    names = blame.names or (apart[0][1],)
    shown = "; ".join(_difference(positions, node, blame.certain) for node in names[:MAX_NAMED])
    where = names[0] if blame.certain else f"{' or '.join(names)}, whichever is wrong"
    return Message(
        "CLOCKS",
        f"{shown}{f' ({blame.why})' if blame.why else ''}",
        node=names[0],
        next_command=f"{MEND} (on {where})",
    )


def _difference(positions: Mapping[str, float], node: str, certain: bool) -> str:
    """Against the one that differs most from it, of those that are not to blame if that is known."""
    others = {name: place for name, place in positions.items() if name != node}
    than = max(others, key=lambda name: abs(others[name] - positions[node]))
    return clocks.difference(positions[node] - others[than], node, than)


__all__ = [
    "LIMIT_SECONDS",
    "OVERRIDE",
    "before_lowering",
    "ignored",
    "in_the_way",
    "measured_soon",
    "remark",
    "trouble",
]
