"""Stops and kills whole groups of processes: cgroup v2 `cgroup.freeze`, or the v1 freezer.

Outside facts: Documentation/admin-guide/cgroup-v2.rst ("cgroup.freeze", "cgroup.events", "cgroup.kill")
and cgroup-v1/freezer-subsystem.rst of the Linux kernel.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from standfast.lab.errors import LabError

Version = Literal["v1", "v2"]
_STATE_LIMIT_SECONDS = 10.0
_KILL_LIMIT_SECONDS = 15.0
_POLL_SECONDS = 0.001


def mounted() -> dict[Version, Path]:
    """Where this machine has freezers, by version, as /proc/mounts says."""
    found: dict[Version, Path] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if not os.access(point, os.W_OK):
            continue
        if kind == "cgroup2":
            found.setdefault("v2", Path(point))
        elif kind == "cgroup" and "freezer" in options.split(","):
            found.setdefault("v1", Path(point))
    return found


def choose(wanted: Literal["auto", "v1", "v2"]) -> tuple[Version, Path]:
    """The freezer to use and its mount point; `auto` prefers v2. Raises LabError when there is none."""
    found = mounted()
    order: tuple[Version, ...] = ("v2", "v1") if wanted == "auto" else (wanted,)
    for version in order:
        if version in found:
            return version, found[version]
    there = ", ".join(sorted(found)) or "none"
    raise LabError(f"this machine has no writable freezer of kind {wanted} (mounted: {there})")


@dataclass(frozen=True)
class Group:
    """One group of processes that can be frozen, thawed and killed as a whole."""

    path: Path
    version: Version

    @property
    def procs_file(self) -> Path:
        """The file to which a process writes its id to join."""
        return self.path / "cgroup.procs"

    def create(self) -> None:
        """Make the group; it may be there already."""
        self.path.mkdir(parents=True, exist_ok=True)

    def pids(self) -> list[int]:
        """Process ids in the group as this PID namespace counts them; empty when there is no group."""
        try:
            return [int(word) for word in self.procs_file.read_text().split()]
        except OSError:
            return []

    def frozen(self) -> bool:
        """True once every process of the group is really stopped."""
        try:
            if self.version == "v1":
                return (self.path / "freezer.state").read_text().strip() == "FROZEN"
            return "frozen 1" in (self.path / "cgroup.events").read_text().splitlines()
        except OSError:
            return False

    def freeze(self) -> None:
        """Stop the group and return once it is really stopped. Raises LabError at the limit, thawed."""
        self._write_state(frozen=True)
        deadline = time.monotonic() + _STATE_LIMIT_SECONDS
        while not self.frozen():
            if time.monotonic() > deadline:
                self._write_state(frozen=False)
                raise LabError(
                    f"{self.path.name} did not freeze within {_STATE_LIMIT_SECONDS:g} s; it runs on"
                )
            time.sleep(_POLL_SECONDS)

    def thaw(self) -> None:
        """Let the group run on."""
        self._write_state(frozen=False)

    def kill(self) -> None:
        """SIGKILL everything in the group, frozen or not, and return when it is empty."""
        deadline = time.monotonic() + _KILL_LIMIT_SECONDS
        while self.pids():
            if time.monotonic() > deadline:
                raise LabError(f"processes of {self.path} do not die: {self.pids()}")
            self._kill_once()
            time.sleep(0.005)

    def remove(self) -> None:
        """Remove the empty group. The kernel may need a moment after the last process has gone."""
        deadline = time.monotonic() + _KILL_LIMIT_SECONDS
        while self.path.exists():
            try:
                self.path.rmdir()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"cannot remove the group {self.path}: {error.strerror}") from error
                time.sleep(0.01)

    def _kill_once(self) -> None:
        whole = self.path / "cgroup.kill"
        if self.version == "v2" and whole.exists():
            whole.write_text("1")
            return
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # A task frozen by v1 dies only once it is thawed, so the thaw comes after the signal.
        with suppress(OSError):
            self._write_state(frozen=False)

    def _write_state(self, *, frozen: bool) -> None:
        name, text = ("freezer.state", "FROZEN" if frozen else "THAWED")
        if self.version == "v2":
            name, text = ("cgroup.freeze", "1" if frozen else "0")
        (self.path / name).write_text(text)
