"""The engine's tools, as the gate starts them: at once, before anything heavy is imported."""

# pathlib costs 4 ms of each call.
# ruff: noqa: PTH103, PTH105, PTH108, PTH120

from __future__ import annotations

import os
import time

from standfast.commands.gate_children import Child, collect
from standfast.core.names import RUN_DIR

TOOL_LIMIT_SECONDS = 3.5
MONITOR_TOOL_LIMIT_SECONDS = 15.0
"""A monitor decides nothing, so nothing waits for it; but a gate whose first one fails is not started, and
stays so until somebody cleans up (seen on a loaded emulated node, where 3.5 s were not enough)."""
NAME_LIMIT_SECONDS = 1.5
NAME_FILE = RUN_DIR + "/node-name"


class Tools:
    """The three questions to this node's own daemons. Making it asks for the first time."""

    def __init__(self, root: str, last_look: float, limit_seconds: float = TOOL_LIMIT_SECONDS) -> None:
        """Start the tools. None of them runs beyond `last_look` (time.monotonic), or for longer than that."""
        self.node = own_node(root)
        self._name_file = root + NAME_FILE
        self._last_look = last_look
        self._limit_seconds = limit_seconds
        self.began = 0.0
        """When the running questions were asked (time.monotonic)."""
        self.start()

    def start(self) -> None:
        """Ask anew."""
        self.began = time.monotonic()
        limit = max(0.0, min(self._limit_seconds, self._last_look - self.began))
        self._cib = Child(["cibadmin", "-Q", "-l"], limit)
        self._state = Child(["crmadmin", "-S", self.node], limit)
        self._members = Child(["crm_node", "-p"], limit)

    def wait(self) -> tuple[Child, Child, Child]:
        """The answers: of the controller, of the CIB, of the membership."""
        answers = (self._state, self._cib, self._members)
        collect(list(answers))
        return answers

    def forget_name(self) -> None:
        """This node's name is not in the CIB: ask for it in the next call."""
        try:
            os.unlink(self._name_file)
        except OSError:
            return


def own_node(root: str) -> str:
    """This node's name in the cluster, kept for this boot; the host name where nobody tells it."""
    path = root + NAME_FILE
    try:
        with open(path, encoding="utf-8") as file:
            if name := file.read(256).strip():
                return name
    except (OSError, ValueError):
        pass
    child = Child(["crm_node", "-n"], NAME_LIMIT_SECONDS)
    collect([child])
    name = child.output.strip()
    if child.error or not name or not name.isprintable():
        return os.uname().nodename
    _keep(path, name)
    return name


def _keep(path: str, name: str) -> None:
    new = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(new, "w", encoding="utf-8") as file:
            file.write(name + "\n")
        os.replace(new, path)
    except OSError:
        return  # only a matter of 8 ms
