"""Fixtures of the lab tier: real clusters that are always taken away again."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from standfast.lab.cluster import Lab

LabMaker = Callable[..., Lab]


@pytest.fixture(scope="session", autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.fail("the lab tier makes namespaces and cgroups: run it as root (./run test lab)")


@pytest.fixture(scope="module")
def module_labs() -> Iterator[LabMaker]:
    """Makes labs that live as long as the test module; takes the arguments of `Lab.up`."""
    with ExitStack() as stack:
        yield _maker(stack)


@pytest.fixture
def labs() -> Iterator[LabMaker]:
    """Makes labs that live as long as the test; takes the arguments of `Lab.up`."""
    with ExitStack() as stack:
        yield _maker(stack)


def _maker(stack: ExitStack) -> LabMaker:
    def make(*args: object, **options: object) -> Lab:
        lab = Lab.up(*args, **options)  # type: ignore[arg-type]
        stack.callback(lab.down)
        return lab

    return make
