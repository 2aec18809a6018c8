"""How a node sets its own clock: programs on disk, what is measured afterwards, and what is said of it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from standfast import config
from standfast.cluster.clock_watch import reading
from standfast.core.clock_step import MAX_TRIES, PAUSE_SECONDS
from standfast.core.clocks import Clock, Limits, Sample
from standfast.core.record import Phase, Record, Totem
from standfast.daemon import clock_step_duty
from standfast.daemon.clock_step_duty import ClockStepDuty, Programs
from standfast.daemon.main import Daemon

WAITS = Record(
    epoch=9,
    phase=Phase.CLOSING,
    mover="n2",
    totem=Totem.RAISED,
    aimed=True,
    window=4,
    settle=("n2",),
    prove=8,
)
MEMBERS = frozenset({"n1", "n2", "n3"})
LAG = 8.0
CHRONYC = """
import pathlib
here = pathlib.Path({folder!r})
said = sys.argv[1:]
with (here / "calls").open("a") as log:
    log.write("chronyc " + "|".join(said) + chr(10))
asked = int((here / "asked").read_text()) if (here / "asked").exists() else 0
if said[-1] == "sources":
    (here / "asked").write_text(str(asked + 1))
    print("^,%s,10.0.0.9,8,4,7,1,0.1,0.1,0.1" % ("*" if asked >= {lost} else "?"))
elif said[-1] == "tracking":
    print("0A000009,10.0.0.9,9,1795799452.0,{shift},0,0,0,0,0,0,0,0,Normal")
elif said[-1] == "makestep":
    {makestep}
    print("200 OK")
else:
    print("200 OK")
"""
MEND = "(here / 'set').write_text('')"
HWCLOCK = """
import pathlib
here = pathlib.Path({folder!r})
with (here / "calls").open("a") as log:
    log.write("hwclock " + "|".join(sys.argv[1:]) + chr(10))
{does}
"""


class Site:
    """Node n2, LAG seconds behind the two others, and programs that set its clock or do not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.measured = asyncio.Event()
        self.hurried = False
        self.notes: list[str] = []
        self.changes: list[str] = []
        self.passed = 0.0
        self.deaf = False
        """Nobody measures anything."""
        self.offset = LAG
        self._clocks: dict[str, Clock] = {}
        self.programs = Programs(
            self.program("chronyc", CHRONYC.format(folder=str(folder), lost=1, shift=LAG, makestep=MEND)),
            self.program("hwclock", HWCLOCK.format(folder=str(folder), does=MEND)),
            "/dev/rtc0",
            str(folder / "rtc"),
        )
        self.ahead: float | None = LAG
        """By how much the RTC is ahead of the clock; None: it stands still."""
        self.tick()
        self.duty = ClockStepDuty(self, self._changed, self.notes.append, self.programs, self.now)
        self.round()

    def program(self, name: str, body: str) -> str:
        path = self.folder / name
        path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def tick(self) -> None:
        """The RTC shows the present second."""
        if self.ahead is not None:
            (self.folder / "rtc.new").write_text(f"{int(reading().wall + self.ahead)}\n")
            (self.folder / "rtc.new").rename(self.folder / "rtc")

    def shows(self, what: bytes | None) -> None:
        """An RTC that shows this for ever; None: there is none."""
        self.ahead = None
        (self.folder / "rtc").unlink()
        if what is not None:
            (self.folder / "rtc").write_bytes(what)

    def now(self) -> float:
        return reading().steady + self.passed

    def _changed(self) -> None:
        self.changes.append(self.duty.told)

    # What the duty asks of the clocks.

    def known(self) -> dict[str, Clock]:
        return self._clocks

    def hurry(self, wanted: bool) -> None:
        self.hurried = wanted

    def round(self) -> None:
        """One round of samples; a program that has set the clock leaves a file."""
        offset = 0.1 if (self.folder / "set").exists() else self.offset
        for node in ("n1", "n3"):
            sample = Sample(offset, 0.01, 9, self.now())
            self._clocks[node] = self._clocks.get(node, Clock()).heard(sample, Limits())
        self.measured.set()

    async def _measure(self) -> None:
        while True:
            if not self.deaf:
                self.round()
            self.tick()
            await asyncio.sleep(0.02)

    def look(self, way: str, record: Record | None = WAITS) -> None:
        self.duty.look("n2", MEMBERS, record, way=way, threshold_seconds=5)

    async def at(self, way: str, record: Record | None = WAITS) -> None:
        """A look, and all that follows from it."""
        measuring = asyncio.create_task(self._measure())
        self.tick()
        try:
            self.look(way, record)
            await self.duty.ended()
        finally:
            measuring.cancel()

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    # A machine that is busy elsewhere is no failure.
    for name, seconds in (
        ("SELECT_POLL_SECONDS", 0.05),
        ("READ_BACK_LIMIT_SECONDS", 30.0),
        ("CALL_LIMIT_SECONDS", 30.0),
        ("RTC_SET_LIMIT_SECONDS", 30.0),
        ("RTC_READ_LIMIT_SECONDS", 30.0),
        ("TICK_LIMIT_SECONDS", 10.0),
    ):
        monkeypatch.setattr(clock_step_duty, name, seconds)
    return Site(tmp_path)


@pytest.fixture
def impatient(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Where it will not help there is no point in waiting long."""
    monkeypatch.setattr(clock_step_duty, "READ_BACK_LIMIT_SECONDS", 0.5)
    monkeypatch.setattr(clock_step_duty, "TICK_LIMIT_SECONDS", 1.1)
    return site


# -- what is done --------------------------------------------------------------------------------------------


async def test_chrony_gets_fresh_sources_is_waited_for_and_then_steps(site: Site) -> None:
    await site.at("chrony")
    assert site.calls == [
        "chronyc -n|-m|reset sources|burst 4/4",
        "chronyc -n|-c|sources",
        "chronyc -n|-c|sources",
        "chronyc -n|-c|tracking",
        "chronyc makestep",
    ]
    assert site.changes == [
        "is setting its clock (chrony, try 1 of 3)",
        "has set its clock (chrony, try 1 of 3): n2 is 0.1 s behind n1",
    ]
    assert site.notes[0] == "n2 is setting its clock (chrony, try 1 of 3): n2 is 8.0 s behind n1"
    assert (
        "n2 has set its clock (chrony, try 1 of 3): n2 is 0.1 s behind n1 (before: n2 is 8.0 s behind n1)"
        in (site.notes[1])
    )
    assert not site.hurried


async def test_the_rtc_is_read_first_and_then_set_from(site: Site) -> None:
    await site.at("rtc")
    assert site.calls == ["hwclock --hctosys|--utc|--noadjfile|--rtc=/dev/rtc0"]
    assert site.duty.told == "has set its clock (rtc, try 1 of 3): n2 is 0.1 s behind n1"


@pytest.mark.parametrize("way", ["chrony", "rtc"])
async def test_while_it_is_set_clocks_are_measured_often(site: Site, way: str) -> None:
    site.look(way)
    await asyncio.sleep(0)
    assert site.hurried
    (site.folder / "set").write_text("")
    await site.at(way)
    assert not site.hurried


@pytest.mark.parametrize(
    ("way", "record"),
    [
        ("off", WAITS),
        ("rtc", None),
        ("rtc", dataclasses.replace(WAITS, phase=Phase.IDLE)),
        ("chrony", dataclasses.replace(WAITS, phase=Phase.OPEN, aimed=False)),
        ("rtc", dataclasses.replace(WAITS, aimed=False)),
        ("rtc", dataclasses.replace(WAITS, totem=Totem.ORIGINAL)),
    ],
)
async def test_where_it_is_off_or_no_record_waits_nothing_is_called(
    site: Site, way: str, record: Record | None
) -> None:
    await site.at(way, record)
    assert (site.calls, site.notes, site.changes) == ([], [], [])


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0.0, 4.0, 3600.0 + LAG, -LAG])
async def test_an_rtc_that_does_not_show_what_the_others_show_sets_nothing(site: Site, ahead: float) -> None:
    site.ahead = ahead
    await site.at("rtc")
    assert site.calls == []
    assert "could not set its clock right (rtc, try 1 of 3): the RTC, if it is in UTC, is" in site.duty.told
    assert "but n2 is 8.0 s behind n1: nothing was set" in site.duty.told
    assert "type: chronyc" in site.notes[-1]


async def test_a_source_of_chrony_s_that_does_not_show_what_the_others_show_sets_nothing(
    impatient: Site,
) -> None:
    body = CHRONYC.format(folder=str(impatient.folder), lost=0, shift=0.2, makestep=MEND)
    impatient.program("chronyc", body)
    await impatient.at("chrony")
    assert "chronyc makestep" not in impatient.calls
    assert (
        "the time of chronyd is 0.2 s ahead of this clock, but n2 is 8.0 s behind n1" in impatient.duty.told
    )


async def test_chronyd_that_has_set_the_clock_by_itself_has_helped(site: Site) -> None:
    """As with `makestep 1 -1` in chrony.conf: it steps as soon as a source is selected."""
    body = CHRONYC.format(folder=str(site.folder), lost=0, shift=0.0, makestep="")
    site.program("chronyc", body.replace('print("0A', f'{MEND}; print("0A'))
    await site.at("chrony")
    assert "chronyc makestep" not in site.calls
    assert site.duty.told.startswith("has set its clock")


async def test_a_source_that_is_never_selected_ends_the_try(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_step_duty, "SELECT_LIMIT_SECONDS", 1.0)
    site.program("chronyc", CHRONYC.format(folder=str(site.folder), lost=99999, shift=LAG, makestep=MEND))
    await site.at("chrony")
    assert "chronyc makestep" not in site.calls
    assert "chronyd has not selected a source within 1 s: nothing was set" in site.duty.told


async def test_a_window_that_is_over_before_the_step_is_no_reason_any_more(impatient: Site) -> None:
    wait = "\n".join(["import os", "while not os.path.exists({path!r}): time.sleep(0.01)"])
    body = CHRONYC.format(folder=str(impatient.folder), lost=0, shift=LAG, makestep=MEND)
    impatient.program("chronyc", wait.format(path=str(impatient.folder / "go")) + "\n" + body)
    impatient.look("chrony")
    await asyncio.sleep(0)
    impatient.look("chrony", dataclasses.replace(WAITS, phase=Phase.IDLE))
    (impatient.folder / "go").write_text("")
    await impatient.at("chrony", dataclasses.replace(WAITS, phase=Phase.IDLE))
    assert "chronyc makestep" not in impatient.calls
    assert "it is no longer waited for" in impatient.notes[-1]


# -- what does not help --------------------------------------------------------------------------------------


async def test_a_program_that_says_ok_and_sets_nothing_is_found_out(impatient: Site) -> None:
    body = CHRONYC.format(folder=str(impatient.folder), lost=0, shift=LAG, makestep="pass")
    impatient.program("chronyc", body)
    await impatient.at("chrony")
    assert "chronyc makestep" in impatient.calls
    assert impatient.duty.told == (
        "could not set its clock right (chrony, try 1 of 3): it does not agree with the others; "
        "n2 is 8.0 s behind n1 as before"
    )


async def test_where_nobody_measures_it_afterwards_nothing_is_believed(impatient: Site) -> None:
    impatient.deaf = True
    await impatient.at("rtc")
    assert impatient.calls != []
    assert "could not set its clock right" in impatient.duty.told


@pytest.mark.parametrize(
    ("way", "break_it", "says"),
    [
        ("chrony", lambda s: (s.folder / "chronyc").unlink(), "No such file or directory"),
        (
            "chrony",
            lambda s: s.program("chronyc", "sys.exit('506 Cannot talk to daemon')"),
            "506 Cannot talk",
        ),
        ("rtc", lambda s: s.shows(None), "the RTC cannot be read"),
        ("rtc", lambda s: s.shows(b"soon\n"), "the RTC cannot be read"),
        ("rtc", lambda s: s.shows(b"\xff\xfe"), "the RTC cannot be read"),
        ("rtc", lambda s: s.shows(b"1795799452\n"), "the RTC stands still"),
        ("rtc", lambda s: (s.folder / "hwclock").unlink(), "No such file or directory"),
        ("rtc", lambda s: s.program("hwclock", "sys.exit('hwclock: Cannot access it')"), "Cannot access it"),
    ],
)
async def test_what_is_missing_or_fails_is_named(
    impatient: Site, way: str, break_it: Callable[[Site], object], says: str
) -> None:
    break_it(impatient)
    await impatient.at(way)
    assert "could not set its clock right" in impatient.duty.told
    assert says in impatient.duty.told
    assert "type: chronyc" in impatient.notes[-1]


async def test_a_program_that_hangs_is_ended_and_may_have_done_it_all_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_step_duty, "RTC_SET_LIMIT_SECONDS", 3.0)
    monkeypatch.setattr(clock_step_duty, "READ_BACK_LIMIT_SECONDS", 0.5)
    hangs = HWCLOCK.format(folder=str(site.folder), does="time.sleep(60)")
    site.program("hwclock", hangs)
    await site.at("rtc")
    assert "did not answer in time" in site.duty.told
    monkeypatch.setattr(clock_step_duty, "READ_BACK_LIMIT_SECONDS", 30.0)
    site.passed += PAUSE_SECONDS
    site.round()
    site.program("hwclock", hangs.replace("time.sleep", f"{MEND}; time.sleep"))
    await site.at("rtc")
    assert site.duty.told.startswith("has set its clock (rtc, try 2 of 3)")


# -- how often -----------------------------------------------------------------------------------------------


async def test_it_is_tried_three_times_in_a_window_with_a_pause(site: Site) -> None:
    site.shows(None)
    for _ in range(10):
        await site.at("rtc")
        await site.at("rtc")
        site.passed += PAUSE_SECONDS
        site.round()
    assert len(site.notes) == 2 * MAX_TRIES
    assert "(rtc, try 3 of 3)" in site.duty.told
    again = dataclasses.replace(WAITS, epoch=30, window=20)
    await site.at("rtc", again)
    assert "(rtc, try 1 of 3)" in site.duty.told


async def test_what_was_done_is_told_until_the_window_is_over(site: Site) -> None:
    await site.at("rtc")
    assert site.duty.told
    await site.at("rtc", dataclasses.replace(WAITS, epoch=10, totem=Totem.EXPLICIT))
    assert site.duty.told
    await site.at("rtc", dataclasses.replace(WAITS, epoch=12, phase=Phase.IDLE))
    assert site.duty.told == ""


async def test_one_try_at_a_time(site: Site) -> None:
    for _ in range(5):
        site.look("rtc")
        await asyncio.sleep(0)
    await site.at("rtc")
    assert len(site.calls) == 1


async def test_a_defect_is_told_and_ends_only_the_try(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> None:
        raise RuntimeError(path)

    monkeypatch.setattr(clock_step_duty, "_watch_rtc", broken)
    await site.at("rtc")
    assert "a defect in standfastd" in site.duty.told
    assert not site.hurried


# -- the daemon ----------------------------------------------------------------------------------------------

CONF = """format = 1
clock_threshold_seconds = 7
clock_step = "{way}"
[[control_domain]]
name = "host1"
address = "10.20.50.71"
kind = "manual"
"""


@pytest.mark.parametrize("way", ["off", "chrony", "rtc", None])
async def test_the_daemon_goes_by_the_configuration_and_tells_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str | None
) -> None:
    daemon, looked = Daemon(), list[tuple[object, ...]]()

    def look(*seen: object, **how: object) -> None:
        looked.append((*seen, how["way"], how["threshold_seconds"]))

    monkeypatch.setattr(daemon.clock_step, "look", look)
    daemon.known.node, daemon.known.members, daemon.known.record = "n2", MEMBERS, WAITS
    if way is not None:
        (tmp_path / "conf").write_text(CONF.format(way=way))
        daemon.known.config = config.load(str(tmp_path / "conf"))
    daemon._see_clocks()
    expected = (way, 7) if way is not None else ("off", 5)
    assert looked == [("n2", MEMBERS, WAITS, *expected)]
    daemon.clock_step.told = "is setting its clock (rtc, try 1 of 3)"
    assert daemon.report().clock_step == daemon.clock_step.told
