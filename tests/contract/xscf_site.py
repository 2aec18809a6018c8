"""A site of emulated hosts in a network of its own, and fence_xscf called in there."""

import ctypes
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from standfast.commands import fence_xscf
from standfast.lab.emulators import worldfile
from standfast.lab.emulators.control import Control

# Each state outlasts a look of the client (0.25 s); one after the other is about a second.
QUICK = {
    "panicking_seconds": 0.3,
    "rebooting_seconds": 0.3,
    "openboot_seconds": 0.1,
    "booting_seconds": 0.1,
    "halting_seconds": 0.2,
    "migration_seconds": 0.6,
    "blackout_seconds": 0.2,
    "scrub_seconds": 0.2,
}
# The hosts' addresses (figure 14.1), on the loopback interface of a network namespace.
PREPARE = 'ip link set lo up && for a in $ADDRESSES; do ip addr add $a/32 dev lo || exit 1; done && exec "$@"'


@dataclass(frozen=True)
class Called:
    """One call of fence_xscf."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Site:
    """Running emulators and what a client needs."""

    folder: Path
    control: Control
    written: worldfile.Written
    process_id: int
    threads: ThreadPoolExecutor

    @property
    def known_hosts(self) -> Path:
        return self.written.known_hosts

    @property
    def conf(self) -> Path:
        return self.folder / "clovmmigrate.conf"

    @property
    def inside(self) -> list[str]:
        """Words before a command that run it in the hosts' network."""
        return ["nsenter", f"--net=/proc/{self.process_id}/ns/net", "--"]

    def write_client_files(self) -> None:
        """The password file, and clovmmigrate.conf of these hosts."""
        secret = self.folder / "xscf-password"
        secret.touch(mode=0o600)
        secret.write_text(self.written.xscf_password + "\n", encoding="ascii")
        blocks = [
            "format = 1",
            "budget_seconds = 600",
            "lease_minutes = 240",
            f'identity_file = "{self.written.client_key}"',
            f'known_hosts = "{self.known_hosts}"',
        ]
        for name, host in self.control.state()["hosts"].items():
            addresses = {end: self.control.endpoint(name, end)[0] for end in ("ldm", "lan0", "lan1")}
            blocks.append(
                f'[[control_domain]]\nname = "{name}"\naddress = "{addresses["ldm"]}"\nkind = "ldm"\n'
                f'ppar_id = {host["ppar_id"]}\nxscf_lan0 = "{addresses["lan0"]}"\n'
                f'xscf_lan1 = "{addresses["lan1"]}"\nweight = 1\nlogin = "{self.written.control_user}"'
            )
        self.conf.write_text("\n".join(blocks) + "\n", encoding="ascii")

    def options(self, host: str, domain: str, **other: object) -> dict[str, str]:
        """The options of a device for a domain behind a host's LAN#0."""
        address, port = self.control.endpoint(host, str(other.pop("lan", "lan0")))
        options: dict[str, object] = {
            "ip": address,
            "ipport": port,
            "username": self.written.xscf_user,
            "password": self.written.xscf_password,
            "ppar_id": self.control.state()["hosts"][host]["ppar_id"],
            "domain": domain,
            "known_hosts": self.known_hosts,
            "conf": "/nonexistent/clovmmigrate.conf",
            "dialect": "/nonexistent/dialect.toml",
            "login_timeout": 4,
            "shell_timeout": 3,
            "power_timeout": 4,
            **other,
        }
        return {key: str(value) for key, value in options.items() if value is not None}

    def start(self, action: str, host: str, domain: str = "", **other: object) -> "subprocess.Popen[str]":
        """Begin a call with its options on standard input."""
        lines = {**self.options(host, domain, **other), "action": action}
        process = subprocess.Popen(
            [*self.inside, sys.executable, "-m", "standfast.commands.fence_xscf"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write("".join(f"{key}={value}\n" for key, value in lines.items()))
        process.stdin.close()
        process.stdin = None
        return process

    def call(self, action: str, host: str, domain: str = "", **other: object) -> Called:
        """Call and wait for the end: main() itself, in a thread that is in the hosts' network.

        A process of its own (`start`) gives the same and costs a third of a second more.
        """
        lines = {**self.options(host, domain, **other), "action": action}
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        return self.threads.submit(_call_here, text).result(timeout=40)

    def killed(self, host: str, domain: str, mark: int) -> list[str]:
        """Domains that orders for this one really reached since a mark of the log."""
        acted = self.control.log(mark, event="acted", host=host, asked=domain)
        return [str(entry["hit"]) for entry in acted if entry.get("hit")]

    def orders(self, mark: int) -> list[str]:
        """Every `reset` that was typed anywhere since a mark."""
        entries = self.control.log(mark, event="command")
        return [str(entry["line"]) for entry in entries if str(entry["line"]).startswith("reset")]

    def rest(self) -> None:
        """No faults, and every guest running."""
        self.control.clear()
        self.control.wait(_quiet, 20.0)


def _enter_network(process_id: int) -> None:
    """Move this thread, and it alone, into the network namespace of a process (setns(2))."""
    with open(f"/proc/{process_id}/ns/net", "rb") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _call_here(text: str) -> Called:
    out, err = StringIO(), StringIO()
    stdin, sys.stdin = sys.stdin, StringIO(text)
    began = time.monotonic()
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            code = fence_xscf.main([])
    finally:
        sys.stdin = stdin
    return Called(code, out.getvalue(), err.getvalue(), time.monotonic() - began)


def _quiet(state: dict[str, object]) -> bool:
    hosts = state["hosts"]
    assert isinstance(hosts, dict)
    views = [status for host in hosts.values() for status in host["xscf"].values()]
    return all(status in ("Solaris running", "Unknown", "Host stopped") for status in views)


def finished(process: "subprocess.Popen[str]", began: float) -> Called:
    """The result of a call that was begun."""
    out, err = process.communicate(timeout=40)
    return Called(process.returncode, out, err, time.monotonic() - began)


@contextmanager
def running_site(folder: Path, kex: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Emulators for figure 14.1, with the real addresses and ports, in a network of their own.

    `kex`: the one key exchange that the XSCF of a host offers.
    """
    written = worldfile.write(folder, nodes=2, timing=dict(QUICK))
    world = json.loads(written.world.read_text(encoding="utf-8"))
    for host in world["hosts"]:
        host["kex"] = [kex[host["name"]]] if kex and host["name"] in kex else []
    written.world.write_text(json.dumps(world), encoding="utf-8")
    keys = ("address", "xscf_lan0", "xscf_lan1")
    addresses = " ".join(host[key] for host in world["hosts"] for key in keys)
    socket = folder / "control.sock"
    emulators = [sys.executable, "-m", "standfast.lab.emulators", "--world", str(written.world)]
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", PREPARE, "sh", *emulators, "--control", str(socket)],
        env={**os.environ, "ADDRESSES": addresses},
        stdout=subprocess.DEVNULL,
    )
    try:
        with (
            Control(socket, limit_seconds=30.0) as control,
            ThreadPoolExecutor(1, initializer=_enter_network, initargs=(process.pid,)) as threads,
        ):
            site = Site(folder, control, written, process.pid, threads)
            site.write_client_files()
            yield site
    finally:
        process.terminate()
        process.wait(timeout=10)
