"""A node's XSCF data and the objects in the CIB that stand for it, both ways. Pure: XML in, XML out.

For each registered node there are four shutdown agents in a fixed order (PRIMECLUSTER Cluster Foundation
guide 4.5, 7.3.3): panic over LAN#0, panic over LAN#1, reset over LAN#0, reset over LAN#1. Each agent is a
fence device with a gate in front of it, the two are one level of the node's fencing topology, and both are
banned from the node itself.

Rules of this file:

* Functions return a changed copy; the CIB that comes in stays as it is.
* One gate device a level: the fencer uses a device once per operation and peer.
* A topology level is made anew or deleted, never changed in place: the fencers keep a retargeted level alive.
* Every change of set-up moves the record's epoch, so it is refused when a window opens meanwhile.
* What was there before the first node is remembered in the record's set and comes back with the last.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.core import fields, record
from standfast.core.names import GATE_AGENT, RECORD_SET_ID, XSCF_AGENT, secret_file

MAX_HEAD_START_SECONDS = 10
MAX_ATTEMPTS = "stonith-max-attempts"
MAX_ATTEMPTS_NAMES = (MAX_ATTEMPTS, "fencing-max-attempts")
"""Old and new name of the option. Ten quick refusals would make the controller give up on a node for good."""
USER_SET_ID = "cib-bootstrap-options"
"""The set that crm_attribute writes to when it is not told another."""
MADE_ID = f"{RECORD_SET_ID}-made"
MADE_NAME = f"{record.PREFIX}made"
"""What set-up had to make that an empty CIB lacks: its removal takes exactly that away again."""


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


def registered(cib: ET.Element) -> tuple[XscfNode, ...]:
    """All registered nodes in the order of registration, as they stand; `faults` judges them."""
    found = []
    prefix = AGENTS[0].device_id("")
    for primitive in cib.iterfind("./configuration/resources//primitive"):
        identifier = primitive.get("id", "")
        if identifier.startswith(prefix) and primitive.get("type") == XSCF_AGENT:
            node = _read(cib, identifier.removeprefix(prefix))
            if node is not None:
                found.append(node)
    return tuple(found)


def find(cib: ET.Element, node: str) -> XscfNode | None:
    """What is registered for one node."""
    return next((entry for entry in registered(cib) if entry.node == node), None)


def faults(cib: ET.Element, node: XscfNode) -> tuple[str, ...]:
    """What of a registered node's objects is missing or not as set-up makes it, outside a window."""
    found = []
    for agent in AGENTS:
        for wanted in (_device(node, agent), _gate(node, agent)):
            identifier = wanted.get("id", "")
            primitive = _by_id(cib, identifier)
            if primitive is None:
                found.append(f"{identifier} is missing")
            else:
                there, expected = _parameters(primitive), _parameters(wanted)
                wrong = sorted(name for name in expected if there.get(name) != expected[name])
                if wrong:
                    found.append(f"{identifier} has another {', '.join(wrong)}")
            ban = _by_id(cib, f"ban-{identifier}")
            if ban is None or ban.attrib != _ban(node.node, identifier).attrib:
                found.append(f"{identifier} is not banned from {node.node}")
        level = _by_id(cib, agent.level_id(node.node))
        if level is None or level.attrib != _level(node.node, agent).attrib:
            found.append(f"fencing level {agent.level_id(node.node)} is missing or changed")
    return tuple(found)


def with_node(cib: ET.Element, node: XscfNode) -> ET.Element:
    """A copy of `cib` in which `node` is registered, anew or with other data.

    The first node also brings the record and the option that keeps the controller from giving up.
    Raises DeviceError (a subclass of it) when something that is not ours is in the way or a window is open.
    """
    wanted = copy.deepcopy(cib)
    _refuse_window(wanted)
    _refuse_unknown(wanted, node.node)
    _refuse_foreign(wanted, node.node)
    if record.find_set(wanted) is None:
        _set_up(wanted)
    else:
        _move_epoch(wanted)
    resources, constraints = _section(wanted, "resources"), _section(wanted, "constraints")
    for agent in AGENTS:
        for primitive in (_gate(node, agent), _device(node, agent)):
            _put(resources, primitive)
            _put(constraints, _ban(node.node, primitive.get("id", "")))
        level = _level(node.node, agent)
        if _by_id(wanted, level.get("id", "")) is None:
            _topology(wanted).append(level)
    return wanted


def without_node(cib: ET.Element, node: str) -> ET.Element:
    """A copy of `cib` without anything of `node`; without the last node it is as before the first.

    Raises NotRegisteredError, WindowOpenError, or ForeignError when the user's own objects refer to ours.
    """
    wanted = copy.deepcopy(cib)
    _refuse_window(wanted)
    ours = _our_ids(node)
    if not any(_by_id(wanted, identifier) is not None for identifier in ours):
        raise NotRegisteredError(f"no XSCF data is registered for {node}")
    _refuse_references(wanted, ours)
    for parent in wanted.findall("./configuration//*"):
        for child in list(parent):
            if child.get("id") in ours:
                parent.remove(child)
    if registered(wanted) or record.find_set(wanted) is None:
        _move_epoch(wanted)
    else:
        _tear_down(wanted)
    return wanted


def reaim(cib: ET.Element, node: str, ppar_id: int, lan0: str, lan1: str, weight: int) -> ET.Element:
    """A copy of `cib` in which the agents of `node` aim at another XSCF; topology and record as they are.

    Raises NotRegisteredError; WindowOpenError never: re-aiming belongs to closing a window.
    """
    wanted = copy.deepcopy(cib)
    before = find(wanted, node)
    if before is None:
        raise NotRegisteredError(f"no XSCF data is registered for {node}")
    after = XscfNode(
        node, before.domain, ppar_id, lan0, lan1, before.user, before.connection, weight
    ).checked()
    for agent in AGENTS:
        for made in (_gate(after, agent), _device(after, agent)):
            there = _by_id(wanted, made.get("id", ""))
            if there is None:
                raise NotRegisteredError(
                    f"{made.get('id')} is missing; register {node} again: clsnmpsetup -m"
                )
            _update(there, made)
    return wanted


def same_configuration(one: ET.Element, other: ET.Element) -> bool:
    """Whether two CIBs are configured alike, whatever their version numbers and status."""

    def canonical(cib: ET.Element) -> str:
        found = cib.find("./configuration")
        return (
            "" if found is None else ET.canonicalize(ET.tostring(found, encoding="unicode"), strip_text=True)
        )

    return canonical(one) == canonical(other)


def failed_starts(cib: ET.Element, own_node: str, node: str) -> tuple[str, ...]:
    """Devices of `node` whose start has failed on `own_node`: they stay stopped until they are cleaned up."""
    found = []
    for agent in AGENTS:
        identifier = agent.device_id(node)
        path = f"./status/node_state[@uname='{own_node}']/lrm/lrm_resources/lrm_resource[@id='{identifier}']"
        operations = cib.findall(f"{path}/lrm_rsc_op[@operation='start']")
        if any(operation.get("rc-code") not in ("0", "193") for operation in operations):
            found.append(identifier)
    return tuple(found)


def _device(node: XscfNode, agent: Agent) -> ET.Element:
    return _primitive(
        agent.device_id(node.node),
        XSCF_AGENT,
        {
            "pcmk_host_list": node.node,
            "ip": node.lan1 if agent.lan else node.lan0,
            "username": node.user,
            "ppar_id": str(node.ppar_id),
            "domain": node.domain,
            "connection": node.connection,
            "kill": agent.kill,
            "password_file": secret_file(node.node),
        },
    )


def _gate(node: XscfNode, agent: Agent) -> ET.Element:
    values = {
        "pcmk_host_list": node.node,
        "pcmk_off_retries": "1",
        "pcmk_reboot_retries": "1",
        "weight": str(node.weight),
    }
    if agent.level == 1 and head_start_seconds(node.weight):
        values["pcmk_delay_base"] = f"{head_start_seconds(node.weight)}s"
    return _primitive(agent.gate_id(node.node), GATE_AGENT, values)


def _primitive(identifier: str, agent: str, values: dict[str, str]) -> ET.Element:
    primitive = ET.Element("primitive", {"id": identifier, "class": "stonith", "type": agent})
    attributes = ET.SubElement(primitive, "instance_attributes", {"id": f"{identifier}-instance_attributes"})
    for name, value in values.items():
        pair = {"id": f"{identifier}-instance_attributes-{name}", "name": name, "value": value}
        ET.SubElement(attributes, "nvpair", pair)
    return primitive


def _ban(node: str, identifier: str) -> ET.Element:
    values = {"id": f"ban-{identifier}", "rsc": identifier, "node": node, "score": "-INFINITY"}
    return ET.Element("rsc_location", values)


def _level(node: str, agent: Agent) -> ET.Element:
    devices = f"{agent.gate_id(node)},{agent.device_id(node)}"
    values = {"id": agent.level_id(node), "target": node, "index": str(agent.level), "devices": devices}
    return ET.Element("fencing-level", values)


def _read(cib: ET.Element, node: str) -> XscfNode | None:
    devices = {agent.level: _by_id(cib, agent.device_id(node)) for agent in AGENTS}
    first, second = (_parameters(devices[level]) for level in (1, 2))
    gate = _parameters(_by_id(cib, AGENTS[0].gate_id(node)))
    try:
        return XscfNode(
            node=node,
            domain=first["domain"],
            ppar_id=int(first["ppar_id"]),
            lan0=first["ip"],
            lan1=second.get("ip", ""),
            user=first["username"],
            connection=first["connection"],
            weight=int(gate.get("weight", "1")),
        )
    except (KeyError, ValueError):
        return None


def _parameters(primitive: ET.Element | None) -> dict[str, str]:
    if primitive is None:
        return {}
    pairs = primitive.findall("./instance_attributes/nvpair")
    return {pair.get("name", ""): pair.get("value", "") for pair in pairs}


def _update(there: ET.Element, made: ET.Element) -> None:
    """Give a device that exists the parameters of `made`; what else the user set on it stays."""
    attributes = there.find("instance_attributes")
    new = made.find("instance_attributes")
    if new is None:
        return
    if attributes is None:
        there.insert(0, new)
        return
    wanted = _parameters(made)
    pairs = {pair.get("name", ""): pair for pair in attributes.findall("nvpair")}
    for pair in new:
        name = pair.get("name", "")
        if name in pairs:
            pairs[name].set("value", wanted[name])
        else:
            attributes.append(pair)
    if "pcmk_delay_base" in pairs and "pcmk_delay_base" not in wanted:
        attributes.remove(pairs["pcmk_delay_base"])


def _put(section: ET.Element, made: ET.Element) -> None:
    there = next((child for child in section if child.get("id") == made.get("id")), None)
    if there is None:
        section.append(made)
    elif made.tag == "primitive":
        _update(there, made)
    else:
        there.attrib.clear()
        there.attrib.update(made.attrib)


def _our_ids(node: str) -> frozenset[str]:
    found = set()
    for agent in AGENTS:
        device, gate = agent.device_id(node), agent.gate_id(node)
        found |= {device, gate, f"ban-{device}", f"ban-{gate}", agent.level_id(node)}
    return frozenset(found)


def _by_id(cib: ET.Element, identifier: str) -> ET.Element | None:
    return next(
        (found for found in cib.iterfind("./configuration//*") if found.get("id") == identifier), None
    )


def _section(cib: ET.Element, name: str) -> ET.Element:
    found = cib.find(f"./configuration/{name}")
    if found is None:
        raise DeviceError(f"the CIB has no {name} section; it cannot be a whole CIB")
    return found


def _topology(cib: ET.Element) -> ET.Element:
    """The topology section; the schema wants it after the constraints and before everything else optional."""
    found = cib.find("./configuration/fencing-topology")
    if found is None:
        configuration = cib.find("./configuration")
        if configuration is None:
            raise DeviceError("the CIB has no configuration")
        found = ET.Element("fencing-topology")
        before = [child.tag for child in configuration]
        place = before.index("constraints") + 1 if "constraints" in before else len(before)
        configuration.insert(place, found)
        _remember(cib, "fencing-topology")
    return found


def _refuse_window(cib: ET.Element) -> None:
    try:
        current = record.read(cib)
    except record.RecordError as error:
        raise DeviceError(f"the record of the window is unusable: {error}") from None
    if current is not None and current.open:
        who = f" for {current.mover}" if current.mover else ""
        raise WindowOpenError(f"a migration window{who} is {current.phase.value}")


def _refuse_unknown(cib: ET.Element, node: str) -> None:
    nodes = [entry.get("uname", "") for entry in cib.iterfind("./configuration/nodes/node")]
    if node not in nodes:
        raise UnknownNodeError(
            f"{node} is no node of this cluster; its nodes are {', '.join(nodes) or 'none'}"
        )


def _refuse_foreign(cib: ET.Element, node: str) -> None:
    """Levels that decide about `node` but are not ours, and things that have our ids but are not ours."""
    for level in cib.iterfind("./configuration/fencing-topology/fencing-level"):
        ours = next(
            (_level(node, agent) for agent in AGENTS if agent.level_id(node) == level.get("id")), None
        )
        if ours is not None and ours.attrib != level.attrib:
            text = (
                f"fencing level {level.get('id')} is not as it was made; delete {node} (-d), then add it (-a)"
            )
            raise ForeignError(text)
        if ours is None and _covers(cib, level, node):
            raise ForeignError(f"{node} has a fencing level of its own, {level.get('id')}; remove it first")
    wanted = {agent.device_id(node): XSCF_AGENT for agent in AGENTS}
    wanted |= {agent.gate_id(node): GATE_AGENT for agent in AGENTS}
    for found in cib.iterfind("./configuration//*"):
        identifier = found.get("id", "")
        if identifier in wanted and (found.tag, found.get("type")) != ("primitive", wanted[identifier]):
            raise ForeignError(f"the id {identifier} is in use by a {found.tag} that is not ours")
        if identifier in wanted and found not in list(_section(cib, "resources")):
            raise ForeignError(f"{identifier} is inside a group or clone; take it out first")
        is_ban = identifier.startswith("ban-") and identifier.removeprefix("ban-") in wanted
        if is_ban and (found.tag, found.get("rsc")) != ("rsc_location", identifier.removeprefix("ban-")):
            raise ForeignError(f"the id {identifier} is in use by a {found.tag} that is not ours")


def _covers(cib: ET.Element, level: ET.Element, node: str) -> bool:
    """Whether a topology level decides about `node`. What cannot be told counts as yes."""
    if level.get("target") is not None:
        return (level.get("target") or "").lower() == node.lower()
    pattern = level.get("target-pattern")
    if pattern is not None:
        try:
            return re.search(pattern, node, re.IGNORECASE) is not None
        except re.error:
            return True
    name, value = level.get("target-attribute"), level.get("target-value")
    configured = cib.findall(f"./configuration/nodes/node[@uname='{node}']//nvpair")
    transient = cib.findall(f"./status/node_state[@uname='{node}']/transient_attributes//nvpair")
    return any((pair.get("name"), pair.get("value")) == (name, value) for pair in (*configured, *transient))


def _refuse_references(cib: ET.Element, ours: frozenset[str]) -> None:
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


def _move_epoch(cib: ET.Element) -> None:
    current = record.read(cib)
    if current is not None:
        record.write(cib, current.next())


def _max_attempts(cib: ET.Element) -> list[ET.Element]:
    return list(_user_pairs(cib, MAX_ATTEMPTS_NAMES))


def _user_pairs(cib: ET.Element, wanted: tuple[str, ...]) -> Iterator[ET.Element]:
    for options in cib.iterfind("./configuration/crm_config/cluster_property_set"):
        if options.get("id") != RECORD_SET_ID:
            yield from (pair for pair in options.iterfind("nvpair") if pair.get("name") in wanted)


def _set_up(cib: ET.Element) -> None:
    """Before the first node: the record, and the option in the user's own set, where it is honoured."""
    pairs = _max_attempts(cib)
    if len(pairs) > 1:
        ids = ", ".join(pair.get("id", "") for pair in pairs)
        raise ForeignError(f"{MAX_ATTEMPTS} is set more than once ({ids}); leave one")
    record.write(cib, record.Record.fresh(pairs[0].get("value", "") if pairs else ""))
    own = record.find_set(cib)
    if own is not None:
        ET.SubElement(own, "nvpair", {"id": MADE_ID, "name": MADE_NAME, "value": ""})
    if pairs:
        pairs[0].set("value", "INFINITY")
        return
    options = _by_id(cib, USER_SET_ID)
    if options is None:
        options = ET.Element("cluster_property_set", {"id": USER_SET_ID})
        _section(cib, "crm_config").insert(0, options)
        _remember(cib, USER_SET_ID)
    pair = {"id": f"{USER_SET_ID}-{MAX_ATTEMPTS}", "name": MAX_ATTEMPTS, "value": "INFINITY"}
    ET.SubElement(options, "nvpair", pair)


def _tear_down(cib: ET.Element) -> None:
    """After the last node: back to what was there before the first."""
    current, own = record.read(cib), record.find_set(cib)
    if current is None or own is None:
        return
    made = (_parameters_of_set(own).get(MADE_NAME) or "").split()
    crm_config = _section(cib, "crm_config")
    for pair in _max_attempts(cib):
        # A value that is no longer ours is the user's, written since.
        if pair.get("value") == "INFINITY":
            if current.stonith_max_attempts:
                pair.set("value", current.stonith_max_attempts)
            else:
                _remove(crm_config, pair)
    crm_config.remove(own)
    for parent, identifier in ((crm_config, USER_SET_ID), (cib.find("./configuration"), "fencing-topology")):
        for child in list(parent) if parent is not None else []:
            if identifier in made and identifier in (child.get("id"), child.tag) and len(child) == 0:
                _remove(cib, child)


def _remember(cib: ET.Element, what: str) -> None:
    own = record.find_set(cib)
    pairs = [] if own is None else [pair for pair in own if pair.get("name") == MADE_NAME]
    for pair in pairs:
        pair.set("value", " ".join(sorted({*pair.get("value", "").split(), what})))


def _parameters_of_set(options: ET.Element) -> dict[str, str]:
    return {pair.get("name", ""): pair.get("value", "") for pair in options.iterfind("nvpair")}


def _remove(root: ET.Element, wanted: ET.Element) -> None:
    for parent in root.iter():
        if wanted in list(parent):
            parent.remove(wanted)
            return
