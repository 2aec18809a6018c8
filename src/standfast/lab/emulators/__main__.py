"""`python -m standfast.lab.emulators --world world.json --control PATH.sock [--log FILE]`.

Prints one JSON line when all endpoints listen; ends on SIGTERM, SIGINT or the control command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import asyncssh

from standfast.lab.emulators import dialect, worldfile
from standfast.lab.emulators.controlserver import ControlServer
from standfast.lab.emulators.log import CommandLog
from standfast.lab.emulators.machines import LabMachines, Machines, NoMachines
from standfast.lab.emulators.servers import Endpoint
from standfast.lab.emulators.site import Site


def build(file: worldfile.WorldFile, machines: Machines, log: CommandLog) -> tuple[Site, list[Endpoint]]:
    """The site of a world file and its endpoints, not yet listening."""
    addresses = {host.address: host.name for host in file.hosts}
    site = Site(
        world=worldfile.world_of(file, time.monotonic()),
        machines=machines,
        log=log,
        xscf_dialect=dialect.load("xscf", Path(file.xscf_dialect) if file.xscf_dialect else None),
        ldm_dialect=dialect.load("ldm", Path(file.ldm_dialect) if file.ldm_dialect else None),
        xscf_users=worldfile.users_of(file.xscf_users),
        control_users=worldfile.users_of(file.control_users),
        autologout_seconds=file.autologout_seconds,
        addresses=addresses,
    )
    endpoints = []
    for entry in file.hosts:
        host = site.world.hosts[entry.name]
        places = (("lan0", entry.xscf_lan0), ("lan1", entry.xscf_lan1), ("ldm", entry.address))
        for name, address in places:
            key = asyncssh.read_private_key(entry.key if name == "ldm" else entry.xscf_key)
            kex = () if name == "ldm" else entry.kex
            endpoints.append(Endpoint(site, host, name, address, file.port, key, kex))
    return site, endpoints


async def serve(file: worldfile.WorldFile, machines: Machines, control: Path, log: CommandLog) -> None:
    """Runs until it is told to stop."""
    site, endpoints = build(file, machines, log)
    server = ControlServer(site, file, endpoints)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop.set)
    driver = asyncio.create_task(site.drive())
    watcher = asyncio.create_task(_watch(site, endpoints))
    stopping = asyncio.create_task(server.stop.wait())
    try:
        for endpoint in endpoints:
            await endpoint.apply()
        await server.listen(control)
        print(json.dumps({"ready": True, "endpoints": await server.do_endpoints()}), flush=True)
        done, _ = await asyncio.wait({driver, watcher, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (driver, watcher, stopping):
            task.cancel()
        server.close()
        for endpoint in endpoints:
            await endpoint.shut()
        log.close()


async def _watch(site: Site, endpoints: list[Endpoint]) -> None:
    """Paths follow the world: a control domain that is down does not answer."""
    while True:
        await site.next_change()
        for endpoint in endpoints:
            await endpoint.apply()


def main() -> int:
    parser = argparse.ArgumentParser(prog="standfast.lab.emulators")
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="JSON lines; commands.jsonl beside the world by default")
    given = parser.parse_args()
    try:
        file = worldfile.read(given.world)
        machines: Machines = LabMachines(file.lab) if file.lab else NoMachines()
        log = CommandLog(given.log or given.world.with_name("commands.jsonl"))
        given.control.unlink(missing_ok=True)
        os.umask(0o077)  # the control socket has no login
        asyncio.run(serve(file, machines, given.control, log))
    except (worldfile.WorldFileError, OSError) as error:
        print(f"emulators: {error}", file=sys.stderr)
        return 1
    finally:
        given.control.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
