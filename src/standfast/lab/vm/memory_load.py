"""Runs in a guest: writes memory at a bounded rate, and knows at every moment what has to be in it.

A migration that loses a page which was written while it was copied shows here: the memory no longer says what
was written. Each page holds its own number and how often it was written; the counts are kept apart. SIGUSR1
has every page compared. Imports little: the guest is emulated.
"""

import argparse
import array
import json
import os
import signal
import time
from pathlib import Path

PAGE_BYTES = 4096
TICK_SECONDS = 0.1
PAGES_OF_A_MIB = 256
STATUS_FILE = "/run/lab/memory-load.json"


class Memory:
    """So many pages, and what they have to say."""

    def __init__(self, pages: int) -> None:
        self._pages = memoryview(bytearray(pages * PAGE_BYTES))
        self._counts = array.array("Q", bytes(8 * pages))
        self._next = 0
        self.writes = 0
        for page in range(pages):
            self._put(page)

    def write(self, pages: int) -> None:
        """Write the next pages, round and round."""
        for _ in range(pages):
            self._counts[self._next] += 1
            self._put(self._next)
            self._next = (self._next + 1) % len(self._counts)
        self.writes += pages

    def wrong(self) -> int:
        """How many pages do not say what was written to them last."""
        return sum(self._page(page) != self._text(page) for page in range(len(self._counts)))

    def _page(self, page: int) -> memoryview:
        return self._pages[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]

    def _put(self, page: int) -> None:
        self._page(page)[:] = self._text(page)

    def _text(self, page: int) -> bytes:
        word = page.to_bytes(8, "little") + self._counts[page].to_bytes(8, "little")
        return word * (PAGE_BYTES // len(word))


def main() -> None:
    """Write until killed; tell in STATUS_FILE after each comparison."""
    parser = argparse.ArgumentParser(description="Write memory at a bounded rate, and compare it on SIGUSR1.")
    parser.add_argument("--mib", type=int, default=16, help="how much memory")
    parser.add_argument(
        "--mib-per-second", type=float, default=2.0, help="how much of it is written a second"
    )
    given = parser.parse_args()
    asked = 0

    def ask(*_: object) -> None:
        nonlocal asked
        asked += 1

    signal.signal(signal.SIGUSR1, ask)
    memory, compared, wrong = Memory(given.mib * PAGES_OF_A_MIB), 0, 0
    pages = max(1, round(given.mib_per_second * PAGES_OF_A_MIB * TICK_SECONDS))
    _tell(memory, compared, wrong)
    while True:
        time.sleep(TICK_SECONDS)
        memory.write(pages)
        if asked != compared:
            compared = asked
            wrong += memory.wrong()
            _tell(memory, compared, wrong)


def _tell(memory: Memory, compared: int, wrong: int) -> None:
    text = json.dumps({"pid": os.getpid(), "compared": compared, "wrong": wrong, "writes": memory.writes})
    new = Path(f"{STATUS_FILE}.new")
    new.write_text(text)
    new.replace(STATUS_FILE)


if __name__ == "__main__":
    main()
