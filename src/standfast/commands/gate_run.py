"""One call of the gate: look, decide, look again while it holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from standfast.commands import gate_sight
from standfast.commands.gate_hosts import Answers, Hosts
from standfast.commands.gate_options import Options
from standfast.commands.gate_sight import Sight
from standfast.commands.gate_tools import Tools
from standfast.core.evidence import HostAnswer
from standfast.core.gate import Answer, GateView, Rule, astray, decide, plainly_on
from standfast.core.names import HOLD_POLL_SECONDS, SIGHTINGS_FILE
from standfast.sightings import Sightings, ring_number

POLL_INTERVAL_SECONDS = 0.25
STALE_SECONDS = 6.5
"""A look cannot take longer (tools, daemon, ssh) unless this node stood still: then it saw the past."""
RECENT_ALLOW_SECONDS = 5.0
REPEAT_WAIT_SECONDS = 2.0
"""A device that fails at once would otherwise be called as fast as the fencer can. And a target that is a
member is looked at twice: it may have come back this instant, and `standfastd` notes that within a second."""


@dataclass(frozen=True)
class Verdict:
    """The gate's answer to one call, and what the log needs. `rule`: a Rule's value, or error or stale."""

    allow: bool
    rule: str
    reason: str
    final: bool = False
    executor: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Own:
    """What hosts say of others than the target: the mover of a guarded window, or this node itself."""

    mover_hosts: tuple[HostAnswer, ...] = ()
    own_hosts: tuple[HostAnswer, ...] = ()
    own_aim: str = ""


class Gate:
    """One call, with the tools of its first look running."""

    def __init__(self, options: Options, tools: Tools) -> None:
        """Read what is on this node."""
        self._options = options
        self._tools = tools
        self._hosts = Hosts(options.root)
        self._evidence: Answers = {}
        self._evidence_before: Answers = {}
        """The last two rounds of questions."""
        self._sightings = Sightings(options.root + SIGHTINGS_FILE)
        self._back = False
        """The target is a member, as of the last look."""
        self._met: float | None = None
        """Seconds since this node's ring has met others, as of the last look."""
        self._dry = False
        """A monitor notes nothing that would shorten a hold."""

    def answer(self, began: float) -> Verdict:
        """For ``off`` and ``reboot``: a hold is polled, an allow so soon after another one waits."""
        waited = False
        while True:
            looked = time.monotonic()
            verdict = self._look()
            if verdict.allow and not waited and (self._back or self._allowed_just_now()):
                waited = True
                time.sleep(REPEAT_WAIT_SECONDS)
                self._tools.start()  # two seconds ago is the past
                continue
            if verdict.allow:
                self._sightings.allowed(self._options.target, self._options.level)
            now = time.monotonic()
            if verdict.allow or verdict.final or now - began >= HOLD_POLL_SECONDS:
                return verdict
            time.sleep(max(0.0, min(looked + POLL_INTERVAL_SECONDS, began + HOLD_POLL_SECONDS) - now))
            self._tools.start()

    def check(self) -> Verdict:
        """For ``monitor``: the whole decision for every target, dry. Allowed = it could be made."""
        self._dry = True
        try:
            sight = self._sight()
            if sight.cib is None:
                return Verdict(False, "error", sight.record_error)
            self._decide(sight, self._options.targets or gate_sight.targets(sight.cib))
        except Exception as error:
            return failed(error)
        return Verdict(True, "monitor", "")

    def _look(self) -> Verdict:
        try:
            sight = self._sight()
            (answer,), note = self._decide(sight, (self._options.target,))
        except Exception as error:
            return failed(error, self._tools.node)
        took = time.monotonic() - self._tools.began
        unkept = ""
        if answer.rule in (Rule.UNSAVED, Rule.ELSEWHERE) and not self._sightings.held(
            gate_sight.canonical(sight.cib, self._options.target)
        ):
            unkept = f"{SIGHTINGS_FILE} cannot be written: the next call will not settle after this hold"
        notes = (*sight.notes, *filter(None, (note, self._hosts.note, unkept)))
        if answer.allow and took > STALE_SECONDS:
            reason = f"{sight.executor} stood still for {took:.0f} s while it looked"
            return Verdict(False, "stale", reason, False, sight.executor, notes)
        rule = answer.rule.value
        return Verdict(answer.allow, rule, answer.reason, answer.final, sight.executor, notes)

    def _sight(self) -> Sight:
        sight = gate_sight.sight(self._tools.node, *self._tools.wait())
        known = gate_sight.nodes(sight.cib)
        if known and sight.executor not in known:
            self._tools.forget_name()
        # After the tools: what they said may be from before the ring that its number tells of.
        number = ring_number(self._options.root)
        self._met = None
        if number is not None and sight.membership is not None:
            self._met = self._sightings.met(number, sight.membership)
        if sight.membership is not None and self._options.target:
            target = gate_sight.canonical(sight.cib, self._options.target)
            self._back = target in sight.membership
            note = self._sightings.back if self._back else self._sightings.away
            note(target)
        return sight

    def _decide(self, sight: Sight, targets: tuple[str, ...]) -> tuple[tuple[Answer, ...], str]:
        """Decide by what is here. Hosts are asked only where they can make a difference."""
        found = [gate_sight.target(sight.cib, name, self._hosts.all) for name in targets]
        answers = [decide(self._view(sight, target, {}, Own())) for target in found]
        mover = self._mover_guest(sight)
        asked = [mover] if mover else []
        asked += [target.guest for target, answer in zip(found, answers, strict=True) if answer.hosts_matter]
        if not any(answer.hosts_matter for answer in answers):
            return tuple(answers), ""
        rounds = self._hosts.rounds
        evidence, note = self._hosts.ask(asked)
        if self._hosts.rounds != rounds:
            self._evidence_before, self._evidence = self._evidence, evidence
        of_mover = Own(evidence.get(mover, ()))
        views = [self._view(sight, target, evidence, of_mover) for target in found]
        answers = [decide(view) for view in views]
        if not mover and any(view.alone for view in views) and any(answer.allow for answer in answers):
            # Nothing but the hosts can tell that this node stood still. Asked last and apart: what is known
            # of the target does not wait for it.
            me = gate_sight.target(sight.cib, sight.executor, self._hosts.all)
            own, _ = self._hosts.ask([me.guest])
            of_me = Own((), own.get(me.guest, ()), me.aim)
            answers = [decide(self._view(sight, target, evidence, of_me)) for target in found]
        return tuple(answers), note

    def _mover_guest(self, sight: Sight) -> str:
        """The guest that a guarded window is for; empty where there is none."""
        mover = sight.record.guarded_mover if sight.record is not None else ""
        return gate_sight.guest_of(sight.cib, mover) if mover else ""

    def _view(
        self,
        sight: Sight,
        target: gate_sight.Target,
        evidence: Answers,
        own: Own,
    ) -> GateView:
        seen = self._sightings.see(sight.record) if sight.record is not None else None
        view = GateView(
            target=target.node,
            executor=sight.executor,
            controller_state=sight.controller_state,
            record=sight.record,
            record_error=sight.record_error,
            levels=target.levels,
            membership=sight.membership,
            seconds_since_epoch_seen=seen.epoch_seconds if seen else 0.0,
            seconds_since_window_seen=seen.window_seconds if seen else 0.0,
            seconds_since_return=self._sightings.seconds_since_return(target.node),
            seconds_since_met=self._met,
            seconds_since_held=self._sightings.seconds_since_held(target.node),
            unlisted=self._sightings.is_unlisted(target.node),
            mover_hosts=own.mover_hosts,
            own_hosts=own.own_hosts,
            own_aim=own.own_aim,
            facility_stopped=sight.record is not None and sight.executor in sight.record.stopped,
            aim=target.aim,
            trusts_words=target.trusts_words,
            saves=not self._hosts.all or any(host.kind == "ldm" for host in self._hosts.all),
            hosts=evidence.get(target.guest, ()),
            hosts_before=self._evidence_before.get(target.guest, ()) if evidence else (),
        )
        return replace(view, seconds_held_as_mover=self._held_as_mover(view))

    def _held_as_mover(self, view: GateView) -> float | None:
        record = view.record
        moves = record is not None and record.mover == view.executor
        where = astray(view) or (plainly_on(view.mover_hosts) if moves else "")
        return self._sightings.held_as_mover(view.target, where) if where and not self._dry else None

    def _allowed_just_now(self) -> bool:
        since = self._sightings.seconds_since_allowed(self._options.target, self._options.level)
        return since is not None and since < RECENT_ALLOW_SECONDS


def failed(error: Exception, executor: str = "") -> Verdict:
    """A bug of ours is a hold, and polled like one."""
    reason = f"the gate itself failed ({type(error).__name__}: {error})"
    return Verdict(False, "error", reason, False, executor)
