"""Takes a lab away from its directory alone, however far its start had come."""

import shutil
from contextlib import suppress
from pathlib import Path

from standfast.lab.errors import LabError
from standfast.lab.freezer import Group
from standfast.lab.layout import OUTSIDE, top_group
from standfast.lab.process import must


def remove(root: Path) -> None:
    """Remove processes, cgroups, namespaces, mounts and files of the lab below `root`.

    Can be called at any moment and any number of times; raises LabError naming what does not go.
    """
    if (root / "lab.json").exists():
        _remove_groups(top_group(root))
    # Without lab.json nothing but the directory has been made: it is written first.
    for point in reversed(mounts_below(root)):
        must(["umount", "--lazy", point])
    left = mounts_below(root)
    if left:
        raise LabError(f"still mounted, so nothing below {root} was deleted: {', '.join(left)}")
    if root.exists():
        shutil.rmtree(root)
    with suppress(OSError):
        root.parent.rmdir()


def mounts_below(root: Path) -> list[str]:
    """Mount points below a directory, in the order in which they were mounted."""
    inside = str(root.resolve()) + "/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in points if point.startswith(inside)]


def _remove_groups(top: Group) -> None:
    """Kill all groups first, remove them afterwards: the power controller could start a node again.

    The lab's own processes, those outside all machines, go before the machines.
    """
    if not top.path.exists():
        return
    inner = sorted(path for path in top.path.iterdir() if path.is_dir())
    inner.sort(key=lambda path: path.name != OUTSIDE)
    groups = [Group(path, top.version) for path in inner]
    for group in groups:
        group.kill()
    for group in groups:
        group.remove()
    top.remove()
