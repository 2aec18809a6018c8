"""Ten thousand runs of the production core: no checker fires, but for what is known (known.py)."""

from __future__ import annotations

import time
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from known import KNOWN
from work import Played, play

from standfast.sim.run import run

RUNS = 10_000
AT_ONCE = 500
WINDOWS_A_SECOND = 30

Runs = dict[int, Future[Played]]


@pytest.fixture(scope="module")
def runs(workers: ProcessPoolExecutor) -> Runs:
    """All runs, under way at once: first seed -> what it and those after it gave."""
    return {first: workers.submit(play, first, AT_ONCE) for first in range(1, RUNS + 1, AT_ONCE)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, RUNS + 1, AT_ONCE))
def test_the_production_core_keeps_its_promises(first: int, runs: Runs) -> None:
    played = runs[first].result()
    assert not played.bad, played.bad


@pytest.mark.timeout(300)
def test_what_is_known_is_still_there(runs: Runs) -> None:
    seen = {code for future in runs.values() for code in future.result().known}
    assert seen == set(KNOWN), f"mended, take it off the list in known.py: {set(KNOWN) - seen}"


@pytest.mark.full
def test_a_window_costs_less_than_a_thirtieth_of_a_second_of_one_core() -> None:
    began, windows = time.process_time(), 0
    for seed in range(1, 301):
        windows += run(seed).windows
    assert windows / (time.process_time() - began) >= WINDOWS_A_SECOND
