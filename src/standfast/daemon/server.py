"""The daemon's door: one JSON object a line over a unix socket that only root can reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from standfast.core.names import SOCKET_FILE

MAX_REQUEST_BYTES = 65536
MAX_CLIENTS = 64
READ_LIMIT_SECONDS = 30.0
"""How long a client that holds nothing may take for its next line: else silent ones fill MAX_CLIENTS."""

Answer = dict[str, object]
Handler = Callable[[Answer], Awaitable[Answer]]
HOLD = "hold"
"""Key of an answer after which the connection is kept; the handler's `released` is called at its end."""

log = logging.getLogger("standfastd")


class Server:
    """Answers requests with `handle`; a held connection ends with `released`."""

    def __init__(self, handle: Handler, released: Callable[[], None], path: str = SOCKET_FILE) -> None:
        self._handle = handle
        self._released = released
        self._path = Path(path)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. A socket that a dead daemon left is replaced: the lock says that we are alone."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._client, str(self._path), limit=MAX_REQUEST_BYTES
            )
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening, drop all clients and take the socket away."""
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= MAX_CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        held = False
        try:
            while line := await _line(reader, None if held else READ_LIMIT_SECONDS):
                answer = await self._answer(line)
                # Before the answer is sent: a client that is gone by now holds too, until we let go.
                held = bool(answer.pop(HOLD, False)) or held
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            # A client that went away or sent no line: nothing of it is left but what it held.
            pass
        finally:
            self._clients.discard(task)
            if held:
                self._released()
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except ValueError as error:
            return {"ok": False, "error": f"the request cannot be read: {error}", "hint": ""}
        try:
            return await self._handle(request)
        except Exception as error:
            # A defect of ours: the client gets a whole answer all the same, and the log has the rest.
            log.exception("the request %r failed", request.get("op"))
            return {
                "ok": False,
                "error": f"standfastd failed at the request {request.get('op')!r}: {error!r}",
                "hint": "journalctl -u standfastd",
            }


async def _line(reader: asyncio.StreamReader, limit_seconds: float | None) -> bytes:
    """The next line; empty at the end. Raises TimeoutError (an OSError) at the limit; None: no limit."""
    async with asyncio.timeout(limit_seconds):
        return await reader.readline()
