"""The terminal of an emulated session.

asyncssh's own line editor is no faithful terminal: it redraws character by character and takes CR LF as
two lines, which throws fence_ldom out of step. So servers run with `line_editor=False`, and this is the
tty discipline: CR, LF and CR LF each end one line, input is echoed as it is consumed, Ctrl-C interrupts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

MAX_TYPED_AHEAD = 1 << 20


class Interrupted(Exception):
    """Ctrl-C."""


class CutOff(Exception):
    """A fault wants the connection gone at this point."""


class Terminal:
    """One session's input and output.

    Args:
        process: the asyncssh process of the session.
        newline: what "\\n" becomes on output where there is a pty.
        echo: whether typed characters come back where there is a pty.
        before_output: awaited before every piece of output (latency, dead paths).
    """

    def __init__(
        self,
        process: asyncssh.SSHServerProcess[str],
        before_output: Callable[[], Awaitable[None]],
        newline: str = "\r\n",
        echo: bool = True,
    ) -> None:
        self._process = process
        self._before_output = before_output
        self.has_pty = process.get_terminal_type() is not None
        self._newline = newline if self.has_pty else "\n"
        self._echo = echo and self.has_pty
        self._typed: deque[str] = deque()
        self._pending_echo = ""
        self._more = asyncio.Event()
        self._eof = False
        self._after_cr = False
        self.interrupted = asyncio.Event()

    async def pump(self) -> None:
        """Reads what the client sends, until it ends. Runs beside the session."""
        stdin: Any = self._process.stdin
        while True:
            try:
                data = await stdin.read(4096)
            except asyncssh.TerminalSizeChanged:
                continue
            except (asyncssh.BreakReceived, asyncssh.SignalReceived):
                data = "\x03"
            except (asyncssh.Error, OSError):
                data = ""
            if not data or len(self._typed) > MAX_TYPED_AHEAD:
                self._eof = True
                self._more.set()
                return
            if self.has_pty and "\x03" in data:
                self._typed.clear()
                data = data[data.rindex("\x03") + 1 :]
                self.interrupted.set()
            self._typed.extend(data)
            self._more.set()

    async def _key(self) -> str:
        if not self._typed:
            await self._flush_echo()
        while not self._typed:
            if self.interrupted.is_set():
                self.interrupted.clear()
                raise Interrupted
            if self._eof:
                raise EOFError
            self._more.clear()
            await self._more.wait()
        return self._typed.popleft()

    async def _flush_echo(self) -> None:
        pending, self._pending_echo = self._pending_echo, ""
        await self.write(pending)

    async def read_line(self, echo: bool = True) -> str:
        """One typed line. Raises EOFError at the end of input, Interrupted on Ctrl-C.

        What arrived together is echoed together: fence_ldom takes `PS1='[PEXPECT]` for a prompt when
        the closing quote comes in a packet of its own.
        """
        line = ""
        while True:
            key = await self._key()
            if key == "\n" and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = key == "\r"
            if key in "\r\n":
                self._pending_echo += "\n" if self._echo else ""
                await self._flush_echo()
                return line
            shown = self._echo and echo
            if self.has_pty and key == "\x04":
                if not line:
                    raise EOFError
            elif self.has_pty and key in "\x7f\b":
                self._pending_echo += "\b \b" if line and shown else ""
                line = line[:-1]
            else:
                line += key
                self._pending_echo += key if shown else ""

    async def read_rest(self) -> str:
        """Everything up to the end of input."""
        rest = ""
        while True:
            try:
                rest += await self._key()
            except EOFError:
                return rest

    async def write(self, text: str) -> None:
        if text:
            await self._before_output()
            self._process.stdout.write(text.replace("\n", self._newline))

    async def write_error(self, text: str) -> None:
        """To standard error, which on a pty is the same."""
        if self.has_pty:
            await self.write(text)
        elif text:
            await self._before_output()
            self._process.stderr.write(text)
