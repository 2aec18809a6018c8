"""This node's part of the heartbeat: its corosync.conf holds what the record asks, and nothing else changes.

A window asks for raised keys, on the way down for the old effective values, then for the old keys. With no
window the file is the operator's: it is touched only where it still holds exactly what a window had put there
(this node was away when the window closed).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from standfast.cluster import corosync_conf
from standfast.core import heartbeat, members
from standfast.core.record import Record


@dataclass(frozen=True)
class FileState:
    """Our keys as they stand in the file, and why the file is not as asked (empty: it is)."""

    keys: Mapping[str, str]
    structure: str
    error: str = ""
    changed: bool = False
    """This call has rewritten the file."""
    left_over: bool = False
    """The file still held a window's values though there is no window: it has been put back."""


def wanted(record: Record | None, node: str, present: Mapping[str, str]) -> Mapping[str, str]:
    """The keys that the file must hold at this record."""
    if record is None:
        return present
    if record.open:
        return members.wanted_keys(record, node, present)
    old = members.old_of(record, node)
    if old is None or not record.budget_seconds:
        return present
    left = (heartbeat.raised(record.budget_seconds), members.explicit_keys(old))
    if dict(present) in [dict(keys) for keys in left] and dict(present) != dict(old.file_keys):
        return old.file_keys
    return present


def converge(record: Record | None, node: str, path: Path = corosync_conf.PATH) -> FileState:
    """Bring the file to what the record asks. Never raises: the report carries what went wrong."""
    try:
        text = corosync_conf.read_file(path)
        present = corosync_conf.read_keys(text)
        structure = corosync_conf.structure(text)
    except (OSError, corosync_conf.CorosyncConfError) as error:
        return FileState({}, "", f"corosync.conf: {error}")
    asked = wanted(record, node, present)
    if dict(asked) == dict(present):
        return FileState(present, structure, _unwritable(path))
    try:
        changes: dict[str, str | None] = {key: asked.get(key) for key in heartbeat.KEYS}
        corosync_conf.install(path, corosync_conf.write_keys(text, changes))
        keys = corosync_conf.read_keys(corosync_conf.read_file(path))
    except (OSError, corosync_conf.CorosyncConfError) as error:
        return FileState(present, structure, f"corosync.conf cannot be written: {error}")
    idle = record is not None and not record.open
    return FileState(keys, structure, "", changed=True, left_over=idle)


def _unwritable(path: Path) -> str:
    """Said before a window needs it: the planner refuses to open where a member could not follow."""
    folder = path.parent
    if not os.access(folder, os.W_OK | os.X_OK) or not os.access(path, os.W_OK):
        return f"corosync.conf cannot be written: {folder} or {path.name} is read-only"
    return ""
