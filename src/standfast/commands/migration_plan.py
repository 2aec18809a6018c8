"""What ``clovmmigrate -n`` shows: the steps of an opening or a closing, from one snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from standfast.core import heartbeat, lowering
from standfast.core.clock_step import OFF
from standfast.core.record import Mode
from standfast.core.steps import CloseGoal, OpenGoal, Snapshot


def lines(goal: OpenGoal | CloseGoal, snapshot: Snapshot) -> Iterator[str]:
    """One line for each step, in its order."""
    if isinstance(goal, OpenGoal):
        yield from _opening(goal, snapshot)
    else:
        yield from _closing(goal, snapshot)


def _opening(goal: OpenGoal, snapshot: Snapshot) -> Iterator[str]:
    if snapshot.record is not None and snapshot.record.open:
        phase = snapshot.record.phase.value
        yield f"a window is {phase} already (epoch {snapshot.record.epoch}): go on with it"
        return
    for node in sorted(snapshot.members) if goal.budget_seconds else ():
        report = snapshot.reports.get(node)
        now = "?" if report is None else f"{heartbeat.timeout_ms(report.runtime) / 1000:.0f} s"
        yield f"{node}: heartbeat timeout {now} to {goal.budget_seconds} s (corosync.conf, then one reload)"
    if goal.maintenance:
        yield "maintenance-mode on"
    who = goal.mover or "every node"
    if goal.mode is Mode.GUARDED:
        yield f"fencing levels of {who}: its killing gate alone, its own agents stopped"
        yield "every other node is fenced as always"
        yield f"open for {goal.lease_seconds // 60} min at most"
        return
    yield f"fencing held for {who}, for {goal.lease_seconds // 60} min at most"


def _closing(goal: CloseGoal, snapshot: Snapshot) -> Iterator[str]:
    aim = snapshot.aims[goal.node]
    for answer in snapshot.places.get(goal.guest, ()):
        yield f"asked: {answer}"
    record = snapshot.record
    source = record.source if record is not None and record.open and record.source else aim.host
    saves = snapshot.hosts[goal.target].saves
    if saves and ((record is not None and record.open) or aim.host != goal.target):
        for host in dict.fromkeys((source, goal.target)):
            if host in goal.skip_save:
                yield f"{host}: domain configuration NOT saved ({goal.skip_save[host]})"
            elif host in goal.saved_by_hand:
                yield f"{host}: domain configuration saved by hand"
            elif host in snapshot.hosts and not snapshot.hosts[host].login:
                yield f"{host}: no login; see by its XSCF whether the domain configuration is saved"
            elif host:
                yield f"{host}: save the domain configuration"
    entry = snapshot.hosts[goal.target]
    if aim.host == goal.target and aim.weight == entry.weight:
        yield f"agents of {goal.node}: aim at {goal.target} already"
    else:
        yield (f"agents of {goal.node}: {aim.host or 'unknown'} to {goal.target} ({entry.shown})")
    yield f"proof of every agent of {goal.node} from {', '.join(sorted(snapshot.members))}"
    if record is not None and record.open:
        yield "fencing armed"
        if lowering.raises(record):
            waits = f"are not waited for: {goal.ignore_clocks}" if goal.ignore_clocks else "have to agree"
            yield f"the clocks of all nodes {waits}"
            if snapshot.clock_step != OFF and not goal.ignore_clocks:
                yield f"a node whose clock is to blame sets it by itself ({snapshot.clock_step})"
        for node in sorted(record.old):
            back = heartbeat.timeout_ms(record.old[node].runtime) / 1000
            yield f"{node}: heartbeat timeout back to {back:.0f} s"
