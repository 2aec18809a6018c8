"""What must not stay as it is, one sentence each, with what to type."""

from __future__ import annotations

from collections.abc import Iterator

from standfast.core import guarded, lease, owed
from standfast.core.owed import Debt
from standfast.core.record import Mode, Phase, Record
from standfast.daemon.known import Known

DISAGREES_SECONDS = 60.0
"""Corosync and its file may differ for so long, while somebody edits and reloads, before it is an alarm."""


def found(
    known: Known, window_seconds: float, over: lease.Over | None, disagrees_seconds: float, facility: str
) -> Iterator[str]:
    """`window_seconds`: since this node first saw the window. `over`: what is in the way of its close.
    `disagrees_seconds`: for how long corosync has not run what its file yields; 0: it does."""
    if known.record_error:
        yield f"{known.record_error}: fencing is refused until it is mended (docs/runbook.md)"
    if known.record is not None and known.record.open and window_seconds > known.record.lease_seconds:
        yield _past_lease(known.record, window_seconds, over)
    if disagrees_seconds >= DISAGREES_SECONDS:
        yield (
            "corosync of this node does not run the heartbeat values of its corosync.conf; if "
            "the file is right: corosync-cfgtool -R"
        )
    if known.record is not None and not known.record.holds and known.tree is not None:
        begin = "all is proven" if known.record.open else "no window is open"
        for node in sorted(guarded.guarded(known.tree)):
            yield (
                f"{begin}, but the fencing of {node} is still that of a guarded one: nobody can "
                f"kill it; repair that with: clovmmigrate -u source-ldom target-host"
            )
    if known.record is not None and known.tree is not None and known.record.phase is Phase.OPEN:
        mover = known.record.mover
        if known.record.mode is Mode.GUARDED and mover and not guarded.whole(known.tree, mover):
            yield (
                f"the window is guarded, but the fencing of {mover} is not that of its killing gate (was the "
                f"topology edited by hand?): put it right with: standfast window open{_of(known, mover)}"
            )
    if known.file.debt is Debt.FOREIGN:
        yield (
            f"{owed.sentence(known.node)}, and corosync.conf was changed by hand since: put its "
            f"heartbeat keys right and reload, then: clsnmpsetup --forget {known.node} --reason TEXT"
        )
    if facility != "running":
        yield "the shutdown facility of this node is stopped; start it: sdtool -b"


def _of(known: Known, mover: str) -> str:
    aim = known.aims().get(mover)
    return f" {aim.guest}" if aim is not None else " GUEST"


def _past_lease(record: Record, window_seconds: float, over: lease.Over | None) -> str:
    why = f" ({over.why})" if over is not None else ""
    typed = over.next_command if over is not None else "clovmmigrate -u source-ldom target-host"
    past = window_seconds - record.lease_seconds
    phase = f"{record.phase.value}: {record.left}" if record.left else record.phase.value
    return (
        f"the window ({phase}) is {past:.0f} s past its lease of "
        f"{record.lease_seconds} s{why}; close it: {typed}"
    )
