"""Fixtures of the lab tier: real clusters that are always taken away again."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from window_kit import restore

from standfast.lab.cluster import Lab
from standfast.lab.emulators.control import ControlError
from standfast.lab.errors import LabError
from standfast.lab.scene import Scene

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


class Stage:
    """The three-node scene that many tests share: put back after each, made anew when that fails."""

    def __init__(self) -> None:
        self._scene: Scene | None = None

    def scene(self) -> Scene:
        """The scene as it was in the beginning."""
        if self._scene is None:
            self._scene = Scene.up(3)
        return self._scene

    def clear(self) -> None:
        """Back to the beginning; a scene that cannot go back is taken away."""
        if self._scene is None:
            return
        try:
            restore(self._scene)
        except (LabError, ControlError, AssertionError):
            self.down()

    def down(self) -> None:
        """Leave nothing."""
        scene, self._scene = self._scene, None
        if scene is not None:
            scene.down()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The shared scene of this run."""
    made = Stage()
    yield made
    made.down()


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    """Figure 14.1 with three nodes: window closed, guest2 on ctrl2, everything working."""
    yield stage.scene()
    stage.clear()
