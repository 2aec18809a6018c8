"""Can this node ask every host, and does the registered user, or the fence agent, get in everywhere?

R2 of the page: user, password and method agree on all control domains. The only proof is to log in to each,
also to those where no guest is now. On other hosts the fence agent must get in, with what the file says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from standfast.core import host_fencing
from standfast.core.hostlist import ControlDomain, HostList
from standfast.core.topology import Device
from standfast.hosts.base import Host, HostError
from standfast.hosts.manual import ManualHost
from standfast.processors import agents
from standfast.processors.agents import Outcome

ASK_LIMIT_SECONDS = 8.0
LOGIN_LIMIT_SECONDS = 20.0
LOGINS_AT_ONCE = 4


@dataclass(frozen=True)
class Probed:
    """Host, XSCF address, or host that the fence agent is to reach -> empty if it answered, else why not."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    logins: Mapping[str, str] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
    """Of the logins: those that had no answer in time."""


@dataclass(frozen=True)
class Trial:
    """One login: empty if it worked, else why not, and whether that is only an answer that did not come."""

    said: str = ""
    late: bool = False


async def ask_hosts(hosts: Mapping[str, Host]) -> dict[str, str]:
    """Ask every host for its guests, all at once; those that nobody asks (kind manual) are left out."""

    async def one(host: Host) -> str:
        try:
            await host.ask_all(ASK_LIMIT_SECONDS)
        except HostError as error:
            return error.what
        return ""

    asked = {name: host for name, host in hosts.items() if not isinstance(host, ManualHost)}
    said = await asyncio.gather(*(one(host) for host in asked.values()))
    return dict(zip(asked, said, strict=True))


async def reach_all(listed: HostList, device: Device, known_good: Iterable[str]) -> dict[str, Trial]:
    """Let an ordinary agent log in at every host by `monitor`. `device`: a registered one, for all that is
    not the host's; `known_good`: hosts that need no trial."""
    ours = {k: v for k, v in device.parameters.items() if k not in host_fencing.of_host(device.parameters)}
    slots = asyncio.Semaphore(LOGINS_AT_ONCE)
    good = frozenset(known_good)

    async def one(host: ControlDomain) -> tuple[str, Trial]:
        if host.name in good:
            return host.name, Trial()
        async with slots:
            return host.name, await _trial(device.agent, ours | dict(host.fence_parameters))

    return dict(await asyncio.gather(*(one(h) for h in listed.hosts if h.fence_agent == device.agent)))


async def log_in(
    listed: HostList, parameters: Mapping[str, str] | None, known_good: Iterable[str]
) -> dict[str, Trial]:
    """Log in at every XSCF address with the data of one registered device; `known_good` need no trial."""
    if parameters is None:
        return {}
    slots = asyncio.Semaphore(LOGINS_AT_ONCE)
    good = frozenset(known_good)

    async def one(address: str, ppar_id: int) -> tuple[str, Trial]:
        if address in good:
            return address, Trial()
        async with slots:
            return address, await _trial(
                "fence_xscf", dict(parameters) | {"ip": address, "ppar_id": str(ppar_id)}
            )

    trials = [
        one(address, entry.ppar_id)
        for entry in listed.hosts
        for address in (entry.xscf_lan0, entry.xscf_lan1)
        if entry.kind == "ldm"
    ]
    return dict(await asyncio.gather(*trials))


async def _trial(agent: str, parameters: Mapping[str, str]) -> Trial:
    options = {k: v for k, v in parameters.items() if not k.startswith("pcmk_")}
    result = await agents.run(agent, "monitor", options, LOGIN_LIMIT_SECONDS)
    if result.outcome is Outcome.DONE:
        return Trial()
    return Trial(result.said or result.outcome.value, result.outcome is Outcome.TIMED_OUT)
