"""The emulators' own record: every login, every command, everything it really did."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import TextIO

KEPT_ENTRIES = 50_000


class CommandLog:
    """JSON lines in a file, the newest also in memory for queries."""

    def __init__(self, path: Path | None) -> None:
        self._entries: deque[dict[str, object]] = deque(maxlen=KEPT_ENTRIES)
        self._file: TextIO | None = path.open("a", encoding="utf-8") if path else None
        self._last = 0

    def add(self, event: str, host: str = "", endpoint: str = "", **fields: object) -> None:
        self._last += 1
        entry: dict[str, object] = {
            "number": self._last,
            "time": time.time(),
            "event": event,
            "host": host,
            "endpoint": endpoint,
            **fields,
        }
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def query(self, since: int = 0, **wanted: object) -> list[dict[str, object]]:
        """Entries after number `since` whose fields are all as wanted."""
        return [
            entry
            for entry in self._entries
            if int(str(entry["number"])) > since
            and all(entry.get(key) == value for key, value in wanted.items())
        ]

    @property
    def last(self) -> int:
        """Number of the newest entry: remember it, and ask `since` it later."""
        return self._last

    def forget(self) -> None:
        """Empties the memory; the file keeps everything, and numbers go on."""
        self._entries.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
