"""The gate: may the real fence device behind it be used now?

One pure function over one view. The rules, in the order in which they are asked (docs/design.md, section 5):

==================  ==========================================================================================
FACILITY_STOPPED    this node's shutdown facility was stopped by ``sdtool -e``: another node must do it
NOT_JOINED          this boot's controller has not joined: a starting fencer works from the OLD CIB for 1-2 s
RECORD_UNKNOWN      the record is missing, damaged or of an unknown format
LEVELS_UNSAFE       a level of the target is not ``[gate, real ...]``: our yes alone would be a success
TARGET_BACK         window or settling, and the target is a member again: the kill would hit a healthy node
SETTLING            within 15 s of the target's return or of the end of its window
EXECUTOR_MOVING     this node itself is settling: what it believes about others is stale
FROZEN              the window holds everybody and its lease has not ended
UNSAVED             lease over, but the hosts do not show the target plainly where its devices aim, or nowhere
ELSEWHERE           a host shows the target elsewhere, or on its way: its devices aim at the wrong place
CLEAR               nothing speaks against it
==================  ==========================================================================================

A hold says why in one sentence. Silence of a host is no evidence outside a window: without positive evidence
the gate is never less available than plain Pacemaker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from standfast.core.evidence import GuestState, HostAnswer, gone_everywhere
from standfast.core.names import SETTLE_SECONDS
from standfast.core.record import Phase, Record
from standfast.core.topology import Level

JOINED_STATES = frozenset({"S_IDLE", "S_NOT_DC", "S_POLICY_ENGINE", "S_TRANSITION_ENGINE"})
"""States of a controller that has the current CIB (engine-measured; ``crmadmin -S`` of the own node)."""

MOVING = frozenset({GuestState.MIGRATING_OUT, GuestState.INCOMING, GuestState.ERROR})


class Rule(Enum):
    """Which rule answered; the names are those of the table above."""

    FACILITY_STOPPED = "facility-stopped"
    NOT_JOINED = "not-joined"
    RECORD_UNKNOWN = "record-unknown"
    LEVELS_UNSAFE = "levels-unsafe"
    TARGET_BACK = "target-back"
    SETTLING = "settling"
    EXECUTOR_MOVING = "executor-moving"
    FROZEN = "frozen"
    UNSAVED = "unsaved"
    ELSEWHERE = "elsewhere"
    CLEAR = "clear"


@dataclass(frozen=True)
class GateView:
    """What the gate can know. Durations in seconds by CLOCK_BOOTTIME; None = not known."""

    target: str
    executor: str
    controller_state: str
    record: Record | None
    record_error: str
    levels: tuple[Level, ...]
    membership: frozenset[str] | None
    seconds_since_epoch_seen: float = 0.0
    """Since this node first saw the record's epoch."""
    seconds_since_window_seen: float = 0.0
    """Since this node first saw the record's window."""
    seconds_since_return: float | None = None
    """Since the target came back into the membership; None: it was not seen to return."""
    facility_stopped: bool = False
    aim: str = ""
    """Control domain at which the target's devices aim; empty: not known."""
    hosts: tuple[HostAnswer, ...] = field(default=())
    hosts_before: tuple[HostAnswer, ...] = field(default=())
    """The round of answers before, in this same call: one round alone proves no absence."""


@dataclass(frozen=True)
class Answer:
    """The gate's answer. `final`: waiting longer cannot change it, answer at once."""

    allow: bool
    rule: Rule
    reason: str
    final: bool = True


def decide(view: GateView) -> Answer:
    """Answer for one view. Total: every view has an answer."""
    for ask in (_facility, _joined, _record, _levels, _settling, _window, _elsewhere):
        answer = ask(view)
        if answer is not None:
            return answer
    return Answer(True, Rule.CLEAR, f"nothing speaks against fencing {view.target}")


def _hold(rule: Rule, reason: str, *, final: bool = False) -> Answer:
    return Answer(False, rule, reason, final)


def _facility(view: GateView) -> Answer | None:
    if not view.facility_stopped:
        return None
    return _hold(
        Rule.FACILITY_STOPPED,
        f"the shutdown facility of {view.executor} is stopped (sdtool -b starts it)",
        final=True,
    )


def _joined(view: GateView) -> Answer | None:
    if view.controller_state in JOINED_STATES:
        return None
    state = view.controller_state or "no answer"
    return _hold(Rule.NOT_JOINED, f"the controller of {view.executor} has not joined the cluster ({state})")


def _record(view: GateView) -> Answer | None:
    if view.record is not None:
        return None
    why = view.record_error or "the CIB has no record"
    return _hold(Rule.RECORD_UNKNOWN, f"{why}: whether a window is open cannot be known")


def _levels(view: GateView) -> Answer | None:
    if not view.levels:
        return _hold(
            Rule.LEVELS_UNSAFE,
            f"{view.target} has no fencing level [gate, device]: a yes would count as a kill",
            final=True,
        )
    for level in view.levels:
        if not level.guarded:
            shape = ", ".join(f"{device.id} ({device.agent or 'missing'})" for device in level.devices)
            return _hold(
                Rule.LEVELS_UNSAFE,
                f"level {level.index} of {view.target} is not [gate, real device]: [{shape}]",
                final=True,
            )
    return None


def _settling(view: GateView) -> Answer | None:
    record = view.record
    if record is None:
        return None
    back = view.membership is not None and view.target in view.membership
    if record.open:
        if back:
            return _hold(
                Rule.TARGET_BACK, f"a window is open and {view.target} is in the membership", final=True
            )
    elif _unsettled(view, view.target):
        left = SETTLE_SECONDS - view.seconds_since_epoch_seen
        return _hold(
            Rule.TARGET_BACK if back else Rule.SETTLING,
            f"the window of {view.target} closed less than {SETTLE_SECONDS} s ago ({left:.0f} s left)",
            final=back,
        )
    elif _unsettled(view, view.executor):
        return _hold(Rule.EXECUTOR_MOVING, f"{view.executor} itself has just come out of a window")
    return None


def _unsettled(view: GateView, node: str) -> bool:
    return (
        view.record is not None
        and node in view.record.settle
        and view.seconds_since_epoch_seen < SETTLE_SECONDS
    )


def _window(view: GateView) -> Answer | None:
    record = view.record
    if record is None or record.phase is Phase.IDLE:
        return None
    if view.seconds_since_return is not None and view.seconds_since_return < SETTLE_SECONDS:
        return _hold(Rule.SETTLING, f"{view.target} came back less than {SETTLE_SECONDS} s ago")
    left = record.lease_seconds - view.seconds_since_window_seen
    if left > 0:
        return _hold(
            Rule.FROZEN,
            f"a window is {record.phase.value} (since epoch {record.window}, {left:.0f} s of lease left)",
        )
    return _after_lease(view)


def _after_lease(view: GateView) -> Answer | None:
    """A hold ends with its lease. Then a device may be used where the hosts show that it hits its target.

    Between the start of a migration and the saved configuration a service processor may map the name to
    ANOTHER guest (SPARC M12/M10 notes C120-0105, 3.1.5).
    """
    here = [answer for answer in view.hosts if answer.host == view.aim]
    others = [answer for answer in view.hosts if answer.host != view.aim]
    if len(here) == 1 and all(answer.state.proves_not_here for answer in others):
        if here[0].state is GuestState.RUNNING:
            return Answer(
                True, Rule.CLEAR, f"the lease is over and every host shows {view.target} on {view.aim}"
            )
        names = [answer.host for answer in view.hosts]
        if gone_everywhere(names, [view.hosts_before, view.hosts]):
            # Nothing is left that a name could hit; the device behind us still wants its own proof.
            return Answer(True, Rule.CLEAR, f"the lease is over and no host runs {view.target}")
    shown = ", ".join(f"{answer.host}: {answer.state.value}" for answer in view.hosts) or "no host answered"
    return _hold(
        Rule.UNSAVED,
        f"the lease is over, but hosts do not show {view.target} plainly on {view.aim or 'its host'} "
        f"({shown}); close the window with clovmmigrate -u",
    )


def _elsewhere(view: GateView) -> Answer | None:
    for answer in view.hosts:
        if answer.state in MOVING:
            return _hold(
                Rule.ELSEWHERE, f"{answer.host} shows {answer.guest} {answer.state.value}: it is being moved"
            )
        if view.aim and answer.host != view.aim and answer.state.is_present:
            return _hold(
                Rule.ELSEWHERE,
                f"{answer.host} shows {answer.guest} {answer.state.value}, but the devices of {view.target} "
                f"aim at {view.aim}; repair with: clovmmigrate -u {answer.guest} {answer.host}",
            )
    return None
