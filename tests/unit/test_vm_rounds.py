"""What measures migrations of real guests, as far as it goes without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from standfast.lab.vm import memory_load
from standfast.lab.vm.cases import Row
from standfast.lab.vm.memory_load import Memory
from standfast.lab.vm.rounds import Move, sentence
from standfast.lab.vm.witness import _FENCED

HISTORY = """\
cfguest1 was able to reboot node cfguest2 on behalf of pacemaker-controld.812 from cfguest1 at 2026-11-27
cfguest1 was not able to reboot node cfguest2 on behalf of pacemaker-controld.812 from cfguest1
reboot of cfguest2 successful: delegate=cfguest1, client=pacemaker-controld.812, origin=cfguest1
reboot of cfguest2 failed: delegate=, client=pacemaker-controld.812, origin=cfguest1
"""


def test_memory_that_was_written_is_as_it_was_written() -> None:
    memory = Memory(8)
    assert memory.wrong() == 0
    memory.write(20)
    assert (memory.wrong(), memory.writes) == (0, 20)


@pytest.mark.parametrize("lost", ["one byte", "a write", "another page's text"])
def test_a_page_that_a_migration_lost_is_found(lost: str) -> None:
    memory = Memory(8)
    memory.write(10)
    before = bytes(memory._page(3))
    memory.write(8)
    if lost == "one byte":
        memory._pages[3 * memory_load.PAGE_BYTES + 4095] ^= 1
    else:
        memory._page(3)[:] = before if lost == "a write" else memory._page(4)
    assert memory.wrong() == 1


def test_the_program_writes_at_its_rate_and_compares_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    code = (
        "from standfast.lab.vm import memory_load as m; import sys; "
        f"m.STATUS_FILE = {str(status)!r}; sys.argv[1:] = ['--mib', '1', '--mib-per-second', '10']; m.main()"
    )
    program = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert told(status)["compared"] == 0
        os.kill(program.pid, signal.SIGUSR1)
        found = told(status, compared=1)
        assert (found["pid"], found["wrong"]) == (program.pid, 0)
        assert found["writes"] > 0
        assert found["writes"] % 256 == 0, "10 MiB/s are 256 pages in a tenth of a second"
    finally:
        program.kill()
        program.wait()


def told(status: Path, compared: int = 0) -> dict[str, int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if status.exists():
            found: dict[str, int] = json.loads(status.read_text())
            if found["compared"] >= compared:
                return found
        time.sleep(0.01)
    raise AssertionError("the program told nothing")


def test_only_fencings_that_have_worked_are_counted() -> None:
    assert len(_FENCED.findall(HISTORY)) == 2


def test_a_row_says_what_was_not_as_it_has_to_be() -> None:
    row = Row("cancelled", "exit 1", "runs on host2", "left: 0", "window closed")
    row.require("nothing", so=True)
    assert (row.good, row.line().endswith("| yes |")) == (True, True)
    row.require("the guest has booted", so=False)
    assert (row.good, row.line().endswith("| NO: the guest has booted |")) == (False, True)


def test_a_move_is_told_with_what_was_wrong_in_it() -> None:
    assert sentence(Move("host3", moved=True, blackout=0.1234, whole=40.0)) == (
        "to host3 in 40.0 s, blackout 0.123 s"
    )
    bad = Move("host3", moved=True, whole=4.0, pages_wrong=2, aims_right=False)
    assert sentence(bad) == "to host3 in 4.0 s, 2 PAGES WRONG, its fence agent sees it off"
    assert "not moved: exit 1" in sentence(Move("host3", moved=False, note="exit 1"))
