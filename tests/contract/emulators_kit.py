"""Starts an emulator process on loopback and drives OpenSSH and fence_ldom against it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standfast.lab.emulators.control import Control
from standfast.lab.emulators.worldfile import Written, write

FAST = {
    "panicking_seconds": 0.3,
    "rebooting_seconds": 0.2,
    "openboot_seconds": 0.1,
    "booting_seconds": 0.3,
    "halting_seconds": 0.2,
    "power_on_seconds": 0.2,
    "migration_seconds": 1.0,
    "blackout_seconds": 0.3,
    "scrub_seconds": 0.6,
}


@dataclass(frozen=True)
class Site:
    """A running emulator process and what a client of it needs."""

    control: Control
    written: Written
    directory: Path
    known_hosts: Path

    def ssh(
        self,
        host: str,
        endpoint: str,
        *command: str,
        typed: str | None = None,
        pty: bool = False,
        user: str | None = None,
        password: str | None = None,
        limit_seconds: float = 10.0,
        options: tuple[str, ...] = (),
        connect_seconds: int = 3,
    ) -> subprocess.CompletedProcess[str]:
        """OpenSSH; with the client key on a control domain, with a password where one is given."""
        address, port = self.control.endpoint(host, endpoint)
        is_ldm = endpoint == "ldm"
        secret = password if password is not None else (None if is_ldm else self.written.xscf_password)
        wanted = [
            *options,
            f"UserKnownHostsFile={self.known_hosts}",
            "StrictHostKeyChecking=yes",
            "LogLevel=ERROR",
            f"ConnectTimeout={connect_seconds}",
        ]
        if secret is None:
            wanted += [f"IdentityFile={self.written.client_key}", "IdentitiesOnly=yes", "BatchMode=yes"]
        else:
            wanted += ["PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"]
        argv = ["ssh", "-F", "none", "-p", str(port), "-tt" if pty else "-T"]
        argv += [part for option in wanted for part in ("-o", option)]
        argv += [f"{user or ('standfast' if is_ldm else 'xuser')}@{address}", *command]
        return subprocess.run(
            argv,
            input=typed or "",
            env={**os.environ, **self._askpass(secret)},
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            start_new_session=True,
            check=False,
        )

    def _askpass(self, secret: str | None) -> dict[str, str]:
        if secret is None:
            return {}
        script = self.directory / "askpass"
        script.write_text('#!/bin/sh\nprintf "%s\\n" "$LAB_PASSWORD"\n')
        script.chmod(0o700)
        return {"SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force", "LAB_PASSWORD": secret}

    def xscf(self, host: str, *lines: str, lan: str = "lan0", **options: object) -> str:
        """What an XSCF session on a terminal prints for these lines (each ended by `exit`)."""
        typed = "".join(f"{line}\n" for line in (*lines, "exit"))
        done = self.ssh(host, lan, typed=typed, pty=True, **options)  # type: ignore[arg-type]
        return done.stdout.replace("\r\n", "\n")

    def ldm(self, host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.ssh(host, "ldm", "ldm", *arguments)


@contextlib.contextmanager
def running_site(
    directory: Path, nodes: int = 2, edit: Callable[[dict[str, Any]], None] | None = None
) -> Iterator[Site]:
    """A site of figure 14.1 on free ports, with short durations; `edit` may change the world file."""
    written = write(directory, nodes, loopback=True, timing=FAST)
    if edit is not None:
        world = json.loads(written.world.read_text())
        edit(world)
        written.world.write_text(json.dumps(world))
    path = directory / "control.sock"
    argv = [sys.executable, "-m", "standfast.lab.emulators", "--world", str(written.world)]
    process = subprocess.Popen([*argv, "--control", str(path)], stdout=subprocess.DEVNULL)
    try:
        with Control(path, limit_seconds=30.0) as control:
            known_hosts = directory / "known_hosts"
            known_hosts.write_text(control.known_hosts())
            yield Site(control, written, directory, known_hosts)
            control.shutdown()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)
