"""`ldm` on an emulated control domain.

Sources: ldm(8) synopsis 3.0 (E29667) and Oracle VM Server for SPARC administration guides 3.3 to 3.5.
"""

from __future__ import annotations

import asyncio
import getopt
from collections.abc import Awaitable, Callable, Mapping, Sequence

from standfast.lab.emulators import ldmlist, migration, spconfig
from standfast.lab.emulators.model import Host, Migration, Phase, WorldError
from standfast.lab.emulators.site import Site, User
from standfast.lab.emulators.terminal import CutOff, Interrupted, Terminal

LONGEST_COMMAND_SECONDS = 24 * 3600.0

ALIASES: Mapping[str, str] = {
    "list": "list-domain",
    "ls": "list-domain",
    "ls-dom": "list-domain",
    "migrate": "migrate-domain",
    "stop": "stop-domain",
    "start": "start-domain",
    "panic": "panic-domain",
    "bind": "bind-domain",
    "unbind": "unbind-domain",
    "add-config": "add-spconfig",
    "list-config": "list-spconfig",
    "ls-spconfig": "list-spconfig",
    "ls-config": "list-spconfig",
    "rm-spconfig": "remove-spconfig",
    "remove-config": "remove-spconfig",
    "set-config": "set-spconfig",
    "cancel-op": "cancel-operation",
}
READING = frozenset({"list-domain", "list-spconfig"})


class Usage(Exception):
    """Wrong options or operands."""


class Ldm:
    """The command, for one session."""

    def __init__(
        self, site: Site, host: Host, user: User, terminal: Terminal, files: Mapping[str, str]
    ) -> None:
        self._site, self._host, self._user, self._terminal, self._files = site, host, user, terminal, files
        self._say = site.ldm_dialect
        self._commands: dict[str, Callable[[Sequence[str]], Awaitable[int]]] = {
            "list-domain": self._list_domain,
            "migrate-domain": self._migrate,
            "cancel-operation": self._cancel,
            "stop-domain": self._stop,
            "start-domain": self._start,
            "panic-domain": self._panic,
            "bind-domain": self._bind,
            "unbind-domain": self._bind,
            "add-spconfig": self._spconfig,
            "remove-spconfig": self._spconfig,
            "set-spconfig": self._spconfig,
            "list-spconfig": self._list_spconfig,
        }

    async def run(self, argv: Sequence[str]) -> int:
        """Runs `ldm` with these arguments; answers its exit code. Raises CutOff, Interrupted."""
        line = " ".join(argv)
        self._cut("before", line)
        await self._wait_for_ldmd(line)
        name = ALIASES.get(argv[0], argv[0]) if argv else "list-domain"
        try:
            if name not in self._commands:
                await self._terminal.write_error(self._say.text("errors.unknown_command", command=name))
                return 1
            if self._site.faults.find("ldmd_down", self._host.name, "ldm"):
                raise WorldError("ldmd")
            if name not in READING and not self._user.writes:
                raise WorldError("permission")
            code = await self._commands[name]([name, *argv[1:]])
        except WorldError as error:
            await self._terminal.write_error(self._error(error))
            code = 1
        except (Usage, getopt.GetoptError):
            await self._terminal.write_error(self._say.text("errors.usage", command=name))
            code = 1
        self._cut("after", line)
        return code

    async def _wait_for_ldmd(self, line: str) -> None:
        """ldm hangs while memory is scrubbed after a cancel, or because a fault wants it."""
        faults, host = self._site.faults, self._host
        if faults.find("hang", host.name, "ldm", match=line):
            await asyncio.Event().wait()
        rest = host.ldm_hangs_until - self._site.fresh()
        if rest > 0:
            await asyncio.sleep(rest)

    def _error(self, error: WorldError) -> str:
        return self._say.text(f"errors.{error.code}", **error.fields)

    def _cut(self, at: str, line: str) -> None:
        for fault in self._site.faults.all():
            if fault.kind == "cut" and fault.hits(self._host.name, "ldm") and fault.string("at") == at:
                if fault.string("match") not in line:
                    continue
                self._site.faults.find("cut", self._host.name, "ldm", match=line)
                raise CutOff

    # --- looking -----------------------------------------------------------------------------

    async def _list_domain(self, argv: Sequence[str]) -> int:
        options, names = getopt.gnu_getopt(argv[1:], "elo:pS")
        given = dict(options)
        now = self._site.fresh()
        domains = [self._site.world.domain(self._host.name, name) for name in names]
        if not names:
            first = [domain for domain in self._host.domains if domain.control]
            rest = [domain for domain in self._host.domains if not domain.control]
            domains = first + sorted(rest, key=lambda domain: domain.name)
        lister = ldmlist.Lister(self._site.world, self._host, self._say, self._site.xscf_dialect, now)
        machine = "-p" in given
        if "-o" in given:
            if given["-o"] not in ("status", "domain"):
                raise Usage
            if given["-o"] == "status":
                await self._terminal.write(lister.status(domains, machine))
                return 0
        long = "-l" in given or "-e" in given
        await self._terminal.write(lister.table(domains, machine, long))
        return 0

    async def _list_spconfig(self, argv: Sequence[str]) -> int:
        _, rest = getopt.gnu_getopt(argv[1:], "r:p")
        if rest:
            raise Usage
        self._site.fresh()
        text = ""
        for name in self._host.configs:
            suffix = ""
            if name == self._host.current:
                suffix = self._say.text("spconfig.current")
                suffix += self._say.text("spconfig.degraded") if self._host.degraded else ""
            elif name == self._host.next_poweron:
                suffix = self._say.text("spconfig.next")
            text += self._say.text("spconfig.row", name=name, suffix=suffix)
        await self._terminal.write(text)
        return 0

    # --- guests ------------------------------------------------------------------------------

    async def _stop(self, argv: Sequence[str]) -> int:
        options, names = getopt.gnu_getopt(argv[1:], "fqarnt:m:")
        given = dict(options)
        name = _one(names)
        now = self._site.fresh()
        self._site.world.stop(self._host.name, name, now, force="-f" in given)
        self._log("acted", asked=name, hit=name, action="stop")
        self._site.changed()
        await self._site.until(lambda: not self._alive(name))
        await self._terminal.write(self._say.text("done.stopped", name=name))
        return 0

    def _alive(self, name: str) -> bool:
        domain = self._host.find(name)
        return domain is not None and domain.alive

    async def _start(self, argv: Sequence[str]) -> int:
        _, names = getopt.gnu_getopt(argv[1:], "f:m")
        name = _one(names)
        self._site.world.start(self._host.name, name, self._site.fresh())
        self._log("acted", asked=name, hit=name, action="start")
        self._site.changed()
        await self._terminal.write(self._say.text("done.started", name=name))
        return 0

    async def _panic(self, argv: Sequence[str]) -> int:
        name = _one(argv[1:])
        now = self._site.fresh()
        if not self._site.world.act(self._host.name, name, "panic", now):
            raise WorldError("not-active", name=name)
        self._log("acted", asked=name, hit=name, action="panic")
        self._site.changed()
        return 0

    async def _bind(self, argv: Sequence[str]) -> int:
        name = _one(argv[1:])
        self._site.fresh()
        if argv[0] == "bind-domain":
            self._site.world.bind(self._host.name, name)
        else:
            self._site.world.unbind(self._host.name, name)
        self._site.changed()
        return 0

    async def _spconfig(self, argv: Sequence[str]) -> int:
        _, names = getopt.gnu_getopt(argv[1:], "r:")
        name = _one(names)
        now = self._site.fresh()
        if argv[0] == "add-spconfig":
            spconfig.save(self._host, name, now)
        elif argv[0] == "remove-spconfig":
            spconfig.remove(self._host, name)
        else:
            spconfig.select(self._host, name)
        self._log("acted", asked=name, hit=name, action=argv[0])
        return 0

    # --- migration ---------------------------------------------------------------------------

    async def _cancel(self, argv: Sequence[str]) -> int:
        if len(argv) != 3 or argv[1] not in ("migration", "migr"):
            raise Usage
        migration.cancel(self._site.world, self._host.name, argv[2], self._site.fresh())
        self._log("acted", asked=argv[2], hit=argv[2], action="cancel")
        self._site.changed()
        await self._wait_for_ldmd("")
        return 0

    async def _migrate(self, argv: Sequence[str]) -> int:
        options, operands = getopt.gnu_getopt(argv[1:], "fncsp:")
        given = dict(options)
        if len(operands) != 2:
            raise Usage
        name, where = operands
        user, _, rest = where.rpartition("@")
        address, _, renamed = rest.partition(":")
        if renamed not in ("", name):
            raise Usage
        target = self._site.addresses.get(address, address)
        dry, save = "-n" in given, "-s" in given
        now = self._site.fresh()
        try:
            # The password is asked for before the target says anything.
            self._site.world.domain(self._host.name, name)
            if "-c" not in given and not await self._password(user, given.get("-p"), address):
                raise WorldError("bad-password", target=address)
            now = self._site.fresh()
            self._refusals(name, target, dry, save)
            if dry:
                return 0
            running = migration.start(self._site.world, name, self._host.name, target, now, save=save)
        except WorldError as error:
            text = (
                self._say.text("migrate.bad_password", **error.fields)
                if error.code == "bad-password"
                else self._error(error)
            )
            last = self._say.text("migrate.would_fail" if dry else "migrate.failed", name=name)
            await self._terminal.write_error(text + last)
            return 1
        self._log("acted", asked=name, hit=name, action="migrate", target=target)
        self._site.changed()
        return await self._follow(running)

    def _refusals(self, name: str, target: str, dry: bool, save: bool) -> None:
        fault = self._site.faults.find("migration_refused", self._host.name, "ldm")
        if fault and (fault.params["dry"] or not dry):
            raise WorldError("injected", text=fault.string("text"))
        why = migration.obstacle(self._site.world, name, self._host.name, target, save)
        if why is not None:
            raise why

    async def _password(self, user: str, file_name: str | None, address: str) -> bool:
        """Asks for, or reads, the target's password. A terminal is needed to ask."""
        account = self._site.control_users.get(user or self._user.name)
        if file_name is not None:
            given = self._files.get(file_name, "").split("\n")[0]
        elif self._terminal.has_pty:
            await self._terminal.write(self._say.text("migrate.password"))
            given = await self._terminal.read_line(echo=False)
        else:
            return False
        return account is not None and given == account.password

    async def _follow(self, running: Migration) -> int:
        """Waits for the end. Ctrl-C cancels, a lost session does not: ldmd does the work."""
        ended = (Phase.DONE, Phase.FAILED, Phase.LOST)
        waiting = asyncio.ensure_future(self._site.until(lambda: running.phase in ended))
        broken = asyncio.ensure_future(self._terminal.interrupted.wait())
        try:
            await asyncio.wait(
                (waiting, broken), timeout=LONGEST_COMMAND_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
            broken.cancel()
        if running.phase is Phase.DONE:
            return 0
        if running.phase not in ended:
            migration.cancel(self._site.world, self._host.name, running.name, self._site.fresh())
            self._site.changed()
            self._terminal.interrupted.clear()
            raise Interrupted
        key = "cancelled" if running.reason == "cancelled" else "failed"
        await self._terminal.write_error(self._say.text(f"migrate.{key}", name=running.name))
        return 1

    def _log(self, event: str, **fields: object) -> None:
        self._site.log.add(event, self._host.name, "ldm", user=self._user.name, **fields)


def _one(names: Sequence[str]) -> str:
    if len(names) != 1:
        raise Usage
    return names[0]
