"""The line that every answer of the gate leaves, in a file and in syslog. Never raises, never waits."""

# pathlib costs 4 ms of each call.
# ruff: noqa: PTH103, PTH120

from __future__ import annotations

import os
import socket
import time

from standfast.core.names import GATE_LOG_FILE

SYSLOG_SOCKET = "/dev/log"
_WARNING, _NOTICE, _DAEMON = 4, 5, 3
MAX_LINE_CHARACTERS = 1500


def line(node: str, what: str, answer: str, rule: str, seconds: float, why: str) -> str:
    """One answer as one line, greppable by ``target=`` (in `what`) and ``rule=``."""
    text = f"node={node} {what} {answer} rule={rule} {seconds:.2f}s: {why}"
    return "".join(char if char.isprintable() else "?" for char in text)[:MAX_LINE_CHARACTERS]


def write(root: str, text: str, allow: bool) -> None:
    """Append to gate.log and send to syslog; what does not work is left out."""
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        os.makedirs(os.path.dirname(root + GATE_LOG_FILE), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(root + GATE_LOG_FILE, flags, 0o640)
        try:
            os.write(file, f"{stamp} {text}\n".encode())
        finally:
            os.close(file)
    except OSError:
        pass
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.setblocking(False)
            priority = _DAEMON * 8 + (_NOTICE if allow else _WARNING)
            log.connect(root + SYSLOG_SOCKET)
            log.send(f"<{priority}>fence_standfast[{os.getpid()}]: {text}".encode())
    except OSError:
        pass
