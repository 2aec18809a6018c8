"""Tells at once when a node comes into the membership or leaves it: libcmap's tracking of corosync's own map.

The daemon looks at the membership every ten seconds where nothing happens; what it must do in the first
second after a node was lost cannot wait for that. The library may block for ever where corosync hangs, so it
has a thread of its own, which costs nothing while nothing changes and dies with the process.

Source of the calls: cmap.h of corosync 3.1 (cmap_track_add, cmap_fd_get, cmap_dispatch).
"""

from __future__ import annotations

import ctypes
import select
import threading
import time
from collections.abc import Callable

_LIBRARY = "libcmap.so.4"
_CS_OK = 1
_CS_DISPATCH_ALL = 2
_TRACK_ADD_MODIFY_PREFIX = 4 | 2 | 8
_TRACK_DELETE = 1
_MEMBERS = b"runtime.members."
AGAIN_SECONDS = 5.0
"""Between two attempts while there is no corosync."""


class _Value(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("len", ctypes.c_size_t), ("data", ctypes.c_void_p))


_NOTIFY = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int32, ctypes.c_char_p, _Value, _Value, ctypes.c_void_p
)


def start(changed: Callable[[], None]) -> threading.Thread:
    """Call `changed` (from another thread) after each change, and after corosync has come or gone."""
    thread = threading.Thread(target=_forever, args=(changed,), name="ring-watch", daemon=True)
    thread.start()
    return thread


def _forever(changed: Callable[[], None]) -> None:
    while True:
        if _follow(changed):
            changed()
        time.sleep(AGAIN_SECONDS)


def _follow(changed: Callable[[], None]) -> bool:
    """Until the connection breaks; False where there was none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    handle = ctypes.c_uint64()
    if library.cmap_initialize(ctypes.byref(handle)) != _CS_OK:
        return False
    try:
        notify = _NOTIFY(lambda *_: changed())
        track, descriptor = ctypes.c_uint64(), ctypes.c_int()
        kinds = ctypes.c_int32(_TRACK_ADD_MODIFY_PREFIX | _TRACK_DELETE)
        added = library.cmap_track_add(handle, _MEMBERS, kinds, notify, None, ctypes.byref(track))
        if added != _CS_OK or library.cmap_fd_get(handle, ctypes.byref(descriptor)) != _CS_OK:
            return False
        while True:
            select.select([descriptor.value], [], [])
            if library.cmap_dispatch(handle, _CS_DISPATCH_ALL) != _CS_OK:
                return True
    finally:
        library.cmap_finalize(handle)
