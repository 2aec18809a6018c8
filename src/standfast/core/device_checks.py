"""What set-up does not touch: other people's levels, devices and ids, and an open window."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from standfast.core import record, topology
from standfast.core.device_objects import (
    DeviceError,
    ForeignError,
    UnknownNodeError,
    WindowOpenError,
    agents_in,
    level_of,
    section,
)
from standfast.core.names import GATE_AGENT
from standfast.core.registered import Agent


def refuse_window(cib: ET.Element) -> None:
    """Set-up waits until no window is open."""
    try:
        current = record.read(cib)
    except record.RecordError as error:
        raise DeviceError(f"the record of the window is unusable: {error}") from None
    if current is not None and current.open:
        who = f" for {current.mover}" if current.mover else ""
        raise WindowOpenError(f"a migration window{who} is {current.phase.value}")


def refuse_unknown(cib: ET.Element, node: str) -> None:
    """The node must be known to the cluster, by its cluster name."""
    nodes = [entry.get("uname", "") for entry in cib.iterfind("./configuration/nodes/node")]
    if node not in nodes:
        raise UnknownNodeError(
            f"{node} is no node of this cluster; its nodes are {', '.join(nodes) or 'none'}"
        )


def refuse_foreign(cib: ET.Element, node: str, agents: tuple[Agent, ...]) -> None:
    """Levels that decide about `node` but are not ours, and things that have our ids but are not ours."""
    there = agents_in(cib).get(node, agents)
    if there != agents:
        names_there = ", ".join(agent.name for agent in there)
        raise ForeignError(f"{node} is registered already with other shutdown agents: {names_there}")
    levels = {agent.level_id(node): level_of(node, agent) for agent in agents}
    for level in cib.iterfind("./configuration/fencing-topology/fencing-level"):
        ours = levels.get(level.get("id", ""))
        if ours is not None and ours.attrib != level.attrib:
            label = level.get("id")
            raise ForeignError(
                f"fencing level {label} is not as set-up made it; delete {node} and add it again"
            )
    own = {(agent.gate_id(node), agent.device_id(node)) for agent in agents}
    for found in topology.levels_for(cib, node):
        names = tuple(device.id for device in found.devices)
        if names not in own:
            label = ", ".join(names) or "no device"
            raise ForeignError(f"{node} has a fencing level of its own (index {found.index}: {label})")
    for element in cib.iterfind("./configuration//*"):
        _refuse_taken_id(cib, element, node, agents)


def _refuse_taken_id(cib: ET.Element, element: ET.Element, node: str, agents: tuple[Agent, ...]) -> None:
    types = {agent.device_id(node): agent.program for agent in agents}
    types |= {agent.gate_id(node): GATE_AGENT for agent in agents}
    identifier = element.get("id", "")
    if element.tag == "obj_ref":
        return
    if identifier in types:
        kind = (element.tag, element.get("class"), element.get("type"))
        if kind != ("primitive", "stonith", types[identifier]):
            raise ForeignError(f"the id {identifier} belongs to a {element.tag} that set-up did not make")
        if element not in list(section(cib, "resources")):
            raise ForeignError(f"{identifier} is inside a group or clone; take it out first")
    banned = identifier.removeprefix("ban-")
    is_ban = banned in types and banned != identifier
    if is_ban and (element.tag, element.get("rsc")) != ("rsc_location", banned):
        raise ForeignError(f"the id {identifier} belongs to a {element.tag} that set-up did not make")


def refuse_references(cib: ET.Element, ours: frozenset[str]) -> None:
    """The user's own constraints, tags or levels that name our devices would be left dangling."""
    for found in cib.iterfind("./configuration//*"):
        if found.get("id") in ours and found.tag != "obj_ref":
            continue
        values = {value for name, value in found.attrib.items() if name not in ("id", "name", "value")}
        if found.tag == "obj_ref":
            values.add(found.get("id", ""))
        if found.tag == "fencing-level":
            values |= set(found.get("devices", "").split(","))
        used = sorted(values & ours)
        if used:
            label = found.get("id") if found.tag != "obj_ref" else "a tag"
            raise ForeignError(f"{label} ({found.tag}) refers to {used[0]}; remove that reference first")
