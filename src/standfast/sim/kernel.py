"""Simulated time: a heap of events in milliseconds, one source of chance, and a trace.

Processes are generators. They yield a number (milliseconds to sleep) or a function that is given a `resume`
callback; what `resume` is called with is the value of the yield.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from typing import Any

Effect = int | Callable[[Callable[[Any], None]], None]
Steps = Generator[Effect, Any, Any]

MAX_EVENTS = 400_000
"""More in one run is a loop without end, and a defect."""


class TooManyEvents(RuntimeError):
    """A run that does not come to its end."""


class Kernel:
    """Time, chance and trace of one run."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.events = 0
        self.lines: list[tuple[int, str, str, tuple[object, ...]]] = []
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Have `do` called after `delay_ms`."""
        self._number += 1
        heapq.heappush(self._heap, (self.now_ms + max(0, delay_ms), self._number, do))

    def between(self, least_ms: int, most_ms: int) -> int:
        """A delay by chance."""
        return least_ms + int(self.rng.random() * (most_ms - least_ms))

    def chance(self, share: float) -> bool:
        """True in this share of the calls."""
        return self.rng.random() < share

    def say(self, who: str, text: str, *parts: object) -> None:
        """One line of the trace; put together only when somebody reads it."""
        self.lines.append((self.now_ms, who, text, parts))

    def trace(self) -> list[str]:
        """The trace as text."""
        return [
            f"{now / 1000:9.3f} {who:8} {text % parts if parts else text}"
            for now, who, text, parts in self.lines
        ]

    def run(self, until_ms: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Carry out events in order until a time or a condition."""
        heap = self._heap
        while heap and heap[0][0] <= until_ms and not stop():
            self.now_ms, _, do = heapq.heappop(heap)
            self.events += 1
            if self.events > MAX_EVENTS:
                raise TooManyEvents(f"{MAX_EVENTS} events at {self.now_ms} ms")
            do()
        if not stop():
            self.now_ms = max(self.now_ms, until_ms)


class Process:
    """One generator under way. `later` schedules its sleeps (a frozen node's wait for its thaw)."""

    def __init__(
        self,
        later: Callable[[int, Callable[[], None]], None],
        steps: Steps,
        ended: Callable[[Any], None] = lambda result: None,
    ) -> None:
        self._later = later
        self._steps = steps
        self._ended = ended
        self.alive = True
        later(0, lambda: self._go(None))

    def kill(self) -> None:
        """It does nothing any more; what it has sent stays sent."""
        if self.alive:
            self.alive = False

    def _go(self, value: Any) -> None:
        if not self.alive:
            return
        try:
            wanted = self._steps.send(value)
        except StopIteration as end:
            self.alive = False
            self._ended(end.value)
            return
        if isinstance(wanted, int):
            self._later(wanted, lambda: self._go(None))
            return
        used = False

        def resume(answer: Any) -> None:
            nonlocal used
            if not used:
                used = True
                self._later(0, lambda: self._go(answer))

        wanted(resume)
