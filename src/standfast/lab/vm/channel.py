"""Commands in a guest, over the lab's own network: 0.05 to 0.3 s a call under emulation."""

import ctypes
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from standfast.cluster.run import TIMED_OUT, Result
from standfast.lab.errors import LabError
from standfast.lab.vm.command_server import COMMAND_PORT

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 65536
_MAX_ANSWER_BYTES = 128 * 1024 * 1024
_CONNECT_LIMIT_SECONDS = 5.0
_GRACE_SECONDS = 3.0
"""A command that is cut off in the guest still has to be reported."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 30))
"""tcp(7). A guest that was killed and has booted again answers the next probe with a reset; one that stands
still is waited for, up to 310 s."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class Unreachable(LabError):
    """Nothing in the guest takes commands: no power, not booted yet, or it stands still."""


def call(
    namespace: Path, address: str, argv: Sequence[str], limit_seconds: float, input: str | None = None
) -> Result:
    """Run a command in the guest at `address` of a pinned network namespace.

    At the limit it returns with `timed_out`, also from a guest that stands still. Raises Unreachable when no
    connection is made within 5 s, or it is broken.
    """
    request = {"argv": list(argv), "limit_seconds": limit_seconds, "input": input}
    deadline = time.monotonic() + limit_seconds + _GRACE_SECONDS
    with socket_in(namespace) as connection:
        try:
            connection.settimeout(min(_CONNECT_LIMIT_SECONDS, limit_seconds))
            connection.connect((address, COMMAND_PORT))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError as error:
            raise Unreachable(f"the guest at {address} takes no commands ({error})") from None
        try:
            line = _exchange(connection, json.dumps(request).encode() + b"\n", deadline)
        except TimeoutError:
            return Result(tuple(argv), TIMED_OUT, "", "", timed_out=True)
        except OSError as error:
            raise Unreachable(f"the connection to the guest at {address} broke ({error})") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise Unreachable(f"the guest at {address} ended the connection without an answer") from None
    return Result(**{**answer, "argv": tuple(argv)})


def _exchange(connection: socket.socket, request: bytes, deadline: float) -> bytes:
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    connection.sendall(request)
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < _MAX_ANSWER_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        chunk = connection.recv(_CHUNK_BYTES)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def socket_in(namespace: Path) -> socket.socket:
    """A TCP socket that belongs to a pinned network namespace; this process stays where it is.

    A socket keeps the namespace in which it was made (network_namespaces(7)); a thread of its own enters,
    makes it, and ends.
    """
    made: list[socket.socket | OSError] = []

    def enter_and_make() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            finally:
                os.close(fd)
            made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise LabError(f"the lab's network {namespace} cannot be entered: {made[0].strerror}")
    return made[0]
