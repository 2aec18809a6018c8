"""Migrations that raise the heartbeat just in time, over a link that is made slow, so that the guest stands
still for 0.1 to 10 s: who left, which pages are wrong, for how long it was held and raised.

Each move has its own link and memory load. The blackout is QEMU's own, from STOP to RESUME.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from standfast.lab.vm import rounds, wires
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.load import MemoryLoad
from standfast.lab.vm.rounds import GUEST, HOSTS, MOVER, NODE, Move, Say
from standfast.lab.vm.witness import Witness

HEARTBEAT_SECONDS = 5.0
"""Token 2.3 s: the longest blackouts drop the node where nothing is raised."""
OPTIONS = ("--raise", "just-in-time", "--budget", "auto")
RAISING = re.compile("holding|raising|raised|letting|lowering|downtime|speed|migrating|every member")
"""What is shown of a move that went well."""
CALM_SECONDS = 3.0
"""After a move: a link that would be called down late, or a ring that re-forms, shows by then."""


@dataclass(frozen=True)
class Profile:
    """What one move is made of."""

    link_mbit: int | None
    """None: as fast as it goes."""
    load_mib: int
    load_mib_per_second: float


PROFILES = (
    Profile(None, 32, 2.0),
    Profile(80, 16, 8.0),
    Profile(60, 24, 8.0),
    Profile(40, 24, 8.0),
)
"""In turn. The last three write more than 0.7 of what the link carries: what they write again and again is
left for the blackout, 16 to 24 MiB at 5 to 10 MiB/s."""


@dataclass(frozen=True)
class Raised:
    """One move, and what the cluster did in it."""

    profile: Profile
    move: Move
    rings: int
    """New memberships that either node has logged, from the begin of the move until after it."""
    left: int
    """How often either node has logged that somebody left."""
    fencings: int
    services: int
    """Starts and stops of services on either node."""
    booted: bool

    @property
    def good(self) -> bool:
        """All that has to be 0 is 0, and it was raised and lowered."""
        told = self.move.just_in_time or {}
        whole = self.move.moved and self.move.aims_right and not self.move.pages_wrong and not self.booted
        quiet = not (self.rings or self.left or self.fencings or self.services)
        return whole and quiet and told.get("raised_seconds") is not None and told.get("lowered") is True

    def cells(self) -> list[str]:
        """The row of the table."""
        told = self.move.just_in_time or {}
        link = "-" if self.profile.link_mbit is None else str(self.profile.link_mbit)
        load = f"{self.profile.load_mib} at {self.profile.load_mib_per_second:g}/s"
        health = "boots 1" if self.booted else "as before"
        if self.services:
            health += f", services {self.services}"
        blackout = "-" if self.move.blackout is None else f"{self.move.blackout:.3f}"
        times = [_figure(told.get(f"{name}_seconds")) for name in ("budget", "hold", "raised", "lowered")]
        counts = [str(count) for count in (self.rings, self.left, self.fencings, self.move.pages_wrong)]
        note = self.move.note if not self.move.moved else "moved"
        return [link, load, *times, blackout, *counts, health, note]


TITLES = (
    "link, Mbit/s", "load, MiB", "budget, s", "held, s", "raised, s", "all down, s", "blackout, s",
    "new rings", "left", "fencings", "pages wrong", "guest", "how",
)  # fmt: skip


def play(lab: VmLab, count: int, say: Say, profiles: Sequence[Profile] = PROFILES) -> list[Raised]:
    """So many moves, back and forth. One that was cancelled counts, and the next one is begun; it stops at a
    window that is left open, and at the limit of `rounds`. Raises LabError."""
    begun, found = time.monotonic(), list[Raised]()
    try:
        for number in range(count):
            row = _one(lab, profiles[number % len(profiles)])
            found.append(row)
            told = zip(TITLES, row.cells(), strict=True)
            say(f"{number + 1}/{count}: {'; '.join(f'{title} {cell}' for title, cell in told)}")
            for step in row.move.steps:
                if not row.good or RAISING.search(step):
                    say(f"    {step}")
            if row.move.unfinished or time.monotonic() - begun > rounds.PLAY_LIMIT_SECONDS:
                break
    finally:
        for host in HOSTS:
            wires.limit(lab.root, host, None)
    return found


def _one(lab: VmLab, profile: Profile) -> Raised:
    witness = Witness(lab)
    at = lab.must_place(GUEST).name
    target = HOSTS[(HOSTS.index(at) + 1) % len(HOSTS)]
    load = MemoryLoad(lab, MOVER, profile.load_mib, profile.load_mib_per_second)
    witness.one_ring(rounds.RING_LIMIT_SECONDS)
    marks = [witness.mark(node) for node in (NODE, MOVER)]
    boot, fenced = witness.boot(MOVER), witness.fencings(MOVER, NODE)
    wires.limit(lab.root, at, profile.link_mbit)
    try:
        move = rounds.by_standfast(lab, target, OPTIONS)
    finally:
        wires.limit(lab.root, at, None)
    time.sleep(CALM_SECONDS)
    if move.moved:
        move = rounds.compared(move, load)
    return Raised(
        profile,
        move,
        rings=sum(map(witness.rings, marks)),
        left=sum(map(witness.left, marks)),
        fencings=witness.fencings(MOVER, NODE) - fenced,
        services=sum(len(witness.service_events(mark)) for mark in marks),
        booted=witness.boot(MOVER) != boot,
    )


def _figure(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "-"
