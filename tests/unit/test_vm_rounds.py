"""What measures migrations of real guests, as far as it goes without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from standfast.cluster.run import Result
from standfast.lab.vm import memory_load, witness
from standfast.lab.vm.cases import Row
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.memory_load import Memory
from standfast.lab.vm.raised_rounds import PROFILES, TITLES, Raised
from standfast.lab.vm.rounds import Disturbances, Move, sentence
from standfast.lab.vm.witness import _FENCED, Mark, Witness

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


@dataclass
class OneNode:
    """A lab whose node is this machine, with a corosync of ours."""

    path: Path

    def exec(self, name: str, argv: Sequence[str], limit_seconds: float = 30.0) -> Result:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={"PATH": f"{self.path}:/usr/bin:/bin"}
        )
        return Result(tuple(argv), done.returncode, done.stdout, done.stderr)


def test_one_command_tells_ring_gate_and_services_since_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "GATE_LOG", str(tmp_path / "gate"))
    monkeypatch.setattr(witness, "EVENTS_LOG", str(tmp_path / "events"))
    tool = tmp_path / "corosync-quorumtool"
    tool.write_text("#!/bin/sh\necho 'Ring ID:          1.9'\necho 'Nodes:            2'\n")
    tool.chmod(0o755)
    old = '{"wall": 1.0, "action": "start", "resource": "r-a"}\n'
    (tmp_path / "events").write_text(old)
    asked = Witness(cast(VmLab, OneNode(tmp_path)))
    mark = Mark("cfguest1", 0, 0, len(old))
    assert (asked.glance(mark).members, asked.glance(mark).gate, asked.glance(mark).services) == (2, "", ())
    (tmp_path / "gate").write_text("a line\n")
    (tmp_path / "events").write_text(old + '{"wall": 2.5, "action": "start", "resource": "r-b"}\n{"wal')
    seen = asked.glance(mark)
    assert (seen.gate, seen.started("r-a"), seen.started("r-b")) == ("a line\n", None, 2.5)


def test_a_service_that_was_touched_is_told_once_with_what_pacemaker_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, log = tmp_path / "events", tmp_path / "pacemaker"
    monkeypatch.setattr(witness, "EVENTS_LOG", str(events))
    monkeypatch.setattr(witness, "PACEMAKER_LOG", str(log))
    before = '{"wall": 1.0, "action": "start", "resource": "r-a"}\n'
    events.write_text(before)
    log.write_text("controld [9] info: quiet\nexecd [8] warning: monitor of r-a timed out\n")
    said: list[str] = []
    mark = Mark("cfguest1", 0, 0, len(before))
    told = Disturbances(Witness(cast(VmLab, OneNode(tmp_path))), (mark,), said.append)
    told.look()
    assert said == []
    events.write_text(before + '{"wall": 2.0, "action": "stop", "resource": "r-a"}\n')
    for _ in range(2):
        told.look()
    assert said == [
        "  cfguest1: stop of r-a",
        "  cfguest1: execd [8] warning: monitor of r-a timed out",
    ]


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


# -- a raise just in time ---------------------------------------------------------------------------------


TOLD = {
    "budget_seconds": 20,
    "hold_seconds": 4.25,
    "raised_seconds": 9.1,
    "lowered_seconds": 24.3,
    "lowered": True,
}


def raised(move: Move, rings: int = 0, services: int = 0, *, booted: bool = False) -> Raised:
    return Raised(PROFILES[3], move, rings, 0, 0, services, booted)


def test_a_move_counts_only_where_all_that_has_to_be_0_is_0() -> None:
    good = Move("host3", moved=True, blackout=5.2, just_in_time=TOLD)
    assert raised(good).good
    assert not raised(good, rings=1).good
    assert not raised(good, services=2).good
    assert not raised(good, booted=True).good
    for other in (
        {"pages_wrong": 1},
        {"aims_right": False},
        {"moved": False},
        {"just_in_time": None},
        {"just_in_time": {**TOLD, "lowered": False}},
        {"just_in_time": {**TOLD, "raised_seconds": None}},
    ):
        assert not raised(replace(good, **other)).good  # type: ignore[arg-type]


def test_the_row_has_a_cell_for_each_title_and_says_why_it_did_not_move() -> None:
    row = raised(Move("host3", moved=True, blackout=5.2345, just_in_time=TOLD)).cells()
    assert len(row) == len(TITLES)
    assert row[:7] == ["40", "24 at 8/s", "20.0", "4.2", "9.1", "24.3", "5.234"]
    failed = raised(Move("host3", moved=False, note="exit 1: NOT_RAISED")).cells()
    assert (failed[2:7], failed[-1]) == (["-"] * 5, "exit 1: NOT_RAISED")


def test_new_rings_are_counted_from_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "[TOTEM ] A new membership (1.3) was formed. Members joined: 2\n"
    found = Witness(cast(VmLab, None))
    monkeypatch.setattr(found, "read", lambda node, path: log * 3)
    assert found.rings(Mark("cfguest1", 2 * len(log), 0, 0)) == 1
