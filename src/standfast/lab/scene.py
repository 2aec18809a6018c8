"""A lab in which Standfast is installed and set up: figure 14.1 of the manual, or the same with more nodes.

Every step is what an operator does: the configuration file and the secrets on each node, standfastd on each
node, ``clsnmpsetup -a`` for each node on each node. Nothing here reaches around the commands.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standfast.cluster.run import Result
from standfast.core import names
from standfast.core.devices import AGENTS
from standfast.lab.cluster import Lab
from standfast.lab.emulators import worldfile
from standfast.lab.emulators.control import Control
from standfast.lab.errors import LabError
from standfast.lab.layout import Fencing

POLL_SECONDS = 0.1
READY_LIMIT_SECONDS = 240.0
COMMAND_LIMIT_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass
class Scene:
    """A lab with hosts, and Standfast on every node."""

    lab: Lab
    control: Control
    written: worldfile.Written

    @classmethod
    def up(
        cls,
        nodes: int = 2,
        *,
        lab_id: str | None = None,
        heartbeat_timeout_seconds: float = 10.0,
        fencing: Fencing = "none",
        timing: dict[str, float] | None = None,
        config: dict[str, object] | None = None,
        say: Say = lambda line: None,
    ) -> Scene:
        """Start a lab and set Standfast up in it. Raises LabError; then nothing is left of it."""
        lab = Lab.up(
            lab_id,
            nodes=nodes,
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
            fencing=fencing,
            hosts=True,
            say=say,
        )
        try:
            say("hosts and service processors")
            directory = lab.root / "hosts"
            written = worldfile.write(directory, nodes, lab=lab.id, timing=timing)
            socket = control_socket(lab.root)
            argv = [
                sys.executable, "-m", "standfast.lab.emulators", "--world", str(written.world),
                "--control", str(socket), "--log", str(directory / "commands.jsonl"),
            ]  # fmt: skip
            lab.add_outside_process(argv, directory / "emulators.log", hardware=True)
            scene = cls(lab, Control(socket, limit_seconds=30.0), written)
            scene._set_up(config or {}, say)
        except BaseException:
            lab.down()
            raise
        return scene

    def down(self) -> None:
        """Leave nothing."""
        self.control.close()
        self.lab.down()

    # -- set-up -------------------------------------------------------------------------------------------

    def _set_up(self, config: dict[str, object], say: Say) -> None:
        for node in self.lab.nodes:
            self.put(node, names.CONFIG_FILE, self.config_text(config))
            self.put(node, names.KNOWN_HOSTS_FILE, self.written.known_hosts.read_text())
            self.put(node, names.CONTROL_DOMAIN_KEY_FILE, self.written.client_key.read_text(), mode="600")
            self.start_daemon(node)
        say("clsnmpsetup -a for each node, on each node")
        for index in range(len(self.lab.nodes)):
            self.register(index)
        # As on a real cluster: fencing was configured before Standfast came.
        self.run(
            self.lab.nodes[0], "crm_attribute", "-t", "crm_config", "-n", "stonith-enabled", "-v", "true"
        )
        say("waiting until every agent has been tested from every node")
        self.wait_ready()

    def config_text(self, extra: dict[str, object]) -> str:
        """clovmmigrate.conf of this scene."""
        lines = ["format = 1"] + [f"{key} = {json.dumps(value)}" for key, value in extra.items()]
        for k in range(1, len(self.lab.nodes) + 2):
            spare = k > len(self.lab.nodes)
            lines += [
                "[[control_domain]]",
                f'name = "ctrl{k}"',
                f'address = "10.20.50.{70 + k}"',
                f"ppar_id = {1 if spare else 0}",
                f'xscf_lan0 = "10.20.30.{70 + k}"',
                f'xscf_lan1 = "10.20.40.{70 + k}"',
                f"weight = {2 if spare else 1}",
                f'login = "{self.written.control_user}"',
            ]
        return "\n".join(lines) + "\n"

    def register(self, index: int) -> None:
        """``clsnmpsetup -a`` for one node, on every node."""
        number = index + 1
        name = self.lab.nodes[index]
        argv = [
            "clsnmpsetup", "-a", name, "--domain", f"guest{number}", "--ppar-id", "0",
            "--lan0", f"10.20.30.{70 + number}", "--lan1", f"10.20.40.{70 + number}",
            "--user", self.written.xscf_user, "--connection", "ssh", "--password-file", "/run/xscf-password",
        ]  # fmt: skip
        for node in self.lab.nodes:
            self.put(node, "/run/xscf-password", self.written.xscf_password + "\n", mode="600")
            done = self.lab.exec(node, argv, limit_seconds=COMMAND_LIMIT_SECONDS)
            self.lab.exec(node, ["rm", "-f", "/run/xscf-password"])
            if done.returncode != 0:
                raise LabError(f"clsnmpsetup -a {name} on {node}: {done.stderr.strip()}")

    def put(self, node: str, path: str, text: str, mode: str = "644") -> None:
        """Write a file in a node."""
        script = 'umask 077; mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        done = self.lab.exec(node, ["/bin/sh", "-c", script, "put", path, mode], input=text)
        if done.returncode != 0:
            raise LabError(f"cannot write {path} in {node}: {done.stderr.strip()}")

    def start_daemon(self, node: str) -> None:
        """Start standfastd in a node."""
        script = "mkdir -p /var/log/standfast; exec standfastd 2>>/var/log/standfast/standfastd.log"
        self.lab.add_process(node, ["/bin/sh", "-c", script])

    # -- looking ------------------------------------------------------------------------------------------

    def run(self, node: str, *argv: str, limit_seconds: float = COMMAND_LIMIT_SECONDS) -> Result:
        """Run a command in a node."""
        return self.lab.exec(node, argv, limit_seconds=limit_seconds)

    def states(self, node: str) -> dict[str, Any]:
        """``sdtool -s --json`` on a node; empty while its daemon does not answer."""
        done = self.run(node, "sdtool", "-s", "--json", limit_seconds=10.0)
        if done.returncode != 0:
            return {}
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def ready(self, node: str) -> bool:
        """Every agent of every node has been tested here, and works."""
        rows = self.states(node).get("agents", [])
        return len(rows) == 4 * len(self.lab.nodes) and all(r["test_state"] == "TestWorked" for r in rows)

    def wait_ready(self, limit_seconds: float = READY_LIMIT_SECONDS) -> None:
        """Wait until the shutdown facility works on every node, and the cluster has come to rest."""
        self.wait(
            lambda: all(self.ready(node) for node in self.lab.nodes), limit_seconds, "every agent to work"
        )
        self.wait(self.settled, limit_seconds, "every gate and device to be started")

    def settled(self) -> bool:
        """Every gate, device and service runs somewhere, and the controller has nothing left to do."""
        status = self.lab.status()
        if status is None or status.dc is None:
            return False
        started = {r.name for r in status.resources if r.role == "Started" and not r.pending and not r.failed}
        wanted = {f"r-{node}" for node in self.lab.nodes}
        wanted |= {identifier for node in self.lab.nodes for identifier in _devices(node)}
        done = self.lab.exec(status.dc, ["crmadmin", "--status", status.dc], limit_seconds=5.0)
        return wanted <= started and status.idle("S_IDLE" if "S_IDLE" in done.stdout else None)

    def wait(self, condition: Callable[[], bool], limit_seconds: float, what: str) -> float:
        """Wait for a condition; returns how long it took. Raises LabError at the limit."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > limit_seconds:
                raise LabError(f"waited {limit_seconds:g} s for {what}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def on_all(self, argv: Sequence[str]) -> dict[str, Result]:
        """The same command on every node, one after the other."""
        return {
            node: self.lab.exec(node, argv, limit_seconds=COMMAND_LIMIT_SECONDS) for node in self.lab.nodes
        }

    def heartbeat(self, node: str) -> dict[str, str]:
        """Every totem and knet value in force on a node, by the engine's own tool."""
        done = self.run(node, "corosync-cmapctl", "-b", "runtime.config.totem", limit_seconds=10.0)
        pairs = (line.split(" = ") for line in done.stdout.splitlines() if " = " in line)
        return {pair[0].split(" ")[0]: pair[1] for pair in pairs}

    def file(self, node: str, path: str) -> str:
        """A file's text in a node."""
        return self.run(node, "cat", path).stdout

    def path(self, node: str, path: str) -> Path:
        """Where a node's file lies on this machine."""
        return self.lab.node(node).path(path)


def control_socket(root: Path) -> Path:
    """Where the emulated hosts of the lab in `root` are controlled."""
    return root / "hosts" / "control.sock"


def _devices(node: str) -> set[str]:
    """Ids of the gates and devices of one node."""
    return {name for agent in AGENTS for name in (agent.gate_id(node), agent.device_id(node))}
