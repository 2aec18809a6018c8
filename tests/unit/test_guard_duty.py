"""What a daemon notes of the mover of a guarded window that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cib_store import Store

from standfast.core import confirmed
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Mode, Phase, Record
from standfast.core.steps import NodeAim
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


def test_a_window_whose_guests_are_proven_has_no_mover_any_more() -> None:
    proven = replace(WINDOW, phase=Phase.CLOSING, aimed=True)
    known = Known(node="n1", record=proven, members=frozenset({"n1", "n3"}))
    duty = GuardDuty(known, dict, Sightings("", lambda: 1.0, lambda: "boot"))
    assert duty.mover == ""
    known.record = replace(proven, aimed=False)
    assert duty.mover == "n2"


def test_a_mover_that_is_here_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_duty.fencer, "devices_for", lambda node, limit: ("kill-n2",))
    now = [100.0]
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: now[0], lambda: "boot")
    tree = ET.Element("cib", {"have-quorum": "1"})
    known = Known(node="n1", record=WINDOW, members=frozenset({"n1", "n2"}), tree=tree)
    asyncio.run(GuardDuty(known, dict, sightings).look())
    now[0] += 4
    assert sightings.dropped("n2", quorate=True) == 0.0


def test_a_host_that_answers_overtakes_a_person_s_word_here_at_once_and_in_the_record_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = confirmed.said(WINDOW, "ctrl1", "burnt")
    store = Store(monkeypatch, ("n1", "n2", "n3"), found)
    states = {"ctrl1": GuestState.SILENT, "ctrl2": GuestState.RUNNING}

    rounds, written, while_silent = 0, asyncio.Event(), []

    async def asked(*_: object) -> dict[str, tuple[HostAnswer, ...]]:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            while_silent.append((sightings.is_overtaken("ctrl1", found.epoch), store.writes))
            states["ctrl1"] = GuestState.ABSENT
        if not store.record.confirmed:
            written.set()
        return {"g2": tuple(HostAnswer(host, "g2", state) for host, state in states.items())}

    monkeypatch.setattr(guard_duty, "ask_everywhere", asked)
    monkeypatch.setattr(guard_duty, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Known, "aims", lambda self: {"n2": NodeAim("n2", "g2", "ctrl2", 1, {})})
    known = Known(node="n1", record=found, members=frozenset({"n1", "n2", "n3"}))
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: 100.0, lambda: "boot")
    duty = GuardDuty(known, lambda: dict.fromkeys(states), sightings)  # type: ignore[arg-type, return-value]

    async def play() -> None:
        watching = asyncio.create_task(duty.watch())
        try:
            async with asyncio.timeout(5):
                await written.wait()
        finally:
            watching.cancel()

    asyncio.run(play())
    assert while_silent == [(False, 0)]
    assert sightings.is_overtaken("ctrl1", found.epoch)
    assert (store.record.overtaken, store.writes) == ({"ctrl1": "burnt"}, 1)


def test_a_host_that_was_missed_and_answers_again_costs_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(monkeypatch, ("n1", "n2", "n3"), WINDOW)
    _watch(tmp_path, monkeypatch, WINDOW, rounds=8)
    assert store.writes == 0


def test_a_host_that_answers_takes_the_note_out_that_it_is_about_to_be_called_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = confirmed.asking(WINDOW, "ctrl1")
    store = Store(monkeypatch, ("n1", "n2", "n3"), noted)
    sightings = _watch(tmp_path, monkeypatch, noted, rounds=8)
    assert confirmed.asked(store.record) == {}
    assert store.record.overtaken == {}
    assert store.writes == 1
    assert sightings.is_overtaken("ctrl1", noted.confirmed_at["ctrl1"]), "its own gate knows at once"


def _watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record, rounds: int) -> Sightings:
    """So many rounds of questions; ctrl1 is silent in the first four."""
    asked, over = 0, asyncio.Event()

    async def ask(*_: object) -> dict[str, tuple[HostAnswer, ...]]:
        nonlocal asked
        asked += 1
        if asked > rounds:
            over.set()
        first = GuestState.SILENT if asked <= rounds // 2 else GuestState.ABSENT
        return {"g2": (HostAnswer("ctrl1", "g2", first), HostAnswer("ctrl2", "g2", GuestState.RUNNING))}

    monkeypatch.setattr(guard_duty, "ask_everywhere", ask)
    monkeypatch.setattr(guard_duty, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Known, "aims", lambda self: {"n2": NodeAim("n2", "g2", "ctrl2", 1, {})})
    known = Known(node="n1", record=record, members=frozenset({"n1", "n2", "n3"}))
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: 100.0, lambda: "boot")
    duty = GuardDuty(known, lambda: dict.fromkeys(("ctrl1", "ctrl2")), sightings)  # type: ignore[arg-type, return-value]

    async def play() -> None:
        watching = asyncio.create_task(duty.watch())
        try:
            async with asyncio.timeout(10):
                await over.wait()
                if duty._writing is not None:
                    await duty._writing
        finally:
            watching.cancel()

    asyncio.run(play())
    return sightings
