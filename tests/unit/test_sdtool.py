"""sdtool: the manual's table, and one clear line for everything that can go wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from standfast.commands import daemon_client, sdtool
from standfast.core.devices import AGENTS
from standfast.core.record import ONLY_RAISED

LISTING_2 = """\
Cluster Host Agent             SA State Shut State Test State Init State
------------ -----             -------- ---------- ---------- ----------
cfguest1     SA_xscfsnmpg0p.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg1p.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg0r.so Idle     Unknown    TestWorked InitWorked
cfguest1     SA_xscfsnmpg1r.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg0p.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg1p.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg0r.so Idle     Unknown    TestWorked InitWorked
cfguest2     SA_xscfsnmpg1r.so Idle     Unknown    TestWorked InitWorked
"""


def row(host: str, agent: str, **states: str) -> dict[str, str]:
    rest = {
        "sa_state": "Idle",
        "shut_state": "Unknown",
        "test_state": "TestWorked",
        "init_state": "InitWorked",
    }
    return {"host": host, "agent": agent, **rest, **states}


def status(**changes: object) -> dict[str, object]:
    agents = [row(node, agent.shown) for node in ("cfguest1", "cfguest2") for agent in AGENTS]
    whole = {"ok": True, "node": "cfguest2", "facility": "running", "window": None, "agents": agents}
    return {**whole, **changes}


class Daemon:
    """A stand-in for standfastd: answers each line by a table, remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: list[dict[str, object]] = []
        self.answers: dict[str, object] = {"status": status()}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                request = json.loads(stream.readline())
                self.asked.append(request)
                answer = self.answers.get(request["op"], {"ok": True})
                stream.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "sock")
    yield made
    made.close()


Run = Callable[..., int]


@pytest.fixture
def run(daemon: Daemon) -> Run:
    return lambda *arguments: sdtool.main(arguments, daemon.path)


def test_the_listing_is_the_manuals_to_the_character(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-s") == 0
    assert capsys.readouterr() == (LISTING_2, "")


def test_a_long_name_pushes_its_row_and_keeps_six_fields() -> None:
    line = sdtool.table([row("a-very-long-host-name", "fence_ipmilan-with-a-name", sa_state="UnInitFailed")])[
        2
    ]
    assert line.split() == [
        "a-very-long-host-name",
        "fence_ipmilan-with-a-name",
        "UnInitFailed",
        "Unknown",
        "TestWorked",
        "InitWorked",
    ]


def test_json_is_the_daemons_answer(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-s", "--json") == 0
    assert json.loads(capsys.readouterr().out) == status()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": False}, "Corosync or Pacemaker does not answer on this node"),
        ({"facility": "stopped"}, "The shutdown facility is stopped on cfguest2: no tests, no kills."),
        ({"window": {"phase": "open"}}, "A migration window is open: no node is killed until it is closed."),
        (
            {"window": {"phase": "open", "mode": "guarded", "mover": "cfguest2"}},
            "A migration window is open: cfguest2 is held while hosts show it alive;",
        ),
        ({"window": {"phase": "closing"}}, "A migration window is closing"),
        (
            {"window": {"phase": "closing", "proven": True, "left": ONLY_RAISED}},
            "A migration window is closing: fencing is armed again, only the heartbeat timeout is",
        ),
        (
            {"clocks": {"error": "", "hosts": [{"host": "n2", "clock": "out", "offset_seconds": -20.06}]}},
            "The clock of n2 differs from that of this node by -20.1 s.",
        ),
        (
            {"clocks": {"error": "", "hosts": [{"host": "n2", "clock": "unknown", "offset_seconds": None}]}},
            "The clock of n2 is not measured at the moment.",
        ),
        (
            {"clocks": {"error": "install libcpg4", "hosts": [{"host": "n2", "clock": "unknown"}]}},
            "The clocks of the other nodes are not measured: install libcpg4",
        ),
        ({"agents": []}, "No shutdown agent is registered. Register each node: clsnmpsetup -a"),
    ],
)
def test_what_is_not_normal_is_said_after_the_table(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str], changes: dict[str, object], words: str
) -> None:
    daemon.answers["status"] = status(**changes)
    assert run("-s") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == LISTING_2.splitlines()[:2]
    assert lines[-1].startswith(words)


def test_an_idle_window_is_not_worth_a_line(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["status"] = status(window={"phase": "idle"})
    assert run("-s") == 0
    assert capsys.readouterr().out == LISTING_2


@pytest.mark.parametrize(
    ("option", "request_sent"),
    [
        ("-b", {"op": "facility", "want": "start"}),
        ("-e", {"op": "facility", "want": "stop"}),
        ("-r", {"op": "retest"}),
        ("-C", {"op": "reopen-logs"}),
    ],
)
def test_each_switch_is_one_request(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str], option: str, request_sent: dict[str, str]
) -> None:
    assert run(option) == 0
    assert daemon.asked == [request_sent]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_the_daemon_refuses_is_shown_with_the_next_command(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["facility"] = {
        "ok": False,
        "error": "cfguest1 is stopped already",
        "hint": "sdtool -b on cfguest1",
    }
    assert run("-e") == 1
    assert capsys.readouterr() == ("", "sdtool: cfguest1 is stopped already\n  next: sdtool -b on cfguest1\n")


def test_a_kill_shows_the_rows_of_the_killed_node_only(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    agents = [
        row("cfguest1", "SA_xscfsnmpg0p.so"),
        row("cfguest2", "SA_xscfsnmpg0p.so", shut_state="KillWorked"),
    ]
    daemon.answers["status"] = status(agents=agents)
    assert run("-k", "cfguest2", "--yes") == 0
    assert daemon.asked == [{"op": "kill", "node": "cfguest2"}, {"op": "status"}]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cfguest2 has been killed."
    assert lines[3:] == ["cfguest2     SA_xscfsnmpg0p.so Idle     KillWorked TestWorked InitWorked"]


def test_a_kill_that_failed_is_exit_code_1(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.answers["kill"] = {"ok": False, "error": "no agent could kill cfguest2"}
    assert run("-k", "cfguest2", "--yes") == 1
    assert "no agent could kill cfguest2" in capsys.readouterr().err


def test_without_a_terminal_a_kill_needs_yes(
    run: Run, daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115
    assert run("-k", "cfguest2") == 2
    assert daemon.asked == []
    assert "use --yes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "code", "requests"), [("y\n", 0, 2), ("n\n", 1, 0), ("\n", 1, 0), ("", 1, 0)]
)
def test_a_person_is_asked_before_a_kill(
    run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, requests: int
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return typed

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert run("-k", "cfguest2") == code
    assert len(daemon.asked) == requests


def test_a_daemon_that_is_down_is_named_with_what_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sdtool.main(["-s"], str(tmp_path / "none")) == 1
    words = "sdtool: standfastd is not running on this node\n  next: systemctl start standfastd\n"
    assert capsys.readouterr() == ("", words)


def test_a_dead_daemons_socket_counts_as_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "sock"))
    assert sdtool.main(["-s", "--json"], str(tmp_path / "sock")) == 1
    assert json.loads(capsys.readouterr().out)["hint"] == "systemctl start standfastd"


@pytest.mark.parametrize("answer", [b"not json\n", b"[]\n", b"", b'{"ok": true'])
def test_an_answer_that_is_none_is_an_error(run: Run, daemon: Daemon, answer: bytes) -> None:
    daemon.answers["status"] = answer
    assert run("-s") == 1


def test_a_daemon_that_does_not_answer_ends_at_the_limit(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(1)
        began = time.monotonic()
        with pytest.raises(daemon_client.DaemonError, match=r"within 0\.2 seconds"):
            daemon_client.ask({"op": "status"}, 0.2, path)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("arguments", [[], ["-x"], ["-s", "-b"], ["-k"], ["--stat"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sdtool.main(arguments)
    assert caught.value.code == 2
    assert "usage: sdtool" in capsys.readouterr().err


def test_it_starts_without_anything_heavy() -> None:
    code = (
        "import sys; from standfast.commands import sdtool; sdtool.main(['-s'], '/nonexistent');"
        "heavy = {'pydantic', 'asyncssh', 'click', 'asyncio', 'cryptography'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
