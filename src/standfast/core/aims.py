"""Where the devices of a node aim, and with which parameters they must have proven themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from standfast.core import devices, topology
from standfast.core.hostlist import ControlDomain
from standfast.core.registered import Registered, XscfNode
from standfast.core.steps import HostEntry, NodeAim

FINGERPRINT_CHARS = 16


def fingerprint(parameters: Mapping[str, str]) -> str:
    """A short digest of a device's parameters. There is no secret in them: the password is in a file."""
    text = "\n".join(f"{name}={parameters[name]}" for name in sorted(parameters))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_CHARS]


def entry_of(host: ControlDomain) -> HostEntry:
    """One host of the configuration as the planner needs it."""
    return HostEntry(
        host.name,
        host.ppar_id,
        host.xscf_lan0,
        host.xscf_lan1,
        host.weight,
        host.obeys,
        host.kind,
        host.fence_agent,
        host.fence_parameters,
    )


def entries(hosts: tuple[ControlDomain, ...]) -> dict[str, HostEntry]:
    """The configuration's hosts as the planner needs them."""
    return {host.name: entry_of(host) for host in hosts}


def host_of(hosts: tuple[ControlDomain, ...], entry: Registered) -> str:
    """The host at which a registered node's agents aim; empty: none of the configuration."""
    for host in hosts:
        if isinstance(entry, XscfNode):
            if host.kind == "ldm" and _xscf_of(host) == (entry.ppar_id, entry.lan0, entry.lan1):
                return host.name
        elif (host.fence_agent, host.fence_parameters) == (entry.agent, entry.reach):
            return host.name
    return ""


def _xscf_of(host: ControlDomain) -> tuple[int, str, str]:
    return host.ppar_id, host.xscf_lan0, host.xscf_lan1


def aims(cib: ET.Element, hosts: tuple[ControlDomain, ...]) -> dict[str, NodeAim]:
    """The aim of every registered node."""
    known = topology.devices(cib)
    found = {}
    for entry in devices.registered(cib):
        ids = [agent.device_id(entry.node) for agent in entry.agents]
        proofs = {
            identifier: fingerprint(known[identifier].parameters if identifier in known else {})
            for identifier in ids
        }
        found[entry.node] = NodeAim(
            node=entry.node,
            guest=entry.guest,
            host=host_of(hosts, entry),
            weight=entry.weight,
            proofs=proofs,
        )
    return found
