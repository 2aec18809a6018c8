"""Part (f) of the demonstration on real guests: somebody moves a guest with plain virsh, and its node is lost
before anybody has mended that."""

from __future__ import annotations

import json
import time

from standfast.lab.story import Happening, Story, service_of
from standfast.lab.vm import channel, layout
from standfast.lab.vm.rounds import GUEST, MOVER
from standfast.lab.vm.stage import FIRST, Stage
from standfast.lab.vm.witness import clock_difference

HOME, TARGET = "host2", "host3"
NOTICED_LIMIT_SECONDS = 60.0
"""What is promised."""
ASK_LIMIT_SECONDS = 30.0
HELD_LIMIT_SECONDS = 120.0
STAYS_HELD_SECONDS = 60.0
DEATH_LIMIT_SECONDS = 180.0
RETURN_LIMIT_SECONDS = 240.0


def moved_by_virsh(story: Story) -> None:
    """One lab, one move."""
    story.chapter(
        "(f) A move that nobody announced",
        f"The same guests. Somebody moves {GUEST} from {HOME} to {TARGET} by `virsh migrate --live`: no "
        "window, no word to the cluster, whose fence agent aims at the old host. Then the guest loses its "
        "network, and runs on. What is not to happen: that the agent finds nothing at the old host, calls "
        "the node off, and its service is started twice.",
    )
    with Stage.made(story, "standfast") as stage:
        _noticed(stage)
        _is_lost(stage)
        _mended(stage)


def _noticed(stage: Stage) -> None:
    story, ring = stage.story, stage.witness.mark(FIRST)
    stage.move_well(TARGET)
    took = stage.until(lambda: bool(_unannounced(stage)), NOTICED_LIMIT_SECONDS)
    figure = f"within {took:.1f} s of the end of virsh" if took is not None else "not in time"
    story.require("the nodes have noticed it by themselves", took is not None, figure)
    stage.command("sdtool", "-s")
    unharmed = stage.witness.left(ring) == 0 and not stage.witness.gate_lines(ring, "allow")
    story.require("nobody left, nobody was killed", unharmed, stage.places())


def _unannounced(stage: Stage) -> list[object] | None:
    """What a node tells of guests that are astray; None where it does not answer in time."""
    try:
        done = stage.lab.exec(FIRST, ["sdtool", "-s", "--json"], ASK_LIMIT_SECONDS)
    except channel.Unreachable:
        return None
    found: list[object] | None = json.loads(done.stdout)["unannounced"] if done.ok else None
    return found


def _is_lost(stage: Stage) -> None:
    story, witness = stage.story, stage.witness
    mark, fenced = witness.mark(FIRST), witness.fencings(MOVER, FIRST)
    stage.watch()
    zero = time.monotonic()
    card = layout.mac_address(layout.number_of(GUEST))
    cut = stage.virsh(TARGET, "domif-setlink", GUEST, card, "down")
    story.tell(zero, [Happening(time.monotonic(), f"{GUEST} has no network any more; {stage.places()}")])
    held = stage.until(lambda: "rule=elsewhere" in stage.seen.gate, HELD_LIMIT_SECONDS)
    figure = f"{held:.1f} s after that" if cut.returncode == 0 and held is not None else "not in time"
    story.require("the gate holds: its agent would not hit the node", held is not None, figure)
    for line in [line for line in witness.gate_lines(mark, "hold") if "rule=elsewhere" in line][:1]:
        story.say(f"gate.log: {line}")
    quiet = time.monotonic() + STAYS_HELD_SECONDS
    stage.until(lambda: time.monotonic() > quiet, STAYS_HELD_SECONDS + ASK_LIMIT_SECONDS)
    honest = (
        not witness.gate_lines(mark, "allow")
        and witness.fencings(MOVER, FIRST) == fenced
        and stage.seen.started(service_of(MOVER)) is None
    )
    figure = f"{len(witness.gate_lines(mark, 'hold'))} times held; its service started nowhere else"
    story.require("and goes on holding: nobody has called the node fenced", honest, figure)


def _mended(stage: Stage) -> None:
    story, lab, witness = stage.story, stage.lab, stage.witness
    said = stage.command("standfast", "window", "repair", GUEST)
    told = said.returncode != 0 and f"virsh destroy {GUEST}" in said.stdout + said.stderr
    story.require("a repair tells what to do with a guest that hangs", told, f"exit code {said.returncode}")
    mark, fenced = witness.mark(FIRST), witness.fencings(MOVER, FIRST)
    ahead, wall = clock_difference(lab, FIRST), time.time()
    stage.watch()
    stage.virsh(TARGET, "destroy", GUEST)
    done = stage.ours("standfast", "window", "repair", GUEST)
    aimed = done.returncode == 0 and f"aim at {TARGET}, where {GUEST} is off" in done.stdout + done.stderr
    story.require(
        "the same again aims at the host that knows it is off", aimed, f"exit code {done.returncode}"
    )
    stage.until(lambda: stage.seen.started(service_of(MOVER)) is not None, DEATH_LIMIT_SECONDS)
    at = stage.seen.started(service_of(MOVER))
    figure = f"{at - ahead - wall:.1f} s after it was stopped" if at is not None else "not in time"
    story.require("now its service runs on the other node", at is not None, figure)
    off = witness.fencings(MOVER, FIRST) > fenced
    figure = f"{len(witness.gate_lines(mark, 'allow'))} times allowed by its gate"
    story.require("it was fenced, behind its gate: no host shows it running", off, figure)
    _back(stage)


def _back(stage: Stage) -> None:
    """The fencing has started the guest again where it was; its agents prove themselves."""
    story = stage.story
    back = stage.until(stage.together, RETURN_LIMIT_SECONDS)
    figure = f"after {back:.0f} s; {stage.places()}" if back is not None else stage.places()
    story.require("it boots where it was, and is a member again", back is not None, figure)
    proven = stage.ours("clovmmigrate", "-u", GUEST, TARGET)
    well = proven.returncode == 0 and "has proven" in proven.stderr + proven.stdout
    story.require("its agents prove themselves from every node", well, f"exit code {proven.returncode}")
    gone = stage.until(lambda: _unannounced(stage) == [], NOTICED_LIMIT_SECONDS)
    story.require("the alarm is over", gone is not None, "sdtool -s tells of none")
