"""What a lab of real guests is: names, addresses, and where its things lie below the lab's directory.

Guest N is node cfguestN of the cluster and starts on host N; one more host is there to move to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from standfast.lab.errors import LabError
from standfast.lab.freezer import Group, Version
from standfast.lab.layout import OUTSIDE, read_description, write_description
from standfast.lab.network import ring_address

Accelerator = Literal["kvm", "tcg"]
MAX_GUESTS = 4
"""A guest under emulation takes about 1 GiB and half a processor."""
SWITCH_ADDRESS = "10.88.0.254"
# Inside a host everything of the lab is below this, wherever the lab and the cache lie outside.
INSIDE = "/run/lab"


VmFencing = Literal["standfast", "plain", "none"]
"""standfast: gate and fence_virsh, by `standfast node add`. plain: fence_virsh alone."""


@dataclass(frozen=True)
class VmSpec:
    """All that `down` and `load` need to know."""

    lab_id: str
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]
    heartbeat_timeout_seconds: float
    memory_mib: int
    accelerator: Accelerator
    fencing: VmFencing
    freezer: Version
    group: str
    """Directory of the lab's cgroups."""
    image: str
    """Directory of the guests' image in the cache."""
    python: str
    """The disk with the guests' Python packages in the cache."""

    @classmethod
    def read(cls, root: Path) -> VmSpec:
        """Read a lab's description. Raises LabError when there is none, or one without real guests."""
        raw = read_description(root)
        if raw.pop("kind", "") != "vm":
            raise LabError(f"lab {root.name} has no real guests; `standfast lab up --vm` makes one that has")
        return cls(**{**raw, "nodes": tuple(raw["nodes"]), "hosts": tuple(raw["hosts"])})

    def write(self, root: Path) -> None:
        """Write the description."""
        write_description(root, "vm", asdict(self))

    @property
    def guests(self) -> tuple[str, ...]:
        """guest1, guest2, ... in the order of the nodes."""
        return tuple(guest_name(number) for number in range(1, len(self.nodes) + 1))

    def node_group(self, node: str) -> Group:
        """The group of a host: everything in it, its guests too."""
        return Group(Path(self.group) / node, self.freezer)

    def outside_group(self) -> Group:
        """The group of the lab's own processes."""
        return Group(Path(self.group) / OUTSIDE, self.freezer)


def guest_name(number: int) -> str:
    """The guest (libvirt domain) of this number."""
    return f"guest{number}"


def node_name(number: int) -> str:
    """The cluster node in the guest of this number."""
    return f"cfguest{number}"


def host_name(number: int) -> str:
    """The host of this number."""
    return f"host{number}"


def number_of(name: str) -> int:
    """The number in a guest's, node's or host's name."""
    return int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def guest_address(number: int) -> str:
    """A guest's address: for the ring, for ssh to the hosts, for commands."""
    return ring_address(number)


def host_address(number: int) -> str:
    """A host's address in the guests' network."""
    return ring_address(200 + number)


def migration_address(number: int) -> str:
    """A host's address in the network that carries migrations and nothing else."""
    return f"10.89.0.{200 + number}"


def mac_address(number: int) -> str:
    """A guest's network card."""
    return f"52:54:00:88:00:{number:02x}"


def host_dir(root: Path, host: str) -> Path:
    """The directory of a host: its libvirt configuration, keys, logs, monitor sockets."""
    return root / "hosts" / host


def shared_dir(root: Path) -> Path:
    """What every host sees as /run/lab/shared: the lab's own disk and the guests' serial consoles."""
    return root / "shared"


def seed_disk(root: Path) -> Path:
    """The lab's own disk, which adds to the image what is of this lab."""
    return shared_dir(root) / "seed.ext4"


def console(root: Path, guest: str) -> Path:
    """What a guest wrote to its serial console, on all hosts."""
    return shared_dir(root) / f"{guest}.console"
