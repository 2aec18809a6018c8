"""The gate: may the real fence device behind it be used now?

One pure function over one view. The rules, in the order in which they are asked (docs/design.md, section 5):

==================  ==========================================================================================
FACILITY_STOPPED    this node's shutdown facility was stopped by ``sdtool -e``: another node must do it
NOT_JOINED          this boot's controller has not joined: a starting fencer works from the OLD CIB for 1-2 s.
                    Or this node has met others less than 4 s ago: if it had stood still, its copy is old
RECORD_UNKNOWN      the record is missing, damaged or of an unknown format
LEVELS_UNSAFE       a level of the target is not ``[gate, real ...]``: our yes alone would be a success
TARGET_BACK         lease, or a window that closed within 15 s, and the target is a member: a healthy node
                    would be killed. Window or not: it came back as a member within 30 s
SETTLING            within 15 s of the target's return in a window or of the end of its window
EXECUTOR_MOVING     this node itself is settling: what it believes about others is stale
EXECUTOR_MOVING     guarded: this node itself is the mover (two nodes), and its own guest is not plainly
                    running, or it has not held this target, which is not gone, for 45 s yet; TARGET_BACK if
                    that is a member
GUARDED             a guarded window of the target, within its lease, and it is not gone: its killing gate's
FROZEN              the window holds everybody and its lease has not ended
UNSAVED             lease over; the target neither runs plainly on its aim, saved in this window, nor is
                    gone. Guarded: its host takes part in the mover's migration (armed in a window for
                    every node: any host) and has not saved
ELSEWHERE           a host shows the target elsewhere, or on its way: its devices aim at the wrong place
EXECUTOR_MOVING     this node sees no other, and a host shows its own guest on its way, or elsewhere than its
                    own devices aim: it may have just come out of a blackout that nobody has announced; for
                    45 s, unless the target is gone
NO_EVIDENCE         its device trusts its host's words (an ordinary agent: "Already OFF" of a guest that runs
                    elsewhere), and neither shows the host at which it aims the target, nor is it gone
SETTLING            not gone, and UNSAVED or ELSEWHERE held here, or the lease ended, less than 60 s ago;
                    TARGET_BACK if it is a member again and there is no window
CLEAR               nothing speaks against it
==================  ==========================================================================================

"Gone": every host shows it stopped or absent, in two rounds. A hold says why in one sentence.
A window whose guests are proven is none here, but one that has just closed: only its heartbeat is left.
Silence of a host is no evidence outside a window: without positive evidence
the gate is never less available than plain Pacemaker, but where NO_EVIDENCE asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from standfast.core.evidence import MOVING, GuestState, HostAnswer, on_its_way
from standfast.core.gate_trust import may_fail, trusting
from standfast.core.gate_view import Answer, GateView, Rule, gone, hold
from standfast.core.names import RELEASE_SECONDS, SETTLE_SECONDS
from standfast.core.record import Armed, Mode, Phase, Record

JOINED_STATES = frozenset({"S_IDLE", "S_NOT_DC", "S_POLICY_ENGINE", "S_TRANSITION_ENGINE"})
"""States of a controller that has the current CIB (engine-measured; ``crmadmin -S`` of the own node)."""

MOVER_HOLD_SECONDS = 45.0
"""How long the mover of a guarded window holds another node that it does not see (a cluster of two). Longer
than two healthy nodes needed to see each other again after a blackout (33 s in the slowest run measured),
and shorter than the 60 s of plain running after which the other one's killing gate stops this node: where
they are really cut off, one of them acts first."""
MET_SECONDS = 4.0
"""The copy of the CIB of a node that had stood still was the current one 0.2 to 0.8 s after its ring had met
the others' (6 of 6, three nodes on two processors); its controller says S_NOT_DC, or S_IDLE, before that.
Shorter than a hold is polled for, and the hosts are asked meanwhile: one call is enough for a yes."""
JUST_BACK_SECONDS = 30
"""How long a member is held that has come back. Longer than the fencer waits for a gate whose node has died
(its time-out and a fifth of it, 24 s): what was asked for before the return then goes to another node's."""
CLOCKS = "clocks"
"""What is noted in place of a host where only a wait for clocks speaks for it."""
SKIPPED = "skipped"
"""How the record's word on a host begins that was not saved."""


def decide(view: GateView) -> Answer:
    """Answer for one view. Total: every view has an answer."""
    rules = (
        _facility,
        _joined,
        _record,
        _levels,
        _settling,
        _window,
        _elsewhere,
        _astray,
        trusting,
        _released,
    )
    for ask in rules:
        answer = ask(view)
        if answer is not None:
            return answer
    return Answer(True, Rule.CLEAR, _why_clear(view), hosts_matter=True)


def _why_clear(view: GateView) -> str:
    if view.record is None or not view.record.holds or view.record.mode is Mode.GUARDED:
        helps = "" if view.record is not None and view.record.open else may_fail(view)
        return f"nothing speaks against fencing {view.target}{helps}"
    where = f"no host runs {view.target}" if gone(view) else f"every host shows {view.target} on {view.aim}"
    return f"the lease is over and {where}"


def _facility(view: GateView) -> Answer | None:
    if not view.facility_stopped:
        return None
    return hold(
        Rule.FACILITY_STOPPED,
        f"the shutdown facility of {view.executor} is stopped (sdtool -b starts it)",
        final=True,
    )


def _joined(view: GateView) -> Answer | None:
    if view.controller_state not in JOINED_STATES:
        state = view.controller_state or "no answer"
        return hold(
            Rule.NOT_JOINED, f"the controller of {view.executor} has not joined the cluster ({state})"
        )
    since = view.seconds_since_met
    if since is None or since >= MET_SECONDS:
        return None
    return hold(
        Rule.NOT_JOINED,
        f"{view.executor} has met other nodes less than {MET_SECONDS:.0f} s ago: its copy of the "
        f"configuration may be old ({MET_SECONDS - since:.1f} s left)",
        hosts_matter=True,
    )


def _record(view: GateView) -> Answer | None:
    if view.record is not None:
        return None
    why = view.record_error or "the CIB has no record"
    return hold(Rule.RECORD_UNKNOWN, f"{why}: whether a window is open cannot be known")


def _levels(view: GateView) -> Answer | None:
    if not view.levels:
        return hold(
            Rule.LEVELS_UNSAFE,
            f"{view.target} has no fencing level [gate, device]: a yes would count as a kill",
            final=True,
        )
    for level in view.levels:
        if not level.guarded:
            shape = ", ".join(f"{device.id} ({device.agent or 'missing'})" for device in level.devices)
            return hold(
                Rule.LEVELS_UNSAFE,
                f"level {level.index} of {view.target} is not [gate, real device]: [{shape}]",
                final=True,
            )
    return None


def _settling(view: GateView) -> Answer | None:
    record = view.record
    if record is None:
        return None
    back = _back(view)
    if record.holds and record.mode is Mode.GUARDED:
        return _just_back(view) if view.target != record.mover else None
    if record.holds:
        if back and _lease_left_seconds(record, view) > 0:
            return hold(
                Rule.TARGET_BACK, f"a window is open and {view.target} is in the membership", final=True
            )
    elif _unsettled(view, view.target) or (back and _just_closed(view)):
        # Whoever the window was for: it held the fencing of everybody. A node that was lost in it and has
        # booted meanwhile would be killed by the one that was asked for then.
        left = SETTLE_SECONDS - view.seconds_since_epoch_seen
        what = "fencing was armed again" if record.open else "a window closed"
        return hold(
            Rule.TARGET_BACK if back else Rule.SETTLING,
            f"{what} less than {SETTLE_SECONDS} s ago ({left:.0f} s left)"
            + (f", and {view.target} is a member" if back else f", and {view.target} was moved in it"),
            final=back,
        )
    elif _unsettled(view, view.executor):
        return hold(Rule.EXECUTOR_MOVING, f"{view.executor} itself has just come out of a window")
    return None if record.holds else _just_back(view)


def _just_back(view: GateView) -> Answer | None:
    """A member that came back a moment ago, window or not: the fencing that was asked for while it was away
    may still be under way, held until now by another node's gate, of which this node knows nothing. Who is
    fenced for a new reason (`on-fail=fence`) waits for the rest of the time."""
    since = view.seconds_since_return
    if not _back(view) or since is None or since >= JUST_BACK_SECONDS:
        return None
    return hold(
        Rule.TARGET_BACK,
        f"{view.target} is a member again, and came back less than {JUST_BACK_SECONDS} s ago "
        f"({JUST_BACK_SECONDS - since:.0f} s left)",
        final=True,
    )


def _back(view: GateView) -> bool:
    return view.membership is not None and view.target in view.membership


def _lease_left_seconds(record: Record, view: GateView) -> float:
    return record.lease_seconds - view.seconds_since_window_seen


def _unsettled(view: GateView, node: str) -> bool:
    return view.record is not None and node in view.record.settle and _just_closed(view)


def _just_closed(view: GateView) -> bool:
    """Whether a window closed less than the settling time ago: each leaves the nodes that settle. While it
    waits for clocks too, from its proof on: each later write of its record begins the time anew."""
    settle = view.record.settle if view.record is not None else ()
    return bool(settle) and view.seconds_since_epoch_seen < SETTLE_SECONDS


def _window(view: GateView) -> Answer | None:
    record = view.record
    if record is None or not record.holds:
        return None
    left = _lease_left_seconds(record, view)
    if record.mode is Mode.GUARDED:
        if view.target != record.mover:
            return _by_mover(record, view)
        if gone(view) and not _back(view):
            return None
        if left > 0:
            return _not_ours(record, view)
    back = _back(view)
    settles = JUST_BACK_SECONDS if back else SETTLE_SECONDS
    if view.seconds_since_return is not None and view.seconds_since_return < settles:
        # At once: four levels of one request, polled for 5 s each, would outlast the settling.
        return hold(
            Rule.TARGET_BACK if back else Rule.SETTLING,
            f"{view.target} came back less than {settles} s ago",
            final=back,
        )
    if left > 0:
        return hold(
            Rule.FROZEN,
            f"a window is {record.phase.value} (since epoch {record.window}, {left:.0f} s of lease left)",
        )
    return _after_lease(record, view)


def _not_ours(record: Record, view: GateView) -> Answer:
    """The mover of a guarded window is its killing gate's. An ordinary gate is asked by a fencer that is just
    starting, while the window is not whole yet or no more (a command may have died there), or by somebody's
    hand in the topology: then what is on no host is let through, and the lease ends this hold."""
    return hold(
        Rule.GUARDED,
        f"a guarded window is {record.phase.value} for {view.target}: only its killing gate may act while a "
        "host may have it",
        hosts_matter=True,
    )


def _by_mover(record: Record, view: GateView) -> Answer | None:
    """Every node but the mover of a guarded window is fenced as always, but not by the mover."""
    if (stale := _stale_map(record, view)) is not None:
        return stale
    if view.executor != record.mover or _never_open(record):
        return None
    # What a node believes of others after it has stood still is from before. It is banned from their devices,
    # except in a cluster of two.
    if _back(view):
        # At once: four levels of a request from that time, polled for 5 s each, would outlast any settling.
        return hold(
            Rule.TARGET_BACK,
            f"{view.executor} is itself the node that is being moved, and {view.target} is in the membership",
            final=True,
        )
    if gone(view):
        return None  # what the hosts say now is no belief from before, and nothing is left that could be hit
    if not plainly_on(view.mover_hosts):
        shown = ", ".join(f"{answer.host}: {answer.state.value}" for answer in view.mover_hosts)
        return hold(
            Rule.EXECUTOR_MOVING,
            f"{view.executor} is itself the node that is being moved, and not every host shows it plainly "
            f"running in one place ({shown or 'no host answered'})",
            hosts_matter=True,
        )
    held = view.seconds_held_as_mover
    if held is None or held < MOVER_HOLD_SECONDS:
        left = MOVER_HOLD_SECONDS - (held or 0.0)
        return hold(
            Rule.EXECUTOR_MOVING,
            f"{view.executor} is itself the node that is being moved: it holds for {left:.0f} s more",
            hosts_matter=True,
        )
    return None


def _stale_map(record: Record, view: GateView) -> Answer | None:
    """Whether the service processor that would kill this node takes part in the mover's migration.

    Until its host has saved, it may hit ANOTHER guest under the name that it is told (as in `_after_lease`).
    Taking part: the source, the target that the operator named, and wherever the hosts show the mover; where
    the window was opened for every node, and only armed for this one, any host.
    """
    here = {answer.host for answer in view.mover_hosts if not answer.state.proves_not_here}
    silent = {answer.host for answer in view.mover_hosts if answer.state is GuestState.SILENT}
    part = {record.source, record.target} | (here - silent)
    anywhere = record.armed is Armed.FOR_EVERY_NODE
    if not view.aim or not (anywhere or view.aim in part) or _map_is_sure(record, view):
        return None
    if gone(view):
        return None  # nothing is left that a name could hit; the device still wants its own proof
    return hold(
        Rule.UNSAVED,
        f"{view.target} is on {view.aim}, which "
        + ("" if anywhere else f"takes part in the migration of {record.mover} and ")
        + "has not saved its configuration yet: its service processor may hit another guest; close the "
        "window first",
        hosts_matter=True,
    )


def plainly_on(answers: Sequence[HostAnswer]) -> str:
    """The one host on which a guest plainly runs, while no other has it; empty: nothing so plain."""
    running = [answer.host for answer in answers if answer.state is GuestState.RUNNING]
    others = [answer.state for answer in answers if answer.state is not GuestState.RUNNING]
    return running[0] if len(running) == 1 and all(map(_not_here, others)) else ""


def _after_lease(record: Record, view: GateView) -> Answer | None:
    """A frozen hold ends with its lease. Then a device may be used where it is plain that it hits its target.

    Between the start of a migration and the saved configuration a service processor, of the source as of
    the destination, may map a name to ANOTHER guest (SPARC M12/M10 notes C120-0105, 3.1.5). Where guests
    were meanwhile nobody has seen, so that any host may be one of the two until it has saved in this window.
    """
    # Nothing is left that a name could hit; the device behind us still wants its own proof.
    if _at_aim(view, _not_here) and gone(view):
        return None
    if not _at_aim(view, _running):
        shown = (
            ", ".join(f"{answer.host}: {answer.state.value}" for answer in view.hosts) or "no host answered"
        )
        return hold(
            Rule.UNSAVED,
            f"the lease is over, but hosts do not show {view.target} plainly on {view.aim or 'its host'} "
            f"({shown}); close the window with clovmmigrate -u",
            hosts_matter=True,
        )
    if _map_is_sure(record, view):
        return None
    return hold(
        Rule.UNSAVED,
        f"the lease is over, but {view.aim} has not saved its configuration in this window: its service "
        f"processor may hit another guest; close the window with: {_how_to_close(record, view)}",
        hosts_matter=True,
    )


def _how_to_close(record: Record, view: GateView) -> str:
    if record.mover in ("", view.target):
        return f"clovmmigrate -u {view.hosts[0].guest} {view.aim}"
    return f"clovmmigrate -u GUEST HOST (the guest of {record.mover}, and where it is)"


def _map_is_sure(record: Record, view: GateView) -> bool:
    """Whether the aimed host's service processor maps names rightly, by what the record knows."""
    if _never_open(record) or not view.saves:
        return True
    saved = record.saved.get(view.aim, "")
    return bool(saved) and not saved.startswith(SKIPPED)


def _never_open(record: Record) -> bool:
    """Nobody was told to migrate: an operator is told when every member has seen the open window."""
    return record.phase is Phase.OPENING or record.abort


def _at_aim(view: GateView, wanted: Callable[[GuestState], bool]) -> bool:
    """Whether the one answer of the aimed host is as wanted, and every other host has the target not."""
    here = [answer.state for answer in view.hosts if answer.host == view.aim]
    others = [answer.state for answer in view.hosts if answer.host != view.aim]
    return len(here) == 1 and wanted(here[0]) and all(map(_not_here, others))


def _running(state: GuestState) -> bool:
    return state is GuestState.RUNNING


def _not_here(state: GuestState) -> bool:
    return state.proves_not_here


def _elsewhere(view: GateView) -> Answer | None:
    found = on_its_way(view.hosts, view.aim)
    if found is None:
        return None
    shows = f"{found.host} shows {found.guest} {found.state.value}"
    if found.state in MOVING:
        return hold(Rule.ELSEWHERE, f"{shows}: it is being moved", hosts_matter=True)
    return hold(
        Rule.ELSEWHERE,
        f"{shows}, but the devices of {view.target} aim at {view.aim}; "
        f"repair with: clovmmigrate -u {found.guest} {found.host}",
        hosts_matter=True,
    )


def _astray(view: GateView) -> Answer | None:
    """A node that was moved without a word wakes up alone, and believes that it is the other one that is lost
    (two nodes: with more it has no quorum). What hosts say of itself tells it; its clocks may not. Nor do the
    hosts where such a move was called off: while clocks are waited for, which is when guests move, it holds
    whatever they say."""
    where, held = astray(view), view.seconds_held_as_mover or 0.0
    if not where or gone(view) or held >= MOVER_HOLD_SECONDS:
        return None
    found = on_its_way(view.own_hosts, view.own_aim)
    if found is not None:
        told = f"{found.host} shows its guest {found.guest} {found.state.value}, and its devices aim at "
        told += view.own_aim or "no host"
    else:
        told = "a window still waits for the clocks to agree"
    return hold(
        Rule.EXECUTOR_MOVING,
        f"{view.executor} sees no other node, and may itself be the one that stood still: {told}; "
        f"it holds for {MOVER_HOLD_SECONDS - held:.0f} s more",
        hosts_matter=True,
    )


def astray(view: GateView) -> str:
    """What speaks for this node having stood still itself: the host that shows its own guest on its way or
    elsewhere, or a window that waits for clocks; empty: nothing, or that does not count."""
    if not view.alone:
        return ""
    found = on_its_way(view.own_hosts, view.own_aim)
    if found is not None:
        return found.host
    return CLOCKS if view.record is not None and view.record.waits_for_clocks else ""


def _released(view: GateView) -> Answer | None:
    """A hold that ends while the target comes back: the fencer asks again at once and kills a healthy node.

    The hosts show it running again some seconds before it is a member.
    """
    record = view.record
    others = record is not None and record.mode is Mode.GUARDED and record.mover != view.target
    in_window = record is not None and record.holds and not others
    since = view.seconds_since_held
    if record is not None and in_window:
        past = -_lease_left_seconds(record, view)
        since = past if since is None else min(since, past)
    if since is None or since >= RELEASE_SECONDS:
        return None
    left = f"{RELEASE_SECONDS - since:.0f} s left"
    if _back(view):
        return hold(
            Rule.TARGET_BACK,
            f"{view.target} was held less than {RELEASE_SECONDS} s ago and is a member again ({left})",
            final=True,
        )
    if gone(view):
        return None
    return hold(
        Rule.SETTLING,
        f"the reason to hold {view.target} ended less than {RELEASE_SECONDS} s ago ({left})",
        hosts_matter=True,
    )


__all__ = ["JOINED_STATES", "MOVER_HOLD_SECONDS", "Answer", "GateView", "Rule", "decide", "plainly_on"]
