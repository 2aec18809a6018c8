"""What had no answer in time is asked again soon; what was refused waits for the whole period."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from standfast.config import Loaded
from standfast.core.topology import Device
from standfast.daemon import agent_tests, probe
from standfast.daemon.agent_tests import AgentTests, Around
from standfast.daemon.board import Board, Row
from standfast.daemon.known import Known
from standfast.daemon.probe import Trial
from standfast.hosts.base import Host, HostUnreachable
from standfast.processors import agents
from standfast.processors.agents import AgentResult, Outcome

LIMIT_SECONDS = 5.0
REFUSED = AgentResult(Outcome.FAILED, "wrong password", 0.1)
LATE = AgentResult(Outcome.TIMED_OUT, "", 50.0)
DONE = AgentResult(Outcome.DONE, "", 0.1)


class Listed:
    """A host that is silent for its first questions."""

    def __init__(self, name: str, silent: int) -> None:
        self.name = name
        self.silent = silent
        self.asked = 0

    async def ask_all(self, limit_seconds: float) -> tuple[()]:
        self.asked += 1
        if self.asked <= self.silent:
            raise HostUnreachable(self.name, "virsh: no answer")
        return ()


class World:
    """Hosts and agents that answer as told, to the tests of one node."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, silent: int = 0) -> None:
        self.hosts = {name: Listed(name, silent if name == "host2" else 0) for name in ("host1", "host2")}
        self.answers: list[AgentResult] = []
        self.ran = 0
        self.trials: list[tuple[str, ...]] = []
        self.logins: list[dict[str, Trial]] = []
        self.known = Known(node="n1", engine=True, tree=cast(Any, SimpleNamespace()))
        self.known.config = cast(Loaded, SimpleNamespace(config=SimpleNamespace(hosts=None)))
        self.moved = asyncio.Event()
        self.board = Board(self._changed)
        self.board.rows = {"a": Row("n2", "a", Device("a", "fence_dummy", {"port": "n2"}))}
        self.changes = 0
        monkeypatch.setattr(agent_tests, "AGAIN_SECONDS", 0.01)
        monkeypatch.setattr("standfast.daemon.board._init_trouble", lambda device: "")
        monkeypatch.setattr(agents, "run", self._run)
        monkeypatch.setattr(probe, "log_in", self._log_in)
        around = Around(
            lambda: cast("Mapping[str, Host]", self.hosts),
            lambda: True,
            self._changed,
            lambda: None,
            self._spawn,
        )
        self.tests = AgentTests(self.known, self.board, around)

    def _changed(self) -> None:
        self.changes += 1
        self.moved.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        raise AssertionError("nothing is begun beside the period")

    async def _run(self, *given: object) -> AgentResult:
        self.ran += 1
        return self.answers.pop(0) if self.answers else DONE

    async def _log_in(self, listed: object, parameters: object, good: list[str]) -> dict[str, Trial]:
        self.trials.append(tuple(good))
        return self.logins.pop(0) if self.logins else {}

    async def until(self, true: Callable[[], bool]) -> None:
        """Play the period until that is true."""
        period = asyncio.create_task(self.tests.periodically())
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while not true():
                    await self.moved.wait()
                    self.moved.clear()
        finally:
            period.cancel()


async def test_a_host_that_was_silent_is_asked_again_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, silent=3)
    await world.until(lambda: world.hosts["host2"].asked == 4 and world.known.probed.hosts["host2"] == "")
    assert world.known.probed.hosts == {"host1": "", "host2": ""}
    assert world.hosts["host1"].asked == 1
    assert world.changes >= 4


async def test_an_agent_that_was_late_is_tested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.answers = [LATE, LATE, DONE]
    await world.until(lambda: world.board.rows["a"].test_state == "TestWorked")
    assert world.ran == 3


async def test_an_agent_that_was_refused_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, silent=3)
    world.answers = [REFUSED]
    await world.until(lambda: world.hosts["host2"].asked == 4)
    assert world.board.rows["a"].test_state == "TestFailed"
    assert world.ran == 1


async def test_of_the_logins_only_the_late_ones_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    refused, late = Trial("wrong password"), Trial("timed out", late=True)
    world.logins = [{"x1": Trial(), "x2": refused, "x3": late}, {"x1": Trial(), "x2": Trial(), "x3": Trial()}]
    await world.until(lambda: len(world.trials) == 2 and not world.known.probed.late)
    assert set(world.trials[1]) >= {"x1", "x2"}
    assert "x3" not in world.trials[1]
    assert world.known.probed.logins == {"x1": "", "x2": "wrong password", "x3": ""}


async def test_in_a_window_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, silent=1)
    await world.until(lambda: bool(world.known.probed.hosts))
    monkeypatch.setattr(Known, "on_the_move", True)
    rest = asyncio.create_task(world.tests._rest())
    await asyncio.wait({rest}, timeout=10 * agent_tests.AGAIN_SECONDS)
    rest.cancel()
    assert world.hosts["host2"].asked == 1
