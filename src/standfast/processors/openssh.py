"""The first way into an XSCF: the system's `ssh`, of nobody's settings but these.

Rules of this file:

* **The password** is in no argument, file, environment or log. `ssh` closes what it inherits, so its askpass
  program (`ssh-askpass`, next to this) cannot be handed a descriptor: it opens our end of a pipe as
  /proc/PID/fd/N, which the kernel allows to root and to this user alone (proc(5), ptrace(2)), who could read
  our memory too. It is written into the pipe only when `ssh` asks for it, and once.
* **Every question of ssh comes here**, and only a first one that asks for the login's password is answered.
  At any other `ssh` is killed before it can go on: it would send an empty password, and an XSCF locks a user
  out after some wrong ones. A host key is never asked about (StrictHostKeyChecking=yes).
* **The local side is a terminal**: from a pipe, `ssh -tt` asks for a window of 0 columns. It is made raw by
  `ssh`, so what is written and read here passes unchanged.
* `ssh` stays in our process group: who kills that, as the fencer does, gets it too.
* Its log level leaves out the banner that a server may send, and has every reason for which it ends.
"""

import asyncio
import codecs
import contextlib
import os
import re
import termios
from pathlib import Path

from standfast.processors.xscf_login import (
    COLUMNS,
    LEAVE_LIMIT_SECONDS,
    ROWS,
    TERMINAL,
    XscfError,
    XscfKeyUnknown,
    XscfLogin,
    XscfLoginRefused,
    XscfSetting,
    XscfUnreachable,
)

ASKPASS = Path(__file__).with_name("ssh-askpass")
REAP_LIMIT_SECONDS = 2.0
ERRORS_LIMIT_BYTES = 20_000
PASSWORD_LIMIT_BYTES = 1000  # ssh reads at most 1023 from its askpass (readpass.c)

# Old service processors know no better; ssh has left it out since 8.2, asyncssh offers it.
_KEX = "diffie-hellman-group14-sha1"
_SETTINGS = {
    "BatchMode": "no",
    "CheckHostIP": "no",
    "ClearAllForwardings": "yes",
    "ControlMaster": "no",
    "ControlPath": "none",
    "EscapeChar": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "GlobalKnownHostsFile": "none",
    "IdentityAgent": "none",
    "LogLevel": "ERROR",
    "NumberOfPasswordPrompts": "1",
    "PreferredAuthentications": "password,keyboard-interactive",
    "PubkeyAuthentication": "no",
    "ServerAliveInterval": "10",  # an ssh that nobody is left to end must not stay for ever
    "ServerAliveCountMax": "3",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "VerifyHostKeyDNS": "no",
}
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9_.:%-]*")
_ASKS = re.compile(r"(?i)\bpassword\b[^?]*:\s*\Z")
_ASKS_OTHER = re.compile(r"(?i)\b(old|new|current|retype|again|change|confirm|one-time|passphrase)\b|yes/no")


class CannotError(Exception):
    """The system's ssh is missing, or does not know what it would need; nobody was asked."""


def asks_for_password(question: str, login: XscfLogin) -> bool:
    """Whether a question of ssh (ssh_config(5), PasswordAuthentication and KbdInteractiveAuthentication)
    asks for the password of this login, and not for another word or a new one."""
    lines = question.replace(f"{login.user}@{login.address}", "").strip("\r\n").splitlines()
    return bool(lines) and bool(_ASKS.search(lines[-1])) and not _ASKS_OTHER.search(lines[-1])


def reason(login: XscfLogin, errors: str, code: int | None) -> XscfError | CannotError:
    """Why ssh has ended before the shell began, by what it wrote to standard error."""
    lines = [line.strip().removeprefix("ssh: ") for line in errors.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if re.match(r"command-line.*: Bad ", last):
        return CannotError(last)
    if any(line.startswith("ssh_askpass: exec") for line in lines):
        return XscfSetting(f"{ASKPASS} cannot be executed; type: chmod 755 {ASKPASS}")
    if last == "Host key verification failed.":
        return XscfKeyUnknown(f"its host key is not the one in {login.known_hosts_file}")
    if re.search(r": Permission denied \([a-z0-9,@.-]*\)\.\Z|Too many authentication failures\Z", last):
        return XscfLoginRefused(f"login as {login.user} refused")
    said = " / ".join(lines)[:300] or f"ssh ended with exit status {code}"
    return XscfUnreachable(f"no connection: {said}")


def command(login: XscfLogin) -> list[str]:
    """The call of ssh. Raises XscfSetting for what cannot be said to it."""
    if not _ADDRESS.fullmatch(login.address):
        raise XscfSetting(f"{login.address!r} is not an address")
    file = str(Path(login.known_hosts_file).absolute())
    if re.search(r'["\\\n]|\$\{', file):
        raise XscfSetting(f"{file!r}: ssh takes no such name of a known_hosts file")
    named = login.legacy()
    named.setdefault("KexAlgorithms", []).append(_KEX)
    settings = {
        **_SETTINGS,
        "UserKnownHostsFile": '"' + file.replace("%", "%%") + '"',
        "ConnectTimeout": str(max(1, round(login.login_limit_seconds))),
        **{option: f"+{','.join(names)}" for option, names in named.items()},
    }
    words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", "-tt", *words, "-p", str(login.port), "-l", login.user, "--", login.address]


class OpensshShell:
    """The shell of one `ssh`; a `RemoteShell`."""

    def __init__(self, login: XscfLogin) -> None:
        self._login = login
        self._mark = os.urandom(16).hex()
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = ""
        self._errors = b""
        self._asked = 0
        self._refused: XscfError | None = None
        self._open: set[int] = set()
        self._terminal = -1
        self._answer = -1

    async def begin(self) -> None:
        """Start ssh, and wait until the XSCF has let us in and prints something.

        The caller sets the time limit, and closes. Raises XscfError, CannotError.
        """
        words = command(self._login)
        _password(self._login)
        if not os.access(ASKPASS, os.X_OK):
            raise XscfSetting(f"{ASKPASS} cannot be executed; type: chmod 755 {ASKPASS}")
        await self._start(words)
        self._first = await self._more()
        if not self._first:
            raise await self._why()

    def write(self, text: str) -> None:
        """Type. Raises OSError where the terminal takes no more."""
        line = text.encode()
        if os.write(self._terminal, line) != len(line):
            raise BlockingIOError("ssh takes no more")

    async def read(self) -> str:
        """What has arrived; empty at the end."""
        first, self._first = self._first, ""
        return first or await self._more()

    async def close(self, left: bool) -> None:
        """End ssh and reap it: at once, or after a moment where the shell was told to log out."""
        try:
            if left and self._process is not None:
                await self._ended(LEAVE_LIMIT_SECONDS)
        finally:
            self._give_up()
            await self._ended(REAP_LIMIT_SECONDS)
            self._let_go()

    # -- below: the process ------------------------------------------------------------------

    async def _start(self, words: list[str]) -> None:
        answers = self._made_pipe()
        self._terminal, local = self._made_terminal()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "TERM": TERMINAL,
            "DISPLAY": "none",  # nothing is shown there: before OpenSSH 8.4 this is what calls the askpass
            "SSH_ASKPASS": str(ASKPASS),
            "SSH_ASKPASS_REQUIRE": "force",
            "STANDFAST_ANSWER": answers,
            "STANDFAST_MARK": self._mark,
        }
        try:
            self._process = await asyncio.create_subprocess_exec(
                *words,
                stdin=local,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except (FileNotFoundError, PermissionError):
            raise CannotError("there is no program ssh") from None
        except OSError as error:
            raise XscfUnreachable(f"ssh cannot be started: {error.strerror}") from None
        finally:
            os.close(local)
        self._watching = asyncio.create_task(self._watch())

    def _made_pipe(self) -> str:
        """The path of its end for the askpass. Raises CannotError."""
        source, self._answer = os.pipe()
        self._open |= {source, self._answer}
        path = f"/proc/{os.getpid()}/fd/{source}"
        try:
            if os.path.samestat(Path(path).stat(), os.fstat(source)):
                return path
        except OSError:
            pass
        raise CannotError("/proc does not show this process")  # none, or that of other process ids

    def _made_terminal(self) -> tuple[int, int]:
        """Our end, and that of ssh. Raises XscfUnreachable."""
        try:
            ours, local = os.openpty()
        except OSError as error:
            raise XscfUnreachable(f"no pseudo-terminal for ssh: {error.strerror}") from None
        self._open.add(ours)
        os.set_blocking(ours, False)
        termios.tcsetwinsize(local, (ROWS, COLUMNS))
        return ours, local

    async def _more(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(4096):
            if text := self._decoder.decode(chunk):
                return text
        return ""

    async def _watch(self) -> None:
        """Keep what ssh writes to standard error, and answer its questions."""
        assert self._process is not None
        assert self._process.stderr is not None
        mark = re.escape(self._mark.encode())
        asked = re.compile(mark + rb"<(.*?)>" + mark + rb"\n", re.DOTALL)
        while chunk := await self._process.stderr.read(4096):
            self._errors = (self._errors + chunk)[-ERRORS_LIMIT_BYTES:]
            while found := asked.search(self._errors):
                self._errors = self._errors[: found.start()] + self._errors[found.end() :]
                self._asked_for(found[1].decode("utf-8", "replace"))

    def _asked_for(self, question: str) -> None:
        self._asked += 1
        login = self._login
        if self._asked == 1 and asks_for_password(question, login):
            os.write(self._answer, _password(login))
            return
        refused = f"login as {login.user} refused"
        if self._asked == 1:
            refused += f": it asks {' '.join(question.split())[:100]!r} instead of the password"
        self._refused = self._refused or XscfLoginRefused(refused)
        self._give_up()

    async def _why(self) -> XscfError | CannotError:
        assert self._process is not None
        assert self._watching is not None
        await self._ended(REAP_LIMIT_SECONDS)
        await asyncio.wait({self._watching}, timeout=REAP_LIMIT_SECONDS)
        if self._refused is not None:
            return self._refused
        return reason(self._login, self._errors.decode("utf-8", "replace"), self._process.returncode)

    def _give_up(self) -> None:
        """Kill ssh. An askpass that waits for an answer ends after it, by the end of the pipe."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        self._terminal = self._answer = -1

    def _let_go(self) -> None:
        """Drop the pipes from ssh, also where a child of it still holds them."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]  # there is no public way

    async def _ended(self, limit_seconds: float) -> None:
        """Wait for the end of ssh, and reap it."""
        if self._process is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_seconds):
                await self._process.wait()


def _password(login: XscfLogin) -> bytes:
    """The line for the askpass. Raises XscfSetting for what is not one line."""
    line = login.password.encode("utf-8", "surrogateescape")
    if re.search(rb"[\r\n\0]", line) or len(line) > PASSWORD_LIMIT_BYTES:
        raise XscfSetting(f"the password must be one line of at most {PASSWORD_LIMIT_BYTES} bytes")
    return line + b"\n"


async def opened(login: XscfLogin) -> OpensshShell:
    """Connect, log in and begin a shell. The caller sets the time limit, and closes it.

    Raises XscfError, CannotError.
    """
    shell = OpensshShell(login)
    try:
        await shell.begin()
    except BaseException:
        await shell.close(left=False)
        raise
    return shell
