"""Have the members done what the record asks? Shared by opening and closing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from standfast.core import facility, heartbeat
from standfast.core.messages import Message
from standfast.core.record import OldHeartbeat, Phase, Record, Totem
from standfast.core.report import Report, proves
from standfast.core.steps import Reload, Snapshot, Stop, Wait, WriteRecord

FILE_LIMIT_SECONDS = 10.0
RUNTIME_LIMIT_SECONDS = 5.0
REPORT_LIMIT_SECONDS = 15.0
CALL_LIMIT_SECONDS = 10.0
"""How long a daemon that lives may take to report an epoch that it was called by."""
MAX_RELOADS = 3

Runtime = Mapping[str, int]


def runtime_of(keys: Mapping[str, str]) -> dict[str, int]:
    """The runtime values that explicit `keys` ask for; token_coefficient and pong_count have none."""
    names = heartbeat.RUNTIME_NAMES
    return {
        names[key]: int(value) for key, value in keys.items() if key in names and key != heartbeat.PONG_COUNT
    }


def comparable(runtime: Runtime) -> dict[str, int]:
    """The values whose equality is promised: pong_count stands in the file only."""
    return {name: value for name, value in runtime.items() if name != "knet_pong_count"}


def shows(report: Report, wanted: Runtime) -> bool:
    """Whether the node's running corosync has every wanted value."""
    return runs(report.runtime, wanted)


def runs(runtime: Runtime, wanted: Runtime) -> bool:
    """Whether these values hold every wanted one."""
    return all(runtime.get(name) == value for name, value in wanted.items())


def absent(snapshot: Snapshot, record: Record) -> list[str]:
    """Members of the window that are gone and not proven off."""
    return sorted(set(record.old) - snapshot.members - snapshot.proven_off)


def reported(snapshot: Snapshot, record: Record) -> Wait | None:
    """Wait until every member has read this epoch from its own local copy."""
    late = [n for n in sorted(snapshot.members) if _epoch(snapshot, n) != record.epoch]
    if not late:
        return None
    return Wait("report", REPORT_LIMIT_SECONDS, f"{', '.join(late)} to see epoch {record.epoch}")


def not_killing(snapshot: Snapshot, record: Record) -> list[str]:
    """Members whose fencer does not yet use the killing gate of a guarded window alone. The mover's own does
    not count: it may not fence itself."""
    return [
        node
        for node in sorted(snapshot.members - {record.mover})
        if (report := snapshot.reports.get(node)) is None or report.killing != record.mover
    ]


def under_test(snapshot: Snapshot) -> list[str]:
    """Members that test their agents at this moment: each does, every 10 minutes and after its start."""
    return [
        node
        for node in sorted(snapshot.members)
        if (report := snapshot.reports.get(node)) is not None
        and facility_runs(snapshot, node)
        and "Testing" in report.agents.values()
    ]


def node_count(snapshot: Snapshot, report: Report) -> int:
    """How many nodes this node's corosync counts: it makes the token longer with each after the second."""
    return len(report.nodes) or len(snapshot.configured)


def facility_runs(snapshot: Snapshot, node: str) -> bool:
    """Whether the node's shutdown facility runs. The record knows first; a daemon that has not read it yet
    still tests nothing."""
    report = snapshot.reports.get(node)
    reported = report is None or report.facility == "running"
    return reported and not facility.is_stopped(snapshot.record, node)


def has_seen(snapshot: Snapshot, node: str, epoch: int) -> bool:
    """Whether the node's daemon has reported this epoch."""
    return _epoch(snapshot, node) == epoch


def silent(node: str) -> Message:
    """A member whose daemon does not answer."""
    return Message(
        "NO_REPORT",
        f"standfastd of {node} does not report",
        node=node,
        next_command=f"systemctl start standfastd (on {node})",
    )


def files(
    snapshot: Snapshot,
    record: Record,
    wanted: Callable[[str], Mapping[str, str]],
    untouched: Callable[[str], bool] = lambda node: False,
) -> Wait | Message | None:
    """Wait until every corosync.conf holds what is wanted of it; a Message names the one that cannot."""
    late = []
    for node in sorted(snapshot.members):
        report = snapshot.reports.get(node)
        if report is None or report.epoch != record.epoch:
            late.append(node)
        elif untouched(node):
            continue
        elif report.file_error:
            return Message("COROSYNC_CONF", f"{node}: {report.file_error}", node=node)
        elif dict(report.file_keys) != dict(wanted(node)):
            late.append(node)
    if not late:
        return None
    if "files" in snapshot.expired:
        return Message(
            "MEMBER_SLOW",
            f"{', '.join(late)} did not rewrite corosync.conf within {FILE_LIMIT_SECONDS:.0f} s",
            node=late[0],
            next_command=f"systemctl start standfastd (on {', '.join(late)}), then clovmmigrate -u",
        )
    return Wait("files", FILE_LIMIT_SECONDS, f"corosync.conf of {', '.join(late)}")


def runtime(
    snapshot: Snapshot, fits: Callable[[str, Report], bool], reason: str, *, always_reload: bool = False
) -> Reload | Wait | Message | None:
    """Reload until every member's corosync runs what its file says, with a limit on tries."""
    late = [
        node
        for node in sorted(snapshot.members)
        if node not in snapshot.reports or not fits(node, snapshot.reports[node])
    ]
    if snapshot.reloads == 0 and (late or always_reload):
        return Reload(reason)
    if not late:
        return None
    key = f"runtime-{snapshot.reloads}"
    if key not in snapshot.expired:
        return Wait(key, RUNTIME_LIMIT_SECONDS, f"corosync of {', '.join(late)} to take the values")
    if snapshot.reloads < MAX_RELOADS:
        return Reload(f"{reason}, again: {', '.join(late)} did not take it")
    return Message(
        "RUNTIME",
        f"corosync of {', '.join(late)} does not run the values of its file after {MAX_RELOADS} reloads",
        node=late[0],
    )


def wanted_keys(
    record: Record, node: str, present: Mapping[str, str], membership: Set[str] | None = None
) -> Mapping[str, str]:
    """What `node`'s corosync.conf must hold at this record; `present` where the record asks nothing.

    `membership`: whom the node sees; None: it counts for nothing. An opening raises nothing in a part of the
    cluster, nor does a raise just in time. Its record may have landed in that part alone: where the other
    part's store wins as they meet, nobody knows any more what the file was. For the same reason a file that
    is as it was is left so.
    """
    old = old_of(record, node)
    if record.totem is Totem.RAISED:
        apart = membership is not None and not membership >= set(record.old)
        begins = record.phase is Phase.OPENING or record.just_in_time
        return present if begins and apart else raised_keys(record, node)
    if old is None or dict(present) == dict(old.file_keys):
        return present
    if record.totem is Totem.LOWERED:
        return lowered_keys(record, old)
    return explicit_keys(old) if record.totem is Totem.EXPLICIT else old.file_keys


def longest_timeout_seconds(reports: Mapping[str, Report]) -> float:
    """The longest heartbeat timeout that a node has reported; 0: none has."""
    runs = [report.runtime for report in reports.values() if report.runtime]
    return max(map(heartbeat.timeout_ms, runs), default=0) / 1000


def explicit_keys(old: OldHeartbeat) -> dict[str, str]:
    """The old effective values written out. A pong count of the user's own stays: a line that is taken away
    for a moment would come back in another place and without its comment."""
    own = {key: old.file_keys[key] for key in (heartbeat.PONG_COUNT,) if key in old.file_keys}
    return heartbeat.explicit(old.runtime) | own


def raised_keys(record: Record, node: str) -> dict[str, str]:
    """What `node`'s file holds while the record is raised. Just in time, that of the node which drives it
    keeps its token: the shortest of any member decides, so nothing is seen late until it follows, last."""
    old = old_of(record, node)
    if record.just_in_time and node == record.owner and old is not None:
        return lowered_keys(record, old)
    return heartbeat.raised(record.budget_seconds)


def lowered_keys(record: Record, old: OldHeartbeat) -> dict[str, str]:
    """The old token set, with the knet values of the raise (`Totem.LOWERED`)."""
    raised = heartbeat.raised(record.budget_seconds)
    return heartbeat.explicit(old.runtime) | {key: raised[key] for key in heartbeat.KNET_KEYS}


def is_lowered(keys: Mapping[str, str], old: OldHeartbeat) -> bool:
    """Whether these are the keys of `lowered_keys`, after a raise to whatever."""
    timeout = keys.get(heartbeat.PING_TIMEOUT, "")
    if not (timeout.isascii() and timeout.isdigit()):
        return False
    raised = heartbeat.raised(int(timeout) / 1000)
    return dict(keys) == heartbeat.explicit(old.runtime) | {key: raised[key] for key in heartbeat.KNET_KEYS}


def old_of(record: Record, node: str) -> OldHeartbeat | None:
    """The node's values before the window; what is owed to it since an earlier one is older, and right.
    One that joined in mid-window has those of the others."""
    if not record.old:
        return None
    return record.owed.get(node) or record.old.get(node) or record.old[min(record.old)]


def unproven(snapshot: Snapshot, node: str, since_epoch: int) -> list[str]:
    """Agents of `node` that have not proven themselves with their present parameters, begun at `since_epoch`
    or later, from each member whose shutdown facility runs."""
    late = []
    for member in sorted(snapshot.members):
        report = snapshot.reports.get(member)
        for device, wanted in snapshot.aims[node].proofs.items():
            if report is not None and not facility_runs(snapshot, member):
                continue
            if report is None or not proves(report.proofs.get(device, ""), wanted, since_epoch):
                late.append(f"{device} from {member}")
    return late


def other_fencers(snapshot: Snapshot, target: str = "") -> list[tuple[str, str]]:
    """Members whose running fencer would do otherwise to `target` (empty: to any node) than the configuration
    says, and in what, a phrase for each device."""
    return [
        (node, f"{name.partition(' ')[2]}: {why}")
        for node in sorted(snapshot.members)
        if (report := snapshot.reports.get(node)) is not None
        for name, why in sorted(report.fencer.items())
        if not target or name.startswith(f"{target} ")
    ]


def fencer_differs(late: list[tuple[str, str]], then: str) -> Message:
    """The message for what `other_fencers` has found. `then`: what to type after it is mended."""
    node, what = late[0]
    more = f", and {len(late) - 1} more" if len(late) > 1 else ""
    return Message(
        "FENCER_DIFFERS",
        f"what the fencer of {node} would do is not what is configured: {what}{more}",
        node=node,
        next_command=f"start Pacemaker of {node} again (its fencer then reads what is configured), {then}",
    )


def unasked(snapshot: Snapshot, host: str) -> bool:
    """Whether nobody can ask this host where guests are (kind manual): the operator's word stands in, and
    the proof that its agent sees the guest there."""
    return host in snapshot.hosts and snapshot.hosts[host].kind == "manual"


def commander(snapshot: Snapshot, record: Record, since_epoch: int) -> WriteRecord | Wait | Stop | None:
    """Refuse while another node's command drives this window; one that has died leaves it to us.

    The last report of a daemon that was killed stays, and says for ever that a command is alive there. So it
    is believed only at an epoch later than `since_epoch`, with which our command began: the record moves
    once, its owner unchanged, and a daemon that lives reports that. A live command loses one race by it.
    Without the daemon of a member nothing could be finished (its file, its proofs), and a command that nobody
    sees may still run there: so that daemon is named, and nothing is taken over.
    """
    owner = record.owner
    if not owner or owner == snapshot.me or owner not in snapshot.members:
        return None
    report = snapshot.reports.get(owner)
    if report is None or not report.commanding:
        return None
    if report.epoch > since_epoch:
        text = f"a command on {owner} is {record.phase.value} the window at this moment"
        return Stop((Message("BUSY", text, node=owner),), unfinished=True)
    if record.epoch <= since_epoch:
        return WriteRecord(record.next(), f"ask whether the command on {owner} is alive")
    if "alive" not in snapshot.expired:
        return Wait("alive", CALL_LIMIT_SECONDS, f"{owner} to say whether its command is alive")
    return Stop((silent(owner),), unfinished=True)


def _epoch(snapshot: Snapshot, node: str) -> int | None:
    report = snapshot.reports.get(node)
    return None if report is None else report.epoch
