"""Windows of real guests: a real migration, a real blackout, fence_virsh behind its gate.

In the order of the story; each test leaves the guest where the next one finds it.
"""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.rounds import MAX_TRIES, TRY_AGAIN, tested
from standfast.lab.vm.seed import BUDGET_SECONDS
from standfast.lab.vm.witness import set_clock

pytestmark = [pytest.mark.timeout(600), pytest.mark.lab, pytest.mark.full]
COMMAND_LIMIT_SECONDS = 180.0
BLACKOUT_SECONDS = 16.0
"""Longer than the heartbeat timeout of 10 s: the node is dropped in it."""
SLOW = (*(f"[{code}]" for code in sorted(TRY_AGAIN)), "shows Testing")
SETTLED_LIMIT_SECONDS = 120.0
GATE_LOG = "/var/log/standfast/gate.log"
RING_LOG = "/var/log/corosync/corosync.log"
SWITCHLOG = "/var/log/standfast/switchlog"
LOST = "(WRP, 34): WARNING: Cluster host cfguest2 is no longer in time sync with local node."
AGAIN = "(WRP, 34): NOTICE: Cluster host cfguest2 is in time sync with local node again."
LONG_BLACKOUT_SECONDS = 20.0
TOKEN_MS = int(BUDGET_SECONDS * 1000 / 2.2)
"""Token of the raised heartbeat; consensus is 1.2 times as long."""
CLOCK_ERROR_SECONDS = 3.0
"""How far off the lag may be: the blackout is at least so long, and the clock was set by a slow command."""


def test_a_guarded_window_takes_a_guest_through_a_blackout_and_fencing_follows_it(lab: VmLab) -> None:
    proven(lab, {"cfguest1": "host1", "cfguest2": "host2"})
    booted = boot(lab, "cfguest2")
    run(lab, "cfguest1", "standfast", "window", "open", "guest2", "--to", "host3")
    marks = {node: size(lab, node, RING_LOG) for node in lab.nodes}
    held = size(lab, "cfguest1", GATE_LOG)
    moved = lab.migrate("guest2", "host3", blackout_seconds=BLACKOUT_SECONDS)
    assert moved.blackout.seconds >= BLACKOUT_SECONDS
    together(lab)
    assert "Sync left[1]: 2" in added(lab, "cfguest1", RING_LOG, marks["cfguest1"]), "it was dropped"
    assert "rule=kill" in added(lab, "cfguest1", GATE_LOG, held), "and its killing gate was asked"
    assert " allow " not in added(lab, "cfguest1", GATE_LOG, held), "which killed nobody"
    run(lab, "cfguest1", "standfast", "window", "close", "guest2", "--to", "host3")
    assert boot(lab, "cfguest2") == booted
    assert lab.states("guest2") == {"host3": "running"}
    proven(lab, {"cfguest1": "host1", "cfguest2": "host3"})
    assert json.loads(run(lab, "cfguest1", "standfast", "window", "status", "--json"))["open"] is False


def test_a_guest_moved_without_a_window_is_held_and_not_called_off_by_the_host_that_it_left(
    lab: VmLab,
) -> None:
    booted, held = boot(lab, "cfguest2"), size(lab, "cfguest1", GATE_LOG)
    moved = lab.migrate("guest2", "host2", blackout_seconds=BLACKOUT_SECONDS, undefine_source=False)
    assert moved.blackout.seconds >= BLACKOUT_SECONDS
    assert lab.states("guest2") == {"host2": "running", "host3": "shut off"}
    together(lab)
    said = added(lab, "cfguest1", GATE_LOG, held)
    assert " hold " in said, "the cluster wanted it fenced, and its gate held"
    # An emulated node beside other work may not get an answer of its own engine in time: that holds too.
    rules = set(re.findall(r" hold rule=(\S+)", said))
    assert rules <= {"elsewhere", "settling", "target-back", "not-joined"}
    assert " allow " not in said
    assert boot(lab, "cfguest2") == booted, "it was not started a second time, nor killed"
    run(lab, "cfguest1", "standfast", "window", "repair")
    proven(lab, {"cfguest1": "host1", "cfguest2": "host2"})
    lab.host("host3").must_virsh("undefine", "guest2")


def test_clovmmigrate_takes_a_guest_there_the_ring_stays_whole_and_it_waits_for_the_lagging_clock(
    lab: VmLab,
) -> None:
    set_clock(lab, "cfguest2", like="cfguest1")
    lab.wait(lambda: clocks(lab)["clocks_agree"] is True, SETTLED_LIMIT_SECONDS, "clocks that agree")
    said = size(lab, "cfguest1", SWITCHLOG)
    booted = boot(lab, "cfguest2")
    run(lab, "cfguest1", "clovmmigrate", "-p", "guest2")
    marks = {node: size(lab, node, RING_LOG) for node in lab.nodes}
    moved = lab.migrate("guest2", "host3", blackout_seconds=LONG_BLACKOUT_SECONDS)
    assert moved.blackout.seconds >= LONG_BLACKOUT_SECONDS
    with ThreadPoolExecutor(1) as beside:
        closing = beside.submit(run, lab, "cfguest1", "clovmmigrate", "-u", "guest2", "host3")
        lab.wait(lambda: LOST in added(lab, "cfguest1", SWITCHLOG, said), SETTLED_LIMIT_SECONDS, "(WRP, 34)")
        lab.wait(lambda: waits(lab), SETTLED_LIMIT_SECONDS, "the close to wait for the clocks")
        assert not closing.done()
        token = lab.exec("cfguest1", ["corosync-cmapctl", "-g", "runtime.config.totem.token"]).stdout
        assert f"= {TOKEN_MS}\n" in token, "the heartbeat has not come down"
        set_clock(lab, "cfguest2", like="cfguest1")
        print(closing.result())
    lab.wait(lambda: AGAIN in added(lab, "cfguest1", SWITCHLOG, said), SETTLED_LIMIT_SECONDS, "its end")
    print(added(lab, "cfguest1", SWITCHLOG, said))
    for node in lab.nodes:
        assert "Sync left" not in added(lab, node, RING_LOG, marks[node])
    assert boot(lab, "cfguest2") == booted
    proven(lab, {"cfguest1": "host1", "cfguest2": "host3"})
    run(lab, "cfguest1", "standfast", "window", "open", "guest2", "--to", "host2")
    lab.migrate("guest2", "host2")
    run(lab, "cfguest1", "standfast", "window", "close")
    proven(lab, {"cfguest1": "host1", "cfguest2": "host2"})


def clocks(lab: VmLab) -> dict[str, Any]:
    """What the nodes say of their clocks."""
    found: dict[str, Any] = json.loads(run(lab, "cfguest1", "standfast", "window", "status", "--json"))
    return found


def waits(lab: VmLab) -> bool:
    """The record is closing, its guest proven, and the clock of the guest that has moved lags."""
    found = clocks(lab)
    offset = found["clock_offsets_seconds"].get("cfguest1", {}).get("cfguest2", 0.0)
    print(found["phase"], found["clocks"], offset)
    return found["phase"] == "closing" and abs(offset + LONG_BLACKOUT_SECONDS) < CLOCK_ERROR_SECONDS


def run(lab: VmLab, node: str, *argv: str) -> str:
    """A command of Standfast on a node, which must do what it is told.

    It is typed again where an emulated guest beside other work was too slow for a limit of a few seconds on
    the way to its own engine, or where its agents are just being tested: nothing was changed then.
    """
    said = []
    for _ in range(MAX_TRIES):
        begun = time.monotonic()
        done = lab.exec(node, argv, COMMAND_LIMIT_SECONDS)
        took = time.monotonic() - begun
        said.append(f"{done.returncode} after {took:.1f} s: {done.stdout}{done.stderr}")
        if done.ok:
            print(f"{' '.join(argv)}\n{said[-1]}")
            return done.stdout
        if not any(code in said[-1] for code in SLOW):
            break
    raise AssertionError(f"{' '.join(argv)}:\n" + "\n".join(said))


def proven(lab: VmLab, aims: dict[str, str]) -> None:
    """Each node's agent aims at this host, and works from every node."""
    shown = json.loads(run(lab, "cfguest1", "standfast", "node", "list", "--json"))["nodes"]
    assert {entry["node"]: entry["host"] for entry in shown} == aims
    assert all(not entry["faults"] for entry in shown)
    for node in lab.nodes:
        lab.wait(lambda node=node: tested(lab, node), SETTLED_LIMIT_SECONDS, f"the agents on {node}")  # type: ignore[misc]


def together(lab: VmLab) -> None:
    """Both nodes are one ring again, and the cluster has come to rest."""
    lab.wait(lambda: lab.members("cfguest2") == lab.members("cfguest1"), SETTLED_LIMIT_SECONDS, "one ring")
    lab.wait_ready()


def boot(lab: VmLab, node: str) -> str:
    """What changes when a node boots (random(4))."""
    return lab.exec(node, ["cat", "/proc/sys/kernel/random/boot_id"]).stdout


def size(lab: VmLab, node: str, path: str) -> int:
    """How long a log is; 0 where there is none yet."""
    return len(lab.exec(node, ["cat", path]).stdout)


def added(lab: VmLab, node: str, path: str, since: int) -> str:
    """What was written to a log since it was so long."""
    return lab.exec(node, ["cat", path]).stdout[since:]
