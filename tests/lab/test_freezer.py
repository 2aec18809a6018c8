"""Both freezers of the kernel, on groups of plain processes."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from standfast.lab import freezer
from standfast.lab.errors import LabError
from standfast.lab.freezer import Group
from standfast.lab.process import joining, run

COUNT = 'i=0; while :; do i=$((i+1)); echo $i > "$1"; sleep 0.01; done'


@pytest.fixture(params=["v1", "v2"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    mounted = freezer.mounted()
    if request.param not in mounted:
        pytest.skip(f"this machine has no {request.param} freezer mounted")
    made = Group(mounted[request.param] / f"standfast-test-{secrets.token_hex(4)}", request.param)
    made.create()
    yield made
    made.kill()
    made.remove()


@pytest.fixture
def counter(group: Group, tmp_path: Path) -> Iterator[Path]:
    """A file in which a process of the group counts on, a hundred times a second."""
    file = tmp_path / "count"
    with subprocess.Popen(joining(group.procs_file, ["sh", "-c", COUNT, "count", str(file)])) as process:
        _wait_for(lambda: file.exists() and file.read_text() != "")
        yield file
        group.kill()
        process.wait(5)


def test_a_frozen_group_stands_still_and_runs_on_after_the_thaw(group: Group, counter: Path) -> None:
    group.freeze()
    at_freeze = counter.read_text()
    time.sleep(0.3)
    assert group.frozen()
    assert counter.read_text() == at_freeze
    group.thaw()
    _wait_for(lambda: counter.read_text() not in ("", at_freeze))
    assert not group.frozen()


def test_a_frozen_group_can_be_killed(group: Group, counter: Path) -> None:
    group.freeze()
    group.kill()
    assert group.pids() == []


def test_a_command_that_joins_a_frozen_group_does_not_hold_its_caller(group: Group, counter: Path) -> None:
    group.freeze()
    begun = time.monotonic()
    result = run(joining(group.procs_file, ["true"]), limit_seconds=0.3)
    assert (result.timed_out, result.returncode) == (True, 124)
    assert time.monotonic() - begun < 2.0


def test_a_freezer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "mounted", lambda: {"v2": Path("/sys/fs/cgroup")})
    with pytest.raises(LabError, match=r"no writable freezer of kind v1 \(mounted: v2\)"):
        freezer.choose("v1")


def _wait_for(condition: object, limit_seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
