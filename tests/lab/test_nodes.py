"""What a node of a lab is: real, alone with its files, frozen for an exact time, killed and started again."""

import time
from pathlib import Path

import pytest
from conftest import LabMaker

from standfast.lab import freezer
from standfast.lab.cluster import Lab
from standfast.lab.errors import LabError

TICKER = "import time\nwhile True:\n    print(time.monotonic(), flush=True)\n    time.sleep(0.01)\n"
LISTEN = (
    "import socket\n"
    "with socket.create_server(('10.20.30.73', 22)) as server:\n"
    "    while True:\n"
    "        server.accept()[0].sendall(b'service processor')\n"
)
ASK = "import socket; print(socket.create_connection(('10.20.30.73', 22), 5).recv(100).decode())"


@pytest.fixture(scope="module", params=["auto", pytest.param("v1", marks=pytest.mark.full)])
def lab(request: pytest.FixtureRequest, module_labs: LabMaker) -> Lab:
    """With the freezer that other labs use here, and with the old one where that is another."""
    if request.param == "v1" and set(freezer.mounted()) != {"v1", "v2"}:
        pytest.skip("this machine has one kind of freezer mounted, and no choice")
    return module_labs(freezer=request.param, hosts=True)


def test_the_heartbeat_timeout_of_ten_seconds_is_what_corosync_runs_with(lab: Lab) -> None:
    shown = lab.exec("cfguest1", ["corosync-cmapctl", "-g", "runtime.config.totem.token"]).stdout
    shown += lab.exec("cfguest2", ["corosync-cmapctl", "-g", "runtime.config.totem.consensus"]).stdout
    assert [line.split()[-1] for line in shown.splitlines()] == ["4545", "5455"]


def test_each_node_has_files_of_its_own_and_the_machine_keeps_its(lab: Lab) -> None:
    for node in lab.nodes:
        script = (
            "hostname; echo of-$(hostname) | tee /etc/standfast/mine /var/lib/standfast/mine /etc/lab-mine"
        )
        assert lab.exec(node, ["sh", "-c", script]).stdout == f"{node}\nof-{node}\n"
    for node in lab.nodes:
        files = ["/etc/standfast/mine", "/var/lib/standfast/mine", "/etc/lab-mine"]
        assert lab.exec(node, ["cat", *files]).stdout == f"of-{node}\n" * 3
        assert lab.node(node).path("/etc/standfast/mine").read_text() == f"of-{node}\n"
    assert not Path("/etc/lab-mine").exists()
    assert not Path("/var/lib/standfast/mine").exists()


def test_nodes_reach_the_service_processors_network(lab: Lab) -> None:
    lab.add_outside_process(["/usr/bin/python3", "-c", LISTEN], lab.root / "listen.log", hardware=True)
    deadline = time.monotonic() + 10
    answer = lab.exec("cfguest1", ["/usr/bin/python3", "-c", ASK])
    while not answer.ok and time.monotonic() < deadline:
        time.sleep(0.05)
        answer = lab.exec("cfguest1", ["/usr/bin/python3", "-c", ASK])
    assert answer.stdout == "service processor\n"


def test_a_blackout_is_exact_and_stops_everything_in_the_node(lab: Lab) -> None:
    ticking = lab.add_process("cfguest2", ["/usr/bin/python3", "-c", TICKER])
    before = len(lab.events())
    time.sleep(0.3)
    blackout = lab.blackout("cfguest2", 3.0)
    time.sleep(0.3)
    assert blackout.seconds == pytest.approx(3.0, abs=0.05)
    ticks = [float(line) for line in ticking.log.read_text().splitlines()]
    assert [tick for tick in ticks if blackout.began < tick < blackout.ended] == []
    assert min(tick for tick in ticks if tick >= blackout.ended) - blackout.ended < 0.25
    assert lab.exec("cfguest2", ["kill", "-9", str(ticking.pid)]).ok
    lab.wait_settled(30)
    assert (lab.power_calls(), lab.events()[before:]) == ([], []), "3 s are far below the heartbeat timeout"


def test_a_process_that_was_stopped_for_a_while_still_ends_without_a_trace(lab: Lab) -> None:
    sleeping = lab.add_process("cfguest1", ["sleep", "600"])
    shown = ["ps", "-o", "stat=", "-p", str(sleeping.pid)]
    for number, state in (("-STOP", "T"), ("-CONT", "S"), ("-KILL", "")):
        assert lab.exec("cfguest1", ["kill", number, str(sleeping.pid)]).ok
        deadline = time.monotonic() + 5
        while not (seen := lab.exec("cfguest1", shown).stdout.strip()).startswith(state) or (
            seen and not state
        ):
            assert time.monotonic() < deadline, f"after {number} it is {seen!r}"


def test_a_command_in_a_frozen_node_ends_at_its_limit(lab: Lab) -> None:
    lab.freeze("cfguest2")
    try:
        begun = time.monotonic()
        result = lab.exec("cfguest2", ["hostname"], limit_seconds=0.5)
        assert result.timed_out
        assert time.monotonic() - begun < 2.5
        assert lab.alive("cfguest2")
    finally:
        lab.thaw("cfguest2")
    lab.wait_settled(30)


def test_a_node_without_power_says_so_and_comes_back(lab: Lab) -> None:
    """Killed while frozen: the harder case for a v1 freezer, whose tasks die only once thawed."""
    lab.freeze("cfguest2")
    off_at = time.monotonic()
    lab.power("cfguest2", "panic")
    assert time.monotonic() - off_at < 2.0
    assert not lab.alive("cfguest2")
    with pytest.raises(LabError, match="cfguest2 has no power"):
        lab.exec("cfguest2", ["hostname"])
    _wait_for_start(lab, "r-cfguest2", "cfguest1", since=off_at)
    assert [(call.node, call.answer) for call in lab.power_calls()] == [("cfguest2", "ok")]
    lab.power("cfguest2", "on")
    lab.wait_settled(60)
    moves = [(e.action, e.resource, e.node) for e in lab.events() if e.monotonic > off_at]
    assert moves == [
        ("start", "r-cfguest2", "cfguest1"),
        ("stop", "r-cfguest2", "cfguest1"),
        ("start", "r-cfguest2", "cfguest2"),
    ]
    assert lab.exec("cfguest2", ["cat", "/etc/lab-mine"]).stdout == "of-cfguest2\n"


def _wait_for_start(lab: Lab, resource: str, node: str, since: float) -> None:
    deadline = time.monotonic() + 30
    wanted = ("start", resource, node)
    while wanted not in [(e.action, e.resource, e.node) for e in lab.events() if e.monotonic > since]:
        assert time.monotonic() < deadline, f"{resource} did not start on {node}: {lab.events()}"
        time.sleep(0.1)
