"""The way out when Standfast itself is broken: the fencing topology as it is, without the gates.

One ``cibadmin`` line with this file takes every gate out of the way on a cluster where no Standfast program
works any more. It names devices only; where they aim stands in the devices themselves and is not touched.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from standfast.core import guarded, topology
from standfast.core.names import GATE_AGENT, RESCUE_FILE

COMMAND = f"cibadmin -R -o fencing-topology -x {RESCUE_FILE}"
"""Short options: the line also stands in a comment of the file, where XML forbids two hyphens."""
UNPARK = f"cibadmin -d -f -A \"//meta_attributes[starts-with(@id,'{guarded.PARKED_PREFIX}')]\""
"""In a guarded window besides: it lets the mover's own agents start again."""


def document(cib: ET.Element) -> str:
    """The text of rescue.xml for a CIB; empty where no level has a gate. A level of gates alone goes.

    In a guarded window the mover has its own levels in it, and a second line lets its agents start again.
    """
    movers = sorted(guarded.guarded(cib))
    for node in movers:
        cib = guarded.unguard(cib, node)
    known = topology.devices(cib)
    gates = {identifier for identifier, device in known.items() if device.agent == GATE_AGENT}
    rescued = ET.Element("fencing-topology")
    gated = False
    for level in cib.iterfind("./configuration/fencing-topology/fencing-level"):
        ids = [part.strip() for part in level.get("devices", "").split(",") if part.strip()]
        left = [identifier for identifier in ids if identifier not in gates]
        gated = gated or len(left) < len(ids)
        if left:
            ET.SubElement(rescued, "fencing-level", {**level.attrib, "devices": ",".join(left)})
    if not gated:
        return ""
    ET.indent(rescued)
    return (
        "<!-- Takes Standfast's gates out of the fencing topology, without Standfast:\n"
        f"     {COMMAND}\n"
        + (f"     and, since {', '.join(movers)} is in a guarded window:\n     {UNPARK}\n" if movers else "")
        + "-->\n"
        + ET.tostring(rescued, encoding="unicode")
        + "\n"
    )
