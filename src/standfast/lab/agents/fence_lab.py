#!/usr/bin/python3 -IS
"""Fence agent of a lab with plain fencing: asks the lab's power controller to kill a node.

The contract is that of ClusterLabs' FenceAgentAPI: options as name=value lines on stdin, exit 0 for success,
2 for a monitored plug that is off.
"""

import json
import os
import socket
import sys

SOCKET = "/run/lab/power.sock"
LIMIT_SECONDS = 20.0
META_DATA = """<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Power of a lab node">
<longdesc>Switches a node of a Standfast lab off and on.</longdesc>
<vendor-url>https://www.clusterlabs.org</vendor-url>
<parameters>
<parameter name="action" unique="0" required="1"><getopt mixed="-o, --action=[action]"/>
<content type="string" default="off"/><shortdesc lang="en">Fencing action</shortdesc></parameter>
<parameter name="port" unique="0" required="0"><getopt mixed="-n, --plug=[id]"/>
<content type="string"/><shortdesc lang="en">Node</shortdesc></parameter>
</parameters>
<actions>
<action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/>
<action name="monitor"/><action name="list"/><action name="metadata"/>
</actions>
</resource-agent>
"""


def options() -> dict[str, str]:
    """The options, from stdin, or from the command line for use by hand."""
    lines = [word.lstrip("-") for word in sys.argv[1:]] or sys.stdin.read().splitlines()
    pairs = [line.strip().partition("=") for line in lines if "=" in line and not line.startswith("#")]
    found = {name: value for name, _, value in pairs}
    if "metadata" in lines:
        found["action"] = "metadata"
    return found


def ask(action: str, node: str) -> str:
    """One question to the power controller: its answer in one word."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_SECONDS)
        connection.connect(SOCKET)
        request = {"action": action, "node": node, "caller": os.uname().nodename}
        connection.sendall((json.dumps(request) + "\n").encode())
        return connection.makefile().readline().strip()


def main() -> int:
    """Do one action and return its exit code."""
    given = options()
    action = given.get("action", "reboot")
    node = given.get("port") or given.get("plug") or given.get("nodename") or ""
    if action == "metadata":
        sys.stdout.write(META_DATA)
        return 0
    try:
        answer = ask(action, node)
    except OSError as error:
        sys.stderr.write(f"the lab's power controller does not answer: {error}\n")
        return 1
    if action in ("status", "monitor"):
        return {"on": 0, "ok": 0, "off": 2}.get(answer, 1)
    if action == "list":
        sys.stdout.write(answer.replace(" ", ",\n") + ",\n")
        return 0
    if answer != "ok":
        sys.stderr.write(f"the lab's power controller says: {answer}\n")
    return 0 if answer == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
