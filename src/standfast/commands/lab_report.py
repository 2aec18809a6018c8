"""`standfast lab status`: the labs of both kinds, their nodes and hosts, and how the cluster sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from standfast.commands import lab_vm
from standfast.lab.cluster import Lab
from standfast.lab.layout import check_id, labs_root

if TYPE_CHECKING:
    from standfast.cluster.membership import ClusterStatus
    from standfast.lab.vm.cluster import VmLab


def report(lab_id: str) -> dict[str, Any]:
    """All about one lab. Raises LabError when there is none."""
    root = labs_root() / check_id(lab_id)
    if root.is_dir() and not (root / "lab.json").exists():
        return {"id": lab_id, "state": f"broken; `standfast lab down {lab_id}` removes it"}
    if vm := lab_vm.find(lab_id):
        return _report_vm(vm)
    one = Lab.load(lab_id)
    seen = one.status()
    powers = {
        name: "frozen" if one.frozen(name) else "on" if one.alive(name) else "off" for name in one.nodes
    }
    nodes = _node_rows(powers, seen)
    return {
        "id": lab_id, "state": _state(seen), "root": str(root), "freezer": one.spec.freezer, "nodes": nodes
    }  # fmt: skip


def _report_vm(one: VmLab) -> dict[str, Any]:
    hosts = []
    powers = dict.fromkeys(one.nodes, "off")
    for host in one.hosts:
        power, guests = ("off", {}) if host.init_pid() is None else ("on", host.domains())
        hosts.append({"name": host.name, "power": power, "guests": guests})
        for node, guest in zip(one.nodes, one.spec.guests, strict=True):
            if guests.get(guest, "shut off") != "shut off":
                powers[node] = guests[guest]
    seen = one.status()
    return {
        "id": one.id, "state": _state(seen), "root": str(one.root), "accelerator": one.spec.accelerator,
        "nodes": _node_rows(powers, seen), "hosts": hosts,
    }  # fmt: skip


def _state(seen: ClusterStatus | None) -> str:
    return f"DC {seen.dc or 'none'}, {'' if seen.quorate else 'no '}quorum" if seen else "no node answers"


def _node_rows(powers: dict[str, str], seen: ClusterStatus | None) -> list[dict[str, Any]]:
    nodes = []
    for name, power in powers.items():
        member = seen.node(name) if seen else None
        cluster = (
            "-" if member is None else "UNCLEAN" if member.unclean else "online" if member.well else "offline"
        )
        services = [r.name for r in seen.resources if name in r.nodes] if seen else []
        nodes.append({"name": name, "power": power, "cluster": cluster, "services": services})
    return nodes
