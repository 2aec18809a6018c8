"""What a lab of real guests can say of its cluster: who left, who was fenced, what was started again.

Everything is counted from logs that the nodes write anyway, since a mark that was taken before.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from standfast.lab.errors import LabError
from standfast.lab.vm import channel
from standfast.lab.vm.cluster import VmLab

RING_LOG = "/var/log/corosync/corosync.log"
GATE_LOG = "/var/log/standfast/gate.log"
EVENTS_LOG = "/run/lab/events.log"
PACEMAKER_LOG = "/var/log/pacemaker/pacemaker.log"
MAX_TROUBLES = 12
BOOT_ID = "/proc/sys/kernel/random/boot_id"
READ_LIMIT_SECONDS = 30.0
_FENCED = re.compile(r"\b(?:reboot|off|on) of \S+ successful|was able to (?:reboot|turn)")
"""How stonith_admin of Pacemaker 2.1 tells a fencing that has worked."""
_CUT = "== cut ==\n"
_GLANCE = (
    f"corosync-quorumtool -s; echo '{_CUT[:-1]}'; tail -c +$2 $1 2>/dev/null; "
    f"echo '{_CUT[:-1]}'; tail -c +$4 $3 2>/dev/null"
)


@dataclass(frozen=True)
class Glance:
    """What one small command on a node tells since a mark. All of it is empty where the node does not answer.

    Small, because an emulated node has one slow processor: who looks often takes it from the cluster.
    """

    ring: str = ""
    """`corosync-quorumtool -s`."""
    gate: str = ""
    services: tuple[dict[str, object], ...] = ()

    @property
    def members(self) -> int | None:
        """How many nodes its ring has; None: not told."""
        match = re.search(r"^Nodes:\s*(\d+)", self.ring, re.MULTILINE)
        return int(match[1]) if match else None

    def started(self, resource: str) -> float | None:
        """When this service was started on the node, by the node's clock."""
        for event in self.services:
            if (event["resource"], event["action"]) == (resource, "start"):
                return float(str(event["wall"]))
        return None


@dataclass(frozen=True)
class Mark:
    """How long a node's logs were."""

    node: str
    ring: int
    gate: int
    events: int


class Witness:
    """Reads the logs of one lab."""

    def __init__(self, lab: VmLab) -> None:
        self._lab = lab

    def read(self, node: str, path: str) -> str:
        """A file of a node; empty where it has none, or does not answer."""
        try:
            return self._lab.exec(node, ["cat", path], READ_LIMIT_SECONDS).stdout
        except channel.Unreachable:
            return ""

    def glance(self, mark: Mark) -> Glance:
        """Look once."""
        logs = [GATE_LOG, str(mark.gate + 1), EVENTS_LOG, str(mark.events + 1)]
        argv = ["/bin/sh", "-c", _GLANCE, "glance", *logs]
        try:
            text = self._lab.exec(mark.node, argv, READ_LIMIT_SECONDS).stdout
        except channel.Unreachable:
            return Glance()
        ring, gate, events = [*text.split(_CUT), "", ""][:3]
        whole = [line for line in events.splitlines() if line.endswith("}")]
        return Glance(ring, gate, tuple(json.loads(line) for line in whole))

    def mark(self, node: str) -> Mark:
        """Now."""
        ring, gate, events = (len(self.read(node, path)) for path in (RING_LOG, GATE_LOG, EVENTS_LOG))
        return Mark(node, ring, gate, events)

    def boot(self, node: str) -> str:
        """What changes when a node boots (random(4))."""
        return self.read(node, BOOT_ID).strip()

    def token(self, node: str) -> str:
        """The token timeout that its corosync runs, in ms; empty where it does not answer."""
        argv = ["corosync-cmapctl", "-g", "runtime.config.totem.token"]
        try:
            return self._lab.exec(node, argv, READ_LIMIT_SECONDS).stdout.rpartition("=")[2].strip()
        except channel.Unreachable:
            return ""

    def left(self, mark: Mark) -> int:
        """How often its corosync has told that somebody left the membership."""
        return self.read(mark.node, RING_LOG)[mark.ring :].count("Sync left")

    def rings(self, mark: Mark) -> int:
        """How many memberships its corosync has formed (totemsrp.c of 3.1.7: "A new membership")."""
        return self.read(mark.node, RING_LOG)[mark.ring :].count("A new membership")

    def gate_lines(self, mark: Mark, answer: str) -> list[str]:
        """What its gates have answered so: ` hold ` or ` allow `."""
        return [
            line for line in self.read(mark.node, GATE_LOG)[mark.gate :].splitlines() if f" {answer} " in line
        ]

    def service_events(self, mark: Mark) -> list[dict[str, object]]:
        """Starts and stops of services on it."""
        return [json.loads(line) for line in self.read(mark.node, EVENTS_LOG)[mark.events :].splitlines()]

    def troubles(self, node: str) -> list[str]:
        """The last warnings and errors of its Pacemaker."""
        argv = ["grep", "-E", r"\b(warning|error|crit)\b", PACEMAKER_LOG]
        try:
            lines = self._lab.exec(node, argv, READ_LIMIT_SECONDS).stdout.splitlines()
        except channel.Unreachable:
            return []
        return lines[-MAX_TROUBLES:]

    def fencings(self, node: str, by: str) -> int:
        """Successful fencings of a node that the fencer of `by` knows of."""
        done = self._lab.exec(by, ["stonith_admin", "--history", node, "--verbose"], READ_LIMIT_SECONDS)
        return len(_FENCED.findall(done.stdout))

    def one_ring(self, limit_seconds: float) -> float:
        """Wait until all nodes are one ring; how long it took. Raises LabError."""
        first, *others = self._lab.nodes

        def one() -> bool:
            try:
                rings = {self._lab.members(node) for node in (first, *others)}
            except channel.Unreachable:
                return False
            return len(rings) == 1 and f"{len(self._lab.nodes)} nodes" in rings.pop()

        return self._lab.wait(one, limit_seconds, "one ring")


def clock_difference(lab: VmLab, node: str) -> float:
    """By how many seconds a node's clock is ahead of this machine's, within the time of one command."""
    began = time.time()
    done = lab.exec(node, ["date", "+%s.%N"], READ_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"{node} does not tell its time: {done.complaint()}")
    return float(done.stdout) - (began + time.time()) / 2


def set_clock(lab: VmLab, node: str, like: str) -> None:
    """Set a node's clock to that of another one, as a time service would. Raises LabError."""
    began = time.monotonic()
    now = lab.exec(like, ["date", "+%s.%N"], READ_LIMIT_SECONDS)
    late = time.monotonic() - began
    if not now.ok:
        raise LabError(f"{like} does not tell its time: {now.complaint()}")
    done = lab.exec(node, ["date", "-s", f"@{float(now.stdout) + late:.3f}"], READ_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"the clock of {node} could not be set: {done.complaint()}")


def clock_offset(lab: VmLab, node: str, other: str, verdict: str) -> float | None:
    """How far the other's clock differs from this node's, in seconds, if that is what this node makes of it
    (`agrees`, `out`)."""
    said = lab.exec(node, ["sdtool", "-s", "--json"], READ_LIMIT_SECONDS)
    if not said.ok:
        return None
    rows: list[dict[str, Any]] = json.loads(said.stdout)["clocks"]["hosts"]
    found = {row["host"]: row["offset_seconds"] for row in rows if row["clock"] == verdict}
    return found.get(other)
