"""The last part of closing: the heartbeat comes down, then the record is idle. Fencing still holds.

Old effective values are written out, reloaded and seen; then the files as they were, reloaded again and seen.
"""

from __future__ import annotations

from dataclasses import replace

from standfast.core import by_kind, clock_gate, heartbeat, members
from standfast.core.messages import Message, Severity
from standfast.core.record import Armed, Mode, OldHeartbeat, Phase, Record, Totem
from standfast.core.report import Report
from standfast.core.steps import CloseGoal, Decision, Snapshot, Stop, Unguard, Wait, WriteRecord

MAX_NAMED = 4
FENCER_LIMIT_SECONDS = 15.0
"""A fencer had a change of the configuration 0.3 s after it; after its own start it works with the old one
for 1 to 2 s (measured)."""


def edited(snapshot: Snapshot, record: Record, goal: CloseGoal | None) -> Message | None:
    """What somebody has changed in a corosync.conf since the window opened, and what our reload must not
    carry to all nodes.

    A node list of its own accord may stay: a node that dies or is added in a window is no mistake. It is
    taken where our reload changes nothing about it: every member has the same one, and runs it.
    """
    for node in sorted(snapshot.members & set(record.old)):
        report = snapshot.reports.get(node)
        if report is not None and not report.structure and report.file_error:
            return Message("COROSYNC_CONF", f"{node}: {report.file_error}", node=node)
        if report is not None and _more_than_nodes(report, record.old[node]):
            text = (
                f"corosync.conf of {node} was changed by hand while the window was open (quorum, links or "
                "other keys): put it back as it was, all but the node list, and change it after the window"
            )
            hint = f"put /etc/corosync/corosync.conf back (on {node}), then {_again(goal)}"
            return Message("CONF_CHANGED", text, node=node, next_command=hint)
    changed = _other_nodes(snapshot, record)
    if not changed:
        return None
    if unseen := sorted(snapshot.members - set(snapshot.reports)):
        return members.silent(unseen[0])
    why = _not_everywhere(snapshot)
    if not why:
        return None
    text = f"the node list of {', '.join(changed)} was changed while the window was open, but {why}"
    hint = (
        "write the same node list into /etc/corosync/corosync.conf on every node, or the old one, "
        f"corosync-cfgtool -R, then {_again(goal)}"
    )
    return Message("CONF_CHANGED", text, node=changed[0], next_command=hint)


def _more_than_nodes(report: Report, old: OldHeartbeat) -> bool:
    return report.structure != old.structure and (not old.rest or report.rest != old.rest)


def _other_nodes(snapshot: Snapshot, record: Record) -> list[str]:
    """Members of the window whose node list is another than when it opened."""
    found = sorted(snapshot.members & set(record.old) & set(snapshot.reports))
    return [node for node in found if snapshot.reports[node].structure != record.old[node].structure]


def _not_everywhere(snapshot: Snapshot) -> str:
    """Why a node list is not plainly that of every member's file and corosync; empty: it is."""
    first = min(snapshot.members)
    for node in sorted(snapshot.members):
        report = snapshot.reports[node]
        if report.unloaded:
            return f"corosync of {node} has not loaded it: {', '.join(report.unloaded[:MAX_NAMED])}"
        if sorted(report.nodes) != sorted(snapshot.reports[first].nodes):
            return f"that of {first} and that of {node} are not the same"
    return ""


def _nodes_changed(snapshot: Snapshot, record: Record) -> tuple[Message, ...]:
    changed = _other_nodes(snapshot, record)
    if not changed:
        return ()
    listed = ", ".join(text.split(" ")[0] for text in snapshot.reports[changed[0]].nodes)
    text = (
        "the node list was changed while the window was open, and stays as every member has it now "
        f"({listed}); a token that grows with the number of nodes follows it"
    )
    return (Message("NODES_CHANGED", text, Severity.WARNING, next_command=by_kind.listing(snapshot.hosts)),)


def lower(snapshot: Snapshot, record: Record) -> Decision:
    """The heartbeat comes down: explicit values first, then the file as it was. Fencing still holds."""
    gone = members.absent(snapshot, record)
    if gone:
        text = f"{', '.join(gone)} is not in the membership and not proven off; closing needs every member"
        return unfinished(Message("MEMBER_MISSING", text, node=gone[0]), None)
    if (changed := edited(snapshot, record, None)) is not None:
        return unfinished(changed, None)
    if snapshot.guarded:
        return unguard(snapshot, record.next())
    # Files may have been raised just in time by a record of another part of the cluster that has lost.
    if raises(record) or record.just_in_time:
        step = _lowering(snapshot, record)
        if step is not None:
            return step
    elif (wait := members.reported(snapshot, record)) is not None and wait.key not in snapshot.expired:
        return wait
    if (differ := fencers(snapshot, record, None)) is not None:
        return differ
    warnings = listed = _nodes_changed(snapshot, record)
    if record.old and not record.abort and (record.just_in_time or not raises(record)):
        warnings += clock_gate.remark(snapshot, record)
    return WriteRecord(
        record.next(
            phase=Phase.IDLE,
            totem=Totem.ORIGINAL,
            settle=tuple(sorted({*record.settle, record.mover}))
            if record.mover
            else tuple(sorted(record.old)),
            maintenance="",
            mode=Mode.FROZEN,
            armed=Armed.NO,
            just_in_time=False,
            # What a person swore of a host was true in this window.
            confirmed={},
            confirmed_at={},
            overtaken={},
            # A later command would take what is left here for its own: it has rolled nothing back.
            abort=False,
            owed=_owed(snapshot, record),
        ),
        f"all as before{' but the node list' if listed else ''}: the gate is armed",
        maintenance_mode=_maintenance(record),
        warnings=warnings,
    )


def fencers(snapshot: Snapshot, record: Record, goal: CloseGoal | None) -> Wait | Stop | None:
    """Whether a running fencer would do otherwise than is configured to one that the window was for. Of the
    others only what the opening did not find; a close is not held up for that."""
    for node in sorted({record.mover, *record.settle}):
        if not (late := members.other_fencers(snapshot, node)):
            continue
        if "fencer" in snapshot.expired:
            return unfinished(members.fencer_differs(late, _again(goal)), goal)
        return Wait("fencer", FENCER_LIMIT_SECONDS, f"the fencer of {late[0][0]} to take over {late[0][1]}")
    return None


def unguard(snapshot: Snapshot, record: Record) -> Unguard:
    """The fencing levels as they were before a guarded window, together with `record`."""
    nodes = tuple(sorted(snapshot.guarded))
    return Unguard(record, nodes, f"{', '.join(nodes)} is fenced by its own agents again")


def raises(record: Record) -> bool:
    """Whether this window has raised the heartbeat timeout of anybody."""
    budget_ms = record.budget_seconds * 1000
    return any(heartbeat.timeout_ms(old.runtime) < budget_ms for old in record.old.values())


def _owed(snapshot: Snapshot, record: Record) -> dict[str, OldHeartbeat]:
    """What the record owes after this window: every member has its own values again, who was away has not."""
    if not raises(record):
        return dict(record.owed)
    # One that was added in mid-window and is away has the raised values too, and those of the others are due.
    away = {node: members.old_of(record, node) for node in {*snapshot.configured, *record.old, *record.owed}}
    return {node: old for node, old in sorted(away.items()) if old and node not in snapshot.members}


def _shows_old(report: Report, old: OldHeartbeat, node_count: int) -> bool:
    """The old values run again. Where those were themselves left over from an earlier reload (the knet values
    lag one reload behind), what a fresh start would give is right too."""
    fresh = heartbeat.expected_runtime(dict(old.file_keys), node_count)
    fresh.pop("knet_pong_count", None)
    return members.shows(report, members.comparable(old.runtime)) or members.shows(report, fresh)


def _lowering(snapshot: Snapshot, record: Record) -> Decision | None:
    def wanted(node: str) -> dict[str, str]:
        report = snapshot.reports.get(node)
        return dict(members.wanted_keys(record, node, report.file_keys if report else {}))

    def fits(node: str, report: Report) -> bool:
        old = members.old_of(record, node)
        return old is None or _shows_old(report, old, members.node_count(snapshot, report))

    def untouched(node: str) -> bool:
        # An opening that failed never reached this node: its file and its values are the old ones.
        report, old = snapshot.reports[node], record.old.get(node)
        return old is not None and dict(report.file_keys) == dict(old.file_keys) and fits(node, report)

    explicit = record.totem is Totem.EXPLICIT
    steps = (
        members.files(snapshot, record, wanted, untouched),
        members.runtime(
            snapshot,
            fits,
            "old heartbeat values" if explicit else "keys that were absent removed",
            always_reload=raises(record),
        ),
    )
    for step in steps:
        if isinstance(step, Message):
            return unfinished(step, None)
        if step is not None:
            return step
    if explicit:
        return WriteRecord(
            record.next(totem=Totem.ORIGINAL), "old values run everywhere: the files as they were"
        )
    return None


def _maintenance(record: Record) -> str | None:
    if not record.maintenance:
        return None
    return "" if record.maintenance == "absent" else record.maintenance


def unfinished(message: Message, goal: CloseGoal | None) -> Stop:
    """The window stays open; the next command stands in the message."""
    if not message.next_command:
        message = replace(message, next_command=_again(goal))
    return Stop((message,), unfinished=True)


def _again(goal: CloseGoal | None) -> str:
    return (
        f"clovmmigrate -u {goal.guest} {goal.target}" if goal else "clovmmigrate -u source-ldom target-host"
    )
