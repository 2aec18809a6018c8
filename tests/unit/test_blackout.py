"""How long a node was away, as its cluster saw it, and what is not claimed."""

from __future__ import annotations

from standfast.core.blackout import Watch

ALL = frozenset({"n1", "n2", "n3"})
WITHOUT = ALL - {"n2"}


def watched(*looks: tuple[frozenset[str], float]) -> Watch:
    found = Watch("n2")
    for members, now in looks:
        found = found.look(members, ALL, now)
    return found


def test_a_node_that_was_never_dropped_stood_still_for_less_than_the_timeout() -> None:
    found = watched((ALL, 1.0), (ALL, 9.0))
    assert found.sentence(10.0) == (
        "n2 was never dropped, so it was shorter than 10 s (the heartbeat timeout)"
    )
    assert found.away_seconds == 0


def test_a_node_that_was_dropped_was_silent_for_at_most_the_timeout_longer() -> None:
    found = watched((ALL, 1.0), (WITHOUT, 20.0), (WITHOUT, 21.0), (ALL, 25.5))
    assert not found.away
    assert found.sentence(10.0) == (
        "n2 was dropped, and out of the membership for 5.5 s: silent for up to 16 s in all"
    )
    assert found.sentence(None) == "n2 was dropped, and out of the membership for 5.5 s"


def test_several_drops_are_counted_and_nothing_is_concluded_from_their_sum() -> None:
    found = watched((WITHOUT, 1.0), (ALL, 2.0), (WITHOUT, 5.0), (ALL, 8.0))
    assert found.sentence(10.0) == "n2 was dropped, and out of the membership for 4.0 s in 2 times"


def test_a_node_that_is_still_away_is_said_so() -> None:
    found = watched((ALL, 1.0), (WITHOUT, 2.0))
    assert found.away
    assert found.sentence(10.0) == "n2 was dropped and is not back yet"


def test_an_observer_that_lost_others_too_may_be_the_one_that_was_cut_off() -> None:
    assert watched((frozenset({"n1"}), 1.0), (ALL, 2.0)).sentence(10.0).startswith("not told")
