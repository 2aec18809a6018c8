"""What opening and closing a window costs with 2, 3, 5 and 8 nodes, beside the bare cost of one reload.

Each row is one real cluster with emulated hosts. "reload" is what corosync alone takes: the files are
rewritten beforehand, then one ``corosync-cfgtool -R`` until every node's running token has changed. It is
measured in the same cluster, between the windows. Read the ratios; the seconds are this machine's.

usage: ./run bench window [ROUNDS [NODES...]]
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from standfast.lab.errors import LabError
from standfast.lab.scene import Scene

ROUNDS = 3
NODES = (2, 3, 5, 8)
GOALS = {3: "open 0.3 s, close 5 s", 8: "open 1.2 s"}
VALUE_LIMIT_SECONDS = 20.0
POLL_SECONDS = 0.005


def main() -> int:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    counts = [int(text) for text in sys.argv[2:]] or list(NODES)
    print(f"median (min-max) of {rounds} rounds, seconds; open, close: steps; -p, -u: the whole command")
    print(f"nodes  {'reload':>16}  {'open':>16}  open/reload  {'close':>16}  {'-p':>6}  {'-u':>6}  goal")
    for count in counts:
        print(_row(count, rounds), flush=True)
    return 0


def _row(count: int, rounds: int) -> str:
    scene = Scene.up(count)
    try:
        reloads, opens, closes, wholes_p, wholes_u = [], [], [], [], []
        for _ in range(rounds):
            reloads.append(_bare_reload(scene))
            steps, whole = _command(scene, "clovmmigrate", "-p", "--json")
            opens.append(steps)
            wholes_p.append(whole)
            steps, whole = _command(scene, "clovmmigrate", "-u", "guest2", "ctrl2", "--json")
            closes.append(steps)
            wholes_u.append(whole)
            scene.wait(scene.settled, 60.0, "the cluster to settle")
    finally:
        scene.down()
    ratio = statistics.median(opens) / statistics.median(reloads)
    return (
        f"{count:>5}  {_shown(reloads)}  {_shown(opens)}  {ratio:>11.1f}  {_shown(closes)}  "
        f"{statistics.median(wholes_p):>6.2f}  {statistics.median(wholes_u):>6.2f}  {GOALS.get(count, '')}"
    )


def _command(scene: Scene, *argv: str) -> tuple[float, float]:
    began = time.monotonic()
    done = scene.run(scene.lab.nodes[0], *argv)
    whole = time.monotonic() - began
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stdout} {done.stderr}")
    return float(json.loads(done.stdout)["seconds"]), whole


def _bare_reload(scene: Scene) -> float:
    """One reload by hand, to another token and back; the way there is measured."""
    before = {node: scene.file(node, "/etc/corosync/corosync.conf") for node in scene.lab.nodes}
    for node, text in before.items():
        scene.put(node, "/etc/corosync/corosync.conf", text.replace("token: 4545", "token: 4546"))
    took = _reload(scene, "4546")
    for node, text in before.items():
        scene.put(node, "/etc/corosync/corosync.conf", text)
    _reload(scene, "4545")
    # The knet defaults lag one reload behind.
    scene.run(scene.lab.nodes[0], "corosync-cfgtool", "-R")
    return took


def _reload(scene: Scene, token: str) -> float:
    began = time.monotonic()
    scene.run(scene.lab.nodes[0], "corosync-cfgtool", "-R")
    left = set(scene.lab.nodes)
    while left:
        for node in sorted(left):
            shown = scene.run(node, "corosync-cmapctl", "-g", "runtime.config.totem.token").stdout
            if shown.strip().endswith(f"= {token}"):
                left.discard(node)
        if time.monotonic() - began > VALUE_LIMIT_SECONDS:
            raise LabError(f"no new token on {', '.join(sorted(left))}")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})".rjust(16)


if __name__ == "__main__":
    sys.exit(main())
