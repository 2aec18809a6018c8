"""A history of our own refusals is copied and cleared; anything else in it keeps all of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from standfast import refusals
from standfast.cluster import fencer
from standfast.cluster.fencer import FencingEvent
from standfast.cluster.run import EngineError
from standfast.commands import gate_log
from standfast.core.names import ORDERED
from standfast.core.report import Report, decode, encode
from standfast.journal import Journal
from standfast.refusals import HOLD, MAX_ANSWERS, OTHER, Answer

REFUSED = FencingEvent(
    "n2",
    "reboot",
    "failed",
    delegate="n3",
    client="pacemaker-controld.25",
    completed="2026-11-24 19:37:33Z",
)
AT = int(datetime(2026, 11, 24, 19, 37, 33, tzinfo=UTC).timestamp())
SAID = {"n3": (Answer("n2", AT - 1, HOLD), Answer("n2", AT - 6, HOLD)), "n1": ()}


def replaced(**changes: str) -> FencingEvent:
    return FencingEvent(**{**vars(REFUSED), **changes})


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    monkeypatch.setattr(fencer, "cleanup_history", done.append)
    return done


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal.db"))


def known(monkeypatch: pytest.MonkeyPatch, *events: FencingEvent) -> None:
    monkeypatch.setattr(fencer, "history", lambda node: events)


# -- what the gates have answered -------------------------------------------------------------------------


def logged(path: Path, *lines: tuple[str, str, str]) -> str:
    """A gate.log with these answers: time, word, why."""
    texts = [
        f"{at} {gate_log.line('n3', 'target=n2 action=reboot', word, 'kill', 5.0, why)}"
        for at, word, why in lines
    ]
    path.write_text("\n".join([*texts, "2026-11-24T19:37:33+0000 a line of something else"]) + "\n")
    return str(path)


def test_an_answer_is_read_as_the_gate_has_written_it_and_told_by_the_report(tmp_path: Path) -> None:
    log = logged(
        tmp_path / "gate.log",
        ("2026-11-24T19:37:33+0000", "hold", "guest2 may come back [n1 was slow]"),
        ("2026-11-24T20:37:34+0100", "hold", f"not gone yet [{ORDERED}stop guest2 on ctrl2]"),
        ("2026-11-24T19:37:35+0000", "allow", "guest2 is gone"),
        ("2026-11-24T19:37:32+0000", "hold", "before the window"),
    )
    texts = refusals.answers(log, "n2", AT)
    report = decode(encode(Report("n3", answered=texts)))
    assert refusals.told(report.answered) == (
        Answer("n2", AT, HOLD),
        Answer("n2", AT + 1, OTHER),
        Answer("n2", AT + 2, OTHER),
    )
    assert refusals.answers(log, "n1", AT) == ()
    assert refusals.answers(str(tmp_path / "none"), "n2", AT) == ()


def test_more_answers_than_a_report_can_tell_are_no_plain_refusals(tmp_path: Path) -> None:
    lines = [("2026-11-24T19:37:33+0000", "hold", "held")] * (MAX_ANSWERS + 1)
    (told,) = refusals.told(refusals.answers(logged(tmp_path / "gate.log", *lines), "n2", AT))
    assert told.word == OTHER


def test_a_report_that_cannot_be_read_tells_nothing() -> None:
    assert refusals.told(("", "n2", "n2 soon hold", "n2 5")) == ()


# -- what is forgotten ------------------------------------------------------------------------------------


def test_refusals_are_copied_in_their_order_and_cleared(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    known(monkeypatch, REFUSED, replaced(completed="2026-11-24 19:37:28Z"))
    assert refusals.forget("n2", 7, SAID, journal) == 2
    assert cleared == ["n2"]
    texts = [event.text for event in journal.last(5)]
    assert [text.split(" at ")[1] for text in texts] == ["2026-11-24 19:37:28Z", "2026-11-24 19:37:33Z"]


@pytest.mark.parametrize(
    "other",
    [
        replaced(status="success"),
        replaced(status="pending"),
        replaced(delegate="n1"),
        replaced(delegate=""),
        replaced(completed="2026-11-24 19:38:33Z"),
        replaced(completed="2026-11-24 19:36:33Z"),
        replaced(completed=""),
    ],
)
def test_a_history_with_anything_else_in_it_is_left_whole(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, cleared: list[str], other: FencingEvent
) -> None:
    known(monkeypatch, REFUSED, other)
    assert refusals.forget("n2", 7, SAID, journal) == 0
    assert cleared == []


@pytest.mark.parametrize("node", ["n1", "n3"])
def test_where_any_gate_has_allowed_or_ordered_something_nothing_is_forgotten(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, cleared: list[str], node: str
) -> None:
    known(monkeypatch, REFUSED)
    said = {**SAID, node: (*SAID[node], Answer("n2", AT, OTHER))}
    assert refusals.forget("n2", 7, said, journal) == 0
    # What was answered about another node is nothing to this one.
    said = {**SAID, node: (*SAID[node], Answer("n4", AT, OTHER))}
    assert refusals.forget("n2", 7, said, journal) == 1


def test_without_a_history_there_is_nothing_to_forget(
    monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    known(monkeypatch)
    assert refusals.forget("n2", 7, SAID) == 0
    assert cleared == []


def test_what_cannot_be_copied_is_not_cleared(monkeypatch: pytest.MonkeyPatch, cleared: list[str]) -> None:
    known(monkeypatch, REFUSED)
    assert refusals.forget("n2", 7, SAID, Journal("/proc/standfast/journal.db")) == 0
    assert cleared == []


def test_a_fencer_that_does_not_answer_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    def silent(_: str) -> tuple[FencingEvent, ...]:
        raise EngineError("the fencer did not answer")

    monkeypatch.setattr(fencer, "history", silent)
    assert refusals.forget("n2", 7, SAID) == 0
