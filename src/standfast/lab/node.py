"""One node of a lab: a machine with the cluster engine, and its disk."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from standfast.lab import engine_config
from standfast.lab.layout import Spec, node_dir
from standfast.lab.machine import Machine, NodeProcess

__all__ = ["Node", "NodeProcess"]
_BINDS = (
    "etc/corosync",
    "etc/opt",
    "etc/standfast",
    "var/lib/corosync",
    "var/lib/pacemaker",
    "var/lib/standfast",
    "var/log/corosync",
    "var/log/pacemaker",
    "var/log/standfast",
)


@dataclass(frozen=True)
class Node(Machine):
    """A node of the lab below `root`."""

    spec: Spec

    init = Path(__file__).with_name("node_init.py")

    @property
    def directory(self) -> Path:
        """Everything that outlives the node's power."""
        return node_dir(self.root, self.name)

    def path(self, inside: str) -> Path:
        """Where a file below one of the node's own directories (`/etc/corosync/...`) lies on this machine."""
        inner = inside.lstrip("/")
        if any(inner == bind or inner.startswith(bind + "/") for bind in _BINDS):
            return self.directory / "own" / inner
        return self.directory / "disk" / inner

    def prepare(self) -> None:
        """Lay out an empty node's disk with the engine's first configuration."""
        disk, own = self.directory / "disk", self.directory / "own"
        for bind in _BINDS:
            (own / bind).mkdir(parents=True)
            (disk / bind).mkdir(parents=True)
        for name in ("disk/opt", "disk/usr/sbin", "run", "work"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "binds.json").write_text(json.dumps(_BINDS))
        (disk / "etc/hostname").write_text(self.name + "\n")
        (disk / "etc/hosts").write_text(engine_config.hosts_file(self.spec.nodes))
        conf = engine_config.corosync_conf(self.spec.nodes, self.spec.heartbeat_timeout_seconds)
        (own / "etc/corosync/corosync.conf").write_text(conf)
        self._prepare_pacemaker(own)

    def _prepare_pacemaker(self, own: Path) -> None:
        state = own / "var/lib/pacemaker"
        for name in ("blackbox", "cib", "cores", "pengine"):
            (state / name).mkdir(mode=0o750)
            shutil.chown(state / name, "hacluster", "haclient")
        shutil.chown(own / "var/log/pacemaker", "hacluster", "haclient")
        cib = state / "cib/cib.xml"
        cib.write_text(engine_config.FIRST_CIB)
        cib.chmod(0o600)
        shutil.chown(cib, "hacluster", "haclient")
