"""Where a run can be given other rules than the production ones: only to prove the checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from standfast.core.record import Record
from standfast.sim.store import Change, Cib

Written = Callable[..., Change]


def compared(written: Written, cib: Cib, new: Record, changes: Mapping[str, Any]) -> Change:
    """The executor's write: refused where the record is no longer the one that was read."""
    return written(cib.record.epoch, new, **changes)


@dataclass(frozen=True)
class Rules:
    """How the parts around the core behave. The core itself is patched by the tests."""

    write: Callable[[Written, Cib, Record, Mapping[str, Any]], Change] = compared
    unknown_is_failed: bool = False
    membership_once: bool = False
    """The killing gate looks at the membership when its call begins, and not again."""
