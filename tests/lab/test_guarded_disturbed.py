"""The guarded window disturbed: a broken cable, a second operator, a node that joins, an edited CIB."""

from __future__ import annotations

import threading
from xml.etree import ElementTree as ET

import pytest
from test_fencing_window import gate_lines
from test_guarded import guard, recovered, seen_running, standfast, status
from window_kit import (
    GUEST,
    MOVER,
    Picture,
    cib,
    eventually,
    home,
    kills,
    members,
    move,
    restart_daemons,
    spare,
    starts_and_stops,
    window,
)

from standfast.core import guarded
from standfast.core.record import Mode, Phase
from standfast.lab.scene import Scene

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def test_a_mover_that_is_cut_off_is_killed_as_it_would_be_without_a_window(scene: Scene) -> None:
    """Its guest never stood still, so the drop was no blackout; it may run services that nobody else sees."""
    guard(scene)
    seen_running(scene, 15.0)
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.lab.cut(MOVER)
    try:
        took = recovered(scene, known, 90)
    finally:
        scene.lab.cut(MOVER, mended=True)
    assert [(entry["action"], entry["hit"]) for entry in kills(scene, mark)] == [("stop", GUEST)]
    assert window(scene, "cfguest1").phase is Phase.OPEN
    print(f"recovered {took:.1f} s after the cut")


def test_another_node_that_is_cut_off_is_fenced_and_the_mover_is_not(scene: Scene) -> None:
    guard(scene)
    mark = scene.control.mark()
    scene.lab.cut("cfguest3")
    try:
        assert eventually(lambda: bool(kills(scene, mark)), 60)
    finally:
        scene.lab.cut("cfguest3", mended=True)
    assert {entry["hit"] for entry in kills(scene, mark)} == {"guest3"}
    assert MOVER in members(scene, "cfguest1")


def test_two_guarded_openings_at_once_make_exactly_one_window_20_times(scene: Scene) -> None:
    before = Picture.of(scene)
    for _ in range(20):
        ends: dict[str, int] = {}

        def run(node: str, guest: str, ends: dict[str, int] = ends) -> None:
            done = scene.run(node, "standfast", "window", "open", guest, limit_seconds=120)
            assert "Traceback" not in done.stderr
            ends[guest] = done.returncode

        pairs = (("cfguest1", "guest1"), ("cfguest3", GUEST))
        threads = [threading.Thread(target=run, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [guest for guest, code in ends.items() if code == 0]
        assert len(winners) == 1, ends
        assert sorted(ends.values())[1] in (1, 3), ends
        found = window(scene, "cfguest2")
        assert (found.phase, found.mode, found.mover) == (Phase.OPEN, Mode.GUARDED, f"cf{winners[0]}")
        assert guarded.guarded(cib(scene, "cfguest2")) == {f"cf{winners[0]}"}
        standfast(scene, "cfguest2", "close", winners[0])
    assert before.differences(Picture.of(scene)) == []


def test_a_node_that_joins_in_mid_window_takes_the_killing_gate_and_holds_too(scene: Scene) -> None:
    before = Picture.of(scene)
    guard(scene)
    mark = scene.control.mark()
    scene.lab.engine("cfguest3", "stop")
    assert eventually(lambda: "cfguest3" not in members(scene, "cfguest1"), 60)
    events = len(starts_and_stops(scene.lab))
    scene.lab.engine("cfguest3", "start")
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 90)
    assert eventually(lambda: status(scene, "cfguest1")["killing_gate_on"] == ["cfguest1", "cfguest3"], 60)
    # The old ones are gone, so only the one that has joined can hold.
    move(scene, spare(scene), blackout_seconds=20.0, duration_seconds=21.0)
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    standfast(scene, "cfguest1", "close")
    assert kills(scene, mark) == []
    # Its own service was stopped with it, and has come back.
    assert {line.split()[0] for line in starts_and_stops(scene.lab)[events:]} <= {"r-cfguest3"}
    assert {n: one.conf for n, one in Picture.of(scene).nodes.items()} == {
        n: one.conf for n, one in before.nodes.items()
    }


def test_a_topology_that_is_edited_by_hand_is_an_alarm_and_one_command_puts_it_right(scene: Scene) -> None:
    before = Picture.of(scene)
    guard(scene)
    tree = cib(scene, "cfguest1")
    (level,) = tree.findall(f".//fencing-level[@target='{MOVER}']")
    text = ET.tostring(level, encoding="unicode")
    assert scene.run("cfguest1", "cibadmin", "--delete", "--xml-text", text).ok
    assert eventually(lambda: any("by hand" in str(alarm) for alarm in _alarms(scene)), 30), _alarms(scene)
    assert status(scene, "cfguest1")["open"] is True
    standfast(scene, "cfguest3", "open", GUEST, "--to", spare(scene))
    assert eventually(lambda: _alarms(scene) == [], 30), _alarms(scene)
    assert status(scene, "cfguest3")["killing_gate_on"] == ["cfguest1", "cfguest3"]
    # And without that: closing puts all four levels back.
    assert scene.run("cfguest1", "cibadmin", "--delete", "--xml-text", text).ok
    standfast(scene, "cfguest1", "close", "--to", home(scene))
    # The levels stand at the end of their section now: their order among others means nothing.
    assert sorted(before.configuration.splitlines()) == sorted(Picture.of(scene).configuration.splitlines())


def test_the_fencers_forget_what_only_our_gates_have_refused(scene: Scene) -> None:
    """The journal has it: crm_mon would show a failed fencing until somebody clears it."""
    guard(scene)
    # 10 s until it is dropped, and time for calls of the killing gate to end: each polls for 5 s.
    move(scene, spare(scene), blackout_seconds=40.0, duration_seconds=41.0)
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    assert eventually(lambda: 'status="failed"' in _failed(scene), 15), gate_lines(scene, MOVER)
    done = standfast(scene, "cfguest1", "close")
    assert "forgotten by the fencers" in done.stderr
    assert eventually(lambda: not _failed(scene), 10), _failed(scene)


def _failed(scene: Scene) -> str:
    done = scene.run("cfguest3", "stonith_admin", "--history", MOVER, "--verbose", "--output-as=xml")
    return done.stdout if "<fence_event" in done.stdout else ""


def _alarms(scene: Scene) -> list[object]:
    found = status(scene, "cfguest1")["alarms"]
    assert isinstance(found, list)
    return found


def test_a_daemon_that_is_gone_when_the_blackout_ends_changes_nothing(scene: Scene) -> None:
    """The gates ask the hosts themselves; without a daemon they only know less, and hold longer."""
    guard(scene)
    mark = scene.control.mark()
    scene.control.migrate(GUEST, spare(scene), duration_seconds=26.0, blackout_seconds=25.0)
    restart_daemons(scene, "cfguest1", "cfguest3")
    assert scene.control.wait_migration(GUEST, limit_seconds=60.0)["phase"] == "done"
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    standfast(scene, "cfguest1", "close")
    assert kills(scene, mark) == []
