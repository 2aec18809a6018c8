"""What `crm_mon --output-as=xml` says about a lab's cluster, as far as the lab needs it."""

from dataclasses import dataclass
from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class Status:
    """A moment of the cluster as one node sees it."""

    dc: str | None
    quorate: bool
    online: frozenset[str]
    unclean: frozenset[str]
    pending: frozenset[str]
    places: dict[str, str]
    """Started resources, fence devices among them, and the node of each."""
    troubled: frozenset[str]
    """Resources that failed, are blocked, or have an action in progress."""


def parse(xml: str) -> Status | None:
    """Read crm_mon's XML; None while it says nothing useful, as at start."""
    try:
        top = ET.fromstring(xml)
    except ET.ParseError:
        return None
    dc = top.find("./summary/current_dc")
    nodes = top.findall("./nodes/node")
    resources = top.findall(".//resource")
    places = {}
    for resource in resources:
        where = resource.find("node")
        if where is not None and resource.get("role") in ("Started", "Promoted", "Unpromoted"):
            places[resource.get("id", "")] = where.get("name", "")
    return Status(
        dc=dc.get("name") if dc is not None and dc.get("present") == "true" else None,
        quorate=dc is not None and dc.get("with_quorum") == "true",
        online=frozenset(_names(nodes, "online")),
        unclean=frozenset(_names(nodes, "unclean")),
        pending=frozenset(_names(nodes, "pending")),
        places=places,
        troubled=frozenset(
            r.get("id", "")
            for r in resources
            if r.get("failed") == "true" or r.get("blocked") == "true" or r.get("pending")
        ),
    )


def _names(nodes: list[ET.Element], flag: str) -> list[str]:
    return [node.get("name", "") for node in nodes if node.get(flag) == "true"]
