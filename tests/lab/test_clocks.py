"""Clocks on real nodes: measured over corosync, complained about, waited for before the heartbeat comes down.

All nodes of a lab share this machine's clock. The daemon of one of them, and all that it starts, gets a
lagging one from libfaketime (package libfaketime): a library of the system's that stands before the clock,
and no switch in the product. How far it lags is read from a file anew each second.
"""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_fencing_window import gate_lines
from window_kit import (
    BUDGET,
    GUEST,
    MOVER,
    Picture,
    Running,
    booted,
    closed,
    eventually,
    everybody_in,
    home,
    kill_daemon,
    kills,
    migrate_command,
    move,
    opened,
    restart_daemons,
    revived,
    spare,
    starts_and_stops,
    wait_reports,
    window,
)

from standfast.core.names import CONFIG_FILE, JOURNAL_FILE
from standfast.core.record import Phase
from standfast.journal import Journal
from standfast.lab.scene import Scene

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
CLOCK_FILE = "/run/clock-of-a-test"
LOG, SWITCHLOG = "/var/log/standfast/standfastd.log", "/var/log/standfast/switchlog"
LOST = "is no longer in time sync with local node. Sane operation of RMS can no longer be guaranteed."
FIRST = f"(WRP, 34) Cluster host {MOVER} {LOST} Further out-of-sync messages will appear in the syslog."
FURTHER = f"(WRP, 35) Cluster host {MOVER} {LOST}"
AGAIN = f"(WRP, 34) Cluster host {MOVER} is in time sync with local node again."
TOKEN = "runtime.config.totem.token"
CHRONYC = r"""#!/bin/sh
echo "$*" >> /var/log/chronyc
case "$*" in
*sources\ burst*) rm -f /run/chronyc-asked ;;
*sources)
  mark="?"
  [ ! -e /run/chronyc-asked ] || mark="*"
  echo "^,$mark,10.0.0.9,8,4,7,1,0.1,0.1,0.1"
  : > /run/chronyc-asked ;;
*tracking) echo "0A000009,10.0.0.9,9,1795799452.0,20.000000,0,0,0,0,0,0,0,0,Normal" ;;
makestep) sleep 1; echo +0s > {clock}; echo "200 OK" ;;
esac
"""


@pytest.fixture(scope="module")
def three() -> Iterator[Scene]:
    """Three nodes that repeat themselves after 10 s."""
    assert Path(LIBRARY).exists(), "the package libfaketime is missing"
    scene = Scene.up(3, config={"clock_period_seconds": 10})
    yield scene
    scene.down()


def away(scene: Scene) -> str:
    """The one of its two hosts on which the guest is not: a test finds it where another left it."""
    return home(scene) if scene.control.running(GUEST) == [spare(scene)] else spare(scene)


def lag(scene: Scene, seconds: int) -> None:
    """Set the mover's clock back by so much; 0: right again."""
    scene.put(MOVER, CLOCK_FILE, f"-{seconds}s\n" if seconds else "+0s\n")


def under_a_clock_of_its_own(scene: Scene) -> None:
    """The mover's standfastd, started anew with a clock that can be set."""
    lag(scene, 0)
    kill_daemon(scene, MOVER)
    script = (
        f"export LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={CLOCK_FILE} FAKETIME_CACHE_DURATION=1 "
        f"DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1; exec standfastd 2>>{LOG}"
    )
    scene.lab.add_process(MOVER, ["/bin/sh", "-c", script])
    assert eventually(lambda: scene.run(MOVER, "sdtool", "-s").ok, 30)
    scene.wait_ready()


def clocks(scene: Scene, node: str) -> dict[str, Any]:
    """What a node knows of the others' clocks."""
    return {row["host"]: row for row in scene.states(node).get("clocks", {}).get("hosts", [])}


def agree(scene: Scene) -> bool:
    return all(
        row["clock"] == "agrees" for node in scene.lab.nodes for row in clocks(scene, node).values()
    ) and all(len(clocks(scene, node)) == len(scene.lab.nodes) - 1 for node in scene.lab.nodes)


def lines(scene: Scene, node: str, path: str, text: str) -> int:
    return scene.path(node, path).read_text().count(text) if scene.path(node, path).exists() else 0


def test_every_node_measures_every_other_to_a_few_milliseconds(three: Scene) -> None:
    assert eventually(lambda: agree(three), 60)
    for node in three.lab.nodes:
        for row in clocks(three, node).values():
            print(node, row)
            assert abs(row["offset_seconds"]) < 0.5
            assert row["uncertainty_seconds"] < 0.5
    told = json.loads(three.run("cfguest1", "standfast", "window", "status", "--json").stdout)
    assert told["clocks_agree"] is True
    assert set(told["clock_offsets_seconds"]["cfguest3"]) == {"cfguest1", "cfguest2"}


def test_a_lagging_clock_is_told_of_and_waited_for(three: Scene) -> None:
    under_a_clock_of_its_own(three)
    to = away(three)
    others = ("cfguest1", "cfguest3")
    opened(three, "cfguest1")
    move(three, to)
    lag(three, 20)
    assert eventually(lambda: all(lines(three, node, SWITCHLOG, FIRST[10:]) == 1 for node in others), 60)
    whose = f"out of sync: {MOVER}, 2 of 3 nodes agree with one another"
    for node in three.lab.nodes:
        assert eventually(lambda node=node: lines(three, node, LOG, whose) == 1, 20), node  # type: ignore[misc]
    for node in others:
        assert lines(three, node, LOG, FIRST) == 1
    closing = Running(three, "cfguest1", ("-u", GUEST, to))
    try:
        assert eventually(lambda: "for the clocks to agree: cfguest2 is 20." in closing.said(), 60), (
            closing.said()
        )
        assert eventually(lambda: lines(three, "cfguest1", LOG, FURTHER) >= 1, 30)
        assert closing.code is None
        assert three.heartbeat("cfguest3")[TOKEN] == "272727"
        status = three.run("cfguest3", "standfast", "window", "status").stdout
        assert re.search(r"clocks: cfguest2 is 20\.\d s behind cfguest\d", status), status
        lag(three, 0)
        assert eventually(lambda: closing.code is not None, 60), closing.said()
        assert closing.code == 0, closing.said()
    finally:
        print(closing.said())
        lag(three, 0)
    assert three.heartbeat("cfguest3")[TOKEN] == "4545"
    for node in others:
        assert eventually(lambda node=node: lines(three, node, LOG, AGAIN) == 1, 30)  # type: ignore[misc]
        print(three.path(node, SWITCHLOG).read_text())
        assert lines(three, node, SWITCHLOG, AGAIN[10:]) == 1
        assert lines(three, node, SWITCHLOG, "(WRP, 35)") == 0
        assert lines(three, node, LOG, FIRST) == 1


@pytest.mark.full
def test_a_node_sets_its_own_clock_while_the_close_waits_for_it(three: Scene) -> None:
    """Its daemon calls a chronyc that does to the lagging clock what the real one does to a real clock."""
    under_a_clock_of_its_own(three)
    to = away(three)
    three.put(MOVER, "/usr/sbin/chronyc", CHRONYC.format(clock=CLOCK_FILE), mode="755")
    assert eventually(lambda: agree(three), 60)
    configure(three, "clock_step", '"chrony"')
    try:
        opened(three, "cfguest1")
        move(three, to)
        lag(three, 20)
        closing = Running(three, "cfguest1", ("-u", GUEST, to))
        trying = f"{MOVER} is setting its clock (chrony, try 1 of 3)"
        assert eventually(lambda: trying in closing.said(), 60), closing.said()
        status = json.loads(three.run("cfguest3", "standfast", "window", "status", "--json").stdout)
        assert eventually(lambda: closing.code is not None, 60), closing.said()
        print(closing.said(), status["clocks"])
        assert closing.code == 0, closing.said()
        assert status["clocks_set"] == {MOVER: trying.removeprefix(f"{MOVER} ")}
        assert trying in status["clocks"]
    finally:
        lag(three, 0)
        configure(three, "clock_step", '"off"')
    assert three.heartbeat("cfguest3")[TOKEN] == "4545"
    told = [e.text for e in Journal(str(three.path(MOVER, JOURNAL_FILE))).last(200) if e.kind == "clock"]
    print(told)
    assert len(told) == 2
    assert re.search(
        rf"{MOVER} has set its clock \(chrony, try 1 of 3\): .* \(before: {MOVER} is 20\.\d s behind", told[1]
    )
    called = three.path(MOVER, "/var/log/chronyc").read_text().splitlines()
    assert called[0] == "-n -m reset sources burst 4/4"
    assert called[-1] == "makestep"
    for node in ("cfguest1", "cfguest3"):
        assert not [e for e in Journal(str(three.path(node, JOURNAL_FILE))).last(200) if e.kind == "clock"]


def configure(scene: Scene, key: str, value: str) -> None:
    """A key of clovmmigrate.conf, the same on every node."""
    for node in scene.lab.nodes:
        lines = scene.file(node, CONFIG_FILE).splitlines()
        kept = [line for line in lines if not line.startswith(f"{key} ")]
        scene.put(node, CONFIG_FILE, "\n".join([kept[0], f"{key} = {value}", *kept[1:]]) + "\n")
        assert scene.run(node, "sdtool", "-r").ok


@pytest.mark.full
def test_the_wait_has_an_end_and_a_person_may_overrule_it(three: Scene) -> None:
    to = away(three)
    opened(three, "cfguest1")
    move(three, to)
    lag(three, 20)
    done = migrate_command(three, "cfguest1", "-u", GUEST, to)
    print(done.stderr)
    assert done.returncode == 3
    assert "[CLOCKS]" in done.stderr
    assert "--ignore-clocks" in done.stderr
    assert window(three, "cfguest1").phase is Phase.CLOSING
    assert three.heartbeat("cfguest3")[TOKEN] == "272727"
    reason = "no time source today"
    done = migrate_command(three, "cfguest1", "-u", GUEST, to, "--ignore-clocks", "--reason", reason, "--yes")
    assert done.returncode == 0, done.stderr
    assert "warning: the clocks were not waited for (no time source today): cfguest2 is 20." in done.stderr
    assert three.heartbeat("cfguest3")[TOKEN] == "4545"
    history = Journal(str(three.path("cfguest1", JOURNAL_FILE))).last(200)
    assert [event.text for event in history if event.kind == "clocks"] == [
        f"-u {GUEST} {to}: clocks are not waited for: {reason}"
    ]
    lag(three, 0)
    assert eventually(lambda: agree(three), 60)


def back_in(scene: Scene, node: str, guest: str) -> bool:
    """Whether a node that was killed is a member again; its daemon is started where it was killed with it."""
    if not scene.lab.alive(node):
        return False
    if not scene.run(node, "sdtool", "-s").ok:
        scene.start_daemon(node)
    return booted(scene, guest) and (everybody_in(scene) or revived(scene))


@pytest.mark.full
def test_while_only_clocks_are_in_the_way_fencing_is_armed_although_the_heartbeat_is_raised(
    three: Scene,
) -> None:
    under_a_clock_of_its_own(three)
    to = away(three)
    before = Picture.of(three)
    opened(three, "cfguest1", *BUDGET)
    move(three, to)
    lag(three, 20)
    done = migrate_command(three, "cfguest1", "-u", GUEST, to)
    print(done.stderr)
    assert (done.returncode, "[CLOCKS]" in done.stderr) == (3, True)
    assert done.stdout.startswith("not finished: fencing is armed again, only the heartbeat timeout is still")
    assert window(three, "cfguest3").waits_for_clocks
    assert three.heartbeat("cfguest3")[TOKEN] == "6818"
    assert "fencing is armed again" in three.run("cfguest3", "standfast", "window", "status").stdout
    assert "window is closing: fencing is armed again" in three.run("cfguest3", "sdtool", "-s").stdout

    # The fencing of a member, as `on-fail=fence` asks for it: it is killed at once, by its own agents.
    mark, known, began = three.control.mark(), len(starts_and_stops(three.lab)), time.monotonic()
    argv = ("stonith_admin", "--reboot", "cfguest3", "--timeout", "90")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(three.run, "cfguest1", *argv, limit_seconds=120.0)
        assert eventually(lambda: kills(three, mark) != [], 60), gate_lines(three, "cfguest3")[-8:]
        print(f"killed {time.monotonic() - began:.1f} s after it was asked for")
        assert asked.result().ok, asked.result().stderr
    print(f"answered {time.monotonic() - began:.1f} s after it was asked for")
    assert {(entry["hit"], entry["action"]) for entry in kills(three, mark)} <= {
        ("guest3", "panic"),
        ("guest3", "sir"),
    }
    assert eventually(
        lambda: any(line.startswith("r-cfguest3 start") for line in starts_and_stops(three.lab)[known:]), 90
    ), starts_and_stops(three.lab)[known:]
    print(f"its service runs {time.monotonic() - began:.1f} s after it was asked for")
    assert window(three, "cfguest1").waits_for_clocks

    three.wait(lambda: back_in(three, "cfguest3", "guest3"), 120, "cfguest3 in the membership again")
    wait_reports(three)
    lag(three, 0)
    assert eventually(lambda: agree(three), 90)
    closed(three, "cfguest3", to)
    later = Picture.of(three)
    assert {n: (one.conf, one.totem) for n, one in later.nodes.items()} == {
        n: (one.conf, one.totem) for n, one in before.nodes.items()
    }


@pytest.mark.full
def test_clocks_are_measured_again_after_corosync_was_stopped_and_after_it_was_started_anew(
    three: Scene,
) -> None:
    restart_daemons(three, MOVER)
    assert eventually(lambda: agree(three), 60)
    three.run(MOVER, "pkill", "-STOP", "-x", "corosync")
    try:
        assert three.run(MOVER, "sdtool", "-s", limit_seconds=5.0).ok, "the daemon does not hang with it"
    finally:
        three.run(MOVER, "pkill", "-CONT", "-x", "corosync")
    three.lab.engine("cfguest3", "stop")
    three.lab.engine("cfguest3", "start")
    assert eventually(lambda: agree(three), 120)
    opened(three, "cfguest1")
    closed(three, "cfguest1", three.control.running(GUEST)[0])
