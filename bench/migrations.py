"""Live migrations of a real guest under memory load, in a row: by `standfast migrate`, and by virsh alone.

Two guests on three libvirt hosts, heartbeat timeout 10 s. A program in the guest that moves writes 2 MiB of
memory a second in 32 MiB, and compares every page after each move. First all moves through Standfast, typed
on the other node; then, in a lab of its own, as many by `virsh migrate --live` with fence_virsh alone.

With --just-in-time: moves that raise the heartbeat around the switch-over only, over a link that is made slow
so that the guest stands still for 0.1 to 10 s; heartbeat timeout 5 s, COUNT moves (8). Exit status 0 only
where in each the membership was left alone, no page is wrong, and all was raised and lowered.

With --postcopy: COUNT moves (4) by `standfast migrate --postcopy`, under the same load.

With --cases: what becomes of a migration that is cancelled, fails, or loses a host or the node that runs the
command.

usage: ./run bench migrations [COUNT]
       ./run bench migrations --just-in-time [COUNT]
       ./run bench migrations --postcopy [COUNT]
       ./run bench migrations --cases [NAME...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

from standfast.lab.errors import LabError
from standfast.lab.vm import cases, raised_rounds, rounds
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.rounds import Move, Tally

COUNT = 20
JUST_IN_TIME_COUNT = 8
POSTCOPY_COUNT = 4
BEGUN = time.monotonic()


def main(argv: Sequence[str]) -> int:
    """Measure and print; 0 only where nothing was left, fenced, restarted or wrong with Standfast."""
    if argv[:1] == ["--cases"]:
        return _cases(argv[1:])
    if argv[:1] == ["--just-in-time"]:
        return _just_in_time(int(argv[1]) if argv[1:] else JUST_IN_TIME_COUNT)
    if argv[:1] == ["--postcopy"]:
        count = int(argv[1]) if argv[1:] else POSTCOPY_COUNT
        moved = _rounds("standfast migrate --postcopy", "standfast", count, _by_postcopy)
        _table([moved])
        return 0 if _as_it_has_to_be(moved, count) else 1
    count = int(argv[0]) if argv else COUNT
    good = _rounds("standfast migrate", "standfast", count, rounds.by_standfast)
    bare = _rounds("virsh alone", "plain", count, rounds.by_virsh)
    _table([good, bare])
    return 0 if _as_it_has_to_be(good, count) else 1


def _as_it_has_to_be(found: Tally, count: int) -> bool:
    clean = not (found.left or found.fencings or found.restarts or found.boots)
    right = all(move.moved and not move.pages_wrong and move.aims_right for move in found.moves)
    return clean and right and len(found.moves) == count


def _by_postcopy(lab: VmLab, host: str) -> Move:
    return rounds.by_standfast(lab, host, ("--postcopy",))


def _rounds(name: str, fencing: str, count: int, one: Callable[[VmLab, str], Move]) -> Tally:
    lab = VmLab.up(fencing="standfast" if fencing == "standfast" else "plain", say=_say)
    try:
        return rounds.play(lab, count, name, one, _say)
    finally:
        lab.down()


def _just_in_time(count: int) -> int:
    lab = VmLab.up(heartbeat_timeout_seconds=raised_rounds.HEARTBEAT_SECONDS, say=_say)
    try:
        found = raised_rounds.play(lab, count, _say)
    finally:
        lab.down()
    print("\n| " + " | ".join(raised_rounds.TITLES) + " |")
    print("| --- " * len(raised_rounds.TITLES) + "|")
    for row in found:
        print("| " + " | ".join(row.cells()) + " |", flush=True)
    good = sum(row.good for row in found)
    print(f"\n{good} of {count} moves with nothing left, dropped, fenced, restarted or wrong")
    return 0 if good == count else 1


def _cases(wanted: Sequence[str]) -> int:
    unknown = [name for name in wanted if name not in cases.CASES]
    if unknown:
        raise SystemExit(f"which case is {unknown[0]!r}? There are: {', '.join(cases.CASES)}")
    found = cases.play(wanted or list(cases.CASES), _say)
    print("\n| case | the command | the guest | the cluster | after | as it has to be |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in found:
        print(row.line(), flush=True)
    return 0 if all(row.good for row in found) else 1


def _table(tallies: Sequence[Tally]) -> None:
    rows: list[tuple[str, list[str]]] = [
        ("moves", [str(sum(move.moved for move in one.moves)) for one in tallies]),
        ("nodes that left the membership", [str(one.left) for one in tallies]),
        ("fencings", [str(one.fencings) for one in tallies]),
        ("starts and stops of services", [str(one.restarts) for one in tallies]),
        ("boots of the guest", [str(one.boots) for one in tallies]),
        ("pages written, in thousands", [f"{one.pages_written / 1000:.0f}" for one in tallies]),
        ("pages wrong", [str(sum(move.pages_wrong for move in one.moves)) for one in tallies]),
        (
            "moves after which fencing did not see the guest",
            [str(sum(not move.aims_right for move in one.moves)) for one in tallies],
        ),
        ("blackout, s", [_spread(one, "blackout", 3) for one in tallies]),
        ("the same as the hypervisor told it, s", [_spread(one, "told_blackout", 3) for one in tallies]),
        ("opening the window, s", [_spread(one, "opening", 1) for one in tallies]),
        ("migration, s", [_spread(one, "migrating", 1) for one in tallies]),
        ("closing with proof, s", [_spread(one, "closing", 1) for one in tallies]),
        ("the whole command, s", [_spread(one, "whole", 1) for one in tallies]),
        (
            "refused or rolled back before the move, typed again",
            [str(sum(move.refused for move in one.moves)) for one in tallies],
        ),
        (
            "window closed by a second command, as printed",
            [str(sum(move.closed_later for move in one.moves)) for one in tallies],
        ),
        ("all of it, s", [f"{one.seconds:.0f}" for one in tallies]),
    ]
    print("\n| min, median, max | " + " | ".join(one.name for one in tallies) + " |")
    print("| --- |" + " --- |" * len(tallies))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _spread(tally: Tally, name: str, digits: int) -> str:
    found = [value for move in tally.moves if (value := getattr(move, name)) is not None]
    if not found:
        return "-"
    return ", ".join(f"{value:.{digits}f}" for value in (min(found), statistics.median(found), max(found)))


def _say(text: str) -> None:
    print(f"[{time.monotonic() - BEGUN:6.1f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        sys.exit(f"bench migrations: {error}{notes}")
