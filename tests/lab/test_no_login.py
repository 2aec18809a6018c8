"""A site that gives Standfast no login on its control domains: the page, with the saving done by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from window_kit import BUDGET, GUEST, Picture, home, migrate_command, spare, window

from standfast.core import names
from standfast.lab.scene import Scene

pytestmark = pytest.mark.full


class Closed(Scene):
    """Figure 14.1 without any login in clovmmigrate.conf, and no key for one."""

    def config_text(self, extra: dict[str, object]) -> str:
        text = super().config_text(extra)
        return "\n".join(line for line in text.splitlines() if not line.startswith("login =")) + "\n"


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Closed.up(2)
    yield made
    made.down()


def save_by_hand(scene: Scene, host: str) -> None:
    """What the page has the operator type on a control domain."""
    done = scene.run(
        scene.lab.nodes[0], "ssh", "-F", "none", "-i", "/run/by-hand.key", "-o", "BatchMode=yes",
        "-o", f"UserKnownHostsFile={names.KNOWN_HOSTS_FILE}", "-l", scene.written.control_user,
        f"10.20.50.7{host[-1]}", "ldm add-spconfig by-hand",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_page_with_the_configuration_saved_by_hand(scene: Scene) -> None:
    one, two = scene.lab.nodes
    scene.put(one, "/run/by-hand.key", scene.written.client_key.read_text(), mode="600")
    scene.run(one, "rm", names.CONTROL_DOMAIN_KEY_FILE)
    scene.run(two, "rm", names.CONTROL_DOMAIN_KEY_FILE)
    before = Picture.of(scene)

    opened = migrate_command(scene, one, "-p", GUEST, *BUDGET)
    assert opened.returncode == 0, opened.stderr
    scene.control.migrate(GUEST, spare(scene), duration_seconds=1.0, blackout_seconds=2.0)
    assert scene.control.wait_migration(GUEST)["phase"] == "done"

    # Nothing saved yet: both control domains are named, with what to type; fencing stays held.
    unsaved = migrate_command(scene, two, "-u", GUEST, spare(scene))
    assert unsaved.returncode == 3
    assert "[NOT_SAVED]" in unsaved.stderr
    assert f"ldm add-spconfig NAME (on {spare(scene)} and on {home(scene)};" in unsaved.stderr
    assert window(scene, one).open

    # Only the target: the source's XSCF goes on listing the guest.
    save_by_hand(scene, spare(scene))
    half = migrate_command(scene, two, "-u", GUEST, spare(scene))
    assert half.returncode == 3
    assert f"its XSCF shows {GUEST} as 'Host stopped'" in half.stderr
    assert f"--saved {home(scene)}" in half.stderr

    save_by_hand(scene, home(scene))
    closed = migrate_command(scene, two, "-u", GUEST, spare(scene))
    assert closed.returncode == 0, closed.stderr
    assert closed.stderr.count("is saved by hand, seen by its XSCF") == 2
    after = Picture.of(scene)
    assert [line for line in before.differences(after) if not line.startswith("configuration was")] == []
    # Nothing of ours logged in anywhere on a control domain.
    typed = [e["line"] for e in scene.control.log(0, event="command") if str(e["line"]).startswith("ldm ")]
    assert typed == ["ldm add-spconfig by-hand"] * 2
