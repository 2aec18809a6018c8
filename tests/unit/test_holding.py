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
) -> Look:
    left = None if left_mib is None else round(left_mib * MIB)
    job = MigrationJob("g", 50, False, "", True, remaining_bytes=left, iteration=iteration,
                       rate_bytes_per_second=round(mib_per_second * MIB))  # fmt: skip
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
        (holding.FULL_RATE_MIB_PER_SECOND, 512 * MIB, 26),
        (holding.FULL_RATE_MIB_PER_SECOND, 64 * GIB, 3277),
        (holding.FULL_RATE_MIB_PER_SECOND, 64 * MIB, 16),
        (20, 512 * MIB, 20),
        (1000, None, 1000),
    ],
)
def test_a_small_guest_is_not_sent_so_fast_that_nobody_can_hold_it(
    full: int, memory: int | None, expected: int
) -> None:
    assert holding.first_rate(full, memory) == expected


# -- the prediction -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_mib", "rate_mib", "dirty_mib", "expected"),
    [
        (22, 100, 10, 0.3),  # converges
        (22, 10, 48, 4.8),  # the busy guest of the measurements: 6.1 s were seen
        (100, 10, 8, 10.0),  # what is left is more than what it writes in a second
        (22, 10, 0, 0.3),
    ],
)
def test_what_a_guest_writes_again_and_again_stays_for_the_blackout(
    left_mib: float, rate_mib: float, dirty_mib: float, expected: float
) -> None:
    found = holding.predicted_seconds(round(left_mib * MIB), rate_mib * MIB, dirty_mib * MIB)
    assert found == pytest.approx(expected)


def test_without_a_figure_nothing_is_predicted() -> None:
    assert holding.predicted_seconds(MIB, 0.0, 1.0) is None
    assert holding.predicted_seconds(MIB, 1.0, None) is None


def made(*given: float | None) -> Budget:
    found = holding.budget(*given)  # type: ignore[arg-type]
    assert isinstance(found, Budget), found
    return found


def test_auto_is_some_times_the_prediction_within_its_bounds() -> None:
    assert made(None, 30.0, 10.0).seconds == 75
    assert made(None, 0.3, 10.0).seconds == holding.AUTO_LEAST_SECONDS
    assert made(None, 0.3, 40.0).seconds == 41, "never less than what is in force"
    assert made(None, None, 10.0).seconds == holding.AUTO_MOST_SECONDS


def test_auto_refuses_what_it_may_not_raise_to_and_says_with_which_number_it_goes() -> None:
    found = holding.budget(None, 61.0, 10.0)
    assert isinstance(found, Message)
    assert "--budget 153" in found.next_command


def test_a_number_is_taken_as_it_is_unless_it_is_no_raise() -> None:
    assert made(45, 30.0, 10.0).seconds == 45
    found = holding.budget(10, 1.0, 10.65)
    assert isinstance(found, Message)
    assert "--budget with at least 11" in found.next_command


def test_the_first_downtime_limit_is_what_is_written_in_a_second_where_that_does_not_converge() -> None:
    given = Budget(25, "")
    assert given.first_downtime_ms(10 * MIB, 8 * MIB) == 1000
    assert given.first_downtime_ms(10 * MIB, 48 * MIB) == 6000
    for converges in ((100 * MIB, 8 * MIB), (0.0, 8 * MIB), (10 * MIB, None)):
        assert given.first_downtime_ms(*converges) == 300, "libvirt's own, never a tiny one"
    assert given.first_downtime_ms(MIB, 100 * MIB) == 10_000, "never more than the token bears"


def test_a_guest_that_does_not_leave_is_allowed_twice_as_long_up_to_what_the_token_bears() -> None:
    given, now, seen = Budget(25, ""), 300, list[int]()
    while now not in seen:
        seen.append(now)
        now = given.wider_downtime_ms(now, None, late=True)
    assert seen == [300, 600, 1200, 2400, 4800, 9600, 10_000]
    assert given.wider_downtime_ms(600, None, late=False) == 600


def test_a_guest_that_does_not_leave_is_allowed_what_its_last_pass_has_left() -> None:
    given = Budget(25, "")
    assert given.wider_downtime_ms(300, look(16, 8, iteration=3), late=False) == 2500
    assert given.wider_downtime_ms(4000, look(16, 8, iteration=3), late=False) == 4000, "never a shorter one"
    for early in (1, 2):
        told = look(16, 8, iteration=early)
        assert given.wider_downtime_ms(300, told, late=False) == 300, "of the first pass, or of what it left"
    assert given.wider_downtime_ms(300, look(16, 0, iteration=3), late=False) == 300
    assert given.wider_downtime_ms(300, look(None, 8, iteration=3), late=False) == 300
    assert given.wider_downtime_ms(300, look(500, 8, iteration=3), late=False) == 10_000
