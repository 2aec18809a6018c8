"""What must not stay as it is, is said; what is in order, is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_guarded import cluster

from standfast.core import guarded, names
from standfast.core.record import Mode, Phase, Record, Totem
from standfast.daemon.main import Daemon
from standfast.journal import Journal
from standfast.sightings import Sightings

OPEN = Record(epoch=5, phase=Phase.OPEN, window=4, lease_seconds=100)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Daemon:
    monkeypatch.setattr(names, "STOPPED_MARKER_FILE", str(tmp_path / "stopped"))
    made = Daemon()
    made.sightings = Sightings(str(tmp_path / "sightings.json"), clock, lambda: "boot")
    return made


async def test_a_window_past_its_lease_alarms_with_the_command_that_closes_it(
    daemon: Daemon, clock: Clock
) -> None:
    daemon.known.record = OPEN
    assert daemon.alarms() == []
    clock.now += 100.0
    assert daemon.alarms() == []
    clock.now += 5.0
    (alarm,) = daemon.alarms()
    assert "5 s past its lease of 100 s" in alarm
    assert "clovmmigrate -u source-ldom target-host" in alarm


async def test_the_lease_counts_from_the_window_and_not_from_its_last_write(
    daemon: Daemon, clock: Clock
) -> None:
    daemon.known.record = OPEN
    daemon.alarms()
    clock.now += 101.0
    daemon.known.record = OPEN.next(phase=Phase.CLOSING)
    assert len(daemon.alarms()) == 1


async def test_a_window_that_waits_for_clocks_only_alarms_and_says_that_fencing_is_armed(
    daemon: Daemon, clock: Clock
) -> None:
    daemon.known.record = replace(OPEN, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED)
    assert daemon.alarms() == []
    clock.now += 105.0
    (alarm,) = daemon.alarms()
    assert "closing: fencing is armed again, only the heartbeat timeout is still raised" in alarm


async def test_what_is_left_of_a_guarded_window_that_is_proven_alarms(daemon: Daemon) -> None:
    daemon.known.tree = guarded.guard(cluster(3), "cfguest2")
    daemon.known.record = replace(OPEN, phase=Phase.CLOSING, mode=Mode.GUARDED, mover="cfguest2")
    assert daemon.alarms() == []
    daemon.known.record = replace(daemon.known.record, aimed=True)
    (alarm,) = daemon.alarms()
    assert "all is proven, but the fencing of cfguest2 is still that of a guarded one" in alarm


def test_agents_are_tested_in_a_window_that_waits_for_clocks_and_in_no_other(daemon: Daemon) -> None:
    known = daemon.known
    for record, moves in (
        (OPEN, True),
        (replace(OPEN, phase=Phase.CLOSING), True),
        (replace(OPEN, phase=Phase.CLOSING, aimed=True, totem=Totem.EXPLICIT), True),
        (replace(OPEN, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED), False),
        (replace(OPEN, phase=Phase.IDLE), False),
    ):
        known.record = record
        assert known.on_the_move is moves, record


async def test_without_a_window_there_is_no_alarm(daemon: Daemon, clock: Clock) -> None:
    daemon.known.record = Record(epoch=9, window=4, lease_seconds=100)
    clock.now += 1e6
    assert daemon.alarms() == []


async def test_a_damaged_record_and_a_stopped_facility_alarm(daemon: Daemon) -> None:
    daemon.known.record_error = "record format '2' is not known"
    daemon.switch.stopped = True
    first, second = daemon.alarms()
    assert "format '2'" in first
    assert "fencing is refused" in first
    assert "sdtool -b" in second


def test_the_journal_keeps_what_happened_in_order(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "deep" / "journal.db"))
    assert journal.last(5) == []
    assert journal.add("record", "opening", epoch=3, owner="n1") == ""
    assert journal.add("record", "open", epoch=4) == ""
    assert journal.add("fencing", "n2 was killed", epoch=4) == ""
    assert [(e.kind, e.epoch, e.text) for e in journal.last(2)] == [
        ("record", 4, "open"),
        ("fencing", 4, "n2 was killed"),
    ]
    assert journal.last(9)[0].detail == {"owner": "n1"}


def test_a_journal_that_cannot_be_written_says_so_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "journal" in Journal(str(tmp_path / "file" / "journal.db")).add("record", "x")


async def test_a_guarded_window_whose_topology_was_edited_by_hand_alarms(daemon: Daemon) -> None:
    daemon.known.record = replace(OPEN, mode=Mode.GUARDED, mover="cfguest2")
    daemon.known.tree = guarded.guard(cluster(3), "cfguest2")
    assert daemon.alarms() == []
    topology = daemon.known.tree.find("./configuration/fencing-topology")
    assert topology is not None
    for level in topology.findall("./fencing-level[@target='cfguest2']"):
        topology.remove(level)
    (alarm,) = daemon.alarms()
    assert "the fencing of cfguest2" in alarm
    assert "standfast window open" in alarm
