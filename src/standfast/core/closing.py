"""From any interrupted state back to no window.

closing: the guest is found -> the domain configuration is saved -> the devices aim at its host (one patch)
-> every agent has proven itself from every member -> old effective heartbeat values written out, reloaded,
seen -> keys that were absent removed, reloaded again, seen -> idle.
"""

from __future__ import annotations

from dataclasses import replace

from standfast.core import by_hand, heartbeat, members
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.messages import Message
from standfast.core.names import SETTLE_SECONDS
from standfast.core.record import OldHeartbeat, Phase, Record, Totem
from standfast.core.report import Report, proves
from standfast.core.steps import (
    CloseGoal,
    Decision,
    Done,
    Reaim,
    SaveConfiguration,
    Snapshot,
    Stop,
    Wait,
    WriteRecord,
)

PROOF_LIMIT_SECONDS = 60.0
RETURN_LIMIT_SECONDS = 30.0
PAUSED_LIMIT_SECONDS = 30.0
CALM_LIMIT_SECONDS = 30.0


def decide(snapshot: Snapshot, goal: CloseGoal | None) -> Decision:
    """The next step toward no window. Without a goal only an aborted opening can be put back."""
    record = snapshot.record
    if record is None:
        why = snapshot.record_error or "no node's service processor is registered"
        return Stop((Message("RECORD", why, next_command="clsnmpsetup -l"),), unfinished=False)
    if (busy := members.commander(snapshot, record)) is not None and record.phase is not Phase.IDLE:
        return busy
    if record.phase is Phase.IDLE:
        return _idle(snapshot, goal, record)
    if record.phase is Phase.CLOSING and record.aimed:
        if record.owner != snapshot.me:
            return WriteRecord(record.next(owner=snapshot.me), "take over the closing that was left")
        return _lower(snapshot, record)
    if goal is None:
        return _unfinished(Message("WINDOW_OPEN", "a window is open"), None)
    if (trouble := _ready(snapshot, goal, record)) is not None:
        return trouble
    if record.phase is not Phase.CLOSING or record.owner != snapshot.me or not _same(record, goal):
        return WriteRecord(_enter(snapshot, goal, record), f"close the window of {goal.node}")
    return _aim(snapshot, goal, record)


def _same(record: Record, goal: CloseGoal) -> bool:
    return record.mover == goal.node and record.target == goal.target


def _enter(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Record:
    kept = dict(record.saved) if record.phase is Phase.CLOSING and _same(record, goal) else {}
    return record.next(
        phase=Phase.CLOSING,
        owner=snapshot.me,
        mover=goal.node,
        source=by_hand.source_of(snapshot, goal, record),
        target=goal.target,
        aimed=False,
        prove=0,
        saved=kept,
    )


def _idle(snapshot: Snapshot, goal: CloseGoal | None, record: Record) -> Decision:
    """``-u`` repeated: nothing to close, but the devices must aim at the guest and prove it."""
    if (wait := members.reported(snapshot, record)) is not None:
        if wait.key in snapshot.expired:
            return Stop((Message("NO_REPORT", f"no word from {wait.reason}"),), unfinished=False)
        return wait
    if goal is None:
        return Done("no window is open", changed=False)
    aim = snapshot.aims[goal.node]
    entry = snapshot.hosts[goal.target]
    proven = f"no window is open; every agent of {goal.node} has proven {goal.target} from every node"
    answered = record.prove > goal.since_epoch and record.mover == goal.node and aim.host == goal.target
    if answered and not _unproven(snapshot, goal, record):
        return Done(proven)
    if (trouble := _ready(snapshot, goal, record)) is not None:
        return trouble
    if aim.host != goal.target or aim.weight != entry.weight:
        return WriteRecord(_repair(snapshot, goal, record), f"aim the agents of {goal.node} at {goal.target}")
    if record.prove <= goal.since_epoch or record.mover != goal.node:
        again = record.next(prove=record.epoch + 1, mover=goal.node)
        return WriteRecord(again, f"have every agent of {goal.node} prove itself again")
    late = _unproven(snapshot, goal, record)
    if not late:
        return Done(proven)
    if "proof" in snapshot.expired:
        return Stop((_proof_failed(late, goal),), unfinished=False)
    return Wait("proof", PROOF_LIMIT_SECONDS, f"proof of {', '.join(late[:4])}")


def _repair(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Record:
    fresh = Record(epoch=record.epoch + 1, owed=record.owed, stonith_max_attempts=record.stonith_max_attempts)
    return replace(
        fresh,
        phase=Phase.CLOSING,
        owner=snapshot.me,
        mover=goal.node,
        source=snapshot.aims[goal.node].host,
        target=goal.target,
        window=record.epoch + 1,
        lease_seconds=goal.lease_seconds,
        why="repair of the aim without a window",
    )


def _ready(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision | None:
    """Whether closing may begin or go on: members, guest, quiet."""
    gone = members.absent(snapshot, record) if record.open else []
    if gone:
        return _unfinished(
            Message(
                "MEMBER_MISSING",
                f"{', '.join(gone)} is not in the membership and not proven off; closing needs every member",
                node=gone[0],
            ),
            goal,
        )
    if (place := _where(snapshot, goal, record)) is not None:
        return place
    if goal.node not in snapshot.members:
        return _wait_or(
            snapshot, goal, "return", RETURN_LIMIT_SECONDS, f"{goal.node} to be back in the membership"
        )
    since = snapshot.seconds_since_return
    if record.open and since is not None and since < SETTLE_SECONDS:
        return Wait("settle", SETTLE_SECONDS + 5.0, f"{goal.node} to be back for {SETTLE_SECONDS} s")
    if record.phase is Phase.CLOSING:
        # Each of our own writes makes the controller look again: quiet was asked for once, at the beginning.
        return None
    pending = set(snapshot.fencing_pending) - snapshot.proven_off
    # The fencing of a node that is proven off is held by the very window that is to be closed, and the
    # controller is not idle before it is done: there is nothing to wait for.
    held_by_us = record.open and bool(snapshot.proven_off)
    if pending or (snapshot.cluster_idle is not True and not held_by_us):
        return _wait_or(snapshot, goal, "calm", CALM_LIMIT_SECONDS, "the cluster to be idle, without fencing")
    return None


def _wait_or(snapshot: Snapshot, goal: CloseGoal, key: str, limit_seconds: float, what: str) -> Decision:
    if key in snapshot.expired:
        record = snapshot.record
        message = Message("NOT_READY", f"waited {limit_seconds:.0f} s for {what}", node=goal.node)
        if record is not None and not record.open and goal.node not in snapshot.members:
            # The gate holds while a host shows the guest where its devices do not aim; stopped, it lets go.
            hint = f"if it hangs: ldm stop-domain {goal.guest} (on {goal.target}); fencing then goes on"
            return Stop((replace(message, next_command=hint),), unfinished=False)
        stop = _unfinished(message, goal)
        return replace(stop, unfinished=record is not None and record.open)
    return Wait(key, limit_seconds, what)


def _where(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision | None:
    """The closed table "where is the guest": only plainly on the target, and nowhere else, goes on."""
    answers = {answer.host: answer for answer in snapshot.places.get(goal.guest, ())}
    blind = [host for host in snapshot.hosts if _blind(answers.get(host)) and host not in goal.skip_save]
    running = [host for host, answer in answers.items() if answer.state is GuestState.RUNNING]
    moving = [
        host
        for host, answer in answers.items()
        if answer.state in (GuestState.MIGRATING_OUT, GuestState.INCOMING, GuestState.ERROR)
    ]
    if moving:
        text = f"{goal.guest} is still being moved: {', '.join(str(answers[host]) for host in moving)}"
        hint = f"ldm list-domain -o status {goal.guest} (on {moving[0]}); when it has ended, repeat"
        return _where_stop(Message("MIGRATING", text, host=moving[0], next_command=hint), record)
    if len(running) > 1:
        text = f"two copies of {goal.guest}, on {' and on '.join(sorted(running))}: stop one, mind its data"
        hint = f"ldm stop-domain {goal.guest} (on one of them), then clovmmigrate -u {goal.guest} HOST"
        return _where_stop(Message("TWO_COPIES", text, next_command=hint), record)
    if running and running != [goal.target]:
        hint = f"clovmmigrate -u {goal.guest} {running[0]}"
        text = f"{goal.guest} runs on {running[0]}, not on {goal.target}"
        return _where_stop(Message("OTHER_HOST", text, host=running[0], next_command=hint), record)
    if unsaved := by_hand.unsaved(snapshot, goal, record, answers):
        return _where_stop(by_hand.told_to_save(goal, unsaved, answers), record)
    if blind:
        why = answers[blind[0]].detail if blind[0] in answers else "not asked"
        hint = f'clovmmigrate -u {goal.guest} {goal.target} --skip-save {blind[0]} --reason "..."'
        text = f"control domain {blind[0]} gave no answer about {goal.guest}: {why}"
        return _where_stop(Message("HOST_SILENT", text, host=blind[0], next_command=hint), record)
    if running:
        return None
    if any(answer.state is GuestState.PAUSED for answer in answers.values()):
        return _wait_or(snapshot, goal, "paused", PAUSED_LIMIT_SECONDS, f"{goal.guest} to run again")
    shown = ", ".join(str(answer) for answer in answers.values())
    hint = f"ldm start-domain {goal.guest} (on its control domain), then clovmmigrate -u {goal.guest} HOST"
    text = f"{goal.guest} runs on no host of clovmmigrate.conf ({shown})"
    return _where_stop(Message("GUEST_STOPPED", text, node=goal.node, next_command=hint), record)


def _blind(answer: HostAnswer | None) -> bool:
    return answer is None or answer.state in (GuestState.SILENT, GuestState.UNKNOWN)


def _where_stop(message: Message, record: Record) -> Stop:
    # A stopped guest is exit 1 even with an open window: the manual's own answer to it.
    return Stop((message,), unfinished=record.open and message.code != "GUEST_STOPPED")


def _aim(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision:
    for host in dict.fromkeys((record.source, goal.target)):
        if not host or record.saved.get(host):
            continue
        if host in goal.skip_save:
            saved = {**record.saved, host: f"skipped: {goal.skip_save[host]}"}
            return WriteRecord(record.next(saved=saved), f"note that {host} was not saved")
        if host in goal.saved_by_hand:
            saved = {**record.saved, host: by_hand.NOTED}
            return WriteRecord(record.next(saved=saved), f"note that {host} was saved by hand")
        if host not in snapshot.hosts:
            return _unfinished(_not_listed(host, goal), goal)
        runs_here = host == goal.target
        if snapshot.hosts[host].login:
            return SaveConfiguration(host, runs_here, f"save the domain configuration on {host}")
        return SaveConfiguration(host, runs_here, f"see whether the domain configuration on {host} is saved")
    aim = snapshot.aims[goal.node]
    entry = snapshot.hosts[goal.target]
    if aim.host != goal.target or aim.weight != entry.weight:
        return Reaim(
            record.next(prove=record.epoch + 1),
            goal.node,
            entry,
            f"aim the agents of {goal.node} at {goal.target}",
        )
    late = _unproven(snapshot, goal, record)
    # Each node tests once for each epoch that asks: what failed for the last command would fail for ever.
    if not record.prove or (late and record.prove <= goal.since_epoch):
        return WriteRecord(
            record.next(prove=record.epoch + 1), f"have every agent of {goal.node} prove itself"
        )
    if late:
        if "proof" in snapshot.expired:
            return _unfinished(_proof_failed(late, goal), goal)
        return Wait("proof", PROOF_LIMIT_SECONDS, f"proof of {', '.join(late[:4])}")
    if (changed := _edited(snapshot, record)) is not None:
        return _unfinished(changed, goal)
    raised = record.totem is not Totem.ORIGINAL
    return WriteRecord(
        record.next(aimed=True, totem=Totem.EXPLICIT if raised else Totem.ORIGINAL),
        f"every agent of {goal.node} has proven itself from every node",
    )


def _not_listed(host: str, goal: CloseGoal) -> Message:
    return Message(
        "NOT_SAVED",
        f"{goal.guest} came from {host}, which is no longer in clovmmigrate.conf: nothing can be saved there",
        host=host,
        next_command=f"put {host} back into clovmmigrate.conf (all nodes; sdtool -r), then clovmmigrate -u "
        f"{goal.guest} {goal.target}; if it is dead: with --skip-save {host}",
    )


def _unproven(snapshot: Snapshot, goal: CloseGoal, record: Record) -> list[str]:
    late = []
    for node in sorted(snapshot.members):
        report = snapshot.reports.get(node)
        for device, wanted in snapshot.aims[goal.node].proofs.items():
            if report is not None and report.facility != "running":
                continue
            if report is None or not proves(report.proofs.get(device, ""), wanted, record.prove):
                late.append(f"{device} from {node}")
    return late


def _proof_failed(late: list[str], goal: CloseGoal) -> Message:
    return Message(
        "PROOF",
        f"not proven to reach {goal.guest} on {goal.target}: {', '.join(late)}",
        node=goal.node,
        host=goal.target,
        next_command=f"sdtool -s, then clovmmigrate -u {goal.guest} {goal.target}",
    )


def _edited(snapshot: Snapshot, record: Record) -> Message | None:
    for node in sorted(snapshot.members & set(record.old)):
        report = snapshot.reports.get(node)
        if report is not None and not report.structure and report.file_error:
            return Message("COROSYNC_CONF", f"{node}: {report.file_error}", node=node)
        if report is not None and report.structure != record.old[node].structure:
            text = (
                f"corosync.conf of {node} was changed by hand while the window was open (nodelist, quorum, "
                "links or other keys): put it back as it was, and change it after the window"
            )
            return Message("CONF_CHANGED", text, node=node)
    return None


def _lower(snapshot: Snapshot, record: Record) -> Decision:
    """The heartbeat comes down: explicit values first, then the file as it was. Fencing still holds."""
    gone = members.absent(snapshot, record)
    if gone:
        text = f"{', '.join(gone)} is not in the membership and not proven off; closing needs every member"
        return _unfinished(Message("MEMBER_MISSING", text, node=gone[0]), None)
    if (changed := _edited(snapshot, record)) is not None:
        return _unfinished(changed, None)
    if _to_lower(record):
        step = _lowering(snapshot, record)
        if step is not None:
            return step
    elif (wait := members.reported(snapshot, record)) is not None and wait.key not in snapshot.expired:
        return wait
    return WriteRecord(
        record.next(
            phase=Phase.IDLE,
            totem=Totem.ORIGINAL,
            settle=(record.mover,) if record.mover else tuple(sorted(record.old)),
            maintenance="",
            # A later command would take what is left here for its own: it has rolled nothing back.
            abort=False,
            owed=_owed(snapshot, record),
        ),
        "all as before: the gate is armed",
        maintenance_mode=_maintenance(record),
    )


def _to_lower(record: Record) -> bool:
    """Whether this window has raised anything."""
    budget_ms = record.budget_seconds * 1000
    return any(heartbeat.timeout_ms(old.runtime) < budget_ms for old in record.old.values())


def _owed(snapshot: Snapshot, record: Record) -> dict[str, OldHeartbeat]:
    """What the record owes after this window: every member has its own values again, who was away has not."""
    if not _to_lower(record):
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
    node_count = len(snapshot.configured)

    def wanted(node: str) -> dict[str, str]:
        report = snapshot.reports.get(node)
        return dict(members.wanted_keys(record, node, report.file_keys if report else {}))

    def fits(node: str, report: Report) -> bool:
        old = members.old_of(record, node)
        return old is None or _shows_old(report, old, node_count)

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
            always_reload=True,
        ),
    )
    for step in steps:
        if isinstance(step, Message):
            return _unfinished(step, None)
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


def _unfinished(message: Message, goal: CloseGoal | None) -> Stop:
    if not message.next_command:
        what = f"{goal.guest} {goal.target}" if goal else "source-ldom target-host"
        message = replace(message, next_command=f"clovmmigrate -u {what}")
    return Stop((message,), unfinished=True)
