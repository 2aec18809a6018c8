"""What the nodes do by themselves about a window that stays open: remind, close it, or arm.

The lease counts from when each node first saw the window, by a clock that runs through suspend and knows no
steps; after a reboot it starts anew, so a node may be late, never early. The mover never closes its own
window: it may be the one that stands still. The others act one after the other, in the order of their names,
so that one of them does it and the next only if that one did not. Closing comes first; what cannot be closed
is armed where core/arming.py allows it, and else alarmed.

Pure: the view says what is known, the answer what to do now. Asked again on every look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from standfast.core import arming
from standfast.core.arming import Arm
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Armed, Record
from standfast.core.steps import CloseGoal, HostEntry, NodeAim

REMIND_PERCENT = (50, 80, 95)
STAGGER_SECONDS = 30.0
"""How much later than the node before it in the order a node acts; more than a close takes."""
RETRY_SECONDS = 120.0
"""Between two attempts of one node."""


@dataclass(frozen=True)
class LeaseView:
    """What one node knows. Durations in seconds by CLOCK_BOOTTIME."""

    me: str
    members: frozenset[str]
    record: Record
    seconds_since_window_seen: float
    reminded_percent: int = 0
    """The highest mark that this node has reminded of in this window with this lease."""
    aims: Mapping[str, NodeAim] = field(default_factory=dict)
    where: Mapping[str, tuple[HostAnswer, ...]] | None = None
    """Node -> what every host says of its guest; None: not asked yet in this look."""
    seconds_since_attempt: float | None = None
    """Since this node last tried to close this window by itself; None: it has not."""
    refusal: str = ""
    """Why that attempt did not close it."""
    quorate: bool = False
    """This node's membership has quorum."""
    hosts: Mapping[str, HostEntry] = field(default_factory=dict)
    absent_seconds: Mapping[str, float] = field(default_factory=dict)
    """Node -> for how long this node has seen it absent since the lease was over (`Sightings.absent`)."""
    seconds_since_arming: float | None = None
    """Since this node last tried to arm this window; None: it has not."""
    arm_refusal: str = ""
    """Why that attempt did not arm it."""
    clocks: str = ""
    """What is in the way where only clocks are (`clock_gate.in_the_way`)."""
    not_killing: tuple[str, ...] = ()
    """Armed: members whose fencer has not reported that it would use the killing gate alone."""


@dataclass(frozen=True)
class Nothing:
    """Nothing to do."""


@dataclass(frozen=True)
class Remind:
    """Tell the log and the hook program: so much of the lease is over."""

    percent: int
    seconds_left: float


@dataclass(frozen=True)
class AskHosts:
    """The lease is over and it is this node's turn: where is every guest?"""


@dataclass(frozen=True)
class Close:
    """Close the window, as an operator would."""

    goal: CloseGoal


@dataclass(frozen=True)
class Over:
    """The lease is over and the window stays: alarm each minute. `why`: what is in the way."""

    seconds_over: float
    why: str
    next_command: str
    tried: bool = False
    """This look counts as an attempt: the next one is made after the time between two."""


LeaseAction = Nothing | Remind | AskHosts | Close | Arm | Over


def decide(view: LeaseView) -> LeaseAction:
    """What this node does now."""
    record = view.record
    if not record.open or record.lease_seconds <= 0:
        return Nothing()
    over = view.seconds_since_window_seen - record.lease_seconds
    if over < 0:
        return _remind(view)
    if view.me not in view.members:
        return Over(over, f"{view.me} is not in the membership", _typed(view))
    if over < _turn_seconds(view):
        return Over(over, "another node is about to close it", _typed(view))
    since, refusal = view.seconds_since_attempt, view.refusal
    waits = since is not None and since < RETRY_SECONDS
    if view.me == record.mover:
        waits, refusal = True, f"{view.me} is the node that moves and never closes its own window"
    if waits and not refusal:
        return Over(over, "an attempt to close it is under way", _typed(view))
    node, unarmed = arming.whom(_arm_view(view))
    if waits and not node:
        return Over(over, _told(view, refusal, unarmed), _typed(view))
    if view.where is None:
        return AskHosts()
    goal, why = _goal(view)
    if node and (goal is None or refusal):
        arm, unarmed = arming.decide(_arm_view(view), node, view.where)
        tried = view.seconds_since_arming
        if arm is not None and (tried is None or tried >= RETRY_SECONDS):
            return arm
        unarmed = unarmed or view.arm_refusal or "an attempt to arm it is under way"
    if goal is None or waits:
        return Over(over, _told(view, refusal if waits else why, unarmed), _typed(view))
    if view.clocks and view.aims[goal.node].host == goal.target:
        # A command would wait for them for a minute, in the way of the operator's.
        return Over(over, view.clocks, _typed(view), tried=True)
    return Close(goal)


def _arm_view(view: LeaseView) -> arming.ArmView:
    return arming.ArmView(
        view.me, view.members, view.record, view.quorate, view.aims, view.hosts, view.absent_seconds
    )


def _told(view: LeaseView, why: str, unarmed: str) -> str:
    """What is in the way of a close, and whether it is armed, or why not. Where nobody is held any more the
    alarm itself says that."""
    if view.record.proven:
        return why
    if view.record.armed is Armed.NO:
        return f"{why}; not armed: {unarmed}" if unarmed else why
    lack = f", but not yet in the fencer of {', '.join(view.not_killing)}" if view.not_killing else ""
    return f"{why}; armed: {view.record.mover} is fenced by its killing gate{lack}"


def _remind(view: LeaseView) -> Remind | Nothing:
    lease = view.record.lease_seconds
    due = [p for p in REMIND_PERCENT if view.seconds_since_window_seen >= lease * p / 100]
    if not due or due[-1] <= view.reminded_percent:
        return Nothing()
    return Remind(due[-1], lease - view.seconds_since_window_seen)


def _turn_seconds(view: LeaseView) -> float:
    """How long after the end of the lease this node's turn comes; the mover is last, and only arms."""
    order = sorted(view.members - {view.record.mover})
    return (order.index(view.me) if view.me in order else len(order)) * STAGGER_SECONDS


def _goal(view: LeaseView) -> tuple[CloseGoal | None, str]:
    """Whose close it is, and to which host; or why nobody can say. Never while anything is on its way."""
    moved: dict[str, str] = {}
    for node, aim in sorted(view.aims.items()):
        answers = (view.where or {}).get(node, ())
        moving = [a for a in answers if a.state in (GuestState.MIGRATING_OUT, GuestState.INCOMING)]
        if moving:
            return None, f"{aim.guest} is being migrated ({moving[0]})"
        running = sorted({a.host for a in answers if a.state is GuestState.RUNNING})
        if len(running) > 1:
            return None, f"{aim.guest} runs on {' and on '.join(running)}"
        if running and running[0] != aim.host:
            moved[node] = running[0]
        if not running and node == view.record.mover:
            return None, f"no control domain shows {aim.guest} running"
    others = sorted(set(moved) - {view.record.mover})
    if view.record.mover and others:
        return None, f"{view.aims[others[0]].guest} was moved too, to {moved[others[0]]}"
    if len(moved) > 1:
        return None, "more than one guest was moved: " + ", ".join(view.aims[node].guest for node in others)
    node = view.record.mover or next(iter(moved), min(view.aims, default=""))
    if node not in view.aims:
        return None, f"{node or 'no node'} has no shutdown agents"
    aim = view.aims[node]
    target = moved.get(node, aim.host)
    if not target:
        return None, f"the agents of {node} aim at no control domain of clovmmigrate.conf"
    return CloseGoal(node, aim.guest, target, lease_seconds=view.record.lease_seconds), ""


def _typed(view: LeaseView) -> str:
    aim = view.aims.get(view.record.mover)
    return f"clovmmigrate -u {aim.guest if aim else 'source-ldom'} target-host"
