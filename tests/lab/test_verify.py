"""``standfast verify`` on a real cluster: what is proven is what the running fencers would do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from window_kit import GUEST, MOVER, eventually, home, migrate_command, spare

from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(480)
ASKED, ODD = "cfguest1", "cfguest3"
DEVICE = f"SA_xscfsnmpg0p-{MOVER}"


def verified(scene: Scene) -> dict[str, Any]:
    done = scene.run(ASKED, "standfast", "verify", "--json", limit_seconds=120.0)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1), done.stderr
    return found


def proven_again(scene: Scene) -> dict[str, Any]:
    """What is found as soon as all is proven, or in the end."""
    found: list[dict[str, Any]] = []

    def proven() -> bool:
        found.append(verified(scene))
        return bool(found[-1]["ok"])

    eventually(proven, 90.0)
    return found[-1]


def unproven(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    cells = [cell for guest in found["guests"] for cell in guest["agents"]]
    return [(cell["device"], cell["from"], cell["why"]) for cell in cells if not cell["proven"]]


def troubles(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(guest["guest"], one["code"]) for guest in found["guests"] for one in guest["troubles"]]


def test_a_device_that_somebody_registered_by_hand_is_found_and_no_window_is_opened_over_it(
    scene: Scene,
) -> None:
    found = verified(scene)
    assert found["ok"]
    assert sum(len(guest["agents"]) for guest in found["guests"]) == 3 * 4 * 2
    stale = ("-o", "ip=10.20.30.99", "-o", "domain=guest2", "-o", f"pcmk_host_list={MOVER}")
    assert scene.run(ODD, "stonith_admin", "--register", DEVICE, "-a", "fence_xscf", *stale).ok
    found = verified(scene)
    ((device, seen_from, why),) = unproven(found)
    assert (device, seen_from) == (DEVICE, ODD)
    assert "ip 10.20.30.99 not 10.20.30.72" in why
    refused = migrate_command(scene, ASKED, "-p", GUEST)
    assert refused.returncode == 1
    assert "[FENCER_DIFFERS]" in refused.stderr
    assert scene.run(ODD, "stonith_admin", "--deregister", DEVICE).ok
    found = verified(scene)
    assert [(cell[0], cell[1]) for cell in unproven(found)] == [(DEVICE, ODD)]
    assert "does not have it" in unproven(found)[0][2]
    # Its configuration read anew: here by a change of the device, in the field by a start of Pacemaker.
    for value in ("76s", "75s"):
        argv = ("crm_resource", "--resource", DEVICE, "--set-parameter", "pcmk_off_timeout", "-v", value)
        assert scene.run(ODD, *argv).ok
    found = proven_again(scene)
    assert found["ok"], (unproven(found), troubles(found))


@pytest.mark.full
def test_a_guest_that_somebody_moved_and_a_host_that_is_silent_are_named_and_repair_proves_it_again(
    scene: Scene,
) -> None:
    scene.control.migrate(GUEST, spare(scene), duration_seconds=1.0, blackout_seconds=0.2)
    assert scene.control.wait_migration(GUEST)["phase"] == "done"
    found = verified(scene)
    assert troubles(found) == [(GUEST, "STALE_AIM")]
    assert {cell[0] for cell in unproven(found)} == {
        f"SA_xscfsnmpg{lan}{kill}-{MOVER}" for lan in (0, 1) for kill in "pr"
    }
    assert scene.run(ASKED, "standfast", "window", "repair", limit_seconds=240.0).ok
    assert verified(scene)["ok"]
    scene.control.inject("path_dead", home(scene), "ldm", mode="refused")
    found = verified(scene)
    assert set(troubles(found)) == {(f"guest{number}", "HOST_SILENT") for number in (1, 2, 3)}
    scene.control.clear()
    found = proven_again(scene)
    assert found["ok"], (unproven(found), troubles(found))
