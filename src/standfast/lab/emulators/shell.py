"""The little shell of an emulated control domain: enough for OpenSSH, fence_ldom and our own client.

`;`, `&&`, `||`, variables before a command, `PS1=`, output to a file or to /dev/null, `$?`. No pipes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from standfast.lab.emulators.ldm import Ldm
from standfast.lab.emulators.model import Host
from standfast.lab.emulators.site import Site, User
from standfast.lab.emulators.terminal import Interrupted, Terminal

NOT_FOUND, SYNTAX, INTERRUPTED = 127, 2, 130
LDM_PATHS = ("ldm", "/usr/sbin/ldm", "/opt/SUNWldm/bin/ldm")
PREFIXES = ("exec", "pfexec", "command", "env")
IGNORED = ("set", "stty", "export", "unset", "umask", "chmod", "cd", "true", ":", "TERM")


class Logout(Exception):
    """`exit`: carries the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class ControlShell:
    """One session, interactive or for one command line."""

    def __init__(self, site: Site, host: Host, user: User, terminal: Terminal) -> None:
        self._site, self._host, self._user, self._terminal = site, host, user, terminal
        self._files = site.files.setdefault(host.name, {})
        self._ldm = Ldm(site, host, user, terminal, self._files)
        self._last = 0
        kind = "root" if user.name == "root" else "user"
        self._prompt = site.ldm_dialect.text(f"shell.prompt_{kind}", host=host.name)

    async def interact(self) -> int:
        """Prompt and commands until the session ends; answers the exit code."""
        await self._terminal.write(self._site.ldm_dialect.text("shell.banner"))
        while True:
            if noise := self._site.faults.find("noise", self._host.name, "ldm"):
                await self._terminal.write(noise.string("text"))
            await self._terminal.write(self._prompt)
            try:
                line = await self._terminal.read_line()
                if line.strip():
                    await self.run_line(line)
            except Interrupted:
                await self._terminal.write("^C\n")
            except EOFError:
                return self._last
            except Logout as logout:
                await self._terminal.write(self._site.ldm_dialect.text("shell.logout"))
                return logout.code

    async def run_line(self, line: str) -> int:
        """Runs a command line. Raises Logout, Interrupted, and what `Ldm.run` raises."""
        self._site.log.add("command", self._host.name, "ldm", user=self._user.name, line=line)
        try:
            words = _words(line)
        except ValueError:
            return await self._syntax()
        command: list[str] = []
        skip = False
        for word in [*words, ";"]:
            if word not in (";", "&&", "||"):
                command.append(word)
                continue
            if command and not skip:
                self._last = await self._run(command)
            command = []
            skip = (word == "&&" and self._last != 0) or (word == "||" and self._last == 0)
        return self._last

    async def _syntax(self) -> int:
        await self._terminal.write_error(self._site.ldm_dialect.text("shell.syntax"))
        self._last = SYNTAX
        return SYNTAX

    async def _run(self, words: list[str]) -> int:
        words, target = _redirections(words)
        if any(word and set(word) <= set(";&|<>") for word in words):
            return await self._syntax()
        while words and (_is_assignment(words[0]) or words[0] in PREFIXES):
            if words[0].startswith("PS1="):
                self._prompt = words[0].removeprefix("PS1=")
            words = words[1:]
        if not words:
            return 0
        words = [word.replace("$?", str(self._last)) for word in words]
        if words[0] in ("exit", "logout"):
            raise Logout(int(words[1]) if words[1:] and words[1].isdigit() else self._last)
        if words[0] in LDM_PATHS:
            return await self._ldm.run(words[1:])
        if words[0] in IGNORED:
            return 0
        return await self._small(words, target)

    async def _small(self, words: Sequence[str], target: str | None) -> int:
        """Commands that a client uses around ldm."""
        name, *rest = words
        plain = [word for word in rest if not word.startswith("-")]
        if name in ("echo", "printf"):
            text = " ".join(rest) + ("\n" if name == "echo" else "")
            return await self._print(text.replace("\\n", "\n") if name == "printf" else text, target)
        if name == "cat" and not plain:
            return await self._print(await self._terminal.read_rest(), target)
        if name in ("cat", "rm"):
            return await self._files_command(name, plain, "-f" in rest, target)
        known = {"hostname": self._host.name, "uname": "SunOS", "whoami": self._user.name}
        if name in known:
            return await self._print(known[name] + "\n", target)
        await self._terminal.write_error(self._site.ldm_dialect.text("shell.not_found", command=name))
        return NOT_FOUND

    async def _files_command(self, name: str, paths: Sequence[str], quiet: bool, target: str | None) -> int:
        code = 0
        for path in paths:
            if path not in self._files:
                code = 0 if quiet else 1
                if not quiet:
                    say = self._site.ldm_dialect.text("shell.no_file", command=name, path=path)
                    await self._terminal.write_error(say)
            elif name == "rm":
                del self._files[path]
            else:
                await self._print(self._files[path], target)
        return code

    async def _print(self, text: str, target: str | None) -> int:
        if target is None:
            await self._terminal.write(text)
        elif target != "/dev/null":
            self._files[target] = text
        return 0


def _words(line: str) -> list[str]:
    """Raises ValueError for an open quotation."""
    lexer = shlex.shlex(line.replace("\n", ";"), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _redirections(words: list[str]) -> tuple[list[str], str | None]:
    """Takes `> FILE`, `< FILE` and `2>&1` out; answers the file that output goes to."""
    left: list[str] = []
    target = None
    rest = iter(words)
    for word in rest:
        if word in (">", ">&", "<"):
            file_name = next(rest, "")
            number = left.pop() if left and left[-1] in ("1", "2") else "1"
            if word == ">" and number == "1":
                target = file_name
        else:
            left.append(word)
    return left, target
