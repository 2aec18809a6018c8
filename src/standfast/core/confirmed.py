"""A person's word that a silent control domain is dead, and what takes it back: the host's own answer.

A host that answers after somebody has called it dead is alive, or was dead and is back: either way the word
says nothing of its next silence. So it is taken out of the record by the first node that hears the host, and
until that is written a node goes by what it has heard itself. Each word has the epoch at which it was said,
so that one that is said again counts again.

A word may also land late: it waits in its sender's corosync while that stands still, or while the ring does,
and by then the host may have been back and be silent once more (simulated: a healthy node was called dead).
So whoever hears a host again that was silent in a guarded window moves the record on, and a word that was
sent before that is refused by its epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Mode, Record

SHORTEST_SILENCE_SECONDS = 5.0
"""Who was silent for less has only missed a question: nobody calls that dead."""


def said(record: Record, host: str, reason: str) -> Record:
    """The record in which a person says that `host` is dead."""
    return record.next(
        confirmed={**record.confirmed, host: reason},
        confirmed_at={**record.confirmed_at, host: record.epoch + 1},
        overtaken={name: why for name, why in record.overtaken.items() if name != host},
    )


def words(record: Record | None) -> dict[str, int]:
    """The hosts that are called dead in `record`: host -> the epoch of that word."""
    if record is None:
        return {}
    return {host: record.confirmed_at.get(host, 0) for host in record.confirmed}


def heard(record: Record | None, answers: Iterable[HostAnswer]) -> dict[str, int]:
    """The hosts that are called dead in `record` and have answered a question that was asked after it was
    read: host -> the epoch of that word."""
    alive = {answer.host for answer in answers if answer.state is not GuestState.SILENT}
    return {host: epoch for host, epoch in words(record).items() if host in alive}


def overtake(record: Record, these: Mapping[str, int]) -> Record | None:
    """The record in which these words (host -> epoch) count no more; None where none of them stands in it."""
    gone = {host: record.confirmed[host] for host, at in words(record).items() if these.get(host) == at}
    if not gone:
        return None
    return record.next(
        confirmed={host: why for host, why in record.confirmed.items() if host not in gone},
        confirmed_at={host: at for host, at in record.confirmed_at.items() if host not in gone},
        overtaken={**record.overtaken, **gone},
    )


class Silences:
    """Since when hosts are silent, as one node hears them, and which of them have come back."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._back: dict[str, int] = {}
        """Who answers again, and the epoch of the record by then; until that has moved on."""

    def unwritten(self, answers: Iterable[HostAnswer], now_seconds: float, epoch: int) -> list[str]:
        """Take one round of answers; for which hosts the record, now of this epoch, has to move on."""
        self._back |= dict.fromkeys(self.heard(answers, now_seconds), epoch)
        self._back = {host: at for host, at in self._back.items() if at == epoch}
        return sorted(self._back)

    def heard(self, answers: Iterable[HostAnswer], now_seconds: float) -> frozenset[str]:
        """Take one round of answers; the hosts of it that answer again after a silence that counts."""
        back = set()
        for answer in answers:
            if answer.state is GuestState.SILENT:
                self._since.setdefault(answer.host, now_seconds)
                continue
            since = self._since.pop(answer.host, None)
            if since is not None and now_seconds - since >= SHORTEST_SILENCE_SECONDS:
                back.add(answer.host)
        return frozenset(back)

    def forget(self) -> None:
        """There is no window any more."""
        self._since.clear()
        self._back.clear()


def moved_on(record: Record, epoch: int) -> Record | None:
    """The record one epoch later, nothing else, since a host answers again that was silent when it had this
    epoch. None: it has moved on already, or there is no guarded window in which a word could land."""
    if record.epoch != epoch or not record.open or record.mode is not Mode.GUARDED:
        return None
    return record.next()
