"""What of a lab can still be found on the machine, seen without the lab's own code."""

import json
from pathlib import Path


def namespaces(root: Path) -> set[int]:
    """Inode numbers of the network namespaces that are pinned below a lab's directory."""
    folder = root / "netns"
    return {entry.stat().st_ino for entry in folder.iterdir()} if folder.is_dir() else set()


def group(root: Path) -> Path | None:
    """Directory of the lab's cgroups, as its description has it."""
    try:
        return Path(json.loads((root / "lab.json").read_text())["group"])
    except OSError:
        return None


def left_over(root: Path, group_dir: Path | None, netns_inodes: set[int]) -> list[str]:
    """Everything of a lab that is still there, each as a short text."""
    found = [f"directory {root}"] if root.exists() else []
    if group_dir is not None and group_dir.exists():
        found.append(f"cgroup {group_dir}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if f"{root}/" in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            found += _process(entry, root, netns_inodes)
    return found


def _process(entry: Path, root: Path, netns_inodes: set[int]) -> list[str]:
    try:
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        inside = (entry / "ns/net").stat().st_ino in netns_inodes
        state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return []
    about_it = f"{root}/" in command or command.rstrip().endswith(str(root))
    return [f"process {entry.name} {command}"] if (inside or about_it) and state != "Z" else []
