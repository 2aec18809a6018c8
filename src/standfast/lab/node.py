"""One node of a lab: its disk, its power, and running things in it."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from standfast.cluster.run import Result
from standfast.lab import engine_config
from standfast.lab.errors import LabError
from standfast.lab.freezer import Group
from standfast.lab.layout import Spec, netns, node_dir
from standfast.lab.network import enter
from standfast.lab.process import detach, joining, run

_BOOT_LIMIT_SECONDS = 20.0
_SPAWN_LIMIT_SECONDS = 10.0
_INIT = Path(__file__).with_name("node_init.py")
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
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "LOGNAME": "root",
    "USER": "root",
    "SHELL": "/bin/sh",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PCMK_logfile": "/var/log/pacemaker/pacemaker.log",
    "PCMK_logfacility": "none",
}


@dataclass(frozen=True)
class NodeProcess:
    """A process started in a node by `add_process`."""

    node: str
    pid: int
    """Process id as the node counts it."""
    log: Path
    """Outside the nodes: what it wrote to stdout and stderr."""


@dataclass(frozen=True)
class Node:
    """A node of the lab below `root`. Holds no state: everything is in the directory and the cgroup."""

    root: Path
    spec: Spec
    name: str

    @property
    def directory(self) -> Path:
        """Everything that outlives the node's power."""
        return node_dir(self.root, self.name)

    @property
    def group(self) -> Group:
        """The node's freezer group."""
        return self.spec.node_group(self.name)

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

    # -- power ---------------------------------------------------------------------------------------

    def init_pid(self) -> int | None:
        """Process id of the node's init on this machine; None while the node has no power."""
        try:
            pid = int((self.directory / "init.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in self.group.pids() else None

    def power_on(self) -> None:
        """Start the node and return once its init runs. Nothing happens to a node that is on."""
        with self._power_lock():
            if self.init_pid() is not None:
                return
            self.group.kill()
            (self.directory / "init.pid").unlink(missing_ok=True)
            self.group.thaw()
            unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
            init = [*unshare, "--propagation", "private", "/usr/bin/python3", "-IS", str(_INIT)]
            argv = enter(netns(self.root, self.name), [*init, str(self.directory)])
            detach(joining(self.group.procs_file, argv), self.directory / "console.log", env=ENVIRONMENT)
            self._wait_for_init()

    def power_off(self) -> None:
        """SIGKILL everything in the node, frozen or not, at once."""
        with self._power_lock():
            self.group.kill()
            self.group.thaw()
            (self.directory / "init.pid").unlink(missing_ok=True)

    def _wait_for_init(self) -> None:
        deadline = time.monotonic() + _BOOT_LIMIT_SECONDS
        while self.init_pid() is None:
            if time.monotonic() > deadline:
                said = self.console().splitlines()[-1:] or ["no word"]
                raise LabError(
                    f"node {self.name} does not start: {said[0]} (see {self.directory}/console.log)"
                )
            time.sleep(0.005)

    @contextmanager
    def _power_lock(self) -> Iterator[None]:
        """One power change of a node at a time, across processes."""
        fd = os.open(self.directory / "power.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def console(self) -> str:
        """What init, corosync and pacemakerd wrote to their standard output."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    # -- running things ------------------------------------------------------------------------------

    def _inside(self, argv: Sequence[str]) -> list[str]:
        pid = self.init_pid()
        if pid is None:
            raise LabError(f"node {self.name} has no power; `standfast lab power {self.name} on` starts it")
        entered = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *argv]
        return joining(self.group.procs_file, entered)

    def execute(self, argv: Sequence[str], limit_seconds: float, input: str | None) -> Result:
        """Run a command in the node; it freezes and dies with the node. Raises LabError without power."""
        done = run(self._inside(argv), limit_seconds=limit_seconds, input=input, env=ENVIRONMENT)
        return replace(done, argv=tuple(argv))

    def add_process(self, argv: Sequence[str]) -> NodeProcess:
        """Start a daemon in the node. Raises LabError when it could not be started."""
        log = self.directory / "processes.log"
        # Forked off inside the node, so that the node's init adopts and reaps it: an nsenter that stayed
        # would stop itself for good when its child is stopped. stdout carries the process id, stderr the log.
        inner = ["setsid", "--fork", "/bin/sh", "-c", 'echo $$; exec "$@" >&2', "start", *argv]
        with log.open("ab") as sink:
            starter = subprocess.Popen(
                self._inside(inner),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=ENVIRONMENT,
            )
        assert starter.stdout is not None
        with starter.stdout as pipe:
            ready, _, _ = select.select([pipe], [], [], _SPAWN_LIMIT_SECONDS)
            word = pipe.readline().strip() if ready else b""
        if not word:
            starter.kill()
            raise LabError(f"cannot start {argv[0]} in node {self.name} (frozen?), see {log}")
        starter.wait(_SPAWN_LIMIT_SECONDS)
        return NodeProcess(self.name, int(word), log)
