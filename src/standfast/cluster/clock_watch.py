"""Measures the offsets of the other nodes' clocks, in a thread of its own, over a group of corosync.

Nothing waits for it: where corosync hangs, the thread hangs with it and there are no samples, which is told
(`trouble`). A corosync that went and came is found again after AGAIN_SECONDS.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from standfast.cluster import cpg
from standfast.core.clock_exchange import Exchange, Reading
from standfast.core.clocks import Sample

GROUP = "standfast-clocks"
AGAIN_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""A thread that has not gone round for so long is held by corosync."""
IDLE_SECONDS = 15.0
MAX_KEPT = 256


def reading() -> Reading:
    """This node's clocks: the only place where the clock that is compared is read."""
    return Reading(time.monotonic(), time.time())  # noqa: TID251


class ClockWatch:
    """The thread, and what is asked of it. `news` is called, from the thread, when there are samples."""

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._lock = threading.Lock()
        self._samples: list[tuple[str, Sample]] = []
        self._wanted = ("", 0, IDLE_SECONDS)
        self._why = ""
        self._turned = time.monotonic()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> None:
        """Once. The thread dies with the process."""
        threading.Thread(target=self._forever, name="clocks", daemon=True).start()

    def want(self, me: str, epoch: int, period_seconds: float) -> None:
        """Who this node is, which epoch of the record it sees, and how often to ask from now on."""
        wanted = (me, epoch, period_seconds)
        if wanted != self._wanted:
            self._wanted = wanted
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"x")

    def take(self) -> list[tuple[str, Sample]]:
        """The samples since the last call, oldest first, with whose clock they are of."""
        with self._lock:
            taken, self._samples = self._samples, []
        return taken

    @property
    def trouble(self) -> str:
        """Why nothing can be measured; empty: nothing is in the way."""
        if self._why:
            return self._why
        if time.monotonic() - self._turned > SILENT_SECONDS:
            return "corosync does not answer"
        return ""

    # -- in the thread -------------------------------------------------------------------------------------

    def _forever(self) -> None:
        while True:
            try:
                if self._wanted[0]:
                    self._measure(Exchange(self._wanted[0]))
                else:
                    self._sleep(AGAIN_SECONDS)
            except cpg.CpgError as error:
                self._why = str(error)
                self._news()
                self._turned = time.monotonic()
                time.sleep(AGAIN_SECONDS)

    def _measure(self, exchange: Exchange) -> None:
        """Until the node has another name. Raises CpgError."""
        came: list[tuple[bytes, Reading]] = []
        with cpg.joined(GROUP, lambda message: came.append((message, reading()))) as group:
            self._why = ""
            asked = float("-inf")
            while self._wanted[0] == exchange.me:
                _, exchange.epoch, period = self._wanted
                exchange.join_seconds = period / 2
                self._turned = now = time.monotonic()
                if now - asked >= period:
                    group.send(exchange.ask(reading()))
                    asked = now
                for message in exchange.due(reading()):
                    group.send(message)
                due = asked + period if exchange.due_at is None else min(asked + period, exchange.due_at)
                if group.descriptor in self._sleep(due - time.monotonic(), group.descriptor):
                    group.dispatch()
                    if self._hear(exchange, came, group):
                        asked = time.monotonic()

    def _hear(self, exchange: Exchange, came: list[tuple[bytes, Reading]], group: cpg.Group) -> bool:
        """Whether this node has asked along with another."""
        found, asked = [], False
        for message, when in came:
            replies, sample = exchange.heard(message, when)
            for reply in replies:
                asked = group.send(reply) or asked
            if sample is not None:
                found.append(sample)
        came.clear()
        if found:
            with self._lock:
                self._samples = [*self._samples, *found][-MAX_KEPT:]
            self._news()
        return asked

    def _sleep(self, seconds: float, *descriptors: int) -> list[int]:
        ready, _, _ = select.select([self._wake_read, *descriptors], [], [], max(0.0, seconds))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        return ready
