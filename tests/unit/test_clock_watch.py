"""The measuring threads of two nodes, over a group that is played by socket pairs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from standfast.cluster import clock_watch, cpg
from standfast.cluster.clock_watch import ClockWatch

LIMIT_SECONDS = 10.0


class Bus:
    """A group: what one sends all get, in one order."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: list[socket.socket] = []
        self.broken = ""
        self.joins = 0

    @contextlib.contextmanager
    def joined(self, name: str, deliver: Callable[[bytes], None]) -> Iterator[Member]:
        assert name == clock_watch.GROUP
        if self.broken:
            raise cpg.CpgError(self.broken)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self.lock:
            self.ends.append(theirs)
            self.joins += 1
        try:
            yield Member(self, mine, deliver)
        finally:
            with self.lock:
                self.ends.remove(theirs)
            mine.close()
            theirs.close()


class Member:
    def __init__(self, bus: Bus, end: socket.socket, deliver: Callable[[bytes], None]) -> None:
        self.bus, self.end, self.deliver = bus, end, deliver
        self.descriptor = end.fileno()

    def send(self, message: bytes) -> bool:
        with self.bus.lock:
            for end in self.bus.ends:
                end.send(message)
        return True

    def dispatch(self) -> None:
        if self.bus.broken:
            raise cpg.CpgError(self.bus.broken)
        self.deliver(self.end.recv(65536))


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()
    monkeypatch.setattr(cpg, "joined", made.joined)
    monkeypatch.setattr(clock_watch, "AGAIN_SECONDS", 0.05)
    return made


def started(name: str) -> tuple[ClockWatch, threading.Event]:
    news = threading.Event()
    watch = ClockWatch(news.set)
    watch.want(name, 3, 0.2)
    watch.start()
    return watch, news


def ended(*watches: ClockWatch) -> None:
    """The threads live as long as the process; without a name they measure nothing."""
    for watch in watches:
        watch.want("", 0, 60.0)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_two_nodes_measure_each_other(bus: Bus) -> None:
    (one, news), (two, _) = started("n1"), started("n2")
    try:
        assert news.wait(LIMIT_SECONDS)
        (name, sample), *_ = one.take()
        assert name == "n2"
        assert abs(sample.offset_seconds) <= sample.uncertainty_seconds + 0.001
        assert sample.epoch == 3
        assert eventually(lambda: any(name == "n1" for name, _ in two.take()))
        assert one.trouble == two.trouble == ""
    finally:
        ended(one, two)


def test_a_corosync_that_went_is_told_and_found_again_when_it_is_back(bus: Bus) -> None:
    (one, news), (two, _) = started("n1"), started("n2")
    try:
        assert news.wait(LIMIT_SECONDS)
        bus.broken = "the connection to corosync has ended (cpg error 2)"
        assert eventually(lambda: one.trouble == two.trouble == bus.broken)
        joins, bus.broken = bus.joins, ""
        one.take()
        assert eventually(lambda: one.trouble == "" and bus.joins >= joins + 2)
        assert eventually(lambda: bool(one.take()))
    finally:
        ended(one, two)


def test_how_often_it_asks_can_be_changed_at_any_time(bus: Bus) -> None:
    (one, news), (two, _) = started("n1"), started("n2")
    try:
        assert news.wait(LIMIT_SECONDS)
        one.want("n1", 4, 3600.0)
        two.want("n2", 4, 3600.0)
        time.sleep(0.5)
        one.take()
        time.sleep(0.3)
        assert one.take() == []
        one.want("n1", 9, 0.2)
        found: list[int] = []

        def fresh() -> bool:
            found.extend(sample.epoch for _, sample in one.take())
            return 9 in found

        assert eventually(fresh)
    finally:
        ended(one, two)
