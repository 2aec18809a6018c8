"""What every host kind tells of a migration, and how it is said that an answer was not understood.

The standard library only: the gate imports this.
"""

from __future__ import annotations

from dataclasses import dataclass


class NotUnderstood(ValueError):
    """An answer of a host that does not have the documented form, or is not whole."""


@dataclass(frozen=True)
class MigrationJob:
    """A migration that a host reports: per cent done (None: not said), and the other host (empty: not said).

    All other figures are None where the host does not tell them.
    """

    guest: str
    progress_percent: int | None
    failed: bool
    peer: str
    outgoing: bool
    copied_bytes: int | None = None
    """Memory sent so far; more than the guest has where pages are sent again."""
    remaining_bytes: int | None = None
    total_bytes: int | None = None
    rate_bytes_per_second: int | None = None
    iteration: int | None = None
    """Pass over the memory, from 1."""
    elapsed_ms: int | None = None
    downtime_ms: int | None = None
    """How long the guest stands still: expected while the job runs, measured when it is `done`."""
    done: bool = False
    """The job has ended well."""
