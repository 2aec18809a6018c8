"""The exchange of clock readings between all nodes: what to send, and what an answer yields.

A round: a node asks (`ask`), which reaches all nodes at once; each notes when it came, asks too unless it did
lately, and shortly after answers all that it has heard in ONE message (`tell`). So two messages of each node
give every pair of them a sample in both directions.

A sample has four timestamps, but only two are of the clocks that are compared, both read as late as can be:
the other's as it answers, and ours as the answer comes. How long the round trip was, and how long the other
held the question, is counted by clocks that never step. So a clock that is set meanwhile spoils nothing.

Pure: a reading of the clocks comes in with each call, messages go out as bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from standfast.core.clocks import Sample

FORMAT = 1
TELL_AFTER_SECONDS = 0.1
"""So long the answers to several questions are gathered."""
KEPT_QUESTIONS = 8
MAX_NODES = 64
MAX_MESSAGE_BYTES = 16 * 1024


@dataclass(frozen=True)
class Reading:
    """One look at this node's clocks, in seconds."""

    steady: float
    """CLOCK_MONOTONIC: never steps."""
    wall: float
    """CLOCK_REALTIME: the one that is compared."""


@dataclass
class Exchange:
    """One node's side of it. `join_seconds`: it asks along with others where it has not asked for so long."""

    me: str
    join_seconds: float = 7.5
    epoch: int = 0
    _number: int = 0
    _asked: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Number of a question -> when (steady), and at which epoch of the record."""
    _heard: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Who has asked and is not answered -> number, and when it came."""
    _tell_at: float | None = None
    _last_ask: float = float("-inf")

    def ask(self, now: Reading) -> bytes:
        """A question to all."""
        self._number += 1
        self._asked[self._number] = (now.steady, self.epoch)
        for old in sorted(self._asked)[:-KEPT_QUESTIONS]:
            del self._asked[old]
        self._last_ask = now.steady
        return self._encode({"k": "ask", "id": self._number})

    def heard(self, message: bytes, now: Reading) -> tuple[list[bytes], tuple[str, Sample] | None]:
        """A message has come: what to send at once, and what it tells of whose clock.

        What cannot be read is from another version, or nobody's: it is ignored.
        """
        try:
            body = json.loads(message) if len(message) <= MAX_MESSAGE_BYTES else {}
            name = str(body["n"])
            if body["v"] != FORMAT or name == self.me:
                return [], None
            if body["k"] == "ask":
                return self._asked_by(name, int(body["id"]), now), None
            return [], self._told_by(name, body, now)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return [], None

    def due(self, now: Reading) -> list[bytes]:
        """What is to be sent now: the answers that were gathered."""
        if self._tell_at is None or now.steady < self._tell_at:
            return []
        self._tell_at = None
        held = {name: [number, now.steady - came] for name, (number, came) in self._heard.items()}
        self._heard.clear()
        return [self._encode({"k": "tell", "w": now.wall, "held": held})]

    @property
    def due_at(self) -> float | None:
        """When `due` will have something (steady); None: not until somebody asks."""
        return self._tell_at

    def _asked_by(self, name: str, number: int, now: Reading) -> list[bytes]:
        if name in self._heard or len(self._heard) < MAX_NODES:
            self._heard[name] = (number, now.steady)
        if self._tell_at is None:
            self._tell_at = now.steady + TELL_AFTER_SECONDS
        return [self.ask(now)] if now.steady - self._last_ask >= self.join_seconds else []

    def _told_by(self, name: str, body: dict[str, object], now: Reading) -> tuple[str, Sample] | None:
        held = body["held"]
        mine = held.get(self.me) if isinstance(held, dict) else None
        if mine is None:
            return None
        asked = self._asked.get(int(mine[0]))
        if asked is None:
            return None
        under_way = now.steady - asked[0] - float(mine[1])
        if not 0.0 <= under_way < float("inf"):
            # One of the two has not counted the time in which it stood still.
            return None
        # When the answer came, the other's clock showed what it told and something between 0 and `under_way`.
        uncertainty = under_way / 2
        offset = float(str(body["w"])) + uncertainty - now.wall
        if not abs(offset) < float("inf"):
            return None
        return name, Sample(offset, uncertainty, asked[1], now.steady)

    def _encode(self, body: dict[str, object]) -> bytes:
        return json.dumps({"v": FORMAT, "n": self.me, **body}, separators=(",", ":")).encode()
