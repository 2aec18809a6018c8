"""Services and fencing of a lab of real guests: by Standfast, as an administrator sets it up, or plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from xml.etree import ElementTree as ET

from standfast.cluster.run import Result
from standfast.core.registered import agent_of
from standfast.lab import engine_config
from standfast.lab.errors import LabError
from standfast.lab.layout import Fencing
from standfast.lab.vm import layout, seed
from standfast.lab.vm.layout import VmSpec, number_of

AGENT = "fence_virsh"
_LOAD_THRESHOLD = "1000%"
_OPERATION_TIMEOUT = "90s"
_NODE_LIMIT_SECONDS = 120.0
_CIB_LIMIT_SECONDS = 60.0
_MAX_TRIES = 3
_LATE = ("[NO_CLUSTER]", "[ENGINE]")
_EMULATED = {"login_timeout": "25", "shell_timeout": "20"}
"""An emulated guest beside other work takes its time for a login; these limits are an administrator's."""


class Nodes(Protocol):
    """What is needed of a lab."""

    @property
    def spec(self) -> VmSpec: ...

    def exec(
        self, name: str, argv: Sequence[str], limit_seconds: float = 30.0, input: str | None = None
    ) -> Result: ...


def device(spec: VmSpec, node: str) -> str:
    """The id of a node's fence device."""
    return f"st-{node}" if spec.fencing == "plain" else agent_of(AGENT).device_id(node)


def devices(spec: VmSpec, node: str) -> tuple[str, ...]:
    """The ids of all that stands in a node's fencing level: the device, and the gate in front of it."""
    if spec.fencing == "none":
        return ()
    gates = (agent_of(AGENT).gate_id(node),) if spec.fencing == "standfast" else ()
    return (*gates, device(spec, node))


def configure(lab: Nodes) -> None:
    """Make services and fencing in a cluster whose nodes are all online. Raises LabError."""
    spec = lab.spec
    plain = engine_config.FenceAgent(AGENT, _aim, interval="120s", timeout="60s")
    bare: Fencing = "plain" if spec.fencing == "plain" else "none"
    # 20 s are few for a program on an emulated node that has much to do: in twenty migrations one service was
    # restarted, which may be this.
    service = engine_config.Monitored(interval="30s", timeout=_OPERATION_TIMEOUT)
    wanted = engine_config.resources(spec.nodes, bare, plain, service)
    # Beside a load of 0.8 the controller starts one action at a time; an emulated guest has that always.
    set_option(lab, "load-threshold", _LOAD_THRESHOLD)
    # Registered devices have no operations of their own, and 20 s, the default, are few here.
    set_option(lab, "timeout", _OPERATION_TIMEOUT, section="op_defaults")
    _merge(lab, wanted, "the resources")
    if spec.fencing == "standfast":
        for node in spec.nodes:
            _register(lab, node)
        _merge(lab, _limits(spec), "the limits of the fence devices")
        set_option(lab, "stonith-enabled", "true")


def set_option(lab: Nodes, name: str, value: str, section: str = "crm_config") -> None:
    """Set an option of the cluster. Raises LabError."""
    argv = ["crm_attribute", "-t", section, "-n", name, "-v", value]
    done = lab.exec(lab.spec.nodes[0], argv, limit_seconds=_CIB_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"lab {lab.spec.lab_id}: {name} could not be set to {value}: {done.complaint()}")


def _register(lab: Nodes, node: str) -> None:
    """As an administrator does it, on the first node."""
    number = number_of(node)
    guest, host = layout.guest_name(number), layout.host_name(number)
    argv = ["standfast", "node", "add", node, "--guest", guest, "--host", host]
    for _ in range(_MAX_TRIES):
        done = lab.exec(lab.spec.nodes[0], argv, limit_seconds=_NODE_LIMIT_SECONDS)
        # Who has just booted, emulated, may be late for a limit of the command: then it has changed nothing.
        if done.ok or not any(code in done.stderr + done.stdout for code in _LATE):
            break
    if not done.ok:
        raise LabError(f"lab {lab.spec.lab_id}: {node} could not be registered: {done.complaint()}")


def _merge(lab: Nodes, wanted: str, what: str) -> None:
    argv = ["cibadmin", "--modify", "--allow-create", "--scope", "configuration", "--xml-pipe"]
    done = lab.exec(lab.spec.nodes[0], argv, limit_seconds=_CIB_LIMIT_SECONDS, input=wanted)
    if not done.ok:
        raise LabError(f"lab {lab.spec.lab_id}: {what} were refused: {done.complaint()}")


def _limits(spec: VmSpec) -> str:
    top = ET.Element("configuration")
    resources = ET.SubElement(top, "resources")
    for node in spec.nodes:
        identifier = device(spec, node)
        primitive = ET.SubElement(
            resources, "primitive", {"id": identifier, "class": "stonith", "type": AGENT}
        )
        own = f"{identifier}-instance_attributes"
        attributes = ET.SubElement(primitive, "instance_attributes", {"id": own})
        for name, value in _EMULATED.items():
            ET.SubElement(attributes, "nvpair", {"id": f"{own}-{name}", "name": name, "value": value})
    return ET.tostring(top, encoding="unicode")


def _aim(node: str) -> Mapping[str, str]:
    """fence_virsh at the host on which the node's guest starts. The key's file is named, not its text."""
    number = number_of(node)
    return {
        "pcmk_host_map": f"{node}:{layout.guest_name(number)}",
        "ip": layout.host_name(number),
        "username": "root",
        "identity_file": seed.KEY_FILE,
        **_EMULATED,
    }
