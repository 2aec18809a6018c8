"""While a node is away its guest's journey is noted, so that the gate settles after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from standfast.core.evidence import GuestState, HostAnswer
from standfast.daemon import away
from standfast.hosts.base import Host, HostError


class Told:
    """A host that says one thing after the other, the last one for ever."""

    def __init__(self, name: str, *states: GuestState | None) -> None:
        self.name, self._states = name, list(states)

    async def ask_each(self, guests: Sequence[str], limit_seconds: float) -> tuple[HostAnswer, ...]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if state is None:
            raise HostError(self.name, "no answer")
        return tuple(HostAnswer(self.name, guest, state) for guest in guests)


async def holds(monkeypatch: pytest.MonkeyPatch, looks: int, *hosts: Told) -> int:
    """How often a hold was noted in so many looks at a node that is away and aims at ctrl2."""
    monkeypatch.setattr(away, "POLL_SECONDS", 0.0)
    seen, count = 0, 0

    def is_away() -> bool:
        # Asked twice a look: before the hosts, and again after them.
        nonlocal seen
        seen += 1
        return (seen - 1) // 2 < looks

    def held() -> None:
        nonlocal count
        count += 1

    named = {host.name: cast(Host, host) for host in hosts}
    await away.watch("guest2", lambda: "ctrl2", lambda: named, is_away, held)
    return count


async def test_a_guest_on_its_way_is_noted_at_each_look_until_it_has_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Told("ctrl2", GuestState.MIGRATING_OUT, GuestState.MIGRATING_OUT, GuestState.RUNNING)
    target = Told("ctrl3", GuestState.INCOMING, GuestState.INCOMING, GuestState.ABSENT)
    assert await holds(monkeypatch, 5, source, target) == 2


async def test_a_guest_that_runs_where_its_devices_do_not_aim_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        await holds(monkeypatch, 3, Told("ctrl2", GuestState.ABSENT), Told("ctrl3", GuestState.RUNNING)) == 3
    )


@pytest.mark.parametrize("state", [GuestState.RUNNING, GuestState.CRASHED, GuestState.STOPPED, None])
async def test_a_death_where_it_is_aimed_at_and_silence_are_no_journey(
    monkeypatch: pytest.MonkeyPatch, state: GuestState | None
) -> None:
    assert await holds(monkeypatch, 3, Told("ctrl2", state), Told("ctrl3", GuestState.ABSENT)) == 0


async def test_a_node_that_came_back_while_hosts_were_asked_is_not_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = [True, False, False]
    noted: list[int] = []
    host = cast(Host, Told("ctrl3", GuestState.RUNNING))
    await away.watch(
        "guest2", lambda: "ctrl2", lambda: {"ctrl3": host}, lambda: asked.pop(0), lambda: noted.append(1)
    )
    assert noted == []
