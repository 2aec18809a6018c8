"""Whether a node may set its own clock, by how much, and which source of time it believes."""

from __future__ import annotations

import dataclasses

import pytest

from standfast.core import clock_step
from standfast.core.clock_step import FRESH_SECONDS, MAX_TRIES, PAUSE_SECONDS, Lag, Seen, Shift
from standfast.core.clocks import Clock, Limits, Sample
from standfast.core.record import Phase, Record, Totem

NOW = 1000.0
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


def clock(offset: float, *, age: float = 1.0, threshold: float = 5.0, before: float | None = None) -> Clock:
    """The clock of another node: its offset, measured twice; `before`: what it was measured at first."""
    found = Clock()
    values = ([] if before is None else [before, before]) + [offset, offset]
    for number, value in enumerate(values):
        at = NOW - age - (len(values) - 1 - number) * 0.5
        found = found.heard(Sample(value, 0.01, 9, at), Limits(threshold))
    return found


def seen(me: str = "n2", record: Record | None = WAITS, threshold: float = 5.0, **offsets: float) -> Seen:
    """What `me` knows, by each other node's offset from it."""
    clocks = {node: clock(offset, threshold=threshold) for node, offset in offsets.items()}
    return Seen(me, frozenset({me, *offsets}), record, clocks, threshold, NOW)


def found(view: Seen) -> Lag:
    lag = clock_step.lag(view)
    assert lag is not None
    return lag


# -- when ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "others", [{"n1": 8.0}, {"n1": 8.0, "n3": 8.1}, {f"n{i}": 8.0 for i in (1, 3, 4, 5)}]
)
def test_the_node_whose_clock_lags_may_set_it_by_what_was_measured(others: dict[str, float]) -> None:
    lag = found(seen(**others))
    assert lag.others == tuple(sorted(others))
    assert lag.low_seconds == pytest.approx(7.0, abs=0.05)
    assert lag.high_seconds == pytest.approx(9.0, abs=0.15)
    assert lag.shown.startswith("n2 is 8.")
    assert " s behind n" in lag.shown


@pytest.mark.parametrize("me", ["n1", "n3"])
def test_the_others_leave_theirs_alone(me: str) -> None:
    other = {"n1": "n3", "n3": "n1"}[me]
    assert clock_step.lag(seen(me, n2=-8.0, **{other: 0.0})) is None
    assert clock_step.lag(seen(me, n2=-8.0)) is None


@pytest.mark.parametrize(
    "record",
    [
        None,
        dataclasses.replace(WAITS, phase=Phase.IDLE),
        dataclasses.replace(WAITS, phase=Phase.OPEN, aimed=False),
        dataclasses.replace(WAITS, aimed=False),
        dataclasses.replace(WAITS, totem=Totem.EXPLICIT),
        dataclasses.replace(WAITS, totem=Totem.ORIGINAL),
        dataclasses.replace(WAITS, abort=True),
    ],
)
def test_only_while_a_record_waits_for_clocks(record: Record | None) -> None:
    assert clock_step.lag(seen(record=record, n1=8.0, n3=8.0)) is None


def test_not_while_any_member_is_not_measured_or_was_measured_too_long_ago() -> None:
    view = seen(n1=8.0, n3=8.0)
    assert clock_step.lag(dataclasses.replace(view, members=view.members | {"n4"})) is None
    old = {**view.clocks, "n3": clock(8.0, age=FRESH_SECONDS + 0.5)}
    assert clock_step.lag(dataclasses.replace(view, clocks=old)) is None
    assert clock_step.lag(dataclasses.replace(view, clocks={})) is None
    assert clock_step.lag(dataclasses.replace(view, members=view.members - {"n2"})) is None


def test_a_clock_that_agrees_is_left_alone() -> None:
    assert clock_step.lag(seen(n1=0.2, n3=-0.1)) is None
    assert clock_step.lag(seen(n1=4.9, n3=4.9)) is None


def test_one_that_was_out_and_is_not_well_back_yet_is_still_wrong() -> None:
    """The close goes on waiting for it: it agrees again below 80 % of the threshold only."""
    clocks = {node: clock(4.5, before=8.0) for node in ("n1", "n3")}
    lag = found(Seen("n2", frozenset({"n1", "n2", "n3"}), WAITS, clocks, 5.0, NOW))
    assert (lag.low_seconds, lag.high_seconds) == pytest.approx((3.5, 5.5), abs=0.05)


def test_a_clock_that_was_just_set_is_left_alone_before_its_second_sample_says_that_it_agrees() -> None:
    was_out = {node: clock(8.0) for node in ("n1", "n3")}
    view = Seen("n2", frozenset({"n1", "n2", "n3"}), WAITS, was_out, 5.0, NOW)
    assert clock_step.lag(view) is not None
    set_right = {n: c.heard(Sample(0.1, 0.01, 9, NOW), Limits()) for n, c in was_out.items()}
    assert all(c.verdict.value == "out" for c in set_right.values())
    assert clock_step.lag(dataclasses.replace(view, clocks=set_right)) is None


# -- whose clock it is ---------------------------------------------------------------------------------------


def test_without_a_majority_nobody_sets_anything() -> None:
    views = {"n1": {"n2": 8.0, "n3": 16.0}, "n2": {"n1": -8.0, "n3": 8.0}, "n3": {"n1": -16.0, "n2": -8.0}}
    for me, offsets in views.items():
        assert clock_step.lag(seen(me, **offsets)) is None


def test_of_two_nodes_only_the_mover_and_only_where_it_is_behind() -> None:
    assert clock_step.lag(seen("n2", n1=8.0)) is not None
    assert clock_step.lag(seen("n2", n1=-8.0)) is None, "no blackout puts a clock ahead"
    assert clock_step.lag(seen("n1", n2=8.0)) is None


def test_of_two_nodes_that_have_both_moved_nobody_knows_whose_it_is() -> None:
    both = dataclasses.replace(WAITS, mover="n1", settle=("n1", "n2"))
    assert clock_step.lag(seen("n1", both, n2=8.0)) is None
    assert clock_step.lag(seen("n2", both, n1=8.0)) is None


def test_a_majority_that_has_moved_and_may_lag_alike_is_not_believed() -> None:
    two = dataclasses.replace(WAITS, settle=("n2", "n3"))
    assert clock_step.lag(seen("n1", two, n2=-20.0, n3=-20.0)) is None
    assert clock_step.lag(seen("n2", two, n1=20.0, n3=20.1)) is not None


def test_one_that_is_ahead_of_a_majority_may_be_set_back() -> None:
    lag = found(seen(n1=-8.0, n3=-8.0))
    assert lag.fits(Shift(-8.0))
    assert not lag.fits(Shift(8.0))
    assert "n2 is 8.0 s ahead of" in lag.shown


def test_who_else_is_out_of_sync_says_nothing_of_where_to_go() -> None:
    lag = found(seen(n1=8.0, n3=8.0, n4=8.2, n5=-30.0))
    assert lag.others == ("n1", "n3", "n4")
    assert lag.fits(Shift(8.1))


# -- by how much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "fits"), [(0.0, False), (6.9, False), (7.1, True), (8.9, True), (9.1, False)]
)
def test_a_source_is_believed_where_it_shows_what_the_others_show(shift: float, fits: bool) -> None:
    assert found(seen(n1=8.0, n3=8.0)).fits(Shift(shift)) is fits


def test_what_is_uncertain_of_a_source_counts_against_it() -> None:
    lag = found(seen(n1=8.0, n3=8.0))
    assert lag.fits(Shift(8.3, 0.5))
    assert not lag.fits(Shift(8.6, 0.5))


@pytest.mark.parametrize("threshold", [1, 2, 5, 300])
def test_wherever_a_source_is_believed_the_clock_then_agrees_with_each_of_the_others(
    threshold: float,
) -> None:
    far = 3.0 * threshold
    for spread in (0.0, 0.5 * threshold, threshold):
        lag = found(seen(threshold=threshold, n1=far, n3=far + spread))
        believed = [
            shift for tenth in range(-30, 60) if lag.fits(Shift(shift := far + tenth * threshold / 10))
        ]
        assert believed
        for shift in believed:
            assert max(abs(far - shift), abs(far + spread - shift)) <= 0.8 * threshold + 1e-9


def test_three_tries_with_a_pause_between_them() -> None:
    assert clock_step.due(0, None)
    assert not clock_step.due(1, PAUSE_SECONDS - 0.1)
    assert clock_step.due(MAX_TRIES - 1, PAUSE_SECONDS)
    assert not clock_step.due(MAX_TRIES, 10 * PAUSE_SECONDS)


# -- whether it has helped -----------------------------------------------------------------------------------


def test_it_has_helped_when_the_others_are_measured_in_agreement_after_it() -> None:
    view = seen(n1=0.1, n3=-0.2)
    assert clock_step.agree(view, ("n1", "n3"), NOW - 2.0)
    assert not clock_step.agree(view, ("n1", "n3"), NOW - 0.5), "measured before it"
    assert not clock_step.agree(view, ("n1", "n4"), NOW - 2.0)
    assert not clock_step.agree(seen(n1=8.0, n3=0.1), ("n1", "n3"), NOW - 2.0)
    assert clock_step.shown(view, ("n1", "n3")) == "n2 is 0.2 s ahead of n3"
    assert clock_step.shown(view, ("n4",)) == ""


# -- what the sources say ------------------------------------------------------------------------------------

# Of chrony 4.3, with a clock 8 s behind: before and after `reset sources`, `burst 4/4`.
LOST = "^,?,127.0.0.1,8,4,3,1,-7.999975681,-7.999975681,0.000040477\n"
SELECTED = "^,*,127.0.0.1,8,4,7,1,-0.000002964,-7.999974251,0.000035148\n"
SLOW = (
    "7F000001,127.0.0.1,9,1795799452.049138734,7.999975681,-7.999971390,7.999971390,-0.838,6.351,90.829,"
    "0.000069591,0.000134078,0.0,Normal\n"
)
NO_SOURCE = (
    "00000000,,0,0.000000000,0.000001197,-0.000007061,0.000007061,-0.838,0.000,0.000,1.000000000,"
    "1.000000000,2.0,Not synchronised\n"
)


WORDS = ("?,", "inf,", "nan,")


def test_chrony_has_a_source_once_it_is_marked() -> None:
    assert not clock_step.chrony_selected("")
    assert not clock_step.chrony_selected(LOST)
    assert clock_step.chrony_selected(LOST + SELECTED)
    assert not clock_step.chrony_selected("506 Cannot talk to daemon\n")


def test_chrony_tells_by_how_much_it_would_step() -> None:
    shift = clock_step.chrony_shift(SLOW)
    assert shift is not None
    assert shift.seconds == pytest.approx(8.0, abs=0.001)


@pytest.mark.parametrize(
    "said",
    ["", NO_SOURCE, "506 Cannot talk to daemon", *(SLOW.replace("7.999975681,", word) for word in WORDS)],
)
def test_what_chrony_does_not_plainly_tell_is_not_believed(said: str) -> None:
    assert clock_step.chrony_shift(said) is None


def test_an_rtc_tells_by_how_much_it_differs_as_it_goes_to_its_next_second() -> None:
    shift = clock_step.rtc_shift(1795799452, 1795799444.0, 1795799444.02)
    assert (shift.seconds, shift.uncertainty_seconds) == pytest.approx((7.99, 0.01), abs=0.001)
    assert found(seen(n1=8.0, n3=8.0)).fits(shift)


def test_a_clock_that_is_set_while_the_rtc_is_watched_makes_it_uncertain() -> None:
    lag = found(seen(n1=8.0, n3=8.0))
    assert not lag.fits(clock_step.rtc_shift(1795799452, 1795799444.0, 1795799451.9))
    assert not lag.fits(clock_step.rtc_shift(1795799452, 1795799451.9, 1795799444.0))


def test_an_rtc_in_local_time_is_hours_away_and_not_believed() -> None:
    shift = clock_step.rtc_shift(1795803052, 1795799444.0, 1795799444.0)
    lag = found(seen(n1=8.0, n3=8.0))
    assert not lag.fits(shift)
    assert clock_step.differs("the RTC", shift, lag) == (
        "the RTC is 3608.0 s ahead of this clock, but n2 is 8.0 s behind n1: nothing was set"
    )
