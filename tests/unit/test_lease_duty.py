"""The hands of the lease: reminders once, the close by the operator's own command, and what is said else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from standfast.core.arming import Arm
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Phase, Record, Totem
from standfast.core.steps import CloseGoal, HostEntry, NodeAim
from standfast.daemon import lease_duty
from standfast.daemon.lease_duty import LeaseDuty, Seen, run_close, run_hook

RECORD = Record(epoch=7, phase=Phase.OPEN, mover="n2", lease_seconds=1000, window=5)
AIMS = {f"n{i}": NodeAim(f"n{i}", f"guest{i}", f"ctrl{i}", 1, {}) for i in (1, 2)}
GOAL = CloseGoal("n2", "guest2", "ctrl2")


class Site:
    """Hosts that show every guest at home, and a command that answers what it is told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.closed: list[tuple[str, str]] = []
        self.reminded: list[int] = []
        self.answer = ""
        self.duty = LeaseDuty(self.ask, self.told.append, self.close, self.remind)

    async def ask(self, aims: Mapping[str, NodeAim]) -> dict[str, tuple[HostAnswer, ...]]:
        return {
            node: tuple(
                HostAnswer(host, aim.guest, GuestState.RUNNING if host == aim.host else GuestState.ABSENT)
                for host in ("ctrl1", "ctrl2")
            )
            for node, aim in aims.items()
        }

    async def close(self, goal: CloseGoal) -> str:
        self.closed.append((goal.guest, goal.target))
        return self.answer

    async def remind(self, percent: int, left: float, record: Record) -> str:
        self.reminded.append(percent)
        return ""

    async def at(self, seconds: float, record: Record = RECORD, me: str = "n1", clocks: str = "") -> None:
        await self.duty.step(Seen(me, frozenset({"n1", "n2"}), record, seconds, AIMS, clocks=clocks))
        if self.duty._closing is not None:
            await self.duty._closing
        # What a site's program needs no time for has ended with the next turn of the loop.
        await asyncio.sleep(0)


async def test_each_mark_is_told_once_to_the_log_and_to_the_sites_program() -> None:
    site = Site()
    for seconds in (100, 500, 501, 800, 950, 999):
        await site.at(seconds)
    assert site.reminded == [50, 80, 95]
    assert len(site.told) == 3
    assert "95 % of its lease are over, 1 min are left" in site.told[-1]
    assert site.closed == []


async def test_at_the_end_the_window_is_closed_as_an_operator_would() -> None:
    site = Site()
    await site.at(1000)
    assert site.closed == [("guest2", "ctrl2")]
    assert site.told[-1] == "the window is closed"


async def test_clocks_that_lag_are_told_and_looked_at_again_after_a_while_without_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, site, asked = [1.0], Site(), []
    monkeypatch.setattr(lease_duty.time, "monotonic", lambda: now[0])
    own = site.ask
    site.duty._ask = lambda aims: (asked.append(now[0]), own(aims))[1]
    proven = replace(RECORD, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED)
    for second in range(250):
        now[0] = 1.0 + second
        await site.at(1000 + second, proven, clocks="n2 is 20.0 s behind n1")
        assert site.duty.over is not None
        assert site.duty.over.why == "n2 is 20.0 s behind n1"
    assert (site.closed, asked) == ([], [1.0, 121.0, 241.0])
    now[0] += 120
    await site.at(1400, proven)
    assert site.closed == [("guest2", "ctrl2")]


async def test_a_sites_program_that_hangs_does_not_keep_the_daemon_from_looking() -> None:
    site = Site()
    hangs = asyncio.Event()

    async def remind(percent: int, left: float, record: Record) -> str:
        await hangs.wait()
        return "it ended at its limit"

    site.duty = LeaseDuty(site.ask, site.told.append, site.close, remind)
    async with asyncio.timeout(5):
        await site.at(500)
        await site.at(1000)
    assert site.closed == [("guest2", "ctrl2")]
    hangs.set()
    await site.duty.ended()
    assert "it ended at its limit" in site.told


async def test_what_was_refused_is_told_and_not_tried_again_at_once() -> None:
    site = Site()
    site.answer = "guest2 is still being moved"
    for seconds in (1000, 1001, 1002):
        await site.at(seconds)
    assert len(site.closed) == 1
    assert site.duty.over is not None
    assert site.duty.over.why.startswith("guest2 is still being moved; not armed: ")


async def test_the_mover_only_alarms() -> None:
    site = Site()
    await site.at(5000, me="n2")
    assert site.closed == []
    assert site.duty.over is not None


async def test_a_new_window_and_a_longer_lease_begin_anew() -> None:
    site = Site()
    await site.at(600)
    await site.at(10, Record(epoch=9, phase=Phase.OPEN, mover="n2", lease_seconds=1000, window=8))
    await site.at(1100, Record(epoch=10, phase=Phase.OPEN, mover="n2", lease_seconds=2000, window=8))
    assert site.reminded == [50, 50]
    assert site.closed == []


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


async def test_the_command_is_given_what_an_operator_would_type(tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = program(tmp_path, f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:]))")
    assert await run_close(GOAL, made) == ""
    assert log.read_text() == "-u guest2 ctrl2 --yes --json --reason the lease is over"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            """print('{"messages": [{"text": "guest2 moves", "next": "wait"}]}'); sys.exit(3)""",
            "guest2 moves (next: wait)",
        ),
        ("sys.exit('no root')", "no root"),
        ("sys.exit(4)", "ended with exit code 4"),
    ],
)
async def test_what_the_command_said_is_the_reason(tmp_path: Path, body: str, said: str) -> None:
    assert said in await run_close(GOAL, program(tmp_path, body))


async def test_a_command_that_hangs_or_is_missing_ends_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_duty, "CLOSE_LIMIT_SECONDS", 0.2)
    async with asyncio.timeout(10):
        assert "did not end within" in await run_close(GOAL, program(tmp_path, "time.sleep(60)"))
    assert await run_close(GOAL, str(tmp_path / "missing")) != ""


async def test_a_hook_is_called_with_what_it_needs_and_its_failure_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    good = program(tmp_path, f"open({str(log)!r}, 'w').write(' '.join(sys.argv[1:]))")
    assert await run_hook(80, 120.4, RECORD, good) == ""
    assert log.read_text() == "80 120 n2"
    assert "exit code 3" in await run_hook(80, 120.4, RECORD, program(tmp_path, "sys.exit(3)"))
    assert await run_hook(80, 120.4, RECORD, str(tmp_path / "none")) == ""


async def test_a_mover_that_is_lost_is_armed_for_after_the_close_was_refused_once_a_while() -> None:
    site, armed = Site(), []
    site.answer = "n2 is not in the membership and not proven off"
    trouble = "the ring does not answer"

    async def arm(action: Arm, aims: Mapping[str, NodeAim]) -> str:
        armed.append((action.node, sorted(aims)))
        return trouble

    site.duty = LeaseDuty(site.ask, site.told.append, site.close, site.remind, arm)
    hosts = {name: HostEntry(name, 0, "", "", 1) for name in ("ctrl1", "ctrl2")}
    seen = Seen("n1", frozenset({"n1"}), RECORD, 1000.0, AIMS, True, hosts, {"n2": 60.0})
    for _ in range(4):
        await site.duty.step(seen)
        await site.duty.ended()
    assert site.closed == [("guest2", "ctrl2")]
    assert armed == [("n2", ["n1", "n2"])]
    assert site.told[-2].startswith(
        "the lease is over, the window cannot be closed and n2 is lost: arming it"
    )
    assert site.told[-1] == "not armed: the ring does not answer"
    assert site.duty.over is not None
    assert site.duty.over.why == f"{site.answer}; not armed: {trouble}"
