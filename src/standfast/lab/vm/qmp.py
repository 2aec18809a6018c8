"""A guest's second QEMU monitor: events with QEMU's own times, and stop and cont to the millisecond.

Outside facts: QEMU's docs/interop/qmp-spec.rst. libvirt has a monitor of its own and leaves this one alone.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standfast.lab.errors import LabError

_CALL_LIMIT_SECONDS = 10.0
_CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Event:
    """One event. `wall`: seconds since 1970, by QEMU's clock, which is this machine's."""

    name: str
    wall: float


class Monitor:
    """A connection to the monitor at `path`. Raises LabError where there is none; use it in a `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = bytearray()
        self.events: list[Event] = []
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_CALL_LIMIT_SECONDS)
            self._socket.connect(str(path))
            self._message(time.monotonic() + _CALL_LIMIT_SECONDS)  # the greeting
            self.call("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise LabError(f"no QEMU answers at {path} ({error})") from None
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Monitor:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the monitor."""
        self._socket.close()

    def call(self, command: str) -> Any:
        """Carry out a command without arguments. Raises LabError: refused, or no answer within 10 s."""
        deadline = time.monotonic() + _CALL_LIMIT_SECONDS
        self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while True:
            message = self._message(deadline)
            if message is None:
                raise LabError(
                    f"QEMU at {self._path} did not answer {command} within {_CALL_LIMIT_SECONDS:g} s"
                )
            if "error" in message:
                raise LabError(f"QEMU refused {command}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def wait_event(self, name: str, limit_seconds: float) -> Event | None:
        """The first event of this name, also one that came already; None at the limit or when QEMU ends."""
        deadline = time.monotonic() + limit_seconds
        while True:
            for event in self.events:
                if event.name == name:
                    return event
            try:
                if self._message(deadline) is None:
                    return None
            except (OSError, LabError):
                return None

    def _message(self, deadline: float) -> dict[str, Any] | None:
        """The next message; events are kept as well. None at the deadline. Raises LabError at the end."""
        while b"\n" not in self._buffer:
            rest = deadline - time.monotonic()
            if rest <= 0:
                return None
            self._socket.settimeout(rest)
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except TimeoutError:
                return None
            if not chunk:
                raise LabError(f"QEMU at {self._path} has ended")
            self._buffer += chunk
        line, _, rest_of_buffer = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest_of_buffer)
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            at = message["timestamp"]
            self.events.append(Event(message["event"], at["seconds"] + at["microseconds"] / 1e6))
        return message
