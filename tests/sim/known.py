"""Violations that are known and not yet mended, with the reason. A test fails when one of them is gone."""

from __future__ import annotations

from standfast.sim.checkers import Violation

KNOWN = {
    "S8": "was killed because it was moved",
}
"""S8: a hold that is kept because a host shows a move ends with that move, some tenths of a second before the
node is a member again, and the gate lets the healthy node be killed (README, Known holes: a move without -p
that is cancelled, and the same past the lease)."""


def is_known(violation: Violation) -> bool:
    """Whether this is one of them."""
    return KNOWN.get(violation.code, "\0") in violation.text
