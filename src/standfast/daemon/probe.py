"""Can this node ask every control domain, and does the registered user get in at every XSCF?

R2 of the page: user, password and method agree on all control domains. The only proof is to log in to each,
also to those where no guest is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from standfast.core.hostlist import HostList
from standfast.hosts.base import Host, HostError
from standfast.processors import agents
from standfast.processors.agents import Outcome

ASK_LIMIT_SECONDS = 8.0
LOGIN_LIMIT_SECONDS = 20.0
LOGINS_AT_ONCE = 4


@dataclass(frozen=True)
class Probed:
    """Control domain or XSCF address -> empty if it answered, else why not."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)


async def ask_hosts(hosts: Mapping[str, Host]) -> dict[str, str]:
    """Ask every host for its guests, all at once."""

    async def one(host: Host) -> str:
        try:
            await host.ask_all(ASK_LIMIT_SECONDS)
        except HostError as error:
            return error.what
        return ""

    said = await asyncio.gather(*(one(host) for host in hosts.values()))
    return dict(zip(hosts, said, strict=True))


async def log_in(
    listed: HostList, parameters: Mapping[str, str] | None, known_good: Iterable[str]
) -> dict[str, str]:
    """Log in at every XSCF address with the data of one registered device; `known_good` need no trial."""
    if parameters is None:
        return {}
    slots = asyncio.Semaphore(LOGINS_AT_ONCE)
    good = frozenset(known_good)

    async def one(address: str, ppar_id: int) -> tuple[str, str]:
        if address in good:
            return address, ""
        options = {k: v for k, v in parameters.items() if not k.startswith("pcmk_")}
        options |= {"ip": address, "ppar_id": str(ppar_id)}
        async with slots:
            result = await agents.run("fence_xscf", "monitor", options, LOGIN_LIMIT_SECONDS)
        worked = result.outcome is Outcome.DONE
        return address, "" if worked else result.said or result.outcome.value

    trials = [
        one(address, entry.ppar_id)
        for entry in listed.hosts
        for address in (entry.xscf_lan0, entry.xscf_lan1)
        if entry.kind == "ldm"
    ]
    return dict(await asyncio.gather(*trials))
