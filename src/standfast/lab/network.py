"""The lab's networks: four bridges in a namespace of their own, nothing in the machine's own network.

ring carries corosync, adm the administration LAN, lan0 and lan1 the service processors' two LANs.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from standfast.lab.layout import netns
from standfast.lab.process import must

SWITCH = "switch"
HARDWARE = "hw"
NETWORKS = ("ring", "adm", "lan0", "lan1")
_PREFIX = {"ring": "10.88.0.", "adm": "10.20.50.", "lan0": "10.20.30.", "lan1": "10.20.40."}
_FIRST_HOST = 71


def ring_address(number: int) -> str:
    """Address of node `number` (from 1) on the ring."""
    return f"{_PREFIX['ring']}{number}"


def node_address(network: str, number: int) -> str:
    """Address of node `number` (from 1) on adm, lan0 or lan1."""
    return f"{_PREFIX[network]}{100 + number}"


def host_address(network: str, number: int) -> str:
    """Address of host `number` (from 1): control domain on adm, service processor on lan0 and lan1."""
    return f"{_PREFIX[network]}{_FIRST_HOST - 1 + number}"


def ring_port(number: int) -> str:
    """The switch's port to which node `number` (from 1) is connected on the ring."""
    return f"n{number}-ring"


def build(root: Path, host_count: int, node_names: Sequence[str]) -> None:
    """Make the switch, a namespace for each node, and, with hosts, the `hw` namespace."""
    (root / "netns").mkdir()
    for name in (SWITCH, *node_names, *([HARDWARE] if host_count else [])):
        pin(netns(root, name))
    ends = [(f"n{i + 1}", netns(root, name), "eth%d") for i, name in enumerate(node_names)]
    if host_count:
        ends.append(("hw", netns(root, HARDWARE), ""))
    batch(netns(root, SWITCH), _switch_commands(ends))
    for i, name in enumerate(node_names):
        batch(netns(root, name), _node_commands(i + 1))
    if host_count:
        batch(netns(root, HARDWARE), _hardware_commands(host_count))


def enter(namespace: Path, argv: Sequence[str]) -> list[str]:
    """`argv` so wrapped that it runs in a pinned network namespace."""
    return ["nsenter", f"--net={namespace}", *argv]


def unpin(namespace: Path) -> None:
    """Let a namespace go; it ends with its last process."""
    with suppress(FileNotFoundError):
        must(["umount", "--lazy", str(namespace)])
        namespace.unlink()


def pin(namespace: Path) -> None:
    """Make a network namespace that stays without processes, and pin it on a file."""
    namespace.touch()
    must(["unshare", f"--net={namespace}", "true"])


def batch(namespace: Path, commands: Sequence[str]) -> None:
    """Commands of ip(8) in a namespace. Raises LabError at the first that fails."""
    must(enter(namespace, ["ip", "-batch", "-"]), input="\n".join(commands) + "\n")


def _switch_commands(ends: Sequence[tuple[str, Path, str]]) -> list[str]:
    lines = []
    for network in NETWORKS:
        lines.append(f"link add {network} type bridge stp_state 0 forward_delay 0")
        lines.append(f"link set {network} up")
    for short, namespace, inner in ends:
        for i, network in enumerate(NETWORKS):
            if not inner and network == "ring":
                continue
            port = f"{short}-{network}"
            peer = inner % i if inner else network
            lines.append(f"link add {port} type veth peer name {peer} netns {namespace}")
            lines.append(f"link set {port} master {network} up")
    return lines


def _node_commands(number: int) -> list[str]:
    lines = ["link set lo up"]
    for i, network in enumerate(NETWORKS):
        address = ring_address(number) if network == "ring" else node_address(network, number)
        lines.append(f"addr add {address}/24 dev eth{i}")
        lines.append(f"link set eth{i} up")
    return lines


def _hardware_commands(host_count: int) -> list[str]:
    lines = ["link set lo up"]
    for network in NETWORKS[1:]:
        lines.append(f"link set {network} up")
        for number in range(1, host_count + 1):
            lines.append(f"addr add {host_address(network, number)}/24 dev {network}")
    return lines
