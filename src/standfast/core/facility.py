"""On which nodes the shutdown facility is stopped (``sdtool -e``): a list in the record.

Who may be added is decided from the record alone, and the change is a compare-and-set of the record like
every other: of two nodes that ask at once the second sees the first in the list. What a node reports decides
nothing here, since a report may be old or cut off.
"""

from __future__ import annotations

from collections.abc import Set
from xml.etree import ElementTree as ET

from standfast.core.record import Record


class LastNodeError(Exception):
    """No other member would be left whose facility runs: nobody could kill a lost node."""


def is_stopped(found: Record | None, node: str) -> bool:
    """Whether the facility of `node` is stopped; without a record it runs (and the gate holds anyway)."""
    return found is not None and node in found.stopped


def others(found: Record, node: str, members: Set[str]) -> list[str]:
    """The members besides `node` whose facility runs."""
    return sorted(set(members) - set(found.stopped) - {node})


def stop(found: Record, node: str, members: Set[str], configured: Set[str]) -> Record | None:
    """The record one epoch later with `node` stopped; None where it is already. Raises LastNodeError.

    `configured`: the nodes of the CIB; names of others, which were removed, leave the list with the write.
    """
    if node in found.stopped:
        return None
    if not others(found, node, members):
        raise LastNodeError(node)
    return found.next(stopped=tuple(sorted({*(set(found.stopped) & configured), node})))


def start(found: Record, node: str, configured: Set[str]) -> Record | None:
    """The record one epoch later without `node` in the list; None where it is not there."""
    if node not in found.stopped:
        return None
    return found.next(stopped=without(found, node, configured))


def without(found: Record, node: str, configured: Set[str]) -> tuple[str, ...]:
    """The list without `node`, and without nodes that the cluster does not know any more."""
    return tuple(name for name in found.stopped if name != node and name in configured)


def configured(cib: ET.Element) -> frozenset[str]:
    """The names of all nodes of a CIB."""
    return frozenset(node.get("uname", "") for node in cib.iterfind("./configuration/nodes/node"))
