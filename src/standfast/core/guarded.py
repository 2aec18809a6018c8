"""The fencing topology of a guarded window, both ways. Pure: XML in, XML out.

While the window is open the mover has ONE level with ONE device: the killing gate, which is never believed:
it proves. Its own agents and their gates are stopped meanwhile: without a topology (somebody deletes the
level by hand) the fencer would try each of them alone, and a gate alone is a success. Every other node's
devices are banned from the mover: a node that has stood still believes stale things about the others. (With
two nodes there is nobody else; the gate's own rule about its executor stands in.)

All of it goes into the CIB and out of it as one patch each, with the record. Levels are made and deleted,
never retargeted: the fencers keep a retargeted one alive.
"""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

from standfast.core.device_objects import (
    ForeignError,
    NotRegisteredError,
    agents_in,
    ban,
    by_id,
    level_of,
    primitive,
    section,
)
from standfast.core.device_setup import topology_section
from standfast.core.devices import find, same_configuration
from standfast.core.names import GATE_AGENT
from standfast.core.registered import Agent

KILL_LIMIT_SECONDS = 120
"""What Pacemaker gives one call of the killing gate; more than the sum of its steps."""
PARKED_PREFIX = "standfast-parked-"
MOVER_BAN_PREFIX = "standfast-mover-ban-"


def kill_id(node: str) -> str:
    """Id of the killing gate of `node`."""
    return f"kill-{node}"


def kill_level_id(node: str) -> str:
    """Id of the one level that a mover has."""
    return f"fl-{node}-kill"


def own_ids(node: str) -> frozenset[str]:
    """Ids of what `guarded` adds for `node` beside the prefixed ones."""
    return frozenset({kill_id(node), f"ban-{kill_id(node)}", kill_level_id(node)})


def guarded(cib: ET.Element) -> frozenset[str]:
    """Nodes of which anything of a guarded window is in the CIB."""
    found = set()
    agents = agents_in(cib)
    for element in cib.iterfind("./configuration//*"):
        identifier = element.get("id", "")
        if element.tag == "fencing-level" and identifier == kill_level_id(element.get("target", "")):
            found.add(element.get("target", ""))
        elif element.tag == "primitive" and identifier.startswith(kill_id("")):
            if element.get("type") == GATE_AGENT:
                found.add(identifier.removeprefix(kill_id("")))
        elif element.tag == "rsc_location" and identifier.startswith(MOVER_BAN_PREFIX):
            found.add(element.get("node", ""))
        elif element.tag == "meta_attributes" and identifier.startswith(PARKED_PREFIX):
            parked = identifier.removeprefix(PARKED_PREFIX)
            found |= {node for node, own in agents.items() if parked in _devices_of(node, own)}
    return frozenset(found - {""})


def whole(cib: ET.Element, node: str) -> bool:
    """Whether the fencing of `node` is exactly that of a guarded window's mover."""
    try:
        wanted = guard(cib, node)
    except (ForeignError, NotRegisteredError):
        return False
    return same_configuration(cib, wanted)


def guard(cib: ET.Element, node: str) -> ET.Element:
    """A copy of `cib` in which `node` is the mover of a guarded window; as it is where it is that already.

    Raises NotRegisteredError for a node without agents, ForeignError where an id of ours is taken.
    """
    wanted = copy.deepcopy(cib)
    every = agents_in(wanted)
    agents = every.get(node, ())
    entry = find(wanted, node)
    if entry is None:
        raise NotRegisteredError(f"nothing is registered for {node}")
    _refuse_taken(wanted, node)
    _kill_device(wanted, node, entry.guest)
    topology = topology_section(wanted)
    for level in list(topology):
        if level.get("id") in {agent.level_id(node) for agent in agents}:
            topology.remove(level)
    if by_id(wanted, kill_level_id(node)) is None:
        values = {"id": kill_level_id(node), "target": node, "index": "1", "devices": kill_id(node)}
        topology.append(ET.Element("fencing-level", values))
    for identifier in _devices_of(node, agents):
        _park(by_id(wanted, identifier), identifier)
    if len(wanted.findall("./configuration/nodes/node")) > 2:
        for other in set(every) - {node}:
            for identifier in _devices_of(other, every[other]):
                _ban(section(wanted, "constraints"), identifier, node)
    return wanted


def unguard(cib: ET.Element, node: str) -> ET.Element:
    """A copy of `cib` without anything of a guarded window of `node`: its own levels stand again."""
    wanted = copy.deepcopy(cib)
    agents = agents_in(wanted).get(node, ())
    parked = {PARKED_PREFIX + identifier for identifier in _devices_of(node, agents)}
    ours = own_ids(node)
    for parent in wanted.findall("./configuration//*"):
        for child in list(parent):
            identifier = child.get("id", "")
            is_ban = identifier.startswith(MOVER_BAN_PREFIX) and child.get("node") == node
            if identifier in ours or identifier in parked or is_ban:
                parent.remove(child)
    for agent in agents:
        if by_id(wanted, agent.level_id(node)) is None and by_id(wanted, agent.device_id(node)) is not None:
            topology_section(wanted).append(level_of(node, agent))
    return wanted


def _devices_of(node: str, agents: tuple[Agent, ...]) -> list[str]:
    return [identifier for agent in agents for identifier in (agent.gate_id(node), agent.device_id(node))]


def _kill_device(cib: ET.Element, node: str, guest: str) -> None:
    if by_id(cib, kill_id(node)) is None:
        values = {
            "pcmk_host_list": node,
            "pcmk_off_retries": "1",
            "pcmk_reboot_retries": "1",
            "pcmk_off_timeout": f"{KILL_LIMIT_SECONDS}s",
            "pcmk_reboot_timeout": f"{KILL_LIMIT_SECONDS}s",
            "kill": "1",
            "guest": guest,
        }
        section(cib, "resources").append(primitive(kill_id(node), GATE_AGENT, values))
    if by_id(cib, f"ban-{kill_id(node)}") is None:
        section(cib, "constraints").append(ban(node, kill_id(node)))


def _park(device: ET.Element | None, identifier: str) -> None:
    if device is None or any(child.get("id") == PARKED_PREFIX + identifier for child in device):
        return
    # Above a set of the user's own, which would otherwise be asked first.
    meta = ET.Element("meta_attributes", {"id": PARKED_PREFIX + identifier, "score": "INFINITY"})
    name = f"{PARKED_PREFIX}{identifier}-target-role"
    ET.SubElement(meta, "nvpair", {"id": name, "name": "target-role", "value": "Stopped"})
    # The schema wants attributes before operations.
    place = next((i for i, child in enumerate(device) if child.tag == "operations"), len(device))
    device.insert(place, meta)


def _ban(constraints: ET.Element, identifier: str, mover: str) -> None:
    name = MOVER_BAN_PREFIX + identifier
    if all(child.get("id") != name for child in constraints):
        values = {"id": name, "rsc": identifier, "node": mover, "score": "-INFINITY"}
        ET.SubElement(constraints, "rsc_location", values)


def _refuse_taken(cib: ET.Element, node: str) -> None:
    for identifier, tag in (
        (kill_id(node), "primitive"),
        (f"ban-{kill_id(node)}", "rsc_location"),
        (kill_level_id(node), "fencing-level"),
    ):
        there = by_id(cib, identifier)
        if there is None:
            continue
        ours = there.tag == tag and {
            "primitive": there.get("type") == GATE_AGENT,
            "rsc_location": there.get("rsc") == kill_id(node),
            "fencing-level": there.get("target") == node and there.get("devices") == kill_id(node),
        }.get(tag, False)
        if not ours:
            raise ForeignError(f"the id {identifier} belongs to a {there.tag} that Standfast did not make")
