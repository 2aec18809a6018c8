"""Many migrations in a row of one guest under memory load, through Standfast or by virsh alone.

What the cluster did meanwhile is counted from the logs of the node that does not move.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from standfast.lab.errors import LabError
from standfast.lab.vm import fencing
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.driven import Driven
from standfast.lab.vm.load import MemoryLoad
from standfast.lab.vm.seed import KEY_FILE
from standfast.lab.vm.witness import Mark, Witness

NODE, MOVER, GUEST = "cfguest1", "cfguest2", "guest2"
HOSTS = ("host2", "host3")
MIB, MIB_PER_SECOND = 32, 2.0
PLAY_LIMIT_SECONDS = 90 * 60.0
"""No further move is begun after that."""
RING_LIMIT_SECONDS = 60.0
AGENT_LIMIT_SECONDS = 90.0
TESTS_LIMIT_SECONDS = 240.0
LOOK_SECONDS = 5.0
CLOSE_LIMIT_SECONDS = 240.0
EXIT_UNFINISHED = 3
MAX_TRIES = 5
TRY_AGAIN = {"ENGINE", "SWITCHOVER", "HOST_SILENT", "NO_CLUSTER", "NO_DAEMON", "AGENT", "NO_REPORT", "BUSY"}
"""Refusals before anything was changed, which an emulated guest, slower than its own limits, gives."""
ROLLED_BACK = "ROLLED_BACK"
"""The window was not opened in time, for the same reason; every node is as before."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Move:
    """One migration. Times in seconds; `blackout` from QEMU's STOP event to its RESUME event."""

    host: str
    moved: bool
    blackout: float | None = None
    told_blackout: float | None = None
    """The same as the hypervisor's own figure, where `standfast migrate` told it."""
    opening: float | None = None
    migrating: float | None = None
    closing: float | None = None
    whole: float = 0.0
    refused: int = 0
    """How often the command was refused, or took its opening back, before anything was moved, and was typed
    again."""
    closed_later: bool = False
    """The command ended with the window open and the guest moved; what it printed closed it."""
    pages_wrong: int = 0
    just_in_time: Mapping[str, object] | None = None
    """What `standfast migrate` told of a raise just in time; None: none was asked for."""
    aims_right: bool = True
    """Whether the fence agent, with the parameters of the cluster, shows the guest as on."""
    unfinished: bool = False
    """The command has left its window open."""
    steps: tuple[str, ...] = ()
    """What it did, each with its second."""
    note: str = ""


@dataclass
class Tally:
    """What came of all of them."""

    name: str
    moves: list[Move] = field(default_factory=list)
    left: int = 0
    fencings: int = 0
    restarts: int = 0
    boots: int = 0
    """1: the guest has booted meanwhile."""
    pages_written: int = 0
    seconds: float = 0.0


def play(lab: VmLab, count: int, name: str, one: Callable[[VmLab, str], Move], say: Say) -> Tally:
    """So many moves, back and forth. Stops at one that failed, and at the limit. Raises LabError."""
    witness, begun = Witness(lab), time.monotonic()
    load = MemoryLoad(lab, MOVER, MIB, MIB_PER_SECOND)
    tally, mark, boot = Tally(name), witness.mark(NODE), witness.boot(MOVER)
    moving, fenced = witness.mark(MOVER), witness.fencings(MOVER, NODE)
    told = Disturbances(witness, (mark, moving), say)
    for number in range(1, count + 1):
        ready(lab)
        at = lab.must_place(GUEST).name
        target = HOSTS[(HOSTS.index(at) + 1) % len(HOSTS)]
        move = one(lab, target)
        if move.moved:
            move = compared(move, load)
        tally.moves.append(move)
        say(f"{name}, {number}/{count}: {sentence(move)}")
        told.look()
        if not move.moved:
            break
        if time.monotonic() - begun > PLAY_LIMIT_SECONDS:
            say(f"{name}: {PLAY_LIMIT_SECONDS:.0f} s have passed, no further move is begun")
            break
    witness.one_ring(RING_LIMIT_SECONDS)
    tally.left = witness.left(mark) + witness.left(moving)
    tally.fencings = witness.fencings(MOVER, NODE) - fenced
    tally.restarts = _restarts(witness, mark) + _restarts(witness, moving)
    tally.boots = int(witness.boot(MOVER) != boot)
    tally.pages_written = load.compare().writes
    tally.seconds = time.monotonic() - begun
    return tally


class Disturbances:
    """Tells at once what must not be, with what the node's own logs say of it: the lab is gone afterwards."""

    def __init__(self, witness: Witness, marks: Sequence[Mark], say: Say) -> None:
        self._witness, self._marks, self._say = witness, marks, say
        self._known = dict.fromkeys((mark.node for mark in marks), 0)

    def look(self) -> None:
        """Say what is new since the last look."""
        for mark in self._marks:
            events = self._witness.service_events(mark)
            for event in events[self._known[mark.node] :]:
                self._say(f"  {mark.node}: {event['action']} of {event['resource']}")
            if len(events) > self._known[mark.node]:
                for line in self._witness.troubles(mark.node):
                    self._say(f"  {mark.node}: {line}")
            self._known[mark.node] = len(events)


def ready(lab: VmLab) -> None:
    """As an operator who looks first: the cluster is at rest, and every agent works from every node.

    Raises LabError.
    """
    lab.wait_settled()
    if lab.spec.fencing == "standfast":
        for node in lab.nodes:
            lab.wait(partial(tested, lab, node), TESTS_LIMIT_SECONDS, f"the agents on {node}", LOOK_SECONDS)


def tested(lab: VmLab, node: str) -> bool:
    """Every row of sdtool -s on this node shows TestWorked."""
    done = lab.exec(node, ["sdtool", "-s", "--json"], TESTS_LIMIT_SECONDS)
    rows = json.loads(done.stdout)["agents"] if done.ok else []
    return bool(rows) and all(row["test_state"] == "TestWorked" for row in rows)


def compared(move: Move, load: MemoryLoad) -> Move:
    """The move with every page of the load looked at. (Each load counts from its own start.)"""
    return replace(move, pages_wrong=load.compare().wrong)


def _restarts(witness: Witness, mark: Mark) -> int:
    return len(witness.service_events(mark))


def sentence(move: Move) -> str:
    """One move, for people."""
    if not move.moved:
        return f"to {move.host}: not moved: {move.note}"
    parts = [f"to {move.host} in {move.whole:.1f} s"]
    parts += [] if move.blackout is None else [f"blackout {move.blackout:.3f} s"]
    parts += [] if not move.pages_wrong else [f"{move.pages_wrong} PAGES WRONG"]
    parts += [] if move.aims_right else ["its fence agent sees it off"]
    parts += [move.note] if move.note else []
    return ", ".join(parts)


def by_standfast(lab: VmLab, host: str, more: Sequence[str] = ()) -> Move:
    """`standfast migrate` on the other node, with `more` options, to its end."""
    refused, began = 0, time.monotonic()
    while True:
        driven = Driven(lab, NODE, GUEST, host, more)
        code = driven.end()
        codes = {event["code"] for event in driven.events("message")}
        page = driven.page()
        again = code == 1 and codes <= {*TRY_AGAIN, ROLLED_BACK}
        if code == EXIT_UNFINISHED and not page:  # the opening was left half-way: as the message says
            again = closed(lab, NODE, GUEST)
        if again and refused < MAX_TRIES:
            refused += 1
            ready(lab)
            continue
        break
    steps = driven.steps()
    later = code == EXIT_UNFINISHED and page.get("how") == "moved" and closed(lab, NODE, GUEST)
    whole = time.monotonic() - began
    if not later and (code != 0 or page.get("how") != "moved"):
        note = f"exit {code}: {driven.told()}"
        raised = page.get("just_in_time")
        return Move(
            host,
            moved=False,
            whole=whole,
            refused=refused,
            just_in_time=raised,
            unfinished=code == EXIT_UNFINISHED,
            steps=steps,
            note=note,
        )
    told = page["blackout_ms_by_hypervisor"]
    return Move(
        host,
        moved=lab.states(GUEST) == {host: "running"},
        blackout=driven.blackout.seconds if driven.blackout else None,
        told_blackout=None if told is None else told / 1000,
        opening=page["opening_seconds"],
        migrating=page["migration_seconds"],
        closing=None if later else page["closing_seconds"],
        whole=whole,
        refused=refused,
        closed_later=later,
        just_in_time=page.get("just_in_time"),
        steps=steps,
        aims_right=seen_on(lab, NODE, MOVER, GUEST),
        note=driven.told() if later else driven.trouble,
    )


def closed(lab: VmLab, node: str, guest: str) -> bool:
    """Close the window as the message says that was printed; whether it is closed."""
    for _ in range(MAX_TRIES):
        done = lab.exec(node, ["standfast", "window", "close", guest], CLOSE_LIMIT_SECONDS)
        if done.ok:
            return True
    return False


def by_virsh(lab: VmLab, host: str) -> Move:
    """`virsh migrate --live`, as an administrator does it, and a look at what the fence agent then says."""
    began = time.monotonic()
    try:
        moved = lab.migrate(GUEST, host)
    except LabError as error:
        return Move(host, moved=False, whole=time.monotonic() - began, note=str(error))
    whole = time.monotonic() - began
    return Move(
        host,
        moved=True,
        blackout=moved.blackout.seconds,
        migrating=moved.seconds,
        whole=whole,
        aims_right=seen_on(lab, NODE, MOVER, GUEST),
    )


def seen_on(lab: VmLab, asker: str, node: str, guest: str) -> bool:
    """Whether the fence agent, at the host that its device names in the cluster, sees the guest on."""
    argv = ["crm_resource", "--resource", fencing.device(lab.spec, node), "--get-parameter", "ip"]
    aim = lab.exec(asker, argv, AGENT_LIMIT_SECONDS)
    if not aim.ok or not aim.stdout.strip():
        raise LabError(f"where the fence device of {node} aims is not told: {aim.complaint()}")
    login = ["-a", aim.stdout.strip(), "-l", "root", "-k", KEY_FILE]
    limits = ["--login-timeout=30", "--shell-timeout=20"]
    asked = lab.exec(
        asker, ["fence_virsh", *login, "-n", guest, "-o", "status", *limits], AGENT_LIMIT_SECONDS
    )
    return asked.returncode == 0
