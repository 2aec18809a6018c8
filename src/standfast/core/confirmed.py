"""A person's word that a silent control domain is dead, and what takes it back: the host's own answer.

A host that answers after somebody has called it dead is alive, or was dead and is back: either way the word
says nothing of its next silence. So it is taken out of the record by the first node that hears the host, and
until that is written a node goes by what it has heard itself. Each word has the epoch at which it was said,
so that one that is said again counts again.

A word may also land late: it waits in its sender's corosync while that stands still, or while the ring does,
and by then the host may have been back and be silent once more (simulated: a healthy node was called dead).
So it is said in two steps. The first notes in the record that the host is about to be called dead; whoever
hears it after that takes the note out. The second, after the host was asked once more, is written only where
the note still stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Record


def asking(record: Record, host: str) -> Record:
    """The record in which `host` is about to be called dead: the word itself may follow while this stands."""
    return record.next(
        confirmed={name: why for name, why in record.confirmed.items() if name != host},
        confirmed_at={**record.confirmed_at, host: record.epoch + 1},
    )


def asked(record: Record | None) -> dict[str, int]:
    """The hosts that are about to be called dead in `record`: host -> the epoch at which that was noted."""
    if record is None:
        return {}
    return {host: at for host, at in record.confirmed_at.items() if host not in record.confirmed}


def said(record: Record, host: str, reason: str) -> Record:
    """The record in which a person says that `host` is dead. The word has the epoch of the note before it:
    who has heard the host since the note has heard it since the word."""
    at = asked(record).get(host, record.epoch + 1)
    return record.next(
        confirmed={**record.confirmed, host: reason},
        confirmed_at={**record.confirmed_at, host: at},
        overtaken={name: why for name, why in record.overtaken.items() if name != host},
    )


def words(record: Record | None) -> dict[str, int]:
    """The hosts that are called dead in `record`: host -> the epoch of that word."""
    if record is None:
        return {}
    return {host: record.confirmed_at.get(host, 0) for host in record.confirmed}


def heard(record: Record | None, answers: Iterable[HostAnswer]) -> dict[str, int]:
    """The hosts that are called dead in `record`, or are about to be, and have answered a question that was
    asked after it was read: host -> the epoch of that word or note."""
    alive = {answer.host for answer in answers if answer.state is not GuestState.SILENT}
    return {host: at for host, at in (asked(record) | words(record)).items() if host in alive}


def overtake(record: Record, these: Mapping[str, int]) -> Record | None:
    """The record in which these words and notes (host -> epoch) count no more; None where none of them stands
    in it."""
    gone = {host for host, at in (asked(record) | words(record)).items() if these.get(host) == at}
    if not gone:
        return None
    said_of = {host: why for host, why in record.confirmed.items() if host in gone}
    return record.next(
        confirmed={host: why for host, why in record.confirmed.items() if host not in gone},
        confirmed_at={host: at for host, at in record.confirmed_at.items() if host not in gone},
        overtaken={**record.overtaken, **said_of},
    )


class Followed:
    """The guarded window that a daemon follows: also while its record is damaged, in which time a host may
    come back and fall silent again (simulated, seed 10041)."""

    def __init__(self) -> None:
        self._last: Record | None = None
        self._heard: dict[str, int] = {}

    def of(self, record: Record | None, *, damaged: bool) -> Record | None:
        """The record to go by: as it was last readable, while it is not. None: there is no such window."""
        if record is not None or not damaged:
            self._last = record if record is not None and record.guarded_mover else None
        return self._last

    def heard(self, answers: Iterable[HostAnswer]) -> dict[str, int]:
        """The words and notes of that window (host -> epoch) that count no more, by these answers or by
        earlier ones, and still stand in it."""
        self._heard |= heard(self._last, answers)
        standing = asked(self._last) | words(self._last)
        self._heard = {host: at for host, at in self._heard.items() if standing.get(host) == at}
        return dict(self._heard)
