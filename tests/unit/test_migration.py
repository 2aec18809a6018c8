"""What follows from the end of a migration: never from how it ended, always from what all hosts show."""

from __future__ import annotations

import pytest

from standfast.core import migration
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.migration import (
    CancelIt,
    CloseAt,
    Ended,
    LeaveOpen,
    LookAgain,
    Move,
    Sight,
    Where,
    after,
    where,
)
from standfast.core.steps import HostEntry

G = GuestState
HOSTS = {name: HostEntry(name, 0, "", "", 1) for name in ("ctrl1", "ctrl2", "ctrl3")}
MOVE = Move("guest2", "cfguest2", "ctrl2", "ctrl3", HOSTS)
LONG = 10_000.0


def answers(*states: GuestState, job: bool = False) -> tuple[HostAnswer, ...]:
    """What ctrl1, ctrl2 (source) and ctrl3 (target) say."""
    return tuple(
        HostAnswer(name, "guest2", state, job=job) for name, state in zip(HOSTS, states, strict=True)
    )


PLACES = [
    ((G.ABSENT, G.RUNNING, G.ABSENT), Where.SOURCE),
    ((G.ABSENT, G.ABSENT, G.RUNNING), Where.TARGET),
    ((G.ABSENT, G.STOPPED, G.RUNNING), Where.TARGET),
    ((G.RUNNING, G.ABSENT, G.ABSENT), Where.ELSEWHERE),
    ((G.ABSENT, G.RUNNING, G.RUNNING), Where.BOTH),
    ((G.ABSENT, G.MIGRATING_OUT, G.INCOMING), Where.MOVING),
    ((G.ABSENT, G.RUNNING, G.INCOMING), Where.MOVING),
    ((G.ABSENT, G.ERROR, G.RUNNING), Where.BROKEN),
    ((G.ABSENT, G.STOPPED, G.ABSENT), Where.NOWHERE),
    ((G.ABSENT, G.ABSENT, G.ABSENT), Where.NOWHERE),
    ((G.ABSENT, G.SILENT, G.RUNNING), Where.UNKNOWN),
    ((G.SILENT, G.ABSENT, G.ABSENT), Where.UNKNOWN),
    ((G.ABSENT, G.PAUSED, G.ABSENT), Where.UNKNOWN),
    ((G.ABSENT, G.CRASHED, G.ABSENT), Where.UNKNOWN),
    ((G.ABSENT, G.UNKNOWN, G.ABSENT), Where.UNKNOWN),
]


@pytest.mark.parametrize(("states", "expected"), PLACES)
def test_where_the_guest_is_comes_from_a_closed_table(
    states: tuple[GuestState, ...], expected: Where
) -> None:
    assert where(answers(*states), "ctrl2", "ctrl3") is expected


def test_no_answer_at_all_is_not_known_and_a_reported_job_is_a_migration() -> None:
    assert where((), "ctrl2", "ctrl3") is Where.UNKNOWN
    assert where(answers(G.ABSENT, G.RUNNING, G.ABSENT, job=True), "ctrl2", "ctrl3") is Where.MOVING


def sight(place: Where, **more: object) -> Sight:
    shown = next((states for states, found in PLACES if found is place), ())
    given: dict[str, object] = {"steady_seconds": LONG, "looked_seconds": LONG, **more}
    return Sight(place, answers(*shown), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("ended", Ended)
def test_a_guest_that_is_plainly_at_the_target_is_closed_there_however_it_ended(ended: Ended) -> None:
    assert after(MOVE, ended, sight(Where.TARGET, steady_seconds=0, looked_seconds=0)) == CloseAt("ctrl3")


@pytest.mark.parametrize(
    ("ended", "needed"), [(Ended.NOT_BEGUN, 0), (Ended.REFUSED, 1), (Ended.UNKNOWN, 15), (Ended.DONE, 15)]
)
def test_the_source_counts_once_this_end_cannot_be_late_any_more(ended: Ended, needed: float) -> None:
    assert after(MOVE, ended, sight(Where.SOURCE, steady_seconds=needed)) == CloseAt("ctrl2")
    if needed:
        early = after(MOVE, ended, sight(Where.SOURCE, steady_seconds=needed - 0.5))
        assert isinstance(early, LookAgain)


def test_after_a_cancel_the_source_counts_when_it_is_seen_twice() -> None:
    seen = sight(Where.SOURCE, steady_seconds=1, cancelled=True)
    assert after(MOVE, Ended.UNKNOWN, seen) == CloseAt("ctrl2")


def test_a_migration_that_goes_on_without_a_word_is_followed_to_its_limit_and_then_cancelled() -> None:
    assert isinstance(after(MOVE, Ended.UNKNOWN, sight(Where.MOVING)), LookAgain)
    assert after(MOVE, Ended.UNKNOWN, sight(Where.MOVING, over=True)) == CancelIt()
    assert after(MOVE, Ended.UNKNOWN, sight(Where.MOVING, wanted=True)) == CancelIt()
    again = after(MOVE, Ended.UNKNOWN, sight(Where.MOVING, over=True, cancelled=True, looked_seconds=100))
    assert isinstance(again, LookAgain)
    left = after(MOVE, Ended.UNKNOWN, sight(Where.MOVING, over=True, cancelled=True, looked_seconds=480))
    assert isinstance(left, LeaveOpen)


@pytest.mark.parametrize("ended", [Ended.REFUSED, Ended.DONE, Ended.NOT_BEGUN])
def test_a_migration_that_is_not_known_to_be_ours_is_never_cancelled(ended: Ended) -> None:
    for over in (False, True):
        found = after(MOVE, ended, sight(Where.MOVING, over=over, wanted=over))
        assert isinstance(found, LeaveOpen)
        assert found.message.code == "MIGRATING"


LEFT = {
    Where.BOTH: ("TWO_COPIES", "ldm stop-domain guest2 (on ctrl2 or ctrl3), then standfast window close"),
    Where.ELSEWHERE: ("OTHER_HOST", "standfast window close guest2 --to ctrl1"),
    Where.BROKEN: ("MIGRATION_BROKEN", "ldm list-domain -o status guest2 (on ctrl2); cancel it there, then"),
    Where.NOWHERE: (
        "GUEST_STOPPED",
        "ldm start-domain guest2 (on ctrl2), then standfast window close guest2",
    ),
    Where.UNKNOWN: ("HOST_SILENT", "standfast window close guest2 (when ctrl2 answers"),
}


@pytest.mark.parametrize("place", LEFT)
@pytest.mark.parametrize("ended", Ended)
def test_what_is_not_plain_is_looked_at_for_a_while_and_then_left_with_what_to_type(
    place: Where, ended: Ended
) -> None:
    assert isinstance(after(MOVE, ended, sight(place, looked_seconds=5)), LookAgain)
    found = after(MOVE, ended, sight(place))
    assert isinstance(found, LeaveOpen)
    code, hint = LEFT[place]
    assert found.message.code == code
    assert found.message.next_command.startswith(hint)


def test_hosts_that_hang_after_a_cancel_are_waited_for_as_long_as_memory_is_scrubbed() -> None:
    assert isinstance(after(MOVE, Ended.REFUSED, sight(Where.UNKNOWN, looked_seconds=121)), LeaveOpen)
    hanging = sight(Where.UNKNOWN, looked_seconds=470, cancelled=True)
    assert isinstance(after(MOVE, Ended.REFUSED, hanging), LookAgain)


def test_a_finding_that_has_just_changed_is_never_the_last_word() -> None:
    assert isinstance(after(MOVE, Ended.DONE, sight(Where.BOTH, steady_seconds=0.5)), LookAgain)


def test_leaving_at_once_names_the_lease_and_both_next_commands() -> None:
    message = migration.left_to_lease(MOVE, "2026-03-01 12:00")
    assert "2026-03-01 12:00" in message.text
    assert message.next_command == (
        "ldm list-domain -o status guest2 (on ctrl2); when it has ended: standfast window close guest2"
    )
