"""A frozen window that outlives its lease while its mover is lost: it is armed, and the killing gate acts."""

from __future__ import annotations

import json

import pytest
from test_fencing_window import gate_lines, service_runs_elsewhere
from test_guarded import answers_since, recovered, status
from window_kit import (
    GUEST,
    MOVER,
    Picture,
    eventually,
    home,
    kills,
    members,
    migrate_command,
    opened,
    power_on,
    restore,
    starts_and_stops,
    unclean,
    window,
)

from standfast.core.record import Armed, Mode, Phase
from standfast.lab.scene import Scene

LEASE_SECONDS = 60
ARMING_SECONDS = 60 + 60
"""The absence is watched for a minute past the lease; the rest is the close that comes first, and slack."""
PLAIN_SECONDS = 60
"""Then a guest that runs has a minute to be a member again."""


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_mover_that_hangs_in_a_forgotten_window_is_armed_for_killed_and_proven(scene: Scene) -> None:
    before, said = Picture.of(scene), gate_lines(scene, MOVER)
    opened(scene, "cfguest1", GUEST, "--lease", "1", "--budget", "20")
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.control.call("hang", name=GUEST)
    assert eventually(lambda: MOVER in unclean(scene, "cfguest1"), 60), "the ring has not dropped it"
    frozen = window(scene, "cfguest1")
    assert (frozen.mode, frozen.armed) == (Mode.FROZEN, Armed.NO)

    assert eventually(
        lambda: window(scene, "cfguest1").armed is not Armed.NO, LEASE_SECONDS + ARMING_SECONDS
    ), status(scene, "cfguest1")
    armed = window(scene, "cfguest3")
    assert (armed.phase, armed.mode, armed.mover, armed.armed) == (
        Phase.OPEN,
        Mode.GUARDED,
        MOVER,
        Armed.FOR_MOVER,
    )
    assert (armed.totem, armed.budget_seconds) == (frozen.totem, frozen.budget_seconds), "raised or lowered"
    assert kills(scene, mark) == [], "nobody was killed before it was armed"
    assert eventually(lambda: status(scene, "cfguest3")["killing_gate_on"] == ["cfguest1", "cfguest3"], 15)

    took = recovered(scene, known, PLAIN_SECONDS + 60)
    assert [(entry["action"], entry["host"]) for entry in kills(scene, mark)] == [("stop", home(scene))]
    assert service_runs_elsewhere(scene)
    allowed = [line for line in answers_since(scene, said) if " allow " in line]
    assert allowed
    assert all(" allow rule=kill " in line for line in allowed), allowed
    alarms = json.dumps(status(scene, "cfguest1")["alarms"])
    assert f"armed: {MOVER} is fenced by its killing gate" in alarms
    print(f"recovered {took:.1f} s after all fencers had the killing gate")

    power_on(scene, MOVER, GUEST)
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 90)
    # The nodes go on trying to close it by themselves: an operator's -u is BUSY while one of them is at it.
    assert eventually(
        lambda: (
            window(scene, "cfguest1").phase is Phase.IDLE
            or migrate_command(scene, "cfguest3", "-u", GUEST, home(scene)).returncode == 0
        ),
        150,
    )
    found = window(scene, "cfguest1")
    assert (found.phase, found.mode, found.armed) == (Phase.IDLE, Mode.FROZEN, Armed.NO)
    later = Picture.of(scene)
    assert later.configuration == before.configuration
    assert {n: (one.conf, one.totem) for n, one in later.nodes.items()} == {
        n: (one.conf, one.totem) for n, one in before.nodes.items()
    }
    restore(scene)
