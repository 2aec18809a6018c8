"""A machine of a lab, which lives in namespaces of its own: its power, and running things in it."""

import fcntl
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from standfast.cluster.run import Result
from standfast.lab.errors import LabError
from standfast.lab.freezer import Group
from standfast.lab.layout import netns
from standfast.lab.network import enter
from standfast.lab.process import detach, joining, run

_BOOT_LIMIT_SECONDS = 20.0
_SPAWN_LIMIT_SECONDS = 10.0
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


class Groups(Protocol):
    """What a machine needs of its lab's description."""

    def node_group(self, node: str) -> Group:
        """The freezer group of a machine."""
        ...


@dataclass(frozen=True)
class NodeProcess:
    """A process started in a machine by `add_process`."""

    node: str
    pid: int
    """Process id as the machine counts it."""
    log: Path
    """Outside the machine: what it wrote to stdout and stderr."""


@dataclass(frozen=True)
class Machine:
    """A machine of the lab below `root`. Holds no state: everything is in its directory and its cgroup.

    Its init runs alone under the system's Python, gets the directory as its argument, and writes its process
    id on this machine to `init.pid` there when it is ready.
    """

    root: Path
    spec: Groups
    name: str

    kind = "node"
    """What it is called in messages."""
    init = Path()
    """The program that becomes its pid 1."""

    @property
    def directory(self) -> Path:
        """Everything that outlives the machine's power."""
        raise NotImplementedError

    @property
    def group(self) -> Group:
        """The machine's freezer group."""
        return self.spec.node_group(self.name)

    # -- power ---------------------------------------------------------------------------------------

    def init_pid(self) -> int | None:
        """Process id of its init on this machine; None while it has no power."""
        try:
            pid = int((self.directory / "init.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in self.group.pids() else None

    def power_on(self) -> None:
        """Start it and return once its init runs. Nothing happens to a machine that is on."""
        with self._power_lock():
            if self.init_pid() is not None:
                return
            self.group.kill()
            (self.directory / "init.pid").unlink(missing_ok=True)
            self.group.thaw()
            unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
            init = [*unshare, "--propagation", "private", "/usr/bin/python3", "-IS", str(self.init)]
            argv = enter(netns(self.root, self.name), [*init, str(self.directory)])
            detach(joining(self.group.procs_file, argv), self.directory / "console.log", env=ENVIRONMENT)
            self._wait_for_init()

    def power_off(self) -> None:
        """SIGKILL everything in it, frozen or not, at once."""
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
                    f"{self.kind} {self.name} does not start: {said[0]} (see {self.directory}/console.log)"
                )
            time.sleep(0.005)

    @contextmanager
    def _power_lock(self) -> Iterator[None]:
        """One power change of a machine at a time, across processes."""
        fd = os.open(self.directory / "power.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def console(self) -> str:
        """What its init and the daemons of its init wrote to their standard output."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    # -- running things ------------------------------------------------------------------------------

    def _inside(self, argv: Sequence[str]) -> list[str]:
        pid = self.init_pid()
        if pid is None:
            raise LabError(
                f"{self.kind} {self.name} has no power; `standfast lab power {self.name} on` starts it"
            )
        entered = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *argv]
        return joining(self.group.procs_file, entered)

    def execute(self, argv: Sequence[str], limit_seconds: float, input: str | None) -> Result:
        """Run a command in it; it freezes and dies with it. Raises LabError without power."""
        done = run(self._inside(argv), limit_seconds=limit_seconds, input=input, env=ENVIRONMENT)
        return replace(done, argv=tuple(argv))

    def start(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command in it that the caller waits for; stderr goes with stdout. Raises LabError."""
        return subprocess.Popen(
            self._inside(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def add_process(self, argv: Sequence[str]) -> NodeProcess:
        """Start a daemon in it. Raises LabError when it could not be started."""
        log = self.directory / "processes.log"
        # Forked off inside, so that the machine's init adopts and reaps it: an nsenter that stayed
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
            raise LabError(f"cannot start {argv[0]} in {self.kind} {self.name} (frozen?), see {log}")
        starter.wait(_SPAWN_LIMIT_SECONDS)
        return NodeProcess(self.name, int(word), log)
