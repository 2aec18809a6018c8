"""The guarded window on the real engine: held while alive, killed when dead, and everybody else as always."""

from __future__ import annotations

import json
import time

import pytest
from test_fencing_window import gate_lines, rule_of, service_runs_elsewhere
from window_kit import (
    COMMAND_LIMIT_SECONDS,
    GUEST,
    MOVER,
    Picture,
    eventually,
    home,
    killed_after,
    kills,
    members,
    move,
    restart_daemons,
    spare,
    starts_and_stops,
    unclean,
    window,
)

from standfast.cluster.run import Result
from standfast.core.record import Mode, Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)


def standfast(scene: Scene, node: str, *argv: str) -> Result:
    """``standfast window`` on a node, which has to work."""
    done = scene.run(node, "standfast", "window", *argv, limit_seconds=COMMAND_LIMIT_SECONDS)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, f"{argv} on {node}: {done.stderr}{done.stdout}"
    return done


def guard(scene: Scene, node: str = "cfguest1") -> None:
    """Open a guarded window for the mover."""
    standfast(scene, node, "open", GUEST, "--to", spare(scene))
    found = window(scene, node)
    assert (found.phase, found.mode, found.mover) == (Phase.OPEN, Mode.GUARDED, MOVER)


def status(scene: Scene, node: str) -> dict[str, object]:
    """What ``standfast window status --json`` says."""
    found = json.loads(standfast(scene, node, "status", "--json").stdout)
    assert isinstance(found, dict)
    return found


def answers_since(scene: Scene, before: list[str]) -> list[str]:
    """What the gates have answered about the mover since; each node has a log of its own."""
    return [line for line in gate_lines(scene, MOVER) if line not in before]


def seen_running(scene: Scene, seconds: float) -> None:
    """Wait until the window has been open for so long: the nodes have seen the guest run as long."""
    until = time.monotonic() + seconds
    assert eventually(lambda: time.monotonic() > until, seconds + 5)


def recovered(scene: Scene, known: int, limit_seconds: float) -> float:
    """Seconds until the mover's service has started on another node."""
    began = time.monotonic()
    assert eventually(
        lambda: any(f"r-{MOVER} start on" in line for line in starts_and_stops(scene.lab)[known:]),
        limit_seconds,
    ), gate_lines(scene, MOVER)[-5:]
    return time.monotonic() - began


def test_a_blackout_beyond_the_timeout_is_held_and_all_is_as_before(scene: Scene) -> None:
    before, mark, said = Picture.of(scene), scene.control.mark(), gate_lines(scene, MOVER)
    guard(scene)
    assert scene.heartbeat("cfguest1") == before.nodes["cfguest1"].totem  # nothing is raised
    scene.control.migrate(GUEST, spare(scene), duration_seconds=31.0, blackout_seconds=30.0)
    assert eventually(lambda: MOVER in unclean(scene, "cfguest1"), 30), "the ring has not dropped it"
    assert status(scene, "cfguest3")["away"] == [MOVER]
    assert scene.control.wait_migration(GUEST, limit_seconds=60.0)["phase"] == "done"
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    standfast(scene, "cfguest3", "close")
    answers = answers_since(scene, said)
    assert {rule_of(line) for line in answers} >= {"kill"}, answers
    assert all(" hold " in line for line in answers), answers
    assert kills(scene, mark) == []
    later = Picture.of(scene)
    assert later.events == before.events, starts_and_stops(scene.lab)[before.events :]
    assert {n: (one.conf, one.totem) for n, one in later.nodes.items()} == {
        n: (one.conf, one.totem) for n, one in before.nodes.items()
    }
    assert status(scene, "cfguest1")["open"] is False


def test_a_guest_that_hangs_in_the_window_is_killed_and_its_service_goes_on(scene: Scene) -> None:
    guard(scene)
    seen_running(scene, 12.0)
    said = gate_lines(scene, MOVER)
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.control.call("hang", name=GUEST)
    took = recovered(scene, known, 60)
    assert [(entry["action"], entry["host"]) for entry in kills(scene, mark)] == [("stop", home(scene))]
    assert service_runs_elsewhere(scene)
    allowed = [line for line in answers_since(scene, said) if " allow rule=kill " in line]
    assert allowed
    assert f"stop {GUEST} on {home(scene)}" in allowed[-1]
    print(f"recovered {took:.1f} s after the hang")


@pytest.mark.full
def test_another_node_that_dies_in_the_window_is_fenced_as_always(scene: Scene) -> None:
    guard(scene)
    mark, said = scene.control.mark(), gate_lines(scene, MOVER)
    scene.control.call("hang", name="guest3")
    assert eventually(lambda: any(e["hit"] == "guest3" for e in kills(scene, mark)), 60), gate_lines(
        scene, "cfguest3"
    )
    assert {entry["action"] for entry in kills(scene, mark)} <= {"panic", "sir"}
    assert window(scene, "cfguest1").phase is Phase.OPEN
    assert answers_since(scene, said) == []


@pytest.mark.full
def test_a_guest_that_dies_after_its_blackout_is_killed_where_it_is_now(scene: Scene) -> None:
    """Not the copy that it left: the source shows none."""
    guard(scene)
    move(scene, spare(scene), blackout_seconds=3.0, duration_seconds=4.0)
    seen_running(scene, 20.0)
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.control.call("hang", name=GUEST)
    recovered(scene, known, 60)
    assert [(entry["action"], entry["host"]) for entry in kills(scene, mark)] == [("stop", spare(scene))]


@pytest.mark.full
def test_a_stopped_guest_is_proven_gone_without_a_kill(scene: Scene) -> None:
    guard(scene)
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.control.call("stop", host=home(scene), name=GUEST)
    recovered(scene, known, 60)
    assert [entry["action"] for entry in kills(scene, mark)] in ([], ["stop"])  # the one of this test


@pytest.mark.full
def test_the_window_outlives_its_daemons(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    guard(scene)
    restart_daemons(scene, *scene.lab.nodes)
    scene.control.migrate(GUEST, spare(scene), duration_seconds=21.0, blackout_seconds=20.0)
    assert scene.control.wait_migration(GUEST, limit_seconds=60.0)["phase"] == "done"
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    standfast(scene, "cfguest1", "close")
    assert kills(scene, mark) == []
    assert Picture.of(scene).events == before.events


@pytest.mark.full
def test_a_host_that_loses_power_is_proven_off_by_its_service_processor(scene: Scene) -> None:
    """Its control domain is silent; nobody has to say that it is dead."""
    guard(scene)
    mark, known, said = scene.control.mark(), len(starts_and_stops(scene.lab)), gate_lines(scene, MOVER)
    scene.control.call("power_off", host=home(scene))
    recovered(scene, known, 90)
    assert kills(scene, mark) == []
    allowed = [line for line in answers_since(scene, said) if " allow rule=kill " in line]
    assert allowed, answers_since(scene, said)
    assert f"power of {home(scene)}: Powered Off" in allowed[-1]
    scene.control.call("power_on", host=home(scene))


@pytest.mark.full
def test_a_host_that_nobody_can_ask_is_dead_by_a_persons_word_until_it_is_heard(scene: Scene) -> None:
    """Its power and its service processor are gone. The word is a note and a second question, then itself."""
    word = ("window", "confirm-dead", GUEST, "--host", home(scene), "--yes", "--reason", "burnt")
    guard(scene)
    answers = scene.run("cfguest1", "standfast", *word, limit_seconds=COMMAND_LIMIT_SECONDS)
    assert (answers.returncode, "HOST_ANSWERS" in answers.stderr) == (1, True), answers.stderr
    known, said = len(starts_and_stops(scene.lab)), gate_lines(scene, MOVER)
    scene.control.inject("path_dead", home(scene), "xscf", mode="refused")
    scene.control.call("power_off", host=home(scene))
    asks = f"confirm-dead {GUEST} --host {home(scene)}"
    assert eventually(lambda: any(asks in line for line in answers_since(scene, said)), 90), (
        "held, and says so"
    )
    assert not any(" allow " in line for line in answers_since(scene, said))
    done = scene.run("cfguest1", "standfast", *word, limit_seconds=COMMAND_LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    found = window(scene, "cfguest3")
    assert found.confirmed == {home(scene): "burnt"}
    assert found.confirmed_at[home(scene)] < found.epoch, "the note came before it"
    took = recovered(scene, known, 60)
    print(f"recovered {took:.1f} s after the word")
    scene.control.clear(kind="path_dead")
    scene.control.call("power_on", host=home(scene))
    assert eventually(lambda: not window(scene, "cfguest1").confirmed, 30), "it was heard"
    assert window(scene, "cfguest1").overtaken == {home(scene): "burnt"}


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("nodes", [2, 5])
def test_with_two_and_five_nodes_several_blackouts_in_one_window(nodes: int) -> None:
    scene = Scene.up(nodes)
    try:
        scene.wait(scene.settled, 60.0, "the cluster to settle")
        before, mark = Picture.of(scene), scene.control.mark()
        guard(scene)
        there, back = spare(scene), home(scene)
        for target in (there, back, there):
            move(scene, target, blackout_seconds=20.0, duration_seconds=21.0)
            assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
        standfast(scene, "cfguest1", "close")
        assert kills(scene, mark) == []
        later = Picture.of(scene)
        assert later.events == before.events, starts_and_stops(scene.lab)[before.events :]
    finally:
        scene.down()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_blackout_of_two_minutes_is_held_to_its_end(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    guard(scene)
    move(scene, spare(scene), blackout_seconds=120.0, duration_seconds=121.0)
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    standfast(scene, "cfguest1", "close")
    assert kills(scene, mark) == []
    assert Picture.of(scene).events == before.events


@pytest.mark.full
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("what", ["open, then opened again", "open, then closed", "close, then closed"])
def test_a_command_may_be_killed_after_every_one_of_its_lines(scene: Scene, what: str) -> None:
    """Another node finishes or undoes it, and nothing of it is left."""
    before, mark, lines = Picture.of(scene), scene.control.mark(), 1
    first, then = what.split(", then ")
    open_it, close_it = ("open", GUEST, "--to", home(scene)), ("close", GUEST, "--to", home(scene))
    while True:
        if first == "close":
            standfast(scene, "cfguest1", *open_it)
        argv = ("window", *(open_it if first == "open" else close_it))
        killed = killed_after(scene, "cfguest1", lines, *argv, program="standfast")
        if then == "opened again":
            standfast(scene, "cfguest3", *open_it)
            assert status(scene, "cfguest3")["killing_gate_on"] == ["cfguest1", "cfguest3"]
        standfast(scene, "cfguest3", *close_it)
        differences = before.differences(Picture.of(scene))
        assert differences == [], (what, lines, killed, differences)
        assert kills(scene, mark) == []
        if not killed.was_killed:
            assert lines > 4, killed.lines
            return
        lines += 1
