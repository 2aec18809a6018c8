"""The built gate, run by the system's Python as the fencer runs it, against fake tools of the engine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_world import CONF, HOME, IDLE, WINDOW, Called, World

from standfast.commands import build_gate
from standfast.core import names
from standfast.core.gate import JOINED_STATES, MET_SECONDS
from standfast.core.record import Mode, Phase, Totem
from standfast.sightings import Sightings

AT_ONCE_SECONDS = names.HOLD_POLL_SECONDS
"""A decision is far quicker (bench/gate.py measures it); this only tells it from a hold that is polled."""
MOVED = {"ctrl1": "absent", "ctrl2": "stopped", "ctrl3": "running"}
ROW = "DOMAIN|name=guest2|state={}|flags={}|cons=5000|ncpu=8"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "fence_standfast"
    build_gate.build(path)
    return path


@pytest.fixture
def world(tmp_path: Path, program: Path) -> World:
    return World(tmp_path, program)


# -- every rule of the table -----------------------------------------------------------------------


def _facility(world: World) -> None:
    world.cib(replace(IDLE, stopped=("cfguest1", "cfguest3")))


def _old(world: World, found: object = WINDOW) -> None:
    world.cib(found)  # type: ignore[arg-type]
    # Past the lease and the settling after it, and within the time since a machine of a moment ago booted.
    world.seen(found, 120.0)  # type: ignore[arg-type]


Arrange = Callable[[World], None]
RULES: dict[str, tuple[Arrange, dict[str, str] | None, str, bool]] = {
    "facility-stopped": (_facility, None, "sdtool -b", True),
    "not-joined": (lambda w: w.controller("S_PENDING"), None, "S_PENDING", False),
    "not-joined: no answer": (lambda w: w.tool("crmadmin", "exit 1"), None, "no answer", False),
    "record-unknown": (lambda w: w.cib(None), None, "no record", False),
    "record-unknown: damaged CIB": (lambda w: w.cib(None, text="<cib><conf"), None, "damaged", False),
    "record-unknown: cut CIB": (lambda w: w.cib(None, text="<cib/>"), None, "damaged", False),
    "record-unknown: no CIB": (lambda w: w.tool("cibadmin", "exit 105"), None, "exit code 105", False),
    "levels-unsafe": (
        lambda w: w.cib(IDLE, {"fl-cfguest2-3": "gate-cfguest2-3"}),
        None,
        "level 3 of cfguest2",
        True,
    ),
    "target-back": (lambda w: (w.cib(WINDOW), w.members("cfguest1", "cfguest2"))[0], None, "window", True),
    "settling": (lambda w: w.cib(replace(IDLE, settle=("cfguest2",))), None, "closed less than", False),
    "executor-moving": (lambda w: w.cib(replace(IDLE, settle=("cfguest1",))), None, "cfguest1 itself", False),
    "frozen": (lambda w: w.cib(WINDOW), HOME, "a window is open", False),
    "unsaved": (_old, MOVED, "ctrl3: running", False),
    "unsaved: one host is not mentioned": (
        _old,
        {"ctrl1": "absent", "ctrl2": "running"},
        "ctrl3: silent",
        False,
    ),
    "unsaved: its configuration": (_old, HOME, "clovmmigrate -u guest2 ctrl2", False),
    "elsewhere": (lambda w: None, MOVED, "clovmmigrate -u guest2 ctrl3", False),
    "elsewhere: being moved": (
        lambda w: None,
        {"ctrl2": "migrating out", "ctrl3": "incoming"},
        "migrating out",
        False,
    ),
    "error": (
        lambda w: w.cib(None, text=(w.folder / "cib").read_text().replace('index="2"', 'index="two"')),
        None,
        "the gate itself failed (ValueError",
        False,
    ),
}


def _call(world: World, name: str) -> Called:
    arrange, hosts, _, _ = RULES[name]
    arrange(world)
    with world.daemon(hosts) if hosts is not None else contextlib.nullcontext():
        return world.gate()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, program: Path) -> dict[str, Called]:
    """One call for each rule; those that are polled a few at a time, since most of each is waiting."""
    worlds = {name: World(tmp_path_factory.mktemp("w"), program) for name in RULES}
    at_once = {name: _call(worlds[name], name) for name, (_, _, _, final) in RULES.items() if final}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = {name: pool.submit(_call, worlds[name], name) for name in RULES if name not in at_once}
        return at_once | {name: call.result() for name, call in calls.items()}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_that_holds_exits_1_with_one_sentence_in_its_time(
    name: str, answers: dict[str, Called]
) -> None:
    _, _, sentence, final = RULES[name]
    called = answers[name]
    assert (called.code, called.rule) == (1, name.partition(":")[0])
    assert sentence in called.said
    assert called.said.startswith("fence_standfast: held: ")
    assert called.said.count("\n") == 1
    assert " hold " in called.log
    assert sentence in called.log
    if final:
        assert called.seconds < AT_ONCE_SECONDS
    else:
        assert 5.0 <= called.seconds < 12.0  # the fencer gives it 15 s


@pytest.mark.parametrize("action", ["off", "reboot"])
@pytest.mark.parametrize("state", sorted(JOINED_STATES))
def test_with_nothing_against_it_fencing_is_allowed(world: World, state: str, action: str) -> None:
    world.controller(state)
    with world.daemon(HOME) as requests:
        called = world.gate(action)
    assert (called.code, called.rule, called.said) == (0, "clear", "")
    assert called.seconds < AT_ONCE_SECONDS
    # Of itself it asks since it sees no other node: it might be the one that stood still.
    assert [request.pop("guest") for request in requests] == ["guest2", "guest1"]
    assert requests == [{"op": "evidence", "limit_ms": 900}] * 2
    assert re.match(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{{4}} node=cfguest1 target=cfguest2 action={action} "
        r"allow rule=clear \d+\.\d\ds: ",
        called.log,
    )


def test_a_node_that_has_just_met_others_waits_before_it_says_yes(world: World) -> None:
    world.rings(20, 28)
    with world.daemon(HOME):
        called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert called.seconds >= MET_SECONDS - 0.5  # its clock began a moment before the call's


def test_a_ring_that_has_only_lost_the_target_changes_nothing(world: World) -> None:
    world.rings(20, 24)
    with world.daemon(HOME):
        called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert called.seconds < AT_ONCE_SECONDS


def test_after_the_lease_a_target_that_all_hosts_show_at_home_and_saved_is_allowed(world: World) -> None:
    _old(world, replace(WINDOW, saved={"ctrl2": "standfast-a"}))
    with world.daemon(HOME):
        called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert "the lease is over" in called.log


def test_the_next_call_after_a_hold_by_the_hosts_does_not_kill_a_target_that_is_coming_back(
    world: World,
) -> None:
    with world.daemon(MOVED):
        assert world.gate().rule == "elsewhere"
    with world.daemon(HOME):
        assert world.gate().rule == "settling"
        world.members("cfguest1", "cfguest2")
        back = world.gate()
    assert (back.code, back.rule) == (1, "target-back")
    assert back.seconds < AT_ONCE_SECONDS


def test_after_such_a_hold_a_guest_that_is_proven_gone_is_fenced_without_a_wait(world: World) -> None:
    with world.daemon(MOVED):
        assert world.gate().rule == "elsewhere"
    with world.daemon({"ctrl1": "absent", "ctrl2": "stopped", "ctrl3": "absent"}):
        assert world.gate().code == 0


def test_a_hold_that_cannot_be_noted_still_holds_and_says_so(world: World) -> None:
    (world.root / "run/standfast").rmdir()
    (world.root / "run/standfast").write_text("in the way")
    world.hosts_by_ssh({"10.20.50.73": ROW.format("active", "-n----")})
    called = world.gate()
    assert (called.code, called.rule) == (1, "elsewhere")
    assert "sightings.json cannot be written" in called.log


def test_the_target_is_found_whatever_the_case_of_its_name(world: World) -> None:
    world.cib(WINDOW)
    world.members("cfguest1", "cfguest2")
    assert world.gate(target="CFGuest2").rule == "target-back"


def test_a_target_that_the_cluster_does_not_know_is_held(world: World) -> None:
    called = world.gate(target="cfguest7")
    assert (called.code, called.rule) == (1, "levels-unsafe")


# -- polling, and what ends it ---------------------------------------------------------------------


def test_a_hold_is_answered_at_once_when_the_target_comes_back(world: World) -> None:
    world.cib(WINDOW)
    process = world.start("action=off", "plug=cfguest2")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    world.members("cfguest1", "cfguest2")
    back = time.monotonic()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert time.monotonic() - back < 3.0  # without it, 3.5 s of polling are left
    assert "cfguest2 is in the membership" in said
    assert "returned cfguest2" in (world.root / "run/standfast/sightings.json").read_text()


def test_the_facility_that_is_stopped_on_another_node_is_not_this_ones(world: World) -> None:
    marker = Path(f"{world.root}{names.STOPPED_MARKER_FILE}")
    marker.touch()
    world.cib(replace(IDLE, stopped=("cfguest3",)))
    with world.daemon(HOME):
        assert world.gate().rule == "clear"


def test_a_hold_becomes_a_yes_when_its_reason_ends(world: World) -> None:
    world.cib(WINDOW)
    process = world.start("action=off", "plug=cfguest2")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)
    world.cib(replace(IDLE, epoch=9))
    assert process.wait(3) == 0


def test_the_same_gate_waits_two_seconds_after_it_has_just_said_yes(world: World) -> None:
    with world.daemon(HOME):
        first = world.gate(more=["level=1"])
        again = world.gate(more=["level=1"])
        other = world.gate(more=["level=2"])
    assert [first.code, again.code, other.code] == [0, 0, 0]
    assert 2.0 <= again.seconds < 2.0 + AT_ONCE_SECONDS
    assert max(first.seconds, other.seconds) < AT_ONCE_SECONDS


def test_after_that_wait_it_looks_again(world: World) -> None:
    with world.daemon(HOME):
        assert world.gate().code == 0
        process = world.start("action=off", "plug=cfguest2")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        world.cib(WINDOW)
        world.members("cfguest1", "cfguest2")
        _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "a window is open" in said


def test_a_member_is_looked_at_twice_and_a_return_that_is_noted_meanwhile_counts(world: World) -> None:
    world.members("cfguest1", "cfguest2")
    with world.daemon(HOME):
        told = world.gate(more=["level=1"])
        process = world.start("action=off", "plug=cfguest2", "level=2")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        Sightings(str(world.root / "run/standfast/sightings.json")).returned("cfguest2")
        _, said = process.communicate(timeout=10)
    assert told.code == 0
    assert 2.0 <= told.seconds < 2.0 + AT_ONCE_SECONDS
    assert process.returncode == 1
    assert "is a member again" in said


def test_a_target_that_an_earlier_call_found_away_is_not_killed_as_it_is_back(world: World) -> None:
    """On a node without a daemon, after a hold that no host was asked for."""
    world.cib(None)
    assert world.gate().rule == "record-unknown"
    world.cib(IDLE)
    world.members("cfguest1", "cfguest2")
    back = world.gate()
    assert (back.code, back.rule) == (1, "target-back")
    assert back.seconds < AT_ONCE_SECONDS


# -- without a daemon ------------------------------------------------------------------------------


def test_without_a_daemon_the_hosts_are_asked_by_ssh_all_at_once(world: World) -> None:
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----")})
    called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert "standfastd is not running" in called.log
    calls = world.calls("ssh")
    assert len(calls) == 3 * 2, "about the target, and about itself, since it sees no other node"
    for call in calls:
        assert "-F none" in call
        assert "BatchMode=yes" in call
        assert "StrictHostKeyChecking=yes" in call
        assert "UserKnownHostsFile=/etc/standfast/known_hosts" in call
        assert "-i /etc/standfast/secrets/control-domain.key -l standfast" in call
        assert call.endswith("ldm list-domain -p")


def test_without_a_daemon_a_guest_that_runs_elsewhere_is_held_and_hosts_are_asked_once_a_second(
    world: World,
) -> None:
    world.hosts_by_ssh({"10.20.50.73": ROW.format("active", "-n----")})
    called = world.gate()
    assert (called.code, called.rule) == (1, "elsewhere")
    assert 3 * 3 <= len(world.calls("ssh")) <= 3 * 6


def test_a_node_that_was_moved_itself_and_wakes_up_alone_holds_for_45_s(world: World) -> None:
    own = ROW.replace("guest2", "guest1").format("active", "-n----")
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----"), "10.20.50.73": own})
    world.members("cfguest1")
    called = world.gate()
    assert (called.code, called.rule) == (1, "executor-moving")
    assert "ctrl3 shows its guest guest1 running, and its devices aim at ctrl1" in called.log
    world.members("cfguest1", "cfguest2")
    assert world.gate().rule == "target-back", "and so the other one is a member before it is shot"


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("rule", ["settling", "target-back"])
def test_a_window_that_waits_for_its_clocks_only_lets_go_once_it_has_settled(
    world: World, mode: Mode, rule: str
) -> None:
    """Of a member too: `on-fail=fence`."""
    proven = replace(
        WINDOW, phase=Phase.CLOSING, mode=mode, aimed=True, totem=Totem.RAISED, mover="cfguest2",
        settle=("cfguest2",), saved={},
    )  # fmt: skip
    world.cib(proven)
    world.seen(proven, 3.0)
    away = ("cfguest2",) if rule == "settling" else ()
    world.members(*({"cfguest1", "cfguest2", "cfguest3"} - set(away)))
    with world.daemon(HOME):
        called = world.gate()
        assert (called.code, called.rule) == (1, rule)
        assert "fencing was armed again less than 15 s ago" in called.log
        world.seen(replace(proven, epoch=proven.epoch - 1), 0.0)
        world.seen(proven, 16.0)
        called = world.gate()
    assert (called.code, called.rule) == (0, "clear")


def test_in_such_a_window_a_node_that_sees_no_other_holds_for_45_s_whatever_hosts_say(world: World) -> None:
    """The move that made it stand still may have been called off."""
    proven = replace(
        WINDOW, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED, mover="cfguest2", settle=("cfguest2",)
    )
    world.cib(proven)
    world.seen(proven, 120.0)
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----")})
    world.members("cfguest1")
    called = world.gate()
    assert (called.code, called.rule) == (1, "executor-moving")
    assert "a window still waits for the clocks to agree; it holds for" in called.log


def test_in_such_a_window_a_node_of_two_that_was_moved_once_more_holds_for_45_s(world: World) -> None:
    proven = replace(
        WINDOW, phase=Phase.CLOSING, mode=Mode.GUARDED, aimed=True, mover="cfguest1", settle=("cfguest1",)
    )
    world.cib(proven)
    world.seen(proven, 120.0)
    own = ROW.replace("guest2", "guest1").format("active", "-n----")
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----"), "10.20.50.73": own})
    world.members("cfguest1")
    called = world.gate()
    assert (called.code, called.rule) == (1, "executor-moving")
    assert "ctrl3 shows its guest guest1 running, and its devices aim at ctrl1" in called.log


def test_without_a_daemon_one_listing_that_is_used_again_is_no_second_round(world: World) -> None:
    """In a single round a guest can move from a host not yet asked to one already asked."""
    _old(world)
    world.hosts_by_ssh({})
    called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert len(world.calls("ssh")) >= 2 * 3
    assert called.seconds >= 1.0


def test_no_host_is_asked_where_the_window_holds_anyway(world: World) -> None:
    world.cib(WINDOW)
    world.members("cfguest1", "cfguest2")
    assert world.gate().rule == "target-back"
    assert world.calls("ssh") == []


@pytest.mark.parametrize(
    "raw", [b"", b"not json\n", b"[]\n", b'{"ok": false, "error": "starting"}\n', b'{"ok"']
)
def test_a_daemon_that_talks_nonsense_is_as_good_as_none(world: World, raw: bytes) -> None:
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----")})
    with world.daemon(raw=raw):
        called = world.gate()
    assert called.code == 0
    assert "standfastd gave no answer" in called.log
    assert len(world.calls("ssh")) == 3 * 2


def test_a_daemon_that_hangs_costs_one_second(world: World) -> None:
    world.hosts_by_ssh({"10.20.50.72": ROW.format("active", "-n----")})
    with world.daemon(silent=True):
        called = world.gate()
    assert called.code == 0
    assert 1.0 <= called.seconds < 1.0 + AT_ONCE_SECONDS
    assert "standfastd did not answer within 1 s" in called.log


def test_hosts_that_hang_cost_one_second_and_are_no_evidence(world: World) -> None:
    world.tool("ssh", "exec sleep 60")
    called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert 1.0 <= called.seconds < 1.0 + AT_ONCE_SECONDS


def test_hosts_that_hang_are_no_proof_after_the_lease(world: World) -> None:
    _old(world)
    world.tool("ssh", "exec sleep 60")
    called = world.gate()
    assert (called.code, called.rule) == (1, "unsaved")
    assert called.seconds < 10.0


@pytest.mark.parametrize("text", [None, "", "format = 2\n", CONF.replace('"10.20.30.72"', '"x"'), "\0"])
def test_without_a_usable_conf_the_gate_still_answers_and_says_so(world: World, text: str | None) -> None:
    world.conf(text)
    called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert "clovmmigrate.conf" in called.log


# -- whatever hangs, breaks or is missing ----------------------------------------------------------


def test_with_every_tool_hanging_the_gate_answers_in_time_and_leaves_nothing_behind(world: World) -> None:
    for tool in ("crmadmin", "cibadmin", "crm_node", "ssh"):
        world.tool(tool, f"echo $$ >> {world.folder}/pids; exec sleep 60")
    called = world.gate()
    assert called.code == 1
    assert called.seconds < 15.0
    for pid in (world.folder / "pids").read_text().split():
        assert not Path("/proc", pid).exists()


def test_a_hanging_membership_does_not_stop_a_fencing(world: World) -> None:
    world.tool("crm_node", 'case "$1" in -n) echo cfguest1;; *) exec sleep 60;; esac')
    called = world.gate()
    assert (called.code, called.rule) == (0, "clear")
    assert "crm_node: no answer within 3.5 s" in called.log


def test_an_unwritable_state_folder_does_not_stop_a_fencing(world: World) -> None:
    (world.root / "run/standfast").rmdir()
    (world.root / "run/standfast").write_text("in the way")
    (world.root / "var").write_text("in the way")
    assert world.gate().code == 0


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "nonsense\n",
        "action=\n",
        "action=explode\nplug=cfguest2\n",
        "action=off\n",
        "action=off\nplug= \n",
    ],
)
def test_a_call_that_makes_no_sense_is_never_a_yes(world: World, lines: str) -> None:
    process = world.start()
    _, said = process.communicate(lines, timeout=10)
    assert process.returncode == 1
    assert said.startswith("fence_standfast: ")
    assert world.calls("cibadmin") == []


def test_with_standard_streams_closed_it_works_all_the_same(world: World) -> None:
    argv = f"'{world.program}' --root '{world.root}' action=off plug=cfguest2 <&- >&- 2>&-"
    path = f"{world.bin}:/usr/bin:/bin"
    assert subprocess.run(["sh", "-c", argv], env={"PATH": path}, timeout=20).returncode == 0
    world.cib(WINDOW)
    world.members("cfguest1", "cfguest2")
    assert subprocess.run(["sh", "-c", argv], env={"PATH": path}, timeout=20).returncode == 1


def test_a_full_standard_output_is_no_yes(world: World) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [world.program, "action=metadata"], stdout=full, stderr=subprocess.PIPE, timeout=10
        )
    assert done.returncode == 1


@pytest.mark.full
def test_an_input_that_never_ends_is_a_hold_after_fourteen_seconds(world: World) -> None:
    process = world.start()
    began = time.monotonic()
    assert process.wait(20) == 1
    assert time.monotonic() - began < 15.0
    process.communicate()


# -- the other actions -----------------------------------------------------------------------------


def test_on_does_nothing_and_is_done(world: World) -> None:
    assert world.gate("on").code == 0
    assert world.calls("cibadmin") == []


def test_list_names_the_targets(world: World) -> None:
    process = world.start("action=list")
    assert process.communicate(timeout=10)[0] == ""
    process = world.start("action=list", "pcmk_host_list=cfguest2 cfguest3")
    assert process.communicate(timeout=10)[0] == "cfguest2,\ncfguest3,\n"


def test_monitor_is_well_when_the_gate_holds_and_does_not_wait(world: World) -> None:
    with world.daemon(MOVED) as requests:
        called = world.gate("monitor", "", ["pcmk_host_list=cfguest2"])
    assert called.code == 0
    assert called.seconds < AT_ONCE_SECONDS
    assert [request["guest"] for request in requests] == ["guest2"]
    assert called.log == ""


def test_monitor_without_a_host_list_decides_for_every_target(world: World) -> None:
    with world.daemon(HOME) as requests:
        assert world.gate("monitor", "").code == 0
    assert [request["guest"] for request in requests] == ["guest1", "guest2", "guest1"]


@pytest.mark.parametrize("script", ["exit 1", "echo '<cib'"])
def test_monitor_fails_when_no_decision_can_be_made(world: World, script: str) -> None:
    world.tool("cibadmin", script)
    called = world.gate("monitor", "", ["pcmk_host_list=cfguest2"])
    assert called.code == 1
    assert "the CIB" in called.said


def test_a_monitor_on_a_loaded_node_waits_longer_for_the_cib_than_a_fencing_does(world: World) -> None:
    """A gate that is not started at first is not started at all."""
    world.tool("cibadmin", f"sleep 4.5; exec cat {world.folder}/cib")
    called = world.gate("monitor", "", ["pcmk_host_list=cfguest2"])
    assert called.code == 0, called.said
    assert called.seconds >= 4.5


def test_the_metadata_is_xml_that_names_every_action(world: World) -> None:
    for words in (["-o", "metadata"], ["--action=metadata"], ["action=metadata"]):
        process = world.start(*words)
        root = ET.fromstring(process.communicate(timeout=10)[0])
        assert process.returncode == 0
        names = {action.get("name") for action in root.iterfind("./actions/action")}
        assert {"on", "off", "reboot", "monitor", "status", "list", "metadata", "validate-all"} <= names
        assert {"plug", "level"} <= {entry.get("name") for entry in root.iterfind("./parameters/parameter")}


# -- the zip ---------------------------------------------------------------------------------------


def _changed(program: Path, place: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    with zipfile.ZipFile(program) as old, open(place, "wb") as out:
        out.write(build_gate.SHEBANG)
        with zipfile.ZipFile(out, "a") as new:
            for name in old.namelist():
                content = change(name, old.read(name))
                if content is not None:
                    new.writestr(name, content)
    place.chmod(0o755)
    return place


def _other_python(name: str, content: bytes) -> bytes:
    return b"\x00\x00\r\n" + content[4:] if name.endswith(".pyc") else content


def test_byte_code_of_another_python_is_passed_over_for_the_source(world: World, tmp_path: Path) -> None:
    world.program = _changed(world.program, tmp_path / "other", _other_python)
    with world.daemon(HOME):
        assert world.gate().code == 0
    world.cib(WINDOW)
    world.members("cfguest1", "cfguest2")
    assert world.gate().rule == "target-back"


def test_a_zip_that_lacks_a_module_is_never_a_yes(world: World, tmp_path: Path) -> None:
    whole = world.program
    for name in build_gate.MODULES:
        if name.endswith("__init__.py"):
            continue  # a folder without it is a namespace package
        world.program = _changed(
            whole, tmp_path / "lacking", lambda n, c, gone=name: None if n.startswith(gone) else c
        )
        assert world.gate().code == 1, name


def test_a_killing_gate_that_lacks_a_module_is_never_a_yes(world: World, tmp_path: Path) -> None:
    whole = world.program
    for name in build_gate.KILL_MODULES:
        world.program = _changed(
            whole, tmp_path / "lacking", lambda n, c, gone=name: None if n.startswith(gone) else c
        )
        called = world.gate(more=["kill=1", "guest=guest2"])
        assert called.code == 1, name
        assert "ModuleNotFoundError" in called.said or "ImportError" in called.said, called.said
        assert world.gate().code == 0, name  # an ordinary gate does not need it


def test_the_zip_holds_exactly_what_the_gate_imports_and_byte_code_of_all_of_it(world: World) -> None:
    argv = ["/usr/bin/python3", "-I", "-S", "-v", str(world.program), "--root", str(world.root)]
    path = {**os.environ, "PATH": f"{world.bin}:/usr/bin:/bin"}
    for more, code, modules in (
        ([], 0, build_gate.MODULES),
        (["kill=1", "guest=guest2"], 1, (*build_gate.MODULES, *build_gate.KILL_MODULES)),
    ):
        words = [*argv, "action=off", "plug=cfguest2", *more]
        done = subprocess.run(words, env=path, capture_output=True, text=True, timeout=20)
        assert done.returncode == code, done.stderr[-500:]
        said = re.findall(r"# zipimport: found \S+ names|import '(standfast[\w.]*)'", done.stderr)
        held = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules}
        assert set(said) - {""} == held
    with zipfile.ZipFile(world.program) as archive:
        names_held = (*build_gate.MODULES, *build_gate.KILL_MODULES, "__main__.py")
        assert {name + "c" for name in names_held} <= set(archive.namelist())


def test_the_program_starts_by_itself_and_is_the_same_each_time_it_is_built(program: Path) -> None:
    assert program.stat().st_mode & 0o777 == 0o755
    assert program.read_bytes().startswith(b"#!/usr/bin/python3 -IS\n")
    assert program.read_bytes() == build_gate.content()
    assert build_gate.is_ours(program)
    done = subprocess.run([program, "action=metadata"], capture_output=True, timeout=10)
    assert done.returncode == 0


def test_a_build_that_fails_leaves_the_old_program(tmp_path: Path) -> None:
    place = tmp_path / "fence_standfast"
    place.write_text("old")
    with pytest.raises(build_gate.BuildError, match="cannot compile"):
        build_gate.build(place, python="/bin/false")
    with pytest.raises(build_gate.BuildError):
        build_gate.build(place, python="/nonexistent")
    assert [entry.name for entry in tmp_path.iterdir()] == ["fence_standfast"]
    assert place.read_text() == "old"


@pytest.fixture
def syslog(world: World) -> Iterator[object]:
    import socket

    (world.root / "dev").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(world.root / "dev/log"))
        listener.settimeout(5)
        yield listener


def test_every_answer_goes_to_syslog_too(world: World, syslog: object) -> None:
    world.cib(WINDOW)
    world.members("cfguest1", "cfguest2")
    world.gate()
    line = syslog.recv(4096).decode()  # type: ignore[attr-defined]
    assert re.match(
        r"<28>fence_standfast\[\d+\]: node=cfguest1 target=cfguest2 .* hold rule=target-back", line
    )
