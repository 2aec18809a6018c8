"""Fencing comes back before a close waits for clocks: a lagging clock costs only the lowering."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core import heartbeat
from standfast.core.evidence import GuestState
from standfast.core.record import Mode, Phase, Record, Totem
from standfast.core.steps import CloseGoal, Done, OpenGoal, Reload, Stop, Unguard, Wait, WriteRecord

MOVED = {"ctrl3": GuestState.RUNNING}
FOR_G2 = dataclasses.replace(OPEN, mover="n2")
RAISED_GUARDED = dataclasses.replace(FOR_G2, budget_seconds=60, mode=Mode.GUARDED, target="ctrl3")
IGNORE = dataclasses.replace(CLOSE, ignore_clocks="its clock card is broken")
G1 = CloseGoal(node="n1", guest="g1", target="ctrl1")


def lagging(count: int = 3, goal: OpenGoal = OPEN) -> FakeCluster:
    """A window in which g2 has come to ctrl3, 20 s late."""
    cluster = opened(count, goal)
    cluster.guest_on = dict(MOVED)
    cluster.clock_ahead = {"n2": -20.0}
    return cluster


def proven(count: int = 3, goal: OpenGoal = OPEN) -> FakeCluster:
    """The same, after a -u that only its clocks were in the way of."""
    cluster = lagging(count, goal)
    assert codes(drive(cluster, CLOSE)) == ["CLOCKS"]
    assert cluster.record.waits_for_clocks
    return cluster


def raised(cluster: FakeCluster) -> bool:
    timeouts = {heartbeat.timeout_ms(node.runtime) for node in cluster.nodes.values()}
    return timeouts == {cluster.record.budget_seconds * 1000}


def reached(cluster: FakeCluster) -> bool:
    """Whether the devices of g2 aim where it is."""
    return cluster.guest_on.get(cluster.aims["n2"]) is GuestState.RUNNING


# -- the state, and what is said of it -----------------------------------------------------------------------


@pytest.mark.parametrize("goal", [OPEN, FOR_G2, RAISED_GUARDED])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_lagging_clock_leaves_a_window_that_is_proven_and_holds_nobody(count: int, goal: OpenGoal) -> None:
    cluster = proven(count, goal)
    record = cluster.record
    assert (record.open, record.proven, record.holds) == (True, True, False)
    assert record.settle == ("n2",)
    assert cluster.guarded == set()
    assert raised(cluster)
    assert reached(cluster)


def test_the_refusal_and_the_last_line_say_that_fencing_is_armed() -> None:
    outcome = drive(lagging(), CLOSE)
    assert isinstance(outcome, Stop)
    assert outcome.left == "fencing is armed again, only the heartbeat timeout is still raised"
    assert outcome.left in outcome.messages[0].text
    assert "move no guest" in outcome.messages[0].text
    other = drive(lagging(), dataclasses.replace(CLOSE, target="ctrl2"))
    assert isinstance(other, Stop)
    assert (codes(other), other.left) == (["OTHER_HOST"], "")


def test_p_is_refused_meanwhile_and_says_so() -> None:
    outcome = drive(proven(), OPEN)
    assert codes(outcome) == ["CLOSING"]
    assert isinstance(outcome, Stop)
    assert "only the heartbeat timeout is still raised" in outcome.messages[0].text


@pytest.mark.parametrize(
    ("changes", "proven", "waits", "holds"),
    [
        ({"phase": Phase.OPEN, "totem": Totem.RAISED}, False, False, True),
        ({"phase": Phase.CLOSING, "totem": Totem.RAISED}, False, False, True),
        ({"phase": Phase.CLOSING, "totem": Totem.RAISED, "aimed": True}, True, True, False),
        ({"phase": Phase.CLOSING, "totem": Totem.EXPLICIT, "aimed": True}, True, False, False),
        ({"phase": Phase.CLOSING, "aimed": True}, True, False, False),
        ({"phase": Phase.CLOSING, "totem": Totem.EXPLICIT, "aimed": True, "abort": True}, False, False, True),
        ({"phase": Phase.IDLE, "aimed": True}, False, False, False),
    ],
)
def test_what_a_record_means_for_fencing(
    changes: dict[str, object], proven: bool, waits: bool, holds: bool
) -> None:
    record = dataclasses.replace(Record(epoch=3), **changes)  # type: ignore[arg-type]
    assert (record.proven, record.waits_for_clocks, record.holds) == (proven, waits, holds)
    assert bool(record.left) is proven


# -- what it costs where the clocks agree --------------------------------------------------------------------


def writes(cluster: FakeCluster, goal: CloseGoal) -> list[Record]:
    command, found = Command(cluster, goal, "n1"), []
    while not isinstance(step := command.look(), Done):
        assert not isinstance(step, Stop), step
        if isinstance(step, WriteRecord | Unguard):
            found.append(step.record)
        command.act(step)
    return found


@pytest.mark.parametrize("goal", [OPEN, RAISED_GUARDED])
def test_where_the_clocks_agree_nothing_is_written_or_waited_for_that_was_not_before(goal: OpenGoal) -> None:
    cluster = opened(3, goal)
    cluster.guest_on = dict(MOVED)
    found = writes(cluster, CLOSE)
    assert [(r.phase, r.aimed, r.totem) for r in found] == [
        (Phase.CLOSING, False, Totem.RAISED),
        (Phase.CLOSING, True, Totem.EXPLICIT),
        (Phase.CLOSING, True, Totem.ORIGINAL),
        (Phase.IDLE, True, Totem.ORIGINAL),
    ]
    assert not any(line.startswith("Wait") and "clocks" in line for line in cluster.log)


def test_clocks_that_are_measured_a_moment_later_cost_no_write_either() -> None:
    cluster = opened(3)
    cluster.guest_on = dict(MOVED)
    cluster.stale_clocks = True
    command = Command(cluster, CLOSE, "n1")
    while not (isinstance(step := command.look(), Wait) and step.key == "measured"):
        assert not isinstance(step, Stop | Done)
        command.act(step)
    assert step.limit_seconds <= 3.0
    cluster.stale_clocks = False
    cluster.sync()
    after = command.look()
    assert isinstance(after, WriteRecord)
    assert (after.record.aimed, after.record.totem) == (True, Totem.EXPLICIT)


def test_who_is_known_to_be_out_or_does_not_measure_is_not_waited_for_before_fencing_is_armed() -> None:
    for trouble in ("lags", "older"):
        cluster = lagging() if trouble == "lags" else opened(3)
        cluster.guest_on = dict(MOVED)
        cluster.no_clocks = {"n3"} if trouble == "older" else set()
        drive(cluster, CLOSE)
        before = cluster.log[: next(i for i, line in enumerate(cluster.log) if "fencing is armed" in line)]
        assert not any(line.startswith("Wait: the clocks") for line in before)


# -- -u again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("me", ["n1", "n2", "n3"])
@pytest.mark.parametrize("goal", [CLOSE, G1])
def test_u_again_proves_again_with_fencing_armed_while_a_clock_lags(me: str, goal: CloseGoal) -> None:
    cluster = proven()
    asked = cluster.record.prove

    def armed(now: FakeCluster, step: int) -> None:
        assert now.record.waits_for_clocks

    outcome = drive(cluster, goal, me=me, disturb=armed)
    assert codes(outcome) == ["CLOCKS"]
    assert isinstance(outcome, Stop)
    assert f"clovmmigrate -u {goal.guest} {goal.target}" in outcome.messages[0].next_command
    assert (cluster.record.mover, cluster.record.prove > asked, raised(cluster)) == (goal.node, True, True)


@pytest.mark.parametrize("me", ["n1", "n2", "n3"])
@pytest.mark.parametrize("goal", [CLOSE, IGNORE, G1])
@pytest.mark.parametrize("opening", [OPEN, FOR_G2, RAISED_GUARDED])
def test_u_again_proves_again_and_lowers_once_the_clocks_agree_or_do_not_count(
    me: str, goal: CloseGoal, opening: OpenGoal
) -> None:
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster = proven(3, opening)
    asked = cluster.record.prove
    if not goal.ignore_clocks:
        cluster.clock_ahead = {}
        cluster.sync()
    command = Command(cluster, goal, me)
    while not isinstance(step := command.look(), Done):
        assert not isinstance(step, Stop), step
        assert not cluster.record.holds, "fencing stays armed"
        command.act(step)
        assert raised(cluster) or cluster.record.prove > asked, "lowered by an old proof"
    assert cluster.facts() == before
    assert reached(cluster)
    assert "n2" in cluster.record.settle


def test_a_guest_that_moves_again_is_found_and_nothing_is_lowered() -> None:
    cluster = proven()
    before = cluster.record
    cluster.clock_ahead = {}
    cluster.guest_on = {"ctrl3": GuestState.MIGRATING_OUT, "ctrl1": GuestState.INCOMING}
    assert codes(drive(cluster, CLOSE)) == ["MIGRATING"]
    assert codes(drive(cluster, G1)) == ["OTHER_GUEST"]
    cluster.guest_on = {"ctrl1": GuestState.RUNNING}
    assert codes(drive(cluster, CLOSE)) == ["OTHER_HOST"]
    assert codes(drive(cluster, G1)) == ["OTHER_GUEST"]
    assert (cluster.record, raised(cluster)) == (before, True)
    again = dataclasses.replace(CLOSE, target="ctrl1")
    command, held = Command(cluster, again, "n3"), 0
    while not isinstance(step := command.look(), Done):
        command.act(step)
        held += cluster.record.holds
        assert reached(cluster) or (cluster.record.holds and raised(cluster)) or cluster.record == before
    assert held, "between the new aim and its proof it is a window again"
    assert cluster.aims["n2"] == "ctrl1"
    assert cluster.saves[-3:] == ["ctrl2", "ctrl3", "ctrl1"], "also the host that it has left"


def test_a_guest_that_was_away_and_is_back_has_to_be_proven_anew() -> None:
    cluster = proven()
    cluster.clock_ahead, cluster.agent_fails = {}, {"SA-n2"}
    outcome = drive(cluster, CLOSE)
    assert codes(outcome) == ["PROOF"]
    assert isinstance(outcome, Stop)
    assert outcome.left.startswith("fencing is armed again")
    assert raised(cluster)
    cluster.agent_fails = set()
    saved = len(cluster.saves)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.saves[saved:] == ["ctrl2", "ctrl3"], "its hosts have saved again"


def test_the_proof_of_an_earlier_command_lowers_nothing_by_itself() -> None:
    """OTHER_GUEST left it proven and held; the guest may have been away since."""
    cluster = opened(3)
    cluster.guest_on = dict(MOVED)
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    assert codes(drive(cluster, CLOSE)) == ["OTHER_GUEST"]
    cluster.guests["g1"] = {"ctrl1": GuestState.RUNNING}
    asked = cluster.record.prove
    found = writes(cluster, CLOSE)
    assert found[0].prove > asked


# -- several guests, other nodes -----------------------------------------------------------------------------


def test_a_window_for_every_node_is_not_armed_before_every_guest_that_moved_is_proven() -> None:
    cluster = lagging()
    cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
    goals = [CLOSE, dataclasses.replace(G1, target="ctrl3")]
    assert codes(drive(cluster, goals[0])) == ["OTHER_GUEST"]
    assert cluster.record.holds
    cluster.agent_fails = {"SA-n1"}
    assert codes(drive(cluster, goals[1])) == ["PROOF"]
    assert codes(drive(cluster, goals[0])) == ["OTHER_GUEST"]
    assert cluster.record.holds
    cluster.agent_fails = set()
    assert codes(drive(cluster, goals[1])) == ["CLOCKS"]
    assert cluster.record.proven
    assert cluster.record.settle == ("n1", "n2")


def test_a_fencer_that_would_do_otherwise_is_not_given_a_hand() -> None:
    for node in ("SA-n2", "SA-n1"):
        cluster = lagging()
        cluster.guests["g1"] = {"ctrl3": GuestState.RUNNING}
        goals = [CLOSE, dataclasses.replace(G1, target="ctrl3")]
        drive(cluster, goals[0])
        cluster.odd_fencers = {"n3": {f"{node.removeprefix('SA-')} {node}": "aims at ctrl2"}}
        assert codes(drive(cluster, goals[1])) == ["FENCER_DIFFERS"]
        assert cluster.record.holds
        cluster.odd_fencers = {}
        assert codes(drive(cluster, goals[1])) == ["CLOCKS"]


def test_a_fencer_is_looked_at_after_a_guarded_window_s_topology_is_out() -> None:
    cluster = lagging(3, RAISED_GUARDED)

    def odd(now: FakeCluster, step: int) -> None:
        now.odd_fencers = {} if now.guarded else {"n3": {"n2 SA-n2": "is not registered"}}

    assert codes(drive(cluster, CLOSE, disturb=odd)) == ["FENCER_DIFFERS"]
    assert (cluster.guarded, cluster.record.holds) == (set(), True)
    cluster.odd_fencers = {}
    assert codes(drive(cluster, CLOSE)) == ["CLOCKS"]
    assert cluster.record.proven


def test_what_somebody_puts_back_of_a_guarded_window_is_taken_out_while_clocks_are_waited_for() -> None:
    cluster = proven(3, RAISED_GUARDED)
    cluster.guarded = {"n2"}
    assert codes(drive(cluster, CLOSE)) == ["CLOCKS"]
    assert (cluster.guarded, cluster.record.waits_for_clocks) == (set(), True)


@pytest.mark.parametrize("dead", ["n2", "n3"])
def test_a_node_that_dies_meanwhile_does_not_keep_the_window_once_it_is_proven_off(dead: str) -> None:
    cluster = proven()
    cluster.gone = {dead}
    cluster.guests[dead.replace("n", "g")] = {}
    cluster.sync()
    goal = G1 if dead == "n2" else CLOSE
    assert codes(drive(cluster, goal)) == ["MEMBER_MISSING"]
    cluster.proven_off = frozenset({dead})
    ended = drive(cluster, goal)
    if dead == "n2":  # its clock has died with it
        assert isinstance(ended, Done)
    else:
        assert codes(ended) == ["CLOCKS"]
        assert isinstance(drive(cluster, dataclasses.replace(IGNORE)), Done)
    assert cluster.record.phase is Phase.IDLE
    assert set(cluster.record.owed) == {dead}


def test_a_command_that_lives_is_not_disturbed_by_a_second_one() -> None:
    cluster = proven()
    cluster.nodes["n1"].commanding = True
    cluster.sync()
    assert codes(drive(cluster, CLOSE, me="n3")) == ["BUSY"]
    assert isinstance(drive(cluster, IGNORE, me="n3"), Done)


def test_a_command_that_only_waits_gives_way_to_the_first_that_overrules_the_clocks() -> None:
    cluster = proven()
    waits = Command(cluster, CLOSE, "n1")
    while not isinstance(step := waits.look(), Wait):
        waits.act(step)
    first, second = Command(cluster, IGNORE, "n3"), Command(cluster, IGNORE, "n2")
    step = first.look()
    assert isinstance(step, WriteRecord)
    first.act(step)
    entered = cluster.record
    for other in (waits, second):
        while not isinstance(step := other.look(), Stop):
            other.act(step)
        assert codes(step) == ["BUSY"]
        assert dataclasses.replace(cluster.record, epoch=entered.epoch) == entered
    while not isinstance(step := first.look(), Done):
        assert not isinstance(step, Stop), step
        first.act(step)
    assert cluster.record.phase is Phase.IDLE


# -- re-entry after every prefix -----------------------------------------------------------------------------


@pytest.mark.parametrize("opening", [OPEN, FOR_G2, RAISED_GUARDED])
@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(22))
def test_a_close_with_a_lagging_clock_killed_after_any_step_is_finished_by_the_next(
    steps: int, taker: str, opening: OpenGoal
) -> None:
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster = lagging(3, opening)

    def watched(now: FakeCluster, step: int) -> None:
        assert raised(now), "lowered in spite of clocks"
        if now.record.proven:
            assert reached(now)
            assert now.nodes["n1"].proofs["SA-n2"]
            assert now.guarded == set()

    drive(cluster, CLOSE, limit=steps, disturb=watched)
    assert codes(drive(cluster, CLOSE, me=taker, disturb=watched)) == ["CLOCKS"]
    watched(cluster, 0)
    assert cluster.record.waits_for_clocks
    drive(cluster, CLOSE, me=taker, limit=steps // 2, disturb=watched)
    cluster.clock_ahead = {}
    cluster.sync()
    assert isinstance(drive(cluster, CLOSE, me="n1"), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(22))
def test_an_override_killed_after_any_step_is_finished_by_the_next(steps: int, taker: str) -> None:
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster = proven()
    drive(cluster, IGNORE, limit=steps)
    assert isinstance(drive(cluster, IGNORE, me=taker), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("steps", range(22))
def test_a_second_move_in_it_killed_after_any_step_is_finished_by_the_next(steps: int) -> None:
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster = proven()
    cluster.guest_on = {"ctrl1": GuestState.RUNNING}
    again = dataclasses.replace(CLOSE, target="ctrl1")

    def watched(now: FakeCluster, step: int) -> None:
        assert raised(now)
        # As armed and not aimed there as a guest that is moved with no window: the gate's rule `elsewhere`.
        assert not now.record.proven or reached(now) or now.record.target == "ctrl3"

    drive(cluster, again, limit=steps, disturb=watched)
    assert codes(drive(cluster, again, me="n3", disturb=watched)) == ["CLOCKS"]
    cluster.clock_ahead = {}
    cluster.sync()
    assert isinstance(drive(cluster, again), Done)
    assert cluster.facts() == before


def test_a_reload_is_never_issued_while_it_waits() -> None:
    cluster = lagging()
    command = Command(cluster, CLOSE, "n1")
    while not isinstance(step := command.look(), Stop):
        assert not isinstance(step, Reload)
        command.act(step)
