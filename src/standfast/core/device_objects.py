"""What stands in the CIB for one registered node: its agents, and how each of their objects looks.

Four shutdown agents in a fixed order (PRIMECLUSTER Cluster Foundation guide 4.5, 7.3.3): panic over LAN#0,
panic over LAN#1, reset over LAN#0, reset over LAN#1. Each is a fence device with a gate in front of it; the
two are one level of the node's fencing topology, and both are banned from the node itself. One gate device a
level: the fencer uses a device once per operation and peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.core import fields
from standfast.core.names import GATE_AGENT, XSCF_AGENT, secret_file

MAX_HEAD_START_SECONDS = 10


class DeviceError(Exception):
    """The CIB is not as set-up needs it. The text says what is in the way; nothing was changed."""


class UnknownNodeError(DeviceError):
    """The cluster has no node of this name."""


class NotRegisteredError(DeviceError):
    """No XSCF data is registered for this node."""


class ForeignError(DeviceError):
    """Fencing levels, devices or ids that set-up did not make are in the way."""


class WindowOpenError(DeviceError):
    """A window is open; its devices are not touched."""


@dataclass(frozen=True)
class Agent:
    """One of the four shutdown agents. `level` is its place in the order, from 1."""

    level: int
    name: str
    lan: int
    kill: str

    @property
    def shown(self) -> str:
        """The name as the manual's listings print it."""
        return f"{self.name}.so"

    def device_id(self, node: str) -> str:
        """Id of the fence device in the CIB."""
        return f"{self.name}-{node}"

    def gate_id(self, node: str) -> str:
        """Id of the gate in front of it."""
        return f"gate-{node}-{self.level}"

    def level_id(self, node: str) -> str:
        """Id of the topology level."""
        return f"fl-{node}-{self.level}"


AGENTS = (
    Agent(1, "SA_xscfsnmpg0p", 0, "panic"),
    Agent(2, "SA_xscfsnmpg1p", 1, "panic"),
    Agent(3, "SA_xscfsnmpg0r", 0, "sir"),
    Agent(4, "SA_xscfsnmpg1r", 1, "sir"),
)


@dataclass(frozen=True)
class XscfNode:
    """What is registered for a cluster node: its logical domain, the XSCF in charge of it, the weight."""

    node: str
    domain: str
    ppar_id: int
    lan0: str
    lan1: str
    user: str
    connection: str
    weight: int = 1

    def checked(self) -> XscfNode:
        """The same, every field checked and in its kept form. Raises fields.FieldError naming the field."""
        checks = {
            "node": fields.name,
            "domain": fields.domain,
            "ppar_id": fields.ppar_id,
            "lan0": fields.address,
            "lan1": fields.address,
            "user": fields.user,
            "connection": lambda text: fields.one_of(text, fields.CONNECTIONS),
            "weight": fields.weight,
        }
        values = {}
        for field, check in checks.items():
            value = getattr(self, field)
            try:
                values[field] = check(value)  # type: ignore[operator]
            except fields.FieldError as error:
                raise fields.FieldError(f"{field} {value!r}: {error}") from None
        if values["lan0"] == values["lan1"]:
            raise fields.FieldError(f"lan1 {self.lan1!r}: must differ from lan0, it is the second way")
        return XscfNode(**values)


def head_start_seconds(weight: int) -> int:
    """How much later a node of this weight is killed in a split: one second a point above 1, at most 10."""
    return min(weight - 1, MAX_HEAD_START_SECONDS)


GATE_LIMIT_SECONDS = 20
"""The gate answers within 15 s."""
DEVICE_LIMIT_SECONDS = 75
_LIMITS = {
    # One dead way must not use up the time of the next: one try a level, and limits whose worst sum (login,
    # two answers, proof, the doubtful case) ends before Pacemaker's own.
    "pcmk_off_retries": "1",
    "pcmk_reboot_retries": "1",
    "pcmk_off_timeout": f"{DEVICE_LIMIT_SECONDS}s",
    "pcmk_reboot_timeout": f"{DEVICE_LIMIT_SECONDS}s",
    "login_timeout": "10",
    "shell_timeout": "5",
    "power_timeout": "30",
}


TUNABLE = frozenset(_LIMITS)
"""Limits are set once; what an administrator makes of them stays."""


def device(node: XscfNode, agent: Agent) -> ET.Element:
    """The fence device that kills through one LAN in one way. Its password stays in a file on each node."""
    return primitive(
        agent.device_id(node.node),
        XSCF_AGENT,
        {
            "pcmk_host_list": node.node,
            **_LIMITS,
            "ip": node.lan1 if agent.lan else node.lan0,
            "username": node.user,
            "ppar_id": str(node.ppar_id),
            "domain": node.domain,
            "connection": node.connection,
            "kill": agent.kill,
            "password_file": secret_file(node.node),
        },
    )


def gate(node: XscfNode, agent: Agent) -> ET.Element:
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


def our_ids(node: str) -> frozenset[str]:
    """Ids of everything that set-up makes for one node."""
    found = set()
    for agent in AGENTS:
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
    return next(
        (found for found in cib.iterfind("./configuration//*") if found.get("id") == identifier), None
    )


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
    if "pcmk_delay_base" in pairs and "pcmk_delay_base" not in wanted:
        attributes.remove(pairs["pcmk_delay_base"])
