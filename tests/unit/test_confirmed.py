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


GUARDED = replace(Record.fresh(), phase=Phase.OPEN, mode=Mode.GUARDED, mover="n2")


def test_a_host_that_answers_after_a_silence_is_back_once() -> None:
    silences = confirmed.Silences()
    silent, there = answers(ctrl1=GuestState.SILENT), answers(ctrl1=GuestState.ABSENT)
    assert silences.heard(there, 1.0) == frozenset()
    assert silences.heard(silent, 2.0) == frozenset()
    assert silences.heard(silent, 6.0) == frozenset()
    assert silences.heard(there, 7.0) == {"ctrl1"}
    assert silences.heard(there, 8.0) == frozenset()


def test_a_missed_question_is_no_silence_and_a_new_window_knows_none() -> None:
    silences = confirmed.Silences()
    silences.heard(answers(ctrl1=GuestState.SILENT), 2.0)
    assert silences.heard(answers(ctrl1=GuestState.ABSENT), 6.9) == frozenset()
    silences.heard(answers(ctrl1=GuestState.SILENT), 7.0)
    silences.forget()
    assert silences.heard(answers(ctrl1=GuestState.ABSENT), 99.0) == frozenset()


def test_a_record_moves_on_once_and_nothing_else_changes() -> None:
    found = confirmed.moved_on(GUARDED, GUARDED.epoch)
    assert found == replace(GUARDED, epoch=GUARDED.epoch + 1)
    assert confirmed.moved_on(found, GUARDED.epoch) is None


def test_no_record_moves_on_outside_a_guarded_window() -> None:
    for record in (Record.fresh(), replace(GUARDED, mode=Mode.FROZEN), replace(GUARDED, phase=Phase.IDLE)):
        assert confirmed.moved_on(record, record.epoch) is None
