"""This node's own history: what it did, what it saw, what the gate answered. Nothing that safety needs.

One SQLite file; a write that fails is reported to the caller's log and never stops the work.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from standfast.core.names import JOURNAL_FILE

KEEP_ROWS = 100_000
BUSY_LIMIT_SECONDS = 2.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  kind TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  text TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Event:
    """One line of history. `at` is a wall-clock time for people: nothing is decided by it."""

    at: str
    kind: str
    epoch: int
    text: str
    detail: dict[str, object]


class Journal:
    """An append-only history in one file."""

    def __init__(self, path: str = JOURNAL_FILE) -> None:
        self._path = Path(path)

    def add(self, kind: str, text: str, *, epoch: int = 0, **detail: object) -> str:
        """Append one event, durably. Returns why it could not be written, or an empty text."""
        try:
            with closing(self._open()) as db, db:
                db.execute(
                    "INSERT INTO event (at, kind, epoch, text, detail) VALUES (?, ?, ?, ?, ?)",
                    (
                        datetime.now(UTC).isoformat(timespec="milliseconds"),
                        kind,
                        epoch,
                        text,
                        json.dumps(detail),
                    ),
                )
                db.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?", (KEEP_ROWS,))
        except (sqlite3.Error, OSError) as error:
            return f"journal {self._path}: {error}"
        return ""

    def last(self, count: int) -> list[Event]:
        """The last `count` events, oldest first; none where there is no journal."""
        if not self._path.exists():
            return []
        with closing(self._open()) as db:
            rows = db.execute(
                "SELECT at, kind, epoch, text, detail FROM event ORDER BY id DESC LIMIT ?", (count,)
            ).fetchall()
        return [
            Event(at, kind, epoch, text, json.loads(detail)) for at, kind, epoch, text, detail in rows[::-1]
        ]

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=BUSY_LIMIT_SECONDS)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(_SCHEMA)
        return db
