"""What a window owes to a node that was away when it closed is kept until it is taken back or forgotten."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

import pytest
from cib_store import Store
from driver import codes, drive
from fake_cluster import CLOSE, OPEN, FakeCluster
from test_window import MOVED

from standfast.core import owed, record
from standfast.core.device_setup import tear_down
from standfast.core.record import OldHeartbeat, Record
from standfast.core.steps import CloseGoal, Done
from standfast.daemon import owed_duty

OLD = OldHeartbeat({"token": "4545"}, {"token": 4545, "consensus": 5455})


def closed_without_n3() -> FakeCluster:
    cluster = FakeCluster(3)
    assert isinstance(drive(cluster, OPEN), Done)
    cluster.gone, cluster.proven_off = {"n3"}, frozenset({"n3"})
    cluster.guest_on = dict(MOVED)
    assert isinstance(drive(cluster, CLOSE), Done)
    return cluster


def cib_of(found: Record) -> ET.Element:
    tree = ET.fromstring("<cib><configuration><crm_config/></configuration></cib>")
    record.write(tree, found)
    return tree


def test_a_node_that_is_proven_off_when_the_window_closes_is_owed_its_values() -> None:
    cluster = closed_without_n3()
    assert list(cluster.record.owed) == ["n3"]
    assert cluster.record.owed["n3"].file_keys == cluster.base


def test_a_repair_without_a_window_keeps_what_is_owed() -> None:
    cluster = closed_without_n3()
    before = cluster.record.owed
    cluster.proven_off, cluster.nodes["n3"].unwritable = (
        frozenset(),
        "disk full",
    )  # it cannot take them back yet
    cluster.come_back("n3")
    cluster.aims["n2"] = "ctrl1"
    assert isinstance(drive(cluster, CLOSE), Done)
    assert not cluster.record.old  # a fresh record
    assert cluster.record.owed == before
    cluster.nodes["n3"].unwritable = ""
    cluster.sync()
    assert cluster.record.owed == {}
    assert cluster.facts() == FakeCluster(3).facts()


def test_no_window_opens_while_something_is_owed_and_the_node_is_named() -> None:
    cluster = FakeCluster(3)
    cluster.nodes["n3"].deaf = True
    cluster.record = dataclasses.replace(cluster.record, owed={"n3": OLD})
    assert codes(drive(cluster, OPEN)) == ["OWED"]


def test_a_window_in_which_all_are_there_leaves_nothing_owed() -> None:
    cluster = FakeCluster(3)
    assert isinstance(drive(cluster, OPEN), Done)
    assert isinstance(drive(cluster, CloseGoal(node="n2", guest="g2", target="ctrl2")), Done)
    assert cluster.record.owed == {}


def test_the_record_is_not_destroyed_while_it_owes_something() -> None:
    with pytest.raises(owed.OwedError, match="n3"):
        tear_down(cib_of(dataclasses.replace(Record.fresh(), owed={"n3": OLD})))


def test_forgetting_names_the_reason_and_moves_the_epoch() -> None:
    tree = cib_of(dataclasses.replace(Record.fresh(), owed={"n3": OLD, "n4": OLD}))
    found = record.read(owed.forget(tree, "n3", "scrapped"))
    assert found is not None
    assert (list(found.owed), found.epoch) == (["n4"], 2)
    assert "scrapped" in found.why
    with pytest.raises(owed.NotOwedError, match="n9"):
        owed.forget(tree, "n9", "no such")


def test_the_daemon_takes_out_its_own_entry_only_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n3", "n4"), dataclasses.replace(Record.fresh(), owed={"n3": OLD, "n4": OLD}))
    owed_duty.settle("n3")
    assert (list(site.record.owed), site.record.owner, site.record.epoch) == (["n4"], "n3", 2)
    owed_duty.settle("n3")
    assert site.writes == 1


def test_tries_come_at_once_then_ever_more_rarely_and_never_end() -> None:
    backoff, tried = owed_duty.Backoff(), []
    for now in range(1000, 3000):
        if backoff.due(float(now)):
            tried.append(now - 1000)
    assert tried[:5] == [0, 2, 6, 14, 30]
    assert tried[-1] - tried[-2] == owed_duty.LONGEST_WAIT_SECONDS
    assert backoff.due(3000.0, afresh=True)
