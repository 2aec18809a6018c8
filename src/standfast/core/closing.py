"""From any interrupted state back to no window.

closing: the guest is found -> the domain configuration is saved -> the devices aim at its host (one patch)
-> every agent has proven itself from every member -> fencing is armed (`Record.proven`) -> the clocks of all
members agree -> old effective heartbeat values written out, reloaded, seen -> keys that were absent removed,
reloaded again, seen -> idle.

A clock that lags costs the lowering, never the fencing: only where clocks are in the way is "proven" written
before they agree, else together with the first step down.
"""

from __future__ import annotations

from dataclasses import replace

from standfast.core import by_hand, by_kind, clock_gate, lowering, members, others, raising
from standfast.core.evidence import MOVING, GuestState, HostAnswer
from standfast.core.gate import SKIPPED
from standfast.core.messages import Message
from standfast.core.names import SETTLE_SECONDS
from standfast.core.record import Phase, Record, Totem
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


def decide(snapshot: Snapshot, goal: CloseGoal | None, since_epoch: int) -> Decision:
    """The next step toward no window. Without a goal only an aborted opening can be put back.

    `since_epoch`: epoch of the record when the command began.
    """
    decision, record = _decide(snapshot, goal, since_epoch), snapshot.record
    if isinstance(decision, Stop) and decision.unfinished and record is not None:
        return replace(decision, left=record.left)
    return decision


def _decide(snapshot: Snapshot, goal: CloseGoal | None, since_epoch: int) -> Decision:
    record = snapshot.record
    if record is None:
        why = snapshot.record_error or "no node's shutdown agents are registered"
        return Stop((Message("RECORD", why, next_command=by_kind.listing(snapshot.hosts)),), unfinished=False)
    if record.phase is Phase.IDLE:
        return _idle(snapshot, goal, record)
    busy = members.commander(snapshot, record, since_epoch)
    if busy is not None and not _overrules(record, goal):
        return busy
    if record.phase is Phase.CLOSING and record.aimed and not record.waits_for_clocks:
        if record.owner != snapshot.me:
            return WriteRecord(record.next(owner=snapshot.me), "take over the closing that was left")
        return lowering.lower(snapshot, record)
    if record.phase is Phase.OPEN and record.just_in_time and record.totem is not Totem.ORIGINAL:
        # First of all: until it is down nobody can write in a blackout, and a real death is seen late.
        step = raising.step_down(snapshot, record)
        if step is not None:
            return step
    if goal is None:
        return lowering.unfinished(Message("WINDOW_OPEN", "a window is open"), None)
    if goal.node not in snapshot.aims:
        return Stop((_not_registered(snapshot, goal),), unfinished=True)
    if (first := others.guarded(snapshot, goal)) is not None:
        return Stop((first,), unfinished=True)
    if (trouble := _ready(snapshot, goal, record)) is not None:
        return trouble
    if record.phase is not Phase.CLOSING or record.owner != snapshot.me or not _same(record, goal):
        # The mover of a guarded window comes first: until its killing gate is gone nobody else can be closed.
        soon = not _needs_aim(snapshot, goal) and not snapshot.guarded
        if soon and (other := others.astray(snapshot, goal, record)) is not None:
            return Stop((other,), unfinished=True)
        entered = _enter(snapshot, goal, record)
        if snapshot.guarded - {goal.node}:
            return lowering.unguard(snapshot, entered)
        return WriteRecord(entered, f"close the window of {goal.node}")
    return _aim(snapshot, goal, record)


def _overrules(record: Record, goal: CloseGoal | None) -> bool:
    """Whether this command takes over from one that lives and only waits for clocks: it says that they are
    not to count. The first does; a second one finds it at work."""
    if goal is None or not goal.ignore_clocks:
        return False
    return record.waits_for_clocks and record.epoch <= goal.since_epoch


def _same(record: Record, goal: CloseGoal) -> bool:
    return record.mover == goal.node and record.target == goal.target


def _needs_aim(snapshot: Snapshot, goal: CloseGoal) -> bool:
    aim = snapshot.aims[goal.node]
    return aim.host != goal.target or aim.weight != snapshot.hosts[goal.target].weight


def _not_registered(snapshot: Snapshot, goal: CloseGoal) -> Message:
    text = f"{goal.node} is not registered any more: its shutdown agents were removed meanwhile"
    return Message("NOT_REGISTERED", text, node=goal.node, next_command=by_kind.listing(snapshot.hosts))


def _enter(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Record:
    kept = _left_unsaved(record, goal)
    if record.phase is Phase.CLOSING and _same(record, goal):
        kept = dict(record.saved)
        if kept and (record.proven or (record.prove and _unproven(snapshot, goal, record))):
            kept = _not_by_us(record, snapshot)  # see _aim
    return record.next(
        phase=Phase.CLOSING,
        owner=snapshot.me,
        mover=goal.node,
        source=by_hand.source_of(snapshot, goal, record),
        target=goal.target,
        # Who is where its devices aim is proven once more with fencing armed, as with no window. Another aim
        # is a window again: nobody is fenced between the move and its proof.
        aimed=record.proven and not _needs_aim(snapshot, goal),
        prove=0,
        saved=kept,
        settle=tuple(sorted({*record.settle, record.mover, goal.node} - {""})),
    )


def _left_unsaved(record: Record, goal: CloseGoal) -> dict[str, str]:
    """Hosts that this closing has to save beside source and target, each with an empty name: the guest has
    moved on from the host for which an earlier ``-u`` of this window was."""
    if record.phase is not Phase.CLOSING:
        return {}
    left = {host for host, said in record.saved.items() if not said}
    if record.mover == goal.node and record.target != goal.target:
        left.add(record.target)
    return dict.fromkeys(sorted(left - {""}), "")


def _idle(snapshot: Snapshot, goal: CloseGoal | None, record: Record) -> Decision:
    """``-u`` repeated: nothing to close, but the devices must aim at the guest and prove it."""
    if goal is not None and (off := _aim_at_the_one_that_is_off(snapshot, goal, record)) is not None:
        return off
    if (wait := members.reported(snapshot, record)) is not None:
        if wait.key in snapshot.expired:
            return Stop((Message("NO_REPORT", f"no word from {wait.reason}"),), unfinished=False)
        return wait
    if goal is None:
        return Done("no window is open", changed=False)
    if goal.node not in snapshot.aims:
        return Stop((_not_registered(snapshot, goal),), unfinished=False)
    aim = snapshot.aims[goal.node]
    asked = proof_asked(record, goal) and aim.host == goal.target
    if asked and _proven_and_saved(snapshot, goal, record):
        return _proven(goal)
    if (trouble := _ready(snapshot, goal, record)) is not None:
        return trouble
    if snapshot.guarded:
        return lowering.unguard(snapshot, record.next())
    if _needs_aim(snapshot, goal):
        return WriteRecord(_repair(snapshot, goal, record), f"aim the agents of {goal.node} at {goal.target}")
    if not proof_asked(record, goal) or record.window:
        # What a window has saved says nothing of now.
        again = record.next(prove=record.epoch + 1, mover=goal.node, saved={}, window=0)
        return WriteRecord(again, f"have every agent of {goal.node} prove itself again")
    return _idle_proof(snapshot, goal, record)


def proof_asked(record: Record | None, goal: CloseGoal) -> bool:
    """Whether the proof of this guest's agents has been asked for since this command began, and no window is
    left: all was quiet when that was done."""
    if record is None or record.phase is not Phase.IDLE:
        return False
    return record.prove > goal.since_epoch and record.mover == goal.node


def _proven(goal: CloseGoal) -> Done:
    return Done(f"no window is open; every agent of {goal.node} has proven {goal.target} from every node")


def _proven_and_saved(snapshot: Snapshot, goal: CloseGoal, record: Record) -> bool:
    begun = _saving(record) and _to_save(snapshot, goal, record)
    return not begun and not _unproven(snapshot, goal, record)


def _saving(record: Record) -> bool:
    """Whether a ``-u`` without a window has begun to save; what a window has saved stands there with it."""
    return bool(record.saved) and not record.window


def _to_save(snapshot: Snapshot, goal: CloseGoal, record: Record) -> list[str]:
    """Where a configuration can be saved and was not yet, the host that has the guest first. A guest that was
    moved away and back without a window leaves each host on which it was with a map of before (SPARC M12/M10
    notes C120-0105, 3.1.5), and nobody knows which those were."""
    hosts = (goal.target, *(name for name in snapshot.hosts if name != goal.target))
    entries = snapshot.hosts
    can = [n for n in hosts if entries[n].saves and entries[n].login and n not in goal.skip_save]
    return [name for name in can if name not in record.saved]


def _idle_proof(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision:
    """The aim fits. Where the agents do not prove it the service processors may not know the guest: the hosts
    save, as in a closing, and the proof is asked for once more. Nothing is held by it: there is no window."""
    late = _unproven(snapshot, goal, record)
    if _proven_and_saved(snapshot, goal, record):
        return _proven(goal)
    expired = "proof" in snapshot.expired
    if _saving(record) or expired:
        for host in _to_save(snapshot, goal, record):
            why = f"save the domain configuration on {host}: {goal.guest} is not proven there"
            return SaveConfiguration(host, host == goal.target, why)
        if _saving(record) and record.prove < record.epoch:
            again = record.next(prove=record.epoch + 1)
            return WriteRecord(again, f"have every agent of {goal.node} prove itself, now that it is saved")
    if expired:
        return Stop((_proof_failed(late, goal),), unfinished=False)
    return Wait("proof", PROOF_LIMIT_SECONDS, f"proof of {', '.join(late[:4])}")


def _aim_at_the_one_that_is_off(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision | None:
    """A guest that was moved without a word and is off: no host runs it, in two rounds, and the target knows
    it. An agent that asks its host fails at one which does not (fence_virsh 4.12.1; measured), so that the
    cluster would recover nothing of it. Where it is known the agent sees that it is off. Nothing can be
    killed so, and nothing is left to prove before it runs again. Not where a map is to be saved first.
    """
    if not goal.off or goal.node not in snapshot.aims:
        return None
    entry = snapshot.hosts[goal.target]
    shown = {answer.host: answer.state for answer in snapshot.places.get(goal.guest, ())}
    gone = goal.node in snapshot.proven_off and goal.node not in snapshot.members
    if entry.saves or snapshot.guarded or not gone or shown.get(goal.target) is not GuestState.STOPPED:
        return None
    if _needs_aim(snapshot, goal):
        why = f"aim the agents of {goal.node} at {goal.target}, where {goal.guest} is off"
        return Reaim(record.next(prove=0, mover=goal.node, saved={}, window=0), goal.node, entry, why)
    return Done(
        f"the agents of {goal.node} aim at {goal.target}, where {goal.guest} is off; once it runs again: "
        f"clovmmigrate -u {goal.guest} {goal.target}"
    )


def _repair(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Record:
    return replace(
        record.after(),
        phase=Phase.CLOSING,
        owner=snapshot.me,
        mover=goal.node,
        source=snapshot.aims[goal.node].host,
        target=goal.target,
        window=record.epoch + 1,
        lease_seconds=goal.lease_seconds,
        settle=tuple(sorted({*record.settle, goal.node})),
        why="repair of the aim without a window",
    )


def _ready(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision | None:
    """Whether closing may begin or go on: members, guest, quiet."""
    gone = members.absent(snapshot, record) if record.open else []
    if gone:
        return lowering.unfinished(
            Message(
                "MEMBER_MISSING",
                f"{', '.join(gone)} is not in the membership and not proven off; closing needs every member",
                node=gone[0],
            ),
            goal,
        )
    if (place := _where(snapshot, goal, record)) is not None:
        return place
    if (other := others.moving(snapshot, goal, record)) is not None:
        return Stop((other,), unfinished=True)
    if goal.node not in snapshot.members:
        return _wait_or(
            snapshot, goal, "return", RETURN_LIMIT_SECONDS, f"{goal.node} to be back in the membership"
        )
    since = snapshot.seconds_since_return
    if record.open and since is not None and since < SETTLE_SECONDS:
        return Wait("settle", SETTLE_SECONDS + 5.0, f"{goal.node} to be back for {SETTLE_SECONDS} s")
    if record.phase is Phase.CLOSING or proof_asked(record, goal):
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
            # (An agent that asks its host has to be aimed at it then: see _aim_at_the_one_that_is_off.)
            typed = by_kind.stop(snapshot.hosts, goal.target, goal.guest)
            then = "; fencing then goes on"
            if snapshot.hosts[goal.target].kind == "libvirt" and _needs_aim(snapshot, goal):
                then = f", then standfast window repair {goal.guest}"
            hint = f"if it hangs: {typed}{then}"
            return Stop((replace(message, next_command=hint),), unfinished=False)
        stop = lowering.unfinished(message, goal)
        return replace(stop, unfinished=record is not None and record.open)
    return Wait(key, limit_seconds, what)


def _where(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision | None:
    """The closed table "where is the guest": only plainly on the target, and nowhere else, goes on."""
    answers = {answer.host: answer for answer in snapshot.places.get(goal.guest, ())}
    blind = [
        host
        for host in snapshot.hosts
        if _blind(answers.get(host)) and host not in goal.skip_save and not members.unasked(snapshot, host)
    ]
    running = [host for host, answer in answers.items() if answer.state is GuestState.RUNNING]
    moving = [host for host, answer in answers.items() if answer.state in MOVING]
    if moving:
        text = f"{goal.guest} is still being moved: {', '.join(str(answers[host]) for host in moving)}"
        hint = f"{by_kind.look(snapshot.hosts, moving[0], goal.guest)}; when it has ended, repeat"
        return _where_stop(Message("MIGRATING", text, host=moving[0], next_command=hint), record)
    if len(running) > 1:
        text = f"two copies of {goal.guest}, on {' and on '.join(sorted(running))}: stop one, mind its data"
        stop = by_kind.stop(snapshot.hosts, " or ".join(sorted(running)), goal.guest)
        hint = f"{stop}, then clovmmigrate -u {goal.guest} HOST"
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
        place = "control domain" if snapshot.hosts[blind[0]].saves else "host"
        text = f"{place} {blind[0]} gave no answer about {goal.guest}: {why}"
        return _where_stop(Message("HOST_SILENT", text, host=blind[0], next_command=hint), record)
    if running:
        return None
    if members.unasked(snapshot, goal.target) and not any(a.state.is_present for a in answers.values()):
        return None  # its agent has to see it there, from every node
    if any(answer.state is GuestState.PAUSED for answer in answers.values()):
        return _wait_or(snapshot, goal, "paused", PAUSED_LIMIT_SECONDS, f"{goal.guest} to run again")
    shown = ", ".join(str(answer) for answer in answers.values())
    start = by_kind.start(snapshot.hosts, "", goal.guest)
    hint = f"{start}, then clovmmigrate -u {goal.guest} HOST"
    text = f"{goal.guest} runs on no host of clovmmigrate.conf ({shown})"
    return _where_stop(Message("GUEST_STOPPED", text, node=goal.node, next_command=hint), record)


def _blind(answer: HostAnswer | None) -> bool:
    return answer is None or answer.state in (GuestState.SILENT, GuestState.UNKNOWN)


def _where_stop(message: Message, record: Record) -> Stop:
    # A stopped guest is exit 1 even with an open window: the manual's own answer to it.
    return Stop((message,), unfinished=record.open and message.code != "GUEST_STOPPED")


def _aim(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision:
    for host in dict.fromkeys((record.source, *record.saved, goal.target)):
        if not host or record.saved.get(host) or not snapshot.hosts[goal.target].saves:
            continue
        if host in goal.skip_save:
            saved = {**record.saved, host: f"skipped: {goal.skip_save[host]}"}
            return WriteRecord(record.next(saved=saved), f"note that {host} was not saved")
        if host in goal.saved_by_hand:
            saved = {**record.saved, host: by_hand.NOTED}
            return WriteRecord(record.next(saved=saved), f"note that {host} was saved by hand")
        if host not in snapshot.hosts:
            return lowering.unfinished(_not_listed(host, goal), goal)
        runs_here = host == goal.target
        if snapshot.hosts[host].login:
            return SaveConfiguration(host, runs_here, f"save the domain configuration on {host}")
        return SaveConfiguration(host, runs_here, f"see whether the domain configuration on {host} is saved")
    if _needs_aim(snapshot, goal):
        return Reaim(
            record.next(prove=record.epoch + 1),
            goal.node,
            snapshot.hosts[goal.target],
            f"aim the agents of {goal.node} at {goal.target}",
        )
    late = _unproven(snapshot, goal, record)
    # Each node tests once for each epoch that asks: what failed for the last command would fail for ever. And
    # a guest that has begun to move since its hosts have saved is not known to their XSCFs: they save again.
    # Once fencing is armed it may have been away unseen.
    asked_before = 0 < record.prove <= goal.since_epoch
    if asked_before and (late or record.proven):
        again = "save anew, and ask again" if snapshot.hosts[goal.target].saves else "ask again"
        why = f"the agents of {goal.node} have {'not ' if late else ''}proven themselves before: {again}"
        return WriteRecord(record.next(prove=0, saved=_not_by_us(record, snapshot)), why)
    if not record.prove or asked_before:
        return WriteRecord(
            record.next(prove=record.epoch + 1), f"have every agent of {goal.node} prove itself"
        )
    if late:
        if "proof" in snapshot.expired:
            return lowering.unfinished(_proof_failed(late, goal), goal)
        return Wait("proof", PROOF_LIMIT_SECONDS, f"proof of {', '.join(late[:4])}")
    found = others.astray(snapshot, goal, record) or others.unproven(snapshot, goal, record)
    if found is not None and snapshot.guarded:
        return lowering.unguard(snapshot, record.next())
    if found is not None:
        return Stop((found,), unfinished=True)
    if (changed := lowering.edited(snapshot, record, goal)) is not None:
        return lowering.unfinished(changed, goal)
    # From the next write on these fencers may act, each with what it has registered.
    if (differ := lowering.fencers(snapshot, record, goal)) is not None:
        return differ
    return _arm(snapshot, goal, record)


def _arm(snapshot: Snapshot, goal: CloseGoal, record: Record) -> Decision:
    """All is proven: fencing is armed. Where the clocks agree already the heartbeat begins to come down with
    the same write."""
    proven = f"every agent of {goal.node} has proven itself from every node"
    told: tuple[Message, ...] = ()
    if not lowering.raises(record):
        aimed = record.next(aimed=True, totem=Totem.ORIGINAL)
    elif record.totem is Totem.LOWERED:
        aimed = record.next(aimed=True, totem=Totem.EXPLICIT)  # the timeout is down: no clock is waited for
    elif (waits := clock_gate.before_lowering(snapshot, record, goal)) is None:
        aimed = record.next(aimed=True, totem=Totem.EXPLICIT)
        told = clock_gate.ignored(snapshot, record, goal)
    elif not record.aimed and (soon := clock_gate.measured_soon(snapshot, record)) is not None:
        return soon
    elif snapshot.guarded:
        return lowering.unguard(snapshot, record.next())  # what the fencers make of that is looked at first
    elif record.aimed:
        return waits
    elif (seen := members.reported(snapshot, record)) is not None and seen.key not in snapshot.expired:
        return seen
    else:
        aimed = record.next(aimed=True)
        proven += ": fencing is armed, the heartbeat stays raised for the clocks"
    if snapshot.guarded:
        return replace(lowering.unguard(snapshot, aimed), warnings=told)
    return WriteRecord(aimed, proven, warnings=told)


def _not_by_us(record: Record, snapshot: Snapshot) -> dict[str, str]:
    """Of what is noted as saved, the operator's own words, and what Standfast cannot save."""

    def ours(host: str, said: str) -> bool:
        entry = snapshot.hosts.get(host)
        return (
            entry is not None
            and entry.saves
            and entry.login
            and not said.startswith((SKIPPED, by_hand.NOTED))
        )

    return {host: said for host, said in record.saved.items() if not ours(host, said)}


def _not_listed(host: str, goal: CloseGoal) -> Message:
    return Message(
        "NOT_SAVED",
        f"{goal.guest} came from {host}, which is no longer in clovmmigrate.conf: nothing can be saved there",
        host=host,
        next_command=f"put {host} back into clovmmigrate.conf (all nodes; sdtool -r), then clovmmigrate -u "
        f"{goal.guest} {goal.target}; if it is dead: with --skip-save {host}",
    )


def _unproven(snapshot: Snapshot, goal: CloseGoal, record: Record) -> list[str]:
    return members.unproven(snapshot, goal.node, record.prove)


def _proof_failed(late: list[str], goal: CloseGoal) -> Message:
    return Message(
        "PROOF",
        f"not proven to reach {goal.guest} on {goal.target}: {', '.join(late)}",
        node=goal.node,
        host=goal.target,
        next_command=f"sdtool -s, then clovmmigrate -u {goal.guest} {goal.target}",
    )
