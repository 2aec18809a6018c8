"""Running one command for a host, within a limit: over ssh on the host itself, or on this machine.

Questions of one host share one ssh connection, made on demand, kept, and made anew when it breaks; a
question is repeated once. A change has a connection of its own and is never repeated. The host key is always
checked; the operator's own ssh settings are never read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import asyncssh

from standfast.core.names import CONTROL_DOMAIN_KEY_FILE, KNOWN_HOSTS_FILE
from standfast.hosts.base import (
    AnswerNotUnderstood,
    HostBug,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
)

OUTPUT_LIMIT_CHARACTERS = 1_000_000
COMMANDS_AT_ONCE_LIMIT = 4  # OpenSSH serves 10 sessions a connection; leave room for people
KEEPALIVE_SECONDS = 5.0
KEEPALIVE_COUNT = 3
IDLE_KEEPALIVE_SECONDS = 30.0
"""Of the connection for questions, each of which has a limit of its own: only that no firewall forgets it."""
PASSWORD_PROMPT = "Password:"
REAP_LIMIT_SECONDS = 1.0
CIPHERS = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
"""Before all others (the sign means that; ssh_config(5), Ciphers): with asyncssh's own first choice,
chacha20-poly1305, each packet makes three ciphers, and a command costs twice the time."""


@dataclass(frozen=True)
class SshLogin:
    """How to reach one host by ssh."""

    name: str
    address: str
    user: str
    key_file: str = CONTROL_DOMAIN_KEY_FILE
    known_hosts_file: str = KNOWN_HOSTS_FILE
    port: int = 22
    connect_limit_seconds: float = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it wrote."""

    status: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """What the command said, on one line."""
        return " ".join((self.errors + " " + self.output).split()) or "no reason given"


class Shell(Protocol):
    """Runs command lines for one host. All methods raise HostError."""

    async def run(
        self,
        line: str,
        shown: str,
        limit_seconds: float,
        *,
        question: bool = False,
        password: str | None = None,
    ) -> Outcome:
        """Run one line within the limit, connecting included; `shown` names it in messages.

        A question changes nothing and may be repeated. `password` answers the first prompt for one.
        Raises HostUnreachable, with `may_have_happened` for a change that may have begun.
        """

    def lines(self, line: str, shown: str) -> AsyncGenerator[str, None]:
        """Run one line that tells events, and yield its output line by line until it ends or is cut."""

    async def close(self) -> None:
        """Drop what is kept; the next command makes it anew."""


@dataclass
class _Attempt:
    """What a running command holds: its connection, and whether it may have begun at the host."""

    connection: asyncssh.SSHClientConnection | None = None
    started: bool = False


class SshShell:
    """Commands on the host itself."""

    def __init__(self, login: SshLogin) -> None:
        self._login = login
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._slots = asyncio.Semaphore(COMMANDS_AT_ONCE_LIMIT)

    @property
    def _name(self) -> str:
        return self._login.name

    async def run(
        self,
        line: str,
        shown: str,
        limit_seconds: float,
        *,
        question: bool = False,
        password: str | None = None,
    ) -> Outcome:
        """See Shell."""
        attempt = _Attempt()
        try:
            async with asyncio.timeout(limit_seconds), self._slots:
                if question:
                    return await self._question(line, shown, attempt)
                return await self._change(line, shown, attempt, password)
        except TimeoutError:
            raise HostUnreachable(
                self._name,
                f"{shown}: no answer within {limit_seconds:g} s",
                may_have_happened=attempt.started and not question,
            ) from None
        finally:
            # A connection that let a question wait to its limit may be dead without saying so.
            self._drop(attempt.connection)

    async def lines(self, line: str, shown: str) -> AsyncGenerator[str, None]:
        """See Shell. On a connection of its own, whose keepalive finds out that it is dead.

        Without a terminal nothing tells a program on the host that its session has ended. So a `cat` waits
        for the end of the session beside it, and whichever ends first takes the other along.
        """
        connection = await self._connect()
        both = f"{{ {line}; kill 0; }} & cat >/dev/null; kill 0"
        try:
            process = await self._started(connection, f"exec sh -c {shlex.quote(both)}", None)
            async for text in process.stdout:
                yield text.rstrip("\n")
        except (asyncssh.Error, OSError) as error:
            raise HostUnreachable(self._name, f"{shown}: the session was cut: {error}") from None
        finally:
            connection.abort()

    async def close(self) -> None:
        """See Shell."""
        self._drop(self._connection)

    async def _question(self, line: str, shown: str, attempt: _Attempt) -> Outcome:
        """On the kept connection; once more on a new one where that turns out to be dead."""
        for _ in range(2):
            attempt.connection = await self._connected()
            try:
                process = await self._started(attempt.connection, line, None)
                outcome = await self._finished(process, shown, None)
            except (asyncssh.Error, OSError):
                outcome = None
            if outcome is not None:
                attempt.connection = None  # it works: keep it
                return outcome
            self._drop(attempt.connection)
        raise HostUnreachable(self._name, f"{shown}: the session was cut twice")

    async def _change(self, line: str, shown: str, attempt: _Attempt, password: str | None) -> Outcome:
        """On a connection of its own, so that no question's time limit can cut it."""
        attempt.connection = await self._connect()
        attempt.started = True
        try:
            process = await self._started(attempt.connection, line, password)
            outcome = await self._finished(process, shown, password)
        except (asyncssh.Error, OSError):
            outcome = None
        if outcome is None:
            raise HostUnreachable(
                self._name, f"{shown}: the session was cut before its end", may_have_happened=True
            )
        return outcome

    async def _started(
        self, connection: asyncssh.SSHClientConnection, line: str, password: str | None
    ) -> asyncssh.SSHClientProcess[str]:
        terminal = "dumb" if password is not None else None
        return await connection.create_process(line, term_type=terminal, encoding="utf-8", errors="replace")

    async def _finished(
        self, process: asyncssh.SSHClientProcess[str], shown: str, password: str | None
    ) -> Outcome | None:
        """The outcome, or None if the session was cut before the command told its exit status."""
        try:
            output, errors = await asyncio.gather(
                self._read(process, process.stdout, shown, password),
                self._read(process, process.stderr, shown, None),
            )
            await process.wait_closed()
        except (asyncssh.Error, OSError):
            return None
        finally:
            process.close()
        status = process.exit_status
        return None if status is None else Outcome(status, output, errors)

    async def _read(
        self,
        process: asyncssh.SSHClientProcess[str],
        stream: asyncssh.SSHReader[str],
        shown: str,
        password: str | None,
    ) -> str:
        text = ""
        while chunk := await stream.read(65536):
            text += chunk
            if len(text) > OUTPUT_LIMIT_CHARACTERS:
                raise AnswerNotUnderstood(
                    self._name, f"{shown}: more than {OUTPUT_LIMIT_CHARACTERS} characters"
                )
            if password is not None and text.rstrip().endswith(PASSWORD_PROMPT):
                process.stdin.write(password + "\n")
                password = None  # one answer: a second prompt means that it was wrong
        return text

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect(IDLE_KEEPALIVE_SECONDS)
            return self._connection

    async def _connect(self, keepalive_seconds: float = KEEPALIVE_SECONDS) -> asyncssh.SSHClientConnection:
        login = self._login
        try:
            return await asyncssh.connect(
                login.address,
                login.port,
                username=login.user,
                client_keys=[login.key_file],
                known_hosts=login.known_hosts_file,
                config=None,
                agent_path=None,
                password=None,
                preferred_auth="publickey",
                connect_timeout=login.connect_limit_seconds,
                login_timeout=login.connect_limit_seconds,
                encryption_algs=CIPHERS,
                keepalive_interval=keepalive_seconds,
                keepalive_count_max=KEEPALIVE_COUNT,
            )
        except asyncssh.HostKeyNotVerifiable:
            raise HostKeyUnknown(
                self._name,
                f"the host key of {login.address} is not the one in {login.known_hosts_file}; not logged in",
            ) from None
        except asyncssh.PermissionDenied:
            raise LoginRefused(
                self._name, f"login as {login.user} refused for the key {login.key_file}"
            ) from None
        except asyncssh.KeyImportError as error:
            raise HostBug(self._name, f"cannot use the key {login.key_file}: {error}") from None
        except (asyncssh.Error, OSError) as error:
            own_file = getattr(error, "filename", None)
            if own_file:
                raise HostBug(self._name, f"cannot read {own_file}: {error}") from None
            reason = str(error) or type(error).__name__
            raise HostUnreachable(self._name, f"no connection to {login.address}: {reason}") from None

    def _drop(self, connection: asyncssh.SSHClientConnection | None) -> None:
        if connection is not None:
            connection.abort()
            if self._connection is connection:
                self._connection = None


class LocalShell:
    """Commands on this machine, for a client program that reaches the host by itself."""

    def __init__(self, name: str) -> None:
        """`name`: the host's, for messages."""
        self._name = name
        self._slots = asyncio.Semaphore(COMMANDS_AT_ONCE_LIMIT)

    async def run(
        self,
        line: str,
        shown: str,
        limit_seconds: float,
        *,
        question: bool = False,
        password: str | None = None,
    ) -> Outcome:
        """See Shell. A command that is still running at the limit is killed, with all that it started."""
        if password is not None:
            raise HostBug(self._name, f"{shown}: no password is given to a program on this machine")
        started = False
        try:
            async with asyncio.timeout(limit_seconds), self._slots, self._process(line) as process:
                started = True
                output = await self._output(process, shown)
                return Outcome(await process.wait(), output, "")
        except TimeoutError:
            raise HostUnreachable(
                self._name,
                f"{shown}: no answer within {limit_seconds:g} s",
                may_have_happened=started and not question,
            ) from None

    async def lines(self, line: str, shown: str) -> AsyncGenerator[str, None]:
        """See Shell."""
        async with self._process(line) as process:
            assert process.stdout is not None
            try:
                async for raw in process.stdout:
                    yield raw.decode(errors="replace").rstrip("\n")
            except ValueError:
                raise AnswerNotUnderstood(self._name, f"{shown}: a line without end") from None

    async def close(self) -> None:
        """Nothing is kept."""

    async def _output(self, process: asyncio.subprocess.Process, shown: str) -> str:
        assert process.stdout is not None
        data = b""
        while chunk := await process.stdout.read(65536):
            data += chunk
            if len(data) > OUTPUT_LIMIT_CHARACTERS:
                raise AnswerNotUnderstood(
                    self._name, f"{shown}: more than {OUTPUT_LIMIT_CHARACTERS} characters"
                )
        return data.decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _process(self, line: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A shell in a process group of its own, which is gone at the end of the block."""
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise HostBug(self._name, f"no command can be run on this machine: {error}") from None
        try:
            yield process
        finally:
            # SIGKILL: on SIGINT virsh would abort the migration that it waits for.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), REAP_LIMIT_SECONDS)
