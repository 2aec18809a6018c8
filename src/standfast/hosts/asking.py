"""Asking hosts about guests: all hosts at once, within a limit, and no answer is an answer too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from standfast.core.evidence import HostAnswer, silent
from standfast.hosts.base import Host, HostError


async def ask_everywhere(
    hosts: Iterable[Host], guests: Sequence[str], limit_seconds: float
) -> dict[str, tuple[HostAnswer, ...]]:
    """Guest -> what every host says of it; one listing of each host serves all guests. Never raises."""
    told = await asyncio.gather(*(_answers(host, guests, limit_seconds) for host in hosts)) if guests else []
    return {guest: tuple(answers[number] for answers in told) for number, guest in enumerate(guests)}


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
