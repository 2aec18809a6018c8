"""A real guest that somebody moves with plain virsh: seconds until it is noticed, the repair, and a window
that opens and closes itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_window import added, boot, proven, run, size, together

from standfast.core import names, strays
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.witness import Witness

pytestmark = [pytest.mark.timeout(900), pytest.mark.lab, pytest.mark.full]
NOTICED_SECONDS = 60.0
LIMIT_SECONDS = 240.0
DAEMON_LOG = "/var/log/standfast/standfastd.log"
GATE_LOG = "/var/log/standfast/gate.log"
NODES = ("cfguest1", "cfguest2")
SLOW_MIB_PER_SECOND = "4"


def configure(lab: VmLab, line: str) -> None:
    """One more line in clovmmigrate.conf of every node, or none, read by every daemon."""
    script = f"sed -i -e '/^repair =/d' -e '/^auto_window =/d' -e 's/^format = 1$/format = 1\\n{line}/' "
    for node in lab.nodes:
        done = lab.exec(node, ["/bin/sh", "-c", script + names.CONFIG_FILE])
        assert done.ok, done.stderr
    for node in lab.nodes:
        run(lab, node, "sdtool", "-r")


@pytest.fixture
def free(lab: VmLab) -> Iterator[VmLab]:
    """The lab, with guest2 on host2 and aimed at; afterwards with the configuration that it had."""
    yield lab
    print({key: value for key, value in status(lab).items() if key in ("phase", "reason", "alarms")})
    print(lab.exec("cfguest1", ["/bin/sh", "-c", "tail -n 60 /var/log/standfast/standfastd.log"]).stdout)
    configure(lab, "")


def told(lab: VmLab, node: str) -> list[dict[str, Any]]:
    """What a node tells of guests that are astray; empty while its daemon does not answer."""
    done = lab.exec(node, ["sdtool", "-s", "--json"], 30.0)
    return json.loads(done.stdout).get("unannounced", []) if done.ok else []


def status(lab: VmLab) -> dict[str, Any]:
    done = lab.exec("cfguest1", ["standfast", "window", "status", "--json"], 60.0)
    found: dict[str, Any] = json.loads(done.stdout) if done.ok else {}
    return found


def aimed(lab: VmLab) -> str:
    """The host at which cfguest2's agent aims."""
    done = lab.exec("cfguest1", ["standfast", "node", "list", "--json"], 60.0)
    rows = json.loads(done.stdout)["nodes"] if done.ok else []
    return next((str(row["host"]) for row in rows if row["node"] == "cfguest2"), "")


def test_a_guest_that_is_moved_with_virsh_is_noticed_and_one_node_retargets_its_fencing(free: VmLab) -> None:
    home = free.must_place("guest2").name
    target = "host3" if home == "host2" else "host2"
    proven(free, {"cfguest1": "host1", "cfguest2": home})
    configure(free, 'repair = "auto"')
    booted, held = boot(free, "cfguest2"), size(free, "cfguest1", GATE_LOG)
    free.migrate("guest2", target)
    began = time.monotonic()
    free.wait(lambda: bool(told(free, "cfguest1")) or aimed(free) == target, NOTICED_SECONDS, "the alarm")
    print(f"noticed {time.monotonic() - began:.1f} s after its arrival: {told(free, 'cfguest1')}")
    free.wait(lambda: aimed(free) == target, LIMIT_SECONDS, "the retarget")
    print(f"retargeted after {time.monotonic() - began:.1f} s")
    free.wait(lambda: status(free).get("phase") == "idle", LIMIT_SECONDS, "the end of the repair")
    print(f"proven after {time.monotonic() - began:.1f} s")
    proven(free, {"cfguest1": "host1", "cfguest2": target})
    free.wait(lambda: not any(told(free, node) for node in NODES), LIMIT_SECONDS, "the end of the alarm")
    assert " allow " not in added(free, "cfguest1", GATE_LOG, held)
    assert boot(free, "cfguest2") == booted


def test_a_guest_that_was_moved_with_virsh_and_is_off_is_fenced_once_a_repair_has_aimed_at_it(
    free: VmLab,
) -> None:
    home = free.must_place("guest2").name
    target = "host3" if home == "host2" else "host2"
    proven(free, {"cfguest1": "host1", "cfguest2": home})
    booted, held = boot(free, "cfguest2"), size(free, "cfguest1", GATE_LOG)
    free.migrate("guest2", target)
    free.host(target).must_virsh("destroy", "guest2")
    free.wait(
        lambda: any(one["state"] == "off" for one in told(free, "cfguest1")), NOTICED_SECONDS, "the alarm"
    )
    assert free.states("guest2") == {target: "shut off"}, "its agent finds no such guest where it aims"
    run(free, "cfguest1", "standfast", "window", "repair", "guest2")
    assert aimed(free) == target
    # The fencing that has succeeded boots it again.
    seen = Witness(free)
    free.wait(lambda: seen.boot("cfguest2") not in ("", booted.strip()), LIMIT_SECONDS, "another boot")
    assert "rule=clear" in added(free, "cfguest1", GATE_LOG, held)
    together(free)
    run(free, "cfguest1", "clovmmigrate", "-u", "guest2", target)
    proven(free, {"cfguest1": "host1", "cfguest2": target})


def test_a_migration_that_virsh_begins_opens_a_window_before_the_switch_over(free: VmLab) -> None:
    home = free.must_place("guest2").name
    target = "host3" if home == "host2" else "host2"
    proven(free, {"cfguest1": "host1", "cfguest2": home})
    configure(free, "auto_window = true")
    booted, held = boot(free, "cfguest2"), size(free, "cfguest1", GATE_LOG)
    free.host(home).must_virsh("migrate-setspeed", "guest2", SLOW_MIB_PER_SECOND)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as beside:
        moving = beside.submit(free.migrate, "guest2", target, blackout_seconds=14.0)
        opened = 0.0
        while not moving.done() and not opened:
            found = status(free)
            if found.get("phase") == "open" and found["killing_gate_on"] and not found["command_alive_on"]:
                opened = time.monotonic() - began
                assert found["reason"] == strays.AUTO_REASON
                assert (found["mode"], found["target"]) == ("guarded", target)
                print(f"open {opened:.1f} s after virsh began")
                free.host(home).virsh("migrate-setspeed", "guest2", "1000")
            time.sleep(0.5)
        moved = moving.result()
    assert opened, "the migration had ended before"
    print(f"the blackout: {moved.blackout.seconds:.1f} s, {moved.seconds:.1f} s in all")
    together(free)
    began = time.monotonic()
    free.wait(lambda: status(free).get("phase") == "idle", LIMIT_SECONDS, "the close")
    print(f"closed {time.monotonic() - began:.1f} s after the node was back")
    assert " allow " not in added(free, "cfguest1", GATE_LOG, held)
    assert boot(free, "cfguest2") == booted
    proven(free, {"cfguest1": "host1", "cfguest2": target})
    free.host(target).virsh("migrate-setspeed", "guest2", "1000")
