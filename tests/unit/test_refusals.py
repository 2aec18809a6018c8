"""A history of our own refusals is copied and cleared; anything else in it keeps all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from standfast import refusals
from standfast.cluster import fencer
from standfast.cluster.fencer import FencingEvent
from standfast.cluster.run import EngineError
from standfast.journal import Journal

REFUSED = FencingEvent(
    "n2",
    "reboot",
    "failed",
    delegate="n3",
    client="pacemaker-controld.25",
    completed="2026-11-24 19:37:33Z",
    why="fence_standfast: held: guest2 may come back (ctrl3: running; 14 s left)",
)


def replaced(**changes: str) -> FencingEvent:
    return FencingEvent(**{**vars(REFUSED), **changes})


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    monkeypatch.setattr(fencer, "cleanup_history", done.append)
    return done


def known(monkeypatch: pytest.MonkeyPatch, *events: FencingEvent) -> None:
    monkeypatch.setattr(fencer, "history", lambda node: events)


def test_refusals_are_copied_in_their_order_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    known(monkeypatch, REFUSED, replaced(completed="2026-11-24 19:37:28Z"))
    journal = Journal(str(tmp_path / "journal.db"))
    assert refusals.forget("n2", 7, journal) == 2
    assert cleared == ["n2"]
    texts = [event.text for event in journal.last(5)]
    assert [text.split(" at ")[1] for text in texts] == ["2026-11-24 19:37:28Z", "2026-11-24 19:37:33Z"]
    assert journal.last(1)[0].detail["why"] == REFUSED.why


@pytest.mark.parametrize(
    "other",
    [
        replaced(status="success"),
        replaced(status="pending"),
        replaced(why="fence_xscf: no login"),
        replaced(why=""),
    ],
)
def test_a_history_with_anything_else_in_it_is_left_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleared: list[str], other: FencingEvent
) -> None:
    known(monkeypatch, REFUSED, other)
    assert refusals.forget("n2", 7, Journal(str(tmp_path / "journal.db"))) == 0
    assert cleared == []


def test_without_a_history_there_is_nothing_to_forget(
    monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    known(monkeypatch)
    assert refusals.forget("n2", 7) == 0
    assert cleared == []


def test_what_cannot_be_copied_is_not_cleared(monkeypatch: pytest.MonkeyPatch, cleared: list[str]) -> None:
    known(monkeypatch, REFUSED)
    assert refusals.forget("n2", 7, Journal("/proc/standfast/journal.db")) == 0
    assert cleared == []


def test_a_fencer_that_does_not_answer_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, cleared: list[str]
) -> None:
    def silent(_: str) -> tuple[FencingEvent, ...]:
        raise EngineError("the fencer did not answer")

    monkeypatch.setattr(fencer, "history", silent)
    assert refusals.forget("n2", 7) == 0
