"""How what stands in the CIB for one registered node looks.

Each of its shutdown agents (`registered`) is a fence device with a gate in front of it; the two are one level
of the node's fencing topology, and both are banned from the node itself. One gate device a level: the fencer
uses a device once per operation and peer.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from standfast.core import host_fencing
from standfast.core.names import GATE_AGENT, XSCF_AGENT
from standfast.core.registered import (
    AGENTS,
    Agent,
    HostNode,
    Registered,
    XscfNode,
    agent_of,
    head_start_seconds,
)


class DeviceError(Exception):
    """The CIB is not as set-up needs it. The text says what is in the way; nothing was changed."""


class UnknownNodeError(DeviceError):
    """The cluster has no node of this name."""


class NotRegisteredError(DeviceError):
    """No shutdown agent is registered for this node."""


class ForeignError(DeviceError):
    """Fencing levels, devices or ids that set-up did not make are in the way."""


class WindowOpenError(DeviceError):
    """A window is open; its devices are not touched."""


GATE_LIMIT_SECONDS = 20
"""The gate answers within 15 s."""
START_LIMIT_SECONDS = 60
"""A start is the agent's own monitor: two logins, one after the other where the first path is dead.
Pacemaker's default of 20 s calls that failed on a loaded node, and what failed to start stays so until
somebody cleans up."""
START_AGAIN_SECONDS = 300
"""When Pacemaker forgets that a start has failed, and tries again (failure-timeout; by default never): a
service processor that was away for a minute would leave the node without this device until somebody cleans
up. (2.1.5, tried with 20 s: started again every 22 s; without it not once.) No sooner, so that one which
stays away keeps the cluster busy for a sixth of the time at most."""
TUNABLE = frozenset({*XscfNode.limits, *HostNode.limits})
"""Limits are set once; what an administrator makes of them stays."""


def device(node: Registered, agent: Agent) -> ET.Element:
    """The fence device that kills in one way."""
    values = {"pcmk_host_list": node.node, **node.limits, **node.parameters(agent)}
    return primitive(agent.device_id(node.node), agent.program, values)


def gate(node: Registered, agent: Agent) -> ET.Element:
    """The gate in front of it. The first one waits by the weight: the head start of a heavier node."""
    values = {
        "pcmk_host_list": node.node,
        "pcmk_off_retries": "1",
        "pcmk_reboot_retries": "1",
        "pcmk_off_timeout": f"{GATE_LIMIT_SECONDS}s",
        "pcmk_reboot_timeout": f"{GATE_LIMIT_SECONDS}s",
        "level": str(agent.level),
        "weight": str(node.weight),
    }
    if agent.level == 1 and head_start_seconds(node.weight):
        values["pcmk_delay_base"] = f"{head_start_seconds(node.weight)}s"
    return primitive(agent.gate_id(node.node), GATE_AGENT, values)


def primitive(identifier: str, agent: str, values: dict[str, str]) -> ET.Element:
    """A fence device with parameters; ids as crm shell and pcs make them."""
    primitive = ET.Element("primitive", {"id": identifier, "class": "stonith", "type": agent})
    attributes = ET.SubElement(primitive, "instance_attributes", {"id": f"{identifier}-instance_attributes"})
    for name, value in values.items():
        pair = {"id": f"{identifier}-instance_attributes-{name}", "name": name, "value": value}
        ET.SubElement(attributes, "nvpair", pair)
    meta = ET.SubElement(primitive, "meta_attributes", {"id": f"{identifier}-meta_attributes"})
    again = {"id": f"{identifier}-meta_attributes-failure-timeout", "name": "failure-timeout"}
    ET.SubElement(meta, "nvpair", again | {"value": f"{START_AGAIN_SECONDS}s"})
    operations = ET.SubElement(primitive, "operations")
    start = {"id": f"{identifier}-start-interval-0s", "interval": "0s", "name": "start"}
    ET.SubElement(operations, "op", start | {"timeout": f"{START_LIMIT_SECONDS}s"})
    return primitive


def ban(node: str, identifier: str) -> ET.Element:
    """A node never executes its own fencing."""
    values = {"id": f"ban-{identifier}", "rsc": identifier, "node": node, "score": "-INFINITY"}
    return ET.Element("rsc_location", values)


def level_of(node: str, agent: Agent) -> ET.Element:
    """The topology level of one agent: gate first, then the device."""
    devices = f"{agent.gate_id(node)},{agent.device_id(node)}"
    values = {"id": agent.level_id(node), "target": node, "index": str(agent.level), "devices": devices}
    return ET.Element("fencing-level", values)


def agents_in(cib: ET.Element) -> dict[str, tuple[Agent, ...]]:
    """The shutdown agents of every node that has any, by node, in the order of registration."""
    found: dict[str, tuple[Agent, ...]] = {}
    first = AGENTS[0].device_id("")
    for primitive in cib.iterfind("./configuration/resources//primitive"):
        identifier, program = primitive.get("id", ""), primitive.get("type", "")
        if primitive.get("class") != "stonith":
            continue
        if program == XSCF_AGENT and identifier.startswith(first):
            found[identifier.removeprefix(first)] = AGENTS
        elif node := host_fencing.node_of(identifier, program):
            found.setdefault(node, (agent_of(program),))
    return found


def our_ids(cib: ET.Element, node: str) -> frozenset[str]:
    """Ids of everything that set-up makes for one node, in whichever kind it was registered."""
    found = set()
    agents = {*AGENTS, *agents_in(cib).get(node, ())}
    for constraint in cib.iterfind("./configuration/constraints/rsc_location"):
        # A ban whose device somebody has deleted.
        name, dash, of = constraint.get("rsc", "").partition("-")
        if name.startswith("SA_") and dash and of == node and constraint.get("id") == f"ban-{name}-{of}":
            found.add(f"ban-{name}-{of}")
    for agent in agents:
        device, gate = agent.device_id(node), agent.gate_id(node)
        found |= {device, gate, f"ban-{device}", f"ban-{gate}", agent.level_id(node)}
    return frozenset(found)


def parameters(primitive: ET.Element | None) -> dict[str, str]:
    """Instance attributes by name; empty for no device."""
    if primitive is None:
        return {}
    pairs = primitive.findall("./instance_attributes/nvpair")
    return {pair.get("name", ""): pair.get("value", "") for pair in pairs}


def by_id(cib: ET.Element, identifier: str) -> ET.Element | None:
    """The element of the configuration with this id."""
    configuration = cib.find("./configuration")
    # iter, not iterfind: daemons ask this all the time, and the path language is slow.
    below = () if configuration is None else configuration.iter()
    return next((found for found in below if found.get("id") == identifier), None)


def section(cib: ET.Element, name: str) -> ET.Element:
    """A section that every CIB has. Raises DeviceError."""
    found = cib.find(f"./configuration/{name}")
    if found is None:
        raise DeviceError(f"the CIB has no {name} section; it cannot be a whole CIB")
    return found


def update(there: ET.Element, made: ET.Element) -> None:
    """Give a device that exists the parameters of `made`; what else the user set on it stays."""
    attributes = there.find("instance_attributes")
    new = made.find("instance_attributes")
    if new is None:
        return
    if attributes is None:
        there.insert(0, new)
        return
    wanted = parameters(made)
    pairs = {pair.get("name", ""): pair for pair in attributes.findall("nvpair")}
    for pair in new:
        name = pair.get("name", "")
        if name in pairs and name in TUNABLE:
            continue
        if name in pairs:
            pairs[name].set("value", wanted[name])
        else:
            attributes.append(pair)
    if host_fencing.node_of(there.get("id", ""), there.get("type", "")):
        # All that is not ours is the host's: what only another host needs would make this aim at none.
        for name in host_fencing.of_host(pairs):
            if name not in wanted:
                attributes.remove(pairs[name])
    if "pcmk_delay_base" in pairs and "pcmk_delay_base" not in wanted:
        attributes.remove(pairs["pcmk_delay_base"])
