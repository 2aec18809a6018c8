"""Client of a running emulator process, for tests, the lab and the demo. Synchronous."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.02
REPLY_LIMIT_SECONDS = 90.0


class ControlError(Exception):
    """The emulators refused a command; the text says why."""


class Control:
    """One connection to a control socket, usable from several threads.

    Commands are the `do_*` methods of `ControlServer`.
    """

    def __init__(self, path: Path, limit_seconds: float = 10.0) -> None:
        """Connects, waiting for the process to come up. Raises ControlError at the limit."""
        end = time.monotonic() + limit_seconds
        self._lock = threading.Lock()
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > end:
                    raise ControlError(f"no emulators at {path}: {error}") from error
                time.sleep(POLL_SECONDS)
        self._file = self._socket.makefile("rw", encoding="utf-8")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, do: str, **arguments: object) -> Any:
        """Sends one command. Raises ControlError."""
        return self._call(do, 0.0, arguments)

    def _call(self, do: str, waits_seconds: float, arguments: dict[str, object]) -> Any:
        """`waits_seconds`: for how long the command itself may wait for something."""
        with self._lock:
            self._socket.settimeout(REPLY_LIMIT_SECONDS + waits_seconds)
            self._file.write(json.dumps({"do": do, **arguments}) + "\n")
            self._file.flush()
            line = self._file.readline()
        if not line:
            raise ControlError("the emulators have gone")
        answer = json.loads(line)
        if not answer["ok"]:
            raise ControlError(f"{do}: {answer['error']}")
        return answer["result"]

    def state(self) -> dict[str, Any]:
        """Hosts with domains, powers, saved configurations and XSCF view; running; migrations."""
        return dict(self.call("state"))

    def running(self, name: str) -> list[str]:
        """Hosts on which a domain is alive."""
        return list(self.state()["running"].get(name, []))

    def endpoint(self, host: str, name: str) -> tuple[str, int]:
        """Address and port; name is lan0, lan1 or ldm."""
        address, port = self.call("endpoints")[host][name]
        return str(address), int(port)

    def known_hosts(self) -> str:
        return str(self.call("known_hosts"))

    def inject(
        self, kind: str, host: str, endpoint: str = "*", times: int | None = None, **params: object
    ) -> int:
        """Switches a fault on (`faults.KINDS`); endpoint lan0, lan1, ldm, xscf or *."""
        return int(self.call("inject", kind=kind, host=host, endpoint=endpoint, times=times, **params))

    def clear(self, **which: object) -> int:
        """Switches faults off, by kind, host, endpoint or number; all without any."""
        return int(self.call("clear", **which))

    def mark(self) -> int:
        """Number of the newest log entry."""
        return int(self.call("mark"))

    def log(self, since: int = 0, **wanted: object) -> list[dict[str, Any]]:
        """Log entries after a mark whose fields are as wanted: event, host, endpoint, line, hit ..."""
        return list(self.call("log", since=since, **wanted))

    def migrate(self, name: str, target: str, **options: object) -> str:
        """Begins a migration: duration_seconds, blackout_seconds, save. Answers the source."""
        return str(self.call("migrate", name=name, target=target, **options))

    def wait_migration(self, name: str, limit_seconds: float = 60.0) -> dict[str, Any]:
        """Waits for the end of a domain's last migration: done, failed or lost."""
        return dict(
            self._call("wait_migration", limit_seconds, {"name": name, "limit_seconds": limit_seconds})
        )

    def wait(
        self, condition: Callable[[dict[str, Any]], bool], limit_seconds: float = 20.0
    ) -> dict[str, Any]:
        """Polls the state until it is as wanted. Raises ControlError at the limit."""
        end = time.monotonic() + limit_seconds
        while True:
            state = self.state()
            if condition(state):
                return state
            if time.monotonic() > end:
                raise ControlError(f"the world did not become as wanted within {limit_seconds} s: {state}")
            time.sleep(POLL_SECONDS)

    def reset(self) -> None:
        """Back to the world of the file: no faults, nothing logged in memory."""
        self.call("reset")

    def shutdown(self) -> None:
        """Ends the process."""
        self.call("shutdown")
