"""``standfast sim``: play seeds, say what was violated, show a trace."""

from __future__ import annotations

import sys
import time

import click

MAX_SHOWN = 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", default=1, show_default=True, type=int, metavar="N", help="The first seed.")
@click.option(
    "--runs", default=1000, show_default=True, type=click.IntRange(1, 10_000_000), metavar="N",
    help="How many seeds, one after the other.",
)  # fmt: skip
@click.option("--trace", is_flag=True, help="Show the trace of the last seed, violated or not.")
def sim(seed: int, runs: int, trace: bool) -> None:
    """Play the decisions against a simulated cluster: one run for each seed, which replays exactly.

    Exit status 1 if a checker has found a violation. The trace of a failing seed is printed; the same again:
    standfast sim --seed N --runs 1 --trace
    """
    from standfast.sim.run import run

    began, windows, simulated_ms, shown = time.process_time(), 0, 0, 0
    failed: list[int] = []
    for number in range(seed, seed + runs):
        result = run(number, trace=trace and number == seed + runs - 1)
        windows += result.windows
        simulated_ms += result.simulated_ms
        if result.violations:
            failed.append(number)
        if (result.violations and shown < MAX_SHOWN) or (trace and number == seed + runs - 1):
            shown += 1
            click.echo(f"seed {number}: faults: {', '.join(result.faults) or 'none'}")
            for line in (*result.trace, *(f"VIOLATED {one}" for one in result.violations)):
                click.echo(f"  {line}")
    took = max(time.process_time() - began, 0.001)
    click.echo(
        f"{runs} runs, {windows} windows opened, {simulated_ms / 3.6e6:.0f} simulated hours in {took:.1f} s "
        f"of one core: {windows / took:.0f} windows a second; {len(failed)} runs with a violation"
    )
    if failed:
        click.echo(f"failing seeds: {' '.join(str(number) for number in failed[:50])}")
        sys.exit(1)
