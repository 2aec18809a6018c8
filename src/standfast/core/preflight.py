"""What must be true before a window opens. Looks, never changes; every refusal has a code of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from standfast.core import by_kind, heartbeat, members, owed
from standfast.core.messages import Message, Severity
from standfast.core.record import Mode
from standfast.core.steps import OpenGoal, Snapshot

MAX_NAMED = 5
RED_HAT_TOKEN_LIMIT_MS = 300_000
"""Above a 300 s token Red Hat gives no support."""
TRUE_WORDS = frozenset({"true", "on", "yes", "y", "1"})
FALSE_WORDS = frozenset({"false", "off", "no", "n", "0"})
"""What Pacemaker takes for a boolean, in any case (crm_str_to_boolean of Pacemaker 2.1)."""


def errors(snapshot: Snapshot, goal: OpenGoal) -> tuple[Message, ...]:
    """Everything that speaks against opening, at once, so that an operator can mend all of it."""
    found = [
        *_cluster(snapshot),
        *_members(snapshot),
        *_loaded(snapshot),
        *_agents(snapshot),
        *_hosts(snapshot),
        *_goal(snapshot, goal),
    ]
    return tuple(found)


def warnings(snapshot: Snapshot, goal: OpenGoal) -> tuple[Message, ...]:
    """What an operator should know, and what does not stop the opening."""
    return (*_neighbours(snapshot, goal), *(_raised(snapshot, goal) if goal.budget_seconds else ()))


def _neighbours(snapshot: Snapshot, goal: OpenGoal) -> Iterator[Message]:
    """Two nodes on one machine die together."""
    there = [aim for aim in snapshot.aims.values() if aim.host == goal.target and aim.node != goal.mover]
    if goal.target and there:
        names = ", ".join(f"{aim.guest} ({aim.node})" for aim in there)
        yield _warn(
            "NEIGHBOURS",
            f"{goal.target} has another node of this cluster already: {names}; if that machine fails, all of "
            "them are lost at once",
        )


def _raised(snapshot: Snapshot, goal: OpenGoal) -> Iterator[Message]:
    token_ms = int(heartbeat.raised(goal.budget_seconds)["token"])
    if token_ms > RED_HAT_TOKEN_LIMIT_MS:
        yield _warn(
            "TOKEN_UNSUPPORTED",
            f"the token becomes {token_ms / 1000:.0f} s; Red Hat supports up to 300 s",
        )
    short = [
        f"{name} ({seconds:g} s)"
        for name, seconds in sorted(snapshot.monitors.items())
        if seconds < goal.budget_seconds
    ]
    if short:
        yield _warn(
            "SHORT_MONITORS",
            "a monitor whose timeout ends within the blackout can restart its resource after it: "
            f"{_some(short)}",
        )


def _cluster(snapshot: Snapshot) -> Iterator[Message]:
    for what in snapshot.unsupported:
        yield Message("UNSUPPORTED", f"this cluster cannot be taken through a window yet: {what}")
    if not snapshot.stonith_enabled:
        yield Message("STONITH_DISABLED", "stonith-enabled is false: nothing would be fenced, ever")
    if snapshot.maintenance_mode.lower() in TRUE_WORDS:
        yield Message(
            "MAINTENANCE",
            "maintenance-mode is on already",
            next_command="crm_attribute -t crm_config -n maintenance-mode -D",
        )
    for node, why in sorted(snapshot.unwell.items()):
        yield Message("NODE_UNWELL", f"{node} is {why}", node=node, next_command="crm_mon -1")
    for node in snapshot.record.owed if snapshot.record else ():
        yield Message("OWED", owed.sentence(node), node=node, next_command=owed.way_out(node))
    if snapshot.fencing_pending:
        names = ", ".join(snapshot.fencing_pending)
        yield Message("FENCING_PENDING", f"fencing of {names} is in progress", next_command="crm_mon -1")
    if snapshot.cluster_idle is not True:
        state = "does not answer" if snapshot.cluster_idle is None else "is busy"
        yield Message(
            "SWITCHOVER", f"the cluster {state}: a switchover may be in progress", next_command="crm_mon -1"
        )


def _members(snapshot: Snapshot) -> Iterator[Message]:
    fingerprints: dict[str, list[str]] = {}
    for node in sorted(snapshot.members):
        report = snapshot.reports.get(node)
        if report is None:
            yield members.silent(node)
            continue
        if report.config_error:
            yield Message("CONFIG", f"{node}: {report.config_error}", node=node)
        else:
            fingerprints.setdefault(report.config, []).append(node)
        if report.file_error:
            yield Message("COROSYNC_CONF", f"{node}: {report.file_error}", node=node)
        if not members.facility_runs(snapshot, node):
            yield Message(
                "FACILITY_STOPPED",
                f"the shutdown facility of {node} is stopped",
                node=node,
                next_command=f"sdtool -b (on {node})",
            )
    if len(fingerprints) > 1:
        groups = " / ".join(" ".join(nodes) for nodes in fingerprints.values())
        yield Message("CONFIG_DIFFERS", f"clovmmigrate.conf is not the same on all nodes: {groups}")
    elif snapshot.config and fingerprints and snapshot.config not in fingerprints:
        behind = ", ".join(sorted(snapshot.members & set(snapshot.reports)))
        yield Message(
            "CONFIG_DIFFERS",
            f"clovmmigrate.conf of this node is not the one that standfastd of {behind} has read",
            next_command=f"sdtool -r (on {behind})",
        )


def _loaded(snapshot: Snapshot) -> Iterator[Message]:
    """The reload of a window would make live what somebody has edited and never loaded."""
    for node in sorted(snapshot.members & set(snapshot.reports)):
        report = snapshot.reports[node]
        if not report.file_keys and report.file_error:
            continue
        if report.unloaded:
            yield Message(
                "CONF_NOT_LOADED",
                f"corosync of {node} has not loaded its corosync.conf as it is now, and the window would: "
                f"they differ in {_some(report.unloaded)}",
                node=node,
                next_command="put the file back, or corosync-cfgtool -R (every node reads its own file; what "
                f"that cannot change: start corosync of {node} again)",
            )
        yields = heartbeat.expected_runtime(dict(report.file_keys), members.node_count(snapshot, report))
        for key, name in heartbeat.RUNTIME_NAMES.items():
            # Timers that are derived lag behind a reload (knet), or come from a key that is not ours.
            if key not in (heartbeat.TOKEN, heartbeat.CONSENSUS) and key not in report.file_keys:
                continue
            runs = report.runtime.get(name)
            if runs is not None and runs != yields[name]:
                yield Message(
                    "NOT_LOADED",
                    f"corosync of {node} runs {name} {runs} ms, its corosync.conf says {yields[name]} ms",
                    node=node,
                    next_command="put the file back, or corosync-cfgtool -R (every node reads its own file)",
                )


def _agents(snapshot: Snapshot) -> Iterator[Message]:
    missing = [node for node in snapshot.configured if node not in snapshot.aims]
    for node in missing:
        yield Message(
            "NOT_REGISTERED",
            f"{node} has no shutdown agents",
            node=node,
            next_command=by_kind.register(snapshot.hosts, node),
        )
    for node, report in sorted(snapshot.reports.items()):
        if node not in snapshot.members or not members.facility_runs(snapshot, node):
            continue
        for aim in snapshot.aims.values():
            for device in aim.proofs:
                state = report.agents.get(device, "Unknown")
                if state != "TestWorked":
                    yield Message(
                        "AGENT",
                        f"on {node} the agent {device} shows {state}",
                        node=node,
                        next_command=f"sdtool -s (on {node})",
                    )

    if late := members.other_fencers(snapshot):
        yield members.fencer_differs(late, "standfast verify")


def _hosts(snapshot: Snapshot) -> Iterator[Message]:
    for node, report in sorted(snapshot.reports.items()):
        for host, why in sorted(report.hosts.items()):
            if why:
                text = f"{node} cannot ask {_host(snapshot, host)}: {why}"
                hint = f"see the way from {node} to {host}, then type on {node}: sdtool -r"
                yield Message("HOST_SILENT", text, node=node, host=host, next_command=hint)
        for address, why in sorted(report.logins.items()):
            if why and address in snapshot.hosts:
                agent = snapshot.hosts[address].agent
                text = f"from {node} {agent} does not reach {address} with its fence_parameters: {why}"
                yield Message("LOGIN", text, node=node, host=address)
            elif why:
                yield Message(
                    "LOGIN",
                    f"from {node} the registered user cannot log in to the XSCF at {address}: {why}",
                    node=node,
                )


def _goal(snapshot: Snapshot, goal: OpenGoal) -> Iterator[Message]:
    if goal.mover and goal.mover not in snapshot.aims:
        yield Message("UNKNOWN_GUEST", f"no cluster node is registered for {goal.mover}")
        return
    if goal.mode is Mode.GUARDED:
        yield from _guarded(snapshot, goal)
    for node, aim in sorted(snapshot.aims.items()):
        if not aim.host:
            yield Message(
                "AIM_UNKNOWN",
                f"the shutdown agents of {node} aim at no control domain of clovmmigrate.conf",
                node=node,
                next_command=by_kind.listing(snapshot.hosts),
            )


def _guarded(snapshot: Snapshot, goal: OpenGoal) -> Iterator[Message]:
    """A killing gate has to see the guest, and to be able to stop it, on every host."""
    if not goal.mover:
        text = "a guarded window is for one guest: every node cannot move at once"
        yield Message("NO_MOVER", text, next_command="standfast window open GUEST, or --mode frozen")
    for name, host in sorted(snapshot.hosts.items()):
        if not host.login:
            yield Message(
                "NEEDS_LOGIN",
                f"{_host(snapshot, name)} has no login: a guest cannot be stopped there, nor proven stopped",
                host=name,
                next_command=f"put a login for {name} into clovmmigrate.conf, or --mode frozen"
                if host.kind != "manual"
                else "standfast window open GUEST --mode frozen (nobody can ask a host of kind manual)",
            )
    if goal.just_in_time and (older := _not_just_in_time(snapshot)):
        yield Message(
            "OLDER_DAEMON",
            f"the standfastd of {_some(older)} is older and does not know a raise just in time",
            node=older[0],
            next_command="install the same version of Standfast on every node, or the same command without "
            "--raise just-in-time",
        )
    if snapshot.unbroken and not (goal.budget_seconds or goal.hold_alone or goal.just_in_time):
        yield Message(
            "MEMBERSHIP_NEEDED",
            f"a node that is dropped in its blackout is not taken back by {_some(snapshot.unbroken)}: the "
            "heartbeat timeout must be raised above the blackout",
            next_command="standfast window open GUEST --budget auto (or SECONDS; none: the blackout fits "
            "into the timeout as it is); on libvirt: standfast migrate GUEST --to HOST --raise just-in-time",
        )


def _host(snapshot: Snapshot, name: str) -> str:
    return f"{'control domain' if by_kind.kind(snapshot.hosts, name) == 'ldm' else 'host'} {name}"


def _not_just_in_time(snapshot: Snapshot) -> list[str]:
    told = snapshot.reports
    return [node for node in sorted(snapshot.members) if node in told and not told[node].just_in_time]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _warn(code: str, text: str) -> Message:
    return Message(code, text, Severity.WARNING)
