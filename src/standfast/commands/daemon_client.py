"""One question to this node's daemon: one line of JSON there, one line back. Standard library only.

Kept light on purpose: `sdtool -s` is called by hand and by scripts every few seconds.
"""

from __future__ import annotations

import json
import socket
import time

from standfast.core.names import SOCKET_FILE

MAX_ANSWER_BYTES = 4_000_000
START_DAEMON = "systemctl start standfastd"


class DaemonError(Exception):
    """The daemon did not do it. `str()` says what happened, `hint` is the next command, or empty."""

    def __init__(self, text: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(text)


def ask(request: dict[str, object], limit_seconds: float, path: str = SOCKET_FILE) -> dict[str, object]:
    """Send one request and wait for the answer, at most `limit_seconds`.

    Raises DaemonError: not running, no answer in time, not an answer, or refused (``"ok": false``).
    """
    line = _exchange(json.dumps(request).encode() + b"\n", limit_seconds, path)
    try:
        answer = json.loads(line)
    except ValueError:
        raise DaemonError("standfastd gave an answer that cannot be read", "standfastd --version") from None
    if not isinstance(answer, dict):
        raise DaemonError("standfastd gave an answer that cannot be read", "standfastd --version")
    if answer.get("ok") is not True:
        text = str(answer.get("error") or "standfastd refused and did not say why")
        raise DaemonError(text, str(answer.get("hint") or ""))
    return answer


def _exchange(line: bytes, limit_seconds: float, path: str) -> bytes:
    deadline = time.monotonic() + limit_seconds
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(limit_seconds)
            connection.connect(path)
            connection.sendall(line)
            while not received.endswith(b"\n"):
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                chunk = connection.recv(65536)
                received += chunk
                if not chunk or len(received) > MAX_ANSWER_BYTES:
                    break
        except TimeoutError:
            text = f"standfastd did not answer within {limit_seconds:g} seconds"
            raise DaemonError(text, "journalctl -u standfastd") from None
        except PermissionError:
            raise DaemonError("this needs root: standfastd answers root only") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise DaemonError("standfastd is not running on this node", START_DAEMON) from None
        except OSError as error:
            raise DaemonError(f"standfastd cannot be reached: {error.strerror}", START_DAEMON) from None
    if not received.endswith(b"\n"):
        text = "standfastd ended the connection without a whole answer"
        raise DaemonError(text, "journalctl -u standfastd")
    return bytes(received)
