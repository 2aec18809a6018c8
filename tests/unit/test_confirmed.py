"""A person's word that a host is dead, and the host's own later answer."""

from __future__ import annotations

from dataclasses import replace

from standfast.core import confirmed
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Mode, Phase, Record

FOUND = confirmed.said(Record.fresh(), "ctrl1", "burnt")


def answers(**states: GuestState) -> list[HostAnswer]:
    return [HostAnswer(host, "g2", state) for host, state in states.items()]


def test_a_word_is_noted_with_its_epoch() -> None:
    assert (FOUND.confirmed, FOUND.confirmed_at, FOUND.epoch) == ({"ctrl1": "burnt"}, {"ctrl1": 2}, 2)


def test_an_answer_of_any_kind_overtakes_it_and_silence_does_not() -> None:
    assert confirmed.heard(FOUND, answers(ctrl1=GuestState.SILENT, ctrl2=GuestState.RUNNING)) == {}
    for state in (GuestState.ABSENT, GuestState.RUNNING, GuestState.UNKNOWN):
        assert confirmed.heard(FOUND, answers(ctrl1=state)) == {"ctrl1": 2}
    assert confirmed.heard(None, answers(ctrl1=GuestState.RUNNING)) == {}


def test_what_is_overtaken_is_taken_out_and_shown() -> None:
    found = confirmed.overtake(FOUND, {"ctrl1": 2})
    assert found is not None
    assert (found.confirmed, found.confirmed_at, found.overtaken) == ({}, {}, {"ctrl1": "burnt"})
    assert found.epoch == 3
    assert confirmed.overtake(found, {"ctrl1": 2}) is None


def test_a_word_that_is_said_again_is_not_overtaken_by_an_answer_from_before_it() -> None:
    again = confirmed.said(confirmed.overtake(FOUND, {"ctrl1": 2}) or FOUND, "ctrl1", "really burnt")
    assert (again.confirmed, again.overtaken) == ({"ctrl1": "really burnt"}, {})
    assert confirmed.overtake(again, {"ctrl1": 2}) is None
    assert confirmed.overtake(again, {"ctrl1": again.epoch}) is not None


def test_a_word_of_an_older_version_has_no_epoch_and_is_overtaken_too() -> None:
    old = replace(Record.fresh(), confirmed={"ctrl1": "burnt"})
    words = confirmed.heard(old, answers(ctrl1=GuestState.ABSENT))
    assert words == {"ctrl1": 0}
    assert confirmed.overtake(old, words) is not None


ASKED = confirmed.asking(Record.fresh(), "ctrl1")


def test_a_note_is_no_word_yet() -> None:
    assert confirmed.asked(ASKED) == {"ctrl1": 2}
    assert (confirmed.words(ASKED), ASKED.epoch) == ({}, 2)
    assert confirmed.asked(FOUND) == {}
    assert confirmed.asked(None) == {}


def test_the_word_has_the_epoch_of_its_note() -> None:
    """Who has heard the host since the note was made has heard it since the word."""
    said = confirmed.said(ASKED.next(lease_seconds=5), "ctrl1", "burnt")
    assert confirmed.words(said) == {"ctrl1": 2}
    assert said.epoch == 4
    assert confirmed.asked(said) == {}


def test_an_answer_takes_the_note_out_and_nobody_is_shown_as_overtaken() -> None:
    assert confirmed.heard(ASKED, answers(ctrl1=GuestState.SILENT, ctrl2=GuestState.ABSENT)) == {}
    heard = confirmed.heard(ASKED, answers(ctrl1=GuestState.ABSENT))
    assert heard == {"ctrl1": 2}
    found = confirmed.overtake(ASKED, heard)
    assert found == replace(Record.fresh(), epoch=3)
    assert confirmed.overtake(found, heard) is None


def test_a_note_for_a_host_that_was_called_dead_before_takes_the_older_word_out() -> None:
    again = confirmed.asking(FOUND, "ctrl1")
    assert (confirmed.words(again), confirmed.asked(again)) == ({}, {"ctrl1": 3})


GUARDED = replace(Record.fresh(), phase=Phase.OPEN, mode=Mode.GUARDED, mover="n2")


def test_a_host_that_answers_while_the_record_is_damaged_is_heard_all_the_same() -> None:
    said = confirmed.said(confirmed.asking(GUARDED, "ctrl1"), "ctrl1", "burnt")
    followed = confirmed.Followed()
    assert followed.of(said, damaged=False) == said
    assert followed.heard(answers(ctrl1=GuestState.SILENT)) == {}
    assert followed.of(None, damaged=True) == said
    assert followed.heard(answers(ctrl1=GuestState.ABSENT)) == {"ctrl1": 2}
    assert followed.of(said, damaged=False) == said
    assert followed.heard(answers(ctrl1=GuestState.SILENT)) == {"ctrl1": 2}, "it is silent once more"
    followed.of(confirmed.overtake(said, {"ctrl1": 2}), damaged=False)
    assert followed.heard(answers(ctrl1=GuestState.SILENT)) == {}


def test_what_is_followed_ends_with_its_window() -> None:
    followed = confirmed.Followed()
    followed.of(GUARDED, damaged=False)
    assert followed.of(Record.fresh(), damaged=False) is None
    assert followed.of(None, damaged=True) is None
    followed.of(GUARDED, damaged=False)
    assert followed.of(None, damaged=False) is None, "there is no record at all"
