"""corosync and pacemaker in a running node: stop, kill and start again."""

import time

from standfast.lab.errors import LabError
from standfast.lab.node import Node

_LIMIT_SECONDS = 60.0
_CALL_LIMIT_SECONDS = 10.0
_POLL_SECONDS = 0.05


def start(node: Node) -> None:
    """Start both; returns once pacemakerd has been started behind a corosync that answers."""
    node.add_process(["corosync", "-f"])
    _wait(node, ["corosync-cfgtool", "-s"], "corosync to answer", wanted=0)
    node.add_process(["pacemakerd", "-f"])


def stop(node: Node) -> None:
    """Stop both cleanly, pacemaker first; its services are moved or stopped before it ends."""
    for program in ("pacemakerd", "corosync"):
        node.execute(["pkill", "-TERM", "-x", program], _CALL_LIMIT_SECONDS, None)
        _wait(node, ["pgrep", "-x", program], f"{program} to end", wanted=1)


def kill(node: Node) -> None:
    """SIGKILL corosync and every pacemaker daemon at once."""
    node.execute(["pkill", "-KILL", "^(corosync|pacemaker)"], _CALL_LIMIT_SECONDS, None)
    _wait(node, ["pgrep", "^(corosync|pacemaker)"], "the engine to end", wanted=1)


def _wait(node: Node, argv: list[str], what: str, *, wanted: int) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while node.execute(argv, _CALL_LIMIT_SECONDS, None).returncode != wanted:
        if time.monotonic() > deadline:
            raise LabError(f"node {node.name}: waited {_LIMIT_SECONDS:g} s for {what}")
        time.sleep(_POLL_SECONDS)
