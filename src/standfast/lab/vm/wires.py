"""The networks of a lab of real guests: guests and hosts on one bridge, migrations on another.

All of it lies in namespaces of the lab; so two labs may use the same addresses.
"""

from collections.abc import Sequence
from pathlib import Path

from standfast.lab.layout import netns
from standfast.lab.network import SWITCH, batch, enter, pin
from standfast.lab.process import must
from standfast.lab.vm import layout

BRIDGE = "br0"
"""In each host: its own address, its guests, and the uplink to the others."""
MIGRATION_LINK = "mig0"
QUEUE = ("burst", "256kb", "latency", "400ms")


def build(root: Path, hosts: Sequence[str]) -> None:
    """Make the switch and a namespace for each host. Raises LabError."""
    (root / "netns").mkdir()
    for name in (SWITCH, *hosts):
        pin(netns(root, name))
    batch(netns(root, SWITCH), _switch(root, hosts))
    for host in hosts:
        batch(netns(root, host), _host(layout.number_of(host)))


def plug(root: Path, host: str, connected: bool) -> None:
    """A host without power is silent; its namespace, which stays, would refuse connections."""
    state = "up" if connected else "down"
    batch(netns(root, SWITCH), [f"link set {bridge}-{host} {state}" for bridge in ("lan", "mig")])


def limit(root: Path, host: str, mbit_per_second: int | None) -> None:
    """Let this host send so much of its migrations; None: as it was made. Raises LabError.

    A queue, not a rate of QEMU's own, which it lifts for the last stage.
    """
    change = ["qdisc", "replace", "dev", MIGRATION_LINK, "root"]
    if mbit_per_second is None:
        argv = ["tc", *change, "noqueue"]  # what a veth has
    else:
        argv = ["tc", *change, "tbf", "rate", f"{mbit_per_second}mbit", *QUEUE]
    must(enter(netns(root, host), argv))


def _switch(root: Path, hosts: Sequence[str]) -> list[str]:
    lines = ["link set lo up"]
    for bridge in ("lan", "mig"):
        lines += [f"link add {bridge} type bridge stp_state 0 forward_delay 0", f"link set {bridge} up"]
    lines.append(f"addr add {layout.SWITCH_ADDRESS}/24 dev lan")
    for host in hosts:
        for bridge, inner in (("lan", "up0"), ("mig", MIGRATION_LINK)):
            port = f"{bridge}-{host}"
            lines.append(f"link add {port} type veth peer name {inner} netns {netns(root, host)}")
            lines.append(f"link set {port} master {bridge} up")
    return lines


def _host(number: int) -> list[str]:
    return [
        "link set lo up",
        f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0",
        f"link set {BRIDGE} up",
        f"link set up0 master {BRIDGE} up",
        f"addr add {layout.host_address(number)}/24 dev {BRIDGE}",
        f"addr add {layout.migration_address(number)}/24 dev {MIGRATION_LINK}",
        f"link set {MIGRATION_LINK} up",
    ]
