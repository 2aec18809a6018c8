"""With Standfast gone from every node, the one kept line gives fencing back to the devices that are left."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from standfast.core import rescue
from standfast.core.names import CONTROL_DOMAIN_KEY_FILE, DAEMON_LOCK_FILE, KNOWN_HOSTS_FILE, RESCUE_FILE
from standfast.lab.scene import Scene

FENCE_LDOM = f"""<configuration>
<resources>
 <primitive id="gate-ldom" class="stonith" type="fence_standfast">
  <instance_attributes id="gate-ldom-a">
   <nvpair id="gate-ldom-h" name="pcmk_host_list" value="cfguest2"/>
  </instance_attributes>
 </primitive>
 <primitive id="ldom" class="stonith" type="fence_ldom">
  <instance_attributes id="ldom-a">
   <nvpair id="ldom-m" name="pcmk_host_map" value="cfguest2:guest2"/>
   <nvpair id="ldom-i" name="ip" value="10.20.50.72"/>
   <nvpair id="ldom-u" name="username" value="standfast"/>
   <nvpair id="ldom-s" name="ssh" value="1"/>
   <nvpair id="ldom-k" name="identity_file" value="{CONTROL_DOMAIN_KEY_FILE}"/>
   <nvpair id="ldom-x" name="ssh_options" value="-F none -o UserKnownHostsFile={KNOWN_HOSTS_FILE}"/>
   <nvpair id="ldom-w" name="power_wait" value="0"/>
  </instance_attributes>
 </primitive>
</resources>
<constraints>
 <rsc_location id="ban-gate-ldom" rsc="gate-ldom" node="cfguest2" score="-INFINITY"/>
 <rsc_location id="ban-ldom" rsc="ldom" node="cfguest2" score="-INFINITY"/>
</constraints>
<fencing-topology>
 <fencing-level id="fl-ldom" target="cfguest2" index="5" devices="gate-ldom,ldom"/>
</fencing-topology>
</configuration>"""
"""A user's own device behind a gate, in a level of its own: Debian's agent for the control domain."""
PROGRAMS = "standfast standfastd fence_standfast fence_xscf clovmmigrate clsnmpsetup sdtool"
HELD_SECONDS = 20.0
LIMIT_SECONDS = 90.0


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene.up(2)
    yield made
    made.down()


def started_elsewhere(scene: Scene) -> bool:
    return any(
        (e.resource, e.action, e.node) == ("r-cfguest2", "start", "cfguest1") for e in scene.lab.events()
    )


@pytest.mark.timeout(300)
@pytest.mark.full
def test_the_kept_line_takes_the_gates_out_when_no_program_of_standfast_is_left(scene: Scene) -> None:
    argv = ["cibadmin", "--modify", "--allow-create", "--scope", "configuration", "--xml-pipe"]
    added = scene.lab.exec("cfguest1", argv, input=FENCE_LDOM)
    assert added.ok, added.stderr
    kept = scene.path("cfguest1", RESCUE_FILE)
    scene.wait(
        lambda: kept.exists() and "fl-ldom" in kept.read_text(), 30.0, "the daemon to keep the way out"
    )
    assert rescue.COMMAND in kept.read_text()
    scene.wait(scene.settled, 60.0, "the new device to be started")
    for node in scene.lab.nodes:
        scene.run(node, "/bin/sh", "-c", f"kill -9 $(cat {DAEMON_LOCK_FILE}); cd /usr/sbin && rm {PROGRAMS}")
        assert scene.run(node, "/bin/sh", "-c", "command -v standfast fence_standfast").returncode != 0

    scene.lab.freeze("cfguest2")
    gone = time.monotonic()
    scene.wait(lambda: "cfguest2" not in members(scene), 30.0, "the ring to drop the hung node")
    scene.wait(
        lambda: time.monotonic() > gone + HELD_SECONDS, HELD_SECONDS + 5, "fencing to be tried without gates"
    )
    assert scene.lab.alive("cfguest2"), "without its gate no level may succeed"
    assert not started_elsewhere(scene)

    done = scene.run("cfguest1", *rescue.COMMAND.split())
    assert done.ok, done.stderr
    scene.wait(lambda: started_elsewhere(scene), LIMIT_SECONDS, "the service to be recovered")
    assert not scene.lab.alive("cfguest2")


def members(scene: Scene) -> set[str]:
    text = scene.run("cfguest1", "corosync-quorumtool", "-l", limit_seconds=10.0).stdout
    return set(re.findall(r"cfguest\d+", text))
