"""The checkers are proven: each deliberate bug is seen within the runs that are played anyway."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from bugs import BUGS, MENDED
from seen import SEEN_ON
from work import shown_on, shows

RUNS = 5_000

Looks = list[Future[int | None]]


@pytest.fixture(scope="module")
def looks(workers: ProcessPoolExecutor) -> Looks:
    """All looks for bugs, under way at once."""
    return [workers.submit(shown_on, number, RUNS) for number in range(len(BUGS))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(len(BUGS)), ids=lambda number: BUGS[number].name)
def test_a_checker_sees_the_bug_and_not_the_production_core(number: int, looks: Looks) -> None:
    bug = BUGS[number]
    found = looks[number].result()
    assert found is not None, f"no checker of {', '.join(bug.seen_by)} fired in {RUNS} runs with: {bug.name}"
    print(f"{bug.name}: seed {found}")


def test_the_seeds_that_are_looked_at_first_are_of_the_seeds_that_are_played() -> None:
    assert set(SEEN_ON) == {bug.name for bug in BUGS}
    rare = {bug.name for bug in BUGS if bug.rare}
    assert all(1 <= seed <= RUNS for name, seed in SEEN_ON.items() if name not in rare)
    assert len(rare) <= 1, "a bug that is found by chance alone proves little"


@pytest.mark.parametrize("seed", MENDED, ids=lambda seed: MENDED[seed].name)
def test_without_what_mended_it_a_defect_is_there_again(seed: int) -> None:
    assert shows(MENDED[seed], seed, pytest.MonkeyPatch())


def test_there_are_more_than_fifteen() -> None:
    assert len({bug.name for bug in BUGS}) >= 15
