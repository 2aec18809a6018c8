"""Listens to the hosts that tell by themselves when something happens to a guest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from standfast.core.libvirt_events import LISTENING, LOST
from standfast.hosts.base import HostError, TellsEvents

if TYPE_CHECKING:
    from standfast.hosts.base import Host

LIFECYCLE = "lifecycle"

log = logging.getLogger("standfastd")


class Listening:
    """One task for each host that tells; `heard(guest)` for each event, with an empty name where a host
    begins to tell."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._tasks: dict[str, tuple[Host, asyncio.Task[None]]] = {}
        self._tells: set[str] = set()
        self._wanted = 0

    @property
    def whole(self) -> bool:
        """Whether every host tells."""
        return bool(self._tells) and len(self._tells) == self._wanted

    def follow(self, hosts: Mapping[str, Host]) -> None:
        """Listen to these from now on, and to no other."""
        self._wanted = len(hosts)
        for name in [n for n, (host, _) in self._tasks.items() if hosts.get(n) is not host]:
            self._tasks.pop(name)[1].cancel()
            self._tells.discard(name)
        for name, host in hosts.items():
            if name not in self._tasks and isinstance(host, TellsEvents):
                self._tasks[name] = (host, asyncio.create_task(self._listen(name, host)))

    async def stop(self) -> None:
        """Listen to none."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        self._tells.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self, name: str, host: TellsEvents) -> None:
        try:
            async for event in host.events():
                if event.kind == LISTENING:
                    self._tells.add(name)
                    self._heard("")
                elif event.kind == LOST:
                    self._tells.discard(name)
                    log.info("%s tells no events: %s", name, event.what)
                elif event.kind == LIFECYCLE and event.guest:
                    self._heard(event.guest)
        except HostError as error:
            # A name or setting of ours that is wrong: it is looked at all the same.
            log.warning("nobody listens to %s: %s", name, error.what)
        finally:
            self._tells.discard(name)
