"""Live migrations by libvirt, with their blackout measured and, on demand, as long as wanted.

The blackout is from the source's STOP event to the target's RESUME event, by QEMU's own times. (What
`query-migrate` calls downtime was 0 in 1 of 4 runs with a hold.) It is made longer by stopping the target's
QEMU once the source has stopped the guest: both libvirtd answer meanwhile as in any long last stage, the
guest is paused on the source and not running on the target. libvirt itself has QEMU pause before the
switch-over and continues it: so there is a round trip of libvirt's between STOP and RESUME in which to do so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from standfast.lab.errors import LabError
from standfast.lab.vm import layout
from standfast.lab.vm.host import Host
from standfast.lab.vm.qmp import Event, Monitor

MIGRATION_LIMIT_SECONDS = 120.0
_RESUME_LIMIT_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Blackout:
    """A finished blackout: seconds since 1970 when the guest stopped, and when it ran again."""

    guest: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long the guest stood still."""
        return self.ended - self.began


@dataclass(frozen=True)
class Moved:
    """A finished migration."""

    guest: str
    source: str
    target: str
    seconds: float
    blackout: Blackout


def stand_still(host: Host, guest: str, seconds: float) -> Blackout:
    """Stop a guest for an exact time where it is, as the last stage of a migration does. Raises LabError."""
    with Monitor(host.monitor(guest)) as monitor:
        try:
            monitor.call("stop")
            stopped = _must(monitor.wait_event("STOP", _RESUME_LIMIT_SECONDS), guest, "STOP")
            time.sleep(max(0.0, stopped.wall + seconds - time.time()))
        finally:
            monitor.call("cont")
        resumed = _must(monitor.wait_event("RESUME", _RESUME_LIMIT_SECONDS), guest, "RESUME")
    return Blackout(guest, stopped.wall, resumed.wall)


def migrate(
    guest: str, source: Host, target: Host, *, blackout_seconds: float = 0.0, undefine_source: bool = True
) -> Moved:
    """Live-migrate a guest, with a blackout of at least `blackout_seconds`. Raises LabError as virsh says.

    `undefine_source=False` leaves the definition on the source: the trap in which a fence agent says
    "already off" of a guest that runs elsewhere.
    """
    begun = time.monotonic()
    with Monitor(source.monitor(guest)) as leaving:
        target.monitor(guest).unlink(missing_ok=True)
        mover = _start(guest, source, target, blackout_seconds, undefine_source)
        try:
            sight = _Sight(guest, target, lambda: mover.poll() is not None, MIGRATION_LIMIT_SECONDS)
            blackout = _follow(sight, leaving, blackout_seconds)
            out, _ = mover.communicate(timeout=MIGRATION_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError(f"the migration of {guest} does not end; `virsh domjobinfo {guest}`") from None
        finally:
            if mover.poll() is None:
                mover.kill()
                mover.wait()
    if mover.returncode != 0 or blackout is None:
        raise LabError(f"{guest} was not migrated to {target.name}: {out.strip() or 'no event of a move'}")
    if blackout.seconds < blackout_seconds:
        raise LabError(
            f"{guest} has moved to {target.name}, but its blackout was only {blackout.seconds:.3f} s long"
        )
    return Moved(guest, source.name, target.name, time.monotonic() - begun, blackout)


def follow(
    guest: str,
    source: Host,
    target: Host,
    ended: Callable[[], bool],
    *,
    blackout_seconds: float = 0.0,
    limit_seconds: float = MIGRATION_LIMIT_SECONDS,
) -> Blackout | None:
    """The blackout of a migration that somebody else drives, and that has not begun yet.

    `ended` says that it is over; None where it is, or where the limit has passed, without a move.
    """
    with Monitor(source.monitor(guest)) as leaving:
        target.monitor(guest).unlink(missing_ok=True)
        return _follow(_Sight(guest, target, ended, limit_seconds), leaving, blackout_seconds)


def _start(
    guest: str, source: Host, target: Host, blackout_seconds: float, undefine_source: bool
) -> subprocess.Popen[str]:
    limit_seconds = MIGRATION_LIMIT_SECONDS + blackout_seconds
    argv = ["timeout", f"{limit_seconds:.0f}", "virsh", "-q", "-c", "qemu:///system", "migrate", "--live"]
    argv += ["--persistent", *(["--undefinesource"] if undefine_source else []), guest]
    argv += [f"qemu+tcp://{target.name}/system", "--migrateuri"]
    return source.start([*argv, f"tcp://{layout.migration_address(target.number)}"])


@dataclass(frozen=True)
class _Sight:
    """What is looked at, and until when."""

    guest: str
    target: Host
    ended: Callable[[], bool]
    limit_seconds: float


def _follow(sight: _Sight, leaving: Monitor, blackout_seconds: float) -> Blackout | None:
    """See the guest stop here and run there; None where it has ended without that."""
    arriving = _connect(sight)
    if arriving is None:
        return None
    with arriving:
        stopped = _next(leaving, "STOP", sight)
        if stopped is None:
            return None
        if blackout_seconds:
            _hold(sight.guest, sight.target, stopped.wall + blackout_seconds)
        resumed = _next(arriving, "RESUME", sight)
    return Blackout(sight.guest, stopped.wall, resumed.wall) if resumed else None


def _connect(sight: _Sight) -> Monitor | None:
    path = sight.target.monitor(sight.guest)
    deadline = time.monotonic() + sight.limit_seconds
    while time.monotonic() < deadline and not sight.ended():
        with suppress(LabError):
            if path.exists():
                return Monitor(path)
        time.sleep(_POLL_SECONDS)
    return None


def _next(monitor: Monitor, name: str, sight: _Sight) -> Event | None:
    """The event, or None once it has ended and it has not come, or at the migration's limit."""
    deadline = time.monotonic() + sight.limit_seconds
    while time.monotonic() < deadline:
        ended = sight.ended()
        if event := monitor.wait_event(name, 1.0):
            return event
        if ended:
            return None
    return None


def _hold(guest: str, target: Host, until: float) -> None:
    """Keep the target's QEMU from taking over until a time of day."""
    pid = target.qemu_pid(guest)
    if pid is None:
        raise LabError(f"the QEMU that takes {guest} over on {target.name} is gone")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(max(0.0, until - time.time()))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _must(event: Event | None, guest: str, name: str) -> Event:
    if event is None:
        raise LabError(f"QEMU did not tell {name} of {guest}")
    return event
