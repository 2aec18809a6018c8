"""What one call of the gate costs, beside what its parts cost, in one run on one machine.

Fake engine tools that print a CIB of two registered nodes, a fake daemon, the built program under the
system's Python. Rounds are interleaved, so that a busy machine slows all rows alike: read the ratios. No
row waits with a `timeout` of `subprocess`: that polls in growing steps, and its figures would land
on 16, 32 or 64 ms. One alarm limits the whole run instead.

usage: ./run bench gate [ROUNDS]
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "contract"))

from gate_world import HOME, World

from standfast.commands import build_gate

ROUNDS = 21
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
GOAL_MS = 100.0
RUN_LIMIT_SECONDS = 300


def main() -> int:
    """Measure and print; 1 if the whole call is above its goal."""
    signal.alarm(RUN_LIMIT_SECONDS)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "fence_standfast")
        build_gate.build(program)
        world = World(Path(folder, "world"), program)
        rows = {name: [] for name in calls(world)}  # type: dict[str, list[float]]
        for _ in range(rounds):
            for name, (call, prepared) in calls(world).items():
                with prepared:
                    began = time.perf_counter()
                    code = call()
                    rows[name].append((time.perf_counter() - began) * 1000)
                if code != 0:
                    print(f"{name}: exit code {code}", file=sys.stderr)
                    return 1
    medians = {name: statistics.median(times) for name, times in rows.items()}
    bare, cib = medians["python3 -I -S -c pass"], medians["cibadmin (fake)"]
    print(f"{'call':44} {'median':>7} {'min':>6} {'max':>6} ms   / python   / cibadmin")
    for name, times in rows.items():
        mid = medians[name]
        spread = f"{mid:7.1f} {min(times):6.1f} {max(times):6.1f}"
        print(f"{name:44} {spread}      {mid / bare:5.1f}      {mid / cib:7.1f}")
    whole = medians["gate: off, allowed, daemon answers"]
    print(f"goal: at most {GOAL_MS:.0f} ms for the whole call; it is {whole:.0f} ms ({rounds} rounds)")
    return 0 if whole <= GOAL_MS else 1


Case = tuple[Callable[[], int], contextlib.AbstractContextManager[object]]


def calls(world: World) -> dict[str, Case]:
    """What is measured, in this order in each round."""
    nothing = contextlib.nullcontext()
    tool = [str(world.bin / "cibadmin"), "-Q", "-l"]
    return {
        "python3 -I -S -c pass": (lambda: run(PYTHON), nothing),
        "cibadmin (fake)": (lambda: run(tool), nothing),
        "gate: metadata": (lambda: gate(world, "metadata"), nothing),
        "gate: monitor, daemon answers": (lambda: gate(world, "monitor"), world.daemon(HOME)),
        "gate: off, allowed, daemon answers": (lambda: off(world), world.daemon(HOME)),
        "gate: off, allowed, no daemon, ssh (fake)": (lambda: off(world), nothing),
    }


def run(argv: list[str]) -> int:
    """One program, its output thrown away."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode


def gate(world: World, action: str) -> int:
    """One call of the gate as the fencer makes it."""
    process = subprocess.run(
        [str(world.program), "--root", str(world.root)],
        input=f"action={action}\nnodename=cfguest2\n",
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PATH": f"{world.bin}:/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return process.returncode


def off(world: World) -> int:
    """A fencing that is not the second within 5 s: the gate would wait then."""
    world.forget_fencings()
    return gate(world, "off")


if __name__ == "__main__":
    sys.exit(main())
