"""One seed, one run."""

from __future__ import annotations

from dataclasses import dataclass

from standfast.sim.checkers import Violation
from standfast.sim.kernel import Process, TooManyEvents
from standfast.sim.rules import Rules
from standfast.sim.story import Story
from standfast.sim.world import World

LIMIT_MS = 4 * 3600 * 1000


@dataclass(frozen=True)
class Run:
    """What one seed gave."""

    seed: int
    violations: tuple[Violation, ...]
    trace: tuple[str, ...]
    windows: int
    """Windows that were announced to an operator."""
    events: int
    faults: tuple[str, ...]
    simulated_ms: int


def run(seed: int, rules: Rules | None = None, *, trace: bool = False) -> Run:
    """Play one seed. The trace is put together where it is asked for, or something was violated."""
    world = World(seed, rules or Rules())
    story = Story(world)
    Process(world.kernel.at, story.steps())
    try:
        world.kernel.run(LIMIT_MS, lambda: story.over)
    except TooManyEvents as error:
        world.check.fail("L2", str(error))
    if not story.over:
        world.check.now_ms = world.kernel.now_ms
        world.check.fail("L2", "the run did not come to its end")
    found = tuple(world.check.found)
    lines = tuple(world.kernel.trace()) if trace or found else ()
    return Run(
        seed,
        found,
        lines,
        story.windows,
        world.kernel.events,
        tuple(story.faults.happened),
        world.kernel.now_ms,
    )
