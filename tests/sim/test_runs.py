"""Ten thousand runs of the production core: no checker fires, but for what is known (known.py)."""

from __future__ import annotations

import time

import pytest
from known import KNOWN, is_known

from standfast.sim.run import run

RUNS = 10_000
AT_ONCE = 1_000
WINDOWS_A_SECOND = 30


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Codes of known violations that have been seen."""
    return set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, RUNS + 1, AT_ONCE))
def test_the_production_core_keeps_its_promises(first: int, seen: set[str]) -> None:
    for seed in range(first, first + AT_ONCE):
        result = run(seed)
        seen.update(one.code for one in result.violations if is_known(one))
        bad = [one for one in result.violations if not is_known(one)]
        assert not bad, "\n".join((f"seed {seed}", *result.trace, *map(str, bad)))


def test_what_is_known_is_still_there(seen: set[str]) -> None:
    assert seen == set(KNOWN), f"mended, take it off the list in known.py: {set(KNOWN) - seen}"


def test_a_window_costs_less_than_a_thirtieth_of_a_second_of_one_core() -> None:
    began, windows = time.process_time(), 0
    for seed in range(1, 301):
        windows += run(seed).windows
    assert windows / (time.process_time() - began) >= WINDOWS_A_SECOND
