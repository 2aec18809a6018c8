"""A guest's clock that really lags, by the blackout in which it stood still."""

import json
import time
from typing import Any

import pytest

from standfast.lab.vm.cluster import VmLab

pytestmark = [pytest.mark.timeout(600), pytest.mark.lab]
BLACKOUT_SECONDS = 8.0
"""Longer than the threshold of 5 s, shorter than the heartbeat timeout of 10 s: nobody is dropped."""
LIMIT_SECONDS = 120.0
SET_ERROR_SECONDS = 1.0
"""What a clock may be off that was set by a command over the network."""
SWITCHLOG, LOG = "/var/log/standfast/switchlog", "/var/log/standfast/standfastd.log"
LOST = "Cluster host cfguest2 is no longer in time sync with local node."
AGAIN = "Cluster host cfguest2 is in time sync with local node again."


def test_a_blackout_makes_a_clock_lag_which_is_told_of_until_it_is_set_right(lab: VmLab) -> None:
    set_right(lab)
    lab.wait(lambda: measured_right(lab), LIMIT_SECONDS, "clocks that agree, measured since they were set")
    before = offset(lab, "cfguest1", "cfguest2", "agrees") or 0.0
    said = len(text(lab, SWITCHLOG))
    blackout = lab.blackout("guest2", BLACKOUT_SECONDS)
    began = time.monotonic()
    lab.wait(lambda: LOST in text(lab, SWITCHLOG)[said:], LIMIT_SECONDS, "(WRP, 34)")
    print(f"told of {time.monotonic() - began:.1f} s after the blackout of {blackout.seconds:.2f} s")
    lags = offset(lab, "cfguest1", "cfguest2", "out")
    leads = offset(lab, "cfguest2", "cfguest1", "out")
    print("offsets", before, lags, leads)
    assert lags == pytest.approx(before - blackout.seconds, abs=1.0)
    assert leads == pytest.approx(blackout.seconds - before, abs=1.0)
    set_right(lab)
    lab.wait(lambda: AGAIN in text(lab, SWITCHLOG)[said:], LIMIT_SECONDS, "the end of it")
    print(text(lab, SWITCHLOG)[said:])
    assert text(lab, SWITCHLOG)[said:].count("(WRP, 34): WARNING: ") == 1
    assert f"(WRP, 34) {LOST}" in text(lab, LOG)


def offset(lab: VmLab, node: str, other: str, verdict: str) -> float | None:
    """How far the other's clock differs from this node's, if that is what this node makes of it."""
    said = lab.exec(node, ["sdtool", "-s", "--json"])
    if not said.ok:
        return None
    rows: list[dict[str, Any]] = json.loads(said.stdout)["clocks"]["hosts"]
    found = {row["host"]: row["offset_seconds"] for row in rows if row["clock"] == verdict}
    return found.get(other)


def measured_right(lab: VmLab) -> bool:
    """The clocks agree so well that it cannot be a measurement of before they were set."""
    found = offset(lab, "cfguest1", "cfguest2", "agrees")
    return found is not None and abs(found) < SET_ERROR_SECONDS


def text(lab: VmLab, path: str) -> str:
    """A file of cfguest1; empty where there is none yet."""
    return lab.exec("cfguest1", ["cat", path]).stdout


def set_right(lab: VmLab) -> None:
    """Set cfguest2's clock to that of cfguest1, as a time service would."""
    began = time.monotonic()
    now = float(lab.exec("cfguest1", ["date", "+%s.%N"]).stdout)
    late = time.monotonic() - began
    done = lab.exec("cfguest2", ["date", "-s", f"@{now + late:.3f}"])
    assert done.ok, done.stderr
