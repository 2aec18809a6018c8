"""Parts (b) and (c) of the demonstration: the same blackout with Standfast, then a real death after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click

from standfast.cluster.run import Result
from standfast.core.names import SETTLE_SECONDS
from standfast.lab.errors import LabError
from standfast.lab.scene import Scene
from standfast.lab.story import Happening, Story, happenings, service_of

MOVER, GUEST = "cfguest2", "guest2"
OLD_HOST, NEW_HOST = "ctrl2", "ctrl3"
MIGRATION_SECONDS = 4.0
DEATH_LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.1
KILLS = ("panic", "sir", "stop")

LISTING_1 = """\
device-name cluster-host-name PPAR-ID domain-name    IP-address1     IP-address2     user-name      connection-type
-------------------------------------------------------------------------------------------------------------------
xscf        cfguest1          0       guest1         10.20.30.71     10.20.40.71     xuser          ssh
xscf        cfguest2          1       guest2         10.20.30.73     10.20.40.73     xuser          ssh
"""  # noqa: E501  (the manual's own width)
LISTING_2 = """\
Cluster Host Agent             SA State Shut State Test State Init State
------------ -----             -------- ---------- ---------- ----------
cfguest1     SA_xscfsnmpg0p.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg1p.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg0r.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg1r.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg0p.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg1p.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg0r.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg1r.so Idle     Unknown    TestWorked InitWorked
"""
"""Both listings as the manual prints them (PRIMECLUSTER Installation and Administration Guide 4.3)."""


@dataclass(frozen=True)
class Before:
    """What must be the same after the window."""

    heartbeat: dict[str, dict[str, str]]
    files: dict[str, str]
    rings: dict[str, str]

    @classmethod
    def of(cls, scene: Scene) -> Before:
        """Take it from every node."""
        nodes = scene.lab.nodes
        return cls(
            {node: scene.heartbeat(node) for node in nodes},
            {node: scene.file(node, "/etc/corosync/corosync.conf") for node in nodes},
            {node: ring_id(scene, node) for node in nodes},
        )


def ring_id(scene: Scene, node: str) -> str:
    """The membership's identity: it changes whenever anybody leaves or joins."""
    text = scene.run(node, "corosync-quorumtool", "-s", limit_seconds=10.0).stdout
    return next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Ring ID")), "?"
    )


def with_standfast(story: Story, blackout_seconds: float) -> None:
    """Parts (b) and (c), in one lab."""
    story.chapter(
        "(b) With Standfast",
        "The manual's figure 14.1: guest1 and guest2 are the nodes; guest2 runs on control domain ctrl2, "
        "behind the XSCF at 10.20.30.72, and moves to ctrl3, behind that at 10.20.30.73. Heartbeat timeout "
        f"10 s again, and the same blackout of {blackout_seconds:g} s.",
    )
    scene = Scene.up(2, say=lambda text: story.say(f"lab: {text}"))
    try:
        _the_move(story, scene, blackout_seconds)
        _the_death(story, scene, time.monotonic())
        no_machine_errors(story, scene)
    finally:
        scene.down()


def _the_move(story: Story, scene: Scene, blackout_seconds: float) -> None:
    before, since, mark = Before.of(scene), time.monotonic(), scene.control.mark()
    opened = command(story, scene, "clovmmigrate", "-p")
    story.require("clovmmigrate -p opened the window", opened.returncode == 0, f"exit {opened.returncode}")
    _migrate(story, scene, blackout_seconds)
    closing = time.monotonic()
    closed = command(story, scene, "clovmmigrate", "-u", GUEST, NEW_HOST)
    took = f"exit {closed.returncode}, {time.monotonic() - closing:.1f} s with proof from both nodes"
    story.require("clovmmigrate -u closed it", closed.returncode == 0, took)
    _listings(story, scene)
    after = Before.of(scene)
    same = before.heartbeat == after.heartbeat and before.files == after.files
    count = sum(len(values) for values in after.heartbeat.values())
    story.require(
        "every heartbeat value is as before", same, f"{count} runtime values and both files compared"
    )
    story.require("nobody left the membership", before.rings == after.rings, f"ring {after.rings[MOVER]}")
    moved = [one.text for one in happenings(scene.lab, since)]
    story.require("no service was moved or restarted", not moved, "; ".join(moved) or "no start, no stop")
    kills = [entry for entry in scene.control.log(mark, event="acted") if entry["action"] in KILLS]
    story.require("nobody was killed", not kills, f"{len(kills)} resets at the service processors")


def _migrate(story: Story, scene: Scene, blackout_seconds: float) -> None:
    zero = time.monotonic()
    story.say(f"live migration of {GUEST} from {OLD_HOST} to {NEW_HOST} begins")
    scene.control.migrate(
        GUEST, NEW_HOST, duration_seconds=MIGRATION_SECONDS, blackout_seconds=blackout_seconds
    )
    told: set[str] = set()
    end = time.monotonic() + blackout_seconds + MIGRATION_SECONDS + 30.0
    while time.monotonic() < end:
        frozen = scene.lab.frozen(MOVER)
        for state in (f"{MOVER} stands still",) if frozen else ():
            if state not in told:
                story.tell(zero, [Happening(time.monotonic(), state)])
                told.add(state)
        if told and not frozen:
            story.tell(zero, [Happening(time.monotonic(), f"{MOVER} runs on, on {NEW_HOST}")])
            break
        time.sleep(_POLL_SECONDS)
    outcome = scene.control.wait_migration(GUEST)
    story.require(
        "the guest arrived", outcome["phase"] == "done", f"on {', '.join(scene.control.running(GUEST))}"
    )


def _listings(story: Story, scene: Scene) -> None:
    for index, node in enumerate(scene.lab.nodes):
        first = command(story, scene, "clsnmpsetup", "-l", node=node, show=index == 0)
        second = command(story, scene, "sdtool", "-s", node=node, show=index == 0)
        story.require(
            f"both listings on {node} are the manual's",
            (first.stdout, second.stdout) == (LISTING_1, LISTING_2),
            "letter for letter",
        )


def _the_death(story: Story, scene: Scene, closed: float) -> None:
    story.chapter(
        "(c) A real death, after the move",
        f"{MOVER} hangs for good. It must be killed through the XSCF where it is NOW; the old one would have "
        "answered that the host is stopped, or reset somebody else.",
    )
    story.say(f"first the {SETTLE_SECONDS} s in which nobody who has just come out of a window is killed")
    scene.wait(lambda: time.monotonic() > closed + SETTLE_SECONDS, SETTLE_SECONDS + 5.0, "the settling time")
    mark, zero = scene.control.mark(), time.monotonic()
    scene.control.call("hang", name=GUEST)
    story.tell(zero, [Happening(zero, f"{MOVER} hangs")])
    service = service_of(MOVER)
    told: set[Happening] = set()
    recovered: float | None = None
    while recovered is None and time.monotonic() < zero + DEATH_LIMIT_SECONDS:
        fresh = [one for one in happenings(scene.lab, zero) if one not in told]
        story.tell(zero, fresh)
        told.update(fresh)
        starts = [e.monotonic for e in scene.lab.events() if (e.resource, e.action) == (service, "start")]
        recovered = next((at - zero for at in starts if at > zero), None)
        time.sleep(_POLL_SECONDS)
    _judge_death(story, scene, mark, recovered)


def _judge_death(story: Story, scene: Scene, mark: int, recovered: float | None) -> None:
    log = scene.control.log(mark)
    orders = [
        entry
        for entry in log
        if str(entry.get("line", "")).startswith("reset") and entry["event"] == "command"
    ]
    for entry in orders:
        story.say(f"XSCF of {entry['host']} ({entry['endpoint']}): {entry['line']}")
    through = {str(entry["host"]) for entry in orders}
    story.require(
        "it was killed through the new XSCF",
        through == {NEW_HOST} and not scene.lab.alive(MOVER),
        _names(through),
    )
    old = [
        entry for entry in log if entry.get("host") == OLD_HOST and entry.get("endpoint") in ("lan0", "lan1")
    ]
    story.require("the old XSCF got no call", not old, f"{len(old)} lines in its log")
    hits = {str(entry["hit"]) for entry in scene.control.log(mark, event="acted")}
    story.require("nobody else was hit", hits == {GUEST}, _names(hits))
    figure = "not within a minute" if recovered is None else f"{recovered:.1f} s after the hang"
    story.require("its service runs on the other node", recovered is not None, figure)


def no_machine_errors(story: Story, scene: Scene) -> None:
    """The last requirement of a part: no emulator failed."""
    errors = scene.control.log(0, event="machine-error")
    story.require("the emulated hosts did what they said", not errors, f"{len(errors)} errors")


def _names(found: set[str]) -> str:
    return ", ".join(sorted(found)) or "nothing"


def command(story: Story, scene: Scene, *argv: str, node: str = "cfguest1", show: bool = True) -> Result:
    """Run it in a node, and show what it said. Raises LabError where it does not end."""
    done = scene.run(node, *argv)
    if done.timed_out:
        raise LabError(f"{' '.join(argv)} on {node} did not end")
    if show:
        story.say(f"{node} # {' '.join(argv)}")
        for line in (done.stderr + done.stdout).rstrip().splitlines():
            click.echo(f"      {line}")
    return done
