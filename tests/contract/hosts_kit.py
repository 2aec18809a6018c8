"""Hosts of every kind to be asked: an emulated site of control domains, a real libvirt, and nobody.

libvirt is the machine's own libvirtd, run as nobody in a network namespace of its own, with libvirt's
built-in test driver: real virsh, real protocol, real state and events, no guests. It has no migrations.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import asyncssh

from standfast.hosts.base import Host, MigrationTarget
from standfast.hosts.ldm import ControlDomainLogin, LdmHost
from standfast.hosts.libvirt import LibvirtAccess, LibvirtHost
from standfast.hosts.manual import ManualHost
from standfast.hosts.shell import SshLogin
from standfast.lab.emulators import worldfile
from standfast.lab.emulators.control import Control

QUICK = {"migration_seconds": 1.8, "blackout_seconds": 0.2, "scrub_seconds": 0.3, "halting_seconds": 0.2}
START_LIMIT_SECONDS = 20.0
NOBODY = 65534
VIRSH = "/usr/bin/virsh"
"""The real one, also where a test puts another one on its PATH."""
IDENTITIES = {
    "guest2": "22222222-2222-3333-4444-555555555555",
    "app72": "72222222-2222-3333-4444-555555555555",
    "passing": "82222222-2222-3333-4444-555555555555",
}


class Hosts:
    """The running emulators, and logins to their control domains."""

    def __init__(self, folder: Path, control: Control, written: worldfile.Written) -> None:
        self.control, self.written = control, written
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(control.known_hosts(), encoding="ascii")

    def login(self, name: str) -> ControlDomainLogin:
        address, port = self.control.endpoint(name, "ldm")
        return ControlDomainLogin(
            name=name,
            address=address,
            user=self.written.control_user,
            key_file=str(self.written.client_key),
            known_hosts_file=str(self.known_hosts),
            port=port,
            connect_limit_seconds=2.0,
        )

    def target(self, name: str) -> MigrationTarget:
        return MigrationTarget(
            self.control.endpoint(name, "ldm")[0], self.written.control_user, self.written.control_password
        )


@contextlib.contextmanager
def emulated(folder: Path, **timing: float) -> Iterator[Hosts]:
    """Emulated control domains ctrl1 to ctrl3; guest1 and guest2 on the first two."""
    folder.mkdir(exist_ok=True)
    written = worldfile.write(folder / "world", nodes=2, loopback=True, timing={**QUICK, **timing})
    control_socket = folder / "control.sock"
    command = [sys.executable, "-m", "standfast.lab.emulators", "--world", str(written.world)]
    process = subprocess.Popen([*command, "--control", str(control_socket)], stdout=subprocess.DEVNULL)
    try:
        with Control(control_socket, limit_seconds=30.0) as control:
            yield Hosts(folder, control, written)
    finally:
        process.terminate()
        process.wait(timeout=10)


class Site(Protocol):
    """A host that has guest2 running and app72 stopped, knows no guest1, and can be made to misbehave."""

    kind: str
    host: Host

    def target(self) -> MigrationTarget:
        """A host to migrate to."""

    def hang(self) -> None:
        """Commands do not come back."""

    def refuse(self) -> None:
        """The host's daemon is down: commands fail with its own words."""

    def heal(self) -> None:
        """All is well again."""

    def commands(self) -> int:
        """How many commands the host was given so far."""


class LdmSite:
    """ctrl2 of an emulated site, app72 stopped."""

    kind = "ldm"

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.host: Host = LdmHost(hosts.login("ctrl2"))
        hosts.control.call("stop", host="ctrl2", name="app72")

    def target(self) -> MigrationTarget:
        return self.hosts.target("ctrl3")

    def hang(self) -> None:
        self.hosts.control.inject("hang", "ctrl2", "ldm")

    def refuse(self) -> None:
        self.hosts.control.inject("ldmd_down", "ctrl2", "ldm")

    def heal(self) -> None:
        self.hosts.control.clear()

    def commands(self) -> int:
        return len(self.hosts.control.log(0, event="command", host="ctrl2"))


class LibvirtSite:
    """A real libvirt, asked on the host by ssh, or from here; `virsh` is a wrapper that can misbehave."""

    def __init__(self, daemon: Path, folder: Path, login: SshLogin | None) -> None:
        self.kind = "libvirt by ssh" if login else "libvirt from here"
        self.uri = f"test+unix:///default?socket={daemon}"
        self._mode, self._log = folder / "mode", folder / "calls"
        self._log.touch()
        self.program = folder / "virsh"
        self.program.write_text(_WRAPPER.format(folder=folder))
        self.program.chmod(0o755)
        self.access = LibvirtAccess("host2", self.uri, login, str(self.program))
        self.host: Host = LibvirtHost(self.access)
        self.reset()

    def virsh(self, *words: str, input: str = "") -> str:
        """The real virsh, behind the adapter's back."""
        done = subprocess.run(
            [VIRSH, "-q", "-c", self.uri, *words], input=input, capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reset(self) -> None:
        """guest2 runs, app72 is stopped, passing is transient and paused; nothing else is there."""
        self.heal()
        for name in self.virsh("list", "--name").split():
            self.virsh("destroy", name)
        for name in self.virsh("list", "--all", "--name").split():
            self.virsh("undefine", name)
        for name in ("guest2", "app72"):
            self.virsh("define", "/dev/stdin", input=xml(name))
        self.virsh("start", "guest2")
        self.virsh("create", "/dev/stdin", input=xml("passing"))
        self.virsh("suspend", "passing")

    def misbehave(self, mode: str) -> None:
        """hang, refuse, garbage, half, status, nothing: see the wrapper."""
        self._mode.write_text(f"{mode}\n")

    def target(self) -> MigrationTarget:
        return MigrationTarget("10.20.50.73", uri=self.uri)

    def hang(self) -> None:
        self.misbehave("hang")

    def refuse(self) -> None:
        self.misbehave("refuse")

    def heal(self) -> None:
        self.misbehave("well")

    def commands(self) -> int:
        return len(self.calls())

    def calls(self) -> list[str]:
        """Every call of virsh by the adapter, in order."""
        return [line for line in self._log.read_text().splitlines() if line.startswith("call ")]


class ManualSite:
    """A host that nobody asks; it cannot misbehave."""

    kind = "manual"

    def __init__(self) -> None:
        self.host: Host = ManualHost("host2")

    def target(self) -> MigrationTarget:
        return MigrationTarget("10.20.50.73")

    def hang(self) -> None: ...

    def refuse(self) -> None: ...

    def heal(self) -> None: ...

    def commands(self) -> int:
        return 0


_WRAPPER = """#!/bin/sh
echo "call $*" >> {folder}/calls
read -r mode < {folder}/mode
case "$mode" in
hang) while read -r mode < {folder}/mode && [ "$mode" = hang ]; do sleep 0.1; done; exit 1;;
refuse) exec virsh -c 'test+unix:///default?socket=/nonexistent' list;;
garbage) head -c 3000 /dev/urandom; exit 0;;
half) virsh "$@" | head -n 3; exit 0;;
status) virsh "$@"; exit 3;;
nothing) exit 0;;
*) exec virsh "$@";;
esac
"""


def xml(name: str, identity: str = "") -> str:
    """A guest of the test driver."""
    return (
        f"<domain type='test'><name>{name}</name><uuid>{identity or IDENTITIES[name]}</uuid>"
        "<memory unit='KiB'>4096</memory><os><type>hvm</type></os></domain>"
    )


@contextlib.contextmanager
def libvirtd(folder: Path) -> Iterator[Path]:
    """A libvirtd of its own; the path of its socket. An idle client keeps the test driver's state alive."""
    folder.mkdir()
    own = folder / "run"
    own.mkdir()
    conf = folder / "libvirtd.conf"
    conf.write_text('listen_tls = 0\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    for path in (folder, own):
        os.chown(path, NOBODY, NOBODY)
    _let_through(folder)
    words = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    argv = ["setpriv", *words, "unshare", "--user", "--net", "libvirtd", "--config", str(conf)]
    places = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **dict.fromkeys(places, str(own))}
    address = own / "libvirt/libvirt-sock"
    with contextlib.ExitStack() as running, (folder / "log").open("wb") as log:
        running.enter_context(_child(argv, environment, log.fileno()))
        _wait(address.exists, "libvirtd to listen")
        there = folder / "there"
        idle = f"echo '{there.name}\n'; event --all --loop"
        argv = ["stdbuf", "-oL", VIRSH, "-q", "-c", f"test+unix:///default?socket={address}", idle]
        with there.open("wb") as said:
            running.enter_context(_child(argv, dict(os.environ), said.fileno()))
        _wait(lambda: there.read_text() != "", "a client that stays")
        yield address


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[SshLogin]:
    """OpenSSH's sshd on loopback, with keys of its own; the login that it lets in (this user)."""
    folder.mkdir(exist_ok=True)
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(key.export_private_key("openssh"))
        (folder / f"{name}.pub").write_bytes(key.export_public_key("openssh"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    conf = folder / "sshd_config"
    conf.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={folder}\n"  # not what this machine's root has in its ~/.bashrc
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates privileges; /run is empty after a boot
    with (
        (folder / "sshd.log").open("wb") as log,
        _child(["/usr/sbin/sshd", "-D", "-e", "-f", str(conf)], dict(os.environ), log.fileno()),
    ):
        _wait(lambda: _listens(port), "sshd to listen")
        yield SshLogin("host2", "127.0.0.1", "root", str(folder / "client"), str(known), port, 2.0)


@contextlib.contextmanager
def _child(argv: list[str], environment: dict[str, str], log: int) -> Iterator[None]:
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _let_through(folder: Path) -> None:
    """pytest's own folders are closed to others; the daemon has to reach its own one below them."""
    for path in folder.parents:
        if path.stat().st_uid != os.geteuid() or path == Path("/tmp"):
            return
        path.chmod(path.stat().st_mode | 0o011)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {START_LIMIT_SECONDS:g} s for {what}"
        time.sleep(0.02)
