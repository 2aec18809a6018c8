"""Resources that need the membership unbroken: they do not take back a node that was dropped.

A node that is held in its blackout leaves the ring when the heartbeat timeout is over and joins again when it
runs on. Pacemaker takes it back as if nothing had been (measured, docs/design.md section 4). The distributed
lock manager does not: it wants a node that has left to be fenced, and stops all lock traffic until it is
(dlm_controld(8), "fencing"). So with one of these a window raises the heartbeat timeout above the blackout.

Pure: XML in, names out.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

LOCKING_TYPES = frozenset({"controld", "lvmlockd", "clvm", "o2cb"})
"""Agents that run the lock manager, or a daemon that stands on it."""
CLUSTER_FILESYSTEMS = frozenset({"gfs2", "ocfs2"})


def needing_membership(cib: ET.Element) -> tuple[str, ...]:
    """Ids of the resources that do not outlive a dropped member, in the configuration's order."""
    return tuple(
        primitive.get("id", "")
        for primitive in cib.iterfind("./configuration/resources//primitive")
        if primitive.get("class") == "ocf" and _needs(primitive)
    )


def _needs(primitive: ET.Element) -> bool:
    kind = primitive.get("type", "")
    if kind in LOCKING_TYPES:
        return True
    pairs = primitive.iterfind("./instance_attributes/nvpair")
    values = {pair.get("name", ""): pair.get("value", "") for pair in pairs}
    return kind == "Filesystem" and values.get("fstype", "").lower() in CLUSTER_FILESYSTEMS
