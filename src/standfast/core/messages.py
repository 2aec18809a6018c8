"""Messages to operators: a code, a severity, whom it concerns, and what to type next.

Command line, JSON and tests consume the same object. Texts stand next to the code that raises them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How a message must be taken."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Message:
    """What an operator sees. `code` is stable and greppable; `text` names what happened and where."""

    code: str
    text: str
    severity: Severity = Severity.ERROR
    node: str = ""
    host: str = ""
    next_command: str = ""
    force: str = ""
    """Name of the option with which an operator may overrule this refusal; empty: none."""

    def __str__(self) -> str:
        hint = f"\n  next: {self.next_command}" if self.next_command else ""
        return f"{self.text} [{self.code}]{hint}"


class Refused(Exception):
    """An operator's request cannot be done; nothing was changed unless the text says so."""

    def __init__(self, *messages: Message) -> None:
        super().__init__("; ".join(message.text for message in messages))
        self.messages = messages
