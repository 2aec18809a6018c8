"""What settles the doubt of fence_xscf: all control domains say, twice, that the domain is not active."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from standfast.commands.fence_xscf import UsageError
from standfast.core import hostlist
from standfast.core.evidence import HostAnswer, gone_everywhere
from standfast.core.hostlist import HostList
from standfast.hosts.ldm import ControlDomainLogin, LdmHost, opened

ASK_LIMIT_SECONDS = 5.0
CONF_LIMIT_BYTES = 1_000_000


async def not_active_anywhere(domain: str, conf: str, limit_seconds: float) -> tuple[bool, str]:
    """Ask every control domain of the conf, twice round; the reason where that proves nothing."""
    try:
        hosts = _control_domains(conf)
    except UsageError as error:
        return False, f"the control domains cannot be asked: {error}"
    try:
        async with asyncio.timeout(limit_seconds):
            return await _asked_twice(domain, hosts)
    except TimeoutError:
        return False, f"the control domains gave no full answer within {limit_seconds:g} s"


def _control_domains(conf: str) -> HostList:
    path = Path(conf)
    try:
        if path.stat().st_size > CONF_LIMIT_BYTES:
            raise UsageError(f"{conf} is too large")
        found = hostlist.from_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{conf}: {getattr(error, 'strerror', None) or error}") from None
    except hostlist.HostListError as error:
        raise UsageError(f"{conf}: {error}") from None
    other = next((host for host in found.hosts if host.kind != "ldm"), None)
    if other is not None:
        raise UsageError(f"{other.name} is of kind {other.kind}, which has no ldm to ask")
    closed = next((host for host in found.hosts if not host.login), None)
    if closed is not None:
        # Its XSCF's word is the very thing that is in doubt here.
        raise UsageError(f"{conf} has no login for {closed.name}, so ldm cannot be asked there")
    return found


async def _asked_twice(domain: str, found: HostList) -> tuple[bool, str]:
    async with AsyncExitStack() as stack:
        hosts: list[LdmHost] = []
        for host in found.hosts:
            login = ControlDomainLogin(
                name=host.name,
                address=host.address,
                user=host.login,
                key_file=found.identity_file,
                known_hosts_file=found.known_hosts,
            )
            hosts.append(await stack.enter_async_context(opened(login)))
        rounds: list[list[HostAnswer]] = []
        for _ in range(2):
            answers: list[HostAnswer] = []
            for asked in hosts:  # each question after the answer before it: see gone_everywhere
                answer = await asked.ask(domain, ASK_LIMIT_SECONDS)
                if not answer.state.proves_not_here:
                    return False, str(answer)
                answers.append(answer)
            rounds.append(answers)
    names = [host.name for host in found.hosts]
    if gone_everywhere(names, rounds):
        return True, f"ldm on {', '.join(names)} says not active, in two rounds"
    return False, "the control domains changed their answers between two rounds"
