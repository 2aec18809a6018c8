"""A node that was away when a window closed: what is owed to it, and how it takes that back.

The record keeps such a node's old values (`Record.owed`). When it comes back, its own daemon goes the way of
a closing: old effective values into the file, reload, seen; the file as it was, reload, seen. Then it takes
its entry out of the record. So an entry always means: not taken back yet.

Only keys that a window or this way has put there are changed. Where the file says something else, somebody
has edited it since: it is not touched, and a person decides (``clsnmpsetup --forget``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from enum import Enum
from xml.etree import ElementTree as ET

from standfast.core import heartbeat, members, record
from standfast.core.device_checks import refuse_window
from standfast.core.device_objects import DeviceError
from standfast.core.record import OldHeartbeat, Record


class Debt(Enum):
    """Where a node stands on its way back; `EXPLICIT` and `ORIGINAL` name the keys to write next."""

    NONE = "nothing is owed"
    EXPLICIT = "the file holds the values of a window"
    ORIGINAL = "the old values run, written out"
    RELOAD = "corosync does not run the values of the file"
    PAID = "all as before the window"
    FOREIGN = "the file was changed by somebody else"


class NotOwedError(DeviceError):
    """Nothing is owed to this node."""


class OwedError(DeviceError):
    """A node has not taken its values back yet. `node` names it."""

    def __init__(self, node: str) -> None:
        super().__init__(sentence(node))
        self.node = node


def sentence(node: str) -> str:
    """What an operator is told of an entry."""
    return f"{node} was away when a window closed and has not yet put its old heartbeat values back"


def way_out(node: str) -> str:
    """What to do about it."""
    return f"start {node}, its standfastd does the rest; or clsnmpsetup --forget {node} --reason TEXT"


def entry_of(found: Record | None, node: str) -> OldHeartbeat | None:
    """What is to be put back on `node` now: in a window the window's own values come first."""
    return None if found is None or found.open else found.owed.get(node)


def debt(
    entry: OldHeartbeat | None, keys: Mapping[str, str], runtime: Mapping[str, int], fresh: Mapping[str, int]
) -> Debt:
    """Where the node stands, by its file's `keys`, what runs, and what the file yields at a `fresh` start."""
    if entry is None:
        return Debt.NONE
    before = members.comparable(entry.runtime)
    if dict(keys) == dict(entry.file_keys):
        return Debt.PAID if members.runs(runtime, before) or agrees(runtime, fresh) else Debt.RELOAD
    if dict(keys) == members.explicit_keys(entry):
        return Debt.ORIGINAL if members.runs(runtime, before) else Debt.RELOAD
    ours = heartbeat.is_raised(keys) or members.is_lowered(keys, entry)
    return Debt.EXPLICIT if ours else Debt.FOREIGN


def keys_to_write(entry: OldHeartbeat | None, due: Debt, present: Mapping[str, str]) -> Mapping[str, str]:
    """What the file must hold at this debt; `present` where it stays as it is."""
    if entry is None or due not in (Debt.EXPLICIT, Debt.ORIGINAL):
        return present
    return members.explicit_keys(entry) if due is Debt.EXPLICIT else entry.file_keys


def agrees(runtime: Mapping[str, int], fresh: Mapping[str, int]) -> bool:
    """Whether every value that runs is what the file yields. Without knet there are fewer values."""
    return all(runtime[name] == value for name, value in fresh.items() if name in runtime)


def without(found: Record, node: str, owner: str, why: str = "") -> Record:
    """The record one epoch later, without the entry of `node`."""
    left = {name: old for name, old in found.owed.items() if name != node}
    return found.next(owed=left, owner=owner, why=why or found.why)


def forget(cib: ET.Element, node: str, reason: str) -> ET.Element:
    """A copy of `cib` that owes nothing to `node`. Raises NotOwedError, WindowOpenError."""
    wanted = copy.deepcopy(cib)
    refuse_window(wanted)
    found = record.read(wanted)
    if found is None or node not in found.owed:
        raise NotOwedError(f"no heartbeat values are owed to {node}")
    record.write(wanted, without(found, node, found.owner, f"values owed to {node} forgotten: {reason}"))
    return wanted
