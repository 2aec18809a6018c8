"""A lab of real guests comes and goes whole: beside another, and after a crash in the middle of its start."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from standfast.lab.layout import labs_root, new_id
from standfast.lab.vm.cluster import VmLab
from traces_of_a_lab import group, left_over, namespaces

pytestmark = [pytest.mark.timeout(300), pytest.mark.lab, pytest.mark.full]
STANDFAST = [sys.executable, "-m", "standfast.commands.standfast"]
START_LIMIT_SECONDS = 90.0


def test_a_lab_killed_while_its_guests_boot_is_removed_and_the_lab_beside_it_runs_on(lab: VmLab) -> None:
    lab_id = f"crash-{new_id()}"
    root = labs_root() / lab_id
    process = subprocess.Popen(
        [*STANDFAST, "lab", "up", "--vm", "--id", lab_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while not (root / "hosts/host2/own/guest2.qmp").exists():
        assert time.monotonic() < deadline, "the lab did not get so far"
        assert process.poll() is None, "the lab ended by itself"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)
    crashed = VmLab.load(lab_id)
    qemu = [host.qemu_pid(guest) for host, guest in zip(crashed.hosts, crashed.spec.guests, strict=False)]
    assert all(qemu), "its guests still run"
    traces = group(root), namespaces(root)
    assert len(traces[1]) == 4, "a switch and three hosts"
    removed = subprocess.run([*STANDFAST, "lab", "down", lab_id], capture_output=True, text=True, timeout=60)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert left_over(root, *traces) == []
    assert [pid for pid in qemu if Path(f"/proc/{pid}/exe").exists()] == []
    lab.wait_settled()
    assert lab.powered() == set(lab.nodes)


def test_status_and_exec_tell_of_guests_and_hosts(lab: VmLab) -> None:
    shown = json.loads(command("status", lab.id, "--json"))[0]
    assert [row["guests"] for row in shown["hosts"]] == [{"guest1": "running"}, {"guest2": "running"}, {}]
    assert [(row["name"], row["power"]) for row in shown["nodes"]] == [
        ("cfguest1", "running"),
        ("cfguest2", "running"),
    ]
    assert command("exec", "--lab", lab.id, "host3", "hostname") == "host3\n"
    assert command("exec", "--lab", lab.id, "guest2", "hostname") == "cfguest2\n"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["power", "host1", "panic"], "host1 is a host; only guests panic"),
        (["power", "guest9", "off"], "has no guest 'guest9'; it has guest1, guest2, cfguest1, cfguest2"),
        (["migrate", "guest1", "host9"], "has no host 'host9'"),
        (["migrate", "guest1", "host1"], "guest1 is on host1 already"),
    ],
)
def test_what_cannot_be_is_named(lab: VmLab, argv: list[str], words: str) -> None:
    refused = subprocess.run(
        [*STANDFAST, "lab", argv[0], "--lab", lab.id, *argv[1:]], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def command(*argv: str) -> str:
    """What `standfast lab ...` prints."""
    done = subprocess.run([*STANDFAST, "lab", *argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
