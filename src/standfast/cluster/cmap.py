"""Corosync's runtime values, read and set through libcmap; and the reload.

Each reading opens a connection of its own (3 ms), so a restarted corosync needs no care and nothing stays
open. The library has no time limit (it waits for ever for a daemon that is stopped), so it is called in a
thread that is given up at the limit; while one such thread is stuck no further one is started.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from standfast.cluster.run import EngineError, run
from standfast.core import heartbeat

_LIBRARY = "libcmap.so.4"
_Found = TypeVar("_Found")
_CS_OK = 1
_CS_ERR_NO_SECTION = 27
_PREFIX = "runtime.config.totem."
_FILE_PREFIX = "totem."
"""What corosync has of its file; a change is taken over, as cmap_keys(7) says of some."""
_KEYS = {
    "token": "token",
    "token_retransmit": "token_retransmit",
    "hold": "hold",
    "consensus": "consensus",
    "knet_ping_interval": "interface.0.knet_ping_interval",
    "knet_ping_timeout": "interface.0.knet_ping_timeout",
}
_NUMBERS: dict[int, type[Any]] = dict(
    enumerate(
        (
            ctypes.c_int8,
            ctypes.c_uint8,
            ctypes.c_int16,
            ctypes.c_uint16,
            ctypes.c_int32,
            ctypes.c_uint32,
            ctypes.c_int64,
            ctypes.c_uint64,
        ),
        start=1,
    )
)
_STRING = 11
"""cmap_value_types_t of cmap.h: the integers are 1 to 8."""
_MAX_KEY_BYTES = 255
_MAX_KEYS = 10_000


class CmapError(EngineError):
    """The runtime values cannot be read: no corosync, no library, or no answer."""


class ReloadError(EngineError):
    """corosync refused to reload; the values in force are the old ones."""


class ReloadUnknown(EngineError):
    """No answer at the limit: every member may still reload, as soon as the ring turns again."""


def runtime(limit_seconds: float = 3.0) -> dict[str, int]:
    """The totem and knet values in force on this node, in ms, by their names in core.heartbeat.

    knet values are there only where the transport is knet. Raises CmapError.
    """
    return _within(limit_seconds, _read)


def configuration(prefixes: Sequence[str], limit_seconds: float = 3.0) -> dict[str, int | str]:
    """All keys that begin so, with their values: numbers as int, text as str; others are left out.

    What corosync has read from its file stands there by section and key (cmap_keys(7)). Raises CmapError.
    """
    return _within(limit_seconds, lambda: _read_all(prefixes))


def set_timers(values: Mapping[str, int], limit_seconds: float = 3.0) -> None:
    """Have this node's corosync run these `heartbeat.TIMERS`, in ms, from the next token on; until the next
    reload or start, and on this node alone. Raises CmapError where it does not run them, or nobody knows.

    corosync 3.1.7 takes each key over as it is set, in any order (seen in `runtime.config.totem` at once).
    """
    _within(limit_seconds, lambda: _set(values))


def _within(limit_seconds: float, work: Callable[[], _Found]) -> _Found:
    """The result of `work`, in a thread that is given up at the limit. Raises CmapError."""
    deadline = time.monotonic() + limit_seconds
    if not _free.acquire(timeout=limit_seconds):
        text = "corosync does not answer: an earlier reading of its values still waits"
        raise CmapError(text, timed_out=True)
    outcome: list[_Found | CmapError] = []

    def read() -> None:
        try:
            outcome.append(work())
        except CmapError as error:
            outcome.append(error)
        finally:
            _free.release()

    thread = threading.Thread(target=read, name="cmap", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not outcome:
        raise CmapError(f"corosync did not answer within {limit_seconds:g} s", timed_out=True)
    found = outcome[0]
    if isinstance(found, CmapError):
        raise found
    return found


def reload(limit_seconds: float = 10.0) -> None:
    """Make every member read its corosync.conf again (corosync-cfgtool -R, one ring multicast).

    Success does not mean that the values are in force: read them back on each node. Raises ReloadUnknown
    at the limit (it was carried out after the stall 5 of 5), ReloadError.
    """
    result = run(["corosync-cfgtool", "-R"], limit_seconds=limit_seconds)
    if result.timed_out:
        raise ReloadUnknown("corosync did not answer to the reload in time: it may still be carried out")
    if not result.ok:
        raise ReloadError(f"corosync refused to reload: {result.complaint()}")


_free = threading.Lock()
_loaded: list[ctypes.CDLL] = []


def _library() -> ctypes.CDLL:
    if not _loaded:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise CmapError(f"{_LIBRARY} is missing: install the package libcmap4") from None
        library.cmap_initialize.argtypes = [ctypes.POINTER(ctypes.c_uint64)]
        library.cmap_get_uint32.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint32)]
        library.cmap_set_uint32.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint32]
        library.cmap_finalize.argtypes = [ctypes.c_uint64]
        size, kind = ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_int)
        library.cmap_iter_init.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64)]
        library.cmap_iter_next.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p, size, kind]
        library.cmap_iter_finalize.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
        library.cmap_get.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_void_p, size, kind]
        _loaded.append(library)
    return _loaded[0]


@contextmanager
def _connection() -> Iterator[tuple[ctypes.CDLL, ctypes.c_uint64]]:
    library = _library()
    handle = ctypes.c_uint64()
    code = library.cmap_initialize(ctypes.byref(handle))
    if code != _CS_OK:
        raise CmapError(f"corosync is not running on this node, or does not answer (cmap error {code})")
    try:
        yield library, handle
    finally:
        library.cmap_finalize(handle)


def _set(values: Mapping[str, int]) -> None:
    with _connection() as (library, handle):
        for name, value in values.items():
            code = library.cmap_set_uint32(handle, (_FILE_PREFIX + name).encode(), value)
            if code != _CS_OK:
                raise CmapError(f"corosync does not take {name} {value} (cmap error {code})")
        runs = _runtime(library, handle)
    if other := [f"{name} {runs.get(name)}" for name, value in values.items() if runs.get(name) != value]:
        raise CmapError(f"corosync runs {', '.join(other)} all the same")


def _runtime(library: ctypes.CDLL, handle: ctypes.c_uint64) -> dict[str, int]:
    values: dict[str, int] = {}
    for name, key in _KEYS.items():
        value = ctypes.c_uint32()
        if library.cmap_get_uint32(handle, (_PREFIX + key).encode(), ctypes.byref(value)) == _CS_OK:
            values[name] = value.value
    return values


def _read() -> dict[str, int]:
    with _connection() as (library, handle):
        values = _runtime(library, handle)
    missing = [name for name in heartbeat.TIMERS if name not in values]
    if missing:
        raise CmapError(f"corosync does not show its value of {', '.join(missing)}")
    return values


def _read_all(prefixes: Sequence[str]) -> dict[str, int | str]:
    values: dict[str, int | str] = {}
    with _connection() as (library, handle):
        for prefix in prefixes:
            for key, size, kind in _keys(library, handle, prefix):
                value = _value(library, handle, key, size, kind)
                if value is not None:
                    values[key.decode(errors="replace")] = value
    return values


def _keys(library: ctypes.CDLL, handle: ctypes.c_uint64, prefix: str) -> Iterator[tuple[bytes, int, int]]:
    """Key, size and type of each value."""
    walk = ctypes.c_uint64()
    if library.cmap_iter_init(handle, prefix.encode(), ctypes.byref(walk)) != _CS_OK:
        raise CmapError(f"corosync does not list its keys {prefix}...")
    try:
        for _ in range(_MAX_KEYS):
            name = ctypes.create_string_buffer(_MAX_KEY_BYTES + 1)
            size, kind = ctypes.c_size_t(), ctypes.c_int()
            code = library.cmap_iter_next(handle, walk, name, ctypes.byref(size), ctypes.byref(kind))
            if code == _CS_ERR_NO_SECTION:
                return
            if code != _CS_OK:
                raise CmapError(f"corosync does not list its keys {prefix}... (cmap error {code})")
            yield name.value, size.value, kind.value
        raise CmapError(f"corosync lists more than {_MAX_KEYS} keys {prefix}...")
    finally:
        library.cmap_iter_finalize(handle, walk)


def _value(
    library: ctypes.CDLL, handle: ctypes.c_uint64, key: bytes, size: int, kind: int
) -> int | str | None:
    """None: it has gone meanwhile, or is neither a number nor text."""
    number = _NUMBERS.get(kind)
    if number is None and kind != _STRING:
        return None
    room = number() if number is not None else ctypes.create_string_buffer(size + 1)
    length = ctypes.c_size_t(ctypes.sizeof(room))
    code = library.cmap_get(handle, key, ctypes.byref(room), ctypes.byref(length), None)
    if code != _CS_OK:
        return None
    return int(room.value) if number is not None else bytes(room.value).decode("utf-8", "surrogateescape")
