"""The shell of an emulated XSCF: what can be typed, who may, and what it does to the world.

A command is passed down by the position of the name (see `spconfig`), and it only issues an
instruction: its text says nothing about what came of it.
"""

from __future__ import annotations

import asyncio
import datetime
import getopt
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from standfast.lab.emulators import spconfig
from standfast.lab.emulators.faults import Fault
from standfast.lab.emulators.model import FACTORY, Host, Power, Status, WorldError
from standfast.lab.emulators.site import Site, User
from standfast.lab.emulators.terminal import CutOff, Interrupted, Terminal

MAX_QUESTIONS = 20
LOOKING = frozenset({"useradm", "platadm", "platop", "fieldeng"})
ACTING = frozenset({"platadm", "fieldeng"})


class Refused(Exception):
    """An error text of the dialect instead of the command."""

    def __init__(self, key: str, **fields: object) -> None:
        super().__init__(key)
        self.key, self.fields = key, fields


class XscfShell:
    """One login."""

    def __init__(self, site: Site, host: Host, lan: str, user: User, terminal: Terminal) -> None:
        self._site, self._host, self._lan, self._user, self._terminal = site, host, lan, user, terminal
        self._line = ""
        self._commands: dict[str, Callable[[Sequence[str]], Awaitable[None]]] = {
            "showdomainstatus": self._showdomainstatus,
            "showpparstatus": self._showpparstatus,
            "showbbstatus": self._showbbstatus,
            "showdomainconfig": self._showdomainconfig,
            "reset": self._reset,
            "poweroff": self._power,
            "poweron": self._power,
        }

    # --- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Prompt and commands until the session ends. Raises CutOff."""
        say = self._site.xscf_dialect
        await self._terminal.write(say.text("session.banner"))
        while True:
            try:
                await self._prompt()
                line = (await self._typed()).strip()
                if line in ("exit", "logout"):
                    self._log("command", line=line)
                    await self._terminal.write(say.text("session.logout"))
                    return
                if line:
                    await self._command(line)
            except Interrupted:
                await self._terminal.write("^C\n")
            except EOFError:
                return
            except TimeoutError:
                await self._terminal.write("\n" + say.text("session.autologout"))
                return

    async def _prompt(self) -> None:
        if noise := self._fault("noise"):
            await self._terminal.write(noise.string("text"))
        if slow := self._fault("slow_prompt"):
            await asyncio.sleep(slow.seconds())
        await self._terminal.write(self._site.xscf_dialect.text("session.prompt"))

    async def _typed(self) -> str:
        """One line, within the idle limit. Raises TimeoutError, EOFError, Interrupted."""
        fault = self._fault("autologout")
        limit = fault.seconds() if fault else self._site.autologout_seconds
        async with asyncio.timeout(limit):
            return await self._terminal.read_line()

    async def _command(self, line: str) -> None:
        self._line = line
        self._log("command", line=line)
        if self._site.faults.find("hang", self._host.name, self._lan, match=line):
            await asyncio.Event().wait()
        self._cut("before")
        try:
            name, *args = shlex.split(line)
            await self._dispatch(name, args)
        except Refused as refused:
            text = self._site.xscf_dialect.text(f"errors.{refused.key}", **refused.fields)
            self._log("refused", line=line, error=refused.key)
            await self._terminal.write_error(text)
        except (getopt.GetoptError, ValueError):
            self._log("refused", line=line, error="parameter")
            await self._terminal.write_error(self._site.xscf_dialect.text("errors.parameter"))
        self._cut("after")

    async def _dispatch(self, name: str, args: Sequence[str]) -> None:
        if name not in self._commands:
            raise Refused("not_found", command=name)
        if name != "showbbstatus" and self._fault("standby"):
            raise Refused("standby")
        await self._commands[name]([name, *args])

    # --- looking -----------------------------------------------------------------------------

    async def _showdomainstatus(self, argv: Sequence[str]) -> None:
        options, rest = getopt.gnu_getopt(argv[1:], "Mp:g:")
        given = dict(options)
        self._ppar(given.get("-p"), rest, LOOKING, "op")
        texts = self.status_texts()
        wanted = given.get("-g")
        if wanted is not None and wanted not in texts:
            raise Refused("no_domain", name=wanted)
        say = self._site.xscf_dialect
        rows = [
            say.text("showdomainstatus.row", name=name, status=text)
            for name, text in texts.items()
            if wanted in (None, name)
        ]
        await self._terminal.write(say.text("showdomainstatus.header") + "".join(rows))

    def status_texts(self) -> dict[str, str]:
        """Every domain that this XSCF lists, and what it says about it."""
        self._site.fresh()
        texts = status_texts(self._site, self._host)
        if frozen := self._fault("status_frozen"):
            told = frozen.params["texts"]
            texts = {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else texts
        if (other := self._fault("status_text")) and other.string("name") in texts:
            texts[other.string("name")] = other.string("text")
        return texts

    async def _showpparstatus(self, argv: Sequence[str]) -> None:
        options, rest = getopt.gnu_getopt(argv[1:], "ap:")
        given = dict(options)
        if ("-a" in given) == ("-p" in given) or rest:
            raise Refused("parameter")
        self._ppar(given.get("-p", str(self._host.ppar_id)), rest, LOOKING, "op")
        self._site.fresh()
        say = self._site.xscf_dialect
        status = say.text(f"ppar.{self._host.power.value}")
        row = say.text("showpparstatus.row", ppar=self._host.ppar_id, status=status)
        await self._terminal.write(say.text("showpparstatus.header") + row)

    async def _showbbstatus(self, argv: Sequence[str]) -> None:
        which = "standby" if self._fault("standby") else "master"
        await self._terminal.write(self._site.xscf_dialect.text(f"showbbstatus.{which}"))

    async def _showdomainconfig(self, argv: Sequence[str]) -> None:
        options, rest = getopt.gnu_getopt(argv[1:], "p:")
        self._ppar(dict(options).get("-p"), rest, LOOKING, "op")
        self._site.fresh()
        say, host = self._site.xscf_dialect, self._host
        text = say.text(
            "showdomainconfig.header", ppar=host.ppar_id, current=host.current, reserved=host.next_poweron
        )
        for index, config in enumerate(host.configs.values(), start=1):
            wall = config.saved_at + self._site.wall_offset
            stamp = datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("'%Y-%m-%d %H:%M:%S'")
            created = "-" if config.name == FACTORY else stamp
            text += say.text(
                "showdomainconfig.block",
                index=index,
                name=config.name,
                domains=len(config.domains),
                created=created,
            ).lstrip("\n")
        await self._terminal.write(text + say.text("showdomainconfig.end"))

    # --- acting ------------------------------------------------------------------------------

    async def _reset(self, argv: Sequence[str]) -> None:
        options, rest = getopt.gnu_getopt(argv[1:], "qynp:g:")
        given = dict(options)
        if len(rest) != 1:
            raise Refused("parameter")
        self._ppar(given.get("-p"), (), ACTING, "mgr")
        level, name = rest[0], given.get("-g")
        if name is None:
            if level not in ("por", "request", "xir"):
                raise Refused("parameter")
            if await self._agreed("resetppar", given):
                await self._reset_ppar()
                await self._done("resetppar")
            return
        if level not in ("panic", "sir"):
            raise Refused("parameter")
        self._site.fresh()
        if self._host.power is not Power.RUNNING:
            raise Refused("power_state", ppar=self._host.ppar_id)
        if name not in spconfig.xscf_names(self._host):
            raise Refused("no_domain", name=name)
        if await self._agreed("reset", given, name=name):
            self._hit(name, "panic" if level == "panic" else "sir")
            self._cut("acted")
            await self._done("reset", name=name)

    def _hit(self, name: str, action: Literal["panic", "sir"]) -> None:
        """What the instruction really reaches."""
        now = self._site.fresh()
        if self._fault("reset_ignored"):
            self._log("acted", asked=name, hit=None, action=action, ignored=True)
            return
        reached = spconfig.resolve(self._host, name) if name in spconfig.xscf_names(self._host) else None
        wrong = self._fault("name_map")
        if wrong and wrong.string("asked") == name:
            reached = self._host.find(wrong.string("hit"))
        worked = reached is not None and self._site.world.act(self._host.name, reached.name, action, now)
        hit = reached.name if reached is not None and worked else None
        self._log("acted", asked=name, hit=hit, action=action)
        self._site.changed()

    async def _reset_ppar(self) -> None:
        now = self._site.fresh()
        self._site.world.power_off(self._host.name, now)
        self._site.world.power_on(self._host.name, now)
        self._log("acted", asked="PPAR", hit="PPAR", action="por")
        self._site.changed()

    async def _power(self, argv: Sequence[str]) -> None:
        options, rest = getopt.gnu_getopt(argv[1:], "qynfap:")
        given = dict(options)
        verb = argv[0]
        ppar = str(self._host.ppar_id) if "-a" in given else given.get("-p")
        self._ppar(ppar, rest, ACTING, "mgr")
        self._site.fresh()
        if (self._host.power is Power.RUNNING) != (verb == "poweroff"):
            raise Refused("power_state", ppar=self._host.ppar_id)
        if not await self._agreed(verb, given):
            return
        now = self._site.fresh()
        try:
            if verb == "poweroff":
                self._site.world.power_off(self._host.name, now)
            else:
                self._site.world.power_on(self._host.name, now)
        except WorldError:
            raise Refused("power_state", ppar=self._host.ppar_id) from None
        self._log("acted", asked="PPAR", hit="PPAR", action=verb)
        self._site.changed()
        await self._done(verb)

    async def _agreed(self, verb: str, given: dict[str, str], **fields: object) -> bool:
        """The header, the question and its answer. Raises TimeoutError at the idle limit, Interrupted."""
        say = self._site.xscf_dialect
        if ("-y" in given and "-n" in given) or ("-q" in given and not {"-y", "-n"} & set(given)):
            raise Refused("parameter")
        other = self._fault("question")
        question = other.string("text") if other else say.text(f"{verb}.question")
        yes = other.string("accept") if other else "y"
        no = "no" if yes == "yes" else "n"
        quiet = "-q" in given
        if not quiet:
            await self._terminal.write(say.text(f"{verb}.header", ppar=self._host.ppar_id, **fields))
        if "-y" in given or "-n" in given:
            answer = yes if "-y" in given else no
            await self._terminal.write("" if quiet else f"{question}{answer}\n")
            return answer == yes
        for _ in range(MAX_QUESTIONS):
            await self._terminal.write(question)
            self._cut("question")
            try:
                answer = (await self._typed()).strip().lower()
            except EOFError:
                return False
            self._log("answer", line=self._line, answer=answer)
            if answer in (yes, no):
                return answer == yes
        return False

    async def _done(self, verb: str, **fields: object) -> None:
        text = self._site.xscf_dialect.text(f"{verb}.done", ppar=self._host.ppar_id, **fields)
        await self._terminal.write(text.lstrip("\n"))

    # --- small things ------------------------------------------------------------------------

    def _ppar(self, given: str | None, rest: Sequence[str], allowed: frozenset[str], level: str) -> None:
        """Checks operands, PPAR and privilege. Raises Refused."""
        if given is None or rest or not given.isdigit():
            raise Refused("parameter")
        if int(given) != self._host.ppar_id:
            raise Refused("no_ppar", ppar=given)
        own = [f"ppar{word}@{int(given)}" for word in ("adm", "mgr", "op")]
        mine = set(own if level == "op" else own[:2])
        if not (allowed | mine) & set(self._user.privileges):
            raise Refused("permission")

    def _cut(self, at: str) -> None:
        wanted = {"acted": "after"}.get(at, at)
        for fault in self._site.faults.all():
            if fault.kind != "cut" or not fault.hits(self._host.name, self._lan):
                continue
            if fault.string("at") == wanted and fault.string("match") in self._line:
                self._site.faults.find("cut", self._host.name, self._lan, match=self._line)
                self._log("cut", line=self._line, at=at)
                raise CutOff

    def _fault(self, kind: str) -> Fault | None:
        return self._site.faults.find(kind, self._host.name, self._lan)

    def _log(self, event: str, **fields: object) -> None:
        self._site.log.add(event, self._host.name, self._lan, user=self._user.name, **fields)


def status_texts(site: Site, host: Host) -> dict[str, str]:
    """What an XSCF without faults lists."""
    texts = {}
    for name in spconfig.xscf_names(host):
        status = spconfig.xscf_status(host, name) or Status.NONE
        texts[name] = site.xscf_dialect.text(f"status.{status.value}")
    return texts
