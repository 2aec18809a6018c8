"""Control domains of Oracle VM Server for SPARC: `ldm` over ssh.

How commands are run: `standfast.hosts.shell`.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from standfast.core import ldm
from standfast.core.evidence import HostAnswer, silent
from standfast.core.jobs import MigrationJob, NotUnderstood
from standfast.core.ldm import SavedConfiguration
from standfast.hosts.asking import until_at_rest
from standfast.hosts.base import (
    AnswerNotUnderstood,
    CommandFailed,
    HostBug,
    HostError,
    HostUnreachable,
    MigrationRefused,
    MigrationTarget,
    NamedHost,
    NoRoomToSave,
    Progress,
)
from standfast.hosts.shell import Outcome, SshLogin, SshShell

PROGRESS_POLL_SECONDS = 1.0
CANCEL_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class ControlDomainLogin(SshLogin):
    """How to reach one control domain. `program` is a word or an absolute path."""

    program: str = "ldm"


class LdmHost(NamedHost):
    """One control domain; implements `standfast.hosts.base.Host`."""

    NAMED = "the name of a logical domain or configuration"

    def __init__(self, login: ControlDomainLogin) -> None:
        self._login = login
        self._shell = SshShell(login)

    @property
    def name(self) -> str:
        """The control domain's name in messages and evidence."""
        return self._login.name

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """The same of several guests, from one listing."""
        for guest in guests:
            self._check_name(guest)
        try:
            domains = await self._domains(limit_seconds)
        except HostBug:
            raise
        except HostError as error:
            return tuple(silent(self.name, guest, error.what) for guest in guests)
        return tuple(ldm.answer_for(self.name, guest, domains) for guest in guests)

    async def ask_all(self, limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """One answer for each guest of this control domain."""
        return ldm.answers(self.name, await self._domains(limit_seconds))

    async def migration_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """The migration that `ldm list-domain -o status` reports; None also if the guest is not here."""
        self._check_name(guest)
        outcome = await self._run(["list-domain", "-o", "status", "-p", guest], limit_seconds, question=True)
        if outcome.status != 0 and not outcome.output.strip():
            # "not found" has no documented wording: the whole listing says it for certain.
            if (await self.ask(guest, limit_seconds)).state.proves_not_here:
                return None
            raise CommandFailed(self.name, f"ldm list-domain -o status: {outcome.said}")
        with self._understanding():
            return ldm.parse_job(guest, outcome.output)

    async def memory_bytes(self, guest: str, limit_seconds: float = 5.0) -> int | None:
        """What `ldm list-domain -p` has as `mem`."""
        self._check_name(guest)
        domains = await self._domains(limit_seconds)
        return next((domain.memory_bytes for domain in domains if domain.name == guest), None)

    async def list_configurations(self, limit_seconds: float = 10.0) -> tuple[SavedConfiguration, ...]:
        """The saved domain configurations."""
        outcome = await self._checked(["list-spconfig"], limit_seconds, question=True)
        with self._understanding():
            return ldm.parse_configurations(outcome.output)

    async def save_configuration(
        self,
        slot_names: tuple[str, str],
        *,
        accept_post_migration: bool = True,
        guest: str = "",
        runs_here: bool = True,
        limit_seconds: float = 60.0,
    ) -> str:
        """Save under the slot that is not current and verify it; the name that is now current.

        Removes at most that one slot, and nothing else. Raises NoRoomToSave before any change.
        """
        for slot in slot_names:
            self._check_name(slot)
        try:
            plan = ldm.plan_save(await self.list_configurations(), slot_names, accept_post_migration)
        except ldm.NoRoom as full:
            raise NoRoomToSave(
                self.name, f"domain configuration not saved, nothing removed: {full}"
            ) from None
        if plan.save_as is None:
            return plan.already
        if plan.remove_first is not None:
            await self._checked(["remove-spconfig", plan.remove_first], limit_seconds)
        await self._checked(["add-spconfig", plan.save_as], limit_seconds)
        now = {configuration.name: configuration for configuration in await self.list_configurations()}
        if plan.save_as not in now or not now[plan.save_as].current:
            raise CommandFailed(
                self.name,
                f"ldm add-spconfig {plan.save_as} was accepted, but list-spconfig does not call it [current]",
                may_have_happened=True,
            )
        return plan.save_as

    async def check_migration(self, guest: str, target: MigrationTarget, limit_seconds: float = 60.0) -> None:
        """Dry run (`migrate-domain -n`); raises MigrationRefused with the host's reason."""
        outcome = await self._run(self._migrate_words(guest, target, dry=True), limit_seconds, answer=target)
        if outcome.status != 0:
            text = outcome.errors + "\n" + outcome.output
            raise MigrationRefused(self.name, ldm.migration_refusal(text), output=text)

    async def migrate(
        self, guest: str, target: MigrationTarget, progress: Progress, limit_seconds: float
    ) -> None:
        """Migrate, reporting progress about once a second.

        Losing the shell does not stop a migration (ldm(8)): at the limit, or when the connection
        breaks, HostUnreachable says `may_have_happened`, and both hosts have to be asked.
        """
        command = asyncio.create_task(
            self._run(self._migrate_words(guest, target), limit_seconds, answer=target)
        )
        try:
            while not command.done():
                await asyncio.wait({command}, timeout=PROGRESS_POLL_SECONDS)
                if not command.done():
                    await self._report(guest, progress)
        finally:
            command.cancel()
        outcome = await command
        if outcome.status != 0:
            text = outcome.errors + "\n" + outcome.output
            raise MigrationRefused(
                self.name, ldm.migration_refusal(text), output=text, may_have_happened=True
            )

    async def _report(self, guest: str, progress: Progress) -> None:
        try:
            job = await self.migration_job(guest)
        except HostError:
            return  # the next second asks again; the command itself tells the end
        if job is not None:
            progress(job)

    def _migrate_words(self, guest: str, target: MigrationTarget, dry: bool = False) -> list[str]:
        self._check_name(guest)
        address = f"{target.user}@{target.address}" if target.user else target.address
        if address.startswith("-"):
            raise HostBug(self.name, f"{address!r} cannot be a migration target")
        words = ["migrate-domain"] + (["-n"] if dry else []) + (["-c"] if target.password is None else [])
        return [*words, guest, address]

    async def cancel_migration(self, guest: str, limit_seconds: float = 600.0) -> None:
        """`ldm cancel-operation migration`; ends when the host answers again and reports no migration.

        `ldm` hangs on both hosts, for up to 7 minutes, while the target's memory is scrubbed: at the limit
        the cancel goes on (HostUnreachable, `may_have_happened`).
        """
        self._check_name(guest)
        try:
            async with asyncio.timeout(limit_seconds):
                await self._checked(["cancel-operation", "migration", guest], limit_seconds)
                await until_at_rest(self, guest, CANCEL_POLL_SECONDS)
        except TimeoutError:
            raise HostUnreachable(
                self.name,
                f"ldm cancel-operation migration {guest}: the host does not answer again within "
                f"{limit_seconds:g} s",
                may_have_happened=True,
            ) from None

    async def stop(self, guest: str, limit_seconds: float = 60.0) -> None:
        """`ldm stop-domain -f`: at once, without asking the guest."""
        self._check_name(guest)
        await self._checked(["stop-domain", "-f", guest], limit_seconds)

    async def close(self) -> None:
        """Drop the connection; the next question makes a new one."""
        await self._shell.close()

    # -- below: one command ----------------------------------------------------------------

    async def _domains(self, limit_seconds: float) -> tuple[ldm.Domain, ...]:
        # Always the whole list: that one domain is not in it is then evidence, not an error text.
        outcome = await self._checked(["list-domain", "-p"], limit_seconds, question=True)
        with self._understanding():
            return ldm.parse_domains(outcome.output)

    async def _checked(self, words: list[str], limit_seconds: float, question: bool = False) -> Outcome:
        outcome = await self._run(words, limit_seconds, question=question)
        if outcome.status != 0:
            raise CommandFailed(self.name, f"ldm {' '.join(words)}: {outcome.said}", output=outcome.output)
        return outcome

    async def _run(
        self,
        words: list[str],
        limit_seconds: float,
        *,
        question: bool = False,
        answer: MigrationTarget | None = None,
    ) -> Outcome:
        """Run one `ldm` command within the limit, connecting included."""
        line = shlex.join([self._login.program, *words])
        password = answer.password if answer is not None else None
        shown = f"ldm {' '.join(words)}"
        return await self._shell.run(line, shown, limit_seconds, question=question, password=password)

    def _understanding(self) -> "_Understanding":
        return _Understanding(self.name)


class _Understanding:
    """Turns NotUnderstood of the pure parsers into AnswerNotUnderstood of this host."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotUnderstood):
            raise AnswerNotUnderstood(self._host, str(error)) from None


@asynccontextmanager
async def opened(login: ControlDomainLogin) -> AsyncIterator[LdmHost]:
    """A host for a short program: closed at the end of the block."""
    host = LdmHost(login)
    try:
        yield host
    finally:
        await host.close()
