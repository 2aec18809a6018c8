"""The guests' Python packages: the same versions as here, for the guests' Python, as a disk of their own."""

import hashlib
import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

from standfast.lab.errors import LabError
from standfast.lab.process import run
from standfast.lab.vm import cache
from standfast.lab.vm.image import PYTHON_VERSION, ext4

PREFIX = "/opt/standfast"
"""The Python environment in a guest."""
SITE_PACKAGES = f"{PREFIX}/lib/python{PYTHON_VERSION}/site-packages"
_SYSTEM_PYTHON = "/usr/bin/python3"
# pip takes exactly the platforms that it is told; bookworm has glibc 2.36.
_PLATFORMS = (
    "manylinux_2_34_x86_64", "manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64",
    "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64",
)  # fmt: skip
_ABIS = (f"cp{PYTHON_VERSION.replace('.', '')}", "abi3", "none")
_PIP_LIMIT_SECONDS = 600.0
_COMPILE_LIMIT_SECONDS = 300.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def requirements() -> list[str]:
    """What Standfast needs at run time, all the way down, with the versions that are installed here."""
    found: dict[str, str] = {}
    ahead = ["standfast"]
    while ahead:
        for wanted in importlib.metadata.requires(ahead.pop()) or []:
            said = _NAME.match(wanted)
            name = re.sub(r"[-_.]+", "-", said.group()).lower() if said else ""
            if not name or "extra ==" in wanted or name in found:
                continue
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # Not needed on this Python; a guest's is the oldest that there is.
            ahead.append(name)
    return sorted(f"{name}=={version}" for name, version in found.items())


def get() -> Path:
    """The disk with the packages, built where it is not in the cache. Raises LabError with pip's words."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update("\n".join(requirements()).encode())
    return cache.entry(f"python-{digest.hexdigest()[:16]}", _build) / "python.ext4"


def compile_all(tree: Path) -> None:
    """Byte code for the guests' Python, where this machine has the same; a guest compiles slowly."""
    probe = run([_SYSTEM_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], limit_seconds=10)
    if probe.stdout.strip() != PYTHON_VERSION:
        return
    # Unchecked: the disks are read-only, so what was compiled is what is there.
    argv = [_SYSTEM_PYTHON, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
            "-s", str(tree), "-p", "/", str(tree)]  # fmt: skip
    done = run(argv, limit_seconds=_COMPILE_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"{tree} could not be compiled: {done.complaint()}")


def _build(directory: Path) -> None:
    tree = directory / "tree"
    target = tree / SITE_PACKAGES.lstrip("/")
    target.mkdir(parents=True)
    argv = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile",
        "--implementation", "cp", "--python-version", PYTHON_VERSION, "--target", str(target),
        *(f"--platform={name}" for name in _PLATFORMS), *(f"--abi={name}" for name in _ABIS),
        *requirements(),
    ]  # fmt: skip
    done = run(argv, limit_seconds=_PIP_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"the guests' Python packages could not be fetched:\n  {done.stderr.strip()[-2000:]}")
    compile_all(tree)
    ext4(tree, directory / "python.ext4")
    shutil.rmtree(tree)
