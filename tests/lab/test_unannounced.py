"""Moves that nobody announced, on the real engine: noticed by all nodes, held by the gate, repaired."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from test_fencing_window import gate_lines, resets, rule_of
from test_guarded import answers_since, status
from window_kit import (
    GUEST,
    MOVER,
    aim,
    eventually,
    home,
    kill_daemon,
    kills,
    members,
    move,
    spare,
    unclean,
    wait_reports,
    window,
)

from standfast.core import names, strays
from standfast.core.record import Mode, Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)
NOTICED_SECONDS = 60.0
"""L4."""
OTHERS_SECONDS = 15.0
"""Reports are read every ten seconds."""
DAEMON_LOG = "/var/log/standfast/standfastd.log"


def configure(scene: Scene, **extra: object) -> None:
    """clovmmigrate.conf with these fields, on every node, and read by every daemon."""
    for node in scene.lab.nodes:
        scene.put(node, names.CONFIG_FILE, scene.config_text(extra))
    for node in scene.lab.nodes:
        assert scene.run(node, "sdtool", "-r").ok


@pytest.fixture
def free(scene: Scene) -> Iterator[Scene]:
    """The scene; afterwards with the configuration that it had."""
    yield scene
    if window(scene, "cfguest1").phase is Phase.IDLE:
        configure(scene)


def moved(scene: Scene, node: str) -> list[str]:
    """What a node tells of guests that are astray."""
    rows = scene.states(node).get("unannounced", [])
    return [f"{row['guest']} {row['state']} {row['host']}".rstrip() for row in rows]


def seconds_until_told(scene: Scene, node: str, word: str, limit_seconds: float = NOTICED_SECONDS) -> float:
    began = time.monotonic()
    assert eventually(lambda: word in moved(scene, node), limit_seconds), scene.states(node).get("alarms")
    return time.monotonic() - began


def log_of(scene: Scene, node: str) -> str:
    return scene.file(node, DAEMON_LOG)


def test_a_move_without_a_word_is_told_by_every_node_and_held_by_the_gate_until_it_is_repaired(
    scene: Scene,
) -> None:
    word = f"{GUEST} elsewhere {spare(scene)}"
    move(scene, spare(scene))
    took = seconds_until_told(scene, "cfguest1", word)
    print(f"noticed by cfguest1 after {took:.1f} s")
    for node in scene.lab.nodes:
        seconds_until_told(scene, node, word, OTHERS_SECONDS)
        assert f"ALARM: {GUEST} ({MOVER}) was moved to {spare(scene)} without a window" in log_of(scene, node)
    shown = status(scene, "cfguest3")
    assert shown["next_command"] == f"standfast window repair {GUEST}"
    assert "[STALE_AIM]" in str(shown["alarms"])
    table = scene.run("cfguest3", "sdtool", "-s").stdout
    assert f"Type: standfast window repair {GUEST}" in table
    # Its node dies: the gate refuses to aim at the host that it has left.
    mark, said = scene.control.mark(), gate_lines(scene, MOVER)
    scene.lab.freeze(MOVER)
    assert eventually(lambda: MOVER in unclean(scene, "cfguest1"), 30)
    assert eventually(lambda: any(rule_of(line) == "elsewhere" for line in answers_since(scene, said)), 60)
    scene.lab.thaw(MOVER)
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 60)
    assert all(" hold " in line for line in answers_since(scene, said))
    assert (kills(scene, mark), resets(scene, mark)) == ([], set())
    done = scene.run("cfguest1", "standfast", "window", "repair", GUEST, limit_seconds=240.0)
    assert done.ok, done.stderr
    assert aim(scene) == spare(scene)
    for node in scene.lab.nodes:
        assert eventually(lambda node=node: moved(scene, node) == [], NOTICED_SECONDS)
        assert f"over: {GUEST} ({MOVER}) is not astray any more" in log_of(scene, node)


@pytest.mark.full
def test_one_node_repairs_it_by_itself_and_the_next_one_where_that_one_is_not_heard_of(free: Scene) -> None:
    configure(free, repair="auto")
    before = len(log_of(free, "cfguest1"))
    move(free, spare(free))
    began = time.monotonic()
    assert eventually(lambda: aim(free) == spare(free), NOTICED_SECONDS + 30)
    aimed = time.monotonic() - began
    assert eventually(lambda: window(free, "cfguest1").phase is Phase.IDLE, 60)
    assert eventually(lambda: "unannounced: done" in log_of(free, "cfguest1")[before:], 30)
    print(f"aimed {aimed:.1f} s after the move, proven after {time.monotonic() - began:.1f} s")
    assert f"standfast window repair {GUEST}" in log_of(free, "cfguest1")[before:]
    for node in (MOVER, "cfguest3"):
        assert f"standfast window repair {GUEST} --lease" not in log_of(free, node)
    # The node whose turn it is has no daemon any more; its last report stays.
    kill_daemon(free, "cfguest1")
    move(free, home(free))
    took = seconds_until_told(free, "cfguest3", f"{GUEST} elsewhere {home(free)}")
    print(f"noticed by the next node after {took:.1f} s")
    # Without that daemon nothing could be proven, and a repair would hold all fencing: none is begun.
    said = "standfastd of cfguest1 is not heard of"
    assert eventually(lambda: said in str(free.states("cfguest3").get("alarms")), 30)
    assert window(free, "cfguest3").phase is Phase.IDLE
    free.start_daemon("cfguest1")
    wait_reports(free)
    assert eventually(lambda: aim(free) == home(free), 180), log_of(free, "cfguest3")[-2000:]
    assert eventually(lambda: window(free, "cfguest1").phase is Phase.IDLE, 90)


@pytest.mark.full
def test_a_migration_that_is_seen_under_way_opens_a_guarded_window_that_closes_itself(free: Scene) -> None:
    configure(free, auto_window=True)
    free.control.migrate(GUEST, spare(free), duration_seconds=60.0, blackout_seconds=14.0)
    began = time.monotonic()
    assert eventually(lambda: window(free, "cfguest3").phase is Phase.OPEN, NOTICED_SECONDS)
    print(f"open {time.monotonic() - began:.1f} s after the beginning")
    found = window(free, "cfguest3")
    assert (found.mode, found.mover, found.target) == (Mode.GUARDED, MOVER, spare(free))
    assert found.why == strays.AUTO_REASON
    mark = free.control.mark()
    assert free.control.wait_migration(GUEST, limit_seconds=90.0)["phase"] == "done"
    arrived = time.monotonic()
    assert eventually(lambda: window(free, "cfguest3").phase is Phase.IDLE, 120), log_of(free, "cfguest1")[
        -3000:
    ]
    print(f"closed {time.monotonic() - arrived:.1f} s after its arrival")
    assert aim(free) == spare(free)
    assert kills(free, mark) == []
    assert status(free, "cfguest1")["fencing_changed"] == []
