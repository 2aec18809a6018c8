"""What -p refuses before anything is changed, as far as it is told by the reports alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from fake_cluster import OPEN, FakeCluster

from standfast.core import preflight
from standfast.core.messages import Message
from standfast.core.steps import Snapshot


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
