"""The page's operation on a real cluster: open, a blackout, close; and what must be as it was before."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from window_kit import (
    GUEST,
    MOVER,
    Picture,
    aim,
    cib,
    closed,
    eventually,
    home,
    kills,
    migrate_command,
    move,
    opened,
    reporting,
    restart_daemons,
    restore,
    spare,
    starts_and_stops,
    window,
)

from standfast.core.record import Phase
from standfast.lab.demo_window import LISTING_1, LISTING_2
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)


def listing_1(nodes: int) -> str:
    """The manual's first listing, for as many nodes, after guest2 has moved to the host without a guest."""
    rows = []
    for number in range(1, nodes + 1):
        ppar, host = (1, nodes + 1) if number == 2 else (0, number)
        rows.append(
            f"xscf        cfguest{number}          {ppar}       guest{number}         "
            f"10.20.30.{70 + host}     10.20.40.{70 + host}     xuser          ssh"
        )
    return "\n".join([*LISTING_1.splitlines()[:2], *rows]) + "\n"


def listing_2(nodes: int) -> str:
    """The manual's second listing, for as many nodes."""
    lines = LISTING_2.splitlines()
    rows = [line.replace("cfguest1", f"cfguest{n}") for n in range(1, nodes + 1) for line in lines[2:6]]
    return "\n".join([*lines[:2], *rows]) + "\n"


def the_page(scene: Scene, blackout_seconds: float) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    first, last = scene.lab.nodes[0], scene.lab.nodes[-1]
    assert "the window is open for every node" in opened(scene, first).stdout
    assert {window(scene, node).phase for node in scene.lab.nodes} == {Phase.OPEN}
    assert {scene.heartbeat(node)["runtime.config.totem.token"] for node in scene.lab.nodes} == {"272727"}
    move(scene, spare(scene), blackout_seconds, duration_seconds=blackout_seconds + 1.0)
    closed(scene, last, spare(scene))
    for node in scene.lab.nodes:
        assert scene.run(node, "clsnmpsetup", "-l").stdout == listing_1(len(scene.lab.nodes))
        assert scene.run(node, "sdtool", "-s").stdout == listing_2(len(scene.lab.nodes))
    assert kills(scene, mark) == []
    found = window(scene, first)
    assert (found.phase, found.saved) == (
        Phase.IDLE,
        {home(scene): "standfast-a", spare(scene): "standfast-a"},
    )
    # Its devices aim elsewhere now, and that alone has changed.
    changed = before.differences(Picture.of(scene))
    assert [line.split(" was ")[0] for line in changed] == ["configuration"], changed
    nothing_left(scene)
    assert scene.control.log(0, event="machine-error") == []


def nothing_left(scene: Scene) -> None:
    """Nothing of a window is in the CIB but an idle record."""
    options = {
        pair.get("name"): pair.get("value")
        for pair in cib(scene, scene.lab.nodes[0]).iterfind("./configuration/crm_config//nvpair")
    }
    assert options["standfast-phase"] == "idle"
    assert options["standfast-totem"] == "original"
    assert options["stonith-enabled"] == "true"
    assert options["stonith-max-attempts"] == "INFINITY"
    assert "maintenance-mode" not in options


def test_a_blackout_of_15_s_changes_nothing_but_where_the_agents_aim(scene: Scene) -> None:
    the_page(scene, 15.0)


@pytest.mark.full
@pytest.mark.parametrize("nodes", [2, 5])
def test_a_blackout_of_30_s_changes_nothing_either(nodes: int) -> None:
    made = Scene.up(nodes)
    try:
        the_page(made, 30.0)
    finally:
        made.down()


@contextmanager
def slow_monitors(scene: Scene) -> Iterator[None]:
    """Every service's monitor takes 4 s."""
    for node in scene.lab.nodes:
        assert scene.run(node, "crm_resource", "-r", f"r-{node}", "-p", "slow", "-v", "4").ok
    scene.lab.wait_settled()
    try:
        yield
    finally:
        for node in scene.lab.nodes:
            scene.run(node, "crm_resource", "-r", f"r-{node}", "-d", "slow")
        scene.lab.wait_settled()


@pytest.mark.full
@pytest.mark.parametrize(
    ("blackout_seconds", "restarted"),
    [
        pytest.param(15.0, [], id="15 s, within the monitor's timeout of 20 s"),
        pytest.param(
            30.0,
            [f"r-{MOVER} stop on {MOVER}", f"r-{MOVER} start on {MOVER}"],
            id="30 s, beyond it",
        ),
    ],
)
def test_a_monitor_in_flight_restarts_its_service_only_if_the_blackout_outlasts_its_timeout(
    scene: Scene, blackout_seconds: float, restarted: list[str]
) -> None:
    with slow_monitors(scene):
        opened(scene, "cfguest1")

        def in_flight() -> bool:
            return scene.run(MOVER, "pgrep", "-f", "lab/Recorder monitor").ok

        before = len(starts_and_stops(scene.lab))
        assert eventually(lambda: not in_flight(), 40), "a monitor never ends"
        assert eventually(in_flight, 40), "no monitor begins"
        # It has just begun and takes 4 s.
        move(scene, spare(scene), blackout_seconds, duration_seconds=blackout_seconds + 0.5)
        closed(scene, "cfguest1", spare(scene))
        assert starts_and_stops(scene.lab)[before:] == restarted
        assert eventually(lambda: all(scene.ready(node) for node in scene.lab.nodes), 30)


@pytest.mark.full
def test_a_window_is_left_as_it_is_until_the_right_command_closes_it_after_a_cancelled_migration(
    scene: Scene,
) -> None:
    before = Picture.of(scene)
    opened(scene, "cfguest1", GUEST)
    first, during = window(scene, "cfguest1"), Picture.of(scene)

    assert "It was open already" in opened(scene, "cfguest1", GUEST).stdout
    other = migrate_command(scene, "cfguest1", "-p")
    assert other.returncode == 3
    assert f"a window is open already, for {MOVER} with 600 s" in other.stderr
    dry = migrate_command(scene, "cfguest1", "-n", "-u", GUEST, home(scene))
    assert (dry.returncode, dry.stdout) == (0, "nothing was changed (dry run)\n"), dry.stderr

    scene.control.migrate(GUEST, spare(scene), duration_seconds=60.0, blackout_seconds=1.0)
    early = migrate_command(scene, "cfguest1", "-u", GUEST, home(scene))
    assert early.returncode == 3
    assert "still being moved" in early.stderr
    scene.control.call("abort", name=GUEST)
    wrong = migrate_command(scene, "cfguest3", "-u", GUEST, spare(scene))
    assert wrong.returncode == 3
    assert f"{GUEST} runs on {home(scene)}, not on {spare(scene)}" in wrong.stderr
    assert f"next: clovmmigrate -u {GUEST} {home(scene)}" in wrong.stderr

    assert window(scene, "cfguest1") == first
    assert during.differences(Picture.of(scene)) == []
    closed(scene, "cfguest2", home(scene))
    assert before.differences(Picture.of(scene)) == []


def test_closing_what_was_never_open_and_dry_runs_change_nothing_and_closing_proves_the_agents(
    scene: Scene,
) -> None:
    before, record = Picture.of(scene), window(scene, "cfguest1")
    for argv in (["-p"], ["-p", GUEST], ["-u", GUEST, home(scene)]):
        dry = migrate_command(scene, "cfguest1", "-n", *argv)
        assert (dry.returncode, dry.stdout) == (0, "nothing was changed (dry run)\n"), dry.stderr
    assert window(scene, "cfguest1") == record
    mark = scene.control.mark()
    for node in ("cfguest1", "cfguest3"):
        assert "no window is open" in closed(scene, node, home(scene)).stdout
    assert before.differences(Picture.of(scene)) == []
    asked = {entry["host"] for entry in scene.control.log(mark) if entry["endpoint"] == "lan0"}
    assert asked == {home(scene)}, "only the mover's agents have been tried"


@pytest.mark.full
def test_two_openings_at_once_make_exactly_one_window(scene: Scene) -> None:
    race(scene, 3)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_two_openings_at_once_make_exactly_one_window_20_times(scene: Scene) -> None:
    race(scene, 20)


def race(scene: Scene, rounds: int) -> None:
    before = Picture.of(scene)
    for _ in range(rounds):
        ends = {}

        def run(node: str, guest: str, ends: dict[str, int] = ends) -> None:
            ends[guest] = scene.run(node, "clovmmigrate", "-p", guest, limit_seconds=120).returncode

        threads = [
            threading.Thread(target=run, args=pair) for pair in (("cfguest1", "guest1"), ("cfguest3", GUEST))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [guest for guest, code in ends.items() if code == 0]
        assert len(winners) == 1, ends
        assert sorted(ends.values())[1] in (1, 3), ends
        guest, found = winners[0], window(scene, "cfguest2")
        assert (found.phase, found.mover) == (Phase.OPEN, f"cf{guest}")
        done = migrate_command(scene, "cfguest2", "-u", guest, f"ctrl{guest[-1]}")
        assert done.returncode == 0, done.stderr
    assert before.differences(Picture.of(scene)) == []


@pytest.mark.full
def test_a_daemon_or_attribute_manager_killed_at_any_phase_goes_on_when_it_is_back(scene: Scene) -> None:
    before = Picture.of(scene)
    scene.run("cfguest1", "pkill", "-9", "-x", "pacemaker-attrd")
    restart_daemons(scene, "cfguest2", "cfguest3")
    assert eventually(lambda: reporting(scene) == set(scene.lab.nodes), 30)
    opened(scene, "cfguest1")
    restart_daemons(scene, "cfguest1", "cfguest3")
    closed(scene, "cfguest1", home(scene))
    assert before.differences(Picture.of(scene)) == []


def test_a_second_daemon_refuses_to_start_beside_the_first(scene: Scene) -> None:
    done = scene.run("cfguest1", "standfastd")
    assert done.returncode == 1
    assert re.search(r"standfastd.*(runs|another)", done.stderr), done.stderr
    assert scene.ready("cfguest1")


@pytest.mark.full
def test_a_daemon_outlives_the_engine_and_reports_again_by_itself(scene: Scene) -> None:
    assert "cfguest3" in reporting(scene)
    scene.lab.engine("cfguest3", "stop")
    assert eventually(lambda: "cfguest3" not in reporting(scene), 30)
    scene.lab.engine("cfguest3", "start")
    assert eventually(lambda: "cfguest3" in reporting(scene), 60)
    restore(scene)
    opened(scene, "cfguest3")


@pytest.mark.full
def test_a_window_that_is_forgotten_is_closed_by_the_nodes_at_the_end_of_its_lease(scene: Scene) -> None:
    before = Picture.of(scene)
    opened(scene, "cfguest1", GUEST, "--lease", "1")
    move(scene, spare(scene))
    assert eventually(lambda: window(scene, "cfguest3").phase is Phase.IDLE, 150)
    assert aim(scene) == spare(scene)
    log = scene.path("cfguest1", "/var/log/standfast/standfastd.log").read_text()
    assert "80 % of its lease are over" in log
    assert "closing the window with clovmmigrate -u guest2" in log
    changed = before.differences(Picture.of(scene))
    assert [line.split(" was ")[0] for line in changed] == ["configuration"], changed
