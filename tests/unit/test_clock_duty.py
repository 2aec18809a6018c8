"""What a daemon makes of measured offsets: messages, switchlog, report, and how often it asks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from standfast.core.clocks import STALE_SECONDS, Limits, Sample, Verdict
from standfast.daemon.clock_duty import ASKED_SECONDS, IDLE_SECONDS, OUT_SECONDS, ClockDuty

MEMBERS = frozenset({"n1", "n2", "n3"})
LOST = "is no longer in time sync with local node. Sane operation of RMS can no longer be guaranteed."


class FakeWatch:
    """Gives what the test puts in."""

    def __init__(self, news: Callable[[], None]) -> None:
        self.news, self.samples, self.trouble = news, list[tuple[str, Sample]](), ""
        self.wanted = ("", 0, 0.0)

    def start(self) -> None: ...

    def want(self, me: str, epoch: int, period_seconds: float) -> None:
        self.wanted = (me, epoch, period_seconds)

    def take(self) -> list[tuple[str, Sample]]:
        taken, self.samples = self.samples, []
        return taken


class Rig:
    """One node's duty, with a clock and a watch of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.now, self.reports = 1000.0, 0
        self.file = folder / "switchlog"
        self.watches: list[FakeWatch] = []
        self.duty = ClockDuty(self._changed, self._make, str(self.file), lambda: self.now)
        self.duty.start(lambda what: what())
        self.watch = self.watches[0]
        self.look()

    def _changed(self) -> None:
        self.reports += 1

    def _make(self, news: Callable[[], None]) -> FakeWatch:
        self.watches.append(FakeWatch(news))
        return self.watches[-1]

    def look(self, **seen: object) -> None:
        told = {"epoch": 1, "asked": 0, "mover": "n2", "limits": Limits(), **seen}
        self.duty.look("n1", told.pop("members", MEMBERS), **told)  # type: ignore[arg-type]

    def measured(self, epoch: int = 1, **offsets: float) -> None:
        """One round: of each node that is named its offset."""
        self.now += 1.0
        self.watch.samples += [(node, Sample(o, 0.01, epoch, self.now)) for node, o in offsets.items()]
        self.watch.news()

    def agreeing(self, epoch: int = 1) -> None:
        for _ in range(2):
            self.measured(epoch, n2=0.0, n3=0.1)


@pytest.fixture
def rig(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Rig:
    caplog.set_level(logging.INFO)
    return Rig(tmp_path)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "WRP" in record.message]


def test_a_host_that_goes_out_of_sync_is_told_of_once_in_the_switchlog_and_again_and_again_in_the_syslog(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.agreeing()
    assert lines(caplog) == []
    rig.measured(n2=-20.0, n3=0.1)
    for _ in range(150):
        rig.measured(n2=-20.0, n3=0.1)
        rig.duty.remind()
    rig.agreeing()
    rig.now += 120.0
    rig.duty.remind()
    assert lines(caplog) == [
        f"(WRP, 34) Cluster host n2 {LOST} Further out-of-sync messages will appear in the syslog.",
        f"(WRP, 35) Cluster host n2 {LOST}",
        f"(WRP, 35) Cluster host n2 {LOST}",
        "(WRP, 34) Cluster host n2 is in time sync with local node again.",
    ]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}: \(WRP, 34\): "
    assert re.fullmatch(
        f"{stamp}WARNING: Cluster host n2 {re.escape(LOST)} Further out-of-sync messages will appear in the "
        f"syslog\\.\n: ====\n"
        f"{stamp}NOTICE: Cluster host n2 is in time sync with local node again\\.\n: ====\n",
        rig.file.read_text(),
    )


def test_the_syslog_is_told_whose_clock_it_is(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.agreeing()
    rig.measured(n2=-20.0, n3=0.1)
    rig.now += 2.0
    rig.duty.remind()
    assert (
        "n2 is 20.0 s behind n1 (clocks); out of sync: n2, 2 of 3 nodes agree with one another" in caplog.text
    )


def test_a_node_whose_own_clock_lags_does_not_blame_the_first_one_that_it_hears_of(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.agreeing()
    rig.now += 10.0
    rig.measured(n2=20.0)
    rig.duty.remind()
    rig.measured(n3=20.1)
    rig.now += 2.0
    rig.duty.remind()
    assert caplog.text.count("out of sync:") == 1
    assert "out of sync: n1, 2 of 3 nodes agree with one another" in caplog.text


def test_the_report_is_another_one_only_where_something_has_materially_changed(rig: Rig) -> None:
    rig.agreeing()
    assert (rig.duty.told.offsets, rig.duty.told.out) == ({"n2": 0.0, "n3": 0.1}, ())
    before = rig.reports
    for number in range(20):
        rig.measured(n2=0.04 * (number % 2), n3=0.1)
    assert rig.reports == before
    rig.measured(n2=-1.0, n3=0.1)
    rig.measured(n2=-20.0, n3=0.1)
    assert rig.reports == before + 2
    assert (rig.duty.told.offsets, rig.duty.told.out) == ({"n2": -20.0, "n3": 0.1}, ("n2",))


def test_a_closing_that_asks_is_told_only_what_was_measured_since(rig: Rig) -> None:
    rig.agreeing()
    rig.look(epoch=9, asked=9)
    assert (rig.duty.told.offsets, rig.duty.told.asked_at) == ({}, 9)
    assert rig.watch.wanted == ("n1", 9, ASKED_SECONDS)
    rig.measured(epoch=8, n2=0.0, n3=0.0)
    rig.measured(epoch=9, n2=0.0, n3=0.0)
    assert rig.duty.told.offsets == {}
    rig.measured(epoch=9, n2=0.0, n3=0.0)
    assert sorted(rig.duty.told.offsets) == ["n2", "n3"]
    rig.look(epoch=9, asked=9)
    assert rig.watch.wanted[2] == IDLE_SECONDS


def test_it_asks_often_only_for_a_while_and_where_somebody_is_out_of_sync(rig: Rig) -> None:
    assert rig.watch.wanted[2] == ASKED_SECONDS, "everybody is new"
    rig.agreeing()
    rig.look()
    assert rig.watch.wanted[2] == IDLE_SECONDS
    rig.measured(n2=-20.0)
    rig.look()
    assert rig.watch.wanted[2] == OUT_SECONDS
    rig.agreeing()
    rig.look(members=MEMBERS | {"n4"})
    assert rig.watch.wanted[2] == ASKED_SECONDS
    rig.now += 40.0
    rig.look(members=MEMBERS | {"n4"})
    assert rig.watch.wanted[2] == IDLE_SECONDS, "n4 has a daemon that does not measure"
    assert rig.duty.shown()[-1]["clock"] == "unknown"


def test_while_a_clock_is_being_set_it_asks_often_however_long_that_takes(rig: Rig) -> None:
    rig.agreeing()
    rig.look(epoch=9, asked=0)
    rig.duty.hurry(True)
    assert rig.watch.wanted == ("n1", 9, ASKED_SECONDS)
    rig.now += 100.0
    rig.look(epoch=9)
    assert rig.watch.wanted[2] == ASKED_SECONDS
    rig.agreeing()
    rig.duty.hurry(False)
    assert rig.watch.wanted[2] == IDLE_SECONDS


def test_who_waits_for_a_round_is_woken_by_it_and_finds_what_is_known(rig: Rig) -> None:
    rig.duty.measured.clear()
    rig.agreeing()
    assert rig.duty.measured.is_set()
    assert {node: clock.verdict for node, clock in rig.duty.known().items()} == dict.fromkeys(
        ("n2", "n3"), Verdict.AGREES
    )
    rig.look(epoch=9, asked=9)
    assert rig.duty.known() == {}, "not measured since it was asked for"


def test_what_is_not_measured_any_more_is_not_told_as_well(rig: Rig) -> None:
    rig.agreeing()
    rig.now += STALE_SECONDS + 1
    rig.duty.heard()
    assert rig.duty.told.offsets == {}


def test_without_the_library_the_report_says_so(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.watch.trouble = "libcpg.so.4 cannot be loaded: install the package libcpg4"
    rig.watch.news()
    rig.watch.news()
    assert rig.duty.told.error == rig.watch.trouble
    assert caplog.text.count("clocks are not measured: libcpg.so.4 cannot be loaded") == 1


def test_who_leaves_out_of_sync_is_new_when_it_comes_back(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.agreeing()
    rig.measured(n2=-20.0)
    rig.look(members=frozenset({"n1", "n3"}))
    assert "n2 has left the membership; its clock was out of sync" in caplog.text
    rig.measured(n2=-20.0)
    rig.look()
    rig.measured(n2=-20.0)
    assert len(lines(caplog)) == 2


def test_a_switchlog_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path / "missing")
    rig.measured(n2=-20.0)
    assert "cannot write" in caplog.text
    assert rig.duty.told.out == ("n2",)
