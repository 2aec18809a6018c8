"""A node without a cluster: fake engine tools on a PATH, a fake daemon, and the built gate to be called."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast.core import device_objects, record
from standfast.core.record import Phase, Record
from standfast.sightings import RING_DIR, Sightings, boottime_seconds

CONF = """format = 1
[[control_domain]]
name = "ctrl1"
address = "10.20.50.71"
ppar_id = 0
xscf_lan0 = "10.20.30.71"
xscf_lan1 = "10.20.40.71"
login = "standfast"
[[control_domain]]
name = "ctrl2"
address = "10.20.50.72"
ppar_id = 0
xscf_lan0 = "10.20.30.72"
xscf_lan1 = "10.20.40.72"
login = "standfast"
[[control_domain]]
name = "ctrl3"
address = "10.20.50.73"
ppar_id = 1
xscf_lan0 = "10.20.30.73"
xscf_lan1 = "10.20.40.73"
login = "standfast"
"""
IDLE = Record.fresh()
WINDOW = replace(IDLE, epoch=4, phase=Phase.OPEN, window=3, lease_seconds=30)
HOME = {"ctrl1": "absent", "ctrl2": "running", "ctrl3": "absent"}
LISTED = "VERSION 1.19\nDOMAIN|name=primary|state=active|flags=-n-cv-|cons=UART\n"


@dataclass(frozen=True)
class Called:
    """One call of the gate."""

    code: int
    seconds: float
    said: str
    log: str

    @property
    def rule(self) -> str:
        """The rule in the log's last line."""
        return self.log.partition("rule=")[2].partition(" ")[0]


class World:
    """The node cfguest1, which is asked to fence cfguest2 (guest2, on ctrl2)."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder, self.program = folder, program
        self.root = folder / "root"
        self.bin = folder / "bin"
        for path in (self.bin, self.root / "etc/standfast", self.root / "run/standfast"):
            path.mkdir(parents=True)
        self.conf(CONF)
        self.cib(IDLE)
        self.controller("S_IDLE")
        self.members("cfguest1")
        self.tool("cibadmin", f"cat {folder}/cib")
        self.tool("crmadmin", f'test "$2" = cfguest1 && cat {folder}/state')
        self.tool("crm_node", f'case "$1" in -n) echo cfguest1;; -p) cat {folder}/members;; esac')
        self.hosts_by_ssh({})

    def tool(self, name: str, script: str) -> None:
        """A program on the PATH that notes its calls and runs `script`."""
        new = self.bin / f".{name}"
        new.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.folder}/calls\n{script}\n')
        new.chmod(0o755)
        new.replace(self.bin / name)

    def _put(self, name: str, text: str) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.replace(self.folder / name)

    def conf(self, text: str | None) -> None:
        path = self.root / "etc/standfast/clovmmigrate.conf"
        path.write_text(text) if text is not None else path.unlink()

    def controller(self, state: str) -> None:
        self._put("state", f"Controller on cfguest1 in state {state}: ok\n")

    def members(self, *names: str) -> None:
        self._put("members", " ".join(names) + " \n")

    def cib(self, found: Record | None, levels: Mapping[str, str] | None = None, text: str = "") -> None:
        """The local CIB copy; `levels`: other devices for a level's id, or other whole `text`."""
        self._put("cib", text or cib(found, levels or {}))

    def seen(self, found: Record, seconds_ago: float) -> None:
        """This node first saw this record so long ago."""
        path = str(self.root / "run/standfast/sightings.json")
        Sightings(path, clock=lambda: boottime_seconds() - seconds_ago).see(found)

    def rings(self, before: int, now: int) -> None:
        """Both nodes were in the ring `before` a minute ago; corosync has written down that it is `now`."""
        path = str(self.root / "run/standfast/sightings.json")
        Sightings(path, clock=lambda: boottime_seconds() - 60.0).met(before, ("cfguest1", "cfguest2"))
        folder = self.root / RING_DIR.lstrip("/")
        folder.mkdir(parents=True)
        (folder / "ringid_1").write_bytes(now.to_bytes(8, sys.byteorder))

    def forget_fencings(self) -> None:
        """As if this node's gate had not said yes for long; what it saw of the record stays."""
        path = self.root / "run/standfast/sightings.json"
        if path.exists():
            found = json.loads(path.read_text())
            found["seen"] = {name: at for name, at in found["seen"].items() if not name.startswith("allowed")}
            path.write_text(json.dumps(found))

    def hosts_by_ssh(self, guests: Mapping[str, str]) -> None:
        """Control domain address -> row of `ldm list-domain -p` for guest2; others list no guest."""
        cases = "".join(f"*@{address}) echo '{row}';;" for address, row in guests.items())
        find = 'for word in "$@"; do case "$word" in 10.*) host=$word;; esac; done'
        self.tool("ssh", f"{find}\nprintf '{LISTED!s}'\ncase \"@$host\" in {cases} esac")

    def calls(self, tool: str) -> list[str]:
        """The calls of one tool so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(f"{tool} ")]

    @contextlib.contextmanager
    def daemon(
        self, hosts: Mapping[str, str] | None = None, raw: bytes | None = None, silent: bool = False
    ) -> Iterator[list[dict[str, object]]]:
        """A standfastd that answers with host -> state, with `raw`, or not at all; yields its requests. The
        states are those of guest2; guest1, that of the node itself, runs at home."""
        requests: list[dict[str, object]] = []

        def answer(guest: object) -> bytes:
            states = {name: "running" if name == "ctrl1" else "absent" for name in hosts or {}}
            states = states if guest == "guest1" else dict(hosts or {})
            said = [{"host": name, "state": state, "detail": ""} for name, state in states.items()]
            return raw if raw is not None else json.dumps({"ok": True, "answers": said}).encode() + b"\n"

        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as kept:
            listener.bind(str(self.root / "run/standfast/standfastd.sock"))
            listener.listen(16)

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    kept.enter_context(connection)
                    requests.append(json.loads(connection.makefile("rb").readline()))
                    if not silent:
                        connection.sendall(answer(requests[-1].get("guest")))
                        connection.close()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                yield requests
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(5)
                (self.root / "run/standfast/standfastd.sock").unlink(missing_ok=True)

    def start(self, *words: str, stdin: object = subprocess.PIPE) -> subprocess.Popen[str]:
        """The gate as the fencer starts it, with the test's root."""
        argv = ["/usr/bin/python3", "-I", "-S", str(self.program), "--root", str(self.root), *words]
        return subprocess.Popen(
            argv,
            stdin=stdin,  # type: ignore[arg-type]
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def gate(self, action: str = "off", target: str = "cfguest2", more: Sequence[str] = ()) -> Called:
        """One call through the standard input, waited for."""
        began = time.monotonic()
        process = self.start()
        lines = [f"action={action}", *([f"nodename={target}"] if target else []), *more]
        _, said = process.communicate("\n".join(lines) + "\n", timeout=30)
        seconds = time.monotonic() - began
        log = self.root / "var/log/standfast/gate.log"
        last = log.read_text().splitlines()[-1] if log.exists() else ""
        return Called(process.returncode, seconds, said, last)


def cib(found: Record | None, levels: Mapping[str, str]) -> str:
    """A CIB with two registered nodes."""
    root = ET.fromstring(
        '<cib epoch="1" have-quorum="1"><configuration><crm_config/><nodes><node id="1" uname="cfguest1"/>'
        '<node id="2" uname="cfguest2"/></nodes><resources/><constraints/><fencing-topology/>'
        "</configuration><status/></cib>"
    )
    if found is not None:
        record.write(root, found)
    resources, topology = (
        root.find("./configuration/resources"),
        root.find("./configuration/fencing-topology"),
    )
    assert resources is not None
    assert topology is not None
    for number in (1, 2):
        node = device_objects.XscfNode(
            f"cfguest{number}",
            f"guest{number}",
            0,
            f"10.20.30.7{number}",
            f"10.20.40.7{number}",
            "xuser",
            "ssh",
        )
        for agent in device_objects.AGENTS:
            resources.append(device_objects.gate(node, agent))
            resources.append(device_objects.device(node, agent))
            topology.append(device_objects.level_of(node.node, agent))
    for level in topology:
        level.set("devices", levels.get(level.get("id", ""), level.get("devices", "")))
    return ET.tostring(root, "unicode")
