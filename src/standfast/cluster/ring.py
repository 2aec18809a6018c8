"""Who is in the membership, from corosync itself.

After each change of the configuration Pacemaker 2.1.5 blocks the designated controller for a whole second
(before each scheduler run it looks for sbd in /proc and sleeps); ``crm_node`` and ``crmadmin`` wait with it.
Corosync's own map answers in 10 ms at any time; Pacemaker's membership is made from the same one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from standfast.cluster import membership
from standfast.cluster.run import EngineError, run

_LINE = re.compile(r"^(?P<key>\S+) \((?P<kind>\w+)\) = (?P<value>.*)$")


@dataclass(frozen=True)
class Ring:
    """The membership as this node's corosync has it. `own` is empty where the nodelist does not name us."""

    own: str
    members: frozenset[str]


def look(limit_seconds: float = 3.0) -> Ring:
    """Read it. Raises EngineError."""
    result = run(["corosync-cmapctl"], limit_seconds=limit_seconds)
    if not result.ok:
        raise EngineError.of("corosync does not answer", result)
    found = parse(result.stdout)
    if found is None:
        # A nodelist without names: only Pacemaker knows how the nodes are called.
        return Ring(membership.own_node(limit_seconds), membership.partition(limit_seconds))
    return found


def parse(text: str) -> Ring | None:
    """Read the output of ``corosync-cmapctl``; None where a joined member has no name in the nodelist."""
    values = {match["key"]: match["value"] for match in map(_LINE.match, text.splitlines()) if match}
    names = _names(values)
    joined = {
        key.split(".")[2]
        for key, value in values.items()
        if key.startswith("runtime.members.") and key.endswith(".status") and value == "joined"
    }
    if not joined or not joined <= names.keys():
        return None
    own = names.get(values.get("runtime.votequorum.this_node_id", ""), "")
    return Ring(own, frozenset(names[node] for node in joined)) if own else None


def _names(values: Mapping[str, str]) -> dict[str, str]:
    """Node id -> name, from the nodelist."""
    found = {}
    for key, value in values.items():
        parts = key.split(".")
        if parts[:2] == ["nodelist", "node"] and parts[-1] == "nodeid":
            name = values.get(f"nodelist.node.{parts[2]}.name", "")
            if name:
                found[value] = name
    return found
