"""The second way into an XSCF: asyncssh, an ssh client that brings all old algorithms itself.

Its import alone takes ten times the CPU time of a whole `ssh`, so it is imported only where it is used.
"""

import asyncio

import asyncssh

from standfast.processors.xscf_login import (
    COLUMNS,
    LEAVE_LIMIT_SECONDS,
    ROWS,
    TERMINAL,
    XscfKeyUnknown,
    XscfLogin,
    XscfLoginRefused,
    XscfUnreachable,
)

_OPTIONS = {
    "KexAlgorithms": "kex_algs",
    "HostKeyAlgorithms": "server_host_key_algs",
    "Ciphers": "encryption_algs",
    "MACs": "mac_algs",
}


class AsyncsshShell:
    """The shell of one connection; a `RemoteShell`."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[str]
    ) -> None:
        self._connection = connection
        self._process = process

    def write(self, text: str) -> None:
        """Type. Raises OSError."""
        try:
            self._process.stdin.write(text)
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from None

    async def read(self) -> str:
        """What has arrived; empty at the end. Raises OSError."""
        try:
            return await self._process.stdout.read(4096)
        except asyncssh.Error as error:
            raise ConnectionError(str(error)) from None

    async def close(self, left: bool) -> None:
        """End the connection."""
        await _closed(self._connection)


async def opened(login: XscfLogin) -> AsyncsshShell:
    """Connect, log in and begin a shell. The caller sets the time limit, and closes it. Raises XscfError."""
    connection = await _connect(login)
    try:
        process = await connection.create_process(
            term_type=TERMINAL, term_size=(COLUMNS, ROWS), encoding="utf-8", errors="replace"
        )
    except (asyncssh.Error, OSError) as error:
        await _closed(connection)
        raise XscfUnreachable(f"no shell: {error}") from None
    except BaseException:
        await _closed(connection)
        raise
    return AsyncsshShell(connection, process)


async def _closed(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        async with asyncio.timeout(LEAVE_LIMIT_SECONDS):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


async def _connect(login: XscfLogin) -> asyncssh.SSHClientConnection:
    legacy = {_OPTIONS[option]: f"+{','.join(names)}" for option, names in login.legacy().items()}
    try:
        return await asyncssh.connect(
            login.address,
            login.port,
            username=login.user,
            password=login.password,
            known_hosts=login.known_hosts_file,
            client_keys=None,
            config=None,
            agent_path=None,
            gss_host=None,
            preferred_auth="password,keyboard-interactive",
            **legacy,
        )
    except asyncssh.HostKeyNotVerifiable:
        raise XscfKeyUnknown(f"its host key is not the one in {login.known_hosts_file}") from None
    except asyncssh.PermissionDenied:
        raise XscfLoginRefused(f"login as {login.user} refused") from None
    except (asyncssh.Error, OSError) as error:
        raise XscfUnreachable(f"no connection: {str(error) or type(error).__name__}") from None
