"""The ordinary gates in a guarded window: the mover is not theirs, and the mover itself believes nothing."""

from __future__ import annotations

import dataclasses

import pytest
from test_gate import CLEAR, GOOD, HOME, hosts

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.gate import (
    JUST_BACK_SECONDS,
    MOVER_HOLD_SECONDS,
    Answer,
    GateView,
    Rule,
    decide,
    plainly_on,
)
from standfast.core.killing import RUNNING_LIMIT_SECONDS
from standfast.core.names import SETTLE_SECONDS
from standfast.core.record import Armed, Mode, Phase, Record

WINDOW = Record(epoch=5, phase=Phase.OPEN, window=4, lease_seconds=100, mode=Mode.GUARDED, mover="n2")
OWN = hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.ABSENT)
OTHER = dataclasses.replace(
    CLEAR,
    target="n3",
    executor="n1",
    record=WINDOW,
    seconds_since_window_seen=10.0,
    aim="ctrl1",
    hosts=(HostAnswer("ctrl1", "g3", GuestState.RUNNING), HostAnswer("ctrl2", "g3", GuestState.ABSENT)),
)
MOVER_ASKS = dataclasses.replace(
    OTHER, executor="n2", mover_hosts=OWN, seconds_held_as_mover=MOVER_HOLD_SECONDS
)


def ask(view: GateView, **changes: object) -> Answer:
    return decide(dataclasses.replace(view, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.OPEN, Phase.CLOSING])
def test_an_ordinary_gate_does_not_let_the_mover_through_within_the_lease(phase: Phase) -> None:
    """Whoever asks here has no killing gate: a fencer that is starting, or before the window is whole."""
    record = dataclasses.replace(WINDOW, phase=phase)
    answer = ask(CLEAR, record=record, seconds_since_window_seen=10.0, hosts=HOME, hosts_before=HOME)
    assert (answer.allow, answer.rule, answer.hosts_matter) == (False, Rule.GUARDED, True)


@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.OPEN, Phase.CLOSING])
def test_a_mover_that_is_on_no_host_in_two_rounds_is_not_held(phase: Phase) -> None:
    """A command that dies while it opens or closes leaves no killing gate: a real death must not wait."""
    record = dataclasses.replace(WINDOW, phase=phase)
    for gone in (
        hosts(ctrl2=GuestState.STOPPED, ctrl3=GuestState.ABSENT),
        hosts(ctrl2=GuestState.ABSENT, ctrl3=GuestState.ABSENT),
    ):
        within = {"record": record, "seconds_since_window_seen": 10.0, "hosts": gone}
        assert ask(CLEAR, **within, hosts_before=gone).allow
        assert ask(CLEAR, **within).rule is Rule.GUARDED
        member = frozenset({"n1", "n2"})
        assert ask(CLEAR, **within, hosts_before=gone, membership=member).rule is Rule.GUARDED
        assert ask(CLEAR, **within, hosts_before=HOME).rule is Rule.GUARDED


@pytest.mark.parametrize(
    "on_its_way",
    [
        hosts(ctrl2=GuestState.MIGRATING_OUT, ctrl3=GuestState.INCOMING),
        hosts(ctrl2=GuestState.ABSENT, ctrl3=GuestState.SILENT),
        hosts(ctrl2=GuestState.PAUSED, ctrl3=GuestState.ABSENT),
        (),
    ],
)
def test_after_the_lease_an_ordinary_gate_judges_the_mover_as_in_a_frozen_window(
    on_its_way: tuple[HostAnswer, ...],
) -> None:
    saved = dataclasses.replace(WINDOW, phase=Phase.CLOSING, saved={"ctrl2": "standfast-a"})
    late = {"seconds_since_window_seen": 1000.0, "hosts_before": on_its_way}
    answer = ask(CLEAR, record=saved, hosts=on_its_way, **late)
    assert (answer.allow, answer.rule) == (False, Rule.UNSAVED)
    assert ask(CLEAR, record=WINDOW, hosts=HOME, **late).rule is Rule.UNSAVED
    assert ask(CLEAR, record=saved, hosts=HOME, **late).allow
    just = {**late, "seconds_since_window_seen": WINDOW.lease_seconds + 1.0}
    assert ask(CLEAR, record=saved, hosts=HOME, **just).rule is Rule.SETTLING
    back = ask(CLEAR, record=saved, hosts=HOME, membership=frozenset({"n1", "n2"}), **just)
    assert (back.allow, back.rule) == (False, Rule.TARGET_BACK)


def test_another_node_is_fenced_as_always() -> None:
    assert ask(OTHER).allow
    assert ask(OTHER, membership=frozenset({"n1", "n3"})).allow  # on-fail=fence of a member


def test_another_node_that_came_back_a_moment_ago_is_not_killed() -> None:
    """The mover's gate may have held it until now, while the window was not whole."""
    member = frozenset({"n1", "n3"})
    answer = ask(OTHER, membership=member, seconds_since_return=JUST_BACK_SECONDS - 0.1)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)
    assert ask(OTHER, membership=member, seconds_since_return=float(JUST_BACK_SECONDS)).allow


@pytest.mark.parametrize(
    "never_open", [{"phase": Phase.OPENING}, {"phase": Phase.CLOSING, "abort": True}], ids=str
)
def test_the_mover_of_a_window_that_was_never_open_holds_nobody(never_open: dict[str, object]) -> None:
    """Nobody was told to migrate; and in a larger cluster its hold only lets another node's gate kill who has
    come back meanwhile."""
    record = dataclasses.replace(WINDOW, **never_open)  # type: ignore[arg-type]
    for member in (frozenset({"n2"}), frozenset({"n2", "n3"})):
        assert ask(MOVER_ASKS, record=record, membership=member, seconds_held_as_mover=None).allow
    closing = dataclasses.replace(WINDOW, phase=Phase.CLOSING)
    assert ask(MOVER_ASKS, record=closing, seconds_held_as_mover=None).rule is Rule.EXECUTOR_MOVING


def test_another_node_that_runs_elsewhere_is_held_as_always() -> None:
    moved = (HostAnswer("ctrl1", "g3", GuestState.ABSENT), HostAnswer("ctrl2", "g3", GuestState.RUNNING))
    assert ask(OTHER, hosts=moved).rule is Rule.ELSEWHERE


def test_levels_and_controller_are_looked_at_first_as_always() -> None:
    assert ask(OTHER, levels=()).rule is Rule.LEVELS_UNSAFE
    assert ask(OTHER, controller_state="S_PENDING").rule is Rule.NOT_JOINED
    assert GOOD.guarded


def test_the_mover_fences_only_after_it_has_held_and_is_seen_running() -> None:
    assert ask(MOVER_ASKS).allow


def test_a_mover_does_not_hold_a_target_that_is_on_no_host_in_two_rounds() -> None:
    """What it believes of others may be from before; what every host says now, twice, is not."""
    gone = (HostAnswer("ctrl1", "g3", GuestState.STOPPED), HostAnswer("ctrl2", "g3", GuestState.ABSENT))
    fresh = {"seconds_held_as_mover": None, "hosts": gone}
    assert ask(MOVER_ASKS, **fresh, hosts_before=gone).allow
    assert ask(MOVER_ASKS, **fresh).rule is Rule.EXECUTOR_MOVING
    member = frozenset({"n2", "n3"})
    assert ask(MOVER_ASKS, **fresh, hosts_before=gone, membership=member).rule is Rule.TARGET_BACK


def test_a_mover_fences_no_member_in_its_window() -> None:
    """What it asked for as it woke up goes on for four levels of 5 s after the other one is back."""
    for held in (None, 10.0, 1000.0):
        answer = ask(MOVER_ASKS, membership=frozenset({"n2", "n3"}), seconds_held_as_mover=held)
        assert (answer.allow, answer.rule, answer.final) == (False, Rule.TARGET_BACK, True)


def test_the_mover_holds_longer_than_two_healthy_nodes_need_to_meet_and_shorter_than_its_killing_gate() -> (
    None
):
    assert 33.0 < MOVER_HOLD_SECONDS < RUNNING_LIMIT_SECONDS - 10.0


@pytest.mark.parametrize("held", [None, 0.0, SETTLE_SECONDS, MOVER_HOLD_SECONDS - 0.1])
def test_the_mover_holds_first(held: float | None) -> None:
    answer = ask(MOVER_ASKS, seconds_held_as_mover=held)
    assert (answer.allow, answer.rule) == (False, Rule.EXECUTOR_MOVING)
    assert answer.hosts_matter


@pytest.mark.parametrize(
    "own",
    [
        (),
        hosts(ctrl2=GuestState.PAUSED, ctrl3=GuestState.ABSENT),
        hosts(ctrl2=GuestState.MIGRATING_OUT, ctrl3=GuestState.INCOMING),
        hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.SILENT),
        hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.RUNNING),
        hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.UNKNOWN),
    ],
)
def test_a_mover_that_is_not_plainly_running_holds_for_ever(own: tuple[HostAnswer, ...]) -> None:
    answer = ask(MOVER_ASKS, mover_hosts=own, seconds_held_as_mover=1000.0)
    assert (answer.allow, answer.rule) == (False, Rule.EXECUTOR_MOVING)
    assert plainly_on(own) == ""


def test_plainly_on_names_the_one_host() -> None:
    assert plainly_on(OWN) == "ctrl2"


# -- hosts that take part in the migration -------------------------------------------------------------------

NEIGHBOUR = dataclasses.replace(OTHER, record=dataclasses.replace(WINDOW, source="ctrl1"))
"""n3 lives on ctrl1, from where the mover is migrated."""


@pytest.mark.parametrize(
    ("record", "mover_hosts"),
    [
        ({"source": "ctrl1"}, ()),
        ({"source": "ctrl2", "target": "ctrl1"}, ()),
        ({"source": "ctrl2"}, hosts(ctrl2=GuestState.MIGRATING_OUT, ctrl1=GuestState.INCOMING)),
        ({"source": "ctrl2"}, hosts(ctrl2=GuestState.ABSENT, ctrl1=GuestState.RUNNING)),
    ],
)
def test_a_service_processor_that_takes_part_in_the_migration_kills_nobody_before_it_has_saved(
    record: dict[str, str], mover_hosts: tuple[HostAnswer, ...]
) -> None:
    window = dataclasses.replace(WINDOW, **record)  # type: ignore[arg-type]
    answer = ask(OTHER, record=window, mover_hosts=mover_hosts)
    assert (answer.allow, answer.rule) == (False, Rule.UNSAVED)
    assert "ctrl1" in answer.reason
    saved = dataclasses.replace(window, saved={"ctrl1": "standfast-a"})
    assert ask(OTHER, record=saved, mover_hosts=mover_hosts).allow
    skipped = dataclasses.replace(window, saved={"ctrl1": "skipped: burnt"})
    assert not ask(OTHER, record=skipped, mover_hosts=mover_hosts).allow


def test_a_host_that_takes_no_part_is_used_as_always() -> None:
    window = dataclasses.replace(WINDOW, source="ctrl2", target="ctrl3")
    assert ask(OTHER, record=window, mover_hosts=hosts(ctrl2=GuestState.RUNNING)).allow
    silent = hosts(ctrl2=GuestState.RUNNING, ctrl1=GuestState.SILENT)
    assert ask(OTHER, record=window, mover_hosts=silent).allow


def test_a_neighbour_that_is_gone_everywhere_is_let_through_to_its_device_s_own_proof() -> None:
    gone = (HostAnswer("ctrl1", "g3", GuestState.STOPPED), HostAnswer("ctrl2", "g3", GuestState.ABSENT))
    assert ask(NEIGHBOUR, hosts=gone, hosts_before=gone).allow
    assert not ask(NEIGHBOUR, hosts=gone).allow


def test_armed_in_a_window_for_every_node_no_xscf_is_trusted_before_its_host_has_saved() -> None:
    """Any guest may have moved in it, so that any host may have a stale map."""
    late = {"seconds_since_window_seen": 500.0}
    assert ask(OTHER, **late, record=dataclasses.replace(WINDOW, armed=Armed.FOR_MOVER)).allow
    every = dataclasses.replace(WINDOW, armed=Armed.FOR_EVERY_NODE)
    answer = ask(OTHER, **late, record=every)
    assert (answer.allow, answer.rule) == (False, Rule.UNSAVED)
    assert "n3 is on ctrl1, which has not saved" in answer.reason
    assert ask(OTHER, **late, record=dataclasses.replace(every, saved={"ctrl1": "standfast-a"})).allow
    gone = tuple(dataclasses.replace(answer, state=GuestState.ABSENT) for answer in OTHER.hosts)
    assert ask(OTHER, **late, record=every, hosts=gone, hosts_before=gone).allow
