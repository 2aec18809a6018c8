"""A raise just in time: up only as a whole, down again by anybody, from after every step of either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, FakeCluster

from standfast.commands import migrate_raise
from standfast.core import closing, heartbeat, holding, members, raising
from standfast.core.evidence import GuestState
from standfast.core.killing import timeout_seconds
from standfast.core.raising import RAISED_LIMIT_SECONDS, STAGGER_SECONDS, UNCOMMANDED_SECONDS, RaisedView
from standfast.core.record import Mode, Phase, Record, Totem, from_values, to_values
from standfast.core.report import decode, encode
from standfast.core.steps import (
    Barrier,
    CloseGoal,
    Done,
    LowerGoal,
    OpenGoal,
    RaiseGoal,
    Reload,
    Stop,
    WriteRecord,
)

JIT = OpenGoal("n2", 0, 900, why="test", mode=Mode.GUARDED, target="ctrl3", just_in_time=True)
ARRIVED = {"ctrl3": GuestState.RUNNING}


def ready(count: int = 3) -> FakeCluster:
    return opened(count, JIT)


def up(cluster: FakeCluster, seconds: int = 20) -> RaiseGoal:
    return RaiseGoal("n2", cluster.record.window, seconds)


def down(cluster: FakeCluster, *, overdue: bool = False) -> LowerGoal:
    return LowerGoal(cluster.record.window, overdue=overdue)


def timeouts(cluster: FakeCluster) -> set[int]:
    return {heartbeat.timeout_ms(node.runtime) for node in cluster.members().values()}


def follow(cluster: FakeCluster, seconds: int = 20) -> None:
    """What the command does on its own node once the others are raised."""
    node = cluster.nodes["n1"]
    node.runtime = {**node.runtime, **raising.own_timers(seconds)}
    cluster.sync()


def test_it_is_opened_without_a_raise_and_says_that_it_may_come() -> None:
    cluster = ready()
    assert (cluster.record.totem, cluster.record.budget_seconds) == (Totem.ORIGINAL, 0)
    assert cluster.record.just_in_time
    assert timeouts(cluster) == {10650}


def test_raised_means_read_back_from_every_member_and_the_node_that_drives_it_is_the_last() -> None:
    cluster = ready()
    own = dict(cluster.nodes["n1"].runtime)
    assert isinstance(drive(cluster, up(cluster)), Done)
    found = {name: heartbeat.timeout_ms(node.runtime) for name, node in cluster.nodes.items()}
    assert found == {"n1": 10650, "n2": 20000, "n3": 20000}, "the shortest of any member decides"
    for name in heartbeat.TIMERS:
        assert cluster.nodes["n1"].runtime[name] == own[name]
    assert cluster.nodes["n1"].runtime["knet_ping_timeout"] == 60_000, "its link stands the blackout too"
    assert cluster.record.phase is Phase.OPEN
    assert cluster.record.raised_now


def test_what_it_runs_as_it_follows_is_what_the_others_run() -> None:
    cluster = ready()
    drive(cluster, up(cluster, 45))
    follow(cluster, 45)
    runs = [node.runtime for node in cluster.nodes.values()]
    assert runs[0] == runs[1] == runs[2]


def test_a_reload_by_anybody_undoes_what_stands_in_a_map_alone() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    follow(cluster)
    cluster.reload()
    assert timeouts(cluster) == {10650, 20000}


def test_before_it_is_raised_the_file_of_the_node_that_drives_it_is_looked_at_too() -> None:
    cluster = ready()
    cluster.nodes["n1"].keeps_values = True
    assert codes(drive(cluster, up(cluster))) == ["NOT_RAISED"]


def lowered_by_hand(cluster: FakeCluster) -> None:
    drive(cluster, down(cluster, overdue=True))


def another_reloads_old_values(cluster: FakeCluster) -> None:
    cluster.nodes["n3"].runtime = heartbeat.expected_runtime(cluster.base, 3)
    cluster.sync()


def taken_over(cluster: FakeCluster) -> None:
    cluster.record = replace(cluster.record, owner="n3")


def forgotten(cluster: FakeCluster) -> None:
    cluster.nodes["n1"].commanding = False
    cluster.sync()


def lost(cluster: FakeCluster) -> None:
    cluster.gone.add("n3")


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (lowered_by_hand, "lowered again"),
        (another_reloads_old_values, "n3 does not run it any more"),
        (taken_over, "n3 has taken the window over"),
        (forgotten, "standfastd of n1 does not tell of this command"),
        (lost, "the membership is not that of the opening: n3"),
    ],
)
def test_whether_it_is_in_force_still_is_asked_of_all_others_and_the_record(
    happens: Callable[[FakeCluster], None], why: str
) -> None:
    cluster = ready()
    goal = up(cluster)
    assert "original" in raising.still_raised(cluster.snapshot("n1"), goal)
    drive(cluster, goal)
    cluster.nodes["n1"].commanding = True  # the next step is its command's, too
    cluster.sync()
    assert raising.still_raised(cluster.snapshot("n1"), goal) == ""
    follow(cluster)
    assert raising.still_raised(cluster.snapshot("n1"), goal) == "", "this node's own raise is in no file"
    happens(cluster)
    assert why in raising.still_raised(cluster.snapshot("n1"), goal)


@pytest.mark.parametrize("followed", [True, False])
def test_the_way_down_leaves_the_knet_values_for_the_closing(followed: bool) -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    if followed:  # its own lowering has not worked
        follow(cluster)
    before = len(cluster.log)
    assert isinstance(drive(cluster, down(cluster)), Done)
    assert timeouts(cluster) == {10650}
    for node in cluster.nodes.values():
        assert node.runtime["knet_ping_timeout"] == 60_000
        assert (
            node.runtime["token_retransmit"]
            == heartbeat.expected_runtime(cluster.base, 3)["token_retransmit"]
        )
    steps = [line.partition(":")[0] for line in cluster.log[before:]]
    assert steps == ["WriteRecord", "Reload"], "one write and one reload, since every second counts"
    assert cluster.record.totem is Totem.LOWERED
    assert not cluster.record.raised_now


def test_a_whole_window_leaves_all_as_it_was() -> None:
    cluster = FakeCluster(3)
    before = cluster.facts()
    drive(cluster, JIT)
    drive(cluster, up(cluster))
    cluster.guest_on = dict(ARRIVED)
    drive(cluster, down(cluster))
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.facts() == before
    assert (cluster.record.just_in_time, cluster.record.totem) == (False, Totem.ORIGINAL)


def test_one_that_never_raised_reloads_nothing_at_its_end() -> None:
    cluster = ready()
    cluster.guest_on = dict(ARRIVED)
    before = len(cluster.log)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert not [line for line in cluster.log[before:] if line.startswith("Reload")]


def test_after_it_is_down_no_clock_is_waited_for() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    drive(cluster, down(cluster))
    cluster.guest_on = dict(ARRIVED)
    cluster.clock_ahead = {"n2": -30.0}
    assert isinstance(drive(cluster, CLOSE), Done)


@pytest.mark.parametrize("me", ["n1", "n3"])
@pytest.mark.parametrize("kill_up", range(6))
@pytest.mark.parametrize("kill_down", range(6))
def test_from_after_every_step_the_nodes_lower_it_and_a_closing_ends_it(
    kill_up: int, kill_down: int, me: str
) -> None:
    cluster = FakeCluster(3)
    before = cluster.facts()
    drive(cluster, JIT)
    drive(cluster, up(cluster), limit=kill_up)
    if kill_up == 5:
        follow(cluster)
    drive(cluster, down(cluster), me, limit=kill_down)
    assert isinstance(drive(cluster, down(cluster), me), Done)
    assert timeouts(cluster) == {10650}
    cluster.guest_on = dict(ARRIVED)
    assert isinstance(drive(cluster, CLOSE, me), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("kill_up", range(6))
@pytest.mark.parametrize("moved", [True, False])
def test_a_closing_lowers_first_whatever_was_left(kill_up: int, moved: bool) -> None:
    cluster = FakeCluster(3)
    before = cluster.facts()
    drive(cluster, JIT)
    drive(cluster, up(cluster), limit=kill_up)
    if moved:
        cluster.guest_on = dict(ARRIVED)
    goal = CLOSE if moved else replace(CLOSE, target="ctrl2")
    seen: list[Record] = []
    assert isinstance(drive(cluster, goal, "n1", disturb=lambda c, _: seen.append(c.record)), Done)
    assert not [one for one in seen if one.phase is Phase.CLOSING and one.totem is Totem.RAISED]
    assert cluster.facts() == before


def test_a_closing_lowers_even_where_it_is_then_refused() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    cluster.guest_on = {"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}
    assert codes(drive(cluster, CLOSE)) == ["MIGRATING"]
    assert timeouts(cluster) == {10650}


# -- what forbids it ----------------------------------------------------------------------------------------


def _gone(cluster: FakeCluster) -> None:
    cluster.gone.add("n3")


def _edited(cluster: FakeCluster) -> None:
    cluster.nodes["n3"].structure = cluster.nodes["n3"].rest = "by hand"


def _other_token(cluster: FakeCluster) -> None:
    cluster.nodes["n3"].runtime = heartbeat.expected_runtime({"token": "5000"}, 3)


def _other_file(cluster: FakeCluster) -> None:
    cluster.nodes["n3"].read_only = "read-only"


def _taken(cluster: FakeCluster) -> None:
    cluster.record = cluster.record.next(owner="n3")


def _closing(cluster: FakeCluster) -> None:
    cluster.record = cluster.record.next(phase=Phase.CLOSING)


def _plain(cluster: FakeCluster) -> None:
    cluster.record = cluster.record.next(just_in_time=False)


def _unguarded(cluster: FakeCluster) -> None:
    cluster.guarded.clear()


@pytest.mark.parametrize(
    "wrong", [_gone, _edited, _other_token, _other_file, _taken, _closing, _plain, _unguarded]
)
def test_what_is_not_as_the_opening_left_it_is_not_raised(wrong: Callable[[FakeCluster], None]) -> None:
    cluster = ready()
    wrong(cluster)
    cluster.sync()
    epoch = cluster.record.epoch
    end = drive(cluster, up(cluster))
    assert codes(end) == ["NOT_RAISED"]
    assert isinstance(end, Stop)
    assert end.unfinished
    assert cluster.record.epoch == epoch, "nothing was written"


def test_a_budget_that_is_no_raise_is_refused() -> None:
    cluster = ready()
    assert codes(drive(cluster, up(cluster, 10))) == ["NOT_RAISED"]


@pytest.mark.parametrize("trouble", ["keeps_values", "unwritable", "deaf"])
def test_one_member_that_does_not_follow_is_named_and_all_go_down_again(trouble: str) -> None:
    cluster = ready()
    setattr(cluster.nodes["n3"], trouble, "full" if trouble == "unwritable" else True)
    end = drive(cluster, up(cluster))
    assert codes(end) == ["NOT_RAISED"]
    assert isinstance(end, Stop)
    assert "n3" in end.messages[0].text
    assert end.messages[0].next_command
    setattr(cluster.nodes["n3"], trouble, "" if trouble == "unwritable" else False)
    assert isinstance(drive(cluster, down(cluster)), Done)
    assert timeouts(cluster) == {10650}


def test_a_member_that_is_lost_while_it_rises_ends_the_raise() -> None:
    cluster = ready()

    def lost(now: FakeCluster, step: int) -> None:
        if step == 1:
            now.gone.add("n3")

    assert codes(drive(cluster, up(cluster), disturb=lost)) == ["NOT_RAISED"]
    assert isinstance(drive(cluster, down(cluster)), Done), "who is away is not waited for"


def test_it_is_raised_once_in_a_window() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    drive(cluster, down(cluster))
    assert codes(drive(cluster, up(cluster))) == ["NOT_RAISED"]
    assert timeouts(cluster) == {10650}


def test_a_part_of_a_cluster_raises_no_file() -> None:
    cluster = ready()
    record = cluster.record.next(totem=Totem.RAISED, budget_seconds=20)
    present = dict(cluster.base)
    for node, token in (("n1", "5195"), ("n2", "9090")):
        assert dict(members.wanted_keys(record, node, present, {"n1", "n2"})) == present
        assert members.wanted_keys(record, node, present, {"n1", "n2", "n3"})["token"] == token


def test_files_of_another_part_that_rose_come_back_with_the_closing() -> None:
    """The store of a part that knew of no raise has won; files and values of the other one stand raised."""
    cluster = FakeCluster(3)
    before = cluster.facts()
    drive(cluster, JIT)
    cluster.nodes["n3"].keys = heartbeat.raised(20)
    cluster.reload()
    cluster.guest_on = dict(ARRIVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.facts() == before


def test_another_command_does_not_lower_what_a_living_one_holds_raised_unless_it_is_overdue() -> None:
    cluster = ready()
    mine = Command(cluster, up(cluster), "n1")
    for _ in range(9):
        mine.act(mine.look())
    follow(cluster)
    assert codes(drive(cluster, down(cluster), "n3")) == ["BUSY"]
    assert timeouts(cluster) == {20000}
    assert isinstance(drive(cluster, down(cluster, overdue=True), "n3"), Done)
    assert timeouts(cluster) == {10650}
    assert isinstance(mine.look(), Stop), "its window was taken over"


def test_lowering_what_is_not_raised_does_nothing() -> None:
    cluster = ready()
    epoch = cluster.record.epoch
    for goal in (down(cluster), LowerGoal(cluster.record.window + 1)):
        end = drive(cluster, goal)
        assert isinstance(end, Done)
        assert not end.changed
    assert cluster.record.epoch == epoch


# -- what others make of it ---------------------------------------------------------------------------------


def test_what_the_killing_gate_counts_from_is_never_less_than_what_was_in_force() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    assert timeout_seconds(cluster.record) == 20
    drive(cluster, down(cluster))
    assert timeout_seconds(cluster.record) == 20


def test_opening_it_again_does_not_take_a_raise_for_its_own() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    again = replace(JIT, budget_seconds=20, just_in_time=False)
    assert codes(drive(cluster, again)) == ["WINDOW_OPEN"]


def test_a_member_with_an_older_daemon_is_named_before_anything_is_changed() -> None:
    cluster = FakeCluster(3)
    cluster.older = {"n3"}
    cluster.sync()
    assert codes(drive(cluster, JIT)) == ["OLDER_DAEMON"]
    assert cluster.record.phase is Phase.IDLE
    assert isinstance(drive(cluster, replace(JIT, just_in_time=False)), Done)


def test_the_record_and_the_report_carry_it_and_older_ones_are_read() -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    drive(cluster, down(cluster))
    values = to_values(cluster.record)
    assert from_values(values) == cluster.record
    del values["standfast-just-in-time"]
    assert not from_values(values).just_in_time
    report = cluster.published["n1"]
    assert decode(encode(report)) == report
    assert not decode(encode(report).replace('"jit":true,', "")).just_in_time


@pytest.mark.parametrize("steps", range(1, 6))
@pytest.mark.parametrize(("dies", "me"), [("n3", "n1"), ("n1", "n3")])
def test_a_node_that_dies_while_it_is_raised_or_lowered_is_owed_its_own_values(
    dies: str, me: str, steps: int
) -> None:
    cluster = FakeCluster(3)
    before = cluster.facts()
    drive(cluster, JIT)
    drive(cluster, up(cluster))
    follow(cluster)
    drive(cluster, down(cluster), limit=steps)
    cluster.gone.add(dies)
    cluster.proven_off = frozenset({dies})
    cluster.guests[f"g{dies[1:]}"] = {}
    cluster.guest_on = dict(ARRIVED)
    drive(cluster, down(cluster), me)
    assert isinstance(drive(cluster, CLOSE, me), Done)
    assert dies in cluster.record.owed
    cluster.come_back(dies)
    assert cluster.facts() == before
    assert not cluster.record.owed


@pytest.mark.parametrize("trouble", ["deaf", "read_only"])
def test_a_member_that_does_not_follow_is_named_and_keeps_nobody_else_raised(trouble: str) -> None:
    cluster = ready()
    drive(cluster, up(cluster))
    setattr(cluster.nodes["n3"], trouble, True if trouble == "deaf" else "read-only")
    end = drive(cluster, down(cluster))
    assert isinstance(end, Stop)
    assert "n3" in end.messages[0].text
    assert end.messages[0].next_command == "standfast window lower"
    assert [heartbeat.timeout_ms(node.runtime) for node in cluster.nodes.values()] == [10650, 10650, 20000]


@pytest.mark.parametrize("steps", range(1, 5))
def test_it_is_up_until_every_member_that_is_there_runs_its_own_values(steps: int) -> None:
    cluster = ready()
    assert not up_now(cluster)
    drive(cluster, up(cluster))
    assert up_now(cluster)
    drive(cluster, down(cluster), limit=steps)
    assert up_now(cluster) is (timeouts(cluster) != {10650})
    drive(cluster, down(cluster))
    assert not up_now(cluster)
    cluster.nodes["n2"].runtime = heartbeat.expected_runtime(heartbeat.raised(20), 3)
    cluster.sync()
    assert up_now(cluster), "one that was away as it was lowered"


def up_now(cluster: FakeCluster) -> bool:
    return raising.is_up(cluster.record, frozenset(cluster.members()), cluster.published)


# -- whose turn it is ---------------------------------------------------------------------------------------


def view(me: str, left: float | None, raised: float = 60.0, **more: object) -> RaisedView:
    record = Record(9, Phase.OPEN, "n1", "n2", totem=Totem.RAISED, window=4, just_in_time=True)
    given = RaisedView(me, frozenset({"n1", "n2", "n3"}), record, True, raised, left)
    return replace(given, **more)  # type: ignore[arg-type]


def test_a_raised_window_with_a_command_is_left_to_it() -> None:
    assert raising.turn(view("n1", None)) is None


def test_without_a_command_one_node_after_the_other_lowers_it_and_the_mover_last() -> None:
    for number, me in enumerate(("n1", "n3", "n2")):
        due = UNCOMMANDED_SECONDS + number * STAGGER_SECONDS
        assert raising.turn(view(me, due - 0.1)) is None
        goal = raising.turn(view(me, due))
        assert goal == LowerGoal(4, 9, overdue=False)


def test_one_that_is_called_commanded_for_ever_is_lowered_at_its_limit() -> None:
    assert raising.turn(view("n1", None, RAISED_LIMIT_SECONDS - 1)) is None
    assert raising.turn(view("n1", None, RAISED_LIMIT_SECONDS)) == LowerGoal(4, 9, overdue=True)
    assert raising.turn(view("n3", None, RAISED_LIMIT_SECONDS)) is None


def test_a_command_has_given_it_up_by_itself_before_that() -> None:
    for budget in (holding.LEAST_BUDGET_SECONDS, holding.MOST_BUDGET_SECONDS):
        longest = (
            holding.HOLD_SECONDS + holding.NEARER_LIMIT_SECONDS + holding.SWITCH_LIMIT_SECONDS + 2 * budget
        )
        assert longest + migrate_raise.GIVE_UP_LIMIT_SECONDS <= raising.limit_seconds(budget)


def test_a_node_tries_again_after_a_while() -> None:
    assert raising.turn(view("n1", 60.0, seconds_since_attempt=5.0)) is None
    assert raising.turn(view("n1", 60.0, seconds_since_attempt=31.0)) is not None


def test_what_is_not_raised_or_not_seen_is_nobodys_turn() -> None:
    given = view("n1", 60.0)
    assert raising.turn(replace(given, up=False)) is None
    assert raising.turn(replace(given, members=frozenset({"n2", "n3"}))) is None


def test_before_anybody_is_let_go_the_ring_is_the_one_in_which_the_raise_began() -> None:
    """A node that stood still believes its copy, and the reports that it has, until it meets the others."""
    cluster = ready()
    command = Command(cluster, up(cluster), "n1")
    while not isinstance(step := command.look(), Barrier):
        command.act(step)
    raised = replace(cluster.snapshot("n1"), barriers=1)
    goal = command.goal
    assert isinstance(goal, RaiseGoal)
    assert isinstance(raising.higher(raised, goal), Done)
    moved = raising.higher(replace(raised, ring_changed=True), goal)
    assert codes(moved) == ["NOT_RAISED"]
    assert "the ring of n1 has changed meanwhile: it may have stood still" in moved.messages[0].text
    assert moved.unfinished


def test_the_planner_speaks_of_reloads_writes_and_one_barrier_only() -> None:
    cluster = ready()
    command, steps = Command(cluster, up(cluster), "n1"), []
    while not isinstance(step := command.look(), Done):
        steps.append(type(step))
        command.act(step)
    assert steps == [WriteRecord, Reload, Barrier]
    assert isinstance(closing.decide(cluster.snapshot("n1"), CloseGoal("n2", "g2", "ctrl2"), 0), WriteRecord)
