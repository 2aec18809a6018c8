"""The demonstration, `./run demo`: on real clusters, in parts that can be run alone.

Each part makes its own lab, tells what happens, and notes in the story what had to happen.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from standfast.lab.cluster import Blackout, Lab
from standfast.lab.errors import LabError
from standfast.lab.story import Happening, Story, happenings, service_of

BLACKOUT_SECONDS = 15.0
_POLL_SECONDS = 0.1


def without_standfast(story: Story) -> None:
    """Part (a): an ordinary cluster kills a healthy node that only stood still for 15 s."""
    story.chapter(
        "(a) Without Standfast",
        "Two nodes with corosync and pacemaker, fencing as everybody has it, heartbeat timeout 10 s. "
        f"cfguest2 is healthy; it stands still for {BLACKOUT_SECONDS:g} s, as a guest does in the last "
        "moments of a live migration, and would then run on as if nothing had been.",
    )
    lab = Lab.up(say=lambda text: story.say(f"lab: {text}"))
    try:
        story.say("both nodes online, each service at home; now the blackout of cfguest2")
        blackout = told_blackout(story, lab, "cfguest2", BLACKOUT_SECONDS)
        _judge_without(story, lab, blackout)
    finally:
        lab.down()


def _judge_without(story: Story, lab: Lab, blackout: Blackout) -> None:
    kills = [call for call in lab.power_calls() if call.node == blackout.node and call.answer == "ok"]
    early = [call for call in kills if blackout.began < call.ended < blackout.ended]
    figure = f"{early[0].ended - blackout.began:.2f} s into the blackout" if early else "it was not killed"
    story.require("the healthy node was killed", bool(early), figure)
    service = service_of(blackout.node)
    moved = [
        event.monotonic
        for event in lab.events()
        if (event.resource, event.action) == (service, "start")
        and event.node != blackout.node
        and event.monotonic > blackout.began
    ]
    figure = f"{moved[0] - blackout.began:.2f} s into the blackout" if moved else "it stayed"
    story.require("its service was moved away", bool(moved), figure)
    story.require(
        "when the blackout ended there was no node left to run on",
        not lab.alive(blackout.node),
        f"after {blackout.seconds:.3f} s",
    )


def told_blackout(story: Story, lab: Lab, node: str, seconds: float) -> Blackout:
    """A blackout of `node`; tells the timeline while it goes on. Times count from its begin."""
    asked = time.monotonic()
    told: set[Happening] = set()
    with ThreadPoolExecutor(max_workers=1) as aside:
        running = aside.submit(lab.blackout, node, seconds)
        story.tell(asked, [Happening(asked, f"{node} stands still")])
        while not running.done():
            fresh = [one for one in happenings(lab, asked) if one not in told]
            story.tell(asked, fresh)
            told.update(fresh)
            time.sleep(_POLL_SECONDS)
        blackout = running.result()
    what_now = f"{node} runs on" if lab.alive(node) else f"{node} would run on now, but it is dead"
    story.tell(asked, [Happening(blackout.ended, what_now)])
    return blackout


def with_and_after(story: Story) -> None:
    """Parts (b) and (c): the page's example with Standfast, and a real death after it, in one lab."""
    # Only now: the emulators bring an ssh server, which part (a) can do without.
    from standfast.lab.demo_window import with_standfast

    with_standfast(story, BLACKOUT_SECONDS)


def in_the_window(story: Story) -> None:
    """Part (d): a guarded window, and a real death in it, in a lab of its own."""
    from standfast.lab.demo_guarded import guarded

    guarded(story, BLACKOUT_SECONDS)


PARTS: dict[str, Callable[[Story], None]] = {
    "a": without_standfast,
    "b": with_and_after,
    "d": in_the_window,
}
BY_NAME = ("e", "f")
"""Parts that have to be asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for (default: all); exit code 0 only if everything happened that had to."""
    parser = argparse.ArgumentParser(
        prog="./run demo",
        description="What goes wrong without Standfast (a), the same with it (b, with a death after it: c), "
        "and a guarded window with a death in it (d). With --vm real guests on libvirt hosts: without (a), "
        "and with it (b; a stale aim: c, and a death: d, after it), and a clock that a blackout leaves "
        "behind (e), and a move that nobody announced (f).",
    )
    parser.add_argument("--vm", action="store_true", help="real guests and live migrations; 6 to 10 minutes")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="a, b or d; default: all (--vm: a, b, e or f; default: a and b)",
    )
    given = parser.parse_args(argv)
    parts = _vm_parts() if given.vm else PARTS
    chosen = given.parts or [part for part in parts if part not in BY_NAME]
    unknown = [part for part in chosen if part not in parts]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are: {', '.join(parts)}")
    # A terminated demonstration takes its labs away, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    story = Story()
    try:
        for part in chosen:
            parts[part](story)
    except LabError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        print(f"demo: {error}{notes}", file=sys.stderr)
        return 1
    return story.close()


def _vm_parts() -> dict[str, Callable[[Story], None]]:
    from standfast.lab.vm.demo import PARTS as parts  # only where real guests are wanted

    return parts


if __name__ == "__main__":
    sys.exit(main())
