"""The ssh servers: one endpoint for each address, which can be open, refused or silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import asyncssh

from standfast.lab.emulators.model import Host
from standfast.lab.emulators.shell import ControlShell, Logout
from standfast.lab.emulators.site import Site, User
from standfast.lab.emulators.terminal import CutOff, Interrupted, Terminal
from standfast.lab.emulators.xscf import XscfShell

LOGIN_SECONDS = 30.0
Reach = Literal["open", "refused", "silent", "down"]


class Endpoint:
    """One address of a host: an XSCF-LAN or the control domain."""

    def __init__(
        self,
        site: Site,
        host: Host,
        name: str,
        address: str,
        port: int,
        key: asyncssh.SSHKey,
        kex: Sequence[str],
    ) -> None:
        self.site, self.host, self.name, self.address, self.port = site, host, name, address, port
        self.key = key
        self.answering = asyncio.Event()
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self._kex = tuple(kex)
        self._reach: Reach | None = None
        self._listener: Any = None
        self._held: set[asyncio.StreamWriter] = set()

    @property
    def users(self) -> dict[str, User]:
        return self.site.control_users if self.name == "ldm" else self.site.xscf_users

    def wanted(self) -> Reach:
        """How the path should be now: a fault, or a control domain that does not run."""
        if dead := self.site.faults.find("path_dead", self.host.name, self.name):
            return "refused" if dead.string("mode") == "refused" else "silent"
        return "down" if self.name == "ldm" and not self.host.control_domain_up else "open"

    async def apply(self) -> None:
        """Makes the path as it should be. Idempotent."""
        wanted = self.wanted()
        if wanted == self._reach:
            return
        if wanted == "refused" or self._reach == "down":
            self._abort_connections()
        await self._close()
        self._reach = wanted
        if wanted == "open":
            self.answering.set()
            await self._listen()
        else:
            self.answering.clear()
            if wanted != "refused":
                server = await asyncio.start_server(self._hold, self.address, self.port)
                self._listener, self.port = server, server.sockets[0].getsockname()[1]

    async def _listen(self) -> None:
        options: dict[str, Any] = {"kex_algs": list(self._kex)} if self._kex else {}
        self._listener = await asyncssh.listen(
            self.address,
            self.port,
            server_factory=lambda: Login(self),
            server_host_keys=[self.key],
            process_factory=self._session,
            line_editor=False,
            encoding="utf-8",
            errors="replace",
            login_timeout=LOGIN_SECONDS,
            agent_forwarding=False,
            gss_host=None,
            **options,
        )
        self.port = self._listener.get_port()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A dead path: accepted by the network, never answered."""
        self._held.add(writer)
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            self._held.discard(writer)
            writer.close()

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in list(self._held):
            writer.close()

    def _abort_connections(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    async def shut(self) -> None:
        """Ends everything."""
        self._abort_connections()
        await self._close()

    # --- sessions ----------------------------------------------------------------------------

    async def _before_output(self) -> None:
        await self.answering.wait()
        if latency := self.site.faults.find("latency", self.host.name, self.name):
            await asyncio.sleep(latency.seconds())
            await self.answering.wait()

    async def _session(self, process: asyncssh.SSHServerProcess[str]) -> None:
        connection = process.get_extra_info("connection")
        work = asyncio.ensure_future(self._serve(process))
        gone = asyncio.ensure_future(connection.wait_closed())
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            # What was begun goes on in the world by itself, as under ldmd and the XSCF.
            work.cancel()
            return
        try:
            process.exit(work.result())
        except CutOff:
            connection.abort()
        except (asyncssh.Error, OSError):
            self.site.log.add("session-lost", self.host.name, self.name)

    async def _serve(self, process: asyncssh.SSHServerProcess[str]) -> int:
        """One session; answers its exit code."""
        user = self.users[process.get_extra_info("username")]
        find = self.site.faults.find
        newline = find("newline", self.host.name, self.name)
        echo = find("echo", self.host.name, self.name)
        terminal = Terminal(
            process,
            self._before_output,
            newline.string("text") if newline else "\r\n",
            bool(echo.params["on"]) if echo else True,
        )
        pump = asyncio.ensure_future(terminal.pump())
        try:
            if self.name == "ldm":
                return await self._control(process, user, terminal)
            return await self._xscf(process, user, terminal)
        finally:
            pump.cancel()

    async def _xscf(self, process: asyncssh.SSHServerProcess[str], user: User, terminal: Terminal) -> int:
        if process.command is not None:
            self.site.log.add("exec-refused", self.host.name, self.name, line=process.command)
            await terminal.write_error(self.site.xscf_dialect.text("session.exec_refused"))
            return 1
        await XscfShell(self.site, self.host, self.name, user, terminal).run()
        return 0

    async def _control(self, process: asyncssh.SSHServerProcess[str], user: User, terminal: Terminal) -> int:
        shell = ControlShell(self.site, self.host, user, terminal)
        if process.command is None:
            return await shell.interact()
        try:
            return await shell.run_line(process.command)
        except Logout as logout:
            return logout.code
        except (Interrupted, EOFError):
            return 130


class Login(asyncssh.SSHServer):
    """Who may come in."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._endpoint.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._endpoint.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return self._endpoint.name == "ldm"

    def _note(self, granted: bool, username: str, method: str) -> bool:
        here = self._endpoint
        if here.site.faults.find("login_refused", here.host.name, here.name):
            granted = False
        peer = self._connection.get_extra_info("peername") if self._connection else None
        event = "login" if granted else "login-refused"
        address = str(peer[0]) if peer else ""
        here.site.log.add(event, here.host.name, here.name, user=username, method=method, peer=address)
        return granted

    def validate_password(self, username: str, password: str) -> bool:
        user = self._endpoint.users.get(username)
        return self._note(user is not None and user.password == password, username, "password")

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        user = self._endpoint.users.get(username)
        known = [asyncssh.import_public_key(line) for line in user.keys] if user else []
        return self._note(key.convert_to_public() in known, username, "publickey")
