"""The lines of `virsh event --all --loop --timestamp`, as events.

Source: virsh(1), and the output of libvirt 9.0.0. An event is one line; some have their figures in lines
below it, which begin with white space. A kind that is not known is told like the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

LISTENING = "listening"
"""virsh has connected: what happened before is not told."""
LOST = "lost"
"""The stream has ended: what happens until the next LISTENING is not told."""
MAX_FIGURES = 100
_MARK = "standfast:"
COMMAND = f"echo '{_MARK}{LISTENING}\n'; event --all --loop --timestamp"
"""For one call of virsh."""

_EVENT = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+[+-]\d{4}): event '(?P<kind>[^']+)'"
    r" for (?:domain )?'?(?P<guest>[^':]+)'?(?::\s*(?P<what>.*))?"
)


@dataclass(frozen=True)
class HostEvent:
    """One event: `lifecycle` with "Suspended Migrated", `job-completed` with figures, and so on.

    `at` is the host's wall clock as virsh prints it, with its offset from UTC; for people.
    """

    kind: str
    guest: str = ""
    what: str = ""
    at: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Lines in, events out. An event with figures is told when the next line shows that it is whole."""

    def __init__(self) -> None:
        self.trouble = ""
        """virsh's last error."""
        self._begun: HostEvent | None = None
        self._listening = False

    @property
    def holds(self) -> bool:
        """Whether an event is held back for its figures."""
        return self._begun is not None

    def feed(self, line: str) -> Iterator[HostEvent]:
        """The events that this line completes."""
        if line.startswith("error: "):
            self.trouble = line.removeprefix("error: ").strip()
            return
        if line[:1].isspace() and line.strip() and self._begun is not None:
            key, _, value = line.strip().partition(":")
            if len(self._begun.figures) < MAX_FIGURES:
                figures = {**self._begun.figures, key.strip(): value.strip()}
                self._begun = replace(self._begun, figures=figures)
            return
        yield from self.flush()
        if line.startswith(f"{_MARK}{LISTENING}"):
            yield HostEvent(LISTENING)
        match = _EVENT.fullmatch(line.rstrip())
        if match is None:
            return
        event = HostEvent(match["kind"], match["guest"], (match["what"] or "").strip(), match["at"])
        if event.what:
            yield event
        else:
            self._begun = event

    def flush(self) -> Iterator[HostEvent]:
        """What is held back for its figures, when no more have come for a while."""
        if self._begun is not None:
            yield self._begun
            self._begun = None
