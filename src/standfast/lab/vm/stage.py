"""How the demonstration on real guests plays a scene: commands that are shown, moves that are told."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import click

from standfast.cluster.run import Result
from standfast.lab.errors import LabError
from standfast.lab.story import Happening, Story
from standfast.lab.vm import channel
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.migration import Moved
from standfast.lab.vm.witness import Mark, Witness

FIRST, MOVER, GUEST = "cfguest1", "cfguest2", "guest2"
COMMAND_LIMIT_SECONDS = 180.0
MAX_TRIES = 5
BUSY = ("[ENGINE]", "[SWITCHOVER]", "[HOST_SILENT]", "[NO_CLUSTER]", "[NO_DAEMON]", "[AGENT]")
"""Refusals that change nothing and that an emulated guest, slower than its own limits, gives now and then."""
LINE_CHARACTERS = 150
_POLL_SECONDS = 0.5
_RULE = re.compile(r" (hold|allow) rule=(\S+) [\d.]+s: (.*)")


@dataclass
class Stage:
    """A lab, and the story that is told of it."""

    story: Story
    lab: VmLab
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        self.witness = Witness(self.lab)

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

    def ours(self, *argv: str) -> Result:
        """A command of Standfast; typed again, as its message says, where the emulated node was too slow."""
        for _ in range(MAX_TRIES - 1):
            done = self.command(*argv)
            if done.returncode == 0 or not any(code in done.stderr + done.stdout for code in BUSY):
                return done
            self.story.say("refused, nothing was changed; once more")
        return self.command(*argv)

    # -- where things are ---------------------------------------------------------------------------------

    def places(self) -> str:
        """Where the guest is, in the hosts' words."""
        found = self.lab.states(GUEST)
        return ", ".join(f"{host}: {state}" for host, state in sorted(found.items())) or "on no host"

    def running(self) -> list[str]:
        """The hosts that show the guest running."""
        return sorted(host for host, state in self.lab.states(GUEST).items() if state == "running")

    # -- what is told while it happens --------------------------------------------------------------------

    def move(self, host: str, *, blackout_seconds: float, undefine_source: bool = True) -> Moved | LabError:
        """A live migration by virsh, told while it goes on. What virsh says, where it fails."""
        zero, eyes = time.monotonic(), Eyes(self)
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
                eyes.look(zero)
                time.sleep(_POLL_SECONDS)
            eyes.look(zero)
        error = moving.exception()
        if error is None:
            return moving.result()
        if isinstance(error, LabError):
            return error
        raise error

    def until(self, condition: Callable[[], bool], limit_seconds: float) -> float | None:
        """Wait for it, telling what happens meanwhile; how many seconds it took, None: it did not come."""
        zero, eyes = time.monotonic(), Eyes(self)
        while not condition():
            if time.monotonic() - zero > limit_seconds:
                return None
            eyes.look(zero)
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - zero


class Eyes:
    """Sees, from the node that does not move and from the hosts, what is new."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._mark: Mark = stage.witness.mark(FIRST)
        self._told: set[str] = set()
        self._places = stage.places()
        self._member = True

    def look(self, zero: float) -> None:
        """Tell it. Times count from `zero`, and are those of the look."""
        for text in [*self._hosts(), *self._ring(), *self._gates(), *self._services()]:
            self._stage.story.tell(zero, [Happening(time.monotonic(), text)])

    def _hosts(self) -> list[str]:
        places = self._stage.places()
        if places == self._places:
            return []
        self._places = places
        return [f"{GUEST}: {places}"]

    def _ring(self) -> list[str]:
        try:
            said = self._stage.lab.members(FIRST)
        except channel.Unreachable:
            return []
        if " nodes" not in said or (member := not said.endswith(", 1 nodes")) == self._member:
            return []
        self._member = member
        return [f"{MOVER} is a member again" if member else f"{FIRST}: {MOVER} has dropped out of the ring"]

    def _gates(self) -> list[str]:
        found = []
        for answer in ("hold", "allow"):
            for line in self._stage.witness.gate_lines(self._mark, answer):
                if (match := _RULE.search(line)) and self._new(match[1] + match[2]):
                    found.append(f"the gate on {FIRST}: {match[1]}: {match[3]}"[:LINE_CHARACTERS])
        return found

    def _services(self) -> list[str]:
        found = []
        for event in self._stage.witness.service_events(self._mark):
            text = f"service {event['resource']}: {event['action']} on {event['node']}"
            if self._new(text):
                found.append(text)
        return found

    def _new(self, text: str) -> bool:
        known = text in self._told
        self._told.add(text)
        return not known
