"""Hosts with libvirt, through its own client `virsh`; implements `standfast.hosts.base.Host`.

Rules of this file:

* A URI without a host (`qemu:///system`) means: log in to the host by ssh and run `virsh` there; the node
  needs no libvirt. A URI with a host (`qemu+tls`, `qemu+ssh`; `qemu+tcp`, which has no login, is for labs)
  means: run `virsh` on this machine.
* Questions use libvirt's read-only access. Only migrate, cancel and stop ask for more.
* A migration is driven by the source's libvirtd (`--p2p`): it goes on when our session ends.
* A persistent guest takes its definition along (`--persistent --undefinesource`). One that stays behind makes
  `fence_virsh`, aimed there, answer "already off" of a guest that runs elsewhere. A transient guest stays
  transient.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.core import libvirt, libvirt_events, libvirt_needs
from standfast.core.evidence import GuestState, HostAnswer, silent
from standfast.core.jobs import MigrationJob, NotUnderstood
from standfast.core.ldm import SavedConfiguration
from standfast.core.libvirt_events import HostEvent
from standfast.core.names import is_domain_name
from standfast.hosts.asking import until_at_rest
from standfast.hosts.base import (
    AnswerNotUnderstood,
    CommandFailed,
    HostBug,
    HostError,
    HostUnreachable,
    MigrationRefused,
    MigrationTarget,
    NotSavedYet,
    Progress,
)
from standfast.hosts.libvirt_listen import listen
from standfast.hosts.libvirt_pace import PacedByVirsh
from standfast.hosts.shell import LocalShell, Outcome, Shell, SshLogin, SshShell

PROGRESS_POLL_SECONDS = 1.0
CANCEL_POLL_SECONDS = 0.2
QUESTION_LIMIT_SECONDS = 5.0
VANISHED = "no domain with matching uuid"
"""virsh had found the domain, and libvirt did not any more."""
PERSISTENT = "persistent definition"
"""What `save_configuration` returns: libvirt saves nothing else."""
GONE = "no definition left"
"""What `save_configuration` returns for a host that the guest has left."""


@dataclass(frozen=True)
class LibvirtAccess:
    """How to reach one host's libvirt. `login` is needed where the URI names no host."""

    name: str
    uri: str = libvirt.LOCAL_URI
    login: SshLogin | None = None
    program: str = "virsh"
    keep_definition: bool = False
    """Leave the definition on the source of a migration. Makes fence_virsh there lie."""


class LibvirtHost(PacedByVirsh):
    """One host with libvirt."""

    def __init__(self, access: LibvirtAccess) -> None:
        self._access = access
        self._shell: Shell = SshShell(access.login) if access.login else LocalShell(access.name)

    @property
    def name(self) -> str:
        """The host's name in messages and evidence."""
        return self._access.name

    # -- questions ---------------------------------------------------------------------------------

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """The same of several guests, from one call of virsh."""
        for guest in guests:
            self._check_name(guest)
        try:
            domains = await self._domains(guests, limit_seconds)
        except HostBug:
            raise
        except HostError as error:
            return tuple(silent(self.name, guest, error.what) for guest in guests)
        return tuple(libvirt.answer_for(self.name, guest, domains) for guest in guests)

    async def ask_all(self, limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """One answer for each domain. (Two calls: the first finds out whose job to ask for.)"""
        try:
            async with asyncio.timeout(limit_seconds):
                known = await self._domains((), limit_seconds)
                names = [domain.name for domain in known if is_domain_name(domain.name)]
                return libvirt.answers(self.name, await self._domains(names, limit_seconds))
        except TimeoutError:
            raise HostUnreachable(self.name, f"virsh: no answer within {limit_seconds:g} s") from None

    async def migration_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """The migration that this host sends, with its figures; of an incoming one libvirt tells none."""
        self._check_name(guest)
        domain = libvirt.find(guest, await self._domains((guest,), limit_seconds))
        if domain is None or not domain.active or domain.direction is libvirt.Direction.NONE:
            return None
        if domain.direction is libvirt.Direction.UNKNOWN:
            raise AnswerNotUnderstood(self.name, f"virsh domjobinfo {guest}: its answer cannot be placed")
        return domain.job or MigrationJob(guest, None, False, "", outgoing=False)

    async def completed_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """The last migration of a guest that has come to this host, with its measured downtime, or None."""
        self._check_name(guest)
        return await self._completed(self._access.uri, guest, limit_seconds)

    async def memory_bytes(self, guest: str, limit_seconds: float = 5.0) -> int | None:
        """What `virsh dominfo` calls its maximum."""
        self._check_name(guest)
        try:
            outcome = await self._checked(["dominfo", guest], limit_seconds)
        except CommandFailed:
            return None
        return libvirt_needs.maximum_memory_bytes(outcome.output)

    async def list_configurations(self, limit_seconds: float = 10.0) -> tuple[SavedConfiguration, ...]:
        """None: libvirt keeps one definition a guest, and no set of them."""
        return ()

    async def save_configuration(
        self,
        slot_names: tuple[str, str],
        *,
        accept_post_migration: bool = True,
        guest: str = "",
        runs_here: bool = True,
        limit_seconds: float = 60.0,
    ) -> str:
        """Verify that the guest would be here after a boot of the host (`runs_here`), or is not defined here.

        A guest that came by Standfast is persistent already. Raises NotSavedYet with what to type.
        """
        self._check_name(guest)
        domain = libvirt.find(guest, await self._domains((guest,), limit_seconds))
        if runs_here:
            if domain is None or not domain.active:
                raise NotSavedYet(self.name, f"{guest} does not run there")
            if domain.persistent:
                return PERSISTENT
            raise NotSavedYet(
                self.name,
                f"{guest} is transient there and is lost when it stops; type there: "
                f"virsh dumpxml --security-info --inactive {guest} > {guest}.xml && virsh define {guest}.xml",
            )
        if domain is None:
            return GONE
        if self._access.keep_definition and domain.guest_state is GuestState.STOPPED:
            return PERSISTENT
        raise NotSavedYet(
            self.name,
            f"{guest} is still defined there ({domain.shown}), so fencing there would say 'off' of a guest "
            f"that runs elsewhere; type there: virsh undefine {guest}",
        )

    # -- changes -----------------------------------------------------------------------------------

    async def check_migration(self, guest: str, target: MigrationTarget, limit_seconds: float = 60.0) -> None:
        """Dry run, which libvirt does not have: what can be known before. Raises MigrationRefused.

        The guest is here and not on its way; the target answers, has no other guest of this name or UUID and
        no running copy, has the memory and the networks, and its CPU has what the guest's has.
        """
        self._check_name(guest)
        try:
            async with asyncio.timeout(limit_seconds):
                domain = await self._movable(guest)
                uri = self._target_uri(target)
                await self._check_room(domain, uri)
                await self._check_fit(domain, uri)
        except TimeoutError:
            raise HostUnreachable(
                self.name, f"trying the migration of {guest}: no end within {limit_seconds:g} s"
            ) from None

    async def migrate(
        self, guest: str, target: MigrationTarget, progress: Progress, limit_seconds: float
    ) -> None:
        """Migrate a running guest live, a stopped one by its definition, reporting about once a second.

        The last report has `done` and the measured downtime, where the target tells it. At the limit, or
        when the session breaks, the migration goes on (HostUnreachable, `may_have_happened`).
        """
        self._check_name(guest)
        domain = await self._movable(guest)
        uri = self._target_uri(target)
        words = self._migrate_words(domain, uri, target)
        command = asyncio.create_task(self._run(words, limit_seconds, change=True, outlives=True))
        try:
            while not command.done():
                await asyncio.wait({command}, timeout=PROGRESS_POLL_SECONDS)
                if not command.done():
                    await self._report(guest, progress)
        finally:
            command.cancel()
        outcome = await command
        if outcome.status != 0:
            reason = libvirt.trouble(outcome.output) or outcome.said
            raise MigrationRefused(self.name, reason, output=outcome.output, may_have_happened=True)
        if domain.active:
            await self._report_end(uri, guest, progress)

    def _migrate_words(self, domain: libvirt.Domain, uri: str, target: MigrationTarget) -> list[str]:
        words = ["migrate", "--p2p", "--live" if domain.active else "--offline"]
        if domain.persistent:
            words += ["--persistent"] + ([] if self._access.keep_definition else ["--undefinesource"])
        if target.postcopy and domain.active:
            words += ["--postcopy", "--postcopy-after-precopy"]
        if target.migration_uri and domain.active:
            words += ["--migrateuri", target.migration_uri]
        # By its UUID: this guest, not another one that has got its name meanwhile.
        return [*words, domain.identity, uri]

    async def _report(self, guest: str, progress: Progress) -> None:
        try:
            job = await self.migration_job(guest)
        except HostError:
            return  # the next second asks again; the command itself tells the end
        if job is not None:
            progress(job)

    async def _report_end(self, uri: str, guest: str, progress: Progress) -> None:
        try:
            job = await self._completed(uri, guest, QUESTION_LIMIT_SECONDS)
        except HostError:
            return  # it has moved: a figure that is missing is no error
        if job is not None:
            progress(job)

    async def cancel_migration(self, guest: str, limit_seconds: float = 600.0) -> None:
        """`domjobabort`, on the source; ends when libvirt reports the migration no more.

        Raises CommandFailed where no migration leaves this host: a backup is a job too, and goes on.
        """
        self._check_name(guest)
        try:
            async with asyncio.timeout(limit_seconds):
                job = await self.migration_job(guest)
                if job is None or not job.outgoing or job.failed:
                    raise CommandFailed(self.name, f"no migration of {guest} from this host to cancel")
                await self._checked(["domjobabort", guest], limit_seconds, change=True)
                await until_at_rest(self, guest, CANCEL_POLL_SECONDS)
        except TimeoutError:
            raise HostUnreachable(
                self.name,
                f"virsh domjobabort {guest}: the migration is still reported after {limit_seconds:g} s",
                may_have_happened=True,
            ) from None

    async def stop(self, guest: str, limit_seconds: float = 60.0) -> None:
        """`virsh destroy`: at once, without asking the guest; on the source or on the target.

        A copy that is being received, and any transient guest, vanishes with it, which virsh may report as an
        error (seen with libvirt 9.0.0): then the host's word counts.
        """
        self._check_name(guest)
        try:
            await self._checked(["destroy", guest], limit_seconds, change=True)
        except CommandFailed as failed:
            if VANISHED not in failed.output or not (await self.ask(guest)).state.proves_not_here:
                raise

    async def close(self) -> None:
        """Drop the connection; the next question makes a new one."""
        await self._shell.close()

    # -- events ------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[HostEvent]:
        """Lifecycle and job events of all guests, for as long as the caller listens.

        See `standfast.hosts.libvirt_listen`.
        """
        async for event in listen(self._shell, f"stdbuf -oL {self._line([libvirt_events.COMMAND])}"):
            yield event

    # -- checks before a migration -----------------------------------------------------------------

    async def _movable(self, guest: str) -> libvirt.Domain:
        domain = libvirt.find(guest, await self._domains((guest,), QUESTION_LIMIT_SECONDS))
        if domain is None:
            raise MigrationRefused(self.name, f"{guest} is not on this host")
        if domain.guest_state not in (GuestState.RUNNING, GuestState.PAUSED, GuestState.STOPPED):
            raise MigrationRefused(
                self.name, f"{guest} is {domain.guest_state.value} ({domain.shown}): nothing was begun"
            )
        return domain

    def _target_uri(self, target: MigrationTarget) -> str:
        address = f"[{target.address}]" if ":" in target.address else target.address
        user = f"{target.user}@" if target.user else ""
        uri = target.uri or f"qemu+ssh://{user}{address}/system"
        for text in (uri, target.migration_uri):
            if text.startswith("-"):
                raise HostBug(self.name, f"{text!r} cannot be where to migrate to")
        return uri

    async def _check_room(self, domain: libvirt.Domain, uri: str) -> None:
        """What the target has under this name and UUID. A definition that does not run is replaced."""
        there = await self._domains_at(uri, (domain.name,))
        for other in there:
            same_name, same_identity = other.name == domain.name, other.identity == domain.identity
            if same_name and same_identity and other.active:
                raise MigrationRefused(self.name, f"{domain.name} runs on the target too ({other.shown})")
            if same_name != same_identity:
                raise MigrationRefused(
                    self.name,
                    f"the target has {other.name} with the UUID {other.identity}; this guest is "
                    f"{domain.name} with {domain.identity}",
                )

    async def _check_fit(self, domain: libvirt.Domain, uri: str) -> None:
        needs = await self._needs(domain)
        if needs.memory_kib is not None and domain.active:
            said = await self._target(uri, ["nodememstats"])
            free = libvirt_needs.free_memory_kib(said)
            if free is not None and free < needs.memory_kib:
                raise MigrationRefused(
                    self.name,
                    f"the target has {free} KiB of memory free, {domain.name} needs {needs.memory_kib} KiB",
                )
        if needs.networks:
            active = (await self._target(uri, ["net-list", "--name"])).split()
            if missing := sorted(set(needs.networks) - set(active)):
                raise MigrationRefused(
                    self.name,
                    f"the target has no active network {', '.join(missing)}, which {domain.name} uses",
                )
        if needs.compare_cpu:
            source = self._line(["dumpxml", domain.identity], limit_seconds=QUESTION_LIMIT_SECONDS)
            source = source.removesuffix(" 2>&1")
            compare = libvirt.command_line(
                uri,
                ["hypervisor-cpu-compare", "/dev/stdin", *needs.cpu_words],
                program=self._access.program,
                limit_seconds=QUESTION_LIMIT_SECONDS,
            )
            outcome = await self._shell.run(
                f"{source} | {compare}", "virsh hypervisor-cpu-compare", QUESTION_LIMIT_SECONDS, question=True
            )
            if "is incompatible with" in outcome.output:
                raise MigrationRefused(
                    self.name, f"the target's CPU lacks what {domain.name} uses", output=outcome.output
                )

    async def _needs(self, domain: libvirt.Domain) -> libvirt_needs.Needs:
        outcome = await self._checked(["dumpxml", domain.identity], QUESTION_LIMIT_SECONDS)
        try:
            return libvirt_needs.needs(ET.fromstring(outcome.output))
        except (ET.ParseError, NotUnderstood) as error:
            raise AnswerNotUnderstood(self.name, f"virsh dumpxml {domain.name}: {error}") from None

    async def _target(self, uri: str, words: list[str]) -> str:
        """What the target says, asked from where the migration would start. Raises MigrationRefused."""
        line = libvirt.command_line(
            uri, words, program=self._access.program, limit_seconds=QUESTION_LIMIT_SECONDS
        )
        outcome = await self._shell.run(line, f"virsh {words[0]}", QUESTION_LIMIT_SECONDS, question=True)
        if outcome.status != 0:
            reason = libvirt.trouble(outcome.output) or outcome.said
            raise MigrationRefused(self.name, f"the target {uri}: {reason}", output=outcome.output)
        return outcome.output

    async def _domains_at(self, uri: str, guests: Sequence[str]) -> tuple[libvirt.Domain, ...]:
        said = await self._target(uri, [libvirt.question(guests)])
        try:
            return libvirt.parse_answer(said)
        except NotUnderstood as error:
            raise MigrationRefused(self.name, f"the target {uri}: {error}", output=said) from None

    # -- below: one call of virsh ------------------------------------------------------------------

    async def _domains(self, guests: Sequence[str], limit_seconds: float) -> tuple[libvirt.Domain, ...]:
        line = self._line([libvirt.question(guests)], limit_seconds=limit_seconds)
        outcome = await self._shell.run(line, "virsh list", limit_seconds, question=True)
        if outcome.status != 0:
            reason = libvirt.trouble(outcome.output) or outcome.said
            raise CommandFailed(self.name, f"virsh: {reason}", output=outcome.output)
        try:
            return libvirt.parse_answer(outcome.output)
        except NotUnderstood as error:
            raise AnswerNotUnderstood(self.name, str(error), output=outcome.output) from None

    async def _completed(self, uri: str, guest: str, limit_seconds: float) -> MigrationJob | None:
        words = ["domjobinfo", "--completed", "--keep-completed", "--rawstats", guest]
        line = libvirt.command_line(uri, words, program=self._access.program, limit_seconds=limit_seconds)
        outcome = await self._shell.run(line, "virsh domjobinfo", limit_seconds, question=True)
        if outcome.status != 0:
            reason = libvirt.trouble(outcome.output) or outcome.said
            raise CommandFailed(self.name, f"virsh domjobinfo --completed {guest}: {reason}")
        try:
            return libvirt.parse_job(guest, outcome.output)[1]
        except NotUnderstood as error:
            raise AnswerNotUnderstood(self.name, str(error), output=outcome.output) from None

    async def _checked(self, words: list[str], limit_seconds: float, *, change: bool = False) -> Outcome:
        outcome = await self._run(words, limit_seconds, change=change)
        if outcome.status != 0:
            reason = libvirt.trouble(outcome.output) or outcome.said
            raise CommandFailed(self.name, f"virsh {' '.join(words)}: {reason}", output=outcome.output)
        return outcome

    async def _run(
        self, words: list[str], limit_seconds: float, *, change: bool = False, outlives: bool = False
    ) -> Outcome:
        """`outlives`: what waits at the host for the end may wait for longer than we do."""
        line = self._line(words, change=change, limit_seconds=None if outlives else limit_seconds)
        return await self._shell.run(line, f"virsh {shlex.join(words)}", limit_seconds, question=not change)

    def _line(self, words: Sequence[str], *, change: bool = False, limit_seconds: float | None = None) -> str:
        return libvirt.command_line(
            self._access.uri,
            words,
            program=self._access.program,
            change=change,
            limit_seconds=limit_seconds,
        )
