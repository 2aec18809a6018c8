"""A control domain where nobody can log in, as its XSCF shows it; implements `standfast.hosts.base.Host`.

Rules of this file:

* It only looks: the one command that is typed is `showdomainstatus`. Every change is refused before
  anybody is asked.
* The XSCF's word is that of its saved configuration. Between a migration and `ldm add-spconfig` the
  destination says `Unknown` and the source still says `Host stopped` (SPARC M12/M10 notes C120-0105,
  3.1.5), so `Unknown` proves nothing, and `Host stopped` does not tell whether the source was saved.
* An XSCF has few logins to give and is slow to give one: a shell is kept between questions for a while. Both
  LANs lead to the same XSCF; the second is tried when the first is refused, dead, or slow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from standfast.core import xscf
from standfast.core.evidence import GuestState, HostAnswer, silent
from standfast.core.jobs import MigrationJob
from standfast.core.ldm import SavedConfiguration
from standfast.core.names import KNOWN_HOSTS_FILE
from standfast.core.xscf import DomainStatus
from standfast.hosts.base import (
    SAVED_BY_HAND,
    AnswerNotUnderstood,
    CommandFailed,
    HostBug,
    HostError,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    MigrationTarget,
    NamedHost,
    NotSavedYet,
    Progress,
)
from standfast.processors import dialect
from standfast.processors.xscf import XscfSession, session
from standfast.processors.xscf_login import (
    XscfError,
    XscfKeyUnknown,
    XscfLogin,
    XscfLoginRefused,
    XscfSetting,
    XscfUnreachable,
)

LOGIN_LIMIT_SECONDS = 10.0
SHELL_LIMIT_SECONDS = 5.0
HEAD_START_SECONDS = 1.5
"""LAN#1 is tried too when LAN#0 has not let us in by then: a dead way must not use up the caller's time."""
KEPT_SECONDS = 30.0
"""A shell that nobody used for so long is left."""


@dataclass(frozen=True)
class XscfAccess:
    """The two ways to the XSCF of one control domain's partition. `why_not`: it cannot be used at all."""

    name: str
    ppar_id: int
    lan0: str
    lan1: str
    user: str = ""
    password_file: str = ""
    known_hosts_file: str = KNOWN_HOSTS_FILE
    legacy_algorithms: tuple[str, ...] = ()
    client: str = "auto"
    why_not: str = ""


@dataclass(frozen=True)
class _Shell:
    """A shell that is open, and what closes it."""

    shell: XscfSession
    stack: AsyncExitStack


class XscfHost(NamedHost):
    """One control domain, looked at through its XSCF."""

    NAMED = "a logical domain's name"

    def __init__(self, access: XscfAccess) -> None:
        self._access = access
        self._one_at_a_time = asyncio.Lock()
        self._kept: _Shell | None = None
        self._opening: asyncio.Task[_Shell] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._left: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The control domain's name in messages and evidence."""
        return self._access.name

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """The same of several guests, from one table."""
        for guest in guests:
            self._check_name(guest)
        try:
            rows = await self._rows(limit_seconds)
        except HostError as error:
            return tuple(silent(self.name, guest, error.what) for guest in guests)
        listed = {answer.guest: answer for answer in self._answers(rows)}
        return tuple(listed.get(guest) or self._answer(guest, None) for guest in guests)

    async def ask_all(self, limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """One answer for each domain that the XSCF lists, the control domain's own among them."""
        return self._answers(await self._rows(limit_seconds))

    async def save_configuration(
        self,
        slot_names: tuple[str, str],
        *,
        accept_post_migration: bool = True,
        guest: str = "",
        runs_here: bool = True,
        limit_seconds: float = 60.0,
    ) -> str:
        """Verify that somebody else saved it after `guest` came, or left; SAVED_BY_HAND.

        Where the guest runs: the XSCF shows it live. Where it has left: the XSCF does not list it any more.
        Raises NotSavedYet, with the command to type, for anything else.
        """
        self._check_name(guest)
        rows = {row.domain: row.status for row in await self._rows(limit_seconds)}
        status = rows.get(guest)
        if status is not None and xscf.is_live(status) if runs_here else status is None:
            return SAVED_BY_HAND
        shown = f"its XSCF shows {guest} as {status!r}" if status else f"its XSCF does not list {guest}"
        raise NotSavedYet(self.name, f"nobody can log in there to save it, and {shown}")

    async def migration_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """An XSCF knows nothing of migrations. Raises CommandFailed."""
        raise self._no_login("follow a migration")

    async def memory_bytes(self, guest: str, limit_seconds: float = 5.0) -> int | None:
        """None: an XSCF does not tell."""
        self._check_name(guest)
        return None

    async def list_configurations(self, limit_seconds: float = 10.0) -> tuple[SavedConfiguration, ...]:
        """Raises CommandFailed."""
        raise self._no_login("list the saved configurations")

    async def check_migration(self, guest: str, target: MigrationTarget, limit_seconds: float = 60.0) -> None:
        """Raises CommandFailed."""
        raise self._no_login("try a migration")

    async def migrate(
        self, guest: str, target: MigrationTarget, progress: Progress, limit_seconds: float
    ) -> None:
        """Raises CommandFailed."""
        raise self._no_login("migrate")

    async def cancel_migration(self, guest: str, limit_seconds: float = 600.0) -> None:
        """Raises CommandFailed."""
        raise self._no_login("cancel a migration")

    async def stop(self, guest: str, limit_seconds: float = 60.0) -> None:
        """Raises CommandFailed."""
        raise self._no_login("stop a guest")

    async def close(self) -> None:
        """Log out; the next question logs in anew."""
        if (opening := self._opening) is not None:
            opening.cancel()
            await asyncio.wait({opening})
        self._drop()
        if self._left:
            await asyncio.wait(self._left)

    def _no_login(self, what: str) -> CommandFailed:
        return CommandFailed(self.name, f"cannot {what} there: clovmmigrate.conf has no login for it")

    def _answers(self, rows: tuple[DomainStatus, ...]) -> tuple[HostAnswer, ...]:
        return tuple(self._answer(row.domain, row.status) for row in rows)

    def _answer(self, guest: str, status: str | None) -> HostAnswer:
        state = xscf.guest_state(status)
        detail = f"by its XSCF: {'not listed' if status is None else status}"
        if state is GuestState.UNKNOWN:
            detail += "; arriving, or its configuration is not saved"
        return HostAnswer(self.name, guest, state, detail)

    # -- below: one table, one shell -------------------------------------------------------

    async def _rows(self, limit_seconds: float) -> tuple[DomainStatus, ...]:
        """The table, asked for after this call began. Raises HostError."""
        if self._access.why_not:
            raise HostUnreachable(self.name, self._access.why_not)
        try:
            async with asyncio.timeout(limit_seconds), self._one_at_a_time:
                return await self._table()
        except TimeoutError:
            raise HostUnreachable(self.name, f"its XSCF gave no answer within {limit_seconds:g} s") from None
        except XscfError as error:
            raise _kind(error)(self.name, f"its XSCF: {error}") from None

    async def _table(self) -> tuple[DomainStatus, ...]:
        if self._kept is not None:
            with contextlib.suppress(XscfError):  # cut meanwhile, as idle shells are: once more, anew
                return await self._listed()
        await self._open()
        return await self._listed()

    async def _listed(self) -> tuple[DomainStatus, ...]:
        """Ask in the shell that is open; a shell in which anything went wrong is left."""
        kept = self._kept
        if kept is None:
            raise XscfUnreachable("the session was cut")
        try:
            rows = await kept.shell.domains(self._access.ppar_id)
        except BaseException:
            self._drop()
            raise
        self._keep()
        return rows

    async def _open(self) -> None:
        """Log in. A caller whose time ends leaves the login going on: the next one finds it done."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._logged_in())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and task is not None and not task.cancelling():
                raise XscfUnreachable("closed meanwhile") from None  # by `close`: nobody cancelled the caller
            raise

    def _opened(self, opening: asyncio.Task[_Shell]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._kept = opening.result()
            self._keep()

    async def _logged_in(self) -> _Shell:
        """A shell over LAN#0, or over LAN#1 where that fails or takes long. Raises HostError."""
        access = self._access
        first = asyncio.create_task(self._over(access.lan0))
        ways = {f"LAN#0 {access.lan0}": first}
        try:
            await asyncio.wait({first}, timeout=HEAD_START_SECONDS)
            if not first.done() or first.exception() is not None:
                ways[f"LAN#1 {access.lan1}"] = asyncio.create_task(self._over(access.lan1))
            async for way in _as_they_end(list(ways.values())):
                if way.exception() is None:
                    return ways.pop(next(name for name, task in ways.items() if task is way)).result()
        finally:
            for way in ways.values():
                self._give_up(way)
        errors = {name: way.exception() for name, way in ways.items()}
        said = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise _kind(next(iter(errors.values())))(self.name, f"its XSCF: {said}")

    def _give_up(self, way: asyncio.Task[_Shell]) -> None:
        """The other way was quicker: this login ends, also if it has just succeeded."""
        if not way.cancel() and not way.cancelled() and way.exception() is None:
            self._spawn(way.result().stack.aclose())

    async def _over(self, address: str) -> _Shell:
        access = self._access
        login, talk = await way_in(access, address, LOGIN_LIMIT_SECONDS)
        async with AsyncExitStack() as stack:
            shell = await stack.enter_async_context(session(login, talk))
            # An XSCF that is not in charge lets in too, and shows no table.
            await shell.domains(access.ppar_id)
            return _Shell(shell, stack.pop_all())

    def _keep(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._drop)

    def _drop(self) -> None:
        """Leave the shell without waiting for it."""
        if (kept := self._taken()) is not None:
            self._spawn(kept.stack.aclose())

    def _taken(self) -> _Shell | None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = None
        kept, self._kept = self._kept, None
        return kept

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)


async def _as_they_end(tasks: list[asyncio.Task[_Shell]]) -> AsyncIterator[asyncio.Task[_Shell]]:
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done:
                yield task


def _kind(error: BaseException | None) -> type[HostError]:
    kinds: dict[type[XscfError], type[HostError]] = {
        XscfLoginRefused: LoginRefused,
        XscfKeyUnknown: HostKeyUnknown,
        XscfSetting: HostBug,
        XscfUnreachable: HostUnreachable,
    }
    return next((kind for found, kind in kinds.items() if isinstance(error, found)), AnswerNotUnderstood)


async def way_in(access: XscfAccess, address: str, limit_seconds: float) -> tuple[XscfLogin, dialect.Dialect]:
    """What a session over one LAN needs: the login, within its limit, and how to talk. Raises XscfSetting."""
    login = XscfLogin(
        address=address,
        user=access.user,
        password=await asyncio.to_thread(_password, access.password_file),
        known_hosts_file=access.known_hosts_file,
        login_limit_seconds=limit_seconds,
        shell_limit_seconds=SHELL_LIMIT_SECONDS,
        legacy_algorithms=access.legacy_algorithms,
        client=access.client,
    )
    try:
        return login, dialect.load()
    except dialect.DialectError as error:
        raise XscfSetting(str(error)) from None


def _password(file: str) -> str:
    """First line of the file that set-up keeps for the shutdown agents. Raises XscfSetting."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise XscfSetting(f"{file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not lines or not lines[0]:
        raise XscfSetting(f"{file}: its first line is empty")
    return lines[0]
