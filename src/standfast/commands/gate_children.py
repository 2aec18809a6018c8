"""Programs that the gate asks: started at once, read together, none longer than its limit.

`os.posix_spawn` and plain classes: they have to run while the rest of the gate is still being imported
(measured: that hides the engine's tools completely). The children stay in the gate's own process group, so
that the fencer's kill of the group takes them too.
"""

from __future__ import annotations

import os
import select
import signal
import time

SAFE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MAX_OUTPUT_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 65536
REAP_LIMIT_SECONDS = 0.1
"""For a killed child to be gone; after that init collects it."""


class Child:
    """One running program. After `collect`: `output`, and `error` with one phrase, empty if it exited 0."""

    def __init__(self, argv: list[str], limit_seconds: float) -> None:
        """Start it. A program that cannot be started has its `error` at once; this never raises."""
        self.name = argv[0]
        self.deadline = time.monotonic() + limit_seconds
        self.error = ""
        self.pipes: dict[int, bytearray] = {}
        self._pid = 0
        self._out, self._err = bytearray(), bytearray()
        self._limit_seconds = limit_seconds
        try:
            self._start(argv)
        except OSError as error:
            self.error = f"cannot be started: {error.strerror}"

    def _start(self, argv: list[str]) -> None:
        out, out_in = os.pipe()
        err, err_in = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_in, 1),
            (os.POSIX_SPAWN_DUP2, err_in, 2),
        ]
        try:
            self._pid = os.posix_spawnp(
                argv[0], argv, environment(), file_actions=actions, setsigdef=[signal.SIGPIPE]
            )
        except OSError:
            for end in (out, err):
                os.close(end)
            raise
        finally:
            for end in (out_in, err_in):
                os.close(end)
        self.pipes = {out: self._out, err: self._err}

    @property
    def output(self) -> str:
        """What it wrote to its standard output."""
        return self._out.decode(errors="replace")

    def read(self, pipe: int) -> None:
        """Take what is there; the pipe is closed at its end."""
        try:
            chunk = os.read(pipe, CHUNK_BYTES)
        except OSError:
            chunk = b""
        kept = self.pipes[pipe]
        kept += chunk
        if not chunk or len(kept) > MAX_OUTPUT_BYTES:
            os.close(pipe)
            del self.pipes[pipe]

    def finish(self) -> None:
        """Its exit status into `error`; what is still running at the deadline is killed."""
        if not self._pid:
            return
        status = self._reaped(self.deadline) if not self.pipes else None
        if status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._reaped(time.monotonic() + REAP_LIMIT_SECONDS)
            self.error = f"no answer within {self._limit_seconds:.2g} s"
        elif status != 0:
            words = self._err.decode(errors="replace").split("\n")
            said = next((word.strip() for word in reversed(words) if word.strip()), "")
            self.error = said[:200] or f"exit code {os.waitstatus_to_exitcode(status)}"
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes = {}
        self._pid = 0

    def _reaped(self, deadline: float) -> int | None:
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.001)


def collect(children: list[Child]) -> None:
    """Wait until each has ended or reached its limit."""
    poller = select.poll()
    owners = {pipe: child for child in children for pipe in child.pipes}
    for pipe in owners:
        poller.register(pipe, select.POLLIN)
    while owners:
        left = min(child.deadline for child in owners.values()) - time.monotonic()
        if left > 0:
            for pipe, _ in poller.poll(left * 1000 + 1):
                child = owners[pipe]
                child.read(pipe)
                if pipe not in child.pipes:
                    poller.unregister(pipe)
                    del owners[pipe]
            continue
        now = time.monotonic()
        for pipe in [pipe for pipe, child in owners.items() if child.deadline <= now]:
            poller.unregister(pipe)
            del owners[pipe]
    for child in children:
        child.finish()


def environment() -> dict[str, str]:
    """What children see: our own variables, plain English, and a PATH on which the engine's tools are."""
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = path if SAFE_PATH in path else f"{path}:{SAFE_PATH}".lstrip(":")
    return {**os.environ, "LC_ALL": "C"}
