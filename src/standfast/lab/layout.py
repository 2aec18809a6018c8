"""What a lab is and where its things lie: all below one directory, which is enough to remove it."""

import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from standfast.lab.errors import LabError
from standfast.lab.freezer import Group, Version

Fencing = Literal["plain", "none"]
Kind = Literal["namespaces", "vm"]
"""What the nodes are: namespaces of this machine, or real guests."""
MAX_NODES = 16
OUTSIDE = "outside"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def labs_root() -> Path:
    """The directory that holds all labs: `$STANDFAST_LAB_ROOT`, or /run/standfast-lab."""
    return Path(os.environ.get("STANDFAST_LAB_ROOT") or "/run/standfast-lab")


def new_id() -> str:
    """A random lab id."""
    return secrets.token_hex(3)


def check_id(lab_id: str) -> str:
    """The id itself. Raises LabError when it cannot be one (it becomes part of paths)."""
    if not _ID.fullmatch(lab_id):
        raise LabError(f"{lab_id!r} is no lab id: use up to 32 of a-z, 0-9 and '-'")
    return lab_id


def read_description(root: Path) -> dict[str, Any]:
    """What stands in a lab's lab.json. Raises LabError when there is none."""
    try:
        raw = json.loads((root / "lab.json").read_text())
    except (OSError, ValueError):
        raw = None
    if not isinstance(raw, dict):
        raise LabError(
            f"there is no lab {root.name!r} below {root.parent}; `standfast lab status` lists the labs"
        )
    return raw


def write_description(root: Path, kind: Kind, values: dict[str, Any]) -> None:
    """Write lab.json in one step. It is written before anything else of a lab exists, and tells `group` and
    `freezer`: with the directory they are enough to remove a lab of either kind."""
    new = root / "lab.json.new"
    new.write_text(json.dumps({"kind": kind, **values}, indent=1) + "\n")
    new.rename(root / "lab.json")


def kind_of(root: Path) -> Kind:
    """Which kind of lab this is. Raises LabError when there is none."""
    return "vm" if read_description(root).get("kind") == "vm" else "namespaces"


def top_group(root: Path) -> Group:
    """The group above all groups of a lab of either kind. Raises LabError when there is no lab."""
    raw = read_description(root)
    return Group(Path(raw["group"]), raw["freezer"])


@dataclass(frozen=True)
class Spec:
    """All that `down` and `load` need to know of a lab whose nodes are namespaces."""

    lab_id: str
    nodes: tuple[str, ...]
    heartbeat_timeout_seconds: float
    freezer: Version
    group: str
    """Directory of the lab's cgroups. It has a random part: two roots may hold labs of one id."""
    fencing: Fencing
    hosts: bool

    @classmethod
    def read(cls, root: Path) -> "Spec":
        """Read a lab's description. Raises LabError when there is none, or one of real guests."""
        raw = read_description(root)
        if raw.pop("kind", "namespaces") != "namespaces":
            raise LabError(f"lab {root.name} has real guests (--vm); this works only in a lab without them")
        return cls(**{**raw, "nodes": tuple(raw["nodes"])})

    def write(self, root: Path) -> None:
        """Write the description."""
        write_description(root, "namespaces", asdict(self))

    def node_group(self, node: str) -> Group:
        """The freezer group of a node."""
        return Group(Path(self.group) / node, self.freezer)

    def outside_group(self) -> Group:
        """The group of the lab's own processes: power controller, emulators. Never frozen."""
        return Group(Path(self.group) / OUTSIDE, self.freezer)


def number_of(node: str) -> int:
    """The N of cfguestN."""
    return int(node.removeprefix("cfguest"))


def netns(root: Path, name: str) -> Path:
    """The file on which a network namespace of the lab is pinned."""
    return root / "netns" / name


def node_dir(root: Path, node: str) -> Path:
    """The directory of a node: its disk, its logs, its init's files."""
    return root / "nodes" / node


def shared_dir(root: Path) -> Path:
    """What every node sees as /run/lab: the event log and the power controller's socket."""
    return root / "shared"
