"""What is registered for a node, and the objects in the CIB that stand for it, both ways. Pure: XML to XML.

Rules of this file:

* Functions return a changed copy; the CIB that comes in stays as it is.
* A topology level is made or deleted, never changed in place: the fencers keep a retargeted level alive.
* Every change of set-up moves the record's epoch, so it is refused when a window opens meanwhile.
* What was there before the first node comes back with the last (`device_setup`).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from xml.etree import ElementTree as ET

from standfast.core import facility, host_fencing, record
from standfast.core.device_checks import refuse_foreign, refuse_references, refuse_unknown, refuse_window
from standfast.core.device_objects import (
    TUNABLE,
    DeviceError,
    ForeignError,
    NotRegisteredError,
    UnknownNodeError,
    WindowOpenError,
    agents_in,
    ban,
    by_id,
    device,
    gate,
    level_of,
    our_ids,
    parameters,
    section,
    update,
)
from standfast.core.device_setup import set_up, tear_down, topology_section
from standfast.core.names import GATE_AGENT, XSCF_AGENT
from standfast.core.registered import AGENTS, Agent, HostNode, Registered, XscfNode, head_start_seconds
from standfast.core.steps import HostEntry

ACCOUNT = ("username", "connection", "password_file", "legacy_algorithms")
"""Parameters of a device that are about the way in, not about whom it kills."""


def registered(cib: ET.Element) -> tuple[Registered, ...]:
    """All registered nodes in the order of registration, as they stand; `faults` judges them."""
    found = (_read(cib, node, agents) for node, agents in agents_in(cib).items())
    return tuple(entry for entry in found if entry is not None)


def find(cib: ET.Element, node: str) -> Registered | None:
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
        if not isinstance(entry, XscfNode):
            continue
        found = parameters_of(cib, AGENTS[0].device_id(entry.node))
        return {name: found[name] for name in ACCOUNT if name in found}
    return None


def faults(cib: ET.Element, node: Registered) -> tuple[str, ...]:
    """What of a registered node's objects is missing or not as set-up makes it, outside a window."""
    found = []
    for agent in node.agents:
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
                if agent.program != XSCF_AGENT and primitive.get("type") == agent.program:
                    wrong += sorted(set(host_fencing.of_host(there)) - set(expected))
                if wrong:
                    found.append(f"{identifier} has another {', '.join(wrong)}")
            banned = by_id(cib, f"ban-{identifier}")
            if banned is None or banned.attrib != ban(node.node, identifier).attrib:
                found.append(f"{identifier} is not banned from {node.node}")
        level = by_id(cib, agent.level_id(node.node))
        if level is None or level.attrib != level_of(node.node, agent).attrib:
            found.append(f"fencing level {agent.level_id(node.node)} is missing or changed")
    return tuple(found)


def with_node(cib: ET.Element, node: Registered) -> ET.Element:
    """A copy of `cib` in which `node` is registered, anew or with other data.

    The first node also brings the record and the option that keeps the controller from giving up.
    Raises DeviceError (a subclass of it) when something that is not ours is in the way or a window is open.
    """
    wanted = copy.deepcopy(cib)
    refuse_window(wanted)
    refuse_unknown(wanted, node.node)
    refuse_foreign(wanted, node.node, node.agents)
    if record.find_set(wanted) is None:
        set_up(wanted)
    else:
        _move_epoch(wanted)
    resources, constraints = section(wanted, "resources"), section(wanted, "constraints")
    for agent in node.agents:
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
    ours = our_ids(wanted, node)
    if not any(by_id(wanted, identifier) is not None for identifier in ours):
        raise NotRegisteredError(f"nothing is registered for {node}")
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


def reaim(cib: ET.Element, node: str, host: HostEntry) -> ET.Element:
    """A copy of `cib` in which the agents of `node` aim at `host`; topology and record as they are.

    Raises NotRegisteredError, DeviceError where the host is not for such agents; WindowOpenError never:
    re-aiming belongs to closing a window.
    """
    wanted = copy.deepcopy(cib)
    before = find(wanted, node)
    if before is None:
        raise NotRegisteredError(f"nothing is registered for {node}")
    after = _aimed(before, host)
    for agent in after.agents:
        for made in (gate(after, agent), device(after, agent)):
            there = by_id(wanted, made.get("id", ""))
            if there is None:
                again = "clsnmpsetup -m" if isinstance(after, XscfNode) else f"standfast node change {node}"
                raise NotRegisteredError(f"{made.get('id')} is missing; register {node} again: {again}")
            update(there, made)
    return wanted


def _aimed(before: Registered, host: HostEntry) -> Registered:
    if isinstance(before, XscfNode):
        if host.kind != "ldm":
            text = f"{before.node} has agents of an XSCF, and {host.name} is of kind {host.kind}"
            raise DeviceError(f"{text}; type: clsnmpsetup -d {before.node}, then standfast node add")
        moved = replace(before, ppar_id=host.ppar_id, lan0=host.lan0, lan1=host.lan1, weight=host.weight)
        return moved.checked()
    if host.agent != before.agent:
        text = f"{before.node} has the agent {before.agent}, and {host.name} {host.agent or 'none'}"
        raise DeviceError(f"{text} in clovmmigrate.conf")
    return replace(before, reach=host.reach, weight=host.weight).checked()


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
    for agent in agents_in(cib).get(node, ()):
        identifier = agent.device_id(node)
        path = f"./status/node_state[@uname='{own_node}']/lrm/lrm_resources/lrm_resource[@id='{identifier}']"
        operations = cib.findall(f"{path}/lrm_rsc_op[@operation='start']")
        if any(operation.get("rc-code") not in ("0", "193") for operation in operations):
            found.append(identifier)
    return tuple(found)


def _read(cib: ET.Element, node: str, agents: tuple[Agent, ...]) -> Registered | None:
    devices = {agent.level: parameters(by_id(cib, agent.device_id(node))) for agent in agents}
    gate = parameters(by_id(cib, agents[0].gate_id(node)))
    first = devices[1]
    try:
        weight = int(gate.get("weight", "1"))
        if agents != AGENTS:
            reach = tuple(sorted(host_fencing.of_host(first).items()))
            return HostNode(node, first[host_fencing.PLUG], agents[0].program, reach, weight)
        return XscfNode(
            node=node,
            domain=first["domain"],
            ppar_id=int(first["ppar_id"]),
            lan0=first["ip"],
            lan1=devices[2].get("ip", ""),
            user=first["username"],
            connection=first["connection"],
            weight=weight,
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
    "HostNode",
    "NotRegisteredError",
    "Registered",
    "UnknownNodeError",
    "WindowOpenError",
    "XscfNode",
    "account",
    "agents_in",
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
