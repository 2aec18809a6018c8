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

from standfast.core.evidence import on_its_way
from standfast.hosts.asking import ask_everywhere
from standfast.hosts.base import Host

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
        answers = (await ask_everywhere(hosts().values(), [guest], ASK_LIMIT_SECONDS))[guest]
        if away() and on_its_way(answers, aim()) is not None:
            await asyncio.to_thread(held)
        quick = time.monotonic() - began < QUICK_SECONDS
        await asyncio.sleep(POLL_SECONDS if quick else SLOW_SECONDS)
