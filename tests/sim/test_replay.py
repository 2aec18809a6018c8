"""One seed is one run: it replays exactly, and the command shows it."""

from __future__ import annotations

from click.testing import CliRunner

from standfast.commands.sim import sim
from standfast.sim.run import run


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 4, 14):
        first, again = run(seed, trace=True), run(seed, trace=True)
        assert first == again
        assert first.trace


def test_two_seeds_are_two_runs() -> None:
    assert run(3, trace=True).trace != run(4, trace=True).trace


def test_the_trace_tells_the_whole_window() -> None:
    words = ("-p done", "starts to move", "heartbeat timeout", "-u done", "everything is put right")
    texts = ("\n".join(run(seed, trace=True).trace) for seed in range(1, 51))
    assert any(all(one in text for one in words) for text in texts)


def test_the_command_counts_windows_and_prints_a_trace() -> None:
    result = CliRunner().invoke(sim, ["--seed", "4", "--runs", "1", "--trace"])
    assert result.exit_code == 0, result.output
    assert "1 runs, 1 windows opened" in result.output
    assert "-u done" in result.output
