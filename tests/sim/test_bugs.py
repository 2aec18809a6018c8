"""The checkers are proven: each deliberate bug is seen within the runs that are played anyway."""

from __future__ import annotations

import pytest
from bugs import BUGS, Bug

from standfast.sim.run import run

RUNS = 5_000


def _seen(bug: Bug, seed: int, patch: pytest.MonkeyPatch) -> set[str]:
    with patch.context() as planted:
        bug.plant(planted)
        return {one.code for one in run(seed, bug.rules).violations} & set(bug.seen_by)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_checker_sees_the_bug_and_not_the_production_core(
    bug: Bug, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(1, RUNS + 1):
        codes = _seen(bug, seed, monkeypatch)
        if codes and codes - {one.code for one in run(seed).violations}:
            return
    pytest.fail(f"no checker of {', '.join(bug.seen_by)} fired in {RUNS} runs with: {bug.name}")


def test_there_are_more_than_fifteen() -> None:
    assert len({bug.name for bug in BUGS}) >= 15
