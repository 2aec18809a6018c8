"""``standfast migrate --json`` under way on a node of a lab of real guests, seen from outside."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from standfast.cluster.run import Result
from standfast.lab.errors import LabError
from standfast.lab.vm import channel, migration
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.host import Host
from standfast.lab.vm.migration import Blackout

EVENTS_FILE = "/var/log/standfast/events-of-the-lab"
MOVE_LIMIT_SECONDS = 600.0
READ_LIMIT_SECONDS = 20.0
_POLL_SECONDS = 2.0
"""Each look takes an emulated node's time."""
_SCRIPT = f'exec standfast migrate "$@" --json >{EVENTS_FILE}'

Event = dict[str, Any]


class Driven:
    """One move, from the command on `node` to its end. The blackout is measured at QEMU's own monitors."""

    def __init__(
        self, lab: VmLab, node: str, guest: str, host: str, more: Sequence[str] = (), *, blackout: float = 0.0
    ) -> None:
        """Start it. `blackout`: seconds that the guest stands still at least."""
        self._lab, self._node, self._guest = lab, node, guest
        self._argv = (guest, "--to", host, *more)
        self.result: Result | None = None
        """None: it has not ended, or the node that it ran on died."""
        self.blackout: Blackout | None = None
        self.trouble = ""
        """Why the blackout was not measured."""
        self.began = time.monotonic()
        self.seconds = 0.0
        self._said: list[Event] | None = None
        source, target = lab.must_place(guest), lab.host(host)
        lab.exec(node, ["rm", "-f", EVENTS_FILE], READ_LIMIT_SECONDS)
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, args=(source, target, blackout))
        self._runner = threading.Thread(target=self._run)
        self._watcher.start()
        self._runner.start()

    def _run(self) -> None:
        argv = ["/bin/sh", "-c", _SCRIPT, "run", *self._argv]
        try:
            self.result = self._lab.exec(self._node, argv, MOVE_LIMIT_SECONDS)
        except channel.Unreachable:
            self.result = None
        finally:
            self.seconds = time.monotonic() - self.began
            self._ended.set()

    def _watch(self, source: Host, target: Host, seconds: float) -> None:
        try:
            self.blackout = migration.follow(
                self._guest, source, target, self._ended.is_set,
                blackout_seconds=seconds, limit_seconds=MOVE_LIMIT_SECONDS,
            )  # fmt: skip
        except (LabError, OSError) as error:
            self.trouble = str(error)

    @property
    def ended(self) -> bool:
        """Whether the command is over."""
        return self._ended.is_set()

    def events(self, kind: str = "") -> list[Event]:
        """What it has told so far; [] while its node does not answer. Once it has ended it is read once."""
        over, found = self.ended, self._said
        if found is None:
            try:
                done = self._lab.exec(self._node, ["cat", EVENTS_FILE], READ_LIMIT_SECONDS)
            except channel.Unreachable:
                return []
            whole = [line for line in done.stdout.splitlines(keepends=True) if line.endswith("\n")]
            found = [json.loads(line) for line in whole]
            self._said = found if over and done.ok else None
        return [event for event in found if kind in ("", event["event"])]

    def wait(self, kind: str, limit_seconds: float = 120.0, phase: str = "") -> None:
        """Wait until it has told such an event, `phase`: in that part of the whole. Raises LabError at the
        limit, or where it ended without."""
        deadline = time.monotonic() + limit_seconds
        while not any(phase in ("", event.get("phase")) for event in self.events(kind)):
            if self.ended or time.monotonic() > deadline:
                raise LabError(f"standfast migrate told no {phase or kind}: {self.told()}")
            time.sleep(_POLL_SECONDS)

    def interrupt(self) -> None:
        """Ctrl-C, to the command alone. Raises LabError."""
        self._signal("INT")

    def kill(self) -> None:
        """End the command at once, without a word. Raises LabError."""
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        script = f"kill -{name} $(pgrep -f '[s]tandfast migrate {self._guest}')"
        done = self._lab.exec(self._node, ["/bin/sh", "-c", script], READ_LIMIT_SECONDS)
        if not done.ok:
            raise LabError(f"standfast migrate could not be sent SIG{name}: {done.complaint()}")

    def end(self) -> int | None:
        """Wait for its end; its exit status, or None where its node died."""
        self._runner.join()
        self._watcher.join()
        return None if self.result is None or self.result.timed_out else self.result.returncode

    def told(self) -> str:
        """Its messages and its last word, on one line."""
        said = self.events()
        texts = [f"[{event['code']}] {event['text']}" for event in said if event["event"] == "message"]
        texts += [event["text"] for event in said if event["event"] == "end" and event["text"]]
        errors = self.result.stderr.strip() if self.result is not None else ""
        return "; ".join([*texts, *([errors] if errors else [])]) or "nothing"

    def steps(self) -> tuple[str, ...]:
        """What it has done, each with the second since its start."""
        said = [event for event in self.events() if event["event"] in ("phase", "step", "message")]
        return tuple(f"+{event['seconds']:.1f} {event['text']}" for event in said)

    def page(self) -> Event:
        """The page at its end; {} where it was not told."""
        found = self.events("summary")
        return found[-1] if found else {}
