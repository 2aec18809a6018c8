"""What -p refuses before anything is changed, as far as it is told by the reports alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from driver import codes, drive
from fake_cluster import OPEN, FakeCluster

from standfast.core import preflight
from standfast.core.messages import Message
from standfast.core.record import Mode, Phase
from standfast.core.steps import Done, Snapshot


def told(snapshot: Snapshot) -> list[Message]:
    return list(preflight.errors(snapshot, OPEN))


def with_report(node: str, **changes: object) -> Snapshot:
    snapshot = FakeCluster(3).snapshot("n1")
    report = dataclasses.replace(snapshot.reports[node], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(snapshot, reports={**snapshot.reports, node: report})


def values(**changes: int) -> Mapping[str, int]:
    return {**FakeCluster(3).nodes["n2"].runtime, **changes}


def test_a_cluster_in_order_is_not_refused() -> None:
    assert told(FakeCluster(3).snapshot("n1")) == []


@pytest.mark.parametrize("name", ["token", "consensus"])
def test_a_value_that_runs_otherwise_than_the_file_says_is_named_with_both(name: str) -> None:
    runs = values()[name] * 2
    (message,) = told(with_report("n2", runtime=values(**{name: runs})))
    assert message.code == "NOT_LOADED"
    assert f"corosync of n2 runs {name} {runs} ms, its corosync.conf says {values()[name]} ms" in message.text
    assert "corosync-cfgtool -R" in message.next_command


def test_what_was_edited_beside_the_heartbeat_and_not_loaded_is_named_with_node_and_keys() -> None:
    keys = tuple(f"nodelist.node.{number}.name" for number in range(7))
    (message,) = told(with_report("n2", unloaded=keys))
    assert (message.code, message.node) == ("CONF_NOT_LOADED", "n2")
    assert message.text.startswith("corosync of n2 has not loaded its corosync.conf as it is now")
    assert message.text.endswith(
        "they differ in nodelist.node.0.name, nodelist.node.1.name, nodelist.node.2.name, "
        "nodelist.node.3.name, nodelist.node.4.name and 2 more"
    )
    assert "corosync-cfgtool -R" in message.next_command
    assert "start corosync of n2 again" in message.next_command


def test_a_timer_that_the_file_does_not_set_may_lag_behind() -> None:
    assert told(with_report("n2", runtime=values(knet_ping_timeout=136_363, token_retransmit=7))) == []


def test_a_timer_that_the_file_sets_must_run() -> None:
    keys = {**FakeCluster(3).base, "token_retransmit": "500"}
    (message,) = told(with_report("n2", file_keys=keys))
    assert "token_retransmit" in message.text


def test_daemons_that_have_read_another_file_than_the_command_are_named() -> None:
    snapshot = FakeCluster(2).snapshot("n1")
    assert told(dataclasses.replace(snapshot, config="c")) == []
    (message,) = told(dataclasses.replace(snapshot, config="newer"))
    assert message.code == "CONFIG_DIFFERS"
    assert message.next_command == "sdtool -r (on n1, n2)"


def test_a_file_that_was_loaded_since_the_last_report_is_looked_at_again_before_it_is_refused() -> None:
    """An idle daemon looks every ten seconds; the roll call makes it look now."""
    cluster = FakeCluster(3)
    cluster.nodes["n2"].unloaded = ("quorum.two_node",)
    cluster.sync()
    cluster.nodes["n2"].unloaded = ()
    assert isinstance(drive(cluster, OPEN), Done)


def test_a_file_that_is_not_loaded_opens_no_window_and_changes_nothing() -> None:
    cluster = FakeCluster(3)
    before = cluster.facts()
    cluster.nodes["n2"].unloaded = ("quorum.two_node",)
    assert codes(drive(cluster, OPEN)) == ["CONF_NOT_LOADED"]
    assert (cluster.facts(), cluster.record.phase) == (before, Phase.IDLE)


def test_a_guarded_window_is_refused_where_a_resource_does_not_stand_a_dropped_node() -> None:
    goal = dataclasses.replace(OPEN, mover="n2", mode=Mode.GUARDED, budget_seconds=0)
    snapshot = dataclasses.replace(FakeCluster(3).snapshot("n1"), unbroken=("dlm", "shared-fs"))
    (message,) = preflight.errors(snapshot, goal)
    assert message.code == "MEMBERSHIP_NEEDED"
    assert "dlm, shared-fs" in message.text
    assert "--budget auto" in message.next_command
    assert not preflight.errors(dataclasses.replace(snapshot, unbroken=()), goal)


@pytest.mark.parametrize(
    "chosen", [{"budget_seconds": 60}, {"hold_alone": True}, {"mode": Mode.FROZEN, "budget_seconds": 600}]
)
def test_it_is_not_refused_where_the_timeout_is_raised_or_the_operator_has_decided(
    chosen: dict[str, object],
) -> None:
    goal = dataclasses.replace(OPEN, mover="n2", mode=Mode.GUARDED, budget_seconds=0)
    snapshot = dataclasses.replace(FakeCluster(3).snapshot("n1"), unbroken=("dlm",))
    assert not preflight.errors(snapshot, dataclasses.replace(goal, **chosen))  # type: ignore[arg-type]
