"""What hosts say about guests, for the gate: through standfastd, or, without it, through ssh.

The gate has to answer with Standfast itself broken, so this needs no daemon and nothing but the system's
Python and OpenSSH. Silence is an answer too: every host of clovmmigrate.conf has exactly one in the result,
so that a host that was not asked is never taken for one that does not know the guest.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence

from standfast.commands.gate_children import Child, collect
from standfast.core import ldm
from standfast.core.evidence import GuestState, HostAnswer, silent
from standfast.core.hostlist import ControlDomain, HostList, HostListError, from_text
from standfast.core.jobs import NotUnderstood
from standfast.core.names import CONFIG_FILE, SOCKET_FILE, is_domain_name

TYPE_CHECKING = False  # not from typing: that costs 3 ms of each call
if TYPE_CHECKING:
    from typing import Any

DAEMON_LIMIT_SECONDS = 1.0
DAEMON_LIMIT_MS = 900
"""What the daemon is told: it has to answer before we stop listening."""
SSH_LIMIT_SECONDS = 1.0
SSH_FRESH_SECONDS = 1.0
"""Listings this young are used again in a hold's polling: hosts are not asked four times a second by ssh."""
QUESTION_LIMIT_SECONDS = 3.0
"""One question of the killing gate to one host."""
POWER_LIMIT_SECONDS = 4.0
"""One question to the service processor of a silent host."""
ORDER_LIMIT_SECONDS = 10.0
"""One order to one host: what it did is seen afterwards, so that a command that hangs is not waited for."""
LIST = "ldm list-domain -p"
MAX_ANSWER_BYTES = 1_000_000
MAX_CONFIG_BYTES = 1_000_000

Answers = dict[str, tuple[HostAnswer, ...]]
Said = Callable[[str], HostAnswer] | str
"""A host's listing as a function of the guest, or why there is none."""


class Hosts:
    """The control domains of clovmmigrate.conf. `note`: why they are not known; empty if all is well."""

    def __init__(self, root: str = "") -> None:
        """Read the file below `root`. Never raises."""
        self.note = ""
        self.rounds = 0
        """How often the hosts were really asked: a listing that is used again is no round of its own."""
        self._socket = root + SOCKET_FILE
        self._listed: dict[str, Said] = {}
        self._listed_for: tuple[str, ...] = ()
        self._listed_at: float | None = None
        self._identities: dict[tuple[str, str], str] = {}
        """Host and guest -> the UUID that this host told last."""
        self._list = HostList("", "", ())
        try:
            with open(root + CONFIG_FILE, "rb") as file:
                self._list = from_text(file.read(MAX_CONFIG_BYTES).decode())
        except (OSError, UnicodeDecodeError) as error:
            self.note = f"{CONFIG_FILE} cannot be read: {getattr(error, 'strerror', None) or error}"
        except HostListError as error:
            self.note = f"{CONFIG_FILE}: {error}"

    @property
    def all(self) -> tuple[ControlDomain, ...]:
        """The control domains; none where the file cannot be used."""
        return self._list.hosts

    def ask(self, guests: Sequence[str]) -> tuple[Answers, str]:
        """One answer of every host for each guest, and a note for the log. At most about 2 s."""
        wanted = [guest for guest in dict.fromkeys(guests) if is_domain_name(guest)]
        if not wanted:
            return {}, "the devices name no single guest: hosts are not asked"
        answers, why = self._by_daemon(wanted)
        if why:
            answers = self._by_ssh(wanted)
        else:
            self.rounds += 1
        return {guest: self._complete(guest, answers.get(guest, ())) for guest in wanted}, why

    def ask_one(self, name: str, guest: str) -> HostAnswer:
        """Ask this host now, by ssh, with a question of our own: no listing is used again."""
        host = self._named(name)
        if host is None or not is_domain_name(guest):
            return silent(name, guest, "no login there")
        child = self._asked(host, (guest,), QUESTION_LIMIT_SECONDS)
        collect([child])
        answer = _answer(name, guest, _listing(host, child))
        self._identities[name, guest] = answer.identity
        return answer

    def power(self, name: str) -> tuple[bool | None, str]:
        """Whether the whole machine of this silent host is off, by its service processor through standfastd;
        None: nobody could say. And what was said."""
        request = {"op": "power", "host": name, "limit_ms": int(POWER_LIMIT_SECONDS * 900)}
        try:
            answer = _exchange(self._socket, request, time.monotonic() + POWER_LIMIT_SECONDS)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return None, f"standfastd gave no answer that can be used ({error})"
        off = answer.get("off")
        return (off if isinstance(off, bool) else None), str(answer.get("said", ""))[:200]

    def order(self, name: str, guest: str, *, kill: bool) -> str:
        """Stop the guest on this host by force, or cancel its migration; empty, or one phrase of trouble."""
        host = self._named(name)
        if host is None or not is_domain_name(guest):
            return "no login there"
        if host.kind == "libvirt":
            from standfast.commands import gate_libvirt

            identity = self._identities.get((name, guest), "")
            line = gate_libvirt.order(host, guest, identity, ORDER_LIMIT_SECONDS, kill=kill)
            child = self._child(host, line, ORDER_LIMIT_SECONDS)
            collect([child])
            return gate_libvirt.trouble(child)
        command = f"ldm stop-domain -f {guest}" if kill else f"ldm cancel-operation migration {guest}"
        child = self._child(host, command, ORDER_LIMIT_SECONDS)
        collect([child])
        return child.error

    def _named(self, name: str) -> ControlDomain | None:
        fits = [host for host in self.all if host.name == name and host.obeys]
        return fits[0] if fits else None

    def _asked(self, host: ControlDomain, guests: Sequence[str], limit_seconds: float) -> Child:
        """The question for these guests, on its way."""
        if host.kind == "libvirt":
            from standfast.commands import gate_libvirt

            return self._child(host, gate_libvirt.question(host, guests, limit_seconds), limit_seconds)
        return self._child(host, LIST, limit_seconds)

    def _child(self, host: ControlDomain, command: str, limit_seconds: float) -> Child:
        if host.login:
            argv = ssh_argv(host, self._list.identity_file, self._list.known_hosts, command)
        else:
            # A client on this node, which reaches the host by itself. It takes the shell's place: what is
            # killed at the limit is the client.
            argv = ["/bin/sh", "-c", f"exec {command}"]
        return Child(argv, limit_seconds)

    def _complete(self, guest: str, answers: tuple[HostAnswer, ...]) -> tuple[HostAnswer, ...]:
        said = {answer.host for answer in answers}
        missing = [host for host in self.all if host.name not in said]
        return (
            *answers,
            *(silent(host.name, guest, "not asked" if host.obeys else "no login there") for host in missing),
        )

    def _by_daemon(self, guests: Sequence[str]) -> tuple[Answers, str]:
        deadline = time.monotonic() + DAEMON_LIMIT_SECONDS
        answers: Answers = {}
        for guest in guests:
            try:
                answers[guest] = _question(self._socket, guest, deadline)
            except (FileNotFoundError, ConnectionRefusedError):
                return {}, "standfastd is not running"
            except TimeoutError:
                return {}, f"standfastd did not answer within {DAEMON_LIMIT_SECONDS:g} s"
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                return {}, f"standfastd gave no answer that can be used ({error})"
        return answers, ""

    def _by_ssh(self, guests: Sequence[str]) -> Answers:
        now = time.monotonic()
        fresh = self._listed_at is not None and now - self._listed_at < SSH_FRESH_SECONDS
        if not fresh or not set(guests) <= set(self._listed_for):
            self.rounds += 1
            self._listed = self._listings(guests)
            self._listed_for = tuple(guests)
            self._listed_at = time.monotonic()
        found = self._listed.items()
        return {guest: tuple(_answer(host, guest, said) for host, said in found) for guest in guests}

    def _listings(self, guests: Sequence[str]) -> dict[str, Said]:
        """Each host's whole listing, or why there is none; all hosts at once."""
        # Without a login only standfastd can ask a control domain, through the XSCF; manual hosts nobody.
        hosts = [host for host in self.all if host.obeys]
        asked = [self._asked(host, guests, SSH_LIMIT_SECONDS) for host in hosts]
        collect(asked)
        return {host.name: _listing(host, child) for host, child in zip(hosts, asked, strict=True)}


def ssh_argv(host: ControlDomain, identity_file: str, known_hosts: str, command: str = LIST) -> list[str]:
    """OpenSSH: nobody's settings but these, no password, no unknown host key, one command."""
    options = (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known_hosts}",
        "GlobalKnownHostsFile=none",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "ConnectTimeout=1",
        "ConnectionAttempts=1",
        "LogLevel=ERROR",
    )
    words = [word for option in options for word in ("-o", option)]
    login = ["-i", identity_file, "-l", host.login]
    return ["ssh", "-F", "none", "-n", "-T", *words, *login, host.address, command]


def _listing(host: ControlDomain, child: Child) -> Said:
    if host.kind == "libvirt":
        from standfast.commands import gate_libvirt

        return gate_libvirt.listing(host.name, child)
    if child.error:
        return f"ssh: {child.error}"
    try:
        domains = ldm.parse_domains(child.output)
    except NotUnderstood as error:
        return str(error)
    return lambda guest: ldm.answer_for(host.name, guest, domains)


def _answer(host: str, guest: str, said: Said) -> HostAnswer:
    return silent(host, guest, said) if isinstance(said, str) else said(guest)


def _question(path: str, guest: str, deadline: float) -> tuple[HostAnswer, ...]:
    """Ask standfastd. Raises OSError, TimeoutError, or what an answer of another shape leads to."""
    answer = _exchange(path, {"op": "evidence", "guest": guest, "limit_ms": DAEMON_LIMIT_MS}, deadline)
    return tuple(
        HostAnswer(
            str(item["host"]),
            guest,
            _state(item["state"]),
            str(item.get("detail", "")),
            str(item.get("identity", "")),
            item.get("job") is True,
        )
        for item in answer["answers"]
    )


def _exchange(path: str, request: dict[str, object], deadline: float) -> dict[str, Any]:
    """One question to standfastd. Raises OSError, ValueError, or what an answer of another shape leads to."""
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_until(deadline))
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            connection.settimeout(_until(deadline))
            chunk = connection.recv(65536)
            received += chunk
            if not chunk or len(received) > MAX_ANSWER_BYTES:
                raise ValueError("cut short")
    answer = json.loads(received)
    if answer["ok"] is not True:
        raise ValueError(str(answer.get("error", "refused"))[:200])
    return dict(answer)


def _until(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _state(word: object) -> GuestState:
    try:
        return GuestState(word)
    except ValueError:
        return GuestState.UNKNOWN
