"""Where built images are kept: made once under a lock, complete or not there, removed when long unused."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from standfast.lab.errors import LabError

UNUSED_SECONDS = 30 * 24 * 3600.0
_LOCK_LIMIT_SECONDS = 900.0
_LOCK_POLL_SECONDS = 0.2
_PARTIAL = ".partial"


def cache_root() -> Path:
    """The directory of the cache: `$STANDFAST_CACHE`, or /var/cache/standfast."""
    return Path(os.environ.get("STANDFAST_CACHE") or "/var/cache/standfast").absolute()


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache; `build` fills it where it is not there yet.

    A build that fails or is killed leaves nothing that could be taken for the entry. Raises what `build`
    raises, and LabError when another build holds the cache for too long.
    """
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    made = root / name
    with _locked(root):
        if not made.is_dir():
            _remove_partial(root)
            partial = root / (name + _PARTIAL)
            partial.mkdir(mode=0o755)
            try:
                build(partial)
                partial.rename(made)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        os.utime(made)
        _remove_unused(root)
    return made


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_LIMIT_SECONDS
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise LabError(f"another build has held {root}/lock for {_LOCK_LIMIT_SECONDS:g} s")
            time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _remove_partial(root: Path) -> None:
    """What a killed build has left. Only the holder of the lock builds, so nobody else is at it."""
    for left in root.glob("*" + _PARTIAL):
        shutil.rmtree(left)


def _remove_unused(root: Path) -> None:
    for old in root.iterdir():
        if old.is_dir() and time.time() - old.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(old)
