"""Events of one host with libvirt, for as long as the caller listens.

`virsh event` is started again whenever it ends, after a pause. What happens in between is not told: so each
LISTENING that is yielded means that the caller has to look at the state. (virsh registers for events some
milliseconds after it has said that it is there; a look takes longer.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from standfast.core.libvirt_events import LOST, HostEvent, Reader
from standfast.hosts.base import HostBug, HostError
from standfast.hosts.shell import Shell

RETRY_SECONDS = 2.0
WHOLE_SECONDS = 0.2
"""An event whose figures have not gone on for so long is whole."""


async def listen(shell: Shell, line: str) -> AsyncIterator[HostEvent]:
    """The events that this command line tells. Raises HostBug; anything else that goes wrong is a LOST."""
    while True:
        reader = Reader()
        try:
            async for event in _told(shell, line, reader):
                yield event
        except HostBug:
            raise
        except HostError as error:
            yield HostEvent(LOST, what=error.what)
        else:
            yield HostEvent(LOST, what=reader.trouble or "virsh event has ended")
        await asyncio.sleep(RETRY_SECONDS)


async def _told(shell: Shell, line: str, reader: Reader) -> AsyncIterator[HostEvent]:
    """The events of one call of virsh."""
    lines = shell.lines(line, "virsh event")
    coming: asyncio.Task[str] | None = None
    try:
        while True:
            coming = asyncio.create_task(_next(lines))
            # A host that tells nothing wakes nobody.
            while not (await asyncio.wait({coming}, timeout=WHOLE_SECONDS if reader.holds else None))[0]:
                for event in reader.flush():
                    yield event
            try:
                text = coming.result()
            except StopAsyncIteration:
                return
            for event in reader.feed(text):
                yield event
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait({coming})
        await lines.aclose()


async def _next(lines: AsyncGenerator[str, None]) -> str:
    return await anext(lines)  # an awaitable alone cannot be a task
