"""Labs come and go whole: side by side, after a crash in the middle of their start, refused where wrong."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import LabMaker

from standfast.lab.errors import LabError
from standfast.lab.layout import labs_root, new_id
from traces_of_a_lab import group, left_over, namespaces

STANDFAST = [sys.executable, "-m", "standfast.commands.standfast"]


def test_two_labs_run_side_by_side_and_one_leaves_nothing_when_it_goes(labs: LabMaker) -> None:
    with ThreadPoolExecutor() as both:
        one, two = both.map(lambda count: labs(nodes=count), (2, 3))
    one.power("cfguest2", "off")
    assert [two.alive(node) for node in two.nodes] == [True, True, True]
    assert two.exec("cfguest2", ["hostname"]).stdout == "cfguest2\n"
    two.wait_settled(30)
    traces = group(one.root), namespaces(one.root)
    assert len(traces[1]) == 3, "a switch and two nodes"
    one.down()
    assert left_over(one.root, *traces) == []
    two.wait_settled(30)
    assert two.power_calls() == []
    one.down()  # again: nothing to do, no error


STAGES = {
    "when only its directory is there": lambda root: root.exists(),
    "with networks half built": lambda root: len(namespaces(root)) >= 2,
    "with one node started": lambda root: (root / "nodes/cfguest1/init.pid").exists(),
    "with all nodes forming their ring": lambda root: (root / "nodes/cfguest3/init.pid").exists(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_lab_killed_in_the_middle_of_its_start_is_removed_from_its_directory_alone(stage: str) -> None:
    lab_id = f"crash-{new_id()}"
    root = labs_root() / lab_id
    process = subprocess.Popen(
        [*STANDFAST, "lab", "up", "--id", lab_id, "--nodes", "3", "--hosts"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not STAGES[stage](root):
        assert time.monotonic() < deadline, "the lab did not get so far"
        assert process.poll() is None, "the lab ended by itself"
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)
    traces = group(root), namespaces(root)
    removed = subprocess.run([*STANDFAST, "lab", "down", lab_id], capture_output=True, text=True, timeout=60)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert left_over(root, *traces) == []


def test_an_interrupted_start_removes_what_it_has_begun() -> None:
    lab_id = f"stop-{new_id()}"
    root = labs_root() / lab_id
    process = subprocess.Popen([*STANDFAST, "lab", "up", "--id", lab_id], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (root / "nodes/cfguest1/init.pid").exists():
        assert time.monotonic() < deadline, "the lab did not get so far"
        time.sleep(0.005)
    traces = group(root), namespaces(root)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert left_over(root, *traces) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nodes": 1}, "a lab has 2 to 16 nodes, not 1"),
        ({"nodes": 17}, "a lab has 2 to 16 nodes, not 17"),
        ({"lab_id": "../x"}, "is no lab id"),
        ({"heartbeat_timeout_seconds": 0.5}, "too short"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_before_anything_is_made(
    labs: LabMaker, options: dict[str, object], words: str
) -> None:
    before = sorted(labs_root().iterdir()) if labs_root().exists() else []
    with pytest.raises(LabError, match=words):
        labs(**options)
    assert (sorted(labs_root().iterdir()) if labs_root().exists() else []) == before


def test_only_root_can_start_a_lab() -> None:
    refused = _standfast("lab", "up", before=["setpriv", "--reuid=65534", "--clear-groups"])
    assert refused.returncode == 1
    assert refused.stderr == "Error: a lab makes namespaces and cgroups: run this as root\n"


def test_no_lab_starts_on_a_machine_that_runs_corosync_itself(tmp_path: Path) -> None:
    """In a network of its own: for other labs of this machine its false corosync is not there."""
    shutil.copy("/bin/sleep", tmp_path / "corosync")
    script = f"{tmp_path}/corosync 60 & trap 'kill $!' EXIT; " + '"$@"'
    refused = _standfast("lab", "up", before=["unshare", "--net", "bash", "-c", script, "with-corosync"])
    assert refused.returncode == 1
    assert "corosync runs on this machine itself" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_lab_or_node_is_named() -> None:
    lab_id = f"no-{secrets.token_hex(3)}"
    for command in (["down", lab_id], ["status", lab_id], ["power", "--lab", lab_id, "cfguest1", "off"]):
        refused = _standfast("lab", *command)
        assert refused.returncode == 1
        assert f"there is no lab '{lab_id}' below" in refused.stderr


def _standfast(*argv: str, before: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    whole = [*(before or []), *STANDFAST, *argv]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
