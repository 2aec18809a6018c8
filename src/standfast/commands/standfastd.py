"""The program standfastd: one per node, in the foreground, logging to standard error (journald)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

import click

from standfast.core import names

EXIT_REFUSED = 1
WITHDRAW_LIMIT_SECONDS = 3.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.version_option(package_name="standfast", message="standfastd %(version)s")
def main(verbose: bool) -> None:
    """Follow the window's record on this node: heartbeat values, reports, tests of the shutdown agents.

    Runs in the foreground until SIGTERM. A second one on the same node refuses to start.
    """
    if os.geteuid() != 0:
        raise click.ClickException("standfastd needs root")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="standfastd: %(levelname)s: %(message)s",
    )
    logging.getLogger("asyncssh").setLevel(logging.ERROR)
    lock = _lock()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
    lock.close()


def _lock() -> TextIO:
    """Held for the life of the process; the kernel lets go of it however the process ends."""
    path = Path(names.DAEMON_LOCK_FILE)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(names.STATE_DIR).mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(names.LOG_DIR).mkdir(mode=0o750, parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise click.ClickException(
            f"standfastd runs already on this node (pid {file.read().strip()})"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


async def _serve() -> None:
    from standfast.daemon.door import Door
    from standfast.daemon.main import Daemon
    from standfast.daemon.server import Server

    daemon = Daemon()
    door = Door(daemon)
    server = Server(door.handle, door.released)
    await server.start()
    task = asyncio.ensure_future(daemon.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    _ready()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await server.close()
        await asyncio.to_thread(_withdraw)


def _withdraw() -> None:
    """Nobody follows the record here any more: a report that stayed would say the opposite."""
    from standfast.cluster import attrd
    from standfast.cluster.run import EngineError

    with contextlib.suppress(EngineError):
        attrd.publish("", WITHDRAW_LIMIT_SECONDS)


def _ready() -> None:
    """Tell systemd that we are up (sd_notify, READY=1); without systemd nothing happens."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(b"READY=1")


if __name__ == "__main__":
    main()
