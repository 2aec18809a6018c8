"""The planner's runs as text that a reviewer reads: what it does, in which order, at which record.

A trace that changes is a change of behaviour. After reading it, renew the files with
``STANDFAST_RENEW_TRACES=1 pytest tests/traces``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from driver import Command
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core.evidence import GuestState
from standfast.core.steps import CloseGoal, Done, OpenGoal, Stop
from standfast.core.window import MAX_STEPS

HERE = Path(__file__).parent


def trace(cluster: FakeCluster, goal: OpenGoal | CloseGoal, me: str, limit: int = MAX_STEPS) -> list[str]:
    """One line a decision: the epoch it was made at, who made it, what it is."""
    command, lines = Command(cluster, goal, me), []
    for _ in range(limit):
        cluster.sync()
        step = command.look()
        name, record = f"{type(step).__name__:17}", cluster.record
        at = f"{record.epoch:3} {record.phase.value:8} {record.totem.value:8} {me}  {name}"
        if isinstance(step, Done | Stop):
            command.alive(False)
        if isinstance(step, Done):
            return [*lines, f"{at} {step.reason}"]
        if isinstance(step, Stop):
            kind = "unfinished" if step.unfinished else "refused"
            return [*lines, *(f"{at} {kind}: {message.code}: {message.text}" for message in step.messages)]
        lines.append(f"{at} {step.reason}")
        command.act(step)
    command.alive(False)
    return [*lines, "--- killed here"]


def page() -> list[str]:
    cluster = FakeCluster(2)
    lines = ["# clovmmigrate -p", *trace(cluster, OPEN, "n1")]
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    return [*lines, "# g2 has moved; clovmmigrate -u g2 ctrl3", *trace(cluster, CLOSE, "n1")]


def taken_over() -> list[str]:
    cluster = FakeCluster(3)
    lines = ["# clovmmigrate -p on n1, killed after three steps", *trace(cluster, OPEN, "n1", limit=3)]
    lines += ["# clovmmigrate -p on n2", *trace(cluster, OPEN, "n2")]
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    lines += [
        "# clovmmigrate -u g2 ctrl3 on n2, killed after six steps",
        *trace(cluster, CLOSE, "n2", limit=6),
    ]
    return [*lines, "# clovmmigrate -u g2 ctrl3 on n3", *trace(cluster, CLOSE, "n3")]


def unwritable() -> list[str]:
    cluster = FakeCluster(3)
    cluster.nodes["n3"].unwritable = "read-only file system"
    return ["# clovmmigrate -p, n3 cannot write corosync.conf", *trace(cluster, OPEN, "n1", limit=6)]


def cancelled() -> list[str]:
    cluster = FakeCluster(2)
    lines = ["# clovmmigrate -p", *trace(cluster, OPEN, "n1")]
    lines += ["# the migration was cancelled; -u names the wrong host", *trace(cluster, CLOSE, "n1")]
    goal = CloseGoal(node="n2", guest="g2", target="ctrl2")
    return [*lines, "# -u names the source", *trace(cluster, goal, "n1")]


@pytest.mark.parametrize("story", [page, taken_over, unwritable, cancelled])
def test_a_run_reads_as_it_did(story) -> None:  # type: ignore[no-untyped-def]
    found = "\n".join(story()) + "\n"
    golden = HERE / f"{story.__name__}.txt"
    if os.environ.get("STANDFAST_RENEW_TRACES"):
        golden.write_text(found)
    assert found == golden.read_text()
