"""What a machine must have, and must not run, before a lab starts."""

import os
import shutil
from pathlib import Path

from standfast.lab.errors import LabError

_PROGRAMS = {
    "corosync": "corosync",
    "pacemakerd": "pacemaker",
    "crm_mon": "pacemaker-cli-utils",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
}


_VM_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "mmdebstrap": "mmdebstrap",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
}
_LIBVIRT_DRIVER = "*/libvirt/connection-driver/libvirt_driver_qemu.so"


def check_machine() -> None:
    """Raises LabError when not root, when a program is missing, or when the machine runs corosync itself."""
    _check(_PROGRAMS)


def check_vm_machine() -> None:
    """The same for a lab of real guests."""
    _check(_VM_PROGRAMS)
    if not list(Path("/usr/lib").glob(_LIBVIRT_DRIVER)):
        raise LabError("libvirt cannot run QEMU here: apt-get install libvirt-daemon-driver-qemu")


def _check(programs: dict[str, str]) -> None:
    if os.geteuid() != 0:
        raise LabError("a lab makes namespaces and cgroups: run this as root")
    missing = {package for program, package in programs.items() if not _find(program)}
    if missing:
        raise LabError(f"missing programs, nothing was started: apt-get install {' '.join(sorted(missing))}")
    own = corosync_of_this_machine()
    if own is not None:
        raise LabError(
            f"corosync runs on this machine itself (process {own}): a lab is only for machines that are "
            "no cluster node; nothing was started"
        )


def corosync_of_this_machine() -> int | None:
    """Process id of a corosync in this machine's own network; those of labs have networks of their own."""
    here = Path("/proc/self/ns/net").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip() == "corosync" and (entry / "ns/net").readlink() == here:
                return int(entry.name)
        except OSError:
            continue
    return None


def _find(program: str) -> bool:
    return (
        shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin") is not None
    )
