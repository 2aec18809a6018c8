"""Corosync's runtime values, read through libcmap; and the reload.

Each reading opens a connection of its own (3 ms), so a restarted corosync needs no care and nothing stays
open. The library has no time limit (it waits for ever for a daemon that is stopped), so it is called in a
thread that is given up at the limit; while one such thread is stuck no further one is started.
"""

from __future__ import annotations

import ctypes
import threading
import time

from standfast.cluster.run import EngineError, run

_LIBRARY = "libcmap.so.4"
_CS_OK = 1
_PREFIX = "runtime.config.totem."
_KEYS = {
    "token": "token",
    "token_retransmit": "token_retransmit",
    "hold": "hold",
    "consensus": "consensus",
    "knet_ping_interval": "interface.0.knet_ping_interval",
    "knet_ping_timeout": "interface.0.knet_ping_timeout",
}
_TIMED = ("token", "token_retransmit", "hold", "consensus")


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
    deadline = time.monotonic() + limit_seconds
    if not _free.acquire(timeout=limit_seconds):
        raise CmapError("corosync does not answer: an earlier reading of its values still waits")
    outcome: list[dict[str, int] | CmapError] = []

    def read() -> None:
        try:
            outcome.append(_read())
        except CmapError as error:
            outcome.append(error)
        finally:
            _free.release()

    thread = threading.Thread(target=read, name="cmap", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not outcome:
        raise CmapError(f"corosync did not answer within {limit_seconds:g} s")
    if isinstance(outcome[0], CmapError):
        raise outcome[0]
    return outcome[0]


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
        library.cmap_finalize.argtypes = [ctypes.c_uint64]
        _loaded.append(library)
    return _loaded[0]


def _read() -> dict[str, int]:
    library = _library()
    handle = ctypes.c_uint64()
    code = library.cmap_initialize(ctypes.byref(handle))
    if code != _CS_OK:
        raise CmapError(f"corosync is not running on this node, or does not answer (cmap error {code})")
    try:
        values: dict[str, int] = {}
        for name, key in _KEYS.items():
            value = ctypes.c_uint32()
            if library.cmap_get_uint32(handle, (_PREFIX + key).encode(), ctypes.byref(value)) == _CS_OK:
                values[name] = value.value
    finally:
        library.cmap_finalize(handle)
    missing = [name for name in _TIMED if name not in values]
    if missing:
        raise CmapError(f"corosync does not show its value of {', '.join(missing)}")
    return values
