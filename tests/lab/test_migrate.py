"""``standfast migrate`` on a real cluster: the hosts really migrate, and each end leaves what it says."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field

import pytest
from window_kit import (
    COMMAND_LIMIT_SECONDS,
    GUEST,
    MOVER,
    Picture,
    aim,
    eventually,
    home,
    kills,
    members,
    spare,
    starts_and_stops,
    window,
)

from standfast.core.record import Mode, Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)
EVENTS_FILE = "/var/log/standfast/events-of-a-test"
Event = dict[str, object]


def timing(scene: Scene, seconds: float, blackout_seconds: float, scrub_seconds: float = 1.0) -> None:
    """How long the hosts take from now on."""
    scene.control.call("timing", migration_seconds=seconds, blackout_seconds=blackout_seconds,
                       scrub_seconds=scrub_seconds)  # fmt: skip


@dataclass
class Migrating:
    """``standfast migrate --json`` under way on a node, its events read from outside."""

    scene: Scene
    node: str
    argv: tuple[str, ...]
    code: int | None = None
    errors: str = ""
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._file = self.scene.path(self.node, EVENTS_FILE)
        self._file.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        script = f'exec standfast migrate "$@" --json >{EVENTS_FILE}'
        done = self.scene.run(
            self.node, "/bin/sh", "-c", script, "run", *self.argv, limit_seconds=COMMAND_LIMIT_SECONDS
        )
        self.code, self.errors = done.returncode, done.stderr

    def events(self, kind: str = "") -> list[Event]:
        """What it has told so far."""
        text = self._file.read_text() if self._file.exists() else ""
        found: list[Event] = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [event for event in found if kind in ("", event["event"])]

    def wait(self, kind: str, limit_seconds: float = 60.0) -> None:
        """Wait until it has told such an event."""
        seen = eventually(lambda: bool(self.events(kind)) or self.code is not None, limit_seconds)
        assert seen, self.events()
        assert self.events(kind), (self.events(), self.errors)

    def interrupt(self) -> None:
        """SIGINT, to the command alone."""
        done = self.scene.run(
            self.node, "/bin/sh", "-c", "kill -INT $(pgrep -f '[s]tandfast migrate guest2')"
        )
        assert done.ok, done.stderr

    def end(self) -> int:
        """Wait for its end; its exit status."""
        self._thread.join()
        assert self.code is not None
        assert "Traceback" not in self.errors, self.errors
        return self.code


def migrate(scene: Scene, *more: str, node: str = "cfguest1") -> Migrating:
    """Begin to move the guest to the host without one."""
    return Migrating(scene, node, (GUEST, "--to", spare(scene), *more))


def codes(run: Migrating) -> list[object]:
    return [event["code"] for event in run.events("message")]


def summary(run: Migrating) -> Event:
    (page,) = run.events("summary")
    return page


def as_before(scene: Scene, before: Picture, mark: int) -> None:
    """No window, nobody killed, no service touched, every file and value as it was."""
    assert window(scene, "cfguest3").phase is Phase.IDLE
    assert kills(scene, mark) == []
    later = Picture.of(scene)
    assert later.events == before.events, starts_and_stops(scene.lab)[before.events :]
    assert later.nodes.keys() == before.nodes.keys()
    for node, was in before.nodes.items():
        assert (later.nodes[node].conf, later.nodes[node].totem) == (was.conf, was.totem), node


def test_a_guest_is_migrated_with_all_around_it(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    timing(scene, 3.0, 1.0)
    run = migrate(scene)
    run.wait("progress")
    found = window(scene, "cfguest3")
    assert (found.phase, found.mode, found.mover) == (Phase.OPEN, Mode.GUARDED, MOVER)
    assert found.lease_seconds == 15 * 60
    assert run.end() == 0, run.events()
    assert scene.control.running(GUEST) == [spare(scene)]
    assert aim(scene) == spare(scene)
    as_before(scene, before, mark)
    page = summary(run)
    assert (page["now_on"], page["how"], page["window_closed"]) == (spare(scene), "moved", True)
    assert page["dropped_seconds"] == 0
    assert page["proven_from"] == list(scene.lab.nodes)
    assert [event["phase"] for event in run.events("phase")] == [
        "preflight", "opening", "migrating", "closing"
    ]  # fmt: skip


@pytest.mark.full
def test_a_blackout_beyond_the_timeout_is_measured_by_the_cluster(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    timing(scene, 22.0, 20.0)
    run = migrate(scene)
    assert run.end() == 0, run.events()
    as_before(scene, before, mark)
    page = summary(run)
    dropped = page["dropped_seconds"]
    assert isinstance(dropped, float)
    assert 5 < dropped < 60
    assert "silent for up to" in str(page["blackout_by_cluster"])
    print(f"blackout 20 s: {page['blackout_by_cluster']}")


@pytest.mark.full
def test_a_migration_that_fails_at_the_host_is_closed_with_the_source(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    scene.control.inject("migration_refused", home(scene), "ldm", text="Timed out", dry=False)
    run = migrate(scene)
    assert run.end() == 1, run.events()
    assert codes(run) == ["MIGRATION_FAILED"]
    assert scene.control.running(GUEST) == [home(scene)]
    assert aim(scene) == home(scene)
    as_before(scene, before, mark)
    assert (summary(run)["now_on"], summary(run)["how"]) == (home(scene), "not moved")


@pytest.mark.full
def test_a_migration_that_somebody_cancels_at_the_host_is_closed_with_the_source(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    timing(scene, 30.0, 1.0)
    run = migrate(scene)
    run.wait("progress")
    scene.control.call("abort", name=GUEST)
    assert run.end() == 1, run.events()
    assert codes(run) == ["MIGRATION_FAILED"]
    assert scene.control.running(GUEST) == [home(scene)]
    as_before(scene, before, mark)


@pytest.mark.full
def test_an_interruption_cancels_the_migration_and_puts_all_back(scene: Scene) -> None:
    before, mark = Picture.of(scene), scene.control.mark()
    timing(scene, 60.0, 1.0)
    run = migrate(scene)
    run.wait("progress")
    run.interrupt()
    assert run.end() == 1, run.events()
    assert "MIGRATION_CANCELLED" in codes(run)
    assert [entry["action"] for entry in scene.control.log(mark, event="acted")].count("cancel") == 1
    assert scene.control.running(GUEST) == [home(scene)]
    assert aim(scene) == home(scene)
    as_before(scene, before, mark)


@pytest.mark.full
def test_a_second_interruption_leaves_the_window_to_its_lease(scene: Scene) -> None:
    timing(scene, 40.0, 1.0, scrub_seconds=20.0)
    run = migrate(scene)
    run.wait("progress")
    run.interrupt()
    assert eventually(lambda: any(e["phase"] == "cancelling" for e in run.events("phase")), 20)
    began = time.monotonic()
    run.interrupt()
    assert run.end() == 3, run.events()
    assert time.monotonic() - began < 15
    assert codes(run)[-1] == "LEFT_TO_LEASE"
    assert window(scene, "cfguest3").phase is Phase.OPEN


@pytest.mark.full
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_session_that_is_cut_is_looked_at_and_not_taken_for_a_failure(scene: Scene, at: str) -> None:
    """Cut before it began, the guest stays; cut before the host could say that it is done, it is there."""
    before, mark = Picture.of(scene), scene.control.mark()
    timing(scene, 4.0, 1.0)
    scene.control.inject("cut", home(scene), "ldm", times=1, match="migrate-domain -c", at=at)
    run = migrate(scene)
    moved = at == "after"
    assert run.end() == (0 if moved else 1), run.events()
    assert codes(run) == ["ARRIVED" if moved else "MIGRATION_FAILED"]
    assert aim(scene) == (spare(scene) if moved else home(scene))
    assert scene.control.running(GUEST) == [spare(scene) if moved else home(scene)]
    as_before(scene, before, mark)


@pytest.mark.full
def test_preflight_refuses_with_all_reasons_and_opens_no_window(scene: Scene) -> None:
    before = window(scene, "cfguest1")
    scene.control.inject("migration_refused", home(scene), "ldm", text="Insufficient free VCPUs", dry=True)
    run = migrate(scene)
    assert run.end() == 1
    assert codes(run) == ["MIGRATION_REFUSED"]
    assert "Insufficient free VCPUs" in str(run.events("message")[0]["text"])
    scene.control.clear()
    neighbour = Migrating(scene, "cfguest1", (GUEST, "--to", "ctrl3"))
    assert neighbour.end() == 1
    assert codes(neighbour) == ["NEIGHBOURS"]
    itself = migrate(scene, node=MOVER)
    assert itself.end() == 1
    assert codes(itself) == ["ON_THE_MOVER"]
    dry = migrate(scene, "--dry-run")
    assert dry.end() == 0, dry.events()
    assert members(scene, "cfguest1") == set(scene.lab.nodes)
    assert window(scene, "cfguest1") == before
