"""What happens to a cluster around a live migration: in a guarded window, and on plain Pacemaker beside it.

Each run is one cluster of its own with three nodes, a heartbeat timeout of 10 s and emulated hosts.

"Pacemaker, fence_xscf" is the same cluster with the same shutdown agents and no gate in front of them:
what it does when somebody migrates one of its nodes. Nobody aims its agents at the new host. fence_xscf is
ours: it kills nobody whom its XSCF does not show alive. "Pacemaker, power switch" is a cluster as most are:
one fence device a node that cuts its power when it is told to; only blackouts are played on it.

usage: ./run bench cases [ROUNDS [CASE...]]
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from failover import no_gate

from standfast.lab.cluster import Lab
from standfast.lab.emulators.control import ControlError
from standfast.lab.errors import LabError
from standfast.lab.scene import Scene

ROUNDS = 1
NODES = 3
GUEST, MOVER, OTHER_GUEST, OTHER = "guest2", "cfguest2", "guest3", "cfguest3"
SOURCE, TARGET = "ctrl2", "ctrl4"
COMMAND_LIMIT_SECONDS = 120.0
WATCH_SECONDS = 90.0
"""How long a cluster is watched for what it does by itself."""
SEEN_SECONDS = 20.0
"""How long the window is open before a death: the nodes have seen the guest run for so long."""
POLL_SECONDS = 0.05
KILLS = ("panic", "sir", "stop")


@dataclass
class Outcome:
    """What one run came to."""

    killed: list[str] = field(default_factory=list)
    """Guests that somebody has killed, in order."""
    restarted: int = 0
    """Stops of services, and starts on another node."""
    recovered_seconds: float | None = None
    whole: bool = False
    """Every node is a member at the end, or a dead one is known to be dead."""


class Run:
    """One cluster that a case is played on."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mark = scene.control.mark()
        self.known = len(scene.lab.events())

    def outcome(self, recovered_seconds: float | None = None) -> Outcome:
        acted = self.scene.control.log(self.mark, event="acted")
        killed = [str(entry["hit"]) for entry in acted if entry["action"] in KILLS and entry["hit"]]
        moved = [e for e in self.scene.lab.events()[self.known :] if e.action in ("start", "stop")]
        return Outcome(killed, len(moved), recovered_seconds, self._clean())

    def _clean(self) -> bool:
        alive = [node for node in self.scene.lab.nodes if self.scene.lab.alive(node)]
        seen = self.scene.lab.status(alive[0]) if alive else None
        return seen is not None and not any(node.unclean for node in seen.nodes)

    def wait(self, condition: Callable[[], bool], limit_seconds: float) -> float | None:
        """Seconds until a condition came true; None: it did not."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > limit_seconds:
                return None
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def migrate(self, blackout_seconds: float) -> None:
        """A live migration with this blackout, and what the cluster then does until it is at rest."""
        self.scene.control.migrate(
            GUEST, TARGET, duration_seconds=blackout_seconds + 1.0, blackout_seconds=blackout_seconds
        )
        with contextlib.suppress(ControlError):
            # One that has not ended by then is told by what the cluster has come to.
            self.scene.control.wait_migration(GUEST, limit_seconds=blackout_seconds + WATCH_SECONDS)
        self.wait(self._at_rest, WATCH_SECONDS)

    def _at_rest(self) -> bool:
        try:
            return self.scene.settled()
        except LabError:
            return False

    def recovered(self, node: str) -> float | None:
        """Seconds until the service of a dead node has started elsewhere."""
        return self.wait(
            lambda: any(
                event.resource == f"r-{node}" and event.action == "start" and event.node != node
                for event in self.scene.lab.events()[self.known :]
            ),
            WATCH_SECONDS,
        )

    def seen(self) -> None:
        """Let the window be open for a while."""
        until = time.monotonic() + SEEN_SECONDS
        self.wait(lambda: time.monotonic() > until, SEEN_SECONDS + 1.0)


def _blackout(seconds: float) -> Callable[[Run], Outcome]:
    def play(run: Run) -> Outcome:
        run.migrate(seconds)
        return run.outcome()

    return play


def _dies_before(run: Run) -> Outcome:
    run.seen()
    run.scene.control.call("hang", name=GUEST)
    return run.outcome(run.recovered(MOVER))


def _dies_after(run: Run) -> Outcome:
    run.migrate(2.0)
    run.seen()
    run.scene.control.call("hang", name=GUEST)
    return run.outcome(run.recovered(MOVER))


def _host_lost(run: Run) -> Outcome:
    run.seen()
    run.scene.control.call("power_off", host=SOURCE)
    return run.outcome(run.recovered(MOVER))


def _other_dies(run: Run) -> Outcome:
    run.seen()
    run.scene.control.call("hang", name=OTHER_GUEST)
    return run.outcome(run.recovered(OTHER))


BLACKOUTS = {"blackout of 5 s": 5.0, "blackout of 15 s": 15.0, "blackout of 30 s": 30.0}
CASES: dict[str, Callable[[Run], Outcome]] = {
    **{name: _blackout(seconds) for name, seconds in BLACKOUTS.items()},
    "dies before the move": _dies_before,
    "dies after the move": _dies_after,
    "its host loses power": _host_lost,
    "another node dies": _other_dies,
}


def main() -> int:
    """Play and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    wanted = sys.argv[2:] or list(CASES)
    print("| case | with | runs | guests killed | starts and stops | recovered after (s) | left unclean |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in wanted:
        if (seconds := BLACKOUTS.get(name)) is not None:
            played = [_power_switch(seconds) for _ in range(rounds)]
            print(_row(name, "Pacemaker, power switch", played), flush=True)
        for kind, prepare in (("Pacemaker, fence_xscf", no_gate), ("guarded window", _guarded)):
            played = [_played(prepare, CASES[name]) for _ in range(rounds)]
            print(_row(name, kind, played), flush=True)
    return 0


def _power_switch(blackout_seconds: float) -> Outcome:
    """A node stands still for so long in a cluster whose fence device is a power switch."""
    lab = Lab.up(nodes=NODES, fencing="plain")
    try:
        lab.wait_settled()
        known = len(lab.events())
        lab.blackout(MOVER, blackout_seconds)
        # What was killed boots again: that is over, and counted, when all is at rest.
        lab.wait_settled(WATCH_SECONDS)
        cut = dict.fromkeys(call.node for call in lab.power_calls() if call.answer == "ok")
        killed = [node.removeprefix("cf") for node in cut]
        moved = [event for event in lab.events()[known:] if event.action in ("start", "stop")]
        return Outcome(killed, len(moved), None, whole=True)
    finally:
        lab.down()


def _row(name: str, kind: str, played: list[Outcome]) -> str:
    killed = "; ".join(sorted({" ".join(one.killed) or "-" for one in played}))
    moved = "; ".join(sorted({str(one.restarted) for one in played}))
    took = [one.recovered_seconds for one in played if one.recovered_seconds is not None]
    shown = "-"
    if "blackout" not in name:
        shown = f"{statistics.median(took):.1f}" if len(took) == len(played) else "never"
        if 0 < len(took) < len(played):
            shown = f"{statistics.median(took):.1f}, and never in {len(played) - len(took)}"
    unclean = sum(not one.whole for one in played)
    return f"| {name} | {kind} | {len(played)} | {killed} | {moved} | {shown} | {unclean or '-'} |"


def _played(prepare: Callable[[Scene], None], play: Callable[[Run], Outcome]) -> Outcome:
    scene = Scene.up(NODES)
    try:
        scene.wait(scene.settled, 60.0, "the cluster to settle")
        prepare(scene)
        return play(Run(scene))
    finally:
        scene.down()


def _guarded(scene: Scene) -> None:
    argv = ("standfast", "window", "open", GUEST, "--to", TARGET)
    done = scene.run(scene.lab.nodes[0], *argv, limit_seconds=COMMAND_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"no window: {done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
