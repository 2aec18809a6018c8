"""Fixtures of the vm tier: one lab of real guests that all tests share, always taken away again.

Without --full the tier has a budget of time. How quick emulated guests are differs fourfold between machines,
so each test says what it costs in starts of this lab, and one that would not end in time is skipped, loudly.
"""

import os
import time
from collections.abc import Iterator

import pytest

from standfast.lab.vm.cluster import VmLab

BUDGET_SECONDS = 360.0
COST = 0.3
"""Of a test that does not say what it costs (`pytest.mark.costs`)."""
RUN_ALL = "./run test --full vm runs it all the same"


class Clock:
    """What of the budget is left, in starts of the lab."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.start_seconds: float | None = None
        """How long this machine takes to start the lab; None: it has not been started."""

    def too_late(self, cost: float) -> str:
        """Why a test of such cost is not begun; empty: it is."""
        spent = time.monotonic() - self.begun
        if self.start_seconds is None or spent + cost * self.start_seconds <= BUDGET_SECONDS:
            return ""
        takes = cost * self.start_seconds
        return (
            f"this machine took {self.start_seconds:.0f} s to start the lab: {spent:.0f} of "
            f"{BUDGET_SECONDS:.0f} s are over, and this takes about {takes:.0f} s; {RUN_ALL}"
        )


CLOCK = Clock()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cheap tests first, in their own order."""
    items.sort(key=_cost)


def _cost(item: pytest.Item) -> float:
    mark = item.get_closest_marker("costs")
    return float(mark.args[0]) if mark else COST


@pytest.fixture(scope="session", autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.fail("the vm tier makes namespaces and cgroups: run it as root (./run test vm)")


@pytest.fixture(scope="session")
def shared() -> Iterator[VmLab]:
    """Two guests on three hosts; heartbeat timeout 10 s, fencing by gate and fence_virsh."""
    lab = VmLab.up(say=print)
    assert lab.times is not None
    print(lab.times)
    CLOCK.start_seconds = lab.times.settled
    yield lab
    lab.down()


@pytest.fixture
def lab(shared: VmLab, request: pytest.FixtureRequest) -> VmLab:
    """The shared lab, come to rest: both nodes online, each service and fence device in its place."""
    if budgeted(request) and (why := CLOCK.too_late(_cost(request.node))):
        pytest.skip(why)
    shared.wait_settled()
    return shared


def budgeted(request: pytest.FixtureRequest) -> bool:
    """Whether this is the plain run: with --full each test has the time that it takes."""
    return bool(request.config.getoption("markexpr"))
