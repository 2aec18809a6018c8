"""A service processor's shell (XSCF), driven as a person would, and one kill through it.

An XSCF may not run commands given to ssh, so this drives its interactive shell. What it prints
is never proof (`core.xscf`); how it prints is data (`dialect`). Three rules keep a wrong guess
about a dialogue harmless: at most one question is answered for a command, only if the lines
above it name the domain that is meant, and anything else that waits for an answer gets "no".
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from standfast.core import xscf
from standfast.core.xscf import DomainStatus, PparStatus, Proof, Verdict
from standfast.processors import openssh
from standfast.processors.dialect import Dialect
from standfast.processors.xscf_login import RemoteShell, XscfError, XscfLogin, XscfUnreachable

OUTPUT_LIMIT_CHARACTERS = 200_000
POLL_SECONDS = 0.25
QUIET_SECONDS = 2.0
KILLS = ("panic", "sir")

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00\x07\r]")


class XscfUnexpected(XscfError):
    """The XSCF said something that the dialect does not have."""


class XscfUnreadable(XscfUnexpected):
    """A table without the row that was asked for; the shell itself is in order."""


class XscfSession:
    """One logged-in shell. One command at a time."""

    def __init__(self, remote: RemoteShell, dialect: Dialect, limit_seconds: float) -> None:
        self._remote = remote
        self._dialect = dialect
        self._limit_seconds = limit_seconds
        self._confirmed = "no"

    async def domains(self, ppar_id: int) -> tuple[DomainStatus, ...]:
        """All domains of a partition (`showdomainstatus -p`)."""
        return self._table(await self._ask(self._dialect.command("domains", ppar_id)))

    async def domain_status(self, ppar_id: int, domain: str) -> str:
        """The status of one domain. Raises XscfUnexpected where the table does not have it."""
        rows = self._table(await self._ask(self._dialect.command("domain_status", ppar_id, domain)))
        try:
            return xscf.status_of(domain, rows)
        except xscf.NotUnderstood as error:
            raise XscfUnreadable(str(error), self._confirmed) from None

    async def ppar_status(self, ppar_id: int) -> PparStatus:
        """The partition's own status (`showpparstatus -p`)."""
        text = await self._ask(self._dialect.command("ppar_status", ppar_id))
        try:
            rows = [row for row in xscf.parse_ppar_status(text) if row.ppar_id == ppar_id]
        except xscf.NotUnderstood as error:
            raise XscfUnexpected(f"{error}: {_said(text)}") from None
        if len(rows) != 1:
            raise XscfUnexpected(f"showpparstatus does not list PPAR {ppar_id}")
        return rows[0]

    async def order(self, kill: str, ppar_id: int, domain: str) -> None:
        """Give one order and confirm it. Returning proves nothing but that it was confirmed."""
        text = await self._command(self._dialect.command(kill, ppar_id, domain))
        if self._dialect.prompt.search(text):
            raise XscfUnexpected(f"the order was not taken: {_said(self._without_prompt(text))}")
        if not self._dialect.question.search(text):
            await self._decline(text)
        if not self._dialect.names(text, ppar_id, domain):
            await self._decline(text, f"its question does not name {domain} of PPAR {ppar_id}")
        self._confirmed = "maybe"
        self._write(self._dialect.yes)
        text = await self._read(self._dialect.yes)
        if not self._dialect.prompt.search(text):
            await self._decline(text, "it asks a second question")

    def _table(self, text: str) -> tuple[DomainStatus, ...]:
        try:
            return xscf.parse_domain_status(text)
        except xscf.NotUnderstood as error:
            raise XscfUnreadable(f"{error}: {_said(text)}", self._confirmed) from None

    async def _ask(self, command: str) -> str:
        """Run a command that asks nothing; its output without the prompt."""
        text = await self._command(command)
        if not self._dialect.prompt.search(text):
            await self._decline(text)
        return self._without_prompt(text)

    async def _command(self, command: str) -> str:
        self._write(command)
        text = await self._read(command)
        if not self._without_prompt(text).replace(command, "", 1).strip():
            # A prompt and nothing else: it was left over, since some terminals take one line end
            # for two. The answer comes after it.
            text = await self._read(command)
        return text

    def _without_prompt(self, text: str) -> str:
        return self._dialect.prompt.sub("", text)

    async def _decline(self, text: str, why: str = "") -> None:
        """Answer "no" to whatever waits, and end the call."""
        shown = text.strip().splitlines()[-1].strip() if text.strip() else ""
        self._write(self._dialect.no)
        reason = why or "it asks what the dialect does not have"
        raise XscfUnexpected(f"{reason} ({shown!r}); answered {self._dialect.no!r}", self._confirmed)

    def _write(self, line: str) -> None:
        try:
            self._remote.write(line + self._dialect.newline)
        except OSError:
            raise XscfUnreachable("the session was cut", self._confirmed) from None

    async def opened(self) -> None:
        """Wait for the first prompt after the login."""
        text = await self._read("the login")
        if not self._dialect.prompt.search(text):
            await self._decline(text)

    async def _read(self, after: str) -> str:
        """What arrives up to a prompt or a question, within the shell's limit."""
        text = ""
        try:
            async with asyncio.timeout(self._limit_seconds):
                while not self._answered(text):
                    chunk = await self._chunk(text)
                    if chunk is None:
                        return text
                    if not chunk:
                        raise XscfUnreachable(f"the session was cut after {after!r}", self._confirmed)
                    text += _CONTROL.sub("", chunk)
                    if len(text) > OUTPUT_LIMIT_CHARACTERS:
                        raise XscfUnexpected(f"no end of the answer to {after!r}", self._confirmed)
        except TimeoutError:
            self._write(self._dialect.no)
            shown = f": it stops at {_said(text[-80:])!r}" if text.strip() else ""
            raise XscfUnreachable(
                f"no prompt within {self._limit_seconds:g} s after {after!r}{shown}", self._confirmed
            ) from None
        except OSError:
            raise XscfUnreachable(f"the session was cut after {after!r}", self._confirmed) from None
        return text

    def _answered(self, text: str) -> bool:
        tail = text[-4000:]
        return bool(self._dialect.prompt.search(tail) or self._dialect.question.search(tail))

    async def _chunk(self, text: str) -> str | None:
        """More output; None where an unknown question waits, that is where nothing follows it."""
        if not self._dialect.unknown_question.search(text[-4000:]):
            return await self._remote.read()
        # On a slow line the known question looks like this until its last character is there.
        quiet_seconds = min(QUIET_SECONDS, self._limit_seconds / 2)
        try:
            return await asyncio.wait_for(self._remote.read(), quiet_seconds)
        except TimeoutError:
            return None

    def leave(self) -> None:
        """Log out without waiting for it."""
        try:
            self._remote.write(self._dialect.commands["logout"] + self._dialect.newline)
        except OSError:
            return


def _said(text: str) -> str:
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[:200] or "nothing"


@asynccontextmanager
async def session(login: XscfLogin, dialect: Dialect) -> AsyncIterator[XscfSession]:
    """Log in, up to the first prompt, within the login limit; log out at the end of the block."""
    login.checked()
    remote: RemoteShell | None = None
    left = False
    try:
        try:
            async with asyncio.timeout(login.login_limit_seconds):
                remote = await _opened(login)
                shell = XscfSession(remote, dialect, login.shell_limit_seconds)
                await shell.opened()
        except TimeoutError:
            raise XscfUnreachable(f"no login within {login.login_limit_seconds:g} s") from None
        yield shell
        shell.leave()
        left = True
    finally:
        if remote is not None:
            await remote.close(left)


async def _opened(login: XscfLogin) -> RemoteShell:
    """A shell, by the first way that can be gone. Raises XscfError."""
    if login.client == "auto":
        try:
            return await openssh.opened(login)
        except openssh.CannotError:
            pass  # nobody was asked
    from standfast.processors import with_asyncssh  # ten times the CPU time of ssh: only now

    return await with_asyncssh.opened(login)


async def kill(shell: XscfSession, how: str, ppar_id: int, domain: str, limit_seconds: float) -> Proof:
    """Kill one domain and look until that is proven, or until the limit after the order.

    The proof returned is PROVEN, DOUBT (no order was given) or WAIT (ordered, not proven).
    Raises XscfError, with `order_given` telling whether the order may be carried out.
    """
    try:
        proof = Proof().seen(await shell.domain_status(ppar_id, domain))
    except XscfUnreadable as error:
        proof = Proof().seen(f"no status: {error}")
    if proof.verdict is not Verdict.ORDER:
        return proof
    await shell.order(how, ppar_id, domain)
    proof = proof.ordered()
    end = time.monotonic() + limit_seconds
    while True:
        proof = await _look(shell, proof, ppar_id, domain)
        if proof.verdict is Verdict.PROVEN or time.monotonic() >= end:
            return proof
        await asyncio.sleep(POLL_SECONDS)  # the XSCF reports no changes: it has to be asked


async def _look(shell: XscfSession, proof: Proof, ppar_id: int, domain: str) -> Proof:
    try:
        return proof.seen(await shell.domain_status(ppar_id, domain))
    except XscfUnreadable:
        return proof  # one table that cannot be read proves nothing; the limit ends this
