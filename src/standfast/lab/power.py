"""The lab's power controller: a small process outside all nodes that kills and starts them for `fence_lab`.

One JSON line in (`action`, `node`, `caller`), one word out. Every call but status and monitor is logged.
"""

import json
import os
import socketserver
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from standfast.lab.errors import LabError
from standfast.lab.layout import Spec, shared_dir
from standfast.lab.node import Node
from standfast.lab.process import detach, joining

_START_LIMIT_SECONDS = 15.0
_REQUEST_LIMIT_SECONDS = 10.0
CYCLE_FLAG = "reboot-cycles"


@dataclass(frozen=True)
class PowerCall:
    """One call to the power controller. Times are CLOCK_MONOTONIC of this machine, in seconds."""

    begun: float
    ended: float
    caller: str
    action: str
    node: str
    answer: str


def start(root: Path, spec: Spec) -> None:
    """Start the controller and return once it listens."""
    argv = [sys.executable, "-m", "standfast.lab.power", str(root)]
    detach(joining(spec.outside_group().procs_file, argv), root / "power-controller.out")
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while not (shared_dir(root) / "power.sock").exists():
        if time.monotonic() > deadline:
            raise LabError(f"the lab's power controller does not start, see {root}/power-controller.out")
        time.sleep(0.01)


def calls(root: Path) -> list[PowerCall]:
    """All logged calls, oldest first."""
    try:
        lines = (root / "power.log").read_text().splitlines()
    except OSError:
        return []
    return [PowerCall(**json.loads(line)) for line in lines]


def answer(root: Path, spec: Spec, action: str, name: str) -> str:
    """Carry out one request. `reboot` leaves the node off unless the lab says that reboots cycle."""
    if action == "list":
        return " ".join(spec.nodes)
    if action == "monitor":
        return "ok"
    if name not in spec.nodes:
        return f"unknown node {name!r}"
    node = Node(root, spec, name)
    if action == "status":
        return "off" if node.init_pid() is None else "on"
    if action in ("off", "reboot"):
        node.power_off()
    if action == "on" or (action == "reboot" and (root / CYCLE_FLAG).exists()):
        node.power_on()
    return "ok" if action in ("on", "off", "reboot") else f"unknown action {action!r}"


def _append(root: Path, call: PowerCall) -> None:
    fd = os.open(root / "power.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, (json.dumps(asdict(call)) + "\n").encode())
    os.close(fd)


def serve(root: Path) -> None:
    """Answer requests until killed."""
    spec = Spec.read(root)

    class Handler(socketserver.StreamRequestHandler):
        timeout = _REQUEST_LIMIT_SECONDS

        def handle(self) -> None:
            begun = time.monotonic()
            request = json.loads(self.rfile.readline(4096))
            action, name = str(request["action"]), str(request["node"])
            try:
                said = answer(root, spec, action, name)
            except (LabError, OSError) as error:
                said = f"failed: {error}"
            if action in ("off", "on", "reboot"):
                _append(root, PowerCall(begun, time.monotonic(), request["caller"], action, name, said))
            self.wfile.write((said + "\n").encode())

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    listening = shared_dir(root) / "power.sock"
    with Server(str(listening) + ".new", Handler) as server:
        Path(str(listening) + ".new").rename(listening)
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
