"""Part (d) of the demonstration: a window that is safe while it is open."""

from __future__ import annotations

import time
from collections.abc import Callable

from standfast.lab.demo_window import (
    DEATH_LIMIT_SECONDS,
    GUEST,
    KILLS,
    MOVER,
    NEW_HOST,
    OLD_HOST,
    Before,
    command,
    no_machine_errors,
)
from standfast.lab.scene import Scene
from standfast.lab.story import Happening, Story, happenings, service_of

MIGRATION_SECONDS = 3.0
RETURN_LIMIT_SECONDS = 60.0
SEEN_SECONDS = 20.0
"""So long the nodes watch the guest run, second by second, until its silence alone proves its death."""
_POLL_SECONDS = 0.1


def guarded(story: Story, blackout_seconds: float) -> None:
    """All of it, in a lab of its own."""
    story.chapter(
        "(d) A window that is safe while it is open",
        f"The same blackout of {blackout_seconds:g} s in a guarded window: no timeout is raised. The node is "
        "dropped after 10 s and held, since its hosts show it on its way; fencing of all others stays armed. "
        "Then, with the window still open, it really dies.",
    )
    scene = Scene.up(2, say=lambda text: story.say(f"lab: {text}"))
    try:
        before, since, mark = Before.of(scene), time.monotonic(), scene.control.mark()
        opened = command(story, scene, "standfast", "window", "open", GUEST, "--to", NEW_HOST)
        story.require("a guarded window is open", opened.returncode == 0, f"exit {opened.returncode}")
        now = Before.of(scene)
        same = (before.heartbeat, before.files) == (now.heartbeat, now.files)
        count = sum(len(values) for values in now.heartbeat.values())
        story.require(
            "no heartbeat value was raised", same, f"{count} runtime values and both files compared"
        )
        _held(story, scene, blackout_seconds, since, mark)
        _dies(story, scene)
        no_machine_errors(story, scene)
    finally:
        scene.down()


def _held(story: Story, scene: Scene, blackout_seconds: float, since: float, mark: int) -> None:
    zero = time.monotonic()
    story.say(f"live migration of {GUEST} from {OLD_HOST} to {NEW_HOST} begins")
    scene.control.migrate(
        GUEST, NEW_HOST, duration_seconds=MIGRATION_SECONDS, blackout_seconds=blackout_seconds
    )
    dropped = _until(story, zero, lambda: MOVER in _unclean(scene), f"{MOVER} is dropped and held")
    outcome = scene.control.wait_migration(GUEST)
    story.tell(zero, [Happening(time.monotonic(), f"{MOVER} runs on, on {NEW_HOST}")])
    back = _until(story, zero, lambda: not _unclean(scene), f"{MOVER} is a member again")
    kills = [entry for entry in scene.control.log(mark, event="acted") if entry["action"] in KILLS]
    moved = [one.text for one in happenings(scene.lab, since)]
    story.require("the guest arrived", outcome["phase"] == "done", f"on {NEW_HOST}")
    figure = "" if dropped is None or back is None else f"dropped at {dropped:.1f} s, back at {back:.1f} s"
    story.require("it was dropped, held and taken back", bool(figure), figure or "not seen")
    story.require("nobody was killed in it", not kills, f"{len(kills)} kills")
    story.require(
        "no service was moved or restarted in it", not moved, "; ".join(moved) or "no start, no stop"
    )


def _dies(story: Story, scene: Scene) -> None:
    story.say(f"the nodes see {GUEST} run for {SEEN_SECONDS:.0f} s; the window is still open")
    seen = time.monotonic() + SEEN_SECONDS
    scene.wait(lambda: time.monotonic() > seen, SEEN_SECONDS + 5.0, "the guest to be seen")
    mark, zero = scene.control.mark(), time.monotonic()
    scene.control.call("hang", name=GUEST)
    story.tell(zero, [Happening(zero, f"{MOVER} hangs")])
    service, recovered = service_of(MOVER), None
    while recovered is None and time.monotonic() < zero + DEATH_LIMIT_SECONDS:
        starts = [e.monotonic for e in scene.lab.events() if (e.resource, e.action) == (service, "start")]
        recovered = next((at - zero for at in starts if at > zero), None)
        time.sleep(_POLL_SECONDS)
    story.tell(zero, happenings(scene.lab, zero))
    kills = [entry for entry in scene.control.log(mark, event="acted") if entry["action"] in KILLS]
    where = {(str(entry["action"]), str(entry["host"]), str(entry["hit"])) for entry in kills}
    story.require(
        "it was stopped on its control domain, and proven gone on all",
        where == {("stop", NEW_HOST, GUEST)},
        f"ldm stop-domain on {NEW_HOST}",
    )
    figure = "not within a minute" if recovered is None else f"{recovered:.1f} s after the hang"
    story.require("its service runs elsewhere, in the window", recovered is not None, figure)


def _unclean(scene: Scene) -> set[str]:
    seen = scene.lab.status("cfguest1")
    return {MOVER} if seen is None else {one.name for one in seen.nodes if one.unclean or not one.well}


def _until(story: Story, zero: float, condition: Callable[[], bool], what: str) -> float | None:
    """Seconds since `zero` when it came true; None: it did not."""
    end = time.monotonic() + RETURN_LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            return None
        time.sleep(_POLL_SECONDS)
    now = time.monotonic()
    story.tell(zero, [Happening(now, what)])
    return now - zero
