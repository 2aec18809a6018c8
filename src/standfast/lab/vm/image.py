"""The guests' image: Debian's cloud kernel, an initramfs, and a read-only root with the cluster engine.

It holds nothing of one lab, of Standfast, or secret: those come with disks of their own (`environment`,
`seed`), so a change of code never builds it anew. What it is made from is in its cache key.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from standfast.lab.errors import LabError
from standfast.lab.process import must, run
from standfast.lab.vm import cache

SUITE = "bookworm"
PYTHON_VERSION = "3.11"
"""Python of that Debian; the guests' Python packages are made for it."""
PACKAGES = (
    "corosync",
    "pacemaker",
    "pacemaker-cli-utils",
    "resource-agents",
    "python3",
    # What fence_virsh needs; the agent itself is unpacked alone (scripts/image_hook.sh).
    "python3-pexpect",
    "python3-pycurl",
    "openssh-client",
    "iproute2",
    "mount",
    "procps",
    # hwclock, by which a guest sets its clock from its RTC.
    "util-linux-extra",
)
MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
    "failover", "net_failover", "virtio_net", "overlay", "pvpanic", "pvpanic-mmio", "pvpanic-pci",
)  # fmt: skip
"""In loading order. With libvirt's ISA panic device Debian's 6.1 cloud kernel needs pvpanic-mmio."""
_LEFT_OUT = ("man", "doc", "locale", "info", "i18n/locales", "zoneinfo")
_SCRIPTS = Path(__file__).with_name("scripts")
_BUILD_LIMIT_SECONDS = 900.0
_STEP_LIMIT_SECONDS = 120.0
_LOG_LINES = 12


@dataclass(frozen=True)
class Image:
    """The built image's files."""

    directory: Path

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.directory / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The initramfs."""
        return self.directory / "initramfs.gz"

    @property
    def root(self) -> Path:
        """The read-only root, ext4."""
        return self.directory / "root.ext4"


def mirror() -> str:
    """Debian's mirror: `$STANDFAST_MIRROR`, or deb.debian.org."""
    return os.environ.get("STANDFAST_MIRROR") or "http://deb.debian.org/debian"


def key() -> str:
    """What the image is made from, as a short hash."""
    digest = hashlib.sha256()
    for path in (Path(__file__), _SCRIPTS / "image_hook.sh", _SCRIPTS / "initramfs_init.sh"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def get() -> Image:
    """The image, built where it is not in the cache. Raises LabError with the last words of the build."""
    return Image(cache.entry(f"image-{key()}", _build))


def ext4(source: Path, target: Path, *, spare_mib: int = 16) -> None:
    """Make a file system image that holds the tree `source`. Needs neither a mount nor a loop device."""
    mib = sum(_blocks(path) for path in source.rglob("*")) // 256 + 1
    # One inode for each 4 KiB of a small file system takes 6 %.
    size = f"{mib + mib * 15 // 100 + spare_mib}M"
    options = ["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0", "-i", "4096"]
    must(["mke2fs", *options, "-d", str(source), str(target), size], limit_seconds=_STEP_LIMIT_SECONDS)


def _blocks(path: Path) -> int:
    """4 KiB blocks of a file or folder."""
    return -(-path.lstat().st_size // 4096) if not path.is_symlink() else 1


def _build(directory: Path) -> None:
    scratch = directory / "scratch"
    scratch.mkdir()
    _bootstrap(scratch)
    shutil.copyfile(next((scratch / "kernel/boot").glob("vmlinuz-*")), directory / "vmlinuz")
    _initramfs(scratch, directory / "initramfs.gz")
    ext4(scratch / "root", directory / "root.ext4")
    (scratch / "packages.txt").rename(directory / "packages.txt")
    shutil.rmtree(scratch)


def _bootstrap(scratch: Path) -> None:
    hook = f'sh "{_SCRIPTS / "image_hook.sh"}" "$1" "{scratch}"'
    argv = [
        "mmdebstrap", "--variant=apt", "--mode=root", "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT),
        f"--include={','.join(PACKAGES)}", f"--customize-hook={hook}",
        SUITE, str(scratch / "root"), mirror(),
    ]  # fmt: skip
    # In a PID namespace that ends with us: apt and dpkg must not go on in a build that was given up.
    contained = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
    done = run([*contained, *argv], limit_seconds=_BUILD_LIMIT_SECONDS)
    if not done.ok:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-_LOG_LINES:])
        raise LabError(
            f"the guests' image could not be built from {mirror()} ({done.complaint()}):\n  {said}"
        )


def _initramfs(scratch: Path, target: Path) -> None:
    tree = scratch / "initramfs"
    for name in ("bin", "dev", "proc", "sys", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copyfile(scratch / "busybox/bin/busybox", tree / "bin/busybox")
    shutil.copyfile(_SCRIPTS / "initramfs_init.sh", tree / "init")
    for program in (tree / "bin/busybox", tree / "init"):
        program.chmod(0o755)
    found = {path.stem: path for path in (scratch / "kernel/lib/modules").rglob("*.ko")}
    # What is built into the kernel, or not known to it, has no file.
    order = [name for name in MODULES if name in found]
    for name in order:
        shutil.copyfile(found[name], tree / "modules" / f"{name}.ko")
    (tree / "modules/order").write_text("\n".join(order) + "\n")
    _pack(tree, target)


def _pack(tree: Path, target: Path) -> None:
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    whole = _run_bytes(["cpio", "-o", "-H", "newc", "--quiet", "--owner=0:0"], tree, names.encode())
    target.write_bytes(gzip.compress(whole, 1, mtime=0))


def _run_bytes(argv: Sequence[str], directory: Path, data: bytes) -> bytes:
    """What a program makes of `data`. Raises LabError where it fails."""
    done = subprocess.run(
        argv, cwd=directory, input=data, capture_output=True, timeout=_STEP_LIMIT_SECONDS, check=False
    )
    if done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
