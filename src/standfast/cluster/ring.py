"""Who is in the membership, from corosync itself.

After each change of the configuration Pacemaker 2.1.5 blocks the designated controller for a whole second
(before each scheduler run it looks for sbd in /proc and sleeps); ``crm_node`` and ``crmadmin`` wait with it.
Corosync's own map answers in 3 ms at any time; Pacemaker's membership is made from the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from standfast.cluster import cmap, membership

_NODES, _MEMBERS, _OWN_ID = "nodelist.node.", "runtime.members.", "runtime.votequorum.this_node_id"


@dataclass(frozen=True)
class Ring:
    """The membership as this node's corosync has it. `own` is empty where the nodelist does not name us."""

    own: str
    members: frozenset[str]


def look(limit_seconds: float = 3.0) -> Ring:
    """Read it. Raises EngineError."""
    found = parse(cmap.configuration((_NODES, _MEMBERS, _OWN_ID), limit_seconds))
    if found is None:
        # A nodelist without names: only Pacemaker knows how the nodes are called.
        return Ring(membership.own_node(limit_seconds), membership.partition(limit_seconds))
    return found


def parse(values: Mapping[str, int | str]) -> Ring | None:
    """Read corosync's map (cmap_keys(7)); None where a joined member has no name in the nodelist."""
    names = _names(values)
    joined = {
        key.split(".")[2]
        for key, value in values.items()
        if key.startswith(_MEMBERS) and key.endswith(".status") and value == "joined"
    }
    if not joined or not joined <= names.keys():
        return None
    own = names.get(str(values.get(_OWN_ID, "")), "")
    return Ring(own, frozenset(names[node] for node in joined)) if own else None


def _names(values: Mapping[str, int | str]) -> dict[str, str]:
    """Node id -> name, from the nodelist."""
    found = {}
    for key, value in values.items():
        if key.startswith(_NODES) and key.endswith(".nodeid"):
            name = values.get(f"{_NODES}{key.split('.')[2]}.name", "")
            if name:
                found[str(value)] = str(name)
    return found
