"""``standfast window open --budget``: a number, or when to raise."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from fake_cluster import FakeCluster

from standfast.commands import window as window_module
from standfast.commands import window_run
from standfast.commands.window_run import Wish
from standfast.core.steps import OpenGoal

DLM = '<primitive id="dlm" class="ocf" provider="pacemaker" type="controld"/>'


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    found: list[Wish] = []

    async def work(wish: Wish, _: object) -> int:
        found.append(wish)
        return 0

    monkeypatch.setattr(window_module, "work", work)
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (None, False, False)),
        (("--budget", "60"), (60, False, False)),
        (("--budget", "auto"), (None, True, False)),
        (("--budget", "none"), (None, False, True)),
    ],
)
def test_what_is_typed_is_what_is_wished(
    wishes: list[Wish], given: tuple[str, ...], expected: tuple[int | None, bool, bool]
) -> None:
    done = CliRunner().invoke(window_module.window, ["open", "guest2", *given])
    assert done.exit_code == 0, done.output
    (wish,) = wishes
    assert (wish.budget_seconds, wish.raise_if_needed, wish.hold_alone) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--budget", "soon"), "'soon' is neither a number of seconds nor auto or none"),
        (("--budget", "10"), "10 is not in the range 11<=x<=3600"),
        (("--budget", "-5"), "neither a number of seconds"),
        (("--budget", "none", "--mode", "frozen"), "--budget none is for --mode guarded"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_looked_at(
    wishes: list[Wish], given: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(window_module.window, ["open", "guest2", *given])
    assert done.exit_code == 2
    assert said in done.output
    assert not wishes


@pytest.mark.parametrize(
    ("resources", "wish", "budget_seconds"),
    [
        (DLM, {"raise_if_needed": True}, 600),
        ("", {"raise_if_needed": True}, 0),
        (DLM, {"hold_alone": True}, 0),
        (DLM, {}, 0),
        (DLM, {"raise_if_needed": True, "budget_seconds": 45}, 45),
        ("", {"guarded": False}, 600),
    ],
)
def test_auto_raises_to_the_files_value_only_where_a_resource_needs_it(
    monkeypatch: pytest.MonkeyPatch, resources: str, wish: dict[str, Any], budget_seconds: int
) -> None:
    tree = ET.fromstring(f"<cib><configuration><resources>{resources}</resources></configuration></cib>")

    async def look(_: object) -> tuple[object, ET.Element]:
        return FakeCluster(2).snapshot("n1"), tree

    monkeypatch.setattr(window_run, "look", look)
    config = SimpleNamespace(budget_seconds=600, lease_minutes=240, maintenance_mode=False)
    guest = next(iter(FakeCluster(2).snapshot("n1").aims.values())).guest
    whole = Wish(True, (guest,), False, None, None, (), (), "", guarded=True)
    wished = Wish(**{**whole.__dict__, **wish})
    goal = asyncio.run(window_run.goal_of(wished, config, object(), "standfast window"))  # type: ignore[arg-type]
    assert isinstance(goal, OpenGoal)
    assert goal.budget_seconds == budget_seconds
    assert goal.hold_alone is bool(wish.get("hold_alone"))
