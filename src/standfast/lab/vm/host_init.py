"""PID 1 of a host: lays out the host's own files, starts libvirtd and sshd, reaps orphans.

Runs alone under the system's Python with the standard library, in namespaces that are made already, in the
host's cgroup. One argument: the host's directory. `init.pid` says that it is ready. It must reap: libvirtd
starts QEMU as a daemon and waits for a process id that would stay a zombie (seen: it hangs in its first
probe).
"""

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

MS_BIND = 0x1000
MS_MOVE = 0x2000
MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError naming source and target."""
    done = _LIBC.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {source} on {target} ({options}): {os.strerror(code)}")


def own_files(host: Path) -> None:
    """Everything that a host has for itself; the machine's own files are never written."""
    for name in ("etc", "var/lib", "var/log", "var/cache"):
        upper, work = host / "disk" / name, host / "work" / name.replace("/", "-")
        work.mkdir(parents=True, exist_ok=True)
        mount("overlay", f"/{name}", "overlay", 0, f"lowerdir=/{name},upperdir={upper},workdir={work}")
        # Bound over it: what the machine's own libvirt has defined must not show through.
        mount(str(host / "libvirt" / name), f"/{name}/libvirt", "", MS_BIND)
    # Without this libvirtd takes the machine's control groups and network cards for its own.
    _LIBC.umount2(b"/sys/fs/cgroup", MNT_DETACH)
    mount("sysfs", "/sys", "sysfs")
    own_run(host)
    mount("proc", "/proc", "proc")


def own_run(host: Path) -> None:
    """A fresh /run with the lab's files in it. Last, because the lab itself may lie below /run."""
    new = host / "run"
    mount("tmpfs", str(new), "tmpfs", 0, "mode=755,size=64m")
    for name in ("libvirt", "sshd", "lock", "lab", "lab/image", "lab/own", "lab/shared"):
        (new / name).mkdir()
    (new / "lab/python.ext4").touch()
    for source, name in (
        ((host / "image").resolve(), "image"),
        ((host / "python").resolve(), "python.ext4"),
        (host / "own", "own"),
        (host.parent.parent / "shared", "shared"),
    ):
        mount(str(source), str(new / "lab" / name), "", MS_BIND)
    mount(str(new), "/run", "", MS_MOVE)


def reap_forever() -> None:
    """Collect whatever ends here, for as long as the host has power."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1.0)


def main(directory: str) -> None:
    """Become the host."""
    host = Path(directory)
    # The old /proc still counts as the machine does: this is our process id outside.
    outside_pid = str(Path("/proc/self").readlink())
    here = os.open(host, os.O_RDONLY | os.O_DIRECTORY)
    socket.sethostname(host.name)
    own_files(host)
    os.chdir("/")
    os.environ["PATH"] = "/run/lab/own/bin:" + os.environ["PATH"]
    for argv in (["libvirtd", "--listen"], ["/usr/sbin/sshd", "-D", "-e", "-f", "/run/lab/own/sshd_config"]):
        subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    fd = os.open("init.pid.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=here)
    os.write(fd, outside_pid.encode())
    os.close(fd)
    os.rename("init.pid.new", "init.pid", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    reap_forever()


if __name__ == "__main__":
    main(sys.argv[1])
