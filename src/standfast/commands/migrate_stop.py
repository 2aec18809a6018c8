"""Ctrl-C in ``standfast migrate``: the first one asks, and cancels; the second one leaves at once.

Without a terminal, or with --yes, nobody is asked: the first acts as a yes. SIGTERM never asks. SIGHUP, a
terminal that was closed, stops nothing: the migration would go on, and its window has to be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from standfast.commands.migrate_show import Show

T = TypeVar("T")
QUESTION = "\nCancel the migration and close the window? [y/N] (Ctrl-C again: leave it as it is) "
ANSWER_BYTES_LIMIT = 1024
REAP_LIMIT_SECONDS = 5.0


class Left(Exception):
    """A second interruption: end now."""


class Interrupts:
    """Who wants it to end, and how."""

    def __init__(self, show: Show, *, asks: bool) -> None:
        self._show, self._asks = show, asks
        self._asking = False
        self._what = "interrupted"
        self.wanted = asyncio.Event()
        """The operator wants the migration cancelled."""
        self.leave = asyncio.Event()
        """And then wants to be gone at once."""

    @contextlib.asynccontextmanager
    async def heard(self) -> AsyncIterator[None]:
        """Signals come here in the block."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        loop.add_signal_handler(signal.SIGTERM, self.terminate)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        try:
            yield
        finally:
            self.answered()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self.wanted.is_set() or self._asking:
            self.leave.set()
        elif self._asks:
            self._asking = True
            self._show.ask(QUESTION)
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._answer)
        else:
            self._want()

    def ask_no_more(self, what: str) -> None:
        """From now on a first Ctrl-C only says `what` goes on: there is nothing left to cancel."""
        self.answered()
        self._asks, self._what = False, what

    def terminate(self) -> None:
        """SIGTERM: as a Ctrl-C that nobody is asked about."""
        (self.leave if self.wanted.is_set() else self.wanted).set()

    def answered(self) -> None:
        """The question is none any more."""
        if self._asking:
            self._asking = False
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._show.asked()

    def _answer(self) -> None:
        text = os.read(sys.stdin.fileno(), ANSWER_BYTES_LIMIT).decode(errors="replace")
        self.answered()
        if text.strip().lower() in ("y", "yes"):
            self._want()

    def _want(self) -> None:
        self.wanted.set()
        self._show.say(f"{self._what}; Ctrl-C once more leaves the window to its lease")

    async def through(self, what: Awaitable[T]) -> T:
        """Its result; raises Left, with it cancelled, at a second interruption."""
        task = asyncio.ensure_future(what)
        leave = asyncio.ensure_future(self.leave.wait())
        try:
            await asyncio.wait({task, leave}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Left
            return task.result()
        finally:
            leave.cancel()
            await given_up(task)


async def given_up(task: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and take note of how it ended, which nobody wants to know any more."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=REAP_LIMIT_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()
