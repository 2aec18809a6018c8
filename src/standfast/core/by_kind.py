"""What to type on a host, and to register a node, by the kind of the hosts: for the messages of decisions."""

from __future__ import annotations

from collections.abc import Mapping

from standfast.core.steps import HostEntry


def stop(hosts: Mapping[str, HostEntry], host: str, guest: str) -> str:
    """How to stop a guest on this host; `host`: its name, or empty for the one on which it is."""
    return _typed(hosts, host, guest, "ldm stop-domain", "virsh destroy", "stop")


def start(hosts: Mapping[str, HostEntry], host: str, guest: str) -> str:
    """How to start a guest there."""
    return _typed(hosts, host, guest, "ldm start-domain", "virsh start", "start")


def look(hosts: Mapping[str, HostEntry], host: str, guest: str) -> str:
    """How to see how far its migration is there."""
    return _typed(hosts, host, guest, "ldm list-domain -o status", "virsh domjobinfo", "look at")


def _typed(
    hosts: Mapping[str, HostEntry], host: str, guest: str, by_ldm: str, by_virsh: str, in_words: str
) -> str:
    where = host or ("its control domain" if kind(hosts) == "ldm" else "its host")
    words = {"ldm": f"{by_ldm} {guest}", "libvirt": f"{by_virsh} {guest}"}
    said = words.get(kind(hosts, host), f"{in_words} {guest} by hand")
    return f"{said} (on {where})"


def kind(hosts: Mapping[str, HostEntry], host: str = "") -> str:
    """The kind of this host, or of all (ldm stands with no other); ldm where nothing is known."""
    if host in hosts:
        return hosts[host].kind
    kinds = {entry.kind for entry in hosts.values()}
    return next((found for found in ("libvirt", "manual") if found in kinds), "ldm")


def register(hosts: Mapping[str, HostEntry], node: str) -> str:
    """How to register a node."""
    if kind(hosts) == "ldm":
        return f"clsnmpsetup -a {node} ..."
    return f"standfast node add {node} --guest GUEST --host HOST"


def listing(hosts: Mapping[str, HostEntry]) -> str:
    """How to see what is registered."""
    return "clsnmpsetup -l" if kind(hosts) == "ldm" else "standfast node list"
