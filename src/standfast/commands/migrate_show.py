"""The face of ``standfast migrate``: a bar on a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field

import click

from standfast.commands import migrate_text
from standfast.core.jobs import MigrationJob
from standfast.core.messages import Message, Severity

PROGRAM = "standfast migrate"
PLAIN_EVERY_SECONDS = 10.0
PLAIN_EVERY_PERCENT = 10
CLEAR_LINE = "\r\x1b[K"


@dataclass
class Show:
    """What the operator sees. A terminal that goes away stops nothing: the window has to be closed."""

    as_json: bool = False
    terminal: bool = False
    """Whether standard error is a terminal."""
    began: float = field(default_factory=time.monotonic)
    phase: str = "preflight"
    _job: MigrationJob | None = None
    _migrating_since: float | None = None
    _bar: bool = False
    _quiet: bool = False
    _said_at: float = 0.0
    _said_percent: int = -PLAIN_EVERY_PERCENT

    # -- events -------------------------------------------------------------------------------------------

    def event(self, kind: str, **more: object) -> None:
        """One JSON line, where JSON is wanted."""
        if self.as_json:
            seconds = round(time.monotonic() - self.began, 3)
            _write(json.dumps({"event": kind, "seconds": seconds, **more}), err=False)

    def enter(self, phase: str, text: str) -> None:
        """A new part of the whole."""
        self.phase = phase
        self.event("phase", phase=phase, text=text)
        self._line(text)

    def say(self, line: str) -> None:
        """One thing that happens."""
        self.event("step", phase=self.phase, text=line)
        self._line(f"  {line}")

    def tell(self, message: Message) -> None:
        """One message with its code."""
        self.event("message", code=message.code, severity=message.severity.value, text=message.text,
                   node=message.node, host=message.host, next=message.next_command)  # fmt: skip
        kind = "warning: " if message.severity is Severity.WARNING else f"{PROGRAM}: "
        self._line(f"{kind}{message}")

    def end(self, code: int, text: str) -> int:
        """The last word; answers the exit status."""
        self._no_bar()
        self.event("end", exit=code, text=text)
        if text and not self.as_json:
            _write(text, err=False)
        return code

    def summary(self, summary: migrate_text.Summary) -> None:
        """The page at the end."""
        self._no_bar()
        self.event("summary", **summary.as_json())
        if not self.as_json:
            _write("\n".join(summary.lines()), err=False)

    # -- progress -----------------------------------------------------------------------------------------

    def migrating(self) -> None:
        """The order is given: a bar from now on."""
        self._migrating_since = time.monotonic()
        self.tick()

    def progress(self, job: MigrationJob) -> None:
        """What the host tells, about once a second."""
        self._job = job
        self.event("progress", **{name: value for name, value in asdict(job).items() if value is not None})
        percent = job.progress_percent if job.progress_percent is not None else self._said_percent
        now = time.monotonic()
        due = (
            now - self._said_at >= PLAIN_EVERY_SECONDS or percent - self._said_percent >= PLAIN_EVERY_PERCENT
        )
        if self.as_json or self.terminal:
            self.tick()
        elif due or job.done:
            self._said_at, self._said_percent = now, percent
            self._line(f"  {migrate_text.plain(job, self._since())}")

    def tick(self) -> None:
        """Draw the bar again: its clock goes on where no host tells anything."""
        if self.terminal and not self.as_json and not self._quiet and self._migrating_since is not None:
            columns = shutil.get_terminal_size().columns
            _write(CLEAR_LINE + migrate_text.live(self._job, self._since(), columns), end="")
            self._bar = True

    def migrated(self) -> None:
        """No bar any more."""
        self._no_bar()
        self._migrating_since = None

    @property
    def last(self) -> MigrationJob | None:
        """The last that a host told of the migration."""
        return self._job

    # -- asking -------------------------------------------------------------------------------------------

    def ask(self, question: str) -> None:
        """Put a question on the terminal, and draw nothing over it until `asked`."""
        self._no_bar()
        self._quiet = True
        _write(question, end="")

    def asked(self) -> None:
        """The question is answered, or is none any more."""
        self._quiet = False

    def _since(self) -> float:
        return time.monotonic() - (self._migrating_since or self.began)

    def _line(self, text: str) -> None:
        if not self.as_json:
            self._no_bar()
            _write(text)

    def _no_bar(self) -> None:
        if self._bar:
            self._bar = False
            _write(CLEAR_LINE, end="")


def _write(text: str, *, err: bool = True, end: str = "\n") -> None:
    # EIO from a terminal that was closed, EPIPE from a reader that has gone.
    with contextlib.suppress(OSError):
        click.echo(text + end, err=err, nl=False)
        (sys.stderr if err else sys.stdout).flush()
