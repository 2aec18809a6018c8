"""Is what a node's running fencer has what the configuration says? Pure: XML and a mapping in, sentences out.

The configuration is what fencing is meant to be; the running fencer is what will be done. They part for a
moment after every change, for good where somebody has registered or removed a device by hand
(``stonith_admin``), and where a fencer has missed a change. A proof that asks an agent with the parameters of
the configuration says nothing of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.core import devices, topology
from standfast.core.topology import Device

MAX_SAID_CHARS = 160


@dataclass(frozen=True)
class RunningDevice:
    """A device as a node's fencer has it now, whatever the CIB says."""

    agent: str
    parameters: Mapping[str, str]


def key(target: str, device: str) -> str:
    """How a device of `target`'s fencing is called in reports."""
    return f"{target} {device}"


def expected(cib: ET.Element, node: str) -> dict[str, Device]:
    """The devices of all registered nodes' fencing levels that `node`'s fencer must have, by `key`.

    Not those that are banned from it or stopped: Pacemaker does not register them there (fenced, cib_devices_
    update; the same in the lab).
    """
    known = topology.devices(cib)
    stopped = _stopped(cib)
    banned = _banned(cib, node)
    found: dict[str, Device] = {}
    for entry in devices.registered(cib):
        for level in topology.levels_for(cib, entry.node, known):
            for device in level.devices:
                if device.agent and device.id not in stopped and device.id not in banned:
                    found[key(entry.node, device.id)] = device
    return found


def differences(wanted: Mapping[str, Device], running: Mapping[str, RunningDevice]) -> dict[str, str]:
    """`key` -> in what the running one is another than the wanted one; those that agree are missing."""
    found = {}
    for name, device in wanted.items():
        if why := _difference(device, running.get(device.id)):
            found[name] = why[:MAX_SAID_CHARS]
    return found


def _difference(wanted: Device, there: RunningDevice | None) -> str:
    if there is None:
        return "the running fencer does not have it"
    if there.agent != wanted.agent:
        return f"the running fencer has the agent {there.agent}, configured is {wanted.agent}"
    names = sorted(filter(_for_the_agent, {*wanted.parameters, *there.parameters}))
    pairs = [(name, there.parameters.get(name), wanted.parameters.get(name)) for name in names]
    odd = [f"{name} {has or '(none)'} not {right or '(none)'}" for name, has, right in pairs if has != right]
    return f"the running fencer has {', '.join(odd)}" if odd else ""


def _for_the_agent(name: str) -> bool:
    """Not what a device has of the operation that started it: then the executor registers it, and where that
    comes after the fencer's own reading of the configuration these stay with it. They are no part of it to
    Pacemaker either, which compares devices without them and keeps them from the agent (device_params_diff in
    fenced_commands.c, append_config_arg in lib/fencing/st_actions.c)."""
    return not name.startswith("CRM_meta_") and name != "crm_feature_set"


def _banned(cib: ET.Element, node: str) -> frozenset[str]:
    return frozenset(
        rule.get("rsc", "")
        for rule in cib.iterfind("./configuration/constraints/rsc_location")
        if rule.get("node", "").casefold() == node.casefold() and rule.get("score") == "-INFINITY"
    )


def _stopped(cib: ET.Element) -> frozenset[str]:
    return frozenset(
        primitive.get("id", "")
        for primitive in cib.iterfind("./configuration/resources//primitive")
        for pair in primitive.iterfind("./meta_attributes/nvpair")
        if pair.get("name") == "target-role" and pair.get("value", "").lower() == "stopped"
    )
