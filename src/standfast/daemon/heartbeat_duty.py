"""This node's part of the heartbeat: its corosync.conf holds what the record asks, and nothing else changes.

A window asks for raised keys, on the way down for the old effective values, then for the old keys. With no
window the file is the operator's: it is touched only where the record owes this node its old values (it was
away when a window closed), and the file still holds exactly what that window had put there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from standfast.cluster import corosync_conf, corosync_map
from standfast.core import heartbeat, members, owed
from standfast.core.owed import Debt
from standfast.core.record import Record


@dataclass(frozen=True)
class FileState:
    """Our keys as they stand in the file, and why the file is not as asked (empty: it is)."""

    keys: Mapping[str, str]
    structure: str
    error: str = ""
    changed: bool = False
    """This call has rewritten the file."""
    fresh: Mapping[str, int] = field(default_factory=dict)
    """The values, in ms, that a corosync started with this file runs; empty where the file cannot be read."""
    unloaded: tuple[str, ...] = ()
    """Keys of corosync's map, not the heartbeat's, that a reload of the file would change."""
    rest: str = ""
    nodes: tuple[str, ...] = ()
    debt: Debt = Debt.NONE
    """Where this node stands on its way back to the values that the record owes it."""


def converge(
    record: Record | None,
    node: str,
    runtime: Mapping[str, int],
    path: Path = corosync_conf.PATH,
    running: Mapping[str, int | str] | None = None,
    membership: Set[str] | None = None,
) -> FileState:
    """Bring the file to what the record asks. Never raises: the report carries what went wrong.

    `runtime`: the values in force, in ms; on the way back of a node that was away the next keys are written
    only when the last ones run. `running`: what corosync's map has of its file; None: not compared.
    `membership`: whom this node sees; None: counts for nothing.
    """
    try:
        text = corosync_conf.read_file(path)
        seen = _seen(text, running)
    except (OSError, corosync_conf.CorosyncConfError) as error:
        return FileState({}, "", f"corosync.conf: {error}")
    present = seen.keys
    entry = owed.entry_of(record, node)
    debt = owed.debt(entry, present, runtime, seen.fresh)
    asked = owed.keys_to_write(entry, debt, present)
    if record is not None and record.open:
        asked = members.wanted_keys(record, node, present, membership)
    if dict(asked) == dict(present):
        return replace(seen, error=_unwritable(path), debt=debt)
    try:
        changes: dict[str, str | None] = {key: asked.get(key) for key in heartbeat.KEYS}
        new = corosync_conf.write_keys(text, changes)
        corosync_conf.install(path, new)
        keys = corosync_conf.read_keys(corosync_conf.read_file(path))
        fresh = _fresh(new, keys)
    except (OSError, corosync_conf.CorosyncConfError) as error:
        return replace(seen, error=f"corosync.conf cannot be written: {error}", debt=debt)
    # Also where the values run already: what is written out in corosync's memory goes by a reload only.
    due = Debt.RELOAD if entry is not None else Debt.NONE
    return replace(seen, keys=keys, changed=True, fresh=fresh, debt=due)


def _seen(text: str, running: Mapping[str, int | str] | None) -> FileState:
    """The file as it is. Raises CorosyncConfError."""
    keys = corosync_conf.read_keys(text)
    return FileState(
        keys,
        corosync_conf.structure(text),
        fresh=_fresh(text, keys),
        unloaded=corosync_map.unloaded(text, running) if running is not None else (),
        rest=corosync_conf.rest(text),
        nodes=corosync_conf.nodes(text),
    )


def _fresh(text: str, keys: Mapping[str, str]) -> dict[str, int]:
    found = heartbeat.expected_runtime(
        keys, corosync_conf.node_count(text), corosync_conf.retransmits_before_loss(text)
    )
    return members.comparable(found)


def _unwritable(path: Path) -> str:
    """Said before a window needs it: the planner refuses to open where a member could not follow."""
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK) or not os.access(path, os.W_OK):
        return f"corosync.conf cannot be written: {folder} or {path.name} is read-only"
    return ""
