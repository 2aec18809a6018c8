"""Where the devices of a node aim, and with which parameters they must have proven themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from standfast.core import devices, topology
from standfast.core.hostlist import ControlDomain
from standfast.core.steps import HostEntry, NodeAim

FINGERPRINT_CHARS = 16


def fingerprint(parameters: Mapping[str, str]) -> str:
    """A short digest of a device's parameters. There is no secret in them: the password is in a file."""
    text = "\n".join(f"{name}={parameters[name]}" for name in sorted(parameters))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_CHARS]


def entries(hosts: tuple[ControlDomain, ...]) -> dict[str, HostEntry]:
    """The configuration's control domains as the planner needs them."""
    return {
        host.name: HostEntry(host.name, host.ppar_id, host.xscf_lan0, host.xscf_lan1, host.weight, host.obeys)
        for host in hosts
    }


def host_of(hosts: tuple[ControlDomain, ...], ppar_id: int, lan0: str, lan1: str) -> str:
    """The control domain behind these addresses and this PPAR; empty: none of the configuration."""
    for host in hosts:
        if (host.ppar_id, host.xscf_lan0, host.xscf_lan1) == (ppar_id, lan0, lan1):
            return host.name
    return ""


def aims(cib: ET.Element, hosts: tuple[ControlDomain, ...]) -> dict[str, NodeAim]:
    """The aim of every registered node."""
    known = topology.devices(cib)
    found = {}
    for entry in devices.registered(cib):
        ids = [agent.device_id(entry.node) for agent in devices.AGENTS]
        proofs = {
            identifier: fingerprint(known[identifier].parameters if identifier in known else {})
            for identifier in ids
        }
        found[entry.node] = NodeAim(
            node=entry.node,
            guest=entry.domain,
            host=host_of(hosts, entry.ppar_id, entry.lan0, entry.lan1),
            weight=entry.weight,
            proofs=proofs,
        )
    return found
