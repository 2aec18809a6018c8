"""A guest's clock that really lags, by the blackout in which it stood still."""

import re
import time

import pytest

from standfast.core.names import CONFIG_FILE
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.rounds import MAX_TRIES
from standfast.lab.vm.stage import BUSY
from standfast.lab.vm.witness import clock_offset, set_clock

pytestmark = [pytest.mark.timeout(600), pytest.mark.lab, pytest.mark.full]
BLACKOUT_SECONDS = 8.0
"""Longer than the threshold of 5 s, shorter than the heartbeat timeout of 10 s: nobody is dropped."""
LIMIT_SECONDS = 120.0
SET_ERROR_SECONDS = 1.0
"""What a clock may be off that was set by a command over the network."""
COMMAND_LIMIT_SECONDS = 180.0
SLOW = (*BUSY, "Testing")
SWITCHLOG, LOG = "/var/log/standfast/switchlog", "/var/log/standfast/standfastd.log"
LOST = "Cluster host cfguest2 is no longer in time sync with local node."
AGAIN = "Cluster host cfguest2 is in time sync with local node again."


def test_a_blackout_makes_a_clock_lag_which_is_told_of_until_it_is_set_right(lab: VmLab) -> None:
    set_clock(lab, "cfguest2", like="cfguest1")
    lab.wait(lambda: measured_right(lab), LIMIT_SECONDS, "clocks that agree, measured since they were set")
    before = clock_offset(lab, "cfguest1", "cfguest2", "agrees") or 0.0
    said = len(text(lab, SWITCHLOG))
    blackout = lab.blackout("guest2", BLACKOUT_SECONDS)
    began = time.monotonic()
    lab.wait(lambda: LOST in text(lab, SWITCHLOG)[said:], LIMIT_SECONDS, "(WRP, 34)")
    print(f"told of {time.monotonic() - began:.1f} s after the blackout of {blackout.seconds:.2f} s")
    lags = clock_offset(lab, "cfguest1", "cfguest2", "out")
    leads = clock_offset(lab, "cfguest2", "cfguest1", "out")
    print("offsets", before, lags, leads)
    assert lags == pytest.approx(before - blackout.seconds, abs=1.0)
    assert leads == pytest.approx(blackout.seconds - before, abs=1.0)
    set_clock(lab, "cfguest2", like="cfguest1")
    lab.wait(lambda: AGAIN in text(lab, SWITCHLOG)[said:], LIMIT_SECONDS, "the end of it")
    print(text(lab, SWITCHLOG)[said:])
    assert text(lab, SWITCHLOG)[said:].count("(WRP, 34): WARNING: ") == 1
    assert f"(WRP, 34) {LOST}" in text(lab, LOG)


def test_a_guest_sets_its_own_clock_from_its_rtc_while_the_close_waits_for_it(lab: VmLab) -> None:
    configure(lab, 'clock_step = "rtc"')
    try:
        set_clock(lab, "cfguest2", like="cfguest1")
        lab.wait(
            lambda: clock_offset(lab, "cfguest1", "cfguest2", "agrees") is not None,
            LIMIT_SECONDS,
            "clocks that agree",
        )
        marks = {node: len(text(lab, LOG, node)) for node in lab.nodes}
        run(lab, "clovmmigrate", "-p", "guest2")
        lab.migrate("guest2", "host3")
        # Home again in the same window: the next test finds everything as it was.
        moved = lab.migrate("guest2", "host2", blackout_seconds=BLACKOUT_SECONDS)
        assert moved.blackout.seconds >= BLACKOUT_SECONDS
        print(f"blackout {moved.blackout.seconds:.2f} s; RTC of the guest: {rtc(lab)}")
        began = time.monotonic()
        said = run(lab, "clovmmigrate", "-u", "guest2", "host2")
        print(f"closed in {time.monotonic() - began:.1f} s")
        assert "cfguest2 is setting its clock (rtc, try 1 of 3)" in said
        done = text(lab, LOG, "cfguest2")[marks["cfguest2"] :]
        print("\n".join(line for line in done.splitlines() if "clock" in line))
        assert "cfguest2 has set its clock (rtc, try 1 of 3): cfguest2 is " in done
        assert re.search(r"\(before: cfguest2 is [78]\.\d s behind cfguest1\)", done)
        assert "setting its clock" not in text(lab, LOG, "cfguest1")[marks["cfguest1"] :]
        left = clock_offset(lab, "cfguest1", "cfguest2", "agrees")
        assert left is not None
        assert abs(left) < 2.0
        token = lab.exec("cfguest1", ["corosync-cmapctl", "-g", "runtime.config.totem.token"]).stdout
        assert "4545" in token, token
    finally:
        configure(lab, "")


def configure(lab: VmLab, line: str) -> None:
    """Give clovmmigrate.conf of every node this line about clock_step, or none."""
    script = 'sed -i "/^clock_step/d" "$1"; [ -z "$2" ] || sed -i "1a $2" "$1"; exec sdtool -r'
    for node in lab.nodes:
        argv = ["/bin/sh", "-c", script, "configure", CONFIG_FILE, line]
        done = lab.exec(node, argv, COMMAND_LIMIT_SECONDS)
        assert done.ok, done.stderr


def rtc(lab: VmLab) -> str:
    """What the guest's RTC and its clock show."""
    argv = ["sh", "-c", "cat /sys/class/rtc/rtc0/since_epoch; date +%s.%N"]
    return " ".join(lab.exec("cfguest2", argv).stdout.split())


def run(lab: VmLab, *argv: str) -> str:
    """A command of Standfast on cfguest1, which must do what it is told. Typed again where an emulated guest
    beside other work was too slow for a limit of its own engine: nothing was changed then."""
    said = []
    for _ in range(MAX_TRIES):
        done = lab.exec("cfguest1", argv, COMMAND_LIMIT_SECONDS)
        said.append(f"{done.returncode}: {done.stdout}{done.stderr}")
        if done.ok:
            print(f"{' '.join(argv)}\n{said[-1]}")
            return said[-1]
        if not any(code in said[-1] for code in SLOW):
            break
    raise AssertionError(f"{' '.join(argv)}:\n" + "\n".join(said))


def measured_right(lab: VmLab) -> bool:
    """The clocks agree so well that it cannot be a measurement of before they were set."""
    found = clock_offset(lab, "cfguest1", "cfguest2", "agrees")
    return found is not None and abs(found) < SET_ERROR_SECONDS


def text(lab: VmLab, path: str, node: str = "cfguest1") -> str:
    """A file of a node; empty where there is none yet."""
    return lab.exec(node, ["cat", path]).stdout
