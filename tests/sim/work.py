"""What a worker does: play seeds of the production core, or look for a deliberate bug."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import pytest
from bugs import BUGS, Bug
from known import is_known
from seen import SEEN_ON

from standfast.sim.clocks import lags
from standfast.sim.run import run
from standfast.sim.world import driven, forgotten, guarded


@dataclass(frozen=True)
class Played:
    """What some seeds gave: the codes of known violations, and the first run with another one."""

    known: frozenset[str]
    bad: str


def play(first: int, count: int) -> Played:
    """Play `count` seeds from `first` on, up to the first violation that is not known."""
    known: set[str] = set()
    for seed in range(first, first + count):
        result = run(seed)
        known.update(one.code for one in result.violations if is_known(one))
        bad = [one for one in result.violations if not is_known(one)]
        if bad:
            return Played(frozenset(known), "\n".join((f"seed {seed}", *result.trace, *map(str, bad))))
    return Played(frozenset(known), "")


def shown_on(number: int, runs: int) -> int | None:
    """A seed on which a checker sees the bug of this number, and not the production core."""
    bug = BUGS[number]
    patch = pytest.MonkeyPatch()
    for seed in chain(filter(None, [SEEN_ON.get(bug.name)]), range(1, runs + 1)):
        if (bug.guarded and not guarded(seed)) or (bug.forgotten and not forgotten(seed)):
            continue
        if (bug.clocks and not lags(seed)) or (bug.driven and not driven(seed)):
            continue
        if shows(bug, seed, patch):
            return seed
    return None


def shows(bug: Bug, seed: int, patch: pytest.MonkeyPatch) -> bool:
    """Whether a checker sees this bug on this seed, and not the production core."""
    codes = _seen(bug, seed, patch)
    return bool(codes) and bool(codes - {one.code for one in run(seed).violations})


def _seen(bug: Bug, seed: int, patch: pytest.MonkeyPatch) -> set[str]:
    with patch.context() as planted:
        bug.plant(planted)
        return {one.code for one in run(seed, bug.rules).violations} & set(bug.seen_by)
