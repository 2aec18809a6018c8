"""When a copy is held, and how long the heartbeat has to bear: by figures as libvirt tells them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from standfast.core import holding
from standfast.core.holding import MIB, Budget, Look
from standfast.core.jobs import MigrationJob
from standfast.core.messages import Message

GIB = 1024 * MIB


def look(
    left_mib: float | None,
    mib_per_second: float = 0.0,
    at: float = 0.0,
    *,
    took: float = 0.1,
    iteration: int = 1,
    sent_mib: float | None = None,
    elapsed_s: float | None = None,
) -> Look:
    left = None if left_mib is None else round(left_mib * MIB)
    sent = None if sent_mib is None else round(sent_mib * MIB)
    elapsed_ms = None if elapsed_s is None else round(elapsed_s * 1000)
    job = MigrationJob("g", 50, False, "", True, remaining_bytes=left, iteration=iteration,
                       rate_bytes_per_second=round(mib_per_second * MIB), copied_bytes=sent,
                       elapsed_ms=elapsed_ms)  # fmt: skip
    return Look(job, at, took)


def test_a_slow_copy_is_held_when_it_is_as_long_as_the_hold_has_to_last() -> None:
    assert not holding.must_hold(look(91, 10), None)
    assert holding.must_hold(look(89, 10), None), "77 MiB for the hold, 13 MiB in the time of three looks"


def test_a_fast_copy_is_held_much_earlier() -> None:
    assert holding.must_hold(look(1024, 1000), None)
    assert not holding.must_hold(look(2048, 1000), None)


def test_a_look_that_takes_long_is_counted_on() -> None:
    assert not holding.must_hold(look(105, 10, took=0.1), None)
    assert holding.must_hold(look(105, 10, took=1.0), None)


def test_empty_pages_count_by_what_is_seen_to_fall() -> None:
    """The host tells bytes sent: a page of zeros is some bytes, and 4 KiB less are left."""
    before = look(1000, 1, at=0.0)
    assert holding.rate(look(500, 1, at=1.0), before) == 500 * MIB
    assert holding.must_hold(look(500, 1, at=1.0), before)
    assert holding.rate(look(1000, 1, at=1.0), before) == MIB


def test_what_is_not_told_holds_nothing() -> None:
    assert not holding.must_hold(look(None, 10), None)
    assert not holding.slipped(look(None))


def test_a_hold_has_slipped_in_the_second_pass_or_where_next_to_nothing_is_left() -> None:
    assert not holding.slipped(look(5))
    assert holding.slipped(look(1.9))
    assert holding.slipped(look(500, iteration=2))
    unknown = look(500)
    assert not holding.slipped(replace(unknown, job=replace(unknown.job, iteration=None)))


def test_the_raise_begins_some_time_before_the_end_of_the_first_pass_by_what_the_link_carries() -> None:
    link = 10.0 * MIB
    assert not holding.must_raise(look(751, 10), None, link)
    assert holding.must_raise(look(749, 10), None, link)
    assert not holding.must_raise(look(749, 10), None, 0.0), "that is not known yet"
    assert not holding.must_raise(look(4000, 137), None, link), "a burst into buffers"
    empty = look(5000, 1, at=0.0)
    assert not holding.must_raise(look(4000, 1, at=1.0), empty, link), "empty memory: it may end soon"
    assert holding.must_raise(look(70, 0), None, 0.0), "what must be held must be raised"
    assert not holding.must_raise(look(None, 10), None, link)


def test_a_copy_that_goes_on_while_it_is_raised_is_looked_at_ten_times_before_it_is_to_be_held() -> None:
    assert holding.watch_pause_seconds(look(237, 10), None) == pytest.approx(1.5)
    assert holding.watch_pause_seconds(look(90, 10), None) == 0.5
    assert holding.watch_pause_seconds(look(5000, 10), None) == 3.0
    assert holding.watch_pause_seconds(look(5000, 10, at=1.0), look(9000, 10, at=0.0)) == 0.5
    for untold in (None, look(None, 10), look(90, 0)):
        assert holding.watch_pause_seconds(untold, None) == 0.5


def test_a_node_that_stood_still_is_known_by_the_clock_of_the_source() -> None:
    before = look(90, 10, at=1.0, elapsed_s=10)
    assert not holding.stood_still(look(80, 10, at=2.0, elapsed_s=19), before)
    assert holding.stood_still(look(80, 10, at=2.0, elapsed_s=19.1), before)
    assert not holding.stood_still(look(80, 10, at=30.0, elapsed_s=38), before), "a slow look is none"
    assert not holding.stood_still(look(80, 10, at=30.0), before), "not told"
    assert not holding.stood_still(look(80, 10, at=2.0, elapsed_s=99), None)


def test_a_guest_is_on_its_way_as_long_as_something_is_left_of_it() -> None:
    assert holding.on_its_way(look(0.1))
    assert not holding.on_its_way(look(0)), "the answer came after the blackout"
    assert not holding.on_its_way(look(None))
    assert not holding.on_its_way(replace(look(5), job=replace(look(5).job, done=True)))


def test_the_last_part_is_paced_and_begins_earlier_where_the_link_is_fast() -> None:
    assert not holding.must_pace(look(30, 10), None, 0.0)
    assert holding.must_pace(look(28, 10), None, 0.0), "24 MiB, and 5 MiB in the time of three looks"
    assert holding.must_pace(look(500, 1000), None, 0.0)
    assert holding.must_pace(look(500, 1, at=1.0), look(1500, 1, at=0.0), 0.0), "as seen to fall"
    assert holding.must_pace(look(28, 1), None, 10.0 * MIB), "held, and as fast once it is let go"
    assert not holding.must_pace(look(300, 1), None, 10.0 * MIB), "held with much left"
    assert not holding.must_pace(look(None, 10), None, 0.0)


def test_what_is_left_where_a_copy_is_held_is_little() -> None:
    assert holding.little_left(look(90), 10.0 * MIB)
    assert not holding.little_left(look(91), 10.0 * MIB)


def test_a_pass_ends_within_what_is_left_takes() -> None:
    assert holding.ends_within(3.0, look(30, 1), 10.0 * MIB)
    assert not holding.ends_within(3.0, look(31, 1), 10.0 * MIB)


def test_who_does_not_see_the_copy_waits_for_half_of_its_way_only() -> None:
    assert holding.may_wait_unseen(4.9, look(100, 10))
    assert not holding.may_wait_unseen(5.1, look(100, 10))
    for untold in (None, look(None, 10), look(100, 0)):
        assert not holding.may_wait_unseen(0.0, untold)


def test_what_is_left_is_what_a_guest_writes_again_and_again_from_the_third_pass_on() -> None:
    assert [holding.settled(look(10, iteration=number)) for number in (1, 2, 3, 9)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_the_fuse_goes_in_with_little_left_and_earlier_where_the_link_is_fast() -> None:
    assert not holding.near(look(8, 10), None, 0.0)
    assert holding.near(look(6, 10), None, 0.0), "2 MiB, and 5 MiB in the time of three looks"
    assert holding.near(look(500, 1000), None, 0.0)
    assert holding.near(look(500, 1), None, 1000.0 * MIB), "as fast as it may go"
    assert not holding.near(look(500, 1), None, 0.0)
    assert holding.near(look(300, 1, at=1.0), look(1000, 1, at=0.0), 0.0), "as seen to fall"
    assert holding.near(look(None, 10), None, 0.0), "not told is no reason to wait"


@pytest.mark.parametrize(
    ("left_mib", "full", "took", "expected"),
    [
        (77, 1000, 0.1, 12),
        (77, 1000, 1.0, 2),
        (77, 5, 0.1, 5),
        (1075, 1000, 0.03, 21),
        (315, 1000, 0.5, 4),
        (None, 1000, 9.0, 1),
    ],
)
def test_it_comes_nearer_at_a_pace_at_which_three_looks_are_early_enough(
    left_mib: float | None, full: int, took: float, expected: int
) -> None:
    assert holding.near_rate(look(left_mib, took=took), full) == expected


@pytest.mark.parametrize(("left_mib", "expected"), [(None, 0.5), (3, 0.5), (22, 2.0), (77, 3.0)])
def test_a_hold_is_looked_at_ten_times_before_it_is_over(left_mib: float | None, expected: float) -> None:
    assert holding.held_pause_seconds(look(left_mib)) == pytest.approx(expected)
    assert holding.held_pause_seconds(None) == 0.5


@pytest.mark.parametrize(
    ("full", "memory", "expected"),
    [
        (holding.FULL_RATE_MIB_PER_SECOND, 512 * MIB, 18),
        (holding.FULL_RATE_MIB_PER_SECOND, 64 * GIB, 2185),
        (holding.FULL_RATE_MIB_PER_SECOND, 64 * MIB, 16),
        (17, 512 * MIB, 17),
        (1000, None, 1000),
    ],
)
def test_a_small_guest_is_not_sent_so_fast_that_nobody_can_hold_it(
    full: int, memory: int | None, expected: int
) -> None:
    assert holding.first_rate(full, memory) == expected


# -- the prediction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate_mib", "dirty_mib", "expected"),
    [
        (100, 10, 0.3),  # converges
        (10, 48, 19.2),
        (7.1, 8, 4.5),  # 6.2 s were seen
        (9.5, 8, 3.4),  # 4.4 s were seen
        (10, 0, 0.3),
    ],
)
def test_what_a_guest_writes_again_and_again_stays_for_the_blackout(
    rate_mib: float, dirty_mib: float, expected: float
) -> None:
    found = holding.predicted_seconds(rate_mib * MIB, dirty_mib * MIB)
    assert found == pytest.approx(expected, abs=0.05)


def test_a_guest_has_calmed_down_where_its_second_pass_is_short() -> None:
    assert holding.calmed(look(9, 8, iteration=2), 10.0 * MIB)
    assert not holding.calmed(look(11, 8, iteration=2), 10.0 * MIB)
    assert not holding.calmed(look(9, 8, iteration=1), 10.0 * MIB), "the rest of its first pass"
    assert not holding.calmed(look(1, 8, iteration=1), 10.0 * MIB)


def test_without_a_figure_nothing_is_predicted_and_it_may_switch_over_at_once() -> None:
    assert holding.predicted_seconds(0.0, 1.0) is None
    assert holding.predicted_seconds(1.0, None) is None
    assert holding.converges(0.0, 1.0)
    assert holding.converges(1.0, None)


def test_what_a_link_carries_is_told_by_all_that_was_sent_once_that_is_enough() -> None:
    assert holding.carried(look(100, 50, sent_mib=40, elapsed_s=4)) == 10 * MIB, "not by the moment"
    assert holding.carried(look(100, 50, sent_mib=7, elapsed_s=4)) == 0
    assert holding.carried(look(100, 50, sent_mib=40)) == 50 * MIB
    assert holding.carried(look(100, 50)) == 50 * MIB
    assert holding.carried(look(100, 50, sent_mib=40, elapsed_s=0)) == 50 * MIB


def test_a_copy_that_is_as_fast_as_it_was_let_tells_nothing_of_the_link() -> None:
    assert holding.sent_as_told(17.0 * MIB, 18)
    assert not holding.sent_as_told(9.5 * MIB, 18)
    assert not holding.sent_as_told(1000.0 * MIB, holding.FULL_RATE_MIB_PER_SECOND)


def made(*given: float | None) -> Budget:
    found = holding.budget(*given)  # type: ignore[arg-type]
    assert isinstance(found, Budget), found
    return found


def test_auto_is_some_times_the_prediction_within_its_bounds() -> None:
    assert made(None, 25.0, 10.0).seconds == 100
    assert made(None, 25.0, 10.0).allows(1.4 * 25.0)
    assert made(None, 0.3, 10.0).seconds == holding.LEAST_BUDGET_SECONDS
    assert made(None, 0.3, 40.0).seconds == 41, "never less than what is in force"
    assert made(None, None, 10.0).seconds == holding.AUTO_MOST_SECONDS


def test_the_longest_that_auto_takes_is_taken() -> None:
    assert made(None, holding.AUTO_LONGEST_SECONDS, 10.0).seconds == holding.AUTO_MOST_SECONDS
    assert made(None, holding.AUTO_LONGEST_SECONDS, 10.0).allows(holding.AUTO_LONGEST_SECONDS)


def test_auto_refuses_what_it_may_not_raise_to_and_says_with_which_number_it_goes() -> None:
    found = holding.budget(None, 61.0, 10.0)
    assert isinstance(found, Message)
    assert "--budget 244" in found.next_command
    found = holding.budget(None, 151.0, 10.0)
    assert isinstance(found, Message)
    assert found.next_command == "the same with --postcopy"


def test_a_number_is_taken_as_it_is_unless_it_is_no_raise() -> None:
    assert made(45, 30.0, 10.0).seconds == 45
    found = holding.budget(10, 1.0, 10.65)
    assert isinstance(found, Message)
    assert "--budget with at least 20" in found.next_command
    found = holding.budget(30, 1.0, 30.65)
    assert isinstance(found, Message)
    assert "--budget with at least 31" in found.next_command


def test_one_that_did_not_switch_over_is_told_with_the_budget_that_its_passes_ask_for() -> None:
    given = made(None, 0.3, 10.0)
    told = holding.not_switched("g", 80.0, given, 12.0)
    assert (told.code, told.next_command) == ("NOT_RAISED", "the same with --budget 35, or --postcopy")
    assert "had not switched over 80 s after" in told.text
    assert "needs a blackout of 12 s" in told.text
    assert holding.not_switched("g", 80.0, given, 241.0).next_command == "the same with --postcopy"
    for allowed in (0.0, 7.0):
        plain = holding.not_switched("g", 80.0, given, allowed)
        assert plain.next_command == holding.given_up("").next_command
        assert "needs" not in plain.text
    assert holding.needed_seconds(look(24, 1, iteration=3, took=0.0), 6.0 * MIB) == 5.0
    assert holding.needed_seconds(look(24, 1, iteration=3, took=0.4), 6.0 * MIB) == 5.5
    assert holding.needed_seconds(None, 6.0 * MIB) == 0.0
    assert holding.needed_seconds(look(24, 6, iteration=2), 6.0 * MIB) == 0.0, "it has what the first left"
    assert holding.needed_seconds(look(24, 6, iteration=3), 0.0) == 0.0


def test_the_first_downtime_limit_is_what_is_written_in_a_second_where_that_does_not_converge() -> None:
    given = Budget(25, "")
    assert given.first_downtime_ms(10 * MIB, 8 * MIB) == 1000
    assert given.first_downtime_ms(10 * MIB, 48 * MIB) == 6000
    for converges in ((100 * MIB, 8 * MIB), (0.0, 8 * MIB), (10 * MIB, None)):
        assert given.first_downtime_ms(*converges) == 300, "libvirt's own, never a tiny one"
    assert given.first_downtime_ms(MIB, 100 * MIB) == 8750, "never more than the token bears"


def test_a_guest_that_does_not_leave_is_allowed_twice_as_long_up_to_what_the_token_bears() -> None:
    given, now, seen = Budget(25, ""), 300, list[int]()
    while now not in seen:
        seen.append(now)
        now = given.wider_downtime_ms(now, 0.0, late=True)
    assert seen == [300, 600, 1200, 2400, 4800, 8750]
    assert given.wider_downtime_ms(600, 0.0, late=False) == 600


def test_a_guest_that_does_not_leave_is_allowed_what_its_last_passes_have_left() -> None:
    given = Budget(25, "")
    assert given.wider_downtime_ms(300, 3.0, late=False) == 3000
    assert given.wider_downtime_ms(4000, 3.0, late=False) == 4000, "never a shorter one"
    assert given.wider_downtime_ms(300, 78.0, late=False) == 8750
    assert given.allows(8.75)
    assert not given.allows(8.76)
