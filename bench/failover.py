"""How long a real death takes to be recovered: without the gate, with it, and in a guarded window.

Each figure is from a cluster of its own with three nodes, a heartbeat timeout of 10 s and emulated hosts: a
guest hangs for good, and the clock stops when its service starts on another node. "XSCF alone" is plain
Pacemaker with the same shutdown agents and no gate in front of them: the peer of the run. Read the ratios.

usage: ./run bench failover [ROUNDS [CASE...]]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from xml.etree import ElementTree as ET

from standfast.lab.errors import LabError
from standfast.lab.scene import Scene

ROUNDS = 3
NODES = 3
GUEST, MOVER, OTHER_GUEST, OTHER = "guest2", "cfguest2", "guest3", "cfguest3"
RECOVERY_LIMIT_SECONDS = 90.0
SEEN_SECONDS = 20.0
"""How long a guarded window is open before the death: the nodes have seen the guest run for so long."""
POLL_SECONDS = 0.01


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    wanted = sys.argv[2:] or list(CASES)
    print(f"seconds from the death to the service's start elsewhere; median (min-max) of {rounds}")
    peer: float | None = None
    for name in wanted:
        taken = [_measured(*CASES[name]) for _ in range(rounds)]
        middle = statistics.median(taken)
        peer = middle if peer is None else peer
        shown = f"{middle:6.2f} ({min(taken):.2f}-{max(taken):.2f})"
        print(f"{name:<42} {shown:<24} ratio {middle / peer:.2f}", flush=True)
    return 0


def _measured(prepare: Callable[[Scene], None], guest: str, node: str) -> float:
    scene = Scene.up(NODES)
    try:
        scene.wait(scene.settled, 60.0, "the cluster to settle")
        prepare(scene)
        known = len(scene.lab.events())
        began = time.monotonic()
        scene.control.call("hang", name=guest)
        while not any(
            event.resource == f"r-{node}" and event.action == "start" and event.node != node
            for event in scene.lab.events()[known:]
        ):
            if time.monotonic() - began > RECOVERY_LIMIT_SECONDS:
                raise LabError(f"r-{node} did not start elsewhere within {RECOVERY_LIMIT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began
    finally:
        scene.down()


def _nothing(_: Scene) -> None:
    return


def no_gate(scene: Scene) -> None:
    """Plain Pacemaker: the same devices in the same levels, no gate before them."""
    first = scene.lab.nodes[0]
    topology = ET.fromstring(scene.run(first, "cibadmin", "-Q", "-o", "fencing-topology").stdout)
    for level in topology:
        devices = level.get("devices", "").split(",")
        level.set("devices", ",".join(d for d in devices if not d.startswith("gate-")))
    text = ET.tostring(topology, encoding="unicode")
    done = scene.run(first, "cibadmin", "--replace", "--scope", "fencing-topology", "--xml-text", text)
    if not done.ok:
        raise LabError(f"the gates could not be taken out: {done.complaint()}")
    scene.wait(scene.settled, 60.0, "the cluster to settle")


def _guarded(scene: Scene) -> None:
    done = scene.run(scene.lab.nodes[0], "standfast", "window", "open", GUEST, limit_seconds=120.0)
    if not done.ok:
        raise LabError(f"no window: {done.stderr}")
    opened = time.monotonic()
    scene.wait(lambda: time.monotonic() - opened > SEEN_SECONDS, SEEN_SECONDS + 5, "the guest to be seen")


CASES: dict[str, tuple[Callable[[Scene], None], str, str]] = {
    "XSCF alone, no window": (no_gate, GUEST, MOVER),
    "gate and XSCF, no window": (_nothing, GUEST, MOVER),
    "guarded window, the node that moves": (_guarded, GUEST, MOVER),
    "guarded window, another node": (_guarded, OTHER_GUEST, OTHER),
}


if __name__ == "__main__":
    sys.exit(main())
