"""One way to run a program: no shell, a time limit, bounded output, nothing left behind.

Every tool of the engine may hang while the ring waits for a frozen member, so there is no call without a
limit. A program that is killed at its limit may still take effect later (the engine carries out what it has
already received): the caller has to treat the result as unknown, not as failed.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127
LOOK_SHARE = 2.0
LATE_LIMIT_SECONDS = 30.0
"""So long nothing but looks that found no answer in time, one after the other: a slow node is no lost one."""
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK_BYTES = 65536
_NO_NEWS = ("Init failed, could not perform", "Please try a longer timeout")


class EngineError(Exception):
    """A tool of the engine refused, failed or did not answer; the text is one line for an operator.

    `timed_out`: it did not answer within its time limit. A reading may be tried again then.
    """

    def __init__(self, text: str = "", *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out

    @classmethod
    def of(cls, what: str, result: Result) -> Self:
        """`what` could not be had: with the program's own last words, or how it ended."""
        return cls(f"{what}: {result.complaint()}", timed_out=result.timed_out)


@dataclass(frozen=True)
class Result:
    """What a program did. `returncode` is 124 at the limit, 126 or 127 where it could not be started,
    and 128 + N where signal N ended it. `truncated`: a stream was longer than MAX_OUTPUT_BYTES."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """The program ended by itself with exit code 0."""
        return self.returncode == 0 and not self.timed_out

    def complaint(self) -> str:
        """One line for an operator: the program's own last words, or how it ended."""
        if self.timed_out:
            return f"{self.argv[0]} did not answer in time"
        # Pacemaker's tools put their errors into the XML where they print XML.
        said = [html.unescape(text) for text in re.findall(r"<error>([^<]*)</error>", self.stdout)]
        said += [line.strip().removeprefix("error: ") for line in self.stderr.splitlines()]
        if not any(said) and not self.stdout.startswith("<"):
            said = [line.strip() for line in self.stdout.splitlines()]
        said = [line for line in said if line and not line.startswith(_NO_NEWS)]
        return said[-1] if said else f"{self.argv[0]} ended with exit code {self.returncode}"


def pause_seconds(at_least_seconds: float, took_seconds: float) -> float:
    """How long who waits for something pauses after a look that took so long: so that it looks for a third of
    its time at most. On a slow node (an emulated one needs 0.2 s of its processor to start a program) those
    who are waited for would otherwise not get on."""
    return max(at_least_seconds, LOOK_SHARE * took_seconds)


def run(
    argv: Sequence[str],
    *,
    limit_seconds: float,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run `argv` and wait for it, at most `limit_seconds`.

    The program is the leader of a process group of its own; the whole group is killed at the limit, and
    whatever the program left behind in it when it ended by itself. Stdin is /dev/null unless there is
    `input`. `env` adds to the environment (LC_ALL is C). Never raises for what the program does.
    """
    names = tuple(argv)
    try:
        process = subprocess.Popen(
            names,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(env),
            start_new_session=True,
        )
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        return Result(names, code, "", f"{names[0]}: {error.strerror}")
    exchange = _Exchange(process, b"" if input is None else input.encode("utf-8", "surrogateescape"))
    try:
        ended = exchange.until(time.monotonic() + limit_seconds)
    finally:
        # The leader has not been reaped yet, so this group id cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        exchange.close()
    if not ended:
        code = TIMED_OUT
    elif code < 0:
        code = 128 - code
    return Result(
        names,
        code,
        exchange.text(process.stdout),
        exchange.text(process.stderr),
        not ended,
        exchange.truncated,
    )


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    environment = {**os.environ, "LC_ALL": "C"}
    # Fence agents are started with a bare environment; the engine's tools live in sbin.
    environment["PATH"] = f"{environment['PATH']}:{_PATH}" if environment.get("PATH") else _PATH
    environment.update(extra or {})
    return environment


class _Exchange:
    """Feeds stdin and collects stdout and stderr of one process until it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], data: bytes) -> None:
        self._process = process
        self._left = memoryview(data)
        self._collected: dict[object, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        self.truncated = False
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(process.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)

    def until(self, deadline: float) -> bool:
        """Exchange data; True when the process has ended, False when the deadline came first."""
        ended = False
        while not ended:
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            for key, _ in self._selector.select(rest):
                if key.fileobj is self._process.stdin:
                    self._feed()
                elif key.fileobj == self._pidfd:
                    ended = True
                else:
                    self._collect(key.fileobj)
        # A child that holds the pipe open must not hold us: take what is there, and no more.
        for stream in (self._process.stdout, self._process.stderr):
            while self._collect(stream):
                pass
        return True

    def _feed(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            self._left = self._left[os.write(stdin.fileno(), self._left[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = memoryview(b"")
        if not self._left:
            self._selector.unregister(stdin)
            stdin.close()

    def _collect(self, stream: object) -> bool:
        """Take one chunk; False when there is none (now, or any more)."""
        try:
            chunk = os.read(stream.fileno(), _CHUNK_BYTES)  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        if not chunk:
            if stream in self._selector.get_map():
                self._selector.unregister(stream)  # type: ignore[arg-type]
            return False
        collected = self._collected[stream]
        room = MAX_OUTPUT_BYTES - len(collected)
        collected += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room
        return True

    def close(self) -> None:
        self._selector.close()
        os.close(self._pidfd)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def text(self, stream: object) -> str:
        return self._collected[stream].decode("utf-8", "replace")


def xml_of(result: Result) -> ElementTree.Element | None:
    """What a tool printed as XML; None at its limit, or where it is no XML."""
    if result.timed_out:
        return None
    try:
        return ElementTree.fromstring(result.stdout)
    except ElementTree.ParseError:
        return None
