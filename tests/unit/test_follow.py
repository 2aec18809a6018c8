"""How the daemon follows what goes on around it: folders that vanish, files that break, windows left open."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest

from standfast import config
from standfast.cluster import cib, cmap, fencer, rescue_file
from standfast.cluster.run import EngineError
from standfast.core import heartbeat, names
from standfast.core.record import Phase, Record, Totem
from standfast.core.topology import Device
from standfast.daemon import heartbeat_duty, kill_watch, main, probe
from standfast.daemon.board import Row
from standfast.daemon.heartbeat_duty import FileState
from standfast.daemon.main import Daemon
from standfast.daemon.watch import FolderWatch, WatchError
from standfast.hosts import make

OPENING = Record(epoch=5, phase=Phase.OPENING, totem=Totem.RAISED, budget_seconds=600, window=4)


async def seen(watch: FolderWatch) -> bool:
    """Whether the watch wakes up in time."""
    try:
        await asyncio.wait_for(watch.changed.wait(), 5)
    except TimeoutError:
        return False
    watch.changed.clear()
    return True


async def test_a_file_that_is_moved_into_the_folder_is_seen(tmp_path: Path) -> None:
    watch = FolderWatch(str(tmp_path))
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").rename(tmp_path / "cib.xml")
    assert await seen(watch)
    assert not watch.lost
    watch.close()


async def test_only_the_file_that_is_meant_wakes_the_watch(tmp_path: Path) -> None:
    watch = FolderWatch(str(tmp_path), "cib.xml")
    for name in ("cib-1.raw", "cib.last", "cib.xml.sig"):
        (tmp_path / name).write_text("x")
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").rename(tmp_path / "other")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.changed.wait(), 0.2)
    (tmp_path / "other").rename(tmp_path / "cib.xml")
    assert await seen(watch)
    shutil.rmtree(tmp_path)
    assert await seen(watch)
    assert watch.lost
    watch.close()


@pytest.mark.parametrize(
    ("known", "stored", "read"),
    [
        (None, '<cib epoch="9"/>', "asked"),
        ('<cib epoch="8"/>', '<cib epoch="9"/>', "stored"),
        ('<cib epoch="9"/>', '<cib epoch="9"/>', "stored"),
        ('<cib epoch="10"/>', '<cib epoch="9"/>', "asked"),
        ('<cib admin_epoch="1" epoch="2"/>', '<cib admin_epoch="0" epoch="9"/>', "asked"),
        ('<cib epoch="8"/>', "<cib epoch=", "asked"),
        ('<cib epoch="8"/>', None, "asked"),
    ],
)
def test_a_stored_configuration_is_read_unless_it_is_older_than_what_is_known(
    known: str | None, stored: str | None, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "CIB_DIR", str(tmp_path))
    if stored is not None:
        (tmp_path / "cib.xml").write_text(stored)
    monkeypatch.setattr(cib, "query", lambda: ElementTree.Element("asked"))
    found = main._configuration(None if known is None else ElementTree.fromstring(known))
    assert found.tag == {"asked": "asked", "stored": "cib"}[read]


def test_a_stored_configuration_has_the_quorum_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "CIB_DIR", str(tmp_path))
    (tmp_path / "cib.xml").write_text('<cib epoch="9" have-quorum="1"/>')
    found = main._configuration(ElementTree.fromstring('<cib epoch="8" have-quorum="0"/>'))
    assert (found.get("epoch"), found.get("have-quorum")) == ("9", "0")


async def test_a_folder_that_vanishes_is_a_watch_that_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "cib"
    folder.mkdir()
    watch = FolderWatch(str(folder))
    shutil.rmtree(folder)
    assert await seen(watch)
    assert watch.lost
    watch.close()
    with pytest.raises(WatchError, match="No such file"):
        FolderWatch(str(folder))


async def test_without_the_folder_the_daemon_says_so_once_and_looks_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(names, "CIB_DIR", str(tmp_path / "gone"))
    daemon, looks = Daemon(), []

    async def look() -> None:
        looks.append(1)

    monkeypatch.setattr(daemon, "_refresh", look)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await daemon._follow()
    assert len(looks) == 3
    assert len([line for line in caplog.messages if "cannot watch" in line]) == 1


async def test_an_opening_that_was_left_is_watched_closely_only_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = []

    def runtime() -> dict[str, int]:
        reads.append(1)
        return {}

    monkeypatch.setattr(cmap, "runtime", runtime)
    monkeypatch.setattr(main, "VALUES_LIMIT_SECONDS", 0.1)
    daemon = Daemon()
    daemon.known.record = OPENING
    daemon.known.file = FileState(heartbeat.raised(600), "s")
    await daemon._values()
    assert reads
    count = len(reads)
    await daemon._values()
    assert len(reads) == count, "nothing has moved since"
    daemon.known.record = OPENING.next()
    await daemon._values()
    assert len(reads) > count


async def test_a_configuration_that_breaks_takes_no_host_away(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon()
    good = SimpleNamespace(config=SimpleNamespace(hosts=("ctrl1",)))
    monkeypatch.setattr(config, "load", lambda: good)
    monkeypatch.setattr(make, "adapters", lambda hosts, account: dict.fromkeys(hosts, "adapter"))
    daemon.reread()
    assert set(daemon.hosts) == {"ctrl1"}

    def broken() -> None:
        raise config.ConfigError("clovmmigrate.conf", (config.Problem("file", "", "line 1: not TOML"),))

    monkeypatch.setattr(config, "load", broken)
    daemon.reread()
    assert "line 1: not TOML" in daemon.known.config_error
    assert set(daemon.hosts) == {"ctrl1"}


async def test_an_old_kill_is_not_taken_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old = fencer.FencingEvent("n2", "reboot", "success", delegate="n1", completed="monday")
    new = fencer.FencingEvent("n2", "reboot", "success", delegate="n1", completed="tuesday")
    remembered = [old]
    monkeypatch.setattr(fencer, "history", lambda node: tuple(remembered))
    monkeypatch.setattr(kill_watch, "LOOK_SECONDS", 0.001)
    daemon, shown = Daemon(), []
    monkeypatch.setattr(daemon.board, "shut", lambda node, state: shown.append((node, state)))
    await daemon._kills.so_far("n2")
    await daemon._kills.follow("n2", "n1", lambda: False)
    assert shown == [], "it has left in an orderly way"
    remembered.insert(0, new)
    await daemon._kills.follow("n2", "n1", lambda: False)
    assert shown == [("n2", "KillWorked")]


class Outside:
    """XSCFs that let in whoever has the password of n2, and what was tried at them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(names, "STOPPED_MARKER_FILE", str(tmp_path / "stopped"))
        monkeypatch.setattr(probe, "ask_hosts", self.ask_hosts)
        monkeypatch.setattr(probe, "log_in", self.log_in)
        self.tried: list[str] = []
        self.daemon = Daemon()
        self.daemon.known.config = cast(config.Loaded, SimpleNamespace(config=SimpleNamespace(hosts=("c",))))
        for node, state in (("n1", "InitFailed"), ("n2", "InitWorked")):
            device = Device(f"SA-{node}", "fence_xscf", {"password_file": node})
            self.daemon.board.rows[device.id] = Row(node, "SA", device, init_state=state)
        monkeypatch.setattr(self.daemon.board, "test", lambda devices, epoch: [])

    async def ask_hosts(self, hosts: object) -> dict[str, str]:
        return {}

    async def log_in(
        self, listed: object, parameters: dict[str, str] | None, good: object
    ) -> dict[str, probe.Trial]:
        self.tried.append(parameters["password_file"] if parameters else "nothing")
        return {"10.20.30.71": probe.Trial("" if self.tried[-1] == "n2" else "no password")}


async def test_logins_are_tried_with_a_password_that_is_on_this_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = Outside(monkeypatch, tmp_path)
    await outside.daemon.tests.test_all()
    assert outside.tried == ["n2"]
    assert outside.daemon.known.probed.logins == {"10.20.30.71": ""}


async def test_logins_are_tried_again_when_a_password_has_come(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = Outside(monkeypatch, tmp_path)
    monkeypatch.setattr(outside.daemon.board, "mended", lambda: ["SA-n1"])
    outside.daemon.tests.follow([])
    await asyncio.gather(*outside.daemon._tasks)
    assert outside.tried == ["n2"]
    monkeypatch.setattr(outside.daemon.board, "mended", list)
    outside.daemon.tests.follow(["SA-n2"])
    await asyncio.gather(*outside.daemon._tasks)
    assert outside.tried == ["n2"], "an aim that changes is no reason to log in everywhere"


async def test_a_node_that_was_away_before_the_daemon_began_is_watched_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched: list[str] = []

    async def watch(node: str) -> None:
        watched.append(node)

    async def so_far(_: str) -> None:
        return

    daemon = Daemon()
    daemon.known.node = "n1"
    monkeypatch.setattr(daemon, "_watch_away", watch)
    monkeypatch.setattr(daemon._kills, "so_far", so_far)
    monkeypatch.setattr(daemon._kills, "follow", lambda *_: so_far(""))
    monkeypatch.setattr(daemon, "_note", lambda *_: None)
    monkeypatch.setattr(type(daemon.known), "aims", lambda _: dict.fromkeys(("n1", "n2", "n3")))
    daemon._see_members(frozenset({"n1", "n2"}))
    await asyncio.gather(*daemon._tasks)
    assert watched == ["n3"]
    daemon._see_members(frozenset({"n1"}))
    await asyncio.gather(*daemon._tasks)
    assert watched == ["n3", "n2"]


async def test_a_report_has_the_epoch_at_which_its_file_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the record and the file something else may make the daemon report."""
    told: list[int] = []
    daemon = Daemon()
    daemon.known.engine, daemon.known.node, daemon.known.tree = True, "n1", ElementTree.Element("cib")
    daemon._looked_at = 4

    def converge(*_: object, **__: object) -> FileState:
        told.append(daemon.report().epoch)
        return FileState({}, "s")

    def see(_: ElementTree.Element) -> None:
        daemon.known.record = OPENING

    async def nothing() -> None:
        return

    monkeypatch.setattr(daemon, "_tick_due", lambda: False)
    monkeypatch.setattr(daemon, "_see_record", see)
    monkeypatch.setattr(daemon, "_see_answers", nothing)
    monkeypatch.setattr(daemon, "_values", nothing)
    monkeypatch.setattr(daemon.guard, "look", nothing)
    monkeypatch.setattr(main, "_configuration", lambda known: known)
    monkeypatch.setattr(cmap, "runtime", dict)
    monkeypatch.setattr(cmap, "configuration", lambda prefixes: {})
    monkeypatch.setattr(rescue_file, "keep", lambda tree: "")
    monkeypatch.setattr(heartbeat_duty, "converge", converge)
    await daemon._refresh()
    assert (told, daemon.report().epoch) == ([4], OPENING.epoch)


async def test_the_gates_log_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, reads = tmp_path / "gate.log", []

    def answers(path: str, target: str, since_seconds: float) -> tuple[str, ...]:
        reads.append(target)
        return (f"{target} 5 hold",)

    monkeypatch.setattr(names, "GATE_LOG_FILE", str(log))
    monkeypatch.setattr(main.refusals, "answers", answers)
    daemon = Daemon()
    daemon.known.record = replace(OPENING, mover="n2")
    for _ in range(3):
        await daemon._see_answers()
    assert reads == ["n2"]
    log.write_text("an answer\n")
    await daemon._see_answers()
    daemon.known.record = replace(OPENING, mover="n3")
    await daemon._see_answers()
    assert reads == ["n2", "n2", "n3"]
    assert daemon.report().answered == ("n3 5 hold",)


@pytest.mark.parametrize(
    ("ago", "timed_out", "there"), [(5.0, True, True), (40.0, True, False), (5.0, False, False)]
)
async def test_an_engine_that_answers_late_is_still_there_for_a_while(
    ago: float, timed_out: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(_: object) -> None:
        raise EngineError("cibadmin did not answer in time", timed_out=timed_out)

    monkeypatch.setattr(main, "_configuration", late)
    monkeypatch.setattr(main.cmap, "runtime", dict)
    monkeypatch.setattr(main.cmap, "configuration", lambda _: {})
    daemon = Daemon()
    daemon.known.engine, daemon.known.node, daemon.known.members = True, "n1", frozenset({"n1", "n2"})
    daemon._engine_answered = time.monotonic() - ago
    await daemon._refresh()
    assert daemon.known.engine is there
    assert daemon.known.members == (frozenset({"n1", "n2"}) if there else frozenset())
    assert daemon._kick.is_set() is there, "it looks again at once"
