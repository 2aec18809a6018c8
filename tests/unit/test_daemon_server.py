"""The daemon's door: one line in, one line out, and a command's death is noticed."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from standfast.daemon import server as server_module
from standfast.daemon.server import HOLD, Answer, Server


class Handler:
    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def handle(self, request: Answer) -> Answer:
        if request.get("op") == "command":
            return {"ok": True, HOLD: True}
        if request.get("op") == "defect":
            raise RuntimeError("a defect")
        return {"ok": True, "echo": request}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Handler, Path]]:
    handler, path = Handler(), tmp_path / "door.sock"
    path.write_text("what a dead daemon left")
    server = Server(handler.handle, handler.released.set, str(path))
    await server.start()
    yield handler, path
    await server.close()
    assert not path.exists()


async def ask(path: Path, *lines: bytes) -> list[dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append(json.loads(await asyncio.wait_for(reader.readline(), 5)))
    writer.close()
    return answers


async def test_only_root_can_reach_it(served: tuple[Handler, Path]) -> None:
    assert stat.S_IMODE(served[1].stat().st_mode) == 0o600


async def test_each_request_has_its_answer(served: tuple[Handler, Path]) -> None:
    answers = await ask(served[1], b'{"op":"a"}', b'{"op":"b"}')
    assert [answer["echo"] for answer in answers] == [{"op": "a"}, {"op": "b"}]


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe"])
async def test_what_cannot_be_read_is_refused_and_the_next_one_is_answered(
    served: tuple[Handler, Path], line: bytes
) -> None:
    bad, good = await ask(served[1], line, b'{"op":"a"}')
    assert bad["ok"] is False
    assert "cannot be read" in str(bad["error"])
    assert good["ok"] is True


async def test_a_line_without_an_end_does_not_stop_the_others(served: tuple[Handler, Path]) -> None:
    _, writer = await asyncio.open_unix_connection(str(served[1]))
    writer.write(b"x" * 200_000)
    assert (await ask(served[1], b'{"op":"a"}'))[0]["ok"] is True
    writer.close()


async def test_a_command_that_dies_is_noticed_at_once(served: tuple[Handler, Path]) -> None:
    handler, path = served
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"op":"command"}\n')
    answer = json.loads(await reader.readline())
    assert answer == {"ok": True}
    assert not handler.released.is_set()
    writer.transport.abort()
    await asyncio.wait_for(handler.released.wait(), 5)


async def test_a_command_that_died_before_its_answer_holds_nothing(served: tuple[Handler, Path]) -> None:
    handler, path = served
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"op":"command"}\n')
    writer.transport.abort()
    await asyncio.wait_for(handler.released.wait(), 5)


async def test_a_client_that_sends_nothing_is_dropped_and_one_that_holds_is_not(
    served: tuple[Handler, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "READ_LIMIT_SECONDS", 0.2)
    handler, path = served
    holding, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"op":"command"}\n')
    assert json.loads(await holding.readline()) == {"ok": True}
    silent, other = await asyncio.open_unix_connection(str(path))
    assert await asyncio.wait_for(silent.readline(), 10) == b""
    assert not handler.released.is_set()
    writer.write(b'{"op":"a"}\n')
    assert json.loads(await asyncio.wait_for(holding.readline(), 10))["ok"] is True
    other.close()
    writer.close()


async def test_a_defect_of_the_daemon_is_a_whole_answer_and_a_line_in_the_log(
    served: tuple[Handler, Path], caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = await ask(served[1], b'{"op":"defect"}', b'{"op":"a"}')
    assert (bad["ok"], bad["hint"]) == (False, "journalctl -u standfastd")
    assert "'defect'" in str(bad["error"])
    assert "the request 'defect' failed" in caplog.text
    assert good["ok"] is True
