"""Deliberate bugs: each breaks one rule of the product, and a checker must see it.

A bug is a patch of a function of the core, or a variant of the simulated executor (`Rules`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from standfast.core import (
    arming,
    closing,
    confirmed,
    evidence,
    gate,
    gate_view,
    heartbeat,
    killing,
    lowering,
    members,
    opening,
    raising,
    strays,
    window,
)
from standfast.core.evidence import GuestState
from standfast.core.messages import Message
from standfast.core.record import Mode, Phase, Record, Totem
from standfast.core.steps import Done, OpenGoal, Snapshot, WriteRecord
from standfast.sightings import Sightings
from standfast.sim import command, raise_story
from standfast.sim import strays as sim_strays
from standfast.sim.rules import Rules
from standfast.sim.store import written
from standfast.sim.world import World

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Bug:
    """One bug: what is broken, how, and which checkers may see it."""

    name: str
    seen_by: tuple[str, ...]
    """The checkers of which at least one must fire."""
    plant: Callable[[Patch], None] = lambda patch: None
    rules: Rules = field(default_factory=Rules)
    guarded: bool = False
    """It shows in runs with a guarded window only."""
    forgotten: bool = False
    """It shows in runs with a frozen window that outlives its lease only."""
    clocks: bool = False
    """It shows in runs in which clocks lag only."""
    driven: bool = False
    """It shows in runs with a raise just in time only."""
    rare: bool = False
    """None of the seeds that are always played shows it: `seen.py` has one of the 100,000 that were."""


def _gate_ignores_membership(patch: Patch) -> None:
    decide = gate.decide
    patch.setattr(gate, "decide", lambda view: decide(replace(view, membership=frozenset())))
    patch.setattr(gate, "SETTLE_SECONDS", 0)


def _gate_ignores_the_window(patch: Patch) -> None:
    patch.setattr(gate, "_window", lambda view: None)


def _gate_allows_without_record(patch: Patch) -> None:
    patch.setattr(gate, "_record", lambda view: None)


def _a_met_copy_is_believed(patch: Patch) -> None:
    patch.setattr(gate, "MET_SECONDS", 0.0)


def _gate_accepts_unsafe_levels(patch: Patch) -> None:
    patch.setattr(gate, "_levels", lambda view: None)


def _no_settling(patch: Patch) -> None:
    patch.setattr(gate, "SETTLE_SECONDS", 0)
    patch.setattr(gate, "JUST_BACK_SECONDS", 0)
    patch.setattr(closing, "SETTLE_SECONDS", 0)
    settling = gate._settling
    patch.setattr(
        gate, "_settling", lambda view: None if view.record and view.record.open else settling(view)
    )


def _closing_without_proof(patch: Patch) -> None:
    patch.setattr(closing, "_unproven", lambda snapshot, goal, record: [])
    aim = closing._aim

    def no_reaim(snapshot: Snapshot, goal: Any, record: Record) -> Any:
        step = aim(snapshot, goal, record)
        if type(step).__name__ == "Reaim":
            return WriteRecord(record.next(aimed=True, totem=Totem.EXPLICIT), "closed without a look")
        return step

    patch.setattr(closing, "_aim", no_reaim)


def _lowering_before_saving(patch: Patch) -> None:
    def aim(snapshot: Snapshot, goal: Any, record: Record) -> Any:
        return WriteRecord(record.next(aimed=True, totem=Totem.EXPLICIT), "lower first")

    patch.setattr(closing, "_aim", aim)


def _lowering_without_all_members(patch: Patch) -> None:
    patch.setattr(members, "absent", lambda snapshot, record: [])
    patch.setattr(lowering, "_owed", lambda snapshot, record: {})


def _raise_not_read_back(patch: Patch) -> None:
    runtime = members.runtime

    def once(snapshot: Snapshot, fits: Any, reason: str, *, always_reload: bool = False) -> Any:
        if snapshot.reloads:
            return None
        return runtime(snapshot, fits, reason, always_reload=always_reload)

    patch.setattr(members, "runtime", once)


def _old_values_of_a_node_lost(patch: Patch) -> None:
    note = opening._note_values

    def forgets(snapshot: Snapshot, goal: OpenGoal, record: Record) -> WriteRecord:
        step = note(snapshot, goal, record)
        old = dict(step.record.old)
        if len(old) > 1:
            some = old[min(old)]
            old[max(old)] = replace(some, file_keys={**some.file_keys, "token": "7000"})
        return replace(step, record=replace(step.record, old=old))

    patch.setattr(opening, "_note_values", forgets)


def _abort_leaves_files(patch: Patch) -> None:
    lower = lowering._lowering

    def leaves(snapshot: Snapshot, record: Record) -> Any:
        return None if record.abort else lower(snapshot, record)

    patch.setattr(lowering, "_lowering", leaves)


def _silence_is_absence(patch: Patch) -> None:
    def proves(self: GuestState) -> bool:
        return self in (GuestState.STOPPED, GuestState.ABSENT, GuestState.SILENT)

    patch.setattr(GuestState, "proves_not_here", property(proves))


def _one_round_is_gone(patch: Patch) -> None:
    def gone(hosts: Any, rounds: Any) -> bool:
        return any(all(answer.state.proves_not_here for answer in answers) for answers in rounds)

    for module in (evidence, gate_view):
        patch.setattr(module, "gone_everywhere", gone)


def _two_windows(patch: Patch) -> None:
    decide = opening.decide

    def again(snapshot: Snapshot, goal: OpenGoal) -> Any:
        record = snapshot.record
        if record is not None and record.phase is Phase.OPEN and record.owner != snapshot.me:
            return opening._note_values(snapshot, goal, record)
        return decide(snapshot, goal)

    patch.setattr(opening, "decide", again)


def _idle_saves_nothing(patch: Patch) -> None:
    patch.setattr(closing, "_to_save", lambda snapshot, goal, record: [])


def _aim_before_the_guest_is_found(patch: Patch) -> None:
    patch.setattr(closing, "_where", lambda snapshot, goal, record: None)


def _maintenance_is_left(patch: Patch) -> None:
    patch.setattr(lowering, "_maintenance", lambda record: None)


def _closing_never_ends(patch: Patch) -> None:
    decide = window.decide

    def stays(snapshot: Snapshot, goal: Any) -> Any:
        step = decide(snapshot, goal)
        if isinstance(step, WriteRecord) and step.record.aimed and step.record.phase is Phase.CLOSING:
            return lowering.unfinished(Message("NOT_READY", "never", next_command="clovmmigrate -u"), None)
        return step

    patch.setattr(window, "decide", stays)


def _the_hold_never_ends(patch: Patch) -> None:
    frozen = gate.Answer(False, gate.Rule.FROZEN, "for ever", final=False)
    patch.setattr(gate, "_after_lease", lambda record, view: frozen)


def _the_lease_begins_anew_with_each_look(patch: Patch) -> None:
    see = Sightings.see
    patch.setattr(Sightings, "see", lambda self, record: see(self, record)._replace(window_seconds=0.0))


def _settling_for_ever(patch: Patch) -> None:
    released = gate._released

    def settles(view: gate.GateView) -> gate.Answer | None:
        return released(replace(view, seconds_since_held=1.0))

    patch.setattr(gate, "_released", settles)


def _not_compared(written: Any, cib: Any, new: Record, changes: Any) -> Any:
    return written(cib.record.epoch, new, compare=False, **changes)


def _older_record_accepted(written: Any, cib: Any, new: Record, changes: Any) -> Any:
    """Only the phase is compared, as a predicate without the epoch would."""
    plain = written(cib.record.epoch, new, compare=False, **changes)
    strict = written(cib.record.epoch, new, **changes)
    phase = cib.record.phase
    return lambda now: plain(now) if now.record.phase is phase else strict(now)


def _silence_counts_as_gone(patch: Patch) -> None:
    gone = killing._gone
    silent = GuestState.SILENT
    patch.setattr(killing, "_gone", lambda view, look: look.state is silent or gone(view, look))
    patch.setattr(killing, "_needs_power", lambda view, look: False)


def _running_counts_from_the_drop(patch: Patch) -> None:
    wait = killing._wait
    patch.setattr(
        killing, "_wait", lambda view, left: wait(replace(view, seconds_plain=view.seconds_since_drop), left)
    )


def _no_time_after_a_cancel(patch: Patch) -> None:
    """As it was: whatever this call has acted on is waited for no more."""

    def not_acted_on(view: killing.KillView, left: Any) -> Any:
        acted = {event.host for event in view.events if isinstance(event, killing.Acted)}
        return [look for look in left if look.host not in acted]

    patch.setattr(killing, "_not_killed", not_acted_on)
    patch.setattr(killing, "_grace", lambda view, left: None)


def _drop_counts_while_cut_off(patch: Patch) -> None:
    dropped = Sightings.dropped
    patch.setattr(Sightings, "dropped", lambda self, node, *, quorate: dropped(self, node, quorate=True))


def _one_round_is_a_proof(patch: Patch) -> None:
    patch.setattr(killing, "_prove", lambda view, order, looks: killing.Proven("one round"))


def _a_persons_word_outlives_the_answer(patch: Patch) -> None:
    patch.setattr(confirmed, "heard", lambda record, answers: {})


def _a_late_word_is_taken(patch: Patch) -> None:
    """The note before it is taken out by nobody, and is no word that could be overtaken."""
    patch.setattr(confirmed, "overtake", _only_words)
    heard = confirmed.heard
    patch.setattr(
        confirmed,
        "heard",
        lambda record, answers: {
            host: at for host, at in heard(record, answers).items() if host in confirmed.words(record)
        },
    )


def _only_words(record: Record, these: Any) -> Record | None:
    gone = {host for host, at in confirmed.words(record).items() if these.get(host) == at}
    return (
        record.next(
            confirmed={host: why for host, why in record.confirmed.items() if host not in gone},
            confirmed_at={host: at for host, at in record.confirmed_at.items() if host not in gone},
        )
        if gone
        else None
    )


def _source_is_killed_first(patch: Patch) -> None:
    kill = killing._kill

    def source_first(view: killing.KillView, left: Any) -> Any:
        source = view.record.source if view.record is not None else ""
        here = any(look.host == source and not look.state.proves_not_here for look in left)
        return killing.Kill(source) if here else kill(view, left)

    patch.setattr(killing, "_kill", source_first)
    patch.setattr(killing, "_cancel", lambda view, left: None)


def _mover_let_through(patch: Patch) -> None:
    own = gate._window

    def lets_through(view: gate.GateView) -> gate.Answer | None:
        record = view.record
        is_mover = record is not None and record.mode is Mode.GUARDED and record.mover == view.target
        return None if is_mover else own(view)

    patch.setattr(gate, "_window", lets_through)
    # What stands behind it otherwise.
    patch.setattr(gate, "_elsewhere", lambda view: None)
    patch.setattr(gate, "_released", lambda view: None)


def _not_taken_out_on_rollback(patch: Patch) -> None:
    lower = lowering.lower

    def forgets(snapshot: Snapshot, record: Record) -> Any:
        return lower(replace(snapshot, guarded=frozenset()) if record.abort else snapshot, record)

    patch.setattr(lowering, "lower", forgets)


def _fencers_not_asked(patch: Patch) -> None:
    patch.setattr(members, "not_killing", lambda snapshot, record: [])


def _mover_of_two_not_held(patch: Patch) -> None:
    patch.setattr(gate, "_by_mover", lambda record, view: None)


def _mover_fences_members(patch: Patch) -> None:
    own = gate._by_mover
    patch.setattr(gate, "_by_mover", lambda record, view: own(record, replace(view, membership=frozenset())))
    patch.setattr(gate, "MOVER_HOLD_SECONDS", 15.0)
    # What stands behind it otherwise, where the return was seen: with it the bug shows on one of 3,833 seeds.
    patch.setattr(gate, "_just_back", lambda view: None)


def _armed_while_moving(patch: Patch) -> None:
    patch.setattr(arming, "_moving", lambda aims, where: "")


def _armed_for_members(patch: Patch) -> None:
    whom = arming.whom

    def anybody(view: arming.ArmView) -> tuple[str, str]:
        node, why = whom(view)
        others = sorted(set(view.aims or {}) - {view.me})
        return (node, why) if node or "no node is absent" not in why else (others[0], "")

    patch.setattr(arming, "whom", anybody)
    patch.setattr(arming, "came_back", lambda arm, members: False)


def _mover_arms_for_itself(patch: Patch) -> None:
    whom = arming.whom

    def own(view: arming.ArmView) -> tuple[str, str]:
        node, why = whom(view)
        mine = view.me == view.record.mover and view.record.mode is Mode.FROZEN
        return (view.me, "") if mine and not node and why else (node, why)

    patch.setattr(arming, "whom", own)
    patch.setattr(arming, "came_back", lambda arm, members: False)


def _armed_without_quorum(patch: Patch) -> None:
    whom, absent = arming.whom, Sightings.absent
    patch.setattr(arming, "whom", lambda view: whom(replace(view, quorate=True)))
    patch.setattr(Sightings, "absent", lambda self, node, *, quorate: absent(self, node, quorate=True))


def _never_armed(patch: Patch) -> None:
    patch.setattr(arming, "whom", lambda view: ("", "never"))


def _armed_without_its_killing_gate(patch: Patch) -> None:
    """The record alone: nobody can kill the mover then."""
    patch.setattr(World, "changed", lambda self, epoch, record, **topology: written(epoch, record))


def _saved_for_ever(patch: Patch) -> None:
    patch.setattr(closing, "_not_by_us", lambda record, snapshot: dict(record.saved))


def _aimed_host_is_believed(patch: Patch) -> None:
    patch.setattr(strays, "at_home", lambda answer: answer.state is not GuestState.SILENT)


def _dead_daemons_look(patch: Patch) -> None:
    patch.setattr(sim_strays, "HEARD_MS", 10**9)


def _armed_before_the_others_are_proven(patch: Patch) -> None:
    for name in ("astray", "unproven"):
        patch.setattr(closing.others, name, lambda snapshot, goal, record: None)


def _lowered_in_spite_of_clocks(patch: Patch) -> None:
    patch.setattr(closing.clock_gate, "before_lowering", lambda snapshot, record, goal: None)


def _clocks_cost_fencing(patch: Patch) -> None:
    """As it was: the gate holds until the window is closed."""
    patch.setattr(Record, "holds", property(lambda self: self.open))


def _old_proof_lowers(patch: Patch) -> None:
    """What an earlier command had proven counts for this one."""
    decide, enter = closing.decide, closing._enter

    def waits(snapshot: Snapshot) -> bool:
        return snapshot.record is not None and snapshot.record.waits_for_clocks

    def counts(snapshot: Snapshot, goal: Any, since_epoch: int) -> Any:
        old = waits(snapshot) and goal is not None
        return decide(snapshot, replace(goal, since_epoch=0) if old else goal, since_epoch)

    def keeps(snapshot: Snapshot, goal: Any, record: Record) -> Record:
        entered = enter(snapshot, goal, record)
        return replace(entered, prove=record.prove, saved=record.saved) if entered.proven else entered

    patch.setattr(closing, "decide", counts)
    patch.setattr(closing, "_enter", keeps)


def _who_wakes_up_alone_acts(patch: Patch) -> None:
    patch.setattr(gate, "_astray", lambda view: None)


def _clocks_say_nothing_of_itself(patch: Patch) -> None:
    """Who waits for clocks, and wakes up alone, asks the hosts about itself only."""
    found = gate.astray

    def by_hosts(view: Any) -> str:
        where = found(view)
        return "" if where == gate.CLOCKS else where

    patch.setattr(gate, "astray", by_hosts)


def _nobody_returns_unseen(patch: Patch) -> None:
    """Who was away and came back while no daemon looked has not returned."""
    met, note = Sightings.met, Sightings._note

    def only_met(self: Sightings, number: int, members: Any) -> Any:
        def kept(new: dict[str, float]) -> bool:
            return note(self, {name: at for name, at in new.items() if not name.startswith("returned ")})

        self._note = kept  # type: ignore[method-assign]
        try:
            return met(self, number, members)
        finally:
            del self._note

    patch.setattr(Sightings, "met", only_met)


def _a_long_look_is_believed(patch: Patch) -> None:
    patch.setattr(command, "OVERTAKEN_MS", 10**9)


def _let_go_before_it_is_read_back(patch: Patch) -> None:
    higher = raising.higher

    def believes(snapshot: Snapshot, goal: Any) -> Any:
        record = snapshot.record
        asked = record is not None and record.totem is Totem.RAISED
        return Done("asked for") if asked else higher(snapshot, goal)

    patch.setattr(raising, "higher", believes)
    _nothing_is_asked_again(patch)


def _nothing_is_asked_again(patch: Patch) -> None:
    """Nor whether this node stood still."""
    patch.setattr(raising, "still_raised", lambda snapshot, goal: "")
    patch.setattr(raise_story, "STOOD_STILL_MS", 10**9)


def _let_go_before_its_own_node_follows(patch: Patch) -> None:
    patch.setattr(raise_story.Driven, "_own", lambda self, timers: iter(()))


def _its_own_node_rises_with_the_others(patch: Patch) -> None:
    patch.setattr(members, "raised_keys", lambda record, node: heartbeat.raised(record.budget_seconds))


def _who_stood_still_lets_go(patch: Patch) -> None:
    higher = raising.higher

    def believes(snapshot: Snapshot, goal: Any) -> Any:
        return higher(replace(snapshot, barriers=1, ring_changed=False), goal)

    patch.setattr(raising, "higher", believes)
    _nothing_is_asked_again(patch)


def _left_raised(patch: Patch) -> None:
    patch.setattr(raising, "turn", lambda view: None)


def _knet_values_are_left(patch: Patch) -> None:
    """The closing takes a window that was lowered for one that has raised nothing."""
    raises = lowering.raises

    def only_now(record: Record) -> bool:
        return raises(record) and not record.just_in_time

    def nothing(snapshot: Snapshot, record: Record) -> Any:
        return None if record.just_in_time else lower(snapshot, record)

    lower = lowering._lowering
    patch.setattr(lowering, "raises", only_now)
    patch.setattr(lowering, "_lowering", nothing)


BUGS = (
    Bug("the gate ignores the membership", ("S8", "S1", "S2"), _gate_ignores_membership),
    Bug("the gate ignores the window and its lease", ("S8",), _gate_ignores_the_window),
    Bug("the gate allows where the record cannot be read", ("S8",), _gate_allows_without_record),
    Bug("levels without a real device are accepted", ("S2", "S1"), _gate_accepts_unsafe_levels),
    Bug("no settling after a return", ("S8",), _no_settling),
    Bug("closing without aim and proof", ("S5",), _closing_without_proof),
    Bug("the timeout goes down before anything is saved", ("S5",), _lowering_before_saving),
    Bug("closing does not wait for all members", ("S6",), _lowering_without_all_members),
    Bug("the raise is not read back", ("S4",), _raise_not_read_back),
    Bug("old values of one node are lost", ("S6",), _old_values_of_a_node_lost),
    Bug("writes without compare-and-set", ("S7",), rules=Rules(write=_not_compared)),
    Bug("an older record is accepted", ("S7",), rules=Rules(write=_older_record_accepted)),
    Bug("a write that timed out counts as failed", ("L2",), rules=Rules(unknown_is_failed=True)),
    Bug("silence counts as absence", ("S2", "S1", "S8"), _silence_is_absence),
    Bug("one round counts as gone", ("S2", "S1", "S8"), _one_round_is_gone),
    Bug("two windows at once", ("S7",), _two_windows),
    Bug("an abort leaves the files", ("S6",), _abort_leaves_files),
    Bug(
        "the devices are aimed before the guest is found",
        ("S5", "S2", "S8", "L2"),
        _aim_before_the_guest_is_found,
    ),
    Bug("maintenance-mode is left on", ("S9",), _maintenance_is_left),
    Bug("closing stops for good at its last steps", ("L2",), _closing_never_ends),
    Bug("the hold outlives its lease", ("S3",), _the_hold_never_ends),
    Bug("the lease begins anew with each look", ("L1",), _the_lease_begins_anew_with_each_look),
    Bug("guarded: silence counts as gone", ("S2", "S1"), _silence_counts_as_gone, guarded=True),
    Bug("guarded: running counts from the drop", ("S8",), _running_counts_from_the_drop, guarded=True),
    Bug("guarded: the source is killed before the target", ("S1",), _source_is_killed_first, guarded=True),
    Bug("guarded: no time to run on after a cancel", ("S8",), _no_time_after_a_cancel, guarded=True),
    Bug("guarded: one round is a proof", ("S2", "S1"), _one_round_is_a_proof, guarded=True),
    Bug(
        "guarded: the membership is looked at once in a call",
        ("S8",),
        rules=Rules(membership_once=True),
        guarded=True,
    ),
    Bug(
        "guarded: a person's word outlives the host's own answer",
        ("S2", "S1"),
        _a_persons_word_outlives_the_answer,
        guarded=True,
    ),
    Bug(
        "guarded: a late word is not refused",
        ("S2", "S1"),
        _a_late_word_is_taken,
        guarded=True,
    ),
    Bug(
        "who has stood still and met the others believes its copy",
        ("S2", "S1"),
        _a_met_copy_is_believed,
        rare=True,
    ),
    Bug("guarded: the drop counts while cut off", ("S8",), _drop_counts_while_cut_off, guarded=True),
    Bug("guarded: the ordinary gate lets the mover through", ("S8",), _mover_let_through, guarded=True),
    Bug("guarded: not taken out on rollback", ("S9",), _not_taken_out_on_rollback, guarded=True),
    Bug("guarded: open before the fencers have it", ("S8",), _fencers_not_asked, guarded=True),
    Bug("guarded: the mover of two nodes is not held", ("S8",), _mover_of_two_not_held, guarded=True),
    Bug("guarded: the mover fences members, after 15 s", ("S8",), _mover_fences_members, guarded=True),
    Bug("armed while a migration is under way", ("S8",), _armed_while_moving, forgotten=True),
    Bug("armed for a member", ("S8",), _armed_for_members, forgotten=True),
    Bug("the mover arms its own window", ("S8",), _mover_arms_for_itself, forgotten=True),
    Bug("armed without quorum", ("S8",), _armed_without_quorum, forgotten=True),
    Bug("a forgotten window is never armed", ("L3",), _never_armed, forgotten=True),
    Bug("armed without its killing gate", ("L3",), _armed_without_its_killing_gate, forgotten=True),
    Bug("what was saved before another move counts", ("L2",), _saved_for_ever, forgotten=True),
    Bug("-u without a window saves nothing where the aim fits", ("L2", "L3"), _idle_saves_nothing),
    Bug("a gate that has held settles for ever", ("L3",), _settling_for_ever),
    Bug("a guest that its aimed host does not have is at home", ("L4",), _aimed_host_is_believed),
    Bug("a daemon that is dead is left to look", ("L4",), _dead_daemons_look),
    Bug("armed before the others are proven", ("S5",), _armed_before_the_others_are_proven, forgotten=True),
    Bug("clocks: lowered in spite of them", ("S5",), _lowered_in_spite_of_clocks, clocks=True),
    Bug("clocks: fencing waits for them", ("L3",), _clocks_cost_fencing, clocks=True),
    Bug("clocks: the proof of an earlier command lowers", ("S5",), _old_proof_lowers, clocks=True),
    Bug("just in time: let go before it is read back", ("S4",), _let_go_before_it_is_read_back, driven=True),
    Bug(
        "just in time: let go before its own node follows",
        ("S4",),
        _let_go_before_its_own_node_follows,
        driven=True,
    ),
    Bug(
        "just in time: its own node rises with the others",
        ("L6",),
        _its_own_node_rises_with_the_others,
        driven=True,
    ),
    Bug("just in time: nobody lowers what a command has left", ("L5",), _left_raised, driven=True),
    Bug("just in time: the knet values are left", ("S6",), _knet_values_are_left, driven=True),
    Bug("who was moved and wakes up alone acts at once", ("S8",), _who_wakes_up_alone_acts, clocks=True),
)

MENDED = {
    37415: Bug("what a long look has seen is believed", ("L2",), _a_long_look_is_believed),
    41117: Bug("who came back unseen has not returned", ("S8",), _nobody_returns_unseen),
    54477: Bug("just in time: who stood still lets the guest go", ("S4",), _who_stood_still_lets_go),
    82351: Bug("clocks: only hosts speak for having slept", ("S8",), _clocks_say_nothing_of_itself),
}
"""Seed -> a defect that the product had, which one of 100,000 seeds showed. They prove no checker: they prove
that what mended them is needed still."""
