"""How the demonstration on real guests plays a scene: commands that are shown, moves that are told."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from standfast.cluster.run import Result
from standfast.lab.errors import LabError
from standfast.lab.story import Happening, Story
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.layout import VmFencing
from standfast.lab.vm.migration import Moved
from standfast.lab.vm.rounds import GUEST, MAX_TRIES, MOVER, NODE, TRY_AGAIN
from standfast.lab.vm.witness import Glance, Mark, Witness

FIRST = NODE
COMMAND_LIMIT_SECONDS = 180.0
BUSY = tuple(f"[{code}]" for code in sorted(TRY_AGAIN | {"NOT_READY"}))
"""What an emulated guest, slower than the limits of a command, gives now and then: the same again goes on."""
LINE_CHARACTERS = 150
GLANCE_SECONDS = 2.0
_POLL_SECONDS = 0.5
_SAME_CHARACTERS = 30
_RULE = re.compile(r" (hold|allow) rule=(\S+) [\d.]+s: (.*)")


@dataclass
class Stage:
    """A lab, and the story that is told of it."""

    story: Story
    lab: VmLab
    witness: Witness = field(init=False)
    _eyes: Eyes = field(init=False)

    def __post_init__(self) -> None:
        self.witness = Witness(self.lab)

    def watch(self) -> None:
        """From now on what happens is news, and times count from now."""
        self._eyes = Eyes(self)

    @classmethod
    @contextmanager
    def made(cls, story: Story, fencing: VmFencing) -> Iterator[Stage]:
        """In a lab of its own, which is taken away again."""
        stage = cls(story, VmLab.up(fencing=fencing, say=lambda text: story.say(f"lab: {text}")))
        try:
            yield stage
        finally:
            stage.lab.down()

    # -- commands -----------------------------------------------------------------------------------------

    def command(self, *argv: str, node: str = FIRST) -> Result:
        """Run it on a node or host, and show what it said. Raises LabError where it does not end."""
        shown = " ".join(argv)
        self.story.say(f"{node} # {shown}")
        done = self.lab.exec(node, argv, COMMAND_LIMIT_SECONDS)
        if done.timed_out:
            raise LabError(f"{shown} on {node} did not end within {COMMAND_LIMIT_SECONDS:.0f} s")
        for line in (done.stderr + done.stdout).rstrip().splitlines():
            click.echo(f"      {line[:LINE_CHARACTERS]}")
        return done

    def virsh(self, host: str, *argv: str) -> Result:
        """As an administrator types it on a host; its end and its words as of `command`."""
        return self.command("virsh", "-q", "-c", "qemu:///system", *argv, node=host)

    def ours(self, *argv: str) -> Result:
        """A command of Standfast; typed again, as its message says, where the emulated node was too slow."""
        for _ in range(MAX_TRIES - 1):
            done = self.command(*argv)
            if done.returncode == 0 or not any(code in done.stderr + done.stdout for code in BUSY):
                return done
            self.story.say("too slow for a limit of the command; the same again, as it says")
        return self.command(*argv)

    # -- where things are ---------------------------------------------------------------------------------

    def places(self) -> str:
        """Where the guest is, in the hosts' words."""
        found = self.lab.states(GUEST)
        return ", ".join(f"{host}: {state}" for host, state in sorted(found.items())) or "on no host"

    def running(self) -> list[str]:
        """The hosts that show the guest running."""
        return sorted(host for host, state in self.lab.states(GUEST).items() if state == "running")

    def together(self) -> bool:
        """Whether all nodes are one ring, and well."""
        if self.seen.members != len(self.lab.nodes):
            return False
        seen = self.lab.status(FIRST)
        return seen is not None and {node.name for node in seen.nodes if node.well} == set(self.lab.nodes)

    # -- what is told while it happens --------------------------------------------------------------------

    def move(self, host: str, *, blackout_seconds: float, undefine_source: bool = True) -> Moved | LabError:
        """A live migration by virsh, told while it goes on. What virsh says, where it fails."""
        self.watch()
        self.story.say(f"live migration of {GUEST} to {host} begins (virsh migrate --live)")
        with ThreadPoolExecutor(1) as aside:
            moving = aside.submit(
                self.lab.migrate,
                GUEST,
                host,
                blackout_seconds=blackout_seconds,
                undefine_source=undefine_source,
            )
            while not moving.done():
                self._eyes.look()
                time.sleep(_POLL_SECONDS)
            self._eyes.look()
        error = moving.exception()
        if error is None:
            return moving.result()
        if isinstance(error, LabError):
            return error
        raise error

    def move_well(self, host: str, *, undefine_source: bool = True) -> None:
        """One whose blackout is as short as it comes; it has to arrive."""
        moved = self.move(host, blackout_seconds=0, undefine_source=undefine_source)
        figure = f"blackout {moved.blackout.seconds:.2f} s" if isinstance(moved, Moved) else str(moved)
        self.story.require("a live migration without any trouble", isinstance(moved, Moved), figure)

    def move_with(self, host: str, blackout_seconds: float) -> None:
        """One with a blackout; it has to arrive."""
        moved = self.move(host, blackout_seconds=blackout_seconds)
        figure = f"{moved.blackout.seconds:.2f} s by QEMU" if isinstance(moved, Moved) else str(moved)
        self.story.require("the guest arrived after its blackout", isinstance(moved, Moved), figure)

    def until(self, condition: Callable[[], bool], limit_seconds: float) -> float | None:
        """Wait for it, telling what happens meanwhile; how many seconds it took, None: it did not come."""
        began = time.monotonic()
        while True:
            self._eyes.look()
            if condition():
                self._eyes.look(now=True)
                return time.monotonic() - began
            if time.monotonic() - began > limit_seconds:
                return None
            time.sleep(_POLL_SECONDS)

    @property
    def seen(self) -> Glance:
        """What the node that does not move told last, since `watch`."""
        return self._eyes.last


class Eyes:
    """Sees what is new: from the hosts, which costs the nodes nothing, and now and then from the node that
    does not move."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._zero = time.monotonic()
        self._mark: Mark = stage.witness.mark(FIRST)
        self._told: set[str] = set()
        self._places = stage.places()
        self._member = True
        self._next = 0.0
        self.last = Glance()
        """The last look at the node."""

    def look(self, *, now: bool = False) -> None:
        """Tell it, with the time of the look. `now`: ask the node too, however recent its last answer is."""
        self._tell(self._hosts())
        if time.monotonic() < self._next and not now:
            return
        self.last = self._stage.witness.glance(self._mark)
        self._next = time.monotonic() + GLANCE_SECONDS
        self._tell([*self._ring(), *self._gates(), *self._services()])

    def _tell(self, texts: list[str]) -> None:
        self._stage.story.tell(self._zero, [Happening(time.monotonic(), text) for text in texts])

    def _hosts(self) -> list[str]:
        places = self._stage.places()
        if places == self._places:
            return []
        self._places = places
        return [f"{GUEST}: {places}"]

    def _ring(self) -> list[str]:
        found = self.last.members
        if found is None or (member := found > 1) == self._member:
            return []
        self._member = member
        return [f"{MOVER} is a member again" if member else f"{FIRST}: {MOVER} has dropped out of the ring"]

    def _gates(self) -> list[str]:
        found = []
        for match in _RULE.finditer(self.last.gate):
            if self._new(match[1] + match[2] + match[3][:_SAME_CHARACTERS]):
                found.append(f"the gate on {FIRST}: {match[1]}: {match[3]}"[:LINE_CHARACTERS])
        return found

    def _services(self) -> list[str]:
        found = []
        for event in self.last.services:
            text = f"service {event['resource']}: {event['action']} on {event['node']}"
            if self._new(text):
                found.append(text)
        return found

    def _new(self, text: str) -> bool:
        known = text in self._told
        self._told.add(text)
        return not known
