"""Both ways into an XSCF, the system's ssh and asyncssh: one shell, the same errors, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest
from xscf_site import Called, Site, running_site

from standfast.processors import dialect, openssh
from standfast.processors.xscf import session
from standfast.processors.xscf_login import (
    XscfError,
    XscfLogin,
    XscfLoginRefused,
    XscfSetting,
    XscfUnreachable,
)

PASSWORD = "s3cret of the XSCF"
both = pytest.mark.parametrize("client", ["auto", "asyncssh"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kex = {"ctrl2": "diffie-hellman-group14-sha1", "ctrl3": "diffie-hellman-group1-sha1"}
    with running_site(tmp_path_factory.mktemp("site"), kex) as site:
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    """The shared site, at rest."""
    shared.rest()
    return shared


def failed(called: Called, *words: str) -> bool:
    lines = called.err.splitlines()
    return called.code == 1 and len(lines) == 1 and all(word in lines[0] for word in words)


# --- both ways, on an emulated XSCF ----------------------------------------------------------


@both
def test_a_kill_is_seen_and_a_slow_prompt_waited_for(site: Site, client: str) -> None:
    site.control.inject("slow_prompt", "ctrl1", "lan0", seconds=0.3)
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", kill="sir", power_timeout=30, client=client)
    assert called.code == 0, called
    assert "sir, seen: Solaris running -> " in called.out
    assert site.killed("ctrl1", "guest1", mark) == ["guest1"]


@both
def test_a_wrong_password_is_tried_once(site: Site, client: str) -> None:
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", password="wrong-secret", client=client)
    assert failed(called, "login as xuser refused", "no order was given"), called
    assert "wrong-secret" not in called.err
    assert len(site.control.log(mark, event="login-refused")) == 1


@both
def test_a_changed_host_key_ends_the_call_before_the_password(
    site: Site, client: str, tmp_path: Path
) -> None:
    changed = tmp_path / "known_hosts"
    keys = site.known_hosts.read_text("ascii").splitlines()
    changed.write_text("\n".join(f"* {line.split(maxsplit=1)[1]}" for line in keys if "10.20.50" in line))
    for known_hosts in (changed, Path("/dev/null")):
        mark = site.control.mark()
        called = site.call("off", "ctrl1", "guest1", known_hosts=known_hosts, client=client)
        assert failed(called, f"its host key is not the one in {known_hosts}", "no order was given"), called
        assert site.control.log(mark, event="login") == site.control.log(mark, event="login-refused") == []


@both
@pytest.mark.parametrize("mode", ["silent", "refused"])
def test_a_dead_lan_is_named_within_the_login_timeout(site: Site, client: str, mode: str) -> None:
    site.control.inject("path_dead", "ctrl1", "lan0", mode=mode)
    called = site.call("off", "ctrl1", "guest1", login_timeout=1, client=client)
    assert failed(called, "no connection" if mode == "refused" else "no ", "no order was given"), called
    assert called.seconds < 3


@both
@pytest.mark.parametrize(("at", "said"), [("before", "no order was given"), ("after", "may be carried out")])
def test_a_cut_session_says_how_far_it_came(site: Site, client: str, at: str, said: str) -> None:
    site.control.inject("cut", "ctrl1", "lan0", times=1, match="reset", at=at)
    called = site.call("off", "ctrl1", "guest1", kill="sir", client=client)
    assert failed(called, "the session was cut", said), called


@both
def test_old_key_exchange_is_there_and_very_old_one_by_its_name(site: Site, client: str) -> None:
    assert site.call("monitor", "ctrl2", client=client).code == 0
    assert failed(site.call("monitor", "ctrl3", client=client), "no connection")
    named = site.call("monitor", "ctrl3", client=client, legacy_algorithms="diffie-hellman-group1-sha1")
    assert (named.code, named.err) == (0, "")


# --- which way is gone -------------------------------------------------------------------------


def imported(site: Site, *within: str, **other: object) -> set[str]:
    """The modules that a call of `status` imports, which must succeed. `within`: words before the call."""
    limits = {"login_timeout": 20, "shell_timeout": 20}
    lines = {**site.options("ctrl1", "guest1", **limits, **other), "action": "status"}
    done = subprocess.run(
        [*site.inside, *within, sys.executable, "-X", "importtime", "-m", "standfast.commands.fence_xscf"],
        input="".join(f"{key}={value}\n" for key, value in lines.items()),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "Status: ON\n"
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_call_with_the_systems_ssh_imports_nothing_heavy(site: Site) -> None:
    heavy = {"asyncssh", "cryptography", "pydantic", "click", "standfast.hosts.ldm", "standfast.core.ldm"}
    assert not imported(site) & heavy
    assert "asyncssh" in imported(site, client="asyncssh")


def test_without_an_ssh_or_with_one_that_knows_too_little_asyncssh_does_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nsenter = Path(site.inside[0])
    assert not nsenter.is_absolute()
    real = subprocess.run(
        ["which", "ssh", "nsenter"], capture_output=True, text=True, check=True
    ).stdout.split()
    (tmp_path / "nsenter").symlink_to(real[1])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "asyncssh" in imported(site)
    knows_less = tmp_path / "ssh"
    knows_less.write_text(f'#!/bin/sh\nexec {real[0]} -o KexAlgorithms=+nobody-knows-it "$@"\n')
    knows_less.chmod(0o755)
    assert "asyncssh" in imported(site)
    knows_less.write_text(f'#!/bin/sh\nexec {real[0]} "$@"\n')
    assert "asyncssh" not in imported(site)


def test_where_proc_shows_other_processes_asyncssh_does_it(site: Site) -> None:
    assert "asyncssh" in imported(site, "unshare", "--pid", "--fork", "--")


# --- an XSCF of the test's own, in this very event loop ----------------------------------------


@dataclass
class Xscf:
    """What the server does, and what it saw."""

    questions: tuple[str, ...] = ()  # keyboard-interactive, instead of password
    banner: str = ""
    closes: bool = False  # before the login
    shell: Callable[[asyncssh.SSHServerProcess[str]], Awaitable[None]] | None = None
    tried: list[str] = field(default_factory=list)
    window: tuple[object, ...] = ()


class Server(asyncssh.SSHServer):
    def __init__(self, xscf: Xscf) -> None:
        self._xscf = xscf

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if self._xscf.banner:
            self._connection.send_auth_banner(self._xscf.banner)
        if self._xscf.closes:
            self._connection.close()
        return True

    def password_auth_supported(self) -> bool:
        return not self._xscf.questions

    def validate_password(self, username: str, password: str) -> bool:
        self._xscf.tried.append(password)
        return password == PASSWORD

    def kbdint_auth_supported(self) -> bool:
        return bool(self._xscf.questions)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> asyncssh.KbdIntChallenge:
        return "", "", "", [(self._xscf.questions[0], False)]

    def validate_kbdint_response(
        self, username: str, responses: asyncssh.KbdIntResponse
    ) -> bool | asyncssh.KbdIntChallenge:
        self._xscf.tried += responses
        if len(self._xscf.tried) < len(self._xscf.questions):
            return "", "", "", [(self._xscf.questions[len(self._xscf.tried)], False)]
        return responses == [PASSWORD]


async def table(process: asyncssh.SSHServerProcess[str]) -> None:
    """A shell that shows one guest, and then ends."""
    process.stdout.write("XSCF> ")
    await process.stdin.readline()
    process.stdout.write(
        "x\r\nLogical Domain Name   Status\r\nguest1                Solaris running\r\nXSCF> "
    )
    await process.stdin.readline()


@contextlib.asynccontextmanager
async def served(xscf: Xscf, folder: Path) -> AsyncIterator[XscfLogin]:
    """The server, and a login to it."""

    async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
        xscf.window = (process.get_terminal_type(), process.get_terminal_size()[:2], process.command)
        with contextlib.suppress(asyncssh.Error, OSError):
            await (xscf.shell or table)(process)
        process.exit(0)

    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: Server(xscf),
        server_host_keys=[key],
        process_factory=serve,
        line_editor=False,
    )
    known_hosts = folder / "known hosts of 100%"
    known_hosts.write_text(f"[127.0.0.1]:{listener.get_port()} {key.export_public_key().decode()}")
    try:
        yield XscfLogin(
            address="127.0.0.1",
            port=listener.get_port(),
            user="xuser",
            password=PASSWORD,
            known_hosts_file=str(known_hosts),
            login_limit_seconds=5.0,
            shell_limit_seconds=3.0,
        )
    finally:
        listener.close()


async def status(login: XscfLogin) -> str:
    async with session(login, dialect.load("/nonexistent")) as shell:
        return await shell.domain_status(0, "guest1")


def ours() -> dict[int, str]:
    """Processes that a session of this process began: ssh, and its askpass."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"STANDFAST_ANSWER=/proc/{os.getpid()}/".encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def zombies() -> list[int]:
    """Children of this process that nobody has reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if words[0] == "Z" and int(words[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


async def until(condition: Callable[[], bool], limit_seconds: float = 5.0) -> bool:
    """Whether a condition of this machine, which tells nobody of its changes, holds within the limit."""
    end = time.monotonic() + limit_seconds
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return condition()


async def none_left() -> bool:
    """Whether all of them are gone, and reaped; an askpass ends a moment after its ssh."""
    return await until(lambda: not ours() and not zombies(), 2.0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@both
async def test_a_shell_has_a_wide_window_and_a_banner_is_nothing_that_it_said(
    tmp_path: Path, client: str
) -> None:
    xscf = Xscf(banner="x: Permission denied (password).\nHost key verification failed.\nXSCF> \n")
    async with served(xscf, tmp_path) as login:
        assert await status(replace(login, client=client)) == "Solaris running"
        assert (xscf.tried, xscf.window) == ([PASSWORD], ("dumb", (250, 50), None))
        with pytest.raises(XscfLoginRefused):
            await status(replace(login, client=client, password="other"))
        assert xscf.tried == [PASSWORD, "other"]
        xscf.closes = True
        with pytest.raises(XscfUnreachable) as caught:
            await status(replace(login, client=client))
        assert "verification" not in str(caught.value)


@both
async def test_a_password_of_any_characters_arrives_as_it_is(
    tmp_path: Path, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = " '$x`\\n%s\"#*é "
    monkeypatch.setattr(sys.modules[__name__], "PASSWORD", odd)
    xscf = Xscf()
    async with served(xscf, tmp_path) as login:
        assert await status(replace(login, client=client, password=odd)) == "Solaris running"
    assert xscf.tried == [odd]


@pytest.mark.parametrize("password", ["two\nlines", "x" * 1001, "a\rb"])
async def test_a_password_that_ssh_would_cut_is_not_tried(tmp_path: Path, password: str) -> None:
    xscf = Xscf()
    async with served(xscf, tmp_path) as login:
        with pytest.raises(XscfSetting, match="one line"):
            await status(replace(login, password=password))
    assert xscf.tried == []


@both
async def test_keyboard_interactive_lets_in_too(tmp_path: Path, client: str) -> None:
    xscf = Xscf(questions=("Password: ",))
    async with served(xscf, tmp_path) as login:
        assert await status(replace(login, client=client)) == "Solaris running"
        xscf.tried.clear()
        with pytest.raises(XscfLoginRefused):
            await status(replace(login, client=client, password="other"))
        assert xscf.tried == ["other"]


@pytest.mark.parametrize(
    ("questions", "tried", "said"),
    [
        (("Verification code: ",), [], "'(xuser@127.0.0.1) Verification code:' instead of the password"),
        (("Password: ", "Verification code: "), [PASSWORD], "login as xuser refused"),
        (("New password: ", "Password: "), [], "New password"),
    ],
)
async def test_any_other_question_ends_the_call_without_an_answer(
    tmp_path: Path, questions: tuple[str, ...], tried: list[str], said: str
) -> None:
    xscf = Xscf(questions=questions)
    async with served(xscf, tmp_path) as login:
        with pytest.raises(XscfLoginRefused) as caught:
            await status(login)
        assert said in str(caught.value)
        assert await none_left()
    assert xscf.tried == tried


async def test_the_password_is_in_no_argument_environment_or_file_of_ssh(tmp_path: Path) -> None:
    seen: list[str] = []

    async def look(process: asyncssh.SSHServerProcess[str]) -> None:
        seen.extend(text for pid, words in ours().items() for text in (words, environment(pid)))
        await table(process)

    async with served(Xscf(shell=look), tmp_path) as login:
        assert await status(login) == "Solaris running"
    assert any("-F none -tt" in text for text in seen)
    assert not any(PASSWORD in text for text in seen)
    assert not any(PASSWORD in text for text in map(repr, (login, openssh.OpensshShell(login))))


async def test_nothing_is_left_of_a_session_that_ends_badly(tmp_path: Path) -> None:
    async def hangs(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stdout.write("XSCF> ")
        await over.wait()

    async def silent(process: asyncssh.SSHServerProcess[str]) -> None:
        await over.wait()

    over = asyncio.Event()

    xscf = Xscf(shell=hangs)
    async with served(xscf, tmp_path) as login:
        await status_fails(
            replace(login, shell_limit_seconds=0.3)
        )  # the first one opens descriptors for good
        before = descriptors()
        await status_fails(replace(login, shell_limit_seconds=0.3))
        asking = asyncio.create_task(status(login))
        assert await until(lambda: bool(ours()))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(ZeroDivisionError):
            async with session(login, dialect.load("/nonexistent")):
                raise ZeroDivisionError
        xscf.shell = silent
        began = time.monotonic()
        await status_fails(replace(login, login_limit_seconds=0.8))
        assert 0.8 <= time.monotonic() - began < 1.5
        assert await none_left()
        over.set()
        assert await until(lambda: descriptors() <= before)  # the server here closes a moment later


async def status_fails(login: XscfLogin) -> None:
    with pytest.raises(XscfUnreachable):
        await status(login)


async def test_a_login_never_holds_up_the_event_loop(tmp_path: Path) -> None:
    xscf = Xscf()
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    async def slow(process: asyncssh.SSHServerProcess[str]) -> None:
        await asyncio.sleep(1.0)
        await table(process)

    xscf.shell = slow
    async with served(xscf, tmp_path) as login:
        ticking = asyncio.create_task(tick())
        assert await status(login) == "Solaris running"
        ticking.cancel()
    assert longest < 0.7  # a read that blocks would wait for the whole second


async def test_an_ssh_that_cannot_run_its_askpass_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "ssh-askpass"
    plain.write_bytes(openssh.ASKPASS.read_bytes())
    monkeypatch.setattr(openssh, "ASKPASS", plain)
    xscf = Xscf()
    async with served(xscf, tmp_path) as login:
        with pytest.raises(XscfError, match="chmod 755"):
            await status(login)
        plain.chmod(0o755)
        assert await status(login) == "Solaris running"
    assert xscf.tried == [PASSWORD]
