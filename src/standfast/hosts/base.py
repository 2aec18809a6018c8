"""The Protocol of a place where guests run, and its typed errors.

Every call has a time limit. Questions never change anything and may be repeated; a change
that ends in `HostUnreachable` with `may_have_happened` is UNKNOWN, not failed: look before the
next step.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from standfast.core.evidence import HostAnswer
from standfast.core.jobs import MigrationJob
from standfast.core.ldm import SavedConfiguration
from standfast.core.libvirt_events import HostEvent
from standfast.core.names import is_domain_name

SAVED_BY_HAND = "by hand, seen by its XSCF"
"""What `save_configuration` returns where it could only see that somebody else had saved."""


class HostError(Exception):
    """A host could not do what was asked. The text is one sentence for an operator."""

    def __init__(self, host: str, what: str, *, may_have_happened: bool = False) -> None:
        self.host = host
        self.what = what
        self.may_have_happened = may_have_happened
        super().__init__(f"{host}: {what}")


class HostUnreachable(HostError):
    """No connection, or it broke, or the time limit passed."""


class LoginRefused(HostError):
    """The host answered and does not let us in."""


class HostKeyUnknown(HostError):
    """The host's key is not the one in known_hosts, or it has none there."""


class CommandFailed(HostError):
    """The host ran the command and says no; `output` is what it said."""

    def __init__(self, host: str, what: str, *, output: str = "", may_have_happened: bool = False) -> None:
        self.output = output
        super().__init__(host, what, may_have_happened=may_have_happened)


class AnswerNotUnderstood(CommandFailed):
    """The host answered in a form that we cannot place; nothing is concluded from it."""


class MigrationRefused(CommandFailed):
    """A migration, or its dry run, was refused or failed; `reason` is the host's own."""

    def __init__(self, host: str, reason: str, *, output: str = "", may_have_happened: bool = False) -> None:
        self.reason = reason
        super().__init__(host, reason, output=output, may_have_happened=may_have_happened)


class NoRoomToSave(HostError):
    """The configuration cannot be saved without removing one that is not ours."""


class NotSavedYet(HostError):
    """Nobody can log in to save the configuration, and it is not plain that it was saved by hand."""


class MovedByHand(HostError):
    """A person does this on this host; `to_do` is what the person is to do. Nothing was done."""

    def __init__(self, host: str, what: str, to_do: str) -> None:
        self.to_do = to_do
        super().__init__(host, f"{what}: {to_do}")


class HostBug(HostError):
    """Our own mistake (a bad name, a bad setting, a wrong use): no host was asked."""


@dataclass(frozen=True)
class MigrationTarget:
    """Where to send a guest: the target host as the source host knows it.

    Without a password the hosts trust each other by certificates (`ldm migrate-domain -c`, TLS) or keys.
    """

    address: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    uri: str = ""
    """libvirt: connection of the source host to the target; empty: `qemu+ssh` to user and address."""
    postcopy: bool = False
    """libvirt: switch over after the first pass, and fetch what is left over the network while it runs."""
    migration_uri: str = ""
    """libvirt: where the memory is sent, such as ``tcp://10.20.60.73``; empty: libvirt chooses."""


Progress = Callable[[MigrationJob], None]


class Host(Protocol):
    """One host. All methods raise HostError; only `ask` turns a missing answer into SILENT."""

    @property
    def name(self) -> str:
        """The host's name in messages and evidence."""

    async def ask(self, guest: str, limit_seconds: float = 5.0) -> HostAnswer:
        """What the guest is to this host. Never raises for the host's sake: SILENT, with the reason."""

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """What each of these guests is to this host, from one listing; otherwise as `ask`."""

    async def ask_all(self, limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """One answer for each guest that this host knows."""

    async def migration_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """The migration of this guest that the host reports, or None."""

    async def memory_bytes(self, guest: str, limit_seconds: float = 5.0) -> int | None:
        """Memory of a guest that is here; None where the host does not tell, or does not know it."""

    async def list_configurations(self, limit_seconds: float = 10.0) -> tuple[SavedConfiguration, ...]:
        """The saved domain configurations."""

    async def save_configuration(
        self,
        slot_names: tuple[str, str],
        *,
        accept_post_migration: bool = True,
        guest: str = "",
        runs_here: bool = True,
        limit_seconds: float = 60.0,
    ) -> str:
        """Save the domain configuration and verify it; the name under which it is now current.

        A host that cannot save verifies that somebody did, by what it knows of `guest` since that has come
        here (`runs_here`) or has left, and raises NotSavedYet where that is not plain.
        """

    async def check_migration(self, guest: str, target: MigrationTarget, limit_seconds: float = 60.0) -> None:
        """Dry run; raises MigrationRefused. Passing promises nothing: resources are not reserved."""

    async def migrate(
        self,
        guest: str,
        target: MigrationTarget,
        progress: Progress,
        limit_seconds: float,
    ) -> None:
        """Migrate and wait for the end. At the limit the migration goes ON at the host: HostUnreachable."""

    async def cancel_migration(self, guest: str, limit_seconds: float = 600.0) -> None:
        """Cancel a running migration, and wait until the host reports it no more.

        May take minutes on `ldm` hosts: the target's memory is scrubbed.
        """

    async def stop(self, guest: str, limit_seconds: float = 60.0) -> None:
        """Stop the guest at once, without asking it."""

    async def close(self) -> None:
        """Drop the connection; the next question makes a new one."""


@runtime_checkable
class TellsEvents(Protocol):
    """A host that tells by itself when something happens to a guest."""

    def events(self) -> AsyncIterator[HostEvent]:
        """Events of all guests, for as long as the caller listens; what happens between LOST and the next
        LISTENING is not told (`core.libvirt_events`)."""


@runtime_checkable
class PacesMigration(Protocol):
    """A host on which a migration that is under way can be held and let go. All raise HostError."""

    async def copy_rate(self, guest: str) -> int:
        """MiB/s that a migration of this guest may take."""

    async def set_copy_rate(self, guest: str, mib_per_second: int) -> None:
        """At once. It stays with the guest for later migrations from this host."""

    async def set_downtime_limit(self, guest: str, milliseconds: int) -> None:
        """How long a blackout it may expect and switch over; of this migration alone."""

    async def dirty_bytes_per_second(self, guest: str) -> float | None:
        """What the guest writes of its memory in a second, measured before a migration; None: not known."""


class NamedHost(ABC):
    """What every kind of host does alike."""

    NAMED: ClassVar[str] = "the name of a guest"
    """What a name that it is given has to be, for the message."""

    @property
    @abstractmethod
    def name(self) -> str:
        """See Host."""

    @abstractmethod
    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """See Host."""

    async def ask(self, guest: str, limit_seconds: float = 5.0) -> HostAnswer:
        """See Host."""
        (answer,) = await self.ask_each((guest,), limit_seconds)
        return answer

    def _check_name(self, name: str) -> None:
        if not is_domain_name(name):
            raise HostBug(self.name, f"{name!r} cannot be {self.NAMED}")
