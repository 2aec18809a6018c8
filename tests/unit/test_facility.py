"""sdtool -e is refused on the last node whose facility runs, whatever races, is late, or is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cib_store import Store
from driver import codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.cluster import cib
from standfast.cluster.record_change import MAX_TRIES
from standfast.cluster.run import EngineError
from standfast.core import closing, devices, facility, members, names, preflight
from standfast.core.facility import LastNodeError
from standfast.core.record import Phase, Record
from standfast.core.steps import Done
from standfast.daemon.door import Door
from standfast.daemon.facility_switch import Asked
from standfast.daemon.main import Daemon
from standfast.daemon.server import Answer

TWO, THREE = ("n1", "n2"), ("n1", "n2", "n3")
IDLE = Record(epoch=7)
KNOWN = frozenset(THREE)
LAST = "this is the last node whose shutdown facility runs: nobody could kill a lost node"


# -- the decision -----------------------------------------------------------------------------------------


def test_a_node_is_added_where_another_member_is_left() -> None:
    one = facility.stop(IDLE, "n3", set(THREE), KNOWN)
    assert one == replace(IDLE, epoch=8, stopped=("n3",))
    assert one is not None
    two = facility.stop(one, "n1", set(THREE), KNOWN)
    assert two is not None
    assert two.stopped == ("n1", "n3")
    with pytest.raises(LastNodeError):
        facility.stop(two, "n2", set(THREE), KNOWN)


def test_only_members_that_are_not_in_the_list_count() -> None:
    found = replace(IDLE, stopped=("n2",))
    with pytest.raises(LastNodeError):
        facility.stop(found, "n1", {"n1", "n2"}, KNOWN)
    assert facility.others(found, "n1", {"n1", "n2", "n3"}) == ["n3"]


def test_what_is_so_already_is_no_write() -> None:
    assert facility.stop(replace(IDLE, stopped=("n1",)), "n1", {"n1"}, KNOWN) is None
    assert facility.start(IDLE, "n1", KNOWN) is None


def test_nodes_that_were_removed_leave_the_list_with_any_write() -> None:
    found = replace(IDLE, stopped=("gone", "n1"))
    stopped = facility.stop(found, "n2", set(THREE), KNOWN)
    assert stopped is not None
    assert stopped.stopped == ("n1", "n2")
    started = facility.start(found, "n1", KNOWN)
    assert started is not None
    assert started.stopped == ()


# -- the switch of each node ------------------------------------------------------------------------------


class Site:
    """Daemons of some nodes on one CIB."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, nodes: tuple[str, ...], found: Record | None):
        self.store = Store(patch, nodes, found)
        self.folder, self.patch = folder, patch
        self.doors: dict[str, Door] = {}
        for node in nodes:
            self.boot(node)

    def boot(self, node: str) -> Daemon:
        """A daemon that starts, in the same boot unless the marker was taken away."""
        self.patch.setattr(names, "STOPPED_MARKER_FILE", str(self.marker(node)))
        daemon = Daemon()
        daemon.known.node, daemon.known.engine = node, True

        async def nothing() -> None:
            return

        self.patch.setattr(daemon.tests, "test_all", nothing)
        self.doors[node] = Door(daemon)
        return daemon

    def marker(self, node: str) -> Path:
        return self.folder / f"stopped-{node}"

    def daemon(self, node: str) -> Daemon:
        return self.doors[node]._daemon

    async def ask(self, node: str, want: str) -> Answer:
        return await self.doors[node].handle({"op": "facility", "want": want})

    async def look(self, node: str) -> str:
        """What the daemon does at each look."""
        daemon = self.daemon(node)
        daemon._see_record(self.store.query())
        await daemon._settle_facility()
        daemon._see_record(self.store.query())
        return daemon.facility


Make = Callable[..., Site]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda nodes=TWO, found=IDLE: Site(tmp_path, monkeypatch, nodes, found)


@pytest.mark.parametrize("nodes", [TWO, THREE, tuple(f"n{number}" for number in range(1, 7))])
async def test_of_all_nodes_that_are_stopped_at_once_one_goes_on(make: Make, nodes: tuple[str, ...]) -> None:
    site = make(nodes)
    everybody, begun = threading.Barrier(len(nodes)), threading.local()

    def together() -> None:
        # The first look of each waits for that of all others: every one of them sees an empty list.
        if not getattr(begun, "yes", False):
            begun.yes = True
            everybody.wait(20)

    site.store.after_query = together
    answers = await asyncio.gather(*(site.ask(node, "stop") for node in nodes))
    assert sum(answer["ok"] is True for answer in answers) == len(nodes) - 1
    (refused,) = [answer for answer in answers if answer["ok"] is not True]
    assert refused == {"ok": False, "error": LAST, "hint": "sdtool -b on another node first"}
    assert len(site.store.record.stopped) == len(nodes) - 1
    running = [node for node in nodes if site.daemon(node).facility == "running"]
    assert [node for node in nodes if node not in site.store.record.stopped] == running


async def test_a_start_takes_the_node_off_and_another_may_stop_then(make: Make) -> None:
    site = make()
    assert (await site.ask("n1", "stop"))["ok"] is True
    assert (await site.ask("n2", "stop"))["error"] == LAST
    assert await site.ask("n1", "start") == {"ok": True, "facility": "running"}
    assert site.store.record.stopped == ()
    assert not site.marker("n1").exists()
    assert await site.ask("n2", "stop") == {"ok": True, "facility": "stopped"}


async def test_a_member_that_was_lost_counts_no_more(make: Make) -> None:
    site = make(THREE)
    assert (await site.ask("n2", "stop"))["ok"] is True
    site.store.members = frozenset({"n1", "n2"})
    assert (await site.ask("n1", "stop"))["error"] == LAST
    assert (site.store.record.stopped, site.marker("n1").exists()) == (("n2",), False)


async def test_a_stop_that_waited_for_the_ring_until_the_other_was_lost_is_taken_back(make: Make) -> None:
    """The write goes through only when the ring has dropped the dead member: then this node is the last."""
    site = make()

    def dropped(number: int) -> None:
        site.store.members = frozenset({"n1"})

    site.store.before_write = dropped
    answer = await site.ask("n1", "stop")
    assert answer["error"] == LAST
    assert site.store.record.stopped == ()
    assert await site.look("n1") == "running"


async def lost_write(site: Site) -> Callable[[], None]:
    """-e on n1 without an answer; call what comes back to let the write land."""
    held: list[tuple[ET.Element, ET.Element]] = []
    real = site.store.apply

    def silent(original: ET.Element, wanted: ET.Element, limit_seconds: float = 20.0) -> None:
        held.append((original, wanted))
        raise cib.CibUnknown("the patch was not answered in time: it may be carried out later")

    site.patch.setattr(cib, "apply", silent)
    answer = await site.ask("n1", "stop")
    assert answer["ok"] is False
    assert "whether the shutdown facility is stopped is not known yet" in str(answer["error"])
    assert answer["hint"] == "sdtool -s"
    site.patch.setattr(cib, "apply", real)
    return lambda: site.store.land(*held[0])


async def test_a_stop_without_an_answer_is_in_force_once_it_has_landed(make: Make) -> None:
    site = make()
    land = await lost_write(site)
    assert await site.look("n1") == "running"
    land()
    assert await site.look("n1") == "stopped"
    assert (site.store.record.stopped, site.marker("n1").read_text()) == (("n1",), Asked.CONFIRMED.value)
    assert (await site.ask("n2", "stop"))["error"] == LAST


async def test_a_stop_that_lands_when_the_other_node_is_lost_is_taken_back(make: Make) -> None:
    site = make()
    land = await lost_write(site)
    site.store.members = frozenset({"n1"})
    land()
    assert await site.look("n1") == "running"
    assert site.store.record.stopped == ()


async def test_a_stop_that_lands_after_a_start_is_taken_back(make: Make) -> None:
    site = make()
    land = await lost_write(site)
    assert (await site.ask("n1", "start"))["ok"] is True
    land()
    assert await site.look("n1") == "running"
    assert site.store.record.stopped == ()


async def test_a_stop_survives_a_restart_of_the_daemon_also_as_the_last_one(make: Make) -> None:
    site = make()
    await site.ask("n1", "stop")
    site.store.members = frozenset({"n1"})
    site.boot("n1")
    assert await site.look("n1") == "stopped"
    assert site.store.record.stopped == ("n1",)
    assert (await site.ask("n1", "stop"))["ok"] is True, "asked again, nothing changes"
    assert site.store.record.stopped == ("n1",)


async def test_a_reboot_starts_the_facility(make: Make) -> None:
    site = make()
    await site.ask("n1", "stop")
    site.marker("n1").unlink()  # /run is empty after a boot
    site.boot("n1")
    assert await site.look("n1") == "running"
    assert site.store.record.stopped == ()


async def test_the_name_of_a_rebooted_node_is_taken_off_when_the_record_can_be_written(make: Make) -> None:
    site = make()
    await site.ask("n1", "stop")
    site.marker("n1").unlink()
    daemon = site.boot("n1")
    real = site.store.apply

    def refuses(*_: object) -> None:
        raise cib.CibError("the patch was not sent")

    site.patch.setattr(cib, "apply", refuses)
    assert await site.look("n1") == "stopped", "as its gate has it"
    site.patch.setattr(cib, "apply", real)
    daemon.switch._backoff.reset()
    assert await site.look("n1") == "running"


async def test_a_damaged_record_changes_nothing_and_no_record_stops_nobody(make: Make) -> None:
    site = make()
    await site.ask("n1", "stop")
    daemon = site.daemon("n1")
    assert daemon.switch.see(None, "the record lacks 'mover'", "n1") is False
    assert daemon.facility == "stopped"
    assert daemon.switch.see(None, "", "n1") is True
    assert daemon.facility == "running"


async def test_an_older_copy_of_the_record_does_not_start_it_again(make: Make) -> None:
    site = make()
    older = site.store.query()
    await site.ask("n1", "stop")
    site.daemon("n1")._see_record(older)
    assert site.daemon("n1").facility == "stopped"


async def test_before_set_up_nothing_is_stopped_and_a_start_is_nothing_new(make: Make) -> None:
    site = make(found=None)
    answer = await site.ask("n1", "stop")
    assert (answer["ok"], answer["hint"]) == (False, "clsnmpsetup -a, or standfast node add")
    assert (await site.ask("n1", "start"))["ok"] is True
    assert not site.marker("n1").exists()


async def test_a_start_that_cannot_be_written_is_carried_out_later(make: Make) -> None:
    site = make()
    await site.ask("n1", "stop")
    real = site.store.apply

    def refuses(*_: object) -> None:
        raise cib.CibUnknown("the patch was not answered in time")

    site.patch.setattr(cib, "apply", refuses)
    answer = await site.ask("n1", "start")
    assert (answer["ok"], answer["hint"]) == (False, "sdtool -s")
    assert "starts as soon as the record can be written" in str(answer["error"])
    site.patch.setattr(cib, "apply", real)
    assert await site.look("n1") == "running"


async def test_a_record_that_others_keep_moving_stops_the_tries(make: Make) -> None:
    site = make()
    tries = []

    def conflict(*_: object) -> None:
        tries.append(1)
        raise cib.CibConflict("somebody else wrote first")

    site.patch.setattr(cib, "apply", conflict)
    answer = await site.ask("n1", "stop")
    assert "the shutdown facility was not stopped" in str(answer["error"])
    assert (len(tries), site.marker("n1").exists()) == (MAX_TRIES, False)


async def test_a_stop_that_landed_but_could_not_be_looked_at_is_not_called_done(make: Make) -> None:
    site = make()

    def gone(number: int) -> None:
        site.store.after_query = fails

    def fails() -> None:
        raise EngineError("the CIB cannot be read")

    site.store.before_write = gone
    answer = await site.ask("n1", "stop")
    assert "not known yet" in str(answer["error"])
    site.store.after_query = lambda: None
    assert await site.look("n1") == "stopped"


# -- windows, set-up, preflight ---------------------------------------------------------------------------


async def test_a_stop_in_a_window_keeps_all_that_the_window_is(make: Make) -> None:
    window = Record(epoch=9, phase=Phase.OPEN, owner="n2", mover="n2", window=8, budget_seconds=600)
    site = make(found=window)
    assert (await site.ask("n1", "stop"))["ok"] is True
    assert site.store.record == replace(window, epoch=10, stopped=("n1",))


def test_the_list_outlives_a_window_and_a_repair() -> None:
    cluster = FakeCluster(3)
    cluster.record = replace(cluster.record, stopped=("n9",))
    assert isinstance(drive(cluster, OPEN), Done)
    assert cluster.record.stopped == ("n9",)
    repaired = closing._repair(cluster.snapshot("n1"), CLOSE, cluster.record)
    assert repaired.stopped == ("n9",)


def test_preflight_knows_a_stopped_facility_before_its_node_reports_it() -> None:
    cluster = FakeCluster(3)
    cluster.record = replace(cluster.record, stopped=("n2",))
    cluster.sync()
    (message,) = preflight.errors(cluster.snapshot("n1"), OPEN)
    assert (message.code, message.node, message.next_command) == (
        "FACILITY_STOPPED",
        "n2",
        "sdtool -b (on n2)",
    )


def test_of_a_stopped_facility_no_proof_is_waited_for() -> None:
    cluster = opened(3)
    snapshot = cluster.snapshot("n1")
    late = members.unproven(snapshot, "n2", cluster.record.epoch + 1)
    assert late == ["SA-n2 from n1", "SA-n2 from n2", "SA-n2 from n3"]
    stopped = replace(snapshot, record=replace(cluster.record, stopped=("n3",)))
    assert members.unproven(stopped, "n2", cluster.record.epoch + 1) == late[:2]


def test_a_stop_that_wins_the_race_against_an_opening_is_refused_by_preflight() -> None:
    cluster = FakeCluster(3)

    def stopped_meanwhile(cluster: FakeCluster, step: int) -> None:
        if step == 1:
            cluster.record = cluster.record.next(stopped=("n3",))

    assert codes(drive(cluster, OPEN, disturb=stopped_meanwhile)) == ["FACILITY_STOPPED"]
    assert cluster.record.phase is Phase.IDLE


def test_a_node_that_is_deleted_or_removed_leaves_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Store(monkeypatch, THREE, None).query()
    for number, node in enumerate(THREE):
        entry = devices.XscfNode(node, f"g{node}", 0, f"10.1.0.{number}", f"10.2.0.{number}", "u", "ssh")
        tree = devices.with_node(tree, entry)
    found = devices.record.read(tree)
    assert found is not None
    devices.record.write(tree, found.next(stopped=("gone", "n1", "n2")))
    left = devices.record.read(devices.without_node(tree, "n1"))
    assert left is not None
    assert left.stopped == ("n2",)
    again = devices.record.read(devices.with_node(tree, replace(entry, lan0="10.1.0.99")))
    assert again is not None
    assert again.stopped == ("n1", "n2")
