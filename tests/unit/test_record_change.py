"""The one way to change the record: decided anew after each lost race, and it has an end."""

from __future__ import annotations

import pytest
from cib_store import Store

from standfast.cluster import cib, record_change
from standfast.cluster.record_change import ContendedError, NoRecordError
from standfast.core.record import Record


def longer(found: Record, _: object) -> Record:
    return found.next(lease_seconds=found.lease_seconds + 60)


def test_what_was_decided_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n1",), Record.fresh())
    assert record_change.change(longer) == site.record
    assert (site.record.lease_seconds, site.record.epoch, site.writes) == (60, 2, 1)


def test_a_lost_race_is_decided_anew_on_what_is_there_now(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n1",), Record.fresh())

    def somebody(number: int) -> None:
        if number == 1:
            site.before_write = lambda _: None
            record_change.change(longer)

    site.before_write = somebody
    assert record_change.change(longer).lease_seconds == 120
    assert (site.record.lease_seconds, site.record.epoch) == (120, 3)


def test_where_nothing_is_to_be_changed_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n1",), Record.fresh())
    assert record_change.change(lambda found, _: None) == Record.fresh()
    assert site.writes == 0


def test_who_loses_every_race_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n1",), Record.fresh())
    tries: list[int] = []

    def refuse(number: int) -> None:
        tries.append(number)
        raise cib.CibConflict("somebody else wrote first")

    site.before_write = refuse
    with pytest.raises(ContendedError, match="3 times"):
        record_change.change(longer, max_tries=3)
    assert len(tries) == 3
    assert site.record == Record.fresh()


def test_an_unknown_write_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Store(monkeypatch, ("n1",), Record.fresh())
    tries: list[int] = []

    def hangs(number: int) -> None:
        tries.append(number)
        raise cib.CibUnknown("no answer")

    site.before_write = hangs
    with pytest.raises(cib.CibUnknown):
        record_change.change(longer)
    assert tries == [1]


def test_before_set_up_there_is_nothing_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch, ("n1",), None)
    with pytest.raises(NoRecordError):
        record_change.change(longer)
