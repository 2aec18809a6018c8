"""A host that Standfast cannot ask: a person moves the guests and says so; implements `Host`.

Nobody is asked and nothing is changed. Every answer is SILENT, which proves nothing in either direction, so
no decision that needs a host's word is taken without a person.
"""

from __future__ import annotations

from collections.abc import Sequence

from standfast.core.evidence import HostAnswer, silent
from standfast.core.jobs import MigrationJob
from standfast.core.ldm import SavedConfiguration
from standfast.hosts.base import (
    HostUnreachable,
    MigrationTarget,
    MovedByHand,
    NamedHost,
    NotSavedYet,
    Progress,
)

WHY_SILENT = "by hand: nobody asks this host"


class ManualHost(NamedHost):
    """One host of kind manual."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """The host's name in messages and evidence."""
        return self._name

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """SILENT, for each."""
        for guest in guests:
            self._check_name(guest)
        return tuple(silent(self.name, guest, WHY_SILENT) for guest in guests)

    async def ask_all(self, limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        """Raises HostUnreachable: that it has no guests is not known either."""
        raise HostUnreachable(self.name, WHY_SILENT)

    async def migration_job(self, guest: str, limit_seconds: float = 5.0) -> MigrationJob | None:
        """Raises HostUnreachable: that there is no migration is not known."""
        self._check_name(guest)
        raise HostUnreachable(self.name, WHY_SILENT)

    async def memory_bytes(self, guest: str, limit_seconds: float = 5.0) -> int | None:
        """None."""
        self._check_name(guest)
        return None

    async def list_configurations(self, limit_seconds: float = 10.0) -> tuple[SavedConfiguration, ...]:
        """Raises HostUnreachable."""
        raise HostUnreachable(self.name, WHY_SILENT)

    async def save_configuration(
        self,
        slot_names: tuple[str, str],
        *,
        accept_post_migration: bool = True,
        guest: str = "",
        runs_here: bool = True,
        limit_seconds: float = 60.0,
    ) -> str:
        """Raises NotSavedYet: only a person can tell."""
        self._check_name(guest)
        keeps = f"keeps {guest} over its next boot" if runs_here else f"does not start {guest} any more"
        raise NotSavedYet(
            self.name, f"{WHY_SILENT}; see to it that it {keeps}, then say so: --saved {self.name}"
        )

    async def check_migration(self, guest: str, target: MigrationTarget, limit_seconds: float = 60.0) -> None:
        """Raises MovedByHand."""
        self._check_name(guest)
        raise MovedByHand(
            self.name,
            f"cannot try the migration of {guest}",
            f"look yourself whether {target.address} can take it",
        )

    async def migrate(
        self, guest: str, target: MigrationTarget, progress: Progress, limit_seconds: float
    ) -> None:
        """Raises MovedByHand: nothing was begun."""
        self._check_name(guest)
        raise MovedByHand(
            self.name,
            f"Standfast does not migrate {guest} from here",
            f"move it to {target.address} with this host's own tools, see it run there and not here, "
            f"then confirm: clovmmigrate -u {guest} TARGET",
        )

    async def cancel_migration(self, guest: str, limit_seconds: float = 600.0) -> None:
        """Raises MovedByHand."""
        self._check_name(guest)
        raise MovedByHand(
            self.name,
            f"Standfast cannot cancel the migration of {guest}",
            "cancel it with this host's own tools, and see where it runs",
        )

    async def stop(self, guest: str, limit_seconds: float = 60.0) -> None:
        """Raises MovedByHand: nothing was stopped."""
        self._check_name(guest)
        raise MovedByHand(
            self.name,
            f"Standfast cannot stop {guest} here",
            "stop it with this host's own tools, and see that it is off",
        )

    async def close(self) -> None:
        """Nothing is kept."""
