"""What the gate sees: this node's own cluster daemons, and what follows from them for one target.

Only the OWN node's controller is asked: of any other, and with ``crmadmin -D``, the question hangs while the
ring waits for a frozen member. `crm_node -p` and the local CIB copy answer in a stall
too (measured: 8-30 ms).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.commands.gate_children import Child
from standfast.core import fields, topology
from standfast.core import record as records
from standfast.core.host_fencing import of_host
from standfast.core.hostlist import ControlDomain
from standfast.core.names import XSCF_AGENT
from standfast.core.record import Record, RecordError
from standfast.core.topology import Level

_STATE = re.compile(r"in state (S_[A-Z_]+): ok\b")


@dataclass(frozen=True)
class Sight:
    """One reading of this node's daemons."""

    executor: str
    controller_state: str
    """Empty: the controller did not say."""
    membership: frozenset[str] | None
    cib: ET.Element | None
    record: Record | None
    record_error: str
    quorate: bool
    """This node is in a membership that has quorum."""
    notes: tuple[str, ...]
    """What could not be read, for the log."""


@dataclass(frozen=True)
class Target:
    """What the CIB says about one target. `guest`, `aim`: empty where its devices do not agree on one."""

    node: str
    levels: tuple[Level, ...]
    guest: str
    aim: str
    trusts_words: bool = False
    """One of its devices believes its host, and what that host says can be had."""


def sight(executor: str, state: Child, cib: Child, members: Child) -> Sight:
    """Read the three answers. Never raises: what is damaged is missing, and said in `notes`."""
    notes = [f"{child.name}: {child.error}" for child in (state, cib, members) if child.error]
    root, why = _cib(cib)
    record, record_error = None, why
    if root is not None:
        try:
            record = records.read(root)
        except RecordError as error:
            record_error = str(error)
    found = _STATE.search(state.output) if not state.error else None
    if found is None and not state.error:
        notes.append(f"crmadmin: answer not understood: {state.output.strip()[:80]!r}")
    return Sight(
        executor=canonical(root, executor),
        controller_state=found[1] if found else "",
        membership=None if members.error else frozenset(members.output.split()),
        cib=root,
        record=record,
        record_error=record_error,
        quorate=topology.quorate(root),
        notes=tuple(notes),
    )


def _cib(child: Child) -> tuple[ET.Element | None, str]:
    if child.error:
        return None, f"the CIB cannot be read (cibadmin: {child.error})"
    try:
        root = ET.fromstring(child.output)
    except ET.ParseError as error:
        return None, f"the CIB is damaged ({error})"
    if root.tag != "cib" or root.find("./configuration/crm_config") is None:
        return None, "the CIB is damaged (no configuration in it)"
    return root, ""


def canonical(cib: ET.Element | None, node: str) -> str:
    """The name as the cluster writes it: Pacemaker compares node names without regard to case."""
    for found in nodes(cib):
        if found.casefold() == node.casefold():
            return found
    return node


def nodes(cib: ET.Element | None) -> tuple[str, ...]:
    """Names of all nodes that the CIB knows."""
    return tuple(
        name
        for entry in (() if cib is None else cib.iterfind("./configuration/nodes/node"))
        if (name := entry.get("uname", ""))
    )


def target(cib: ET.Element | None, name: str, hosts: tuple[ControlDomain, ...]) -> Target:
    """Levels of a target, its guest, and the control domain at which all its devices aim."""
    node = canonical(cib, name)
    levels = () if cib is None else topology.levels_for(cib, node)
    real = [device for level in levels for device in level.devices if device.real]
    guests = {device.guest for device in real}
    aims = {_aim(device, hosts) for device in real}
    aim = aims.pop() if len(aims) == 1 else ""
    asked = [host for host in hosts if host.name == aim] or hosts
    return Target(
        node=node,
        levels=levels,
        guest=guests.pop() if len(guests) == 1 else "",
        aim=aim,
        # Nobody can be asked (kind manual): then the device alone judges. Hosts that this node does not know,
        # since its file is broken, are no such case.
        trusts_words=any(device.ordinary for device in real)
        and (not hosts or any(host.obeys for host in asked)),
    )


def guest_of(cib: ET.Element | None, node: str) -> str:
    """The guest of `node` as all its real devices name it, whatever its levels; empty: none, several."""
    found = {
        device.guest
        for device in (topology.devices(cib) if cib is not None else {}).values()
        if device.real and device.parameters.get("pcmk_host_list", "") == node
    }
    return found.pop() if len(found) == 1 else ""


def targets(cib: ET.Element | None) -> tuple[str, ...]:
    """Every node that is named by a fencing level, in order."""
    levels = () if cib is None else cib.iterfind("./configuration/fencing-topology/fencing-level")
    return tuple(dict.fromkeys(name for level in levels if (name := level.get("target"))))


def _aim(device: topology.Device, hosts: tuple[ControlDomain, ...]) -> str:
    """The one host on which this device kills; empty if none or several fit."""
    if device.ordinary:
        reach = tuple(sorted(of_host(device.parameters).items()))
        own = [h.name for h in hosts if (h.fence_agent, h.fence_parameters) == (device.agent, reach)]
        return own[0] if len(own) == 1 else ""
    if device.agent != XSCF_AGENT:
        return ""
    given = device.parameters.get("ip", "")
    try:
        address = fields.address(given)
    except fields.FieldError:
        address = given
    ppar_id = device.parameters.get("ppar_id", "").strip()
    fitting = [
        host.name
        for host in hosts
        if str(host.ppar_id) == ppar_id and address in (host.xscf_lan0, host.xscf_lan1)
    ]
    return fitting[0] if len(fitting) == 1 else ""
