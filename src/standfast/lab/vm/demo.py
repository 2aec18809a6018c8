"""The demonstration on real guests, `./run demo --vm`: the same story with libvirt and live migrations."""

from __future__ import annotations

import time
from collections.abc import Callable

from standfast.core.names import SETTLE_SECONDS
from standfast.lab.story import Happening, Story, service_of
from standfast.lab.vm.demo_clock import with_a_lagging_clock
from standfast.lab.vm.demo_unannounced import moved_by_virsh
from standfast.lab.vm.migration import Moved
from standfast.lab.vm.rounds import GUEST, MOVER
from standfast.lab.vm.seed import KEY_FILE
from standfast.lab.vm.stage import FIRST, Stage
from standfast.lab.vm.witness import Mark, clock_difference

BLACKOUT_SECONDS = 30.0
"""Longer than the heartbeat timeout of 10 s, so that the node is dropped in it, and by so much that a cluster
of emulated guests asks for its fencing in it: with 16 s, in one of three cases it did not."""
TWICE_LIMIT_SECONDS = 90.0
RETURN_LIMIT_SECONDS = 120.0
ANSWER_LIMIT_SECONDS = 60.0
"""A gate that was asked while the node was away may answer after it is back (seen: 7 s of absence)."""
DEATH_LIMIT_SECONDS = 180.0


def without_standfast(story: Story) -> None:
    """Part (a): a fence agent that aims at the host which the guest has left."""
    story.chapter(
        "(a) Without Standfast",
        "Two real guests on three libvirt hosts, corosync and pacemaker in them, fence_virsh as everybody "
        "has it, heartbeat timeout 10 s. guest2 is migrated from host2 to host3 by `virsh migrate --live`; "
        "its definition stays on host2, as it does unless told otherwise, and fence_virsh still aims there.",
    )
    with Stage.made(story, "plain") as stage:
        stage.lab.set_fencing(True)
        _it_lies(stage)
        _it_starts_a_second_copy(stage)


def _it_lies(stage: Stage) -> None:
    story, boot = stage.story, stage.witness.boot(MOVER)
    stage.move_well("host3", undefine_source=False)
    login = ["-a", "host2", "-l", "root", "-k", KEY_FILE, "--login-timeout=30", "--shell-timeout=20"]
    done = stage.command("fence_virsh", *login, "-n", GUEST, "-o", "off")
    lie = done.returncode == 0 and "Success: Already OFF" in done.stderr + done.stdout
    story.require("the fence agent calls the node off", lie, f'"Already OFF", exit code {done.returncode}')
    for host in ("host2", "host3"):
        stage.virsh(host, "list", "--all")
    alive = stage.running() == ["host3"] and stage.witness.boot(MOVER) == boot
    story.require("while its guest runs on", alive, stage.places())
    ring = stage.lab.members(FIRST)
    story.require("and it is a member of the cluster", ring.endswith("2 nodes"), ring)


def _it_starts_a_second_copy(stage: Stage) -> None:
    story, lab = stage.story, stage.lab
    story.say(f"the next move, with a blackout of {BLACKOUT_SECONDS:g} s in its last stage")
    stage.move("host1", blackout_seconds=BLACKOUT_SECONDS)
    stage.until(lambda: len(stage.running()) > 1, TWICE_LIMIT_SECONDS)
    fenced = stage.witness.fencings(MOVER, FIRST)
    story.require("the cluster has 'fenced' the healthy node", fenced > 0, f"{fenced} successful fencings")
    twice = stage.running()
    for host in twice:
        stage.virsh(host, "list")
    known = sorted(lab.states(GUEST))
    story.require(
        "and the node runs twice, with one disk and one address", len(twice) > 1, ", ".join(twice or known)
    )


def with_standfast(story: Story) -> None:
    """Parts (b), (c) and (d), in one lab."""
    story.chapter(
        "(b) With Standfast",
        "The same guests, hosts and agents; `standfast node add` has put a gate in front of each agent. The "
        f"same move, with a blackout of {BLACKOUT_SECONDS:g} s, in a guarded window: no timeout is raised, "
        "the node is dropped, held, and taken back.",
    )
    with Stage.made(story, "standfast") as stage:
        _the_move(stage)
        _the_stale_aim(stage)
        _the_death(stage)


def _the_move(stage: Stage) -> None:
    story = stage.story
    _proven(stage, "fencing is proven from every node")
    opened = stage.ours("standfast", "window", "open", GUEST, "--to", "host3")
    story.require("a guarded window is open", opened.returncode == 0, f"exit code {opened.returncode}")
    mark, boot, fenced = stage.witness.mark(FIRST), stage.witness.boot(MOVER), _fencings(stage)
    stage.move_with("host3", BLACKOUT_SECONDS)
    back = stage.until(stage.together, RETURN_LIMIT_SECONDS)
    held = _held(stage, mark)
    dropped = stage.witness.left(mark) > 0
    figure = f"{len(held)} times held" if back is not None else "it did not come back"
    story.require("it was dropped, held and taken back", dropped and bool(held) and back is not None, figure)
    unharmed = (
        stage.witness.boot(MOVER) == boot
        and _fencings(stage) == fenced
        and not stage.witness.gate_lines(mark, "allow")
    )
    story.require("nobody was killed in it", unharmed, "the same boot, no fencing")
    touched = stage.witness.service_events(mark)
    story.require("no service was moved or restarted in it", not touched, f"{len(touched)} starts and stops")
    began = time.monotonic()
    closed = stage.ours("standfast", "window", "close", GUEST, "--to", "host3")
    figure = f"exit code {closed.returncode}, {time.monotonic() - began:.0f} s on an emulated node"
    story.require("the window is closed", closed.returncode == 0, figure)
    _proven(stage, "fencing is proven at the new host, from every node")


def _proven(stage: Stage, what: str) -> None:
    done = stage.ours("standfast", "verify")
    last = done.stdout.strip().splitlines()[-1:] or ["nothing was said"]
    stage.story.require(what, done.returncode == 0, last[0])


def _fencings(stage: Stage) -> int:
    return stage.witness.fencings(MOVER, FIRST)


def _held(stage: Stage, mark: Mark) -> list[str]:
    """What the gates have held, once one of them has answered at all."""
    stage.until(lambda: " hold " in stage.seen.gate or " allow " in stage.seen.gate, ANSWER_LIMIT_SECONDS)
    return stage.witness.gate_lines(mark, "hold")


def _the_stale_aim(stage: Stage) -> None:
    story = stage.story
    story.chapter(
        "(c) A stale aim, with Standfast",
        "Somebody moves guest2 from host3 to host2 without a window, with the same blackout, and leaves the "
        "definition behind: the trap of part (a). The cluster wants cfguest2 fenced, at the host that it has "
        "left.",
    )
    mark, boot, fenced = stage.witness.mark(FIRST), stage.witness.boot(MOVER), _fencings(stage)
    moved = stage.move("host2", blackout_seconds=BLACKOUT_SECONDS, undefine_source=False)
    story.require("moved behind the cluster's back", isinstance(moved, Moved), stage.places())
    back = stage.until(stage.together, RETURN_LIMIT_SECONDS)
    held, allowed = _held(stage, mark), stage.witness.gate_lines(mark, "allow")
    refused = bool(held) and not allowed and _fencings(stage) == fenced
    figure = f"{len(held)} times held, no fencing"
    story.require("the stale fencing is refused, not called done", refused, figure)
    alone = stage.running() == ["host2"] and stage.witness.boot(MOVER) == boot and back is not None
    story.require("its guest runs on, once, and is a member again", alone, stage.places())
    looked = stage.ours("standfast", "verify")
    story.require("verify tells that its fencing is not proven", looked.returncode == 1, "exit code 1")
    repaired = stage.ours("standfast", "window", "repair")
    proven = repaired.returncode == 0 and "has proven itself from every node" in repaired.stderr
    figure = f"exit code {repaired.returncode}"
    story.require("its agents aim at it again, and have proven it from every node", proven, figure)


def _the_death(stage: Stage) -> None:
    story, lab = stage.story, stage.lab
    story.chapter(
        "(d) A real death",
        f"The kernel of {GUEST} panics on host2. It has to be fenced there, where it is now, and its service "
        "has to go on elsewhere.",
    )
    settling = time.monotonic() + SETTLE_SECONDS
    story.say(f"first the {SETTLE_SECONDS} s in which nobody whose agents were just aimed anew is killed")
    lab.wait(lambda: time.monotonic() > settling, SETTLE_SECONDS + 5.0, "the settling time")
    mark, boot, fenced = stage.witness.mark(FIRST), stage.witness.boot(MOVER), _fencings(stage)
    ahead, zero = clock_difference(lab, FIRST), time.monotonic()
    stage.watch()
    wall = time.time()
    lab.power(GUEST, "panic")
    story.tell(zero, [Happening(time.monotonic(), f"{GUEST} has panicked; {stage.places()}")])
    recovered = _tell_until(stage, lambda: _service_started(stage))
    at = stage.seen.started(service_of(MOVER))
    figure = f"{at - ahead - wall:.1f} s after the panic" if at is not None else "not in time"
    story.require("its service runs on the other node", recovered, figure)
    allowed = stage.witness.gate_lines(mark, "allow")
    done = _fencings(stage) > fenced
    figure = f"{len(allowed)} times allowed by its gate"
    story.require("it was fenced, behind its gate", done and bool(allowed), figure)
    again = _tell_until(stage, lambda: stage.running() == ["host2"])
    story.require("and its guest boots again, where it was, and nowhere else", again, stage.places())
    fresh = _tell_until(stage, lambda: stage.witness.boot(MOVER) not in ("", boot))
    story.require("another boot than before", fresh, "by its boot id")


def _service_started(stage: Stage) -> bool:
    """The mover's service was started on the other node."""
    return stage.seen.started(service_of(MOVER)) is not None


def _tell_until(stage: Stage, condition: Callable[[], bool]) -> bool:
    return stage.until(condition, DEATH_LIMIT_SECONDS) is not None


PARTS: dict[str, Callable[[Story], None]] = {
    "a": without_standfast,
    "b": with_standfast,
    "e": with_a_lagging_clock,
    "f": moved_by_virsh,
}
