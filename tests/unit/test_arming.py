"""Arming: when the end of a frozen window's lease leaves a lost node to its killing gate, and when not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from standfast.core.arming import Arm, ArmView, armed, came_back, decide, not_yet, whom
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.lease import AskHosts, Close, LeaseView, Over
from standfast.core.lease import decide as lease_decide
from standfast.core.record import Armed, Mode, Phase, Record, Totem
from standfast.core.report import Report
from standfast.core.steps import HostEntry, NodeAim

HOSTS = {f"ctrl{n}": HostEntry(f"ctrl{n}", 0, f"10.0.1.{n}", f"10.0.2.{n}", 1) for n in (1, 2, 3)}
AIMS = {f"n{n}": NodeAim(f"n{n}", f"guest{n}", f"ctrl{n}", 1, {}) for n in (1, 2, 3)}
WINDOW = Record(
    epoch=7,
    phase=Phase.OPEN,
    mover="n2",
    source="ctrl2",
    totem=Totem.RAISED,
    budget_seconds=600,
    lease_seconds=1000,
    window=5,
)
S = GuestState


def said(guest: str, **states: GuestState) -> tuple[HostAnswer, ...]:
    return tuple(HostAnswer(host, guest, states.get(host, S.ABSENT)) for host in HOSTS)


HOME = {f"n{n}": said(f"guest{n}", **{f"ctrl{n}": S.RUNNING}) for n in (1, 2, 3)}


def view(**changes: object) -> ArmView:
    """n1's look at a window whose mover n2 has been away for long."""
    made = ArmView(
        "n1",
        frozenset({"n1", "n3"}),
        WINDOW,
        quorate=True,
        aims=AIMS,
        hosts=HOSTS,
        absent_seconds={"n2": 90.0},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def of(**changes: object) -> ArmView:
    return view(record=replace(WINDOW, **changes))  # type: ignore[arg-type]


def test_it_is_armed_for_a_mover_that_is_lost_and_there() -> None:
    assert whom(view()) == ("n2", "")
    assert decide(view(), "n2", HOME) == (Arm("n2", 5, "n2"), "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"members": frozenset(AIMS)}, "no node is absent"),
        ({"quorate": False}, "n1 is in a part of the cluster without quorum"),
        ({"absent_seconds": {"n2": 59.9}}, "n2 has been absent for 60 s, and n1 waits for 60 s"),
        ({"absent_seconds": {}}, "n2 has been absent for 0 s, and n1 waits for 60 s"),
        (
            {"record": replace(WINDOW, mover=""), "members": frozenset({"n1"})},
            "n2 and n3 are absent",
        ),
        ({"record": replace(WINDOW, phase=Phase.OPENING)}, "nobody was told to migrate in it"),
        ({"record": replace(WINDOW, phase=Phase.CLOSING, abort=True)}, "nobody was told to migrate in it"),
    ],
)
def test_nobody_is_armed_for_without_reason(changes: dict[str, object], why: str) -> None:
    node, told = whom(view(**changes))
    assert node == ""
    assert why in told


PROVEN = replace(WINDOW, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED)


@pytest.mark.parametrize(
    "record", [replace(WINDOW, mode=Mode.GUARDED), replace(WINDOW, phase=Phase.IDLE), PROVEN]
)
def test_what_is_no_frozen_window_is_not_spoken_of(record: Record) -> None:
    assert whom(view(record=record)) == ("", "")


def test_a_window_for_every_node_is_armed_for_the_one_that_is_lost() -> None:
    away = {"members": frozenset({"n1", "n2"}), "absent_seconds": {"n3": 60.0}}
    assert whom(view(record=replace(WINDOW, mover=""), **away)) == ("n3", "")
    # So is one whose mover is well, and one that a -u of another guest has begun to close.
    assert whom(view(**away)) == ("n3", "")
    assert whom(view(record=replace(WINDOW, phase=Phase.CLOSING), **away)) == ("n3", "")


ARMED = replace(WINDOW, mode=Mode.GUARDED, armed=Armed.FOR_MOVER)


def test_an_armed_window_is_armed_once_more_where_its_node_is_back_and_another_one_is_lost() -> None:
    """Simulated, seed 70144: the second node was held for good."""
    away = {"record": ARMED, "members": frozenset({"n1", "n2"}), "absent_seconds": {"n3": 60.0}}
    assert whom(view(**away)) == ("n3", "")
    arm, why = decide(view(**away), "n3", HOME)
    assert (arm, why) == (Arm("n3", 5, "n2", "n2"), "")
    assert arm is not None
    found = armed(ARMED, arm, AIMS)
    assert found is not None
    assert (found.mover, found.source, found.target) == ("n3", "ctrl3", "")
    assert found.armed is Armed.FOR_EVERY_NODE
    assert found.settle == ("n2",), "its guest too has to be proven before the window closes"


def test_an_armed_window_stays_with_its_node_while_that_is_lost() -> None:
    both = {"n2": 200.0, "n3": 200.0}
    for members in (frozenset({"n1", "n3"}), frozenset({"n1"}), frozenset(AIMS)):
        assert whom(view(record=ARMED, members=members, absent_seconds=both)) == ("", "")


def test_what_it_was_armed_for_must_still_be_there_as_it_is_armed_for_another() -> None:
    arm = Arm("n3", 5, "n2", "n2")
    assert not came_back(arm, {"n1", "n2"})
    assert came_back(arm, {"n1"})
    assert came_back(arm, AIMS)
    assert armed(ARMED, Arm("n3", 5, "n2"), AIMS) is None, "nobody has seen it back"


def test_the_mover_is_armed_for_before_others_that_are_lost_too() -> None:
    assert whom(view(members=frozenset({"n1"}), absent_seconds={"n2": 60.0, "n3": 60.0}))[0] == "n2"


def test_each_node_waits_30_s_longer_than_the_one_before_it_and_the_mover_longest() -> None:
    """Of two that have fallen apart each sees the other one absent."""
    every, both = replace(WINDOW, mover=""), {node: AIMS[node] for node in ("n1", "n2")}
    for me, other, seconds in (("n1", "n2", 60.0), ("n2", "n1", 90.0)):
        two = {
            "me": me,
            "members": frozenset({me}),
            "aims": both,
            "record": every,
        }
        assert whom(view(**two, absent_seconds={other: seconds}))[0] == other
        assert whom(view(**two, absent_seconds={other: seconds - 1}))[0] == ""
    mover = view(me="n2", members=frozenset({"n2", "n3"}))
    assert whom(replace(mover, absent_seconds={"n1": 149.0}))[0] == ""
    assert whom(replace(mover, absent_seconds={"n1": 150.0}))[0] == "n1"


@pytest.mark.parametrize(
    ("node", "states", "why"),
    [
        ("n2", {"ctrl2": S.MIGRATING_OUT, "ctrl3": S.INCOMING}, "guest2 is being migrated (ctrl2"),
        ("n1", {"ctrl1": S.MIGRATING_OUT}, "guest1 is being migrated"),
        ("n3", {"ctrl1": S.INCOMING}, "guest3 is being migrated"),
        ("n2", {"ctrl2": S.RUNNING, "ctrl3": S.SILENT}, "ctrl3 gives no plain answer about guest2"),
        ("n2", {"ctrl2": S.UNKNOWN}, "ctrl2 gives no plain answer about guest2"),
        ("n1", {"ctrl1": S.RUNNING, "ctrl2": S.SILENT}, "ctrl2 gives no plain answer about guest1"),
        ("n2", {"ctrl2": S.STOPPED}, "no control domain has guest2"),
        ("n2", {}, "no control domain has guest2"),
    ],
)
def test_what_hosts_show_may_forbid_it(node: str, states: dict[str, GuestState], why: str) -> None:
    arm, told = decide(view(), "n2", {**HOME, node: said(f"guest{node[1]}", **states)})
    assert arm is None
    assert why in told


@pytest.mark.parametrize("state", [S.RUNNING, S.PAUSED, S.ERROR, S.CRASHED])
def test_what_hangs_or_is_half_moved_is_for_the_killing_gate(state: GuestState) -> None:
    assert decide(view(), "n2", {**HOME, "n2": said("guest2", ctrl2=state)})[0] == Arm("n2", 5, "n2")


def test_a_reported_migration_forbids_it_whatever_the_state_says() -> None:
    job = tuple(replace(answer, job=answer.host == "ctrl2") for answer in HOME["n2"])
    assert "being migrated" in decide(view(), "n2", {**HOME, "n2": job})[1]


def test_every_host_must_be_known_answer_and_be_told() -> None:
    assert decide(view(hosts={}), "n2", HOME)[1] == "no control domain is known"
    without = HOSTS | {"ctrl3": replace(HOSTS["ctrl3"], login=False)}
    assert "ctrl3 has no login" in decide(view(hosts=without), "n2", HOME)[1]
    more = HOSTS | {"ctrl4": replace(HOSTS["ctrl3"], name="ctrl4")}
    assert "ctrl4 gives no plain answer" in decide(view(hosts=more), "n2", HOME)[1]
    assert decide(of(source="ctrl9"), "n2", HOME)[1] == "ctrl9 is not in clovmmigrate.conf"
    assert decide(of(target="ctrl8"), "n2", HOME)[1] == "ctrl8 is not in clovmmigrate.conf"
    nowhere = AIMS | {"n2": replace(AIMS["n2"], host="")}
    assert "aim at no control domain" in decide(replace(of(source=""), aims=nowhere), "n2", HOME)[1]


def test_the_armed_record_is_a_guarded_one_and_nothing_else_has_moved() -> None:
    new = armed(WINDOW, Arm("n2", 5, "n2"), AIMS)
    assert new == replace(WINDOW, epoch=8, mode=Mode.GUARDED, armed=Armed.FOR_MOVER)


def test_for_another_node_the_record_says_so_and_its_mover_must_be_proven_too() -> None:
    closing = replace(WINDOW, phase=Phase.CLOSING, mover="n1", source="ctrl1", target="ctrl3", settle=("n2",))
    new = armed(closing, Arm("n3", 5, "n1"), AIMS)
    assert new is not None
    assert (new.mover, new.source, new.target) == ("n3", "ctrl3", "")
    assert (new.armed, new.settle, new.phase) == (Armed.FOR_EVERY_NODE, ("n1", "n2"), Phase.CLOSING)
    every = armed(replace(WINDOW, mover="", source=""), Arm("n2", 5, ""), AIMS)
    assert every is not None
    assert (every.mover, every.source, every.armed) == ("n2", "ctrl2", Armed.FOR_EVERY_NODE)


@pytest.mark.parametrize("node", ["n2", "n3"])
def test_a_window_that_is_proven_is_armed_for_nobody_since_it_holds_nobody(node: str) -> None:
    away = {"members": frozenset({"n1", "n2", "n3"} - {node}), "absent_seconds": {node: 600.0}}
    assert whom(view(record=PROVEN, **away)) == ("", "")
    assert armed(PROVEN, Arm(node, 5, "n2"), AIMS) is None


def test_whom_a_u_has_named_may_be_one_of_several_that_moved() -> None:
    new = armed(replace(WINDOW, phase=Phase.CLOSING), Arm("n2", 5, "n2"), AIMS)
    assert new is not None
    assert new.armed is Armed.FOR_EVERY_NODE


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 6},
        {"mover": "n1"},
        {"mode": Mode.GUARDED},
        {"phase": Phase.IDLE},
        {"phase": Phase.OPENING},
        {"phase": Phase.CLOSING, "aimed": True},
        {"phase": Phase.CLOSING, "abort": True},
    ],
)
def test_a_record_that_has_moved_meanwhile_is_left_alone(changes: dict[str, object]) -> None:
    assert armed(replace(WINDOW, **changes), Arm("n2", 5, "n2"), AIMS) is None  # type: ignore[arg-type]


def test_a_fencer_counts_by_its_report_of_this_epoch() -> None:
    record = replace(WINDOW, mode=Mode.GUARDED, armed=Armed.FOR_MOVER)
    reports = {
        "n1": Report("n1", epoch=7, killing="n2"),
        "n3": Report("n3", epoch=6, killing="n2"),
        "n4": Report("n4", epoch=7),
    }
    assert not_yet(record, ["n1", "n2", "n3", "n4", "n5"], reports) == ["n3", "n4", "n5"]


# -- in the order of what is done at the end of a lease ------------------------------------------------------


def lease(**changes: object) -> LeaseView:
    made = LeaseView(
        "n1",
        frozenset({"n1", "n3"}),
        WINDOW,
        5000.0,
        aims=AIMS,
        quorate=True,
        hosts=HOSTS,
        absent_seconds={"n2": 90.0},
        where=HOME,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_close_is_tried_first_and_its_refusal_is_followed_by_the_arming() -> None:
    assert isinstance(lease_decide(lease()), Close)
    tried = lease(seconds_since_attempt=1.0, refusal="n2 is missing", where=None)
    assert lease_decide(tried) == AskHosts()
    assert lease_decide(replace(tried, where=HOME)) == Arm("n2", 5, "n2")


def test_what_cannot_be_decided_is_armed_without_a_try() -> None:
    half = {**HOME, "n2": said("guest2", ctrl2=S.ERROR)}
    assert lease_decide(lease(where=half)) == Arm("n2", 5, "n2")


def test_the_hosts_are_not_asked_again_where_nobody_may_be_armed_for() -> None:
    tried = lease(seconds_since_attempt=1.0, refusal="no proof", where=None, members=frozenset(AIMS))
    answer = lease_decide(tried)
    assert isinstance(answer, Over)
    assert answer.why == "no proof; not armed: no node is absent"


def test_within_the_lease_and_out_of_turn_nobody_is_armed_for() -> None:
    tried = {"seconds_since_attempt": 1.0, "refusal": "n2 is missing"}
    assert not isinstance(lease_decide(lease(**tried, seconds_since_window_seen=999.0)), Arm)
    late = lease(**tried, me="n3", seconds_since_window_seen=1029.0, absent_seconds={"n2": 500.0})
    assert not isinstance(lease_decide(late), Arm)
    assert isinstance(lease_decide(replace(late, seconds_since_window_seen=1030.0)), Arm)


def test_the_mover_never_closes_and_arms_for_another_only() -> None:
    mover = lease(me="n2", members=frozenset({"n2", "n3"}), absent_seconds={"n1": 150.0})
    assert lease_decide(mover) == Arm("n1", 5, "n2")
    well = lease_decide(replace(mover, members=frozenset(AIMS)))
    assert isinstance(well, Over)
    assert (
        well.why == "n2 is the node that moves and never closes its own window; not armed: no node is absent"
    )
    assert isinstance(lease_decide(replace(mover, members=frozenset({"n1", "n3"}))), Over)


def test_an_arming_that_failed_is_told_and_tried_again_after_a_while() -> None:
    tried = lease(
        seconds_since_attempt=1.0,
        refusal="n2 is missing",
        seconds_since_arming=1.0,
        arm_refusal="the id kill-n2 belongs to a group",
    )
    answer = lease_decide(tried)
    assert isinstance(answer, Over)
    assert answer.why == "n2 is missing; not armed: the id kill-n2 belongs to a group"
    assert isinstance(lease_decide(replace(tried, seconds_since_arming=120.0)), Arm)


def test_the_alarm_of_an_armed_window_tells_whose_gate_acts_and_whose_fencer_lacks_it() -> None:
    record = replace(WINDOW, mode=Mode.GUARDED, armed=Armed.FOR_MOVER)
    stopped = {**HOME, "n2": said("guest2")}
    answer = lease_decide(lease(record=record, where=stopped, not_killing=("n3",)))
    assert isinstance(answer, Over)
    assert answer.why == (
        "no control domain shows guest2 running; armed: n2 is fenced by its killing gate, but not yet in the "
        "fencer of n3"
    )
