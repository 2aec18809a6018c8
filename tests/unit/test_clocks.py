"""Offsets of clocks: what a sample decides, whose clock it is, and the words of the page."""

from __future__ import annotations

import pytest

from standfast.core import clocks
from standfast.core.clocks import Blame, Clock, Limits, Sample, Verdict, blamed, narrowed

LIMITS = Limits()


def after(*samples: tuple[float, float], start: Clock | None = None, epoch: int = 0) -> Clock:
    """What is known after these samples: offset and uncertainty, a second apart."""
    clock = start or Clock()
    for number, (offset, uncertainty) in enumerate(samples):
        clock = clock.heard(Sample(offset, uncertainty, epoch, float(number)), LIMITS)
    return clock


# -- verdicts ----------------------------------------------------------------------------------------------


def test_a_clock_that_is_off_by_a_whole_blackout_is_called_out_of_sync_by_one_sample() -> None:
    assert after((-20.1, 0.01)).verdict is Verdict.OUT
    assert after((+6.0, 0.9)).verdict is Verdict.OUT


def test_a_clock_agrees_only_after_two_samples_in_a_row() -> None:
    assert after((0.1, 0.01)).verdict is Verdict.UNKNOWN
    assert after((0.1, 0.01), (0.1, 0.01)).verdict is Verdict.AGREES
    assert after((0.1, 0.01), (5.0, 1.0), (0.1, 0.01)).verdict is Verdict.UNKNOWN
    assert after((-20.0, 0.01), (0.0, 0.01)).verdict is Verdict.OUT
    assert after((-20.0, 0.01), (0.0, 0.01), (0.0, 0.01)).verdict is Verdict.AGREES


def test_a_sample_whose_round_trip_is_too_long_to_decide_is_none() -> None:
    assert after((-20.0, 10.0)) == Clock()
    agreed = after((0.0, 0.01), (0.0, 0.01))
    assert after((-3.0, 2.6), start=agreed) == agreed


def test_a_sample_that_may_lie_on_either_side_of_the_threshold_changes_no_verdict() -> None:
    agreed = after((0.0, 0.01), (0.0, 0.01))
    assert after((5.0, 0.5), start=agreed).verdict is Verdict.AGREES
    assert after((5.0, 0.5)).verdict is Verdict.UNKNOWN


def test_who_was_out_of_sync_agrees_again_only_well_within_the_threshold() -> None:
    out = after((-20.0, 0.01))
    assert after((-4.5, 0.01), (-4.5, 0.01), (-4.5, 0.01), start=out).verdict is Verdict.OUT
    assert after((-3.9, 0.01), (-3.9, 0.01), start=out).verdict is Verdict.AGREES


def test_a_verdict_rests_on_samples_of_its_own_epoch() -> None:
    agreed = after((0.0, 0.01), (0.0, 0.01), epoch=3)
    assert agreed.since_epoch == 3
    once = after((0.0, 0.01), start=agreed, epoch=7)
    assert (once.verdict, once.since_epoch) == (Verdict.AGREES, 3)
    assert after((0.0, 0.01), start=once, epoch=7).since_epoch == 7
    assert after((-9.0, 0.01), start=agreed, epoch=7).since_epoch == 7
    # A sample that cannot say that it still agrees makes nothing fresh.
    assert after((5.0, 0.5), start=agreed, epoch=7).since_epoch == 3


def test_what_was_measured_too_long_ago_is_not_known_any_more() -> None:
    clock = after((-20.0, 0.01))
    assert clock.at(clocks.STALE_SECONDS).verdict is Verdict.OUT
    assert clock.at(clocks.STALE_SECONDS + 1).verdict is Verdict.UNKNOWN


# -- the best of the last few ------------------------------------------------------------------------------


def test_samples_that_do_not_contradict_one_another_make_the_offset_more_exact() -> None:
    found = narrowed((Sample(0.0, 0.1, 0, 0.0), Sample(0.5, 1.0, 0, 1.0)))
    assert (found.offset_seconds, found.uncertainty_seconds) == pytest.approx((0.0, 0.1))


def test_after_a_clock_stood_still_only_what_came_later_counts() -> None:
    found = narrowed((Sample(0.0, 0.01, 0, 0.0), Sample(-20.0, 0.5, 0, 1.0), Sample(-20.2, 0.5, 0, 2.0)))
    assert (found.offset_seconds, found.uncertainty_seconds) == pytest.approx((-20.1, 0.4))


# -- whose clock -------------------------------------------------------------------------------------------


def test_with_three_nodes_the_majority_tells_whose_clock_it_is() -> None:
    lagging = {"n1": 0.0, "n2": -20.0, "n3": 0.3}
    assert blamed(lagging, 5.0).names == ("n2",)
    # As the lagging node itself sees it.
    own = {"n2": 0.0, "n1": 20.0, "n3": 20.3}
    assert blamed(own, 5.0, mover="n1") == Blame(("n2",), True, "2 of 3 nodes agree with one another")


def test_of_two_nodes_it_is_the_one_that_was_moved() -> None:
    found = blamed({"n1": 0.0, "n2": -20.0}, 5.0, mover="n2")
    assert (found.names, found.certain) == (("n2",), True)


@pytest.mark.parametrize(
    "positions",
    [
        {"n1": 0.0, "n2": -20.0},
        {"n1": 0.0, "n2": -20.0, "n3": 20.0},
        {"n1": 0.0, "n2": 0.0, "n3": 20.0, "n4": 20.0},
    ],
)
def test_where_nobody_can_tell_all_that_differ_are_named(positions: dict[str, float]) -> None:
    found = blamed(positions, 5.0, mover="n9")
    assert (found.names, found.certain) == (tuple(sorted(positions)), False)


def test_clocks_that_agree_are_nobodys_fault() -> None:
    assert blamed({"n1": 0.0, "n2": -4.9}, 5.0) == Blame()
    assert blamed({}, 5.0) == Blame()


def test_who_lies_between_two_groups_is_not_named() -> None:
    # n3 agrees with both, and no majority is without it.
    assert blamed({"n1": 0.0, "n2": 8.0, "n3": 4.0}, 5.0).names == ("n1", "n2")


# -- words -------------------------------------------------------------------------------------------------

PAGE = (
    "(WRP, 34) Cluster host cfguest2 is no longer in time sync with local node. Sane operation of RMS can no "
    "longer be guaranteed. Further out-of-sync messages will appear in the syslog.",
    "(WRP, 35) Cluster host cfguest2 is no longer in time sync with local node. Sane operation of RMS can no "
    "longer be guaranteed.",
)


def test_the_messages_are_those_of_the_page() -> None:
    assert clocks.coded(clocks.FIRST, clocks.first_text("cfguest2")) == PAGE[0]
    assert clocks.coded(clocks.FURTHER, clocks.further_text("cfguest2")) == PAGE[1]


def test_an_entry_of_the_switchlog_has_the_format_of_the_manual() -> None:
    entry = clocks.switchlog_entry("2026-05-01 10:00:00.123", 34, "WARNING", "text")
    assert entry == "2026-05-01 10:00:00.123: (WRP, 34): WARNING: text\n: ====\n"
