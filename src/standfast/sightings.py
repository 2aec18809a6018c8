"""What this node has seen, and how long ago: the clock of settling times and leases.

One small file for the gate and for standfastd. Rules of this file:

* Times are CLOCK_BOOTTIME, in seconds, and belong to one boot: a file of another boot is as good as none.
* Only a change is written, so an idle cluster costs one short read a question and no write.
* The newest epoch and window are the ones seen LAST, not the ones with the highest number: a CIB that was
  restored from a copy goes backwards, and its window must be able to end too.
* Nothing here raises. What cannot be read or written counts from now on, which only lengthens a hold.

The standard library only: the gate imports this.
"""

# pathlib costs 4 ms of each call.
# ruff: noqa: PTH103, PTH105, PTH108, PTH120

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from standfast.core.names import SIGHTINGS_FILE

if TYPE_CHECKING:
    from standfast.core.record import Record

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
RING_DIR = "/var/lib/corosync"
RING_BYTES = 8
FORMAT = 1
LOCK_LIMIT_SECONDS = 0.2
LOCK_RETRY_SECONDS = 0.005
KEPT_SECONDS = 3600.0
"""Returns, holds and fencings older than this are dropped at the next write."""
MAX_ENTRIES = 256
MAX_FILE_BYTES = 65536

_EPOCH, _WINDOW, _RETURNED, _ALLOWED, _HELD = "epoch ", "window ", "returned ", "allowed ", "held "
BREAK_SECONDS = 10.0
"""A hold is polled for 5 s and asked for again at once: a longer pause is the end of it."""
PAUSE_SECONDS = 5.0
"""More than lies between two looks of a node that runs. What is longer it has slept, and does not count."""
PLAIN_BREAK_SECONDS = 4.0
"""The hosts are asked every second; some seconds without an answer end what was seen."""
_MOVER = ("mover-since ", "mover-last ", BREAK_SECONDS)
_PLAIN = ("plain-since ", "plain-last ", PLAIN_BREAK_SECONDS)
_DROPPED = ("dropped-since ", "dropped-last ", BREAK_SECONDS)
_ABSENT = ("absent-since ", "absent-last ", BREAK_SECONDS)
_CANCELLED, _APART, _AWAY = "cancelled ", "apart", "away "
_OVERTAKEN = "overtaken "
_UNLISTED, _LISTED = "unlisted ", "listed "
_RING, _TURNED, _MET = "ring ", "turned ", "met"
_NEWEST_ONLY = (_EPOCH, _WINDOW, _RING)
RING_STEP = 4
"""What corosync adds to a ring's number for each new one (measured; 21 of 21)."""
TURN_SECONDS = 1.0
"""The engine's own view of the members follows corosync's within some tenths of a second."""


class Seen(NamedTuple):
    """Seconds since this node first saw the record's epoch, and since it first saw its window."""

    epoch_seconds: float
    window_seconds: float


def boottime_seconds() -> float:
    """CLOCK_BOOTTIME: goes on in suspend, never steps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def ring_number(root: str = "") -> int | None:
    """The number of this node's ring, which corosync writes down as it forms one (``ringid_NODEID``: eight
    bytes, in the machine's order; corosync 3.1, ``totemsrp.c``). -1: it is being written. None: it is not
    there, or cannot be read."""
    try:
        with os.scandir(root + RING_DIR) as entries:
            files = [(entry.stat().st_mtime_ns, entry.path) for entry in entries if _is_ring(entry.name)]
        # A node that was given another id has left its old file there.
        with open(max(files)[1], "rb") as file:
            number = file.read(RING_BYTES)
    except (OSError, ValueError):
        return None
    return int.from_bytes(number, sys.byteorder) if len(number) == RING_BYTES else -1


def _is_ring(name: str) -> bool:
    return name.startswith("ringid_")


def read_boot_id() -> str:
    """This boot's id; empty if the kernel does not tell."""
    try:
        with open(BOOT_ID_FILE, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


class Sightings:
    """The sightings of this node. Each question reads the file anew: others write it too."""

    def __init__(
        self,
        path: str = SIGHTINGS_FILE,
        clock: Callable[[], float] = boottime_seconds,
        boot_id: Callable[[], str] = read_boot_id,
        lock_limit_seconds: float = LOCK_LIMIT_SECONDS,
    ) -> None:
        self._path = path
        self._clock = clock
        self._boot = boot_id()
        self._lock_limit_seconds = lock_limit_seconds
        self._own: dict[str, float] = {}
        """What this process saw: answers also where the file cannot be written."""

    def see(self, record: Record) -> Seen:
        """Note the record's epoch and window; seconds since each was first seen (0.0: just now)."""
        names = (f"{_EPOCH}{record.epoch}", f"{_WINDOW}{record.window}")
        now, there, times = self._times()
        new = {name: times.get(name, now) for name in names if name not in there}
        if new:
            self._note(new)
        return Seen(*(now - times.get(name, now) for name in names))

    def met(self, number: int, members: Iterable[str]) -> float | None:
        """Note the number of this node's ring and who is in it; seconds since it last met anybody.

        A ring that is the next one, with some members less, is a plain loss: nobody was met. Any other new
        ring may be one in which this node, having stood still, has met those who went on without it, and what
        it knows of the configuration is from before. None: nobody was met in the last hour.

        Who is new in it has returned just now; where rings were missed, nobody having looked meanwhile, or
        the members are the same, that may be each of them. But not in the first ring of a boot.
        """
        now, _, times = self._times()
        named = {name.casefold(): name for name in members}
        there = frozenset(named)
        met = now - times[_MET] if _MET in times else None
        if _ring(number, there) in times:
            return met
        before = max((name for name in times if name.startswith(_RING)), key=times.__getitem__, default="")
        last, known = _ring_of(before)
        if number == last and there <= known:
            return met
        if number == last:
            there |= known
        elif number == last + RING_STEP and there == known:
            # The number is corosync's, the members are the engine's, which may not have seen the loss yet.
            turned = times.get(f"{_TURNED}{number}")
            if turned is None:
                self._note({f"{_TURNED}{number}": now})
            if turned is None or now - turned < TURN_SECONDS:
                return 0.0
        new = {_ring(number, there): now}
        if number == last + RING_STEP and there < known:
            self._note(new)
            return met
        came = there - known if number in (last, last + RING_STEP) and there != known else there
        back = {f"{_RETURNED}{named[name]}": now for name in came if name in named} if before else {}
        self._note({**new, _MET: now, **back})
        return 0.0

    def returned(self, node: str) -> None:
        """Note that `node` came back into the membership just now."""
        self._note({_RETURNED + node: self._clock()})

    def away(self, node: str) -> None:
        """Note that `node` is not in the membership at this look. Its next look there is a return."""
        _, _, times = self._times()
        if not self._is_away(node, times):
            self._note({_AWAY + node: self._clock()})

    def back(self, node: str) -> None:
        """`node` is in the membership at this look: a return just now, if the last look of this boot that was
        noted found it away, be it minutes ago. When it really came back nobody here has seen."""
        _, _, times = self._times()
        if self._is_away(node, times):
            self.returned(node)

    @staticmethod
    def _is_away(node: str, times: dict[str, float]) -> bool:
        then = times.get(_AWAY + node)
        return then is not None and then >= times.get(_RETURNED + node, -1.0)

    def seconds_since_return(self, node: str) -> float | None:
        """Since `node` was last seen to come back; None: not seen in this boot."""
        return self._since(_RETURNED + node)

    def allowed(self, target: str, level: str = "") -> None:
        """Note that the gate of this level of `target` says yes just now."""
        self._note({f"{_ALLOWED}{level} {target}": self._clock()})

    def seconds_since_allowed(self, target: str, level: str = "") -> float | None:
        """Since the gate of this level of `target` last said yes on this node; None: not in this boot."""
        return self._since(f"{_ALLOWED}{level} {target}")

    def held(self, target: str) -> bool:
        """Note that the gate holds `target` just now because of what the hosts say.

        False: only this process knows of it, the next call will not.
        """
        return self._note({_HELD + target: self._clock()})

    def seconds_since_held(self, target: str) -> float | None:
        """Since a gate of this node last held `target` for what the hosts said; None: not in this boot."""
        return self._since(_HELD + target)

    def held_as_mover(self, target: str, host: str) -> float:
        """Note that this node, running on `host`, holds `target` because it is itself the mover; for how long
        it has done so without a break, in seconds."""
        return self._goes_on(_MOVER, f"{host} {target}")

    def plain(self, guest: str, host: str) -> float:
        """Note that every host was just asked and shows `guest` plainly running on `host`; for how long that
        has been seen without a break, in seconds."""
        return self._goes_on(_PLAIN, f"{guest} {host}")

    def seconds_plain(self, guest: str, host: str) -> float | None:
        """For how long `guest` has now been seen plainly running on `host`; None: it is not, or no more."""
        now, _, times = self._times()
        last = times.get(f"{_PLAIN[1]}{guest} {host}")
        if last is None or now - last > PLAIN_BREAK_SECONDS:
            return None
        return now - times.get(f"{_PLAIN[0]}{guest} {host}", now)

    def dropped(self, node: str, *, quorate: bool) -> float:
        """Note that `node` is not in the membership; for how long this node has seen that without a break,
        running, and in a membership that has quorum. Who is cut off sees its own absence: that counts for
        nothing, and that of others begins anew when it is back."""
        return self._outside(_DROPPED, node, quorate=quorate)

    def absent(self, node: str, *, quorate: bool) -> float:
        """The same for the nodes of a window that is past its lease (core/arming.py), counted apart: the
        limits of the killing gate begin with the arming, not before it."""
        return self._outside(_ABSENT, node, quorate=quorate)

    def _outside(self, names: tuple[str, str, float], node: str, *, quorate: bool) -> float:
        if quorate:
            return self._goes_on(names, node)
        self._note({_APART: self._clock()})
        return 0.0

    def cancelled(self, node: str) -> None:
        """Note that a killing gate of this node cancels the migration of the guest of `node` just now. The
        first time in one absence counts: a cancel that is repeated begins no wait anew."""
        if self.seconds_since_cancel(node) is None:
            self._note({_CANCELLED + node: self._clock()})

    def seconds_since_cancel(self, node: str) -> float | None:
        """Since this node first cancelled it in the absence that `dropped` counts; None: it has not."""
        now, _, times = self._times()
        then, since = times.get(_CANCELLED + node), times.get(_DROPPED[0] + node)
        return None if then is None or since is None or then < since else now - then

    def overtaken(self, host: str, epoch: int) -> None:
        """Note that `host` answers, which a person has called dead at `epoch`."""
        if not self.is_overtaken(host, epoch):
            self._note({f"{_OVERTAKEN}{epoch} {host}": self._clock()})

    def is_overtaken(self, host: str, epoch: int) -> bool:
        """Whether this node has heard `host` since it was called dead at `epoch`."""
        return self._since(f"{_OVERTAKEN}{epoch} {host}") is not None

    def unlisted(self, node: str) -> None:
        """Note that `node` is alive, while no host that can be asked runs its guest; anew only before that
        would be forgotten."""
        since = self._since(_UNLISTED + node)
        if since is None or since > KEPT_SECONDS / 2 or not self.is_unlisted(node):
            self._note({_UNLISTED + node: self._clock()})

    def listed(self, node: str) -> None:
        """Note that a host shows the guest of `node` again, where that was noted."""
        if self.is_unlisted(node):
            self._note({_LISTED + node: self._clock()})

    def is_unlisted(self, node: str) -> bool:
        """Whether no host ran its guest when its node was last known to be alive: that none of them runs it
        proves nothing then."""
        _, _, times = self._times()
        then = times.get(_UNLISTED + node)
        return then is not None and then > times.get(_LISTED + node, -1.0)

    def _goes_on(self, names: tuple[str, str, float], what: str) -> float:
        """Note it as seen now. Only what was noted again and again counts: one who did not look may have
        missed the end of it and its next beginning."""
        since_name, last_name, break_seconds = names
        now, _, times = self._times()
        last = times.get(last_name + what)
        unbroken = last is not None and now - last <= break_seconds
        since = times.get(since_name + what, now) if unbroken else now
        if names in (_DROPPED, _ABSENT) and last is not None and unbroken:
            slept = max(0.0, now - last - PAUSE_SECONDS)
            since = min(now, max(since + slept, times.get(_APART, 0.0)))
        self._note({last_name + what: now, since_name + what: since})
        return now - since

    def _since(self, name: str) -> float | None:
        now, _, times = self._times()
        return now - times[name] if name in times else None

    def _times(self) -> tuple[float, dict[str, float], dict[str, float]]:
        """The time now, what the file holds, and the file together with what this process saw itself."""
        there = self._read()
        now = self._clock()
        times = dict(there)
        for name, then in self._own.items():
            kind = name.partition(" ")[0] + " "
            if kind not in _NEWEST_ONLY:
                times[name] = max(then, there.get(name, then))
            elif not any(other.startswith(kind) and seen > then for other, seen in there.items()):
                times[name] = then
        return now, there, times

    def _read(self) -> dict[str, float]:
        """The file's times; empty if it is missing, damaged or of another boot."""
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read(MAX_FILE_BYTES))
            if found["format"] != FORMAT or found["boot"] != self._boot or not self._boot:
                return {}
            times = {str(name): float(then) for name, then in found["seen"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return {}
        # A time to come is damage: it would make the difference negative, and a hold endless.
        return {name: then for name, then in times.items() if 0.0 <= then <= self._clock()}

    def _note(self, new: dict[str, float]) -> bool:
        """Whether other processes of this boot can read it too."""
        self._own = _merged(self._own, new)
        try:
            with self._locked():
                # Read again under the lock: another process may have written between.
                there = self._read()
                first = {name for name in new if name.startswith(_NEWEST_ONLY)}
                wanted = {name: then for name, then in new.items() if name not in first or name not in there}
                if wanted:
                    self._replace(_merged(there, wanted))
        except OSError:
            return False
        # Without a boot's id nobody believes the file.
        return bool(self._boot)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the file. Raises OSError where that cannot be had within the limit."""
        os.makedirs(os.path.dirname(self._path) or ".", mode=0o755, exist_ok=True)
        lock = os.open(self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + self._lock_limit_seconds
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(LOCK_RETRY_SECONDS)
            yield
        finally:
            os.close(lock)

    def _replace(self, times: dict[str, float]) -> None:
        now = self._clock()
        kept = {name: then for name, then in times.items() if name.startswith(_NEWEST_ONLY)}
        others = [
            (then, name)
            for name, then in times.items()
            # What took a person's word back is true for as long as that word may stand.
            if name not in kept and (now - then < KEPT_SECONDS or name.startswith(_OVERTAKEN))
        ]
        kept |= {name: then for then, name in sorted(others)[-MAX_ENTRIES:]}
        text = json.dumps({"format": FORMAT, "boot": self._boot, "seen": kept}, indent=0)
        new = f"{self._path}.{os.getpid()}"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(file, "wb") as out:
                out.write(text.encode())
            # In /run, which a crash of the machine empties anyway: atomic is enough, fsync buys nothing.
            os.replace(new, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise


def _ring(number: int, members: Iterable[str]) -> str:
    """The entry of a ring: only the newest one is kept."""
    return f"{_RING}{number} {' '.join(sorted(members))}"


def _ring_of(name: str) -> tuple[int, frozenset[str]]:
    """The number and the members of an entry; a number that no ring has where there is none."""
    words = name.split()
    try:
        return int(words[1]), frozenset(words[2:])
    except (IndexError, ValueError):
        return -2 * RING_STEP, frozenset()


def _merged(times: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """`times` with `new`; a new epoch or window takes the place of the old one."""
    result = dict(times)
    for name, then in new.items():
        for kind in _NEWEST_ONLY:
            if name.startswith(kind):
                result = {other: value for other, value in result.items() if not other.startswith(kind)}
        result[name] = then
    return result
