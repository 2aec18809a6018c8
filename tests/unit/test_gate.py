"""Every rule of the gate, each alone and against the rule that comes before it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.gate import JOINED_STATES, JUST_BACK_SECONDS, MET_SECONDS, Answer, GateView, Rule, decide
from standfast.core.record import Mode, Phase, Record, Totem
from standfast.core.topology import Device, Level

GATE = Device("gate-n2-1", "fence_standfast", {})
REAL = Device("SA-n2", "fence_xscf", {})
GOOD = Level(1, (GATE, REAL))
IDLE = Record(epoch=5)
WINDOW = Record(epoch=5, phase=Phase.OPEN, window=4, lease_seconds=100)
SAVED = dataclasses.replace(WINDOW, phase=Phase.CLOSING, saved={"ctrl2": "standfast-a"})
"""A window in which the host of n2 has saved its configuration."""


def hosts(**states: GuestState) -> tuple[HostAnswer, ...]:
    return tuple(HostAnswer(name, "g2", state) for name, state in states.items())


HOME = hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.ABSENT)
CLEAR = GateView(
    target="n2",
    executor="n1",
    controller_state="S_TRANSITION_ENGINE",
    record=IDLE,
    record_error="",
    levels=(GOOD,),
    membership=frozenset({"n1"}),
    seconds_since_epoch_seen=1000.0,
    seconds_since_window_seen=1000.0,
    aim="ctrl2",
    hosts=HOME,
)


def ask(**changes: object) -> Answer:
    return decide(dataclasses.replace(CLEAR, **changes))  # type: ignore[arg-type]


def test_with_nothing_against_it_the_gate_allows() -> None:
    assert ask() == Answer(True, Rule.CLEAR, "nothing speaks against fencing n2", hosts_matter=True)


def test_silent_hosts_are_no_evidence_outside_a_window() -> None:
    assert ask(hosts=()).allow
    assert ask(hosts=hosts(ctrl2=GuestState.SILENT, ctrl3=GuestState.UNKNOWN)).allow


@pytest.mark.parametrize(
    "state", ["", "S_STARTING", "S_PENDING", "S_ELECTION", "S_INTEGRATION", "S_STOPPING"]
)
def test_a_controller_that_has_not_joined_holds(state: str) -> None:
    answer = ask(controller_state=state)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.NOT_JOINED, False)


def test_who_has_just_met_others_does_not_believe_its_own_copy() -> None:
    answer = ask(seconds_since_met=MET_SECONDS - 0.1, levels=(Level(1, (GATE,)),))
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.NOT_JOINED, False)
    assert "may be old" in answer.reason
    assert ask(seconds_since_met=MET_SECONDS).allow


@pytest.mark.parametrize("state", sorted(JOINED_STATES))
def test_a_controller_that_has_joined_may_go_on(state: str) -> None:
    assert ask(controller_state=state).allow


def test_a_missing_or_damaged_record_holds_and_says_why() -> None:
    answer = ask(record=None, record_error="record format '2' is not known")
    assert (answer.allow, answer.rule) == (False, Rule.RECORD_UNKNOWN)
    assert "format '2'" in answer.reason
    assert ask(record=None).rule is Rule.RECORD_UNKNOWN


@pytest.mark.parametrize(
    "level",
    [
        Level(1, (GATE,)),
        Level(1, (REAL,)),
        Level(1, (REAL, GATE)),
        Level(1, (GATE, GATE)),
        Level(1, (GATE, REAL, GATE)),
        Level(1, (GATE, Device("w", "watchdog", {}))),
        Level(1, (GATE, Device("w", "fence_watchdog", {}))),
        Level(1, (GATE, Device("p", "fence_heuristics_ping", {}))),
        Level(1, (GATE, Device("nowhere", "", {}))),
        Level(1, ()),
    ],
)
def test_a_yes_that_no_real_device_follows_is_never_said(level: Level) -> None:
    for levels in ((level,), (GOOD, level), (level, GOOD)):
        answer = ask(levels=levels)
        assert (answer.allow, answer.rule, answer.final) == (False, Rule.LEVELS_UNSAFE, True)


def test_a_target_without_any_level_holds() -> None:
    assert ask(levels=()).rule is Rule.LEVELS_UNSAFE


def test_a_stopped_facility_holds_before_everything_else() -> None:
    assert ask(facility_stopped=True, controller_state="", record=None).rule is Rule.FACILITY_STOPPED


@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.OPEN, Phase.CLOSING])
def test_a_window_holds_everybody_until_its_lease_ends(phase: Phase) -> None:
    record = dataclasses.replace(WINDOW, phase=phase)
    for target in ("n2", "n1", "n7"):
        answer = ask(record=record, target=target, membership=frozenset(), seconds_since_window_seen=99.0)
        assert (answer.allow, answer.rule) == (False, Rule.FROZEN)


def test_in_a_window_a_target_that_is_back_is_answered_at_once() -> None:
    answer = ask(record=WINDOW, seconds_since_window_seen=99.0, membership=frozenset({"n1", "n2"}))
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)


OVER: dict[str, object] = {"record": SAVED, "seconds_since_window_seen": 161.0}
NOWHERE = hosts(ctrl2=GuestState.STOPPED, ctrl3=GuestState.ABSENT)


def test_after_the_lease_only_a_target_that_all_hosts_show_at_its_aim_or_nowhere_is_allowed() -> None:
    assert ask(**OVER).allow
    for here, there in itertools.product(GuestState, GuestState):
        answer = ask(
            **OVER, hosts=hosts(ctrl2=here, ctrl3=there), hosts_before=hosts(ctrl2=here, ctrl3=there)
        )
        plain = there.proves_not_here and (here is GuestState.RUNNING or here.proves_not_here)
        assert answer.allow is plain, (here, there)
    assert not ask(**OVER, hosts=NOWHERE).allow, "one round of answers proves no absence"
    assert not ask(**OVER, hosts=NOWHERE, hosts_before=HOME).allow
    assert not ask(**OVER, hosts=()).allow
    assert not ask(**OVER, aim="").allow


@pytest.mark.parametrize(
    "saved", [{}, {"ctrl3": "standfast-a"}, {"ctrl2": "skipped: it is dead"}, {"ctrl2": ""}]
)
def test_after_the_lease_a_host_whose_configuration_was_not_saved_is_not_used(saved: dict[str, str]) -> None:
    """Its service processor may map the name to another guest (C120-0105, 3.1.5)."""
    record = dataclasses.replace(SAVED, saved=saved)
    answer = ask(**OVER | {"record": record})
    assert (answer.allow, answer.rule) == (False, Rule.UNSAVED)
    assert "ctrl2" in answer.reason
    assert "clovmmigrate -u g2 ctrl2" in answer.reason
    assert ask(**OVER | {"record": record}, hosts=NOWHERE, hosts_before=NOWHERE).allow


def test_after_the_lease_the_word_of_the_operator_that_he_saved_counts() -> None:
    record = dataclasses.replace(SAVED, saved={"ctrl2": "by hand"})
    assert ask(**OVER | {"record": record}).allow


@pytest.mark.parametrize("changes", [{"phase": Phase.OPENING}, {"phase": Phase.CLOSING, "abort": True}])
def test_after_the_lease_of_a_window_that_was_never_open_nothing_is_to_be_saved(
    changes: dict[str, object],
) -> None:
    record = dataclasses.replace(WINDOW, **changes)  # type: ignore[arg-type]
    assert ask(**OVER | {"record": record}).allow


def test_after_the_lease_a_target_that_came_back_and_left_again_still_has_its_grace() -> None:
    answer = ask(**OVER, seconds_since_return=14.0)
    assert (answer.allow, answer.rule) == (False, Rule.SETTLING)
    assert ask(**OVER, seconds_since_return=15.0).allow


def test_after_the_lease_a_member_may_be_fenced_once_it_has_settled() -> None:
    """A failed stop asks for the fencing of a member: no rule of the window may refuse it for ever."""
    members = frozenset({"n1", "n2"})
    returning = ask(**OVER, membership=members, seconds_since_return=JUST_BACK_SECONDS - 0.1)
    assert (returning.allow, returning.rule, returning.final) == (False, Rule.TARGET_BACK, True)
    assert ask(**OVER, membership=members, seconds_since_return=float(JUST_BACK_SECONDS)).allow
    assert ask(**OVER, membership=members).allow
    before = ask(record=SAVED, seconds_since_window_seen=99.9, membership=members)
    assert (before.rule, before.final) == (Rule.TARGET_BACK, True)


def test_the_hold_that_ends_with_the_lease_leaves_a_minute_to_come_back() -> None:
    for past, allow in ((0.0, False), (59.9, False), (60.0, True)):
        answer = ask(record=SAVED, seconds_since_window_seen=100.0 + past)
        assert answer.allow is allow, past
        assert allow or answer.rule is Rule.SETTLING
    gone = ask(record=SAVED, seconds_since_window_seen=100.0, hosts=NOWHERE, hosts_before=NOWHERE)
    assert gone.allow


@pytest.mark.parametrize("where", [{"record": IDLE}, OVER])
def test_a_hold_by_what_the_hosts_said_leaves_a_minute_to_come_back(where: dict[str, object]) -> None:
    """A migration was cancelled: the guest runs at its aim again, its node is not back yet."""
    answer = ask(**where, seconds_since_held=59.9)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.SETTLING, False)
    assert answer.hosts_matter
    assert ask(**where, seconds_since_held=60.0).allow
    assert not ask(**where, seconds_since_held=1.0, hosts=NOWHERE, hosts_before=HOME).allow
    assert ask(**where, seconds_since_held=1.0, hosts=NOWHERE, hosts_before=NOWHERE).allow


def test_without_a_window_a_target_that_is_back_after_such_a_hold_is_answered_at_once() -> None:
    members = frozenset({"n1", "n2"})
    for evidence in (HOME, NOWHERE, ()):
        answer = ask(membership=members, seconds_since_held=59.9, hosts=evidence, hosts_before=evidence)
        assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)
    assert ask(membership=members, seconds_since_held=60.0).allow


@pytest.mark.parametrize("back", [True, False])
def test_after_a_window_its_nodes_settle_for_fifteen_seconds(back: bool) -> None:
    members = frozenset({"n1", "n2"} if back else {"n1"})
    record = dataclasses.replace(IDLE, settle=("n2",))
    answer = ask(record=record, membership=members, seconds_since_epoch_seen=14.9)
    assert not answer.allow
    assert answer.rule is (Rule.TARGET_BACK if back else Rule.SETTLING)
    assert ask(record=record, membership=members, seconds_since_epoch_seen=15.0).allow


@pytest.mark.parametrize("settles", ["n1", "n3"])
def test_after_a_window_nobody_who_is_a_member_is_killed_by_a_fencing_that_it_has_held(settles: str) -> None:
    """n2 died in a window of another node, was held, and is back: the fencer still asks."""
    record = dataclasses.replace(IDLE, settle=(settles,))
    members = frozenset({"n1", "n2"})
    answer = ask(record=record, membership=members, seconds_since_epoch_seen=14.9)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)
    assert ask(record=record, membership=members, seconds_since_epoch_seen=15.0).allow
    if settles != "n1":
        assert ask(record=record, membership=frozenset({"n1"}), seconds_since_epoch_seen=3.0).allow


def test_a_node_that_settles_itself_kills_nobody() -> None:
    record = dataclasses.replace(IDLE, settle=("n1",))
    assert ask(record=record, seconds_since_epoch_seen=3.0).rule is Rule.EXECUTOR_MOVING
    assert ask(record=record, seconds_since_epoch_seen=15.0).allow


def test_a_member_may_be_fenced_outside_a_window() -> None:
    """A failed stop needs it: without a window the gate is never less available than plain Pacemaker."""
    assert ask(membership=frozenset({"n1", "n2"})).allow
    assert ask(membership=None).allow


@pytest.mark.parametrize("state", list(GuestState))
def test_a_host_that_shows_the_target_elsewhere_holds(state: GuestState) -> None:
    answer = ask(hosts=hosts(ctrl2=GuestState.STOPPED, ctrl3=state))
    assert answer.allow is not state.is_present
    if state is GuestState.RUNNING:
        assert answer.rule is Rule.ELSEWHERE
        assert "clovmmigrate -u g2 ctrl3" in answer.reason


@pytest.mark.parametrize("state", [GuestState.MIGRATING_OUT, GuestState.INCOMING, GuestState.ERROR])
def test_a_migration_that_nobody_announced_holds_on_either_side(state: GuestState) -> None:
    assert ask(hosts=hosts(ctrl2=state)).rule is Rule.ELSEWHERE
    assert ask(aim="", hosts=hosts(ctrl2=state)).rule is Rule.ELSEWHERE


@pytest.mark.parametrize(
    "state", [GuestState.RUNNING, GuestState.PAUSED, GuestState.CRASHED, GuestState.STOPPED]
)
def test_a_target_at_home_may_be_fenced_whatever_its_state(state: GuestState) -> None:
    assert ask(hosts=hosts(ctrl2=state, ctrl3=GuestState.ABSENT)).allow


def test_every_hold_has_a_sentence_and_no_allow_has_another_rule() -> None:
    states = ["S_IDLE", ""]
    records: list[Record | None] = [None, IDLE, WINDOW, dataclasses.replace(IDLE, settle=("n2",))]
    levels = [(), (GOOD,), (Level(1, (GATE,)),)]
    times = [0.0, 200.0]
    answers = [
        ask(
            controller_state=state,
            record=record,
            levels=level,
            seconds_since_epoch_seen=time,
            seconds_since_window_seen=time,
            facility_stopped=stopped,
        )
        for state, record, level, time, stopped in itertools.product(
            states, records, levels, times, [True, False]
        )
    ]
    assert all(answer.reason for answer in answers)
    assert {answer.rule for answer in answers if answer.allow} == {Rule.CLEAR}
    assert any(answer.allow for answer in answers)


def test_a_member_that_came_back_a_moment_ago_is_not_killed_without_a_window_either() -> None:
    """The fencing that was asked for while it was away may still go on: another node's gate has held it."""
    member = frozenset({"n1", "n2"})
    answer = ask(membership=member, seconds_since_return=JUST_BACK_SECONDS - 0.1)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)
    assert ask(membership=member, seconds_since_return=float(JUST_BACK_SECONDS)).allow  # on-fail=fence
    assert ask(membership=member).allow
    assert ask(seconds_since_return=1.0).allow  # back, and lost again: no member


# -- a window whose guests are proven, and that waits for its clocks -----------------------------------------

PROVEN = dataclasses.replace(SAVED, aimed=True, totem=Totem.RAISED, mover="n2", settle=("n2",))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("totem", list(Totem))
@pytest.mark.parametrize("lease", [10, 100_000])
def test_once_all_is_proven_fencing_is_as_after_a_window_whatever_the_heartbeat(
    mode: Mode, totem: Totem, lease: int
) -> None:
    proven = dataclasses.replace(PROVEN, mode=mode, totem=totem, lease_seconds=lease)
    closed = dataclasses.replace(IDLE, settle=("n2",))
    views = [
        {"target": target, "executor": executor, "membership": frozenset(members), **evidence, **times}
        for target, executor in itertools.permutations(("n1", "n2", "n3"), 2)
        for members in ({executor}, {executor, target}, {"n1", "n2", "n3"})
        for evidence in (
            {},
            {"hosts": NOWHERE, "hosts_before": NOWHERE},
            {"hosts": hosts(ctrl2=GuestState.MIGRATING_OUT, ctrl3=GuestState.INCOMING)},
            {"hosts": hosts(ctrl2=GuestState.STOPPED, ctrl3=GuestState.RUNNING)},
            {"hosts": ()},
            ASTRAY,
        )
        for times in (
            {"seconds_since_epoch_seen": 3.0},
            {"seconds_since_epoch_seen": 15.0},
            {"seconds_since_return": 14.0},
            {"seconds_since_held": 59.0},
        )
    ]
    allowed = 0
    for view in views:
        answer, after = ask(record=proven, **view), ask(record=closed, **view)
        alone = view["membership"] == {view["executor"]}
        if proven.waits_for_clocks and alone and answer.rule is Rule.EXECUTOR_MOVING:
            # The one thing that is otherwise: who sees no other node may have been moved once more.
            assert after.allow or after.rule in (Rule.EXECUTOR_MOVING, Rule.SETTLING), view
            continue
        assert (answer.allow, answer.rule, answer.final) == (after.allow, after.rule, after.final), view
        allowed += answer.allow
    assert 0 < allowed < len(views)
    settling = ask(record=proven, seconds_since_epoch_seen=3.0)
    assert settling.reason.startswith("fencing was armed again less than 15 s ago (12 s left)")


def test_while_clocks_are_waited_for_a_node_that_sees_no_other_may_have_stood_still_itself() -> None:
    """Two nodes: a move without a word that was called off leaves its guest where its devices aim, so that no
    host tells that its node was asleep."""
    alone = {"target": "n1", "executor": "n2", "membership": frozenset({"n2"}), **ASTRAY}
    alone["own_hosts"], alone["own_aim"] = hosts(ctrl1=GuestState.RUNNING), "ctrl1"
    assert ask(record=dataclasses.replace(IDLE, settle=()), **alone).allow
    held = ask(record=PROVEN, **alone)
    assert (held.allow, held.rule, held.final) == (False, Rule.EXECUTOR_MOVING, False)
    assert "a window still waits for the clocks to agree; it holds for 45 s more" in held.reason
    assert ask(record=PROVEN, seconds_held_as_mover=45.0, **alone).allow
    assert ask(record=PROVEN, **(alone | {"hosts": NOWHERE, "hosts_before": NOWHERE})).allow
    assert ask(record=PROVEN, **(alone | {"membership": frozenset({"n2", "n3"})})).allow
    assert ask(record=dataclasses.replace(PROVEN, totem=Totem.LOWERED), **alone).allow


def test_an_opening_that_is_put_back_holds_as_before() -> None:
    record = dataclasses.replace(PROVEN, abort=True, totem=Totem.EXPLICIT)
    assert ask(record=record, seconds_since_window_seen=50.0).rule is Rule.FROZEN


# -- a node that was moved without a word, and wakes up alone ------------------------------------------------

ASTRAY = {
    "own_hosts": (
        HostAnswer("ctrl1", "g1", GuestState.ABSENT),
        HostAnswer("ctrl3", "g1", GuestState.RUNNING),
    ),
    "own_aim": "ctrl1",
}
PAST = dataclasses.replace(SAVED, lease_seconds=10)


@pytest.mark.parametrize("record", [IDLE, PAST])
def test_who_sees_no_other_node_and_runs_elsewhere_than_its_devices_aim_holds_for_45_s(
    record: Record,
) -> None:
    answer = ask(record=record, **ASTRAY)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.EXECUTOR_MOVING, False)
    assert (
        "ctrl3 shows its guest g1 running, and its devices aim at ctrl1; it holds for 45 s" in answer.reason
    )
    assert ask(record=record, **ASTRAY, seconds_held_as_mover=44.9).rule is Rule.EXECUTOR_MOVING
    assert ask(record=record, **ASTRAY, seconds_held_as_mover=45.0).allow


def test_who_is_not_alone_runs_at_home_or_faces_one_that_is_gone_does_not_hold_for_its_own_sake() -> None:
    assert ask(**ASTRAY, membership=frozenset({"n1", "n3"})).allow
    assert ask(own_hosts=ASTRAY["own_hosts"], own_aim="ctrl3").allow
    assert ask(own_hosts=(HostAnswer("ctrl3", "g1", GuestState.SILENT),), own_aim="ctrl1").allow
    gone = hosts(ctrl2=GuestState.STOPPED, ctrl3=GuestState.ABSENT)
    assert ask(**ASTRAY, hosts=gone, hosts_before=gone).allow


@pytest.mark.parametrize("state", [GuestState.INCOMING, GuestState.MIGRATING_OUT])
def test_who_is_on_its_way_holds_for_as_long_wherever_its_devices_aim(state: GuestState) -> None:
    own = (HostAnswer("ctrl1", "g1", state),)
    assert ask(own_hosts=own, own_aim="ctrl1").rule is Rule.EXECUTOR_MOVING
    assert ask(own_hosts=own, own_aim="").rule is Rule.EXECUTOR_MOVING
    assert ask(own_hosts=own, own_aim="ctrl1", seconds_held_as_mover=45.0).allow
