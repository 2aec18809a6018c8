"""This node's report, in the attribute manager of the cluster: written when it says something new."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from standfast.cluster import attrd
from standfast.cluster.run import EngineError
from standfast.core.report import Report, encode
from standfast.daemon.known import RETRY_SECONDS, Known

TESTS_NEWS_SECONDS = 0.25
UNDER_WAY = ("Init-ing", "Testing")

log = logging.getLogger("standfastd")


class Publisher:
    """Publishes what `report` tells, as often as `touched` asks for it."""

    def __init__(self, known: Known, report: Callable[[], Report]) -> None:
        self._known = known
        self._report = report
        self._dirty = asyncio.Event()
        self._published = ""
        self._told: Report | None = None
        """What stands in `_published`."""

    def touched(self) -> None:
        """Something changed that a report tells."""
        self._dirty.set()

    def forget(self) -> None:
        """Nobody has our report any more: the next one is written whatever it says."""
        self._published = ""

    async def publish(self) -> None:
        """Until cancelled."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self._known.engine:
                continue
            if self._only_tests_go_on():
                # Each agent of a test would be news three times, to every node.
                await asyncio.sleep(TESTS_NEWS_SECONDS)
            report = self._report()
            text = encode(report)
            if text == self._published:
                continue
            try:
                await asyncio.to_thread(attrd.publish, text)
                self._published, self._told = text, report
            except (EngineError, ValueError) as error:
                log.warning("report not published: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._dirty.set()

    async def look(self) -> None:
        """Read all reports; a restarted attribute manager has forgotten ours, which is then written again."""
        if not self._published:
            return
        with contextlib.suppress(EngineError):
            self._known.texts = await asyncio.to_thread(attrd.reports)
            if self._known.texts.get(self._known.node) != self._published:
                self._published = ""

    def _only_tests_go_on(self) -> bool:
        """Whether a test is under way and nothing else is new since the last report."""
        now = self._report()
        if self._told is None or not any(state in UNDER_WAY for state in now.agents.values()):
            return False
        return replace(now, agents={}, proofs={}) == replace(self._told, agents={}, proofs={})
