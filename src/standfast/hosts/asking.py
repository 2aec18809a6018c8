"""Asking hosts about guests: all hosts at once, within a limit, and no answer is an answer too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from standfast.core.evidence import MOVING, GuestState, HostAnswer, silent
from standfast.hosts.base import Host, HostError


async def ask_everywhere(
    hosts: Iterable[Host], guests: Sequence[str], limit_seconds: float
) -> dict[str, tuple[HostAnswer, ...]]:
    """Guest -> what every host says of it; one listing of each host serves all guests. Never raises."""
    told = await asyncio.gather(*(_answers(host, guests, limit_seconds) for host in hosts)) if guests else []
    return {guest: tuple(answers[number] for answers in told) for number, guest in enumerate(guests)}


async def until_at_rest(host: Host, guest: str, poll_seconds: float) -> HostAnswer:
    """Ask until the host says of the guest, in so many words, that no migration of it is under way.

    Has no limit of its own: the caller sets one. A copy that a broken migration has left (ERROR) rests.
    """
    while True:
        seen = await host.ask(guest)
        under_way = seen.job or seen.state in MOVING - {GuestState.ERROR}
        if not under_way and seen.state not in (GuestState.SILENT, GuestState.UNKNOWN):
            return seen
        await asyncio.sleep(poll_seconds)


async def _answers(host: Host, guests: Sequence[str], limit_seconds: float) -> tuple[HostAnswer, ...]:
    try:
        async with asyncio.timeout(limit_seconds):
            return await host.ask_each(guests, limit_seconds)
    except TimeoutError:
        why = f"no answer within {limit_seconds:g} s"
    except HostError as error:
        # A key or known_hosts file that is missing on this node: the host was not asked.
        why = error.what
    return tuple(silent(host.name, guest, why) for guest in guests)
