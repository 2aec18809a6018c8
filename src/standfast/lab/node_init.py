"""PID 1 of a lab node: lays out the node's own files, starts corosync and pacemaker, reaps orphans.

Runs alone under the system's Python with the standard library, in namespaces that are made already, in the
node's freezer group. One argument: the node's directory. `init.pid` says that it is ready.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

MS_BIND = 0x1000
MS_MOVE = 0x2000
_COROSYNC_LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError naming source and target."""
    done = _LIBC.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {source} on {target} ({options}): {os.strerror(code)}")


def overlay(target: str, upper: Path, work: Path, lower: str) -> None:
    """Put a writable layer of this node's own over a directory of the machine."""
    work.mkdir(parents=True, exist_ok=True)
    mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")


def own_files(node: Path, lab: Path) -> None:
    """Everything that a node has for itself; the machine's own files are never written."""
    disk = node / "disk"
    work = node / "work"
    for name in ("etc", "opt", "var/lib", "var/log"):
        overlay(f"/{name}", disk / name, work / name.replace("/", "-"), f"/{name}")
    overlay("/usr/sbin", disk / "usr/sbin", work / "usr-sbin", f"{lab}/sbin:/usr/sbin")
    mount("overlay", "/usr/lib/ocf/resource.d", "overlay", 0, f"lowerdir={lab}/ocf:/usr/lib/ocf/resource.d")
    # Bound over the overlays: inotify and rename behave as on a disk, nothing of the machine shows through.
    for name in json.loads((node / "binds.json").read_text()):
        mount(str(node / "own" / name), f"/{name}", "", MS_BIND)
    mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777,size=1g")
    own_run(node, lab)
    mount("proc", "/proc", "proc")


def own_run(node: Path, lab: Path) -> None:
    """A fresh /run with the lab's shared directory in it. Last, because the lab itself may lie below /run."""
    new = node / "run"
    mount("tmpfs", str(new), "tmpfs", 0, "mode=755,size=256m")
    for name, mode in (("lab", 0o755), ("lock", 0o755), ("pacemaker", 0o755), ("resource-agents", 0o1755)):
        (new / name).mkdir()
        (new / name).chmod(mode)
    (new / "crm").mkdir(mode=0o750)
    shutil.chown(new / "crm", "hacluster", "haclient")
    mount(str(lab / "shared"), str(new / "lab"), "", MS_BIND)
    mount(str(new), "/run", "", MS_MOVE)


def start_engine() -> None:
    """corosync, and pacemaker once corosync answers."""
    subprocess.Popen(["corosync", "-f"], stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + _COROSYNC_LIMIT_SECONDS
    quiet = subprocess.DEVNULL
    while subprocess.call(["corosync-cfgtool", "-s"], stdin=quiet, stdout=quiet, stderr=quiet) != 0:
        if time.monotonic() > deadline:
            sys.stderr.write("corosync does not answer; pacemaker is not started\n")
            return
        time.sleep(_POLL_SECONDS)
    subprocess.Popen(["pacemakerd", "-f"], stdin=quiet)


def reap_forever() -> None:
    """Collect whatever ends here, for as long as the node has power."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1.0)


def main(directory: str) -> None:
    """Become the node."""
    node = Path(directory)
    lab = node.parent.parent
    # The old /proc still counts as the machine does: this is our process id outside.
    outside_pid = str(Path("/proc/self").readlink())
    here = os.open(node, os.O_RDONLY | os.O_DIRECTORY)
    socket.sethostname(node.name)
    own_files(node, lab)
    fd = os.open("init.pid.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=here)
    os.write(fd, outside_pid.encode())
    os.close(fd)
    os.rename("init.pid.new", "init.pid", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    os.chdir("/")
    start_engine()
    reap_forever()


if __name__ == "__main__":
    main(sys.argv[1])
