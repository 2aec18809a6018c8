"""What the daemon answers to sdtool: kills by hand, and the switch of the shutdown facility."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cib_store import Store

from standfast.cluster import fencer
from standfast.cluster.run import EngineError
from standfast.core import devices, names
from standfast.core.record import ONLY_RAISED, Phase, Record, Totem
from standfast.daemon.door import Door
from standfast.daemon.kills import KILLS_AT_ONCE
from standfast.daemon.main import Daemon
from standfast.daemon.server import Answer

NODES = tuple(f"n{number}" for number in range(1, KILLS_AT_ONCE + 3))
OWN = NODES[0]
CIB = (
    '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">'
    "<configuration><crm_config/><nodes>"
    + "".join(f"<node id='{number}' uname='{node}'/>" for number, node in enumerate(NODES, 1))
    + "</nodes><resources/><constraints/></configuration><status/></cib>"
)


class Site:
    """A daemon on n1 that knows devices of all nodes; each kill ends when the test says so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(names, "STOPPED_MARKER_FILE", str(folder / "stopped"))
        monkeypatch.setattr(fencer, "fence", self._fence)
        self.marker = folder / "stopped"
        self.daemon = Daemon()
        self.daemon.known.node, self.daemon.known.engine = OWN, True
        tree = ET.fromstring(CIB)
        for number, node in enumerate(NODES):
            entry = devices.XscfNode(node, f"g{node}", 0, f"10.1.0.{number}", f"10.2.0.{number}", "u", "ssh")
            tree = devices.with_node(tree, entry)
        self.daemon.board.follow(tree)
        self.store = Store(monkeypatch, NODES, Record(epoch=1))
        self.door = Door(self.daemon)
        self.go = {node: threading.Event() for node in NODES}
        self.outcome: dict[str, Exception] = {}
        self.begun: list[str] = []

    def _fence(self, node: str, limit_seconds: float) -> None:
        self.begun.append(node)
        assert self.go[node].wait(20)
        if node in self.outcome:
            raise self.outcome[node]

    def states(self, node: str) -> set[str]:
        rows = self.daemon.board.rows
        return {rows[identifier].shut_state for identifier in self.daemon.board.of(node)}

    async def kill(self, node: str) -> Answer:
        return await self.door.handle({"op": "kill", "node": node})

    async def begin(self, node: str) -> asyncio.Task[Answer]:
        task = asyncio.create_task(self.kill(node))
        await asyncio.sleep(0)  # It runs to where it waits for the fencer.
        assert self.states(node) == {"Killing"}
        return task


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


async def test_a_kill_that_worked_is_shown(site: Site) -> None:
    task = await site.begin("n2")
    assert not task.done()
    site.go["n2"].set()
    assert await task == {"ok": True, "node": "n2"}
    assert (site.states("n2"), site.states("n3")) == ({"KillWorked"}, {"Unknown"})


@pytest.mark.parametrize(
    ("error", "state", "words", "hint"),
    [
        (fencer.FencingFailed("no route"), "KillFailed", "n2 was not killed: no route", "sdtool -s"),
        (EngineError("no fencer"), "KillFailed", "n2 was not killed: no fencer", "sdtool -s"),
        (
            fencer.FencingUnknown("no end within 300 s"),
            "Unknown",
            "it is not known whether n2 was killed: no end within 300 s",
            "crm_mon -1, then stonith_admin --history n2 --verbose",
        ),
    ],
)
async def test_a_kill_without_an_end_is_not_called_failed(
    site: Site, error: Exception, state: str, words: str, hint: str
) -> None:
    site.outcome["n2"] = error
    site.go["n2"].set()
    assert await site.kill("n2") == {"ok": False, "error": words, "hint": hint}
    assert site.states("n2") == {state}


async def test_a_defect_leaves_no_kill_shown_as_under_way(site: Site) -> None:
    site.outcome["n2"] = RuntimeError("a defect")
    site.go["n2"].set()
    with pytest.raises(RuntimeError, match="a defect"):
        await site.kill("n2")
    assert site.states("n2") == {"Unknown"}


async def test_a_node_is_killed_once_at_a_time_and_again_after_that(site: Site) -> None:
    first = await site.begin("n2")
    again = await site.kill("n2")
    assert (again["ok"], again["error"]) == (False, "n2 is being killed already")
    assert site.states("n2") == {"Killing"}
    site.go["n2"].set()
    await first
    assert (await site.kill("n2"))["ok"] is True
    assert site.begun == ["n2", "n2"]


async def test_kills_have_a_limit_and_the_one_too_many_is_not_shown_as_begun(site: Site) -> None:
    tasks = [await site.begin(node) for node in NODES[1 : KILLS_AT_ONCE + 1]]
    last = NODES[-1]
    answer = await site.kill(last)
    assert answer["ok"] is False
    assert f"that of {last} was not begun" in str(answer["error"])
    assert site.states(last) == {"Unknown"}
    for event in site.go.values():
        event.set()
    assert all(answer["ok"] for answer in await asyncio.gather(*tasks))
    assert (await site.kill(last))["ok"] is True


async def test_a_node_counts_as_being_killed_also_when_nobody_waits(site: Site) -> None:
    task = await site.begin("n2")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await site.kill("n2"))["error"] == "n2 is being killed already"
    site.go["n2"].set()


async def test_a_stopped_facility_kills_nobody(site: Site) -> None:
    site.daemon.switch.stopped = True
    answer = await site.kill("n2")
    assert answer == {
        "ok": False,
        "error": "the shutdown facility is stopped on this node; n2 was not killed",
        "hint": "sdtool -b",
    }
    assert (site.begun, site.states("n2")) == ([], {"Unknown"})


def test_a_kill_under_way_does_not_hold_up_the_end_of_the_process() -> None:
    program = (
        "import asyncio, time\n"
        "from standfast.daemon.kills import Kills\n"
        "async def main():\n"
        "    Kills(lambda node: time.sleep(60)).begin('n2')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


async def test_starting_the_facility_shows_old_kills_no_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> None:
        return

    monkeypatch.setattr(site.daemon.tests, "test_all", nothing)
    site.daemon.board.shut("n2", "KillFailed")
    assert (await site.door.handle({"op": "facility", "want": "start"}))["ok"] is True
    assert site.states("n2") == {"Unknown"}


async def test_the_status_has_the_age_of_each_test(site: Site) -> None:
    rows = (await site.door.handle({"op": "status"}))["agents"]
    assert isinstance(rows, list)
    assert {row["tested_seconds_ago"] for row in rows} == {None}


async def test_the_status_tells_a_window_that_is_proven_from_one_that_holds(site: Site) -> None:
    closing = Record(epoch=5, phase=Phase.CLOSING, totem=Totem.RAISED, window=4)
    for record, left in ((closing, ""), (replace(closing, aimed=True), ONLY_RAISED)):
        site.daemon.known.record = record
        found = (await site.door.handle({"op": "status"}))["window"]
        assert isinstance(found, dict)
        assert (found["phase"], found["proven"], found["left"]) == ("closing", bool(left), left)


async def test_an_engine_that_does_not_answer_is_not_called_the_last_node(site: Site) -> None:
    def silent() -> None:
        raise EngineError("the CIB cannot be read: no answer")

    site.store.after_query = silent
    answer = await site.door.handle({"op": "facility", "want": "stop"})
    assert answer == {
        "ok": False,
        "error": "the CIB cannot be read: no answer; the shutdown facility was not stopped",
        "hint": "crm_mon -1",
    }
    assert not site.marker.exists()
