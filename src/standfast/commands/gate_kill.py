"""One call of the killing gate: ask, kill where it is due, prove; each step as `core.killing` decides it.

The hosts are asked one after the other by ssh, each question begun after the answer before it: a listing
that somebody else asked for may be older than the question. Without a decision nothing is touched, and no
yes is said that this very call has not seen the proof of.
"""

from __future__ import annotations

import time

from standfast.commands import gate_sight
from standfast.commands.gate_hosts import Hosts
from standfast.commands.gate_options import Options
from standfast.commands.gate_run import STALE_SECONDS, Verdict, failed
from standfast.commands.gate_sight import Sight
from standfast.commands.gate_tools import Tools
from standfast.core import confirmed
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
    plain_round,
    power_answered,
    shown_running,
    timeout_seconds,
)
from standfast.core.names import HOLD_POLL_SECONDS, ORDERED, SIGHTINGS_FILE
from standfast.core.record import Record
from standfast.sightings import Sightings

POLL_INTERVAL_SECONDS = 0.25
MAX_STEPS = 600
"""More than a call takes that cancels a migration and waits for what comes of it."""
RULE = "kill"
"""In the log, for whatever this gate answers."""


class KillingGate:
    """One call for one target, with the tools of its first look running."""

    def __init__(self, options: Options, tools: Tools) -> None:
        """Read what is on this node."""
        self._options = options
        self._tools = tools
        self._hosts = Hosts(options.root)
        self._names = tuple(host.name for host in self._hosts.all)
        self._sightings = Sightings(options.root + SIGHTINGS_FILE)
        self._events: list[Event] = []
        self._done: list[str] = []
        """What was ordered, for the log."""
        self._node = options.target
        """The target as the cluster writes it."""
        self._record: Record | None = None
        """As this call last read it."""
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
        self._node = gate_sight.canonical(sight.cib, self._options.target)
        if sight.membership is not None and self._node in sight.membership:
            self._sightings.returned(self._node)
        return sight

    def _view(self, sight: Sight) -> KillView:
        node = self._node
        self._record = record = sight.record
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
            hosts=self._names,
            now_seconds=time.monotonic() - self._began,
            seconds_since_drop=self._sightings.dropped(node, quorate=sight.quorate) if away else None,
            heard=self._heard(),
            seconds_since_return=self._sightings.seconds_since_return(node),
            seconds_plain=self._sightings.seconds_plain(agreed, shown_running(self._events)),
            seconds_since_cancel=self._sightings.seconds_since_cancel(node),
            timeout_seconds=timeout_seconds(record),
            events=tuple(self._events),
        )

    def _heard(self) -> frozenset[str]:
        words = confirmed.words(self._record)
        return frozenset(host for host, at in words.items() if self._sightings.is_overtaken(host, at))

    def _carry_out(self, step: Step) -> None:
        match step:
            case Ask(host, not_before):
                time.sleep(max(0.0, self._began + not_before - time.monotonic()))
                begun = time.monotonic() - self._began
                said = self._hosts.ask_one(host, self._options.guest)
                ended = time.monotonic() - self._began
                self._events.append(Asked(host, said.state, begun, ended, said.identity, said.job))
                for name, epoch in confirmed.heard(self._record, [said]).items():
                    self._sightings.overtaken(name, epoch)
                if where := plain_round(self._events, self._names):
                    self._sightings.plain(self._options.guest, where)
            case AskPower(host, not_before):
                time.sleep(max(0.0, self._began + not_before - time.monotonic()))
                begun = time.monotonic() - self._began
                off, words = self._hosts.power(host)
                self._done.append(f"power of {host}: {words}")
                ended = time.monotonic() - self._began
                self._events = power_answered(self._events, host, off, begun, ended)
            case CancelJob(host):
                # Before the order: a call that is ended in it must not leave a cancel that nobody knows of.
                self._sightings.cancelled(self._node)
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
