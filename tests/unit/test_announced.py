"""A command that drives a window says so to the daemon of its node, and to the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from standfast.commands import window_run
from standfast.core import names, raising
from standfast.core.messages import Refused

LIMIT_SECONDS = 5.0


class Daemon:
    """Counts the commands that are alive, as `daemon.door` does."""

    def __init__(self, path: Path) -> None:
        self.path, self.alive, self.told = path, 0, 0
        self.answer = b'{"ok":true}\n'
        self.changed = asyncio.Condition()
        self._links: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.close()
        await self.until(0)

    async def until(self, alive: int) -> None:
        async with asyncio.timeout(LIMIT_SECONDS), self.changed:
            await self.changed.wait_for(lambda: self.alive == alive)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b'{"op":"command"}\n'
        self._links.add(writer)
        writer.write(self.answer)
        await self._count(1)
        while await reader.read(100):
            pass
        self._links.discard(writer)
        writer.close()
        await self._count(-1)

    async def _count(self, more: int) -> None:
        async with self.changed:
            self.alive += more
            self.told += max(0, more)
            self.changed.notify_all()


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    found = Daemon(tmp_path / "socket")
    monkeypatch.setattr(names, "SOCKET_FILE", str(found.path))
    monkeypatch.setattr(window_run, "ANNOUNCE_AGAIN_SECONDS", 0.01)
    await found.start()
    yield found
    await found.stop()


async def test_it_is_alive_for_as_long_as_it_runs(daemon: Daemon) -> None:
    async with window_run._announced():
        await daemon.until(1)
    await daemon.until(0)
    assert daemon.told == 1


async def test_a_daemon_that_is_started_anew_is_told_again(daemon: Daemon) -> None:
    async with window_run._announced():
        await daemon.until(1)
        await daemon.stop()
        await asyncio.sleep(0.05)  # tried in vain meanwhile
        await daemon.start()
        await daemon.until(1)
    await daemon.until(0)
    assert daemon.told == 2


async def test_without_a_daemon_it_is_refused(daemon: Daemon) -> None:
    daemon.answer = b'{"ok":false}\n'
    with pytest.raises(Refused) as caught:
        async with window_run._announced():
            pass
    assert caught.value.messages[0].code == "NO_DAEMON"
    await daemon.until(0)


def test_it_is_told_again_before_others_take_its_command_for_ended() -> None:
    assert 2 * window_run.ANNOUNCE_AGAIN_SECONDS < raising.UNCOMMANDED_SECONDS
