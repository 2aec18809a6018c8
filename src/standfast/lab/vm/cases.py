"""What becomes of a `standfast migrate` that does not go its way: each case on real guests, in one lab.

The copy is slowed to 2 MiB/s, which the guest's memory load writes as fast: the migration is under way until
the case ends it. The cases that begin with `raising` are those of a raise just in time: what happens does so
while the heartbeat of the other nodes goes up, with the copy under way, or held where that is late.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from standfast.lab.errors import LabError
from standfast.lab.story import service_of
from standfast.lab.vm import channel, raised_rounds, rounds
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.driven import Driven
from standfast.lab.vm.load import MemoryLoad
from standfast.lab.vm.rounds import GUEST, MAX_TRIES, MIB, MOVER, NODE, TRY_AGAIN
from standfast.lab.vm.witness import Witness

COORDINATOR_GUEST = "guest1"
SLOW_MIB_PER_SECOND, FAST_MIB_PER_SECOND = 2, 2000
IN_FLIGHT_SECONDS = 5.0
"""So long the migration has been under way before anything happens to it."""
COMMAND_LIMIT_SECONDS = 240.0
BOOT_LIMIT_SECONDS = 300.0
SERVICE_LIMIT_SECONDS = 180.0
LOWERED_LIMIT_SECONDS = 180.0
MOVING_LIMIT_SECONDS = 120.0
RAISING = "raising-"

Say = Callable[[str], None]


@dataclass
class Row:
    """What was seen in one case. Times in seconds."""

    name: str
    command: str = ""
    guest: str = ""
    cluster: str = ""
    after: str = ""
    wrong: list[str] = field(default_factory=list)
    """What was not as it has to be."""

    @property
    def good(self) -> bool:
        """All was as it has to be."""
        return not self.wrong

    def require(self, what: str, *, so: bool) -> None:
        """Note what is not so."""
        if not so:
            self.wrong.append(what)

    def line(self) -> str:
        """A row of a table."""
        verdict = "yes" if self.good else f"NO: {'; '.join(self.wrong)}"
        return f"| {self.name} | {self.command} | {self.guest} | {self.cluster} | {self.after} | {verdict} |"

    def __str__(self) -> str:
        return (
            f"{self.command}; {self.guest}; {self.cluster}; {self.after}; {'; '.join(self.wrong) or 'good'}"
        )


class Case:
    """One migration under way, and what is looked at."""

    def __init__(self, lab: VmLab, name: str, say: Say) -> None:
        self.lab, self.row, self.say = lab, Row(name), say
        self.raising = name.startswith(RAISING)
        self.witness = Witness(lab)
        self.source = lab.must_place(GUEST)
        taken = {self.source.name, lab.must_place(COORDINATOR_GUEST).name}
        self.target = next(host for host in lab.hosts if host.name not in taken)
        self.load = MemoryLoad(lab, MOVER, MIB, SLOW_MIB_PER_SECOND)
        if not self.raising:
            self.speed(SLOW_MIB_PER_SECOND)
        self.tokens = {node: self.witness.token(node) for node in lab.nodes}
        self.marks = {node: self.witness.mark(node) for node in lab.nodes}
        self.boots = {node: self.witness.boot(node) for node in lab.nodes}
        self.fenced = {node: self._fencings(node) for node in lab.nodes}
        self.driven = self._under_way()

    def __enter__(self) -> Case:
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever moves the guest next does so at full speed."""
        with suppress(LabError):  # where it has left its source, its speed has too
            self.speed(FAST_MIB_PER_SECOND)

    def _under_way(self) -> Driven:
        for _ in range(MAX_TRIES):
            driven = Driven(
                self.lab, NODE, GUEST, self.target.name, raised_rounds.OPTIONS if self.raising else ()
            )
            try:
                if self.raising:
                    driven.wait("phase", COMMAND_LIMIT_SECONDS, "raising")
                    return driven
                driven.wait("progress", COMMAND_LIMIT_SECONDS)
            except LabError:
                codes = {event["code"] for event in driven.events("message")}
                if driven.ended and codes and codes <= TRY_AGAIN:
                    self.say(f"refused, nothing was changed; once more: {driven.told()}")
                    continue
                raise
            since = time.monotonic()
            self.lab.wait(
                lambda since=since: time.monotonic() - since > IN_FLIGHT_SECONDS,  # type: ignore[misc]
                IN_FLIGHT_SECONDS + 5.0,
                "the migration to be under way",
            )
            return driven
        raise LabError(f"standfast migrate was refused {MAX_TRIES} times")

    def speed(self, mib_per_second: int) -> None:
        """How fast the source copies, now and until told otherwise."""
        self.source.must_virsh("migrate-setspeed", GUEST, str(mib_per_second))

    # -- what was seen ------------------------------------------------------------------------------------

    def command_ended(self, codes: Iterable[int | None], message: str) -> None:
        """Wait for its end, and note exit status and message codes."""
        code = self.driven.end()
        told = [event["code"] for event in self.driven.events("message")]
        seconds = self.driven.seconds
        shown = "died with its node" if code is None else f"exit {code}, {', '.join(told) or 'no message'}"
        self.row.command = f"{shown}, after {seconds:.0f} s"
        self.row.require(f"exit status: {self.driven.told()}", so=code in codes)
        self.row.require(f"no {message}", so=not message or message in told)

    def heartbeat_as_before(self, *, alone: str = "") -> None:
        """Every node runs the heartbeat timeout that it ran before; `alone`: only this one is left."""
        wanted = {node: token for node, token in self.tokens.items() if alone in ("", node)}
        found = {node: self.witness.token(node) for node in wanted}
        self.row.require(f"heartbeat timeouts {found}, before {wanted}", so=found == wanted)

    def guest_runs_on(self, host: str, *, known_elsewhere: bool = False) -> None:
        """It has to run there, there alone, in the boot that it was in, with every page as it was written."""
        states, boot = self.lab.states(GUEST), self.witness.boot(MOVER)
        wrong = self.load.compare().wrong
        self.row.guest = f"runs on {host}, as before" if host == self.source.name else f"runs on {host}"
        only = {name for name, state in states.items() if state == "running"} == {host}
        self.row.require(f"the guest: {states}", so=only and (known_elsewhere or len(states) == 1))
        self.row.require("the guest has booted", so=boot == self.boots[MOVER])
        self.row.require(f"{wrong} pages are wrong", so=wrong == 0)

    def cluster_saw(self, *, by: str = NODE, left: int = 0, fenced: dict[str, int] | None = None) -> None:
        """How often a node left, was fenced, and how many services were touched, as one node has it."""
        wanted = {node: (fenced or {}).get(node, 0) for node in self.lab.nodes}
        gone = self.witness.left(self.marks[by])
        found = {node: self._fencings(node, by) - self.fenced[node] for node in self.lab.nodes}
        touched = len(self.witness.service_events(self.marks[by]))
        told = ", ".join(f"{node} {count}" for node, count in found.items() if count) or "none"
        self.row.cluster = f"left: {gone}, fenced: {told}, services touched on {by}: {touched}"
        self.row.require(f"left {gone} times", so=gone == left)
        self.row.require(f"fencings {found}", so=found == wanted)
        if not left:
            self.row.require("services were touched", so=touched == 0)

    def _fencings(self, node: str, by: str = "") -> int:
        askers = [by] if by else [name for name in self.lab.nodes if name != node]
        return self.witness.fencings(node, askers[0])

    # -- the window afterwards ----------------------------------------------------------------------------

    def window(self, node: str = NODE) -> str:
        """The phase of the record."""
        done = self.lab.exec(node, ["standfast", "window", "status", "--json"], COMMAND_LIMIT_SECONDS)
        if not done.ok:
            return f"not told: {done.complaint()}"
        phase: str = json.loads(done.stdout)["phase"]
        return phase

    def closed(self, node: str = NODE) -> None:
        """The window has to be closed by the command itself."""
        phase = self.window(node)
        self.row.after = "window closed" if phase == "idle" else f"window {phase}"
        self.row.require(f"the window is {phase}", so=phase == "idle")

    def closes(self, what: str, node: str = NODE) -> None:
        """Type what the command has printed; then the window has to be closed, with fencing proven."""
        began = time.monotonic()
        done = rounds.closed(self.lab, node, GUEST)
        self.row.after = f"{what}: window closed in {time.monotonic() - began:.0f} s"
        self.row.require("standfast window close has failed", so=done)
        self.row.require(f"the window is {self.window(node)}", so=self.window(node) == "idle")


def cancelled(case: Case) -> None:
    """Ctrl-C."""
    case.driven.interrupt()
    case.command_ended({1}, "MIGRATION_CANCELLED")
    case.guest_runs_on(case.source.name)
    case.cluster_saw()
    case.heartbeat_as_before()
    case.closed()


def failed(case: Case) -> None:
    """The QEMU that takes the guest over dies."""
    pid = case.target.qemu_pid(GUEST)
    if pid is None:
        raise LabError(f"no QEMU on {case.target.name} takes {GUEST} over")
    os.kill(pid, signal.SIGKILL)
    case.command_ended({1}, "MIGRATION_FAILED")
    case.guest_runs_on(case.source.name)
    case.cluster_saw()
    case.closed()


def destination_killed(case: Case) -> None:
    """The destination host loses its power; it gets it back after the command has ended."""
    case.lab.power(case.target.name, "off")
    case.command_ended({1, 3}, "")
    case.guest_runs_on(case.source.name)
    case.cluster_saw()
    case.heartbeat_as_before()
    phase = case.window()
    case.lab.power(case.target.name, "on")
    if phase == "idle":
        case.closed()
    else:
        case.closes(f"window {phase}; with {case.target.name} back")


def coordinator_killed(case: Case) -> None:
    """The node that runs the command loses its power; then the copy may go on."""
    case.lab.power(COORDINATOR_GUEST, "off")
    case.speed(FAST_MIB_PER_SECOND)
    case.command_ended({None}, "")
    case.lab.wait(
        lambda: case.lab.states(GUEST) == {case.target.name: "running"}, SERVICE_LIMIT_SECONDS, "the move"
    )
    case.guest_runs_on(case.target.name)
    case.lab.wait(
        lambda: case.witness.boot(NODE) not in ("", case.boots[NODE]), BOOT_LIMIT_SECONDS, f"{NODE} to boot"
    )
    case.lab.wait_ready()
    case.cluster_saw(by=MOVER, left=1, fenced={NODE: 1})
    case.closes(f"{NODE} fenced, booted again")


def command_killed(case: Case) -> None:
    """The command is killed with the others raised: the nodes lower that. A person ends the move."""
    began = time.monotonic()
    case.lab.wait(lambda: case.witness.token(MOVER) != case.tokens[MOVER], LOWERED_LIMIT_SECONDS, "the raise")
    case.driven.kill()
    killed = time.monotonic()
    case.command_ended({-signal.SIGKILL, 128 + signal.SIGKILL}, "")
    case.lab.wait(
        lambda: all(case.witness.token(node) == token for node, token in case.tokens.items()),
        LOWERED_LIMIT_SECONDS,
        "the nodes to lower the heartbeat",
    )
    lowered = time.monotonic() - killed
    case.say(f"raised after {killed - began:.0f} s, killed then, lowered {lowered:.0f} s later")
    # virsh may have gone with its session, and taken the move along, or it crawls.
    case.source.virsh("domjobabort", GUEST)
    case.lab.wait(
        lambda: list(case.lab.states(GUEST).values()) == ["running"],
        MOVING_LIMIT_SECONDS,
        "one copy of the guest, running",
    )
    (at,) = case.lab.states(GUEST)
    case.guest_runs_on(at)
    case.cluster_saw()
    case.closes(f"lowered {lowered:.0f} s after the kill")
    case.heartbeat_as_before()


def source_killed(case: Case) -> None:
    """The source host loses its power, and the guest with it; then a person says that the host is dead."""
    case.lab.power(case.source.name, "off")
    case.command_ended({3}, "HOST_SILENT")
    states = case.lab.states(GUEST)
    case.row.guest = "died with its host" if not states else f"{states}"
    case.row.require(f"the guest: {states}", so=not states)
    case.row.require("it was called dead without proof", so=case._fencings(MOVER) == case.fenced[MOVER])
    began = time.monotonic()
    said = case.lab.exec(
        NODE,
        [
            "standfast",
            "window",
            "confirm-dead",
            GUEST,
            "--host",
            case.source.name,
            "--yes",
            "--reason",
            "no power",
        ],
        COMMAND_LIMIT_SECONDS,
    )
    case.row.require(f"confirm-dead: {said.stderr.strip()[-200:]}", so=said.ok)
    case.lab.wait(lambda: _service_started(case), SERVICE_LIMIT_SECONDS, "its service to start elsewhere")
    recovered = time.monotonic() - began
    case.cluster_saw(left=1, fenced={MOVER: 1})
    case.heartbeat_as_before(alone=NODE)
    case.row.after = f"held until confirm-dead, its service elsewhere {recovered:.0f} s later"


def _service_started(case: Case) -> bool:
    try:
        events = case.witness.service_events(case.marks[NODE])
    except channel.Unreachable:
        return False
    return any((one["resource"], one["action"]) == (service_of(MOVER), "start") for one in events)


CASES: dict[str, Callable[[Case], None]] = {
    "cancelled": cancelled,
    "failed": failed,
    "destination-killed": destination_killed,
    "coordinator-killed": coordinator_killed,
    f"{RAISING}cancelled": cancelled,
    f"{RAISING}command-killed": command_killed,
    f"{RAISING}destination-killed": destination_killed,
    "source-killed": source_killed,
    f"{RAISING}source-killed": source_killed,
}
LAST = {"source-killed", f"{RAISING}source-killed"}
"""They end their guest, and with it what their lab is good for."""


def play(names: Iterable[str], say: Say) -> list[Row]:
    """Play them in one lab; a new one after a case that was not as it has to be, or has ended its guest."""
    rows: list[Row] = []
    lab: VmLab | None = None
    try:
        for name in names:
            say(f"case: {name}")
            if lab is None:
                lab = VmLab.up(say=say)
            row = Row(name)
            try:
                rounds.ready(lab)
                with Case(lab, name, say) as case:
                    row = case.row
                    CASES[name](case)
            except LabError as error:
                row.wrong.append(str(error))
            say(f"{name}: {row}")
            rows.append(row)
            if not row.good or name in LAST:
                lab.down()
                lab = None
    finally:
        if lab is not None:
            lab.down()
    return rows
