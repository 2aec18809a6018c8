"""Fixtures of the vm tier: one lab of real guests that all tests share, always taken away again."""

import os
from collections.abc import Iterator

import pytest

from standfast.lab.vm.cluster import VmLab


@pytest.fixture(scope="session", autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.fail("the vm tier makes namespaces and cgroups: run it as root (./run test vm)")


@pytest.fixture(scope="session")
def shared() -> Iterator[VmLab]:
    """Two guests on three hosts; heartbeat timeout 10 s, fencing by gate and fence_virsh."""
    lab = VmLab.up(say=print)
    print(lab.times)
    yield lab
    lab.down()


@pytest.fixture
def lab(shared: VmLab) -> VmLab:
    """The shared lab, come to rest: both nodes online, each service and fence device in its place."""
    shared.wait_settled()
    return shared
