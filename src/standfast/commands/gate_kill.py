"""One call of the killing gate: ask, kill where it is due, prove; each step as `core.killing` decides it.

The hosts are asked one after the other by ssh, each question begun after the answer before it: a listing
that somebody else asked for may be older than the question. Without a decision nothing is touched, and no
yes is said that this very call has not seen the proof of.
"""

from __future__ import annotations

import time
from dataclasses import replace

from standfast.commands import gate_sight
from standfast.commands.gate_hosts import Hosts
from standfast.commands.gate_options import Options
from standfast.commands.gate_run import STALE_SECONDS, Verdict, failed
from standfast.commands.gate_sight import Sight
from standfast.commands.gate_tools import Tools
from standfast.core.evidence import GuestState
from standfast.core.killing import (
    Acted,
    Ask,
    Asked,
    AskPower,
    CancelJob,
    Event,
    Hold,
    Kill,
    KillView,
    Proven,
    Step,
    decide,
    timeout_seconds,
)
from standfast.core.names import HOLD_POLL_SECONDS, ORDERED, SIGHTINGS_FILE
from standfast.sightings import Sightings

POLL_INTERVAL_SECONDS = 0.25
MAX_STEPS = 400
RULE = "kill"
"""In the log, for whatever this gate answers."""


class KillingGate:
    """One call for one target, with the tools of its first look running."""

    def __init__(self, options: Options, tools: Tools) -> None:
        """Read what is on this node."""
        self._options = options
        self._tools = tools
        self._hosts = Hosts(options.root)
        self._sightings = Sightings(options.root + SIGHTINGS_FILE)
        self._events: list[Event] = []
        self._done: list[str] = []
        """What was ordered, for the log."""
        self._began = time.monotonic()

    def answer(self) -> Verdict:
        """For ``off`` and ``reboot``. A hold is polled as long as nothing was ordered in this call."""
        for _ in range(MAX_STEPS):
            looked = time.monotonic()
            try:
                sight = self._sight()
                step = decide(self._view(sight))
            except Exception as error:
                return failed(error, self._tools.node)
            if isinstance(step, Proven):
                took = time.monotonic() - looked
                if took > STALE_SECONDS:
                    return self._verdict(sight, False, f"{sight.executor} stood still for {took:.0f} s")
                return self._verdict(sight, True, step.reason)
            if isinstance(step, Hold):
                polled = time.monotonic() - self._began >= HOLD_POLL_SECONDS
                acted = any(isinstance(event, Acted) for event in self._events)
                if step.final or (polled and not acted):
                    return self._verdict(sight, False, step.reason)
                time.sleep(POLL_INTERVAL_SECONDS)
            else:
                self._carry_out(step)
            self._tools.start()
        return Verdict(False, RULE, f"no end after {MAX_STEPS} steps", True, self._tools.node)

    def _sight(self) -> Sight:
        sight = gate_sight.sight(self._tools.node, *self._tools.wait())
        node = gate_sight.canonical(sight.cib, self._options.target)
        if sight.membership is not None and node in sight.membership:
            self._sightings.returned(node)
        return sight

    def _view(self, sight: Sight) -> KillView:
        node = gate_sight.canonical(sight.cib, self._options.target)
        record = sight.record
        away = sight.membership is not None and node not in sight.membership
        guest = gate_sight.guest_of(sight.cib, node)
        # Who reads a record of a window that this node has just begun to see: the clock begins now.
        if record is not None:
            self._sightings.see(record)
        # The guest of the configuration must be the one that this gate was made for.
        agreed = guest if guest == self._options.guest else ""
        return KillView(
            target=node,
            guest=agreed,
            executor=sight.executor,
            controller_state=sight.controller_state,
            record=record,
            record_error=sight.record_error,
            membership=sight.membership,
            hosts=tuple(host.name for host in self._hosts.all),
            now_seconds=time.monotonic() - self._began,
            seconds_since_drop=self._sightings.dropped(node) if away else None,
            seconds_since_return=self._sightings.seconds_since_return(node),
            seconds_plain=self._plain(agreed),
            timeout_seconds=timeout_seconds(record),
            events=tuple(self._events),
        )

    def _note_plain(self) -> None:
        """What the daemon notes each second, also where there is none: a whole round showed it running."""
        count = len(self._hosts.all)
        looks = self._events[-count:]
        last = [event for event in looks if isinstance(event, Asked)]
        if len(last) < count or {look.host for look in last} != {host.name for host in self._hosts.all}:
            return
        where = [look.host for look in last if look.state is GuestState.RUNNING]
        others = [look for look in last if look.state is not GuestState.RUNNING]
        if len(where) == 1 and all(look.state.proves_not_here for look in others):
            self._sightings.plain(self._options.guest, where[0])

    def _plain(self, guest: str) -> float | None:
        """Seen running plainly where this call's own last look at each host shows it too."""
        states = {event.host: event.state for event in self._events if isinstance(event, Asked)}
        where = [host for host, state in states.items() if state is GuestState.RUNNING]
        return self._sightings.seconds_plain(guest, where[0]) if len(where) == 1 else None

    def _carry_out(self, step: Step) -> None:
        match step:
            case Ask(host, not_before):
                time.sleep(max(0.0, self._began + not_before - time.monotonic()))
                begun = time.monotonic() - self._began
                said = self._hosts.ask_one(host, self._options.guest)
                ended = time.monotonic() - self._began
                self._events.append(Asked(host, said.state, begun, ended, said.identity, said.job))
                self._note_plain()
            case AskPower(host):
                last = self._events[-1]
                assert isinstance(last, Asked)
                begun = time.monotonic() - self._began
                off, words = self._hosts.power(host)
                self._done.append(f"power of {host}: {words}")
                answer = replace(last, power_asked=True, powered_off=off)
                if off:
                    # What is known of this host is known from now, not from the question that nobody heard.
                    ended = time.monotonic() - self._began
                    answer = replace(answer, begun_seconds=begun, ended_seconds=ended)
                self._events[-1] = answer
            case CancelJob(host):
                self._order(host, kill=False)
            case Kill(host):
                self._order(host, kill=True)

    def _order(self, host: str, *, kill: bool) -> None:
        """Noted before it is begun: whether it worked, only the hosts show."""
        self._events.append(Acted(host, kill=kill))
        what = "stop" if kill else "cancel the migration of"
        trouble = self._hosts.order(host, self._options.guest, kill=kill)
        said = f"{ORDERED}{what} {self._options.guest} on {host}"
        self._done.append(said + (f" ({trouble})" if trouble else ""))

    def _verdict(self, sight: Sight, allow: bool, reason: str) -> Verdict:
        told = dict.fromkeys((*sight.notes, *self._done))
        return Verdict(allow, RULE, reason, True, sight.executor, tuple(told))
