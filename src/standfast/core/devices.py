"""A node's XSCF data and the objects in the CIB that stand for it, both ways. Pure: XML in, XML out.

Rules of this file:

* Functions return a changed copy; the CIB that comes in stays as it is.
* A topology level is made or deleted, never changed in place: the fencers keep a retargeted level alive.
* Every change of set-up moves the record's epoch, so it is refused when a window opens meanwhile.
* What was there before the first node comes back with the last (`device_setup`).
"""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

from standfast.core import facility, record
from standfast.core.device_checks import refuse_foreign, refuse_references, refuse_unknown, refuse_window
from standfast.core.device_objects import (
    AGENTS,
    TUNABLE,
    Agent,
    DeviceError,
    ForeignError,
    NotRegisteredError,
    UnknownNodeError,
    WindowOpenError,
    XscfNode,
    ban,
    by_id,
    device,
    gate,
    head_start_seconds,
    level_of,
    our_ids,
    parameters,
    section,
    update,
)
from standfast.core.device_setup import set_up, tear_down, topology_section
from standfast.core.names import GATE_AGENT, XSCF_AGENT

ACCOUNT = ("username", "connection", "password_file", "legacy_algorithms")
"""Parameters of a device that are about the way in, not about whom it kills."""


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


def parameters_of(cib: ET.Element, device_id: str) -> dict[str, str]:
    """The parameters of one device, as the fencer hands them to the agent; empty where there is none."""
    return parameters(by_id(cib, device_id))


def account(cib: ET.Element) -> dict[str, str] | None:
    """How to log in at any XSCF: parameters of one registered device, since they must be the same at all.

    None while no node is registered.
    """
    for entry in registered(cib):
        found = parameters_of(cib, AGENTS[0].device_id(entry.node))
        return {name: found[name] for name in ACCOUNT if name in found}
    return None


def faults(cib: ET.Element, node: XscfNode) -> tuple[str, ...]:
    """What of a registered node's objects is missing or not as set-up makes it, outside a window."""
    found = []
    for agent in AGENTS:
        for wanted in (device(node, agent), gate(node, agent)):
            identifier = wanted.get("id", "")
            primitive = by_id(cib, identifier)
            if primitive is None:
                found.append(f"{identifier} is missing")
            else:
                there, expected = parameters(primitive), parameters(wanted)
                wrong = sorted(
                    name for name in expected if there.get(name) != expected[name] and name not in TUNABLE
                )
                if wrong:
                    found.append(f"{identifier} has another {', '.join(wrong)}")
            banned = by_id(cib, f"ban-{identifier}")
            if banned is None or banned.attrib != ban(node.node, identifier).attrib:
                found.append(f"{identifier} is not banned from {node.node}")
        level = by_id(cib, agent.level_id(node.node))
        if level is None or level.attrib != level_of(node.node, agent).attrib:
            found.append(f"fencing level {agent.level_id(node.node)} is missing or changed")
    return tuple(found)


def with_node(cib: ET.Element, node: XscfNode) -> ET.Element:
    """A copy of `cib` in which `node` is registered, anew or with other data.

    The first node also brings the record and the option that keeps the controller from giving up.
    Raises DeviceError (a subclass of it) when something that is not ours is in the way or a window is open.
    """
    wanted = copy.deepcopy(cib)
    refuse_window(wanted)
    refuse_unknown(wanted, node.node)
    refuse_foreign(wanted, node.node)
    if record.find_set(wanted) is None:
        set_up(wanted)
    else:
        _move_epoch(wanted)
    resources, constraints = section(wanted, "resources"), section(wanted, "constraints")
    for agent in AGENTS:
        for primitive in (gate(node, agent), device(node, agent)):
            _put(resources, primitive)
            _put(constraints, ban(node.node, primitive.get("id", "")))
        level = level_of(node.node, agent)
        if by_id(wanted, level.get("id", "")) is None:
            topology_section(wanted).append(level)
    return wanted


def without_node(cib: ET.Element, node: str) -> ET.Element:
    """A copy of `cib` without anything of `node`; without the last node it is as before the first.

    Raises NotRegisteredError, WindowOpenError, or ForeignError when the user's own objects refer to ours.
    """
    wanted = copy.deepcopy(cib)
    refuse_window(wanted)
    ours = our_ids(node)
    if not any(by_id(wanted, identifier) is not None for identifier in ours):
        raise NotRegisteredError(f"no XSCF data is registered for {node}")
    refuse_references(wanted, ours)
    for parent in wanted.findall("./configuration//*"):
        for child in list(parent):
            if child.get("id") in ours:
                parent.remove(child)
    left = wanted.iterfind("./configuration/resources//primitive")
    if any(primitive.get("type") == GATE_AGENT for primitive in left):
        _move_epoch(wanted, gone=node)
    else:
        tear_down(wanted)
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
        for made in (gate(after, agent), device(after, agent)):
            there = by_id(wanted, made.get("id", ""))
            if there is None:
                raise NotRegisteredError(
                    f"{made.get('id')} is missing; register {node} again: clsnmpsetup -m"
                )
            update(there, made)
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


def _read(cib: ET.Element, node: str) -> XscfNode | None:
    devices = {agent.level: by_id(cib, agent.device_id(node)) for agent in AGENTS}
    first, second = (parameters(devices[level]) for level in (1, 2))
    gate = parameters(by_id(cib, AGENTS[0].gate_id(node)))
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


def _put(section: ET.Element, made: ET.Element) -> None:
    there = next((child for child in section if child.get("id") == made.get("id")), None)
    if there is None:
        section.append(made)
    elif made.tag == "primitive":
        update(there, made)
    else:
        there.attrib.clear()
        there.attrib.update(made.attrib)


def _move_epoch(cib: ET.Element, gone: str = "") -> None:
    """`gone`: a node that is not registered any more; with nodes that the cluster does not know any more it
    leaves the list of stopped facilities."""
    current = record.read(cib)
    if current is not None:
        known = facility.configured(cib)
        record.write(cib, current.next(stopped=facility.without(current, gone, known)))


__all__ = [
    "AGENTS",
    "Agent",
    "DeviceError",
    "ForeignError",
    "NotRegisteredError",
    "UnknownNodeError",
    "WindowOpenError",
    "XscfNode",
    "account",
    "failed_starts",
    "faults",
    "find",
    "head_start_seconds",
    "parameters_of",
    "reaim",
    "registered",
    "same_configuration",
    "with_node",
    "without_node",
]
