"""What a daemon notes of the mover of a guarded window that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from standfast.core.record import Mode, Phase, Record
from standfast.daemon import guard_duty
from standfast.daemon.guard_duty import GuardDuty
from standfast.daemon.known import Known
from standfast.sightings import Sightings

WINDOW = replace(Record.fresh(), phase=Phase.OPEN, mode=Mode.GUARDED, mover="n2", source="ctrl2")


@pytest.mark.parametrize(("quorum", "counted"), [("1", 4.0), ("0", 0.0)])
def test_the_absence_of_the_mover_counts_where_this_node_has_quorum(
    quorum: str, counted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_duty.fencer, "devices_for", lambda node, limit: ("kill-n2",))
    now = [100.0]
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: now[0], lambda: "boot")
    known = Known(node="n1", record=WINDOW, members=frozenset({"n1", "n3"}))
    known.tree = ET.Element("cib", {"have-quorum": quorum})
    duty = GuardDuty(known, dict, sightings)
    for _ in range(4):
        asyncio.run(duty.look())
        now[0] += 1
    assert duty.killing == "n2"
    assert sightings.dropped("n2", quorate=quorum == "1") == counted


def test_a_mover_that_is_here_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_duty.fencer, "devices_for", lambda node, limit: ("kill-n2",))
    now = [100.0]
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: now[0], lambda: "boot")
    tree = ET.Element("cib", {"have-quorum": "1"})
    known = Known(node="n1", record=WINDOW, members=frozenset({"n1", "n2"}), tree=tree)
    asyncio.run(GuardDuty(known, dict, sightings).look())
    now[0] += 4
    assert sightings.dropped("n2", quorate=True) == 0.0
