"""One call of the killing gate on one node.

Mirrors commands/gate_kill.py, which waits, asks and gives orders; every step is decided by the production
function (core.killing.decide). An order may be lost, slow, or hit what has just left: only the truth knows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from standfast.core import confirmed
from standfast.core import killing as core_killing
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
)
from standfast.sim.kernel import Steps

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

HOLD_POLL_SECONDS = 5.0
POLL_MS = 500
"""The program polls four times a second; twice is what a run can afford."""
STALE_SECONDS = 6.5
MAX_STEPS = 600
QUESTION_LIMIT_MS = 3_000
ORDER_LIMIT_MS = 10_000


class Call:
    """One call."""

    def __init__(self, world: World, node: Node, target: str) -> None:
        self.world, self.node, self.target = world, node, target
        self.guest = world.guests[target]
        self.events: list[Event] = []
        self.began = node.clock()
        self.record = node.cib.readable
        self.looked_ms: dict[str, int] = {}
        """When each host last looked, to answer."""
        self.first_members: frozenset[str] | None = None

    def now(self) -> float:
        """Seconds of this call, by the node's own clock."""
        return self.node.clock() - self.began

    def steps(self) -> Steps:
        """The answer: True is "done"."""
        for _ in range(MAX_STEPS):
            looked = self.now()
            view = self._view()
            yield self._between(30, 60)
            step = core_killing.decide(replace(view, now_seconds=self.now()))
            if isinstance(step, Proven):
                if self.now() - looked > STALE_SECONDS:
                    return self._said(False, "stood still")
                self.world.proven(self.node.name, self.target)
                return self._said(True, step.reason)
            if isinstance(step, Hold):
                acted = any(isinstance(event, Acted) for event in self.events)
                if step.final or (self.now() >= HOLD_POLL_SECONDS and not acted):
                    return self._said(False, step.reason)
                yield POLL_MS
            else:
                yield from self._carry_out(step)
        return self._said(False, "no end")

    def _said(self, done: bool, why: str) -> bool:
        self.world.kernel.say(
            self.node.name, "killing gate of %s: %s (%s)", self.target, "DONE" if done else "hold", why
        )
        return done

    def _between(self, least_ms: int, most_ms: int) -> int:
        return least_ms + int(self.world.extra.random() * (most_ms - least_ms))

    def _view(self) -> KillView:
        node, target = self.node, self.target
        members = node.ring.members
        if self.first_members is None:
            self.first_members = members
        if self.world.rules.membership_once:
            members = self.first_members
        elif target in members:
            node.sightings.returned(target)
        quorate = self.world.fencer.quorate(node.ring)
        self.record = record = node.cib.readable
        words = confirmed.words(record)
        if record is not None:
            node.sightings.see(record)
        return KillView(
            target=target,
            guest=self.guest,
            executor=node.name,
            controller_state="S_NOT_DC" if node.joined else "S_PENDING",
            record=record,
            record_error=node.cib.damage,
            membership=members,
            hosts=tuple(self.world.site.hosts),
            now_seconds=self.now(),
            seconds_since_drop=node.sightings.dropped(target, quorate=quorate)
            if target not in members
            else None,
            heard=frozenset(host for host, at in words.items() if node.sightings.is_overtaken(host, at)),
            seconds_since_return=node.sightings.seconds_since_return(target),
            seconds_plain=node.sightings.seconds_plain(self.guest, core_killing.shown_running(self.events)),
            seconds_since_cancel=node.sightings.seconds_since_cancel(target),
            timeout_seconds=core_killing.timeout_seconds(record),
            events=tuple(self.events),
        )

    def _carry_out(self, step: Step) -> Steps:
        site = self.world.site
        match step:
            case Ask(host, not_before):
                yield max(0, int((not_before - self.now()) * 1000) + 1)
                begun = self.now()
                if site.silent(host):
                    yield QUESTION_LIMIT_MS
                    state = GuestState.SILENT
                else:
                    way_ms = self._between(20, 400)
                    yield way_ms // 2
                    answer = site.ask_for_gate(host, self.guest)
                    state = answer.state
                    for name, epoch in confirmed.heard(self.record, [answer]).items():
                        self.node.sightings.overtaken(name, epoch)
                    self.looked_ms[host] = self.world.kernel.now_ms
                    yield way_ms - way_ms // 2
                self.events.append(Asked(host, state, begun, self.now()))
                if where := core_killing.plain_round(self.events, tuple(site.hosts)):
                    self.node.sightings.plain(self.guest, where)
            case AskPower(host, not_before):
                yield max(0, int((not_before - self.now()) * 1000) + 1)
                begun = self.now()
                off = site.power_off(host)
                yield 3_600 if off is None else self._between(200, 1_500)
                self.events = core_killing.power_answered(self.events, host, off, begun, self.now())
            case CancelJob(host):
                self.node.sightings.cancelled(self.target)
                yield from self._order(host, kill=False)
            case Kill(host):
                yield from self._order(host, kill=True)

    def _order(self, host: str, *, kill: bool) -> Steps:
        self.events.append(Acted(host, kill=kill))
        what = "stop" if kill else "cancel the migration of"
        self.world.kernel.say(self.node.name, "%s %s on %s", what, self.guest, host)
        looked_ms = self.looked_ms.get(host, 0)
        takes_ms = self.world.order(self.node.name, host, self.guest, kill=kill, looked_ms=looked_ms)
        yield min(takes_ms, ORDER_LIMIT_MS)


def call(world: World, node: Node, target: str) -> Steps:
    """One call of the killing gate of `target` on `node`."""
    result = yield from Call(world, node, target).steps()
    return result
