"""The planner reaches its goal from every interrupted state, changes all or nothing, and says why not."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from driver import Command, codes, drive, opened
from fake_cluster import CLOSE, HOSTS, OPEN, FakeCluster

from standfast import survey
from standfast.core import closing, heartbeat
from standfast.core.evidence import GuestState
from standfast.core.record import Phase, Record, Totem
from standfast.core.steps import CloseGoal, Done, Snapshot, Stop, Wait
from standfast.core.window import decide

MOVED = {"ctrl3": GuestState.RUNNING}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_open_raises_every_member_and_close_puts_everything_back_to_the_digit(count: int) -> None:
    cluster = FakeCluster(count)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, OPEN), Done)
    assert cluster.record.phase is Phase.OPEN
    for node in cluster.nodes.values():
        assert heartbeat.timeout_ms(node.runtime) == 600_000
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert cluster.aims["n2"] == "ctrl3"
    assert cluster.weights["n2"] == 2
    assert cluster.saves == ["ctrl2", "ctrl3"]
    assert cluster.record.settle == ("n2",)


def test_after_an_opening_that_was_rolled_back_the_next_one_opens() -> None:
    cluster = FakeCluster(3)

    def third_dies(now: FakeCluster, step: int) -> None:
        if now.record.phase is Phase.OPENING:
            now.gone, now.proven_off = {"n3"}, frozenset({"n3"})

    assert isinstance(drive(cluster, OPEN, disturb=third_dies), Stop)
    assert cluster.record.phase is Phase.IDLE
    assert set(cluster.record.owed) == {"n3"}
    cluster.proven_off = frozenset()
    cluster.come_back("n3")
    assert cluster.record.owed == {}
    assert isinstance(drive(cluster, OPEN), Done)


@pytest.mark.parametrize("taker", ["n1", "n2"])
@pytest.mark.parametrize("steps", range(12))
def test_an_opening_killed_after_any_step_is_finished_by_a_second_one(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, OPEN, limit=steps)
    assert isinstance(drive(cluster, OPEN, me=taker), Done)
    assert cluster.record.phase is Phase.OPEN
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE, me=taker), Done)
    assert cluster.facts() == before


@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(12))
def test_an_opening_killed_after_any_step_is_put_back_by_u(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, OPEN, limit=steps)
    source = CloseGoal(node="n2", guest="g2", target="ctrl2")
    assert isinstance(drive(cluster, source, me=taker), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert cluster.aims["n2"] == "ctrl2"


def test_a_window_opens_after_one_that_was_rolled_back() -> None:
    cluster = FakeCluster(3)
    cluster.nodes["n2"].keeps_values = True
    assert isinstance(drive(cluster, OPEN), Stop)
    cluster.nodes["n2"].keeps_values = False
    assert isinstance(drive(cluster, OPEN), Done)
    assert cluster.record.phase is Phase.OPEN


@pytest.mark.parametrize("taker", ["n1", "n3"])
@pytest.mark.parametrize("steps", range(20))
def test_a_closing_killed_after_any_step_is_finished_by_a_second_one(steps: int, taker: str) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    drive(cluster, OPEN)
    cluster.guest_on = dict(MOVED)
    drive(cluster, CLOSE, limit=steps)
    assert isinstance(drive(cluster, CLOSE, me=taker), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    assert cluster.aims["n2"] == "ctrl3"


def test_a_value_that_is_already_as_wide_as_the_budget_is_left_alone() -> None:
    cluster = FakeCluster(2)
    before = copy.deepcopy(cluster.facts())
    goal = dataclasses.replace(OPEN, budget_seconds=10)
    assert isinstance(drive(cluster, goal), Done)
    assert cluster.record.totem is Totem.ORIGINAL
    assert not any(line.startswith("Reload") for line in cluster.log)
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.facts() == before
    assert not any(line.startswith("Reload") for line in cluster.log)


def test_one_member_that_cannot_write_its_file_turns_everything_back() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    cluster.nodes["n3"].unwritable = "read-only file system"
    assert isinstance(drive(cluster, OPEN), Stop)
    assert cluster.record.phase is Phase.IDLE
    assert "n3: read-only file system" in cluster.record.why
    cluster.nodes["n3"].unwritable = ""
    assert cluster.facts() == before


def test_one_member_whose_corosync_does_not_take_the_values_turns_everything_back() -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    cluster.nodes["n2"].keeps_values = True
    assert isinstance(drive(cluster, OPEN), Stop)
    assert cluster.record.phase is Phase.IDLE
    assert "n2" in cluster.record.why
    assert cluster.facts() == before


@pytest.mark.parametrize("step", [2, 3])
def test_a_member_lost_while_opening_turns_everything_back(step: int) -> None:
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())

    def lose(cluster: FakeCluster, number: int) -> None:
        if number == step and cluster.record.phase is Phase.OPENING:
            cluster.gone.add("n3")
            cluster.proven_off = frozenset({"n3"})

    assert isinstance(drive(cluster, OPEN, disturb=lose), Stop)
    assert cluster.gone == {"n3"}
    assert cluster.record.phase is Phase.IDLE
    facts_now, facts_then = cluster.facts()[0], before[0]
    assert isinstance(facts_now, dict)
    assert isinstance(facts_then, dict)
    assert {n: facts_now[n] for n in ("n1", "n2")} == {n: facts_then[n] for n in ("n1", "n2")}


def test_an_opening_waits_for_agents_that_are_being_tested_just_now() -> None:
    cluster = FakeCluster(3)
    cluster.agent_states["SA-n3"] = "Testing"

    def pass_the_test(cluster: FakeCluster, number: int) -> None:
        if number == 1:
            del cluster.agent_states["SA-n3"]

    assert isinstance(drive(cluster, OPEN, disturb=pass_the_test), Done)


def test_an_agent_that_never_stops_being_tested_is_named() -> None:
    cluster = FakeCluster(3)
    cluster.agent_states["SA-n3"] = "Testing"
    assert set(codes(drive(cluster, OPEN))) == {"AGENT"}


def test_preflight_names_everything_at_once_and_changes_nothing() -> None:
    cluster = FakeCluster(3)
    before = cluster.record
    cluster.agent_states["SA-n3"] = "InitFailed"
    cluster.gone.add("n2")
    decision = drive(cluster, OPEN)
    assert {"AGENT", "NODE_UNWELL"} <= set(codes(decision))
    assert isinstance(decision, Stop)
    assert any("SA-n3 shows InitFailed" in message.text for message in decision.messages)
    assert not decision.unfinished
    assert cluster.record == before


def test_a_daemon_that_was_killed_is_named_before_anything_is_changed() -> None:
    """Its last report stays and has the right epoch: only the roll call shows that nobody is there."""
    cluster = FakeCluster(3)
    before = copy.deepcopy(cluster.facts())
    cluster.nodes["n3"].deaf = True
    decision = drive(cluster, OPEN)
    assert codes(decision) == ["NO_REPORT"]
    assert isinstance(decision, Stop)
    assert decision.messages[0].node == "n3"
    assert not decision.unfinished
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before


def test_a_repair_that_cannot_go_on_leaves_no_window_and_says_so() -> None:
    cluster = FakeCluster(3)
    cluster.guest_on = dict(MOVED)
    cluster.gone.add("n2")
    decision = drive(cluster, CLOSE)
    assert codes(decision) == ["NOT_READY"]
    assert isinstance(decision, Stop)
    assert not decision.unfinished
    assert "ldm stop-domain g2 (on ctrl3)" in decision.messages[0].next_command


def test_opening_twice_is_done_twice_and_changes_nothing_the_second_time() -> None:
    cluster = opened()
    record = cluster.record
    assert isinstance(drive(cluster, OPEN), Done)
    assert cluster.record == record


@pytest.mark.parametrize("trouble", ["fencing", "busy", "daemon"])
def test_p_repeated_in_a_window_that_is_in_use_never_puts_it_back(trouble: str) -> None:
    cluster = opened(3)
    before, heartbeats = cluster.record, copy.deepcopy(cluster.facts())
    snapshot = cluster.snapshot

    def troubled(*args: object) -> Snapshot:
        seen = snapshot(*args)  # type: ignore[arg-type]
        if trouble == "fencing":  # the guest is in its blackout, dropped and held
            return dataclasses.replace(seen, fencing_pending=("n2",), cluster_quiet=False)
        if trouble == "busy":
            return dataclasses.replace(seen, cluster_quiet=False)
        return dataclasses.replace(seen, reports={n: r for n, r in seen.reports.items() if n != "n3"})

    cluster.snapshot = troubled  # type: ignore[method-assign]
    outcome = drive(cluster, OPEN)
    assert codes(outcome) == ["WINDOW_OPEN"]
    assert isinstance(outcome, Stop)
    assert outcome.unfinished
    assert (cluster.record, cluster.facts()) == (before, heartbeats)


def test_another_window_is_refused_while_one_is_open() -> None:
    cluster = opened()
    assert codes(drive(cluster, dataclasses.replace(OPEN, mover="n2"))) == ["WINDOW_OPEN"]


def test_two_commands_at_once_the_second_is_refused_while_the_first_lives() -> None:
    cluster = FakeCluster(2)
    drive(cluster, OPEN, me="n1", limit=2)
    cluster.nodes["n1"].commanding = True
    assert codes(drive(cluster, OPEN, me="n2")) == ["BUSY"]
    assert codes(drive(cluster, CLOSE, me="n2")) == ["BUSY"]
    cluster.nodes["n1"].commanding = False
    assert isinstance(drive(cluster, OPEN, me="n2"), Done)


@pytest.mark.parametrize(
    ("places", "code", "unfinished"),
    [
        ({"ctrl2": GuestState.RUNNING}, "OTHER_HOST", True),
        ({"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}, "MIGRATING", True),
        ({"ctrl2": GuestState.ERROR, "ctrl3": GuestState.RUNNING}, "MIGRATING", True),
        ({"ctrl2": GuestState.RUNNING, "ctrl3": GuestState.RUNNING}, "TWO_COPIES", True),
        ({}, "GUEST_STOPPED", False),
        ({"ctrl2": GuestState.STOPPED}, "GUEST_STOPPED", False),
        ({"ctrl2": GuestState.SILENT, "ctrl3": GuestState.RUNNING}, "HOST_SILENT", True),
        ({"ctrl2": GuestState.UNKNOWN, "ctrl3": GuestState.RUNNING}, "HOST_SILENT", True),
        ({"ctrl3": GuestState.PAUSED}, "NOT_READY", True),
    ],
)
def test_where_the_guest_is_decides_and_everything_but_plainly_there_is_refused(
    places: dict[str, GuestState], code: str, unfinished: bool
) -> None:
    cluster = opened()
    cluster.guest_on = places
    before = cluster.record
    decision = drive(cluster, CLOSE)
    assert codes(decision) == [code]
    assert isinstance(decision, Stop)
    assert decision.unfinished is unfinished
    assert decision.messages[0].next_command
    assert cluster.record == before


def test_a_dead_source_can_be_skipped_with_a_reason_that_is_kept() -> None:
    cluster = opened()
    cluster.guest_on = {"ctrl2": GuestState.SILENT, "ctrl3": GuestState.RUNNING}
    goal = dataclasses.replace(CLOSE, skip_save={"ctrl2": "burnt"})
    assert isinstance(drive(cluster, goal), Done)
    assert cluster.record.saved["ctrl2"] == "skipped: burnt"
    assert cluster.saves == ["ctrl3"]


def test_the_heartbeat_never_goes_down_before_every_agent_has_proven_itself() -> None:
    cluster = opened()
    cluster.guest_on = dict(MOVED)
    cluster.agent_fails.add("SA-n2")
    decision = drive(cluster, CLOSE)
    assert codes(decision) == ["PROOF"]
    assert cluster.record.phase is Phase.CLOSING
    for node in cluster.nodes.values():
        assert heartbeat.timeout_ms(node.runtime) == 600_000
    cluster.agent_fails.clear()
    assert isinstance(drive(cluster, CLOSE), Done)


def test_agents_that_failed_are_asked_again_by_the_next_command() -> None:
    cluster = opened()
    cluster.guest_on = dict(MOVED)
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, CLOSE)) == ["PROOF"]
    cluster.agent_fails = set()
    assert isinstance(drive(cluster, CLOSE), Done)


def test_closing_by_way_of_another_guest_first_still_saves_at_the_source_of_the_one_that_moved() -> None:
    cluster = opened(3)
    cluster.agent_fails = {"SA-n1"}
    other = CloseGoal(node="n1", guest="g1", target="ctrl1")
    assert codes(drive(cluster, other)) == ["PROOF"]
    cluster.guest_on, cluster.agent_fails, cluster.saves = dict(MOVED), set(), []
    assert codes(drive(cluster, CLOSE)) == ["OTHER_GUEST"]
    assert cluster.saves == ["ctrl2", "ctrl3"]
    assert isinstance(drive(cluster, other), Done)


def test_a_source_that_left_the_configuration_is_named() -> None:
    cluster = opened()
    cluster.guest_on = dict(MOVED)
    cluster.hosts.pop("ctrl2")
    outcome = drive(cluster, CLOSE)
    assert codes(outcome) == ["NOT_SAVED"]
    assert "ctrl2" in str(outcome)
    assert cluster.saves == []


def test_a_corosync_conf_edited_by_hand_in_mid_window_is_not_overwritten() -> None:
    cluster = opened()
    cluster.guest_on = dict(MOVED)
    cluster.nodes["n1"].structure = cluster.nodes["n1"].rest = "edited"
    assert codes(drive(cluster, CLOSE)) == ["CONF_CHANGED"]
    assert cluster.nodes["n1"].keys == heartbeat.raised(600)
    cluster.nodes["n1"].structure, cluster.nodes["n1"].rest = "s", "r"
    assert isinstance(drive(cluster, CLOSE), Done)


def test_a_corosync_conf_that_cannot_be_read_is_not_called_changed_by_hand() -> None:
    cluster = opened()
    cluster.guest_on = dict(MOVED)
    cluster.nodes["n2"].structure = ""
    snapshot = cluster.snapshot

    def unreadable(*args: object) -> Snapshot:
        seen = snapshot(*args)  # type: ignore[arg-type]
        broken = dataclasses.replace(
            seen.reports["n2"], file_keys={}, file_error="corosync.conf line 3: what"
        )
        return dataclasses.replace(seen, reports={**seen.reports, "n2": broken})

    cluster.snapshot = unreadable  # type: ignore[method-assign]
    outcome = drive(cluster, CLOSE)
    assert codes(outcome) == ["COROSYNC_CONF"]
    assert "n2: corosync.conf line 3: what" in str(outcome)


def test_closing_is_refused_while_a_member_of_the_window_is_missing_and_not_proven_off() -> None:
    cluster = opened(3)
    cluster.guest_on = dict(MOVED)
    cluster.gone.add("n3")
    assert codes(drive(cluster, CLOSE)) == ["MEMBER_MISSING"]
    cluster.proven_off = frozenset({"n3"})
    assert isinstance(drive(cluster, CLOSE), Done)


def test_a_node_that_was_off_while_the_window_closed_gets_its_old_values_when_it_comes_back() -> None:
    cluster = opened(3)
    before = copy.deepcopy(FakeCluster(3).facts())
    cluster.guest_on = dict(MOVED)
    cluster.gone, cluster.proven_off = {"n3"}, frozenset({"n3"})
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.nodes["n3"].keys == heartbeat.raised(600)
    cluster.come_back("n3")
    assert cluster.facts() == before


def test_u_repeated_when_idle_proves_again_and_opens_nothing() -> None:
    cluster = opened()
    before = cluster.facts()
    cluster.guest_on = dict(MOVED)
    drive(cluster, CLOSE)
    first, saves = cluster.record, list(cluster.saves)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.record.phase is Phase.IDLE
    assert cluster.record.prove > first.epoch
    assert cluster.saves == saves
    assert cluster.facts() != before
    cluster.agent_fails.add("SA-n2")
    decision = drive(cluster, CLOSE)
    assert codes(decision) == ["PROOF"]
    assert isinstance(decision, Stop)
    assert not decision.unfinished


BACK = CloseGoal(node="n2", guest="g2", target="ctrl2")


def saved_everywhere(cluster: FakeCluster, _: int) -> None:
    """The agents of n2 see their guest once its own host, and the last of the others, have saved."""
    if len(cluster.saves) == 3:
        cluster.agent_fails.clear()


def test_u_when_idle_saves_where_the_aim_fits_and_the_agents_do_not_see_the_guest() -> None:
    """It was away and back while nobody looked: its XSCF calls it Unknown until its host saves."""
    cluster = FakeCluster(2)
    cluster.agent_fails = {"SA-n2"}
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, BACK, disturb=saved_everywhere), Done)
    assert cluster.saves == ["ctrl2", "ctrl1", "ctrl3"]
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before
    drive(cluster, BACK)
    assert len(cluster.saves) == 3


@pytest.mark.parametrize("steps", range(20))
def test_u_when_idle_that_is_killed_after_any_step_holds_nothing_and_is_finished_by_the_next(
    steps: int,
) -> None:
    cluster = FakeCluster(2)
    cluster.agent_fails = {"SA-n2"}
    drive(cluster, BACK, limit=steps, disturb=saved_everywhere)
    assert cluster.record.phase is Phase.IDLE
    cluster.saves.clear()
    assert isinstance(drive(cluster, BACK, disturb=saved_everywhere), Done)


def test_u_when_idle_that_stays_unproven_is_refused_and_leaves_no_window() -> None:
    cluster = FakeCluster(2)
    cluster.agent_fails = {"SA-n2"}
    decision = drive(cluster, dataclasses.replace(BACK, skip_save={"ctrl1": "dead"}))
    assert codes(decision) == ["PROOF"]
    assert isinstance(decision, Stop)
    assert not decision.unfinished
    assert (cluster.saves, cluster.record.phase) == (["ctrl2", "ctrl3"], Phase.IDLE)


def test_u_when_idle_saves_only_where_it_can_log_in() -> None:
    hosts = {name: dataclasses.replace(entry, login=name != "ctrl2") for name, entry in HOSTS.items()}
    cluster = FakeCluster(2, hosts=hosts)
    cluster.agent_fails = {"SA-n2"}
    assert codes(drive(cluster, BACK)) == ["PROOF"]
    assert cluster.saves == ["ctrl1", "ctrl3"]


def test_a_missing_proof_when_idle_is_called_that_and_not_a_busy_cluster() -> None:
    """Our own write keeps the controller busy; it is not asked any more, and there is nothing to wait for."""
    cluster = FakeCluster(2)
    cluster.agent_fails = {"SA-n2"}
    command = Command(cluster, BACK, "n1")
    while not closing.proof_asked(cluster.record, command.goal):  # type: ignore[arg-type]
        command.act(command.look())
    assert not survey.needs_controller(cluster.record, command.goal, "n1")
    snapshot = dataclasses.replace(cluster.snapshot("n1", 0, frozenset({"calm"})), cluster_idle=None)
    assert isinstance(decide(snapshot, command.goal), Wait)


def test_the_proof_of_another_guest_does_not_keep_the_controller_from_being_asked() -> None:
    cluster = FakeCluster(2)
    record = cluster.record.next(prove=9, mover="n1")
    assert survey.needs_controller(record, dataclasses.replace(BACK, since_epoch=1), "n1")
    mine = dataclasses.replace(record, mover="n2")
    assert not survey.needs_controller(mine, dataclasses.replace(BACK, since_epoch=1), "n1")


def test_a_proof_from_before_the_window_does_not_close_it() -> None:
    """A cancelled migration leaves the devices as they were; what they proved before it is no proof now."""
    cluster = opened()
    cluster.agent_hangs.add("SA-n2")
    assert codes(drive(cluster, CloseGoal(node="n2", guest="g2", target="ctrl2"))) == ["PROOF"]


def test_u_when_idle_repairs_the_aim_of_a_guest_that_moved_unannounced() -> None:
    cluster = FakeCluster(2)
    cluster.guest_on = dict(MOVED)
    before = copy.deepcopy(cluster.facts())
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.aims["n2"] == "ctrl3"
    assert cluster.record.phase is Phase.IDLE
    assert cluster.facts() == before


@pytest.mark.parametrize(("before", "kept"), [("", ""), ("false", "false")])
def test_maintenance_mode_comes_back_as_it_was(before: str, kept: str) -> None:
    cluster = FakeCluster(2, maintenance=before)
    assert isinstance(drive(cluster, dataclasses.replace(OPEN, maintenance=True)), Done)
    assert cluster.maintenance == "true"
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.maintenance == kept


def test_without_a_record_the_answer_names_the_set_up_command() -> None:
    cluster = FakeCluster(2)
    snapshot = dataclasses.replace(cluster.snapshot("n1"), record=None)
    decision = decide(snapshot, OPEN)
    assert codes(decision) == ["NOT_SET_UP"]


def test_a_fresh_record_is_idle() -> None:
    assert Record.fresh().phase is Phase.IDLE
