"""Corosync's closed process groups: messages to the same group on every node, through libcpg.

Over the ring that is there anyway: no port, no firewall, no key. The library has no time limit (a call waits
for ever for a corosync that is stopped), so a group belongs to a thread that nobody waits for.

Source of the calls: cpg.h of corosync 3.1 (cpg_initialize(3), cpg_join(3), cpg_mcast_joined(3),
cpg_dispatch(3)).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from standfast.cluster.run import EngineError

_LIBRARY = "libcpg.so.4"
_CS_OK, _CS_ERR_TRY_AGAIN = 1, 6
_CS_DISPATCH_ALL = 2
_AGREED = 2
"""cpg_guarantee_t: CPG_TYPE_AGREED."""
_MAX_NAME_BYTES = 128
CALLBACK_MAX_BYTES = 64 * 1024


class CpgError(EngineError):
    """No corosync, no library, or the connection has ended."""


class _Name(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint32), ("value", ctypes.c_char * _MAX_NAME_BYTES))


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


_DELIVER = ctypes.CFUNCTYPE(
    None,
    ctypes.c_uint64,
    ctypes.POINTER(_Name),
    ctypes.c_uint32,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_size_t,
)
_CHANGED = ctypes.CFUNCTYPE(
    None,
    ctypes.c_uint64,
    ctypes.POINTER(_Name),
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


class _Callbacks(ctypes.Structure):
    _fields_ = (("deliver", _DELIVER), ("changed", _CHANGED))


class Group:
    """One membership in a group. Not for several threads."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_uint64, descriptor: int) -> None:
        self._library, self._handle = library, handle
        self.descriptor = descriptor
        """Readable when there is something to dispatch."""

    def send(self, message: bytes) -> bool:
        """To every process of the group, this one included. False: the ring takes nothing at the moment.

        Raises CpgError.
        """
        vector = _Vector(message, len(message))
        code = self._library.cpg_mcast_joined(self._handle, _AGREED, ctypes.byref(vector), 1)
        if code == _CS_ERR_TRY_AGAIN:
            return False
        if code != _CS_OK:
            raise CpgError(f"corosync does not take a message (cpg error {code})")
        return True

    def dispatch(self) -> None:
        """Deliver what has come. Raises CpgError."""
        code = self._library.cpg_dispatch(self._handle, _CS_DISPATCH_ALL)
        if code not in (_CS_OK, _CS_ERR_TRY_AGAIN):
            raise CpgError(f"the connection to corosync has ended (cpg error {code})")


@contextmanager
def joined(name: str, deliver: Callable[[bytes], None]) -> Iterator[Group]:
    """A member of the group `name`. `deliver` gets each message, in the thread that dispatches.

    Raises CpgError where there is no corosync or no library.
    """
    library = _library()

    def take(_handle: int, _group: object, _node: int, _pid: int, message: int | None, length: int) -> None:
        if message and length <= CALLBACK_MAX_BYTES:
            deliver(ctypes.string_at(message, length))

    callbacks = _Callbacks(_DELIVER(take), _CHANGED(lambda *_: None))
    handle = ctypes.c_uint64()
    code = library.cpg_initialize(ctypes.byref(handle), ctypes.byref(callbacks))
    if code != _CS_OK:
        raise CpgError(f"corosync is not running on this node, or does not answer (cpg error {code})")
    try:
        group = _Name(len(name), name.encode())
        code = library.cpg_join(handle, ctypes.byref(group))
        if code != _CS_OK:
            raise CpgError(f"corosync does not let this node into the group {name} (cpg error {code})")
        descriptor = ctypes.c_int()
        if library.cpg_fd_get(handle, ctypes.byref(descriptor)) != _CS_OK:
            raise CpgError("corosync gives no descriptor for its messages")
        yield Group(library, handle, descriptor.value)
    finally:
        library.cpg_finalize(handle)
        # The library calls these until it has let go.
        del callbacks


_loaded: list[ctypes.CDLL] = []


def _library() -> ctypes.CDLL:
    if not _loaded:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise CpgError(f"{_LIBRARY} cannot be loaded: install the package libcpg4") from None
        handle = ctypes.c_uint64
        library.cpg_initialize.argtypes = [ctypes.POINTER(handle), ctypes.POINTER(_Callbacks)]
        library.cpg_finalize.argtypes = [handle]
        library.cpg_join.argtypes = [handle, ctypes.POINTER(_Name)]
        library.cpg_fd_get.argtypes = [handle, ctypes.POINTER(ctypes.c_int)]
        library.cpg_dispatch.argtypes = [handle, ctypes.c_int]
        library.cpg_mcast_joined.argtypes = [handle, ctypes.c_int, ctypes.POINTER(_Vector), ctypes.c_uint]
        _loaded.append(library)
    return _loaded[0]
