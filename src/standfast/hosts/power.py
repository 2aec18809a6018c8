"""Whether a control domain's whole partition is off, as its service processor says. It only looks.

A host that is silent is not dead; one whose XSCF shows its PPAR `Powered Off` runs nothing. The XSCF has
power of its own, so it answers when the machine does not.
"""

from __future__ import annotations

import asyncio

from standfast.hosts.xscf_view import XscfAccess, way_in
from standfast.processors.xscf import session
from standfast.processors.xscf_login import XscfError

LOGIN_LIMIT_SECONDS = 5.0


async def powered_off(access: XscfAccess, limit_seconds: float) -> tuple[bool | None, str]:
    """Whether the partition is off, and its status as the XSCF has it; None and why: nobody could say.

    LAN#0 is asked first, LAN#1 where that does not answer; both within `limit_seconds`. Never raises.
    """
    if access.why_not:
        return None, access.why_not
    said = []
    try:
        async with asyncio.timeout(limit_seconds):
            for number, address in enumerate((access.lan0, access.lan1)):
                try:
                    status = await _status(access, address)
                except XscfError as error:
                    said.append(f"LAN#{number} {address}: {error}")
                    continue
                return status.lower() == "powered off", status
    except TimeoutError:
        said.append(f"no answer within {limit_seconds:g} s")
    return None, "; ".join(said)


async def _status(access: XscfAccess, address: str) -> str:
    """Raises XscfError."""
    login, talk = await way_in(access, address, LOGIN_LIMIT_SECONDS)
    async with session(login, talk) as shell:
        return (await shell.ppar_status(access.ppar_id)).status
