"""The lab's own disk: Standfast's code, configuration, keys. A tree that is laid over the image's root.

Made anew for each lab in about a second; what a guest needs of its own (name, address) it gets on its kernel
command line.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Sequence
from pathlib import Path

import standfast
from standfast.commands import install
from standfast.core import names
from standfast.lab import engine_config
from standfast.lab.process import must
from standfast.lab.vm import layout
from standfast.lab.vm.environment import PREFIX, SITE_PACKAGES, compile_all
from standfast.lab.vm.image import PYTHON_VERSION, ext4

KEY_FILE = "/root/.ssh/id_ed25519"
"""In a guest: the key with which fence_virsh logs in on the hosts."""
_RECORDER = Path(__file__).parents[1] / "agents" / "recorder.py"
_INIT = Path(__file__).with_name("scripts") / "guest_init.sh"
_SPARE_MIB = 2
BUDGET_SECONDS = 60
"""What a frozen window raises the heartbeat timeout to."""


def make_keys(root: Path, hosts: Sequence[str]) -> None:
    """A client key for the guests and a host key for each host, new for each lab."""
    keys = root / "keys"
    keys.mkdir(mode=0o700)
    for name in ("guests", *hosts):
        comment = f"standfast-lab-{name}"
        must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(keys / name)])


def make(root: Path, spec: layout.VmSpec) -> None:
    """Write the disk. Raises LabError, OSError."""
    tree = root / "seed"
    tree.mkdir(mode=0o755)
    _environment(tree)
    _configuration(tree, spec)
    _keys(tree, root, spec)
    compile_all(tree / PREFIX.lstrip("/"))
    ext4(tree, layout.seed_disk(root), spare_mib=_SPARE_MIB)
    layout.seed_disk(root).chmod(0o600)
    shutil.rmtree(tree)


def hosts_file(spec: layout.VmSpec) -> str:
    """/etc/hosts of every guest and host."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{layout.guest_address(layout.number_of(node))} {node}" for node in spec.nodes]
    lines += [f"{layout.host_address(layout.number_of(host))} {host}" for host in spec.hosts]
    return "\n".join(lines) + "\n"


def known_hosts(root: Path, spec: layout.VmSpec) -> str:
    """The hosts' public keys, by name and by address."""
    lines = []
    for host in spec.hosts:
        kind, key = (root / "keys" / f"{host}.pub").read_text().split()[:2]
        lines.append(f"{host},{layout.host_address(layout.number_of(host))} {kind} {key}")
    return "\n".join(lines) + "\n"


def clovmmigrate_conf(spec: layout.VmSpec) -> str:
    """The same on every node: all hosts, and how fence_virsh reaches each."""
    text = f"format = 1\nbudget_seconds = {BUDGET_SECONDS}\n"
    for host in spec.hosts:
        address = layout.host_address(layout.number_of(host))
        text += (
            f'\n[[control_domain]]\nname = "{host}"\naddress = "{address}"\nkind = "libvirt"\n'
            f'login = "root"\nfence_agent = "fence_virsh"\n[control_domain.fence_parameters]\n'
            f'ip = "{address}"\nusername = "root"\nidentity_file = "{KEY_FILE}"\n'
        )
    return text


def _environment(tree: Path) -> None:
    """A Python environment as `python3 -m venv` makes it, with Standfast in it; the packages that it needs
    lie on another disk at the same place."""
    prefix, site = tree / PREFIX.lstrip("/"), tree / SITE_PACKAGES.lstrip("/")
    scripts = prefix / "bin"
    scripts.mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON_VERSION}\n"
    )
    (scripts / "python3").symlink_to("/usr/bin/python3")
    package = Path(standfast.__file__).parent
    shutil.copytree(package, site / "standfast", ignore=shutil.ignore_patterns("__pycache__"))
    ours = importlib.metadata.distribution("standfast")
    about = site / f"standfast-{ours.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: standfast\nVersion: {ours.version}\n")
    for entry in ours.entry_points:
        if entry.group == "console_scripts":
            program = scripts / entry.name
            program.write_text(
                f"#!{PREFIX}/bin/python3\nimport sys\nfrom {entry.module} import {entry.attr}\n"
                f"sys.exit({entry.attr}())\n"
            )
            program.chmod(0o755)
    install.programs(tree / "usr/sbin", Path(PREFIX) / "bin")


def _configuration(tree: Path, spec: layout.VmSpec) -> None:
    conf = engine_config.corosync_conf(spec.nodes, spec.heartbeat_timeout_seconds)
    for path, text in (
        (names.COROSYNC_CONF, conf),
        ("/etc/hosts", hosts_file(spec)),
        (names.CONFIG_FILE, clovmmigrate_conf(spec)),
        ("/usr/share/standfast-lab/cib.xml", engine_config.FIRST_CIB),
    ):
        _write(tree, path, text.encode())
    _write(tree, "/usr/sbin/lab-init", _INIT.read_bytes(), 0o755)
    _write(tree, "/usr/lib/ocf/resource.d/lab/Recorder", _RECORDER.read_bytes(), 0o755)


def _keys(tree: Path, root: Path, spec: layout.VmSpec) -> None:
    private = (root / "keys" / "guests").read_bytes()
    known = known_hosts(root, spec).encode()
    _write(tree, KEY_FILE, private, 0o600)
    _write(tree, "/root/.ssh/known_hosts", known)
    _write(tree, names.KNOWN_HOSTS_FILE, known)
    _write(tree, names.CONTROL_DOMAIN_KEY_FILE, private, 0o600)
    for folder in ("root", "root/.ssh", names.SECRETS_DIR.lstrip("/")):
        (tree / folder).chmod(0o700)


def _write(tree: Path, path: str, data: bytes, mode: int = 0o644) -> None:
    target = tree / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)
