"""How fast libvirt copies a guest, and when it lets it switch over; implements `hosts.base.PacesMigration`.

Source: virsh(1) of libvirt 9.0.0: migrate-setspeed, migrate-setmaxdowntime, domdirtyrate-calc.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod

from standfast.core.holding import MIB
from standfast.hosts.base import AnswerNotUnderstood, NamedHost
from standfast.hosts.shell import Outcome

PACE_LIMIT_SECONDS = 10.0
MEASURE_SECONDS = 1
MEASURED_LIMIT_SECONDS = 10.0
MEASURED_POLL_SECONDS = 0.3
_MEASURED = 2
"""VIR_DOMAIN_DIRTYRATE_MEASURED (libvirt-domain.h)."""
_FIGURE = re.compile(r"^\s*dirtyrate\.(calc_status|megabytes_per_second)=(\d+)\s*$", re.MULTILINE)


class PacedByVirsh(NamedHost):
    """The part of a host with libvirt that sets the pace of a migration. All raise HostError."""

    @abstractmethod
    async def _checked(self, words: list[str], limit_seconds: float, *, change: bool = False) -> Outcome: ...

    async def copy_rate(self, guest: str) -> int:
        """MiB/s that a migration of this guest may take; kept by libvirt from one to the next."""
        self._check_name(guest)
        # Not for who may only read (libvirt 9.0.0: "read only access prevents virDomainMigrateGetMaxSpeed").
        words = ["migrate-getspeed", guest]
        said = (await self._checked(words, PACE_LIMIT_SECONDS, change=True)).output.strip()
        if not (said.isascii() and said.isdigit()):
            raise AnswerNotUnderstood(
                self.name, f"virsh migrate-getspeed {guest}: {said[:80]!r}", output=said
            )
        return int(said)

    async def set_copy_rate(self, guest: str, mib_per_second: int) -> None:
        """At once, also of a migration that is under way."""
        self._check_name(guest)
        words = ["migrate-setspeed", guest, str(mib_per_second)]
        await self._checked(words, PACE_LIMIT_SECONDS, change=True)

    async def set_downtime_limit(self, guest: str, milliseconds: int) -> None:
        """How long a blackout the migration that is under way may expect and switch over. Fails where the
        guest has left meanwhile."""
        self._check_name(guest)
        words = ["migrate-setmaxdowntime", guest, str(milliseconds)]
        await self._checked(words, PACE_LIMIT_SECONDS, change=True)

    async def dirty_bytes_per_second(self, guest: str) -> float | None:
        """What the guest writes of its memory in a second, measured now by samples, before a migration; None:
        the host has not measured it in time."""
        self._check_name(guest)
        words = ["domdirtyrate-calc", guest, "--seconds", str(MEASURE_SECONDS)]
        await self._checked(words, PACE_LIMIT_SECONDS, change=True)
        for _ in range(round(MEASURED_LIMIT_SECONDS / MEASURED_POLL_SECONDS)):
            await asyncio.sleep(MEASURED_POLL_SECONDS)
            told = await self._checked(["domstats", guest, "--dirtyrate"], PACE_LIMIT_SECONDS)
            found = dict(_FIGURE.findall(told.output))
            if found.get("calc_status") == str(_MEASURED) and "megabytes_per_second" in found:
                return float(found["megabytes_per_second"]) * MIB
        return None
