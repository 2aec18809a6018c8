"""What the cluster engine of a lab starts from: corosync.conf, /etc/hosts, the first CIB, the resources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.lab.layout import Fencing, number_of
from standfast.lab.network import host_address, node_address, ring_address


def heartbeat_milliseconds(timeout_seconds: float) -> tuple[int, int]:
    """token and consensus in the ratio 1 : 1.2, together the heartbeat timeout (10 s = 4545 + 5455 ms)."""
    total = round(timeout_seconds * 1000)
    token = round(total / 2.2)
    return token, total - token


def corosync_conf(nodes: Sequence[str], timeout_seconds: float) -> str:
    """corosync.conf (corosync.conf(5)) of a lab.

    `move_to_root_cgroup: no` keeps corosync in the node's freezer group.
    """
    token, consensus = heartbeat_milliseconds(timeout_seconds)
    members = "".join(
        f"  node {{\n    ring0_addr: {ring_address(number_of(node))}\n"
        f"    name: {node}\n    nodeid: {number_of(node)}\n  }}\n"
        for node in nodes
    )
    two_node = "  two_node: 1\n" if len(nodes) == 2 else ""
    return f"""totem {{
  version: 2
  cluster_name: standfast
  transport: knet
  token: {token}
  token_coefficient: 0
  consensus: {consensus}
}}

nodelist {{
{members}}}

quorum {{
  provider: corosync_votequorum
{two_node}}}

system {{
  move_to_root_cgroup: no
}}

logging {{
  to_stderr: no
  to_logfile: yes
  logfile: /var/log/corosync/corosync.log
  to_syslog: no
  timestamp: hires
}}
"""


def hosts_file(nodes: Sequence[str]) -> str:
    """/etc/hosts of a node: all nodes by their ring addresses, control domains by their adm addresses."""
    lines = ["127.0.0.1 localhost"]
    for node in nodes:
        number = number_of(node)
        lines.append(f"{ring_address(number)} {node}")
        lines.append(f"{node_address('adm', number)} {node}-adm")
    for number in range(1, len(nodes) + 2):
        lines.append(f"{host_address('adm', number)} ctrl{number}")
    return "\n".join(lines) + "\n"


FIRST_CIB = """<cib validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <nvpair id="opt-dc-deadtime" name="dc-deadtime" value="2s"/>
        <nvpair id="opt-stonith-enabled" name="stonith-enabled" value="false"/>
        <nvpair id="opt-stonith-timeout" name="stonith-timeout" value="60s"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources/>
    <constraints/>
  </configuration>
  <status/>
</cib>
"""
"""Fencing is off until all nodes have met: a node that starts first would fence the others."""


@dataclass(frozen=True)
class FenceAgent:
    """The program behind a lab's fence devices, and its parameters for a node (stonith(7))."""

    name: str
    parameters: Callable[[str], Mapping[str, str]] = lambda node: {"pcmk_host_list": node}
    interval: str = "60s"
    timeout: str = "20s"


LAB_POWER = FenceAgent("fence_lab")


@dataclass(frozen=True)
class Monitored:
    """How a lab's services are monitored, as Pacemaker writes times."""

    interval: str = "10s"
    timeout: str = "20s"


def resources(
    nodes: Sequence[str], fencing: Fencing, agent: FenceAgent = LAB_POWER, service: Monitored | None = None
) -> str:
    """The `configuration` to merge once all nodes are online: one Recorder a node, and plain fencing."""
    top = ET.Element("configuration")
    options = ET.SubElement(
        ET.SubElement(top, "crm_config"), "cluster_property_set", id="cib-bootstrap-options"
    )
    made = ET.SubElement(top, "resources")
    constraints = ET.SubElement(top, "constraints")
    for node in nodes:
        _recorder(made, node, service or Monitored())
        ET.SubElement(
            constraints, "rsc_location", id=f"home-r-{node}", rsc=f"r-{node}", node=node, score="100"
        )
    if fencing == "plain":
        _nvpair(options, "opt-stonith-enabled", "stonith-enabled", "true")
        topology = ET.SubElement(top, "fencing-topology")
        for node in nodes:
            device = f"st-{node}"
            _fence_device(made, device, node, agent)
            ET.SubElement(
                constraints, "rsc_location", id=f"ban-{device}", rsc=device, node=node, score="-INFINITY"
            )
            ET.SubElement(
                topology, "fencing-level", id=f"fl-{node}-1", target=node, index="1", devices=device
            )
    return ET.tostring(top, encoding="unicode")


def _recorder(parent: ET.Element, node: str, monitored: Monitored) -> None:
    name = f"r-{node}"
    resource = ET.SubElement(
        parent, "primitive", {"id": name, "class": "ocf", "provider": "lab", "type": "Recorder"}
    )
    _operations(resource, name, interval=monitored.interval, timeout=monitored.timeout)


def _fence_device(parent: ET.Element, device: str, node: str, agent: FenceAgent) -> None:
    primitive = ET.SubElement(parent, "primitive", {"id": device, "class": "stonith", "type": agent.name})
    attributes = ET.SubElement(primitive, "instance_attributes", id=f"{device}-ia")
    for name, value in agent.parameters(node).items():
        _nvpair(attributes, f"{device}-{name}", name, value)
    _operations(primitive, device, interval=agent.interval, timeout=agent.timeout)


def _operations(parent: ET.Element, name: str, interval: str, timeout: str = "20s") -> None:
    operations = ET.SubElement(parent, "operations")
    ET.SubElement(operations, "op", id=f"{name}-monitor", name="monitor", interval=interval, timeout=timeout)
    ET.SubElement(operations, "op", id=f"{name}-start", name="start", interval="0s", timeout=timeout)


def _nvpair(parent: ET.Element, id: str, name: str, value: str) -> None:
    ET.SubElement(parent, "nvpair", id=id, name=name, value=value)
