"""Who is in the cluster and how well: crm_node, crmadmin and crm_mon of Pacemaker 2.1.

In a stall (one member frozen, its token not run out) `own_node`, `partition`, `controller_state` and
`status` answer from the local daemons and show the frozen node as a healthy member; `dc_state` hangs unless
this node is the DC, and is then None at its limit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from xml.etree import ElementTree

from standfast.cluster.run import EngineError, run, xml_of
from standfast.core.gate import JOINED_STATES

JOINED = JOINED_STATES
"""Controller states in which this node's join is complete."""
UNKNOWN_STATE = ""


@dataclass(frozen=True)
class NodeStatus:
    """One node as crm_mon shows it. `pending`: its join is under way. `unclean`: lost, not proven dead."""

    name: str
    online: bool
    unclean: bool = False
    pending: bool = False
    standby: bool = False
    maintenance: bool = False
    kind: str = "member"

    @property
    def well(self) -> bool:
        """A full member: online, and neither UNCLEAN nor joining."""
        return self.online and not self.unclean and not self.pending


@dataclass(frozen=True)
class ResourceStatus:
    """One instance of a resource. `nodes`: where it is active or being started. `pending`: the action under
    way (Starting, Stopping, Monitoring ...), "" where none is shown; first probes never are."""

    name: str
    agent: str
    role: str
    nodes: tuple[str, ...]
    failed: bool = False
    managed: bool = True
    pending: str = ""


@dataclass(frozen=True)
class ClusterStatus:
    """A reading of crm_mon. `dc` is None while there is none; `fencing_known` is False where the fencer
    did not tell its history, and then nothing pending is no proof."""

    nodes: tuple[NodeStatus, ...]
    dc: str | None
    quorate: bool
    resources: tuple[ResourceStatus, ...]
    fencing_pending: tuple[str, ...] = ()
    fencing_known: bool = True
    stonith_enabled: bool = True
    maintenance_mode: bool = False

    def node(self, name: str) -> NodeStatus | None:
        """The node of this name, None where the cluster does not know it."""
        return next((node for node in self.nodes if node.name == name), None)

    @property
    def pending_actions(self) -> tuple[str, ...]:
        """Resource actions under way, as "RESOURCE: ACTION"."""
        return tuple(
            f"{resource.name}: {resource.pending}" for resource in self.resources if resource.pending
        )

    def idle(self, dc_state: str | None) -> bool:
        """Nothing is under way: quorum, the DC is S_IDLE (`dc_state()`), no node UNCLEAN or joining, no
        fencing and no action pending. What is not known counts as not idle."""
        unsettled = any(node.unclean or node.pending for node in self.nodes)
        fencing = bool(self.fencing_pending) or not self.fencing_known
        return dc_state == "S_IDLE" and self.quorate and not (unsettled or fencing or self.pending_actions)


def own_node(limit_seconds: float = 5.0) -> str:
    """This node's name in the cluster. Raises EngineError."""
    result = run(["crm_node", "--name"], limit_seconds=limit_seconds)
    name = result.stdout.strip()
    if not result.ok or not name:
        raise EngineError.of("this node's cluster name cannot be read", result)
    return name


def partition(limit_seconds: float = 5.0) -> frozenset[str]:
    """The members that this node sees. Raises EngineError."""
    result = run(["crm_node", "--partition"], limit_seconds=limit_seconds)
    if not result.ok:
        raise EngineError.of("the members cannot be read", result)
    return frozenset(result.stdout.split())


def controller_state(limit_seconds: float = 5.0, node: str | None = None) -> str:
    """The state of this node's controller, such as S_IDLE or S_NOT_DC; "" where it does not answer.

    Asks the OWN node only: of any other the question hangs in a stall. `node` saves looking the name up.
    Never raises, and takes `limit_seconds` at most.
    """
    deadline = time.monotonic() + limit_seconds
    if node is None:
        try:
            node = own_node(limit_seconds)
        except EngineError:
            return UNKNOWN_STATE
    return _state_of(node, deadline - time.monotonic()) or UNKNOWN_STATE


def dc_state(limit_seconds: float) -> str | None:
    """The state of the DC's controller, wherever it is; None where unknown, at `limit_seconds` at most."""
    deadline = time.monotonic() + limit_seconds
    try:
        dc = status(limit_seconds).dc
    except EngineError:
        return None
    return _state_of(dc, deadline - time.monotonic()) if dc else None


def status(limit_seconds: float = 5.0) -> ClusterStatus:
    """The cluster as this node sees it, from the local copy. Raises EngineError."""
    result = run(["crm_mon", "--one-shot", "--output-as=xml"], limit_seconds=limit_seconds)
    root = xml_of(result)
    if not result.ok or root is None or root.find("nodes") is None:
        raise EngineError.of("the cluster's state cannot be read", result)
    return parse_status(root)


def parse_status(root: ElementTree.Element) -> ClusterStatus:
    """What `crm_mon --output-as=xml` says (schema crm_mon-2.x of Pacemaker 2.1)."""
    dc = root.find("summary/current_dc")
    options = root.find("summary/cluster_options")
    history = root.find("fence_history")
    events = () if history is None else tuple(history.iter("fence_event"))
    return ClusterStatus(
        nodes=tuple(_node(node) for node in root.findall("nodes/node")),
        dc=dc.get("name") if dc is not None and _true(dc, "present") else None,
        quorate=dc is not None and _true(dc, "with_quorum"),
        resources=tuple(_resource(resource) for resource in root.iterfind("resources//resource")),
        fencing_pending=tuple(
            f"{event.get('action', '?')} of {event.get('target', '?')}"
            for event in events
            if event.get("status") == "pending"
        ),
        fencing_known=history is None or history.get("status", "0") == "0",
        stonith_enabled=options is None or options.get("stonith-enabled") != "false",
        maintenance_mode=options is not None and _true(options, "maintenance-mode"),
    )


def _node(node: ElementTree.Element) -> NodeStatus:
    return NodeStatus(
        name=node.get("name", ""),
        online=_true(node, "online"),
        unclean=_true(node, "unclean"),
        pending=_true(node, "pending"),
        standby=_true(node, "standby") or _true(node, "standby_onfail"),
        maintenance=_true(node, "maintenance"),
        kind=node.get("type", "member"),
    )


def _resource(resource: ElementTree.Element) -> ResourceStatus:
    # 2.1.5 tells of a start or stop under way by the role itself: Starting, Stopping, Promoting, Migrating.
    role = resource.get("role", "")
    return ResourceStatus(
        name=resource.get("id", ""),
        agent=resource.get("resource_agent", ""),
        role=role,
        nodes=tuple(node.get("name", "") for node in resource.findall("node")),
        failed=_true(resource, "failed"),
        managed=resource.get("managed") != "false",
        pending=resource.get("pending") or (role if role.endswith("ing") else ""),
    )


def _state_of(node: str, limit_seconds: float) -> str | None:
    if limit_seconds <= 0:
        return None
    root = xml_of(run(["crmadmin", f"--status={node}", "--output-as=xml"], limit_seconds=limit_seconds))
    crmd = None if root is None else root.find("crmd")
    if crmd is None or crmd.get("result") != "ok":
        return None
    return crmd.get("state")


def _true(element: ElementTree.Element, name: str) -> bool:
    return element.get(name) == "true"
