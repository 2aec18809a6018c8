"""Whether the cluster of a lab has come to rest, as one reading of crm_mon shows it."""

from collections.abc import Iterable

from standfast.cluster.membership import ClusterStatus


def sees_all(seen: ClusterStatus | None, powered: frozenset[str]) -> bool:
    """This reading shows quorum and exactly the nodes that have power, all of them well."""
    return seen is not None and seen.quorate and {node.name for node in seen.nodes if node.well} == powered


def at_home(seen: ClusterStatus, powered: frozenset[str], devices: Iterable[tuple[str, str]]) -> bool:
    """All that have power are well, each runs its service, and each node's fence devices run (`devices`:
    pairs of node and device)."""
    if not sees_all(seen, powered) or any(resource.failed for resource in seen.resources):
        return False
    places = {resource.name: resource.nodes for resource in seen.resources if resource.role == "Started"}
    if any(places.get(f"r-{name}") != (name,) for name in powered):
        return False
    # A device may not run on its own target: with one node left that one's device has no place.
    return all(device in places for name, device in devices if powered - {name})
