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


def test_a_host_that_answers_again_moves_the_record_on_so_that_a_late_word_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(monkeypatch, ("n1", "n2", "n3"), WINDOW)
    states = {"ctrl1": GuestState.SILENT, "ctrl2": GuestState.RUNNING}
    now, rounds, moved = [100.0], 0, asyncio.Event()

    async def asked(*_: object) -> dict[str, tuple[HostAnswer, ...]]:
        nonlocal rounds
        rounds += 1
        now[0] += confirmed.SHORTEST_SILENCE_SECONDS
        if rounds == 3:
            assert store.writes == 0, "silence alone moves nothing"
            states["ctrl1"] = GuestState.ABSENT
        if store.writes:
            moved.set()
        return {"g2": tuple(HostAnswer(host, "g2", state) for host, state in states.items())}

    monkeypatch.setattr(guard_duty, "ask_everywhere", asked)
    monkeypatch.setattr(guard_duty, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Known, "aims", lambda self: {"n2": NodeAim("n2", "g2", "ctrl2", 1, {})})
    known = Known(node="n1", record=WINDOW, members=frozenset({"n1", "n2", "n3"}))
    sightings = Sightings(str(tmp_path / "seen.json"), lambda: 100.0, lambda: "boot")
    duty = GuardDuty(known, lambda: dict.fromkeys(states), sightings, lambda: now[0])  # type: ignore[arg-type, return-value]

    async def play() -> None:
        watching = asyncio.create_task(duty.watch())
        try:
            async with asyncio.timeout(5):
                await moved.wait()
        finally:
            watching.cancel()

    asyncio.run(play())
    assert store.record == replace(WINDOW, epoch=WINDOW.epoch + 1)
    late = confirmed.said(WINDOW, "ctrl1", "burnt")
    assert late.epoch == store.record.epoch, "its patch names the epoch before, which is gone"
