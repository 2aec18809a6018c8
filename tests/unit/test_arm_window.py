"""The write that arms a window: record and topology at once, decided anew after a lost race."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from cib_store import Store
from test_arming import AIMS as PLAIN_AIMS
from test_guarded import cluster, levels

from standfast.cluster import record_change
from standfast.core import devices, guarded, record
from standfast.core.arming import Arm
from standfast.core.record import Armed, Mode, Phase, Record
from standfast.core.report import Report, encode
from standfast.core.steps import NodeAim
from standfast.daemon import arm_window
from standfast.daemon.arm_window import not_killing, run_arm

MOVER = "cfguest2"
AIMS = {MOVER: NodeAim(MOVER, "guest2", "ctrl2", 1, {})}
WINDOW = Record(epoch=7, phase=Phase.OPEN, mover=MOVER, source="ctrl2", lease_seconds=60, window=5)
ARM = Arm(MOVER, 5, MOVER)


def store(monkeypatch: pytest.MonkeyPatch, found: Record = WINDOW, quorum: str = "1") -> Store:
    site = Store(monkeypatch, ("cfguest1", MOVER, "cfguest3"), None)
    site.tree = cluster(3)
    site.tree.set("have-quorum", quorum)
    record.write(site.tree, found)
    site.members = frozenset({"cfguest1", "cfguest3"})
    return site


async def test_one_write_moves_the_record_and_the_topology(monkeypatch: pytest.MonkeyPatch) -> None:
    site = store(monkeypatch)
    assert await run_arm(ARM, AIMS) == ""
    assert site.writes == 1
    assert (site.record.mode, site.record.armed, site.record.epoch) == (Mode.GUARDED, Armed.FOR_MOVER, 8)
    assert guarded.whole(site.tree, MOVER)
    assert levels(site.tree, MOVER) == [[guarded.kill_id(MOVER)]]


async def test_who_was_first_wins_and_the_second_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    site = store(monkeypatch)

    def first(number: int) -> None:
        if number == 1:
            site.before_write = lambda _: None
            record_change.change(lambda found, _: found.next(phase=Phase.CLOSING, aimed=True))

    site.before_write = first
    assert await run_arm(ARM, AIMS) == ""
    assert (site.record.mode, site.writes) == (Mode.FROZEN, 1)
    assert not guarded.guarded(site.tree)


async def test_armed_for_another_node_the_former_ones_own_levels_stand_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = store(monkeypatch)
    before = levels(site.tree, MOVER)
    assert await run_arm(ARM, AIMS) == ""
    site.members = frozenset({"cfguest1", MOVER})
    other = {**AIMS, "cfguest3": NodeAim("cfguest3", "guest3", "ctrl3", 1, {})}
    assert await run_arm(Arm("cfguest3", 5, MOVER, MOVER), other) == ""
    assert (site.record.mover, site.record.settle) == ("cfguest3", (MOVER,))
    assert levels(site.tree, MOVER) == before
    assert guarded.guarded(site.tree) == {"cfguest3"}
    assert guarded.whole(site.tree, "cfguest3")


async def test_without_quorum_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    site = store(monkeypatch, quorum="0")
    assert await run_arm(ARM, AIMS) == ""
    assert site.writes == 0


async def test_a_node_that_came_back_while_the_hosts_were_asked_is_not_armed_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = store(monkeypatch)
    site.members |= {MOVER}
    assert await run_arm(ARM, AIMS) == ""
    assert site.writes == 0


async def test_an_id_that_is_somebody_elses_is_the_reason_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    site = store(monkeypatch)
    resources = site.tree.find("./configuration/resources")
    assert resources is not None
    ET.SubElement(resources, "group", {"id": guarded.kill_id(MOVER)})
    assert "kill-cfguest2" in await run_arm(ARM, AIMS)
    assert site.writes == 0
    site.tree = devices.without_node(cluster(3), MOVER)
    site.tree.set("have-quorum", "1")
    record.write(site.tree, WINDOW)
    assert "nothing is registered" in await run_arm(ARM, AIMS)


async def test_a_cluster_that_cannot_be_written_is_the_reason_too(monkeypatch: pytest.MonkeyPatch) -> None:
    site = store(monkeypatch)

    def stalls(number: int) -> None:
        raise arm_window.EngineError("the ring does not answer")

    site.before_write = stalls
    assert await run_arm(ARM, AIMS) == "the ring does not answer"


def test_only_an_armed_window_asks_who_has_followed() -> None:
    texts = {"n1": encode(Report("n1", epoch=8, killing="n2")), "n3": "{"}
    members = frozenset(PLAIN_AIMS)
    now = replace(WINDOW, epoch=8, mover="n2", mode=Mode.GUARDED)
    assert not_killing(now, members, texts) == ()
    assert not_killing(replace(now, armed=Armed.FOR_MOVER), members, texts) == ("n3",)
