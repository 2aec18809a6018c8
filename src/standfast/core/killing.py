"""The killing gate's decision: the next step toward "gone", asked anew after each observation.

In a guarded window this device stands alone in the mover's one fencing level, so its yes IS the fencing
success. Rules (docs/design.md, section 5):

* Nothing is believed but what this call has seen; what a former call did or was told counts for nothing.
* Gone means: source asked first, then target, then every other host, each question begun after the previous
  answer, then the whole round again with the same result and no migration anywhere, all of it after the last
  act. A round alone proves nothing: a guest can move from a host not yet asked to one already asked.
* Before any act every host has been seen since the last act, and the membership is looked at each time.
* The incoming copy and the target's are killed before the source's: a source killed first leaves the other
  copy to come alive.
* A host that is silent is dead only by its own power, or by a person's recorded word, which the host's own
  later answer overtakes. Where one is neither,
  nothing is killed either: without a proof a kill gains nothing.
* A cancelled migration may let a healthy guest run on. So nothing is killed for a minute after it, and
  what runs then has the minute of every guest that runs again. It counts from the first cancel of this
  absence, whichever call gave that: the order is repeated meanwhile, the minute is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from standfast.core import heartbeat
from standfast.core.evidence import MOVING, GuestState, HostAnswer
from standfast.core.gate import JOINED_STATES, plainly_on
from standfast.core.names import RELEASE_SECONDS, SETTLE_SECONDS
from standfast.core.record import Armed, Mode, Record

RUNNING_LIMIT_SECONDS = float(RELEASE_SECONDS)
"""Seen running plainly for so long without a break, and still out of the membership: it is not coming back by
itself. It counts from when it runs again, not from the drop: after a long blackout a healthy guest runs some
tenths of a second, or half a minute, before its node is a member."""
CANCEL_GRACE_SECONDS = float(RELEASE_SECONDS)
"""So long after the first cancel nothing is killed that may run on because of it."""
PLAIN_MARGIN_SECONDS = 5.0
"""How much longer than the heartbeat timeout before its drop a guest must have been seen running."""
ROUND_PAUSE_SECONDS = 1.0
"""Between the two rounds, so that a list made a little before the question is not counted twice."""
GAP_LIMIT_SECONDS = 10.0
"""From the begin of one question to the end of the next. One whole migration in between is seen by the second
round; two, there and back, must not fit. On an emulated node two questions by ssh and a look at the engine
take 4 to 7 s."""
FRESH_SECONDS = 3.0
"""An answer older than this decides nothing: the round is asked again. The look at the engine that follows it
takes 0.1 s, and 1 to 2 s on an emulated node."""
CALL_LIMIT_SECONDS = 90.0
"""One whole call; the device's time-out in the cluster has to exceed it."""
KILLS_LIMIT = 2
"""Kills of the copy on one host in one call."""

_WAITED_FOR = MOVING | {GuestState.PAUSED}


@dataclass(frozen=True)
class Asked:
    """A host's answer. Times in seconds of this call. `identity`: UUID of the copy, empty if not told."""

    host: str
    state: GuestState
    begun_seconds: float
    ended_seconds: float
    identity: str = ""
    job: bool = False
    """The host reports a migration of the guest, whatever its state says."""
    powered_off: bool | None = None
    """What the host's own power agent said after a silence; None: not asked yet, or no answer."""
    power_asked: bool = False


@dataclass(frozen=True)
class Acted:
    """An act that was begun. Whether it worked is not noted: only what hosts show afterwards counts."""

    host: str
    kill: bool
    """True: the copy was to be killed; False: its migration was to be cancelled."""


Event = Asked | Acted


@dataclass(frozen=True)
class Ask:
    """Ask this host, not before `not_before_seconds` of this call."""

    host: str
    not_before_seconds: float = 0.0


@dataclass(frozen=True)
class AskPower:
    """Ask the power agent of this silent host, not before `not_before_seconds` of this call; nothing is
    switched. `power_answered` is the event of its answer."""

    host: str
    not_before_seconds: float = 0.0


@dataclass(frozen=True)
class CancelJob:
    """Begin to cancel the migration; the end is not waited for (up to 7 minutes)."""

    host: str


@dataclass(frozen=True)
class Kill:
    """Stop the copy on this host by force."""

    host: str


@dataclass(frozen=True)
class Hold:
    """No. `final`: waiting longer in this call cannot change it."""

    reason: str
    final: bool = False


@dataclass(frozen=True)
class Proven:
    """No copy that can run is left anywhere."""

    reason: str


Step = Ask | AskPower | CancelJob | Kill | Hold | Proven


@dataclass(frozen=True)
class KillView:
    """What one call knows. Durations in seconds; None = not known."""

    target: str
    guest: str
    executor: str
    controller_state: str
    record: Record | None
    record_error: str
    membership: frozenset[str] | None
    hosts: tuple[str, ...]
    """Every host of the configuration file."""
    now_seconds: float
    """Since the begin of this call."""
    seconds_since_drop: float | None
    """For how long this node, in a membership that has quorum, has seen the target outside of it."""
    heard: frozenset[str] = frozenset()
    """Hosts that this node has heard since a person called them dead: that word counts no more."""
    seconds_since_return: float | None = None
    identity: str = ""
    """The guest's UUID where it is known."""
    seconds_plain: float | None = None
    """For how long this node has now seen the guest, in every second, running plainly on one and the same
    host; None: it does not."""
    seconds_since_cancel: float | None = None
    """Since this node first cancelled a migration of the guest in this absence; None: it has not."""
    timeout_seconds: float = 0.0
    """The heartbeat timeout in force: the target stood still, or was cut off, for so long before its drop."""
    events: tuple[Event, ...] = ()
    """What this call has seen and done, in order."""


def power_answered(
    events: Sequence[Event], host: str, off: bool | None, begun_seconds: float, ended_seconds: float
) -> list[Event]:
    """These events with the answer of a power agent: what is known of a host that is off is known from now,
    not from the question that nobody heard."""
    last = events[-1] if events else None
    if isinstance(last, Asked) and last.host == host and not last.power_asked:
        answer = replace(last, power_asked=True, powered_off=off)
        if off:
            answer = replace(answer, begun_seconds=begun_seconds, ended_seconds=ended_seconds)
        return [*events[:-1], answer]
    look = Asked(host, GuestState.SILENT, begun_seconds, ended_seconds, powered_off=off, power_asked=True)
    return [*events, look]


def timeout_seconds(record: Record | None) -> float:
    """The longest heartbeat timeout before the window, or the window's own if longer; 0: not known."""
    if record is None or not record.old:
        return 0.0
    old = max(heartbeat.timeout_ms(dict(beat.runtime)) for beat in record.old.values()) / 1000
    return max(old, float(record.budget_seconds))


def decide(view: KillView) -> Step:
    """The next step. Total: every view has one."""
    refused = _refused(view)
    if refused is not None:
        return refused
    order = _order(view)
    looks = _since_last_act(view)
    if looks and _needs_power(view, looks[-1]):
        return AskPower(looks[-1].host)
    position = len(looks) % len(order)
    if not looks or position:
        return _question(view, order[position])
    last = looks[-len(order) :]
    if all(_gone(view, look) for look in last):
        return _prove(view, order, looks)
    if view.now_seconds - last[-1].ended_seconds > FRESH_SECONDS:
        return _question(view, order[0])
    return _judge(view, last)


def _question(view: KillView, host: str, not_before_seconds: float = 0.0) -> Ask | AskPower:
    """A machine that was off a moment ago is asked for its power only: with the seconds of a question that
    nobody answers a whole migration would fit between this answer and the one before it, in every round."""
    looks = [event for event in view.events if isinstance(event, Asked) and event.host == host]
    off = bool(looks) and looks[-1].state is GuestState.SILENT and looks[-1].powered_off is True
    return AskPower(host, not_before_seconds) if off else Ask(host, not_before_seconds)


def _refused(view: KillView) -> Hold | None:
    """What forbids every act and every yes, whatever hosts say."""
    record = view.record
    if view.controller_state not in JOINED_STATES:
        state = view.controller_state or "no answer"
        return Hold(f"the controller of {view.executor} has not joined the cluster ({state})")
    if record is None:
        return Hold(f"{view.record_error or 'the CIB has no record'}: the window cannot be known")
    if view.executor == record.mover:
        return Hold(f"{view.executor} is itself the node that is being moved", final=True)
    if not record.holds or record.mode is not Mode.GUARDED or record.mover != view.target:
        return Hold(f"there is no guarded window of {view.target}: this device kills only in one")
    if view.membership is None:
        return Hold("the membership cannot be read")
    if view.target in view.membership:
        return Hold(f"{view.target} is in the membership", final=True)
    if view.seconds_since_return is not None and view.seconds_since_return < SETTLE_SECONDS:
        return Hold(f"{view.target} came back less than {SETTLE_SECONDS} s ago", final=True)
    if not view.hosts or not view.guest:
        return Hold(f"guest and hosts of {view.target} are not known", final=True)
    unlisted = {record.source, record.target} - {"", *view.hosts}
    if unlisted or not record.source:
        lacking = ", ".join(sorted(unlisted)) or "the source"
        return Hold(f"{lacking} of the window is not among the hosts of clovmmigrate.conf", final=True)
    if view.now_seconds >= CALL_LIMIT_SECONDS:
        return Hold(f"{view.guest} was not proven gone within {CALL_LIMIT_SECONDS:g} s", final=True)
    return None


def _order(view: KillView) -> tuple[str, ...]:
    assert view.record is not None  # _refused has looked
    first = [name for name in (view.record.source, view.record.target) if name]
    return tuple(dict.fromkeys([*first, *view.hosts]))


def _since_last_act(view: KillView) -> tuple[Asked, ...]:
    looks: list[Asked] = []
    for event in view.events:
        if isinstance(event, Asked):
            looks.append(event)
        else:
            looks.clear()
    return tuple(looks)


def _needs_power(view: KillView, look: Asked) -> bool:
    return look.state is GuestState.SILENT and not look.power_asked and not _confirmed(view, look.host)


def _confirmed(view: KillView, host: str) -> bool:
    return view.record is not None and host in view.record.confirmed and host not in view.heard


def _gone(view: KillView, look: Asked) -> bool:
    if look.state is GuestState.SILENT:
        return look.powered_off is True or _confirmed(view, look.host)
    # A name with another identity is another guest: it is judged, never counted as absence.
    return look.state.proves_not_here and not look.job and not _stranger(view, look)


def _stranger(view: KillView, look: Asked) -> bool:
    known = view.identity or next(
        (
            event.identity
            for event in view.events
            if isinstance(event, Asked) and event.identity and event.state is not GuestState.ABSENT
        ),
        "",
    )
    return bool(known and look.identity and look.identity != known)


def _prove(view: KillView, order: tuple[str, ...], looks: tuple[Asked, ...]) -> Step:
    """Two rounds in a row, one question after the other, the same answers, none of them old."""
    size = len(order)
    again = _question(view, order[0], looks[-1].ended_seconds + ROUND_PAUSE_SECONDS)
    if len(looks) < 2 * size:
        return again
    first, second = looks[-2 * size : -size], looks[-size:]
    both = (*first, *second)
    one_by_one = all(
        before.ended_seconds <= after.begun_seconds
        and after.ended_seconds - before.begun_seconds <= GAP_LIMIT_SECONDS
        for before, after in pairwise(both)
    )
    same = all(
        (a.host, a.state, a.identity, a.powered_off) == (b.host, b.state, b.identity, b.powered_off)
        for a, b in zip(first, second, strict=True)
    )
    paused = second[0].begun_seconds - first[-1].ended_seconds >= ROUND_PAUSE_SECONDS
    in_order = tuple(look.host for look in second) == order
    fresh = view.now_seconds - second[-1].ended_seconds <= FRESH_SECONDS
    if all((one_by_one, same, paused, in_order, fresh, *(_gone(view, look) for look in both))):
        shown = ", ".join(_shown(look) for look in second)
        return Proven(f"{view.guest} is gone: every host said so twice ({shown})")
    return again


def _judge(view: KillView, last: tuple[Asked, ...]) -> Step:
    """One fresh, whole round in which something is left."""
    for look in last:
        if _stranger(view, look):
            return Hold(
                f"{look.host} has another guest under the name {view.guest} ({look.identity}): "
                "nothing is killed by name"
            )
        if look.state is GuestState.SILENT and not _gone(view, look):
            record = view.record
            again = look.host in view.heard or (record is not None and look.host in record.overtaken)
            since = " (it has answered since it was called dead)" if again else ""
            return Hold(
                f"{look.host} is silent{since} and its power is not proven off; if it is dead, type: "
                f"standfast window confirm-dead {view.guest} --host {look.host}"
            )
        if look.state is GuestState.UNKNOWN:
            return Hold(f"the answer of {look.host} about {view.guest} could not be placed")
    left = [look for look in last if not _gone(view, look)]
    return _wait(view, left) or _cancel(view, left) or _grace(view, left) or _kill(view, left)


def _wait(view: KillView, left: list[Asked]) -> Hold | None:
    """Whether what is left may still come back by itself."""
    left = _not_killed(view, left)
    if not left:
        return None
    shown = ", ".join(_shown(look) for look in left)
    dropped = view.seconds_since_drop
    if dropped is None:
        return Hold(f"since when {view.target} is out of the membership is not known ({shown})")
    running = [look for look in left if look.state is GuestState.RUNNING]
    if len(running) > 1 or any(look.job or look.state in _WAITED_FOR for look in left):
        left_seconds = (view.record.hold_limit_seconds if view.record is not None else 0) - dropped
    elif running and not _never_stood_still(view, dropped):
        left_seconds = RUNNING_LIMIT_SECONDS - (view.seconds_plain or 0.0)
    else:
        return None  # crashed, or it hangs: it comes back by no waiting
    if left_seconds <= 0:
        return None
    return Hold(f"{view.guest} may come back ({shown}; {left_seconds:.0f} s left)")


def _never_stood_still(view: KillView, dropped_seconds: float) -> bool:
    """Whether no blackout can explain the drop.

    One that drops a node lasts as long as the heartbeat timeout and ends before the drop or after it; a guest
    that was seen running in every second since before it began has not stood still. It is cut off, or hangs.
    In a window that was armed at the end of its lease nobody looked each second when it was dropped.
    """
    if view.record is not None and view.record.armed is not Armed.NO:
        return False
    needed = dropped_seconds + view.timeout_seconds + PLAIN_MARGIN_SECONDS
    return view.timeout_seconds > 0 and view.seconds_plain is not None and view.seconds_plain >= needed


def _not_killed(view: KillView, left: list[Asked]) -> list[Asked]:
    """The limits count for each copy that this call has not killed: a kill that was due on one host makes
    none due on another."""
    killed = {event.host for event in view.events if isinstance(event, Acted) and event.kill}
    return [look for look in left if look.host not in killed]


def _cancel(view: KillView, left: list[Asked]) -> CancelJob | None:
    """The job is stopped first; once in a call, and again by a later call while its end is waited for."""
    if _grace_left_seconds(view) <= 0:
        return None
    cancelled = {event.host for event in view.events if isinstance(event, Acted) and not event.kill}
    for look in left:
        sends = look.state in (GuestState.MIGRATING_OUT, GuestState.ERROR)
        if (sends or (look.job and look.state is not GuestState.INCOMING)) and look.host not in cancelled:
            return CancelJob(look.host)
    return None


def _grace(view: KillView, left: list[Asked]) -> Hold | None:
    """Whether a copy that is left may run on because this node has cancelled its migration."""
    here = any(isinstance(event, Acted) and not event.kill for event in view.events)
    seconds = _grace_left_seconds(view)
    if seconds <= 0 or (view.seconds_since_cancel is None and not here):
        return None
    waited = _WAITED_FOR | {GuestState.RUNNING}
    may_run = [look for look in _not_killed(view, left) if look.job or look.state in waited]
    if not may_run:
        return None
    shown = ", ".join(_shown(look) for look in may_run)
    return Hold(f"the migration of {view.guest} was cancelled: it may run on ({shown}; {seconds:.0f} s left)")


def _grace_left_seconds(view: KillView) -> float:
    return CANCEL_GRACE_SECONDS - (view.seconds_since_cancel or 0.0)


def _kill(view: KillView, left: list[Asked]) -> Step:
    """The incoming copy first, then the target's, the others', the source's."""
    acted = [event for event in view.events if isinstance(event, Acted)]
    copies = [look for look in left if not look.state.proves_not_here]
    if not copies:
        return Hold(f"a migration of {view.guest} is reported, but no copy of it")
    record = view.record
    source = record.source if record is not None else ""
    target = record.target if record is not None else ""
    copies.sort(
        key=lambda look: (
            look.host == source,
            look.state is not GuestState.INCOMING,
            look.host != target,
        )
    )
    # A silent host has no copy here: proven off, or confirmed.
    chosen = copies[0]
    if sum(act.kill and act.host == chosen.host for act in acted) >= KILLS_LIMIT:
        return Hold(
            f"{chosen.host} still shows {view.guest} {chosen.state.value} after {KILLS_LIMIT} kills",
            final=True,
        )
    return Kill(chosen.host)


def _shown(look: Asked) -> str:
    word = "powered off" if look.powered_off else look.state.value
    return f"{look.host}: {word}"


# -- what a call notes for the next one ----------------------------------------------------------------------


def plain_round(events: Sequence[Event], hosts: Sequence[str]) -> str:
    """The host on which a whole round of questions, the last events of a call, shows the guest plainly
    running; empty: it does not, or the round is not whole. What the daemon notes each second is noted of
    these rounds too, also where there is no daemon."""
    looks = [event for event in events[-len(hosts) :] if isinstance(event, Asked)] if hosts else []
    if {look.host for look in looks} != set(hosts) or any(look.job for look in looks):
        return ""
    return plainly_on([HostAnswer(look.host, "", look.state) for look in looks])


def shown_running(events: Sequence[Event]) -> str:
    """The one host that shows the guest running by its last answer in this call; empty: none, or several."""
    last = {event.host: event.state for event in events if isinstance(event, Asked)}
    running = [host for host, state in last.items() if state is GuestState.RUNNING]
    return running[0] if len(running) == 1 else ""
