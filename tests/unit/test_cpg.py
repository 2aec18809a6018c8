"""libcpg by ctypes, where there is no library or no corosync."""

import ctypes

import pytest

from standfast.cluster import cpg
from standfast.cluster.clock_watch import ClockWatch


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpg, "_loaded", [])
    monkeypatch.setattr(cpg, "_LIBRARY", "libcpg-that-is-not-there.so")
    with pytest.raises(cpg.CpgError, match="install the package libcpg4"), cpg.joined("group", print):
        pass


def test_the_structures_are_laid_out_as_the_header_has_them() -> None:
    # cpg.h of corosync 3.1: struct cpg_name is a 32-bit length and 128 characters.
    assert ctypes.sizeof(cpg._Name) == 4 + 128
    assert ctypes.sizeof(cpg._Vector) == ctypes.sizeof(ctypes.c_void_p) + ctypes.sizeof(ctypes.c_size_t)


def test_a_thread_that_corosync_holds_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ClockWatch(lambda: None)
    assert watch.trouble == ""
    monkeypatch.setattr(watch, "_turned", watch._turned - 61.0)
    assert watch.trouble == "corosync does not answer"
