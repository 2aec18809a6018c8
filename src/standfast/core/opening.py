"""From no window to an open one: all members, all or nothing.

opening: record written with every member's old values -> every member rewrites its file -> one reload ->
runtime values seen on every member -> open -> every member has seen that from its own copy.
Anything else turns the record to closing with `abort`, which puts all back.
"""

from __future__ import annotations

from dataclasses import replace

from standfast.core import by_kind, heartbeat, members, preflight
from standfast.core.messages import Message
from standfast.core.record import Armed, Mode, OldHeartbeat, Phase, Record, Totem
from standfast.core.report import Report
from standfast.core.steps import Decision, Done, Guard, OpenGoal, Snapshot, Stop, Wait, WriteRecord

QUIET_LIMIT_SECONDS = 45.0
"""The patch of a guarded window has Pacemaker stop and start some devices on every node. On a machine with
twenty times more to do than it has processors for, 15 s were not enough (measured)."""
FENCER_LIMIT_SECONDS = 10.0
"""A fencer follows a change of the topology within 0.2 s (measured)."""
TESTS_LIMIT_SECONDS = 30.0
OF_THE_FILE = frozenset({"COROSYNC_CONF", "CONF_NOT_LOADED"})
CALM_LIMIT_SECONDS = 15.0
"""A cluster that is busy for a moment only (our own set-up, say) is no switchover."""


def decide(snapshot: Snapshot, goal: OpenGoal) -> Decision:
    """The next step toward an open window."""
    record = snapshot.record
    if record is None:
        return _no_record(snapshot)
    if record.phase is Phase.IDLE:
        return _begin(snapshot, goal, record)
    if record.phase is Phase.CLOSING:
        return Stop((_closing(record),), unfinished=True)
    if (busy := members.commander(snapshot, record, goal.since_epoch)) is not None:
        return busy
    if (other := _other_window(record, goal)) is not None:
        return Stop((other,), unfinished=True)
    if record.owner != snapshot.me:
        return WriteRecord(record.next(owner=snapshot.me), "take over the opening that was left")
    if record.phase is Phase.OPENING:
        return _go_on(snapshot, record)
    return _confirm(snapshot, goal, record)


def _no_record(snapshot: Snapshot) -> Stop:
    if snapshot.record_error:
        return Stop(
            (Message("RECORD", snapshot.record_error, next_command="cibadmin -Q -o crm_config"),), False
        )
    return Stop(
        (
            Message(
                "NOT_SET_UP",
                "no node's shutdown agents are registered",
                next_command=by_kind.register(snapshot.hosts, "NODE"),
            ),
        ),
        unfinished=False,
    )


def _closing(record: Record) -> Message:
    stays = f": {record.left}" if record.left else ""
    return Message(
        "CLOSING",
        f"the last window is still being closed (owner {record.owner}){stays}",
        next_command="clovmmigrate -u source-ldom target-host",
    )


def _other_window(record: Record, goal: OpenGoal) -> Message | None:
    # An armed window keeps the budget that it was opened with: what is asked of it is its killing gate.
    budget = goal.budget_seconds if record.armed is not Armed.NO else record.budget_seconds
    same = (record.mover, budget, record.mode, record.just_in_time)
    if same == (goal.mover, goal.budget_seconds, goal.mode, goal.just_in_time):
        return None
    who = record.mover or "every node"
    if record.mode is not goal.mode:
        text = f"a {record.mode.value} window is {record.phase.value} already, for {who}"
        return Message("WINDOW_OPEN", text, next_command="clovmmigrate -u source-ldom target-host")
    return Message(
        "WINDOW_OPEN",
        f"a window is {record.phase.value} already, for {who} with {_budget(record)}",
        next_command="clovmmigrate -u source-ldom target-host",
    )


def _budget(record: Record) -> str:
    return "a raise just in time" if record.just_in_time else f"{record.budget_seconds} s"


def called(record: Record, me: str, since_epoch: int) -> bool:
    """Whether this command has called the roll: an epoch of its own that changes nothing else.

    The last report of a daemon that was killed stays, and looks as good as new, until the record moves. So
    the record moves once before anything is changed, and who does not see it is named while all is as it was.
    """
    return record.epoch > since_epoch and record.owner == me


def _begin(snapshot: Snapshot, goal: OpenGoal, record: Record) -> Decision:
    if called(record, snapshot.me, goal.since_epoch):
        return _after_the_call(snapshot, goal, record)
    wait = members.reported(snapshot, record)
    silent = any(node not in snapshot.reports for node in snapshot.members)
    if wait is not None and not silent and wait.key not in snapshot.expired:
        return wait
    if (testing := members.under_test(snapshot)) and "tests" not in snapshot.expired:
        return Wait("tests", TESTS_LIMIT_SECONDS, f"the tests of the agents on {', '.join(testing)}")
    # What a daemon last said of its file may be ten seconds old: the roll call has it look again.
    found = tuple(message for message in preflight.errors(snapshot, goal) if message.code not in OF_THE_FILE)
    if [message.code for message in found] == ["SWITCHOVER"] and "calm" not in snapshot.expired:
        return Wait("calm", CALM_LIMIT_SECONDS, "the cluster to be idle")
    if found:
        return Stop(found, unfinished=False)
    # Closing takes the mark of an undone opening away; a record that an older program left idle still has it.
    return WriteRecord(record.next(owner=snapshot.me, abort=False), "call the members")


def _after_the_call(snapshot: Snapshot, goal: OpenGoal, record: Record) -> Decision:
    if (wait := members.reported(snapshot, record)) is not None:
        if "call" not in snapshot.expired:
            return Wait("call", members.CALL_LIMIT_SECONDS, wait.reason)
        late = [n for n in sorted(snapshot.members) if not members.has_seen(snapshot, n, record.epoch)]
        return Stop(tuple(members.silent(node) for node in late), unfinished=False)
    found = [
        message
        for message in preflight.errors(snapshot, goal)
        # Our own write keeps the controller busy for a second; what is under way the status section tells.
        if message.code != "SWITCHOVER" or not snapshot.cluster_quiet
    ]
    if [message.code for message in found] == ["SWITCHOVER"] and "calm" not in snapshot.expired:
        return Wait("calm", CALM_LIMIT_SECONDS, "the cluster to be quiet")
    if found:
        return Stop(tuple(found), unfinished=False)
    return _note_values(snapshot, goal, record)


def _note_values(snapshot: Snapshot, goal: OpenGoal, record: Record) -> WriteRecord:
    reports = {node: snapshot.reports[node] for node in sorted(snapshot.members)}
    enough = all(
        heartbeat.timeout_ms(report.runtime) >= goal.budget_seconds * 1000 for report in reports.values()
    )
    aim = snapshot.aims.get(goal.mover)
    opening = replace(
        record.after(),
        phase=Phase.OPENING,
        owner=snapshot.me,
        mover=goal.mover,
        source=aim.host if aim else "",
        target=goal.target,
        mode=goal.mode,
        just_in_time=goal.just_in_time,
        totem=Totem.ORIGINAL if enough else Totem.RAISED,
        budget_seconds=goal.budget_seconds,
        lease_seconds=goal.lease_seconds,
        window=record.epoch + 1,
        why=goal.why,
        maintenance=(snapshot.maintenance_mode or "absent") if goal.maintenance else "",
        old={
            node: OldHeartbeat(dict(report.file_keys), dict(report.runtime), report.structure, report.rest)
            for node, report in reports.items()
        },
    )
    return WriteRecord(
        opening, "note every node's values", maintenance_mode="true" if goal.maintenance else None
    )


def _go_on(snapshot: Snapshot, record: Record) -> Decision:
    changed = snapshot.members ^ set(record.old)
    if changed:
        return _abort(
            record, f"the membership changed while the window was opening: {', '.join(sorted(changed))}"
        )
    if record.totem is Totem.RAISED:
        raised = heartbeat.raised(record.budget_seconds)
        want = members.runtime_of(raised)

        def fits(_: str, report: Report) -> bool:
            return members.shows(report, want)

        for step in (
            members.files(snapshot, record, lambda _: raised),
            members.runtime(snapshot, fits, f"raise the heartbeat timeout to {record.budget_seconds} s"),
        ):
            if isinstance(step, Message):
                return _abort(record, step.text)
            if step is not None:
                return step
    elif (wait := members.reported(snapshot, record)) is not None:
        return _abort(record, f"no word from {wait.reason}") if wait.key in snapshot.expired else wait
    opened = record.next(phase=Phase.OPEN)
    if record.mode is Mode.GUARDED:
        return Guard(opened, record.mover, f"{record.mover} is fenced by its killing gate alone: open")
    return WriteRecord(opened, "all members run the new values: open")


def _abort(record: Record, why: str) -> WriteRecord:
    totem = Totem.EXPLICIT if record.totem is Totem.RAISED else Totem.ORIGINAL
    return WriteRecord(record.next(phase=Phase.CLOSING, abort=True, aimed=True, totem=totem, why=why), why)


def _confirm(snapshot: Snapshot, goal: OpenGoal, record: Record) -> Decision:
    wait = members.reported(snapshot, record)
    if wait is not None:
        if wait.key in snapshot.expired:
            return _not_confirmed(record, goal, f"no word from {wait.reason}")
        return wait
    if record.mode is Mode.GUARDED:
        if record.mover not in snapshot.guard_whole:
            return Guard(record.next(), record.mover, f"the killing gate of {record.mover}, once more")
        late = members.not_killing(snapshot, record)
        if late and "fencers" not in snapshot.expired:
            return Wait("fencers", FENCER_LIMIT_SECONDS, f"the fencers of {', '.join(late)}")
        if late:
            why = f"the fencers of {', '.join(late)} did not take the killing gate of {record.mover}"
            return _not_confirmed(record, goal, why)
    if snapshot.fencing_pending:
        names = ", ".join(snapshot.fencing_pending)
        return _not_confirmed(record, goal, f"fencing of {names} began meanwhile")
    if not snapshot.cluster_quiet:
        if "idle" in snapshot.expired:
            why = f"the cluster was not quiet within {QUIET_LIMIT_SECONDS:.0f} s"
            return _not_confirmed(record, goal, why)
        return Wait("idle", QUIET_LIMIT_SECONDS, "the cluster to be quiet")
    return Done(_opened(record), warnings=preflight.warnings(snapshot, goal))


def _opened(record: Record) -> str:
    raised = f"heartbeat timeout {record.budget_seconds} s, " if record.budget_seconds else ""
    if record.mode is Mode.GUARDED:
        return (
            f"the window is open for {record.mover}: {raised}it is held while hosts show it alive and killed "
            "when it is dead; all other nodes are fenced as always"
        )
    return f"the window is open for {record.mover or 'every node'}: {raised}the gate holds"


def _not_confirmed(record: Record, goal: OpenGoal, why: str) -> WriteRecord | Stop:
    """Only what this command began it may put back: in an older window a guest may be on its way by now, and
    what looks like trouble (a node dropped and held, a member that boots) is what the window is for."""
    if record.window > goal.since_epoch:
        return _abort(record, why)
    text = f"a window is open since before this command, and stays open, but is not confirmed: {why}"
    hint = "crm_mon -1; then clovmmigrate -p again, or -u source-ldom target-host"
    return Stop((Message("WINDOW_OPEN", text, next_command=hint),), unfinished=True)
