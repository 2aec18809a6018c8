#!/usr/bin/python3 -IS
"""OCF agent ocf:lab:Recorder: a resource that does nothing but log each start and stop, with its time.

The log lies outside the nodes, so it survives them. CLOCK_MONOTONIC is the same in all nodes of a lab.
"""

import json
import os
import sys
import time
from pathlib import Path

LOG = Path("/run/lab/events.log")
META_DATA = """<?xml version="1.0"?>
<resource-agent name="Recorder" version="1.0">
<version>1.0</version>
<longdesc lang="en">Logs each start and stop with its time.</longdesc>
<shortdesc lang="en">Logs each start and stop</shortdesc>
<parameters>
<parameter name="slow"><longdesc lang="en">Seconds that a monitor takes</longdesc>
<shortdesc lang="en">Seconds that a monitor takes</shortdesc><content type="string" default="0"/></parameter>
</parameters>
<actions>
<action name="start" timeout="20s"/><action name="stop" timeout="20s"/>
<action name="monitor" timeout="20s" interval="10s"/><action name="meta-data" timeout="5s"/>
</actions>
</resource-agent>
"""
OK, UNIMPLEMENTED, NOT_RUNNING = 0, 3, 7


def record(action: str, resource: str) -> None:
    """Append one line with a single write: agents of several nodes share the file."""
    event = {
        "monotonic": time.monotonic(),
        "wall": time.time(),
        "node": os.uname().nodename,
        "action": action,
        "resource": resource,
    }
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, (json.dumps(event) + "\n").encode())
    os.close(fd)


def main(action: str) -> int:
    """Do one OCF action and return its exit code."""
    if action == "meta-data":
        sys.stdout.write(META_DATA)
        return OK
    resource = os.environ.get("OCF_RESOURCE_INSTANCE", "Recorder")
    state = Path(f"/run/resource-agents/Recorder-{resource}")
    if action == "monitor":
        return monitor(state, resource)
    if action == "start" and not state.exists():
        state.touch()
        record("start", resource)
    elif action == "stop" and state.exists():
        state.unlink()
        record("stop", resource)
    return OK if action in ("start", "stop", "validate-all") else UNIMPLEMENTED


def monitor(state: Path, resource: str) -> int:
    """Whether the resource runs; with `slow`, only after that many seconds, and logged."""
    slow_seconds = float(os.environ.get("OCF_RESKEY_slow") or 0)  # noqa: SIM112 (OCF has it so)
    if slow_seconds and state.exists():
        time.sleep(slow_seconds)
        record("monitor", resource)
    return OK if state.exists() else NOT_RUNNING


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
