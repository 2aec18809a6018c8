"""While a node is out of the membership: is its guest on its way, or elsewhere than its devices aim?

A gate that holds because of that must go on holding for a while after it has ended: the guest runs again some
tenths of a second before its node is back in the membership, and a hold that ends in between kills a healthy
node. Each gate notes its own holds, but the calls of one fencing may run on several nodes. So every node's
daemon looks by itself from the first second on, and notes the same for the gate of its own node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from standfast.core.evidence import HostAnswer, on_its_way
from standfast.hosts.base import Host, HostError

POLL_SECONDS = 1.0
QUICK_SECONDS = 600.0
SLOW_SECONDS = 10.0
"""Between two looks once the node has been away for longer than QUICK_SECONDS."""
ASK_LIMIT_SECONDS = 2.0


async def watch(
    guest: str,
    aim: Callable[[], str],
    hosts: Callable[[], Mapping[str, Host]],
    away: Callable[[], bool],
    held: Callable[[], object],
) -> None:
    """Until the node is no longer away. `held` is called for each look that shows its guest on its way."""
    began = time.monotonic()
    while away():
        answers = await asyncio.gather(*(_ask(host, guest) for host in hosts().values()))
        found = [answer for answer in answers if answer is not None]
        if away() and on_its_way(found, aim()) is not None:
            await asyncio.to_thread(held)
        quick = time.monotonic() - began < QUICK_SECONDS
        await asyncio.sleep(POLL_SECONDS if quick else SLOW_SECONDS)


async def ask_each(host: Host, guests: list[str]) -> tuple[HostAnswer, ...]:
    """One host's answers about each guest; none where it does not answer in time."""
    try:
        async with asyncio.timeout(ASK_LIMIT_SECONDS):
            return await host.ask_each(guests, ASK_LIMIT_SECONDS)
    except (TimeoutError, HostError):
        return ()


async def _ask(host: Host, guest: str) -> HostAnswer | None:
    try:
        async with asyncio.timeout(ASK_LIMIT_SECONDS):
            return await host.ask(guest, ASK_LIMIT_SECONDS)
    except (TimeoutError, HostError):
        # Silence is no evidence of a move.
        return None
