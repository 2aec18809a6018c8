"""Real guests: they boot into one cluster, move, stand still, are mistaken for off, and die.

The tests are in the order of how much they break; each leaves a lab that comes to rest by itself.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from standfast.cluster.run import Result
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.seed import KEY_FILE

pytestmark = [pytest.mark.timeout(400), pytest.mark.lab]
AGENT_LIMIT_SECONDS = 60.0
DEVICES_LIMIT_SECONDS = 120.0
VERIFY_LIMIT_SECONDS = 120.0
RING_LOG = "/var/log/corosync/corosync.log"
SLACK_SECONDS = 1.5
"""Of a blackout's end under emulation on a busy machine; 0.05 to 0.2 s were measured on a quiet one."""


def test_guests_boot_and_are_one_cluster_with_standfastd_on_every_node(lab: VmLab) -> None:
    assert [lab.must_place(guest).name for guest in lab.spec.guests] == ["host1", "host2"]
    for node in lab.nodes:
        seen = lab.status(node)
        assert seen is not None
        assert seen.quorate
        assert {one.name for one in seen.nodes if one.well} == {"cfguest1", "cfguest2"}
        assert lab.daemon_ready(node)
        assert lab.exec(node, ["hostname"]).stdout == f"{node}\n"
    # Who has settled may still be starting the gates.
    lab.wait(
        lambda: devices_are_placed(lab), DEVICES_LIMIT_SECONDS, "each device, and its gate, on the other"
    )


def test_fencing_is_proven_from_every_node(lab: VmLab) -> None:
    """The running fencers' devices, asked now, see these guests on these hosts, and nowhere else."""
    done = lab.exec("cfguest1", ["standfast", "verify", "--json"], VERIFY_LIMIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    guests = json.loads(done.stdout)["guests"]
    assert {guest["guest"]: guest["aim"] for guest in guests} == {"guest1": "host1", "guest2": "host2"}
    for guest in guests:
        assert guest["proven"]
        other = next(node for node in lab.nodes if node != guest["node"])
        assert (f"SA_virsh-{guest['node']}", other, True) in {
            (agent["device"], agent["from"], agent["proven"]) for agent in guest["agents"]
        }


def test_a_guest_moves_there_and_back_and_no_node_leaves_the_cluster(lab: VmLab) -> None:
    seen = {node: len(lab.exec(node, ["cat", RING_LOG]).stdout) for node in lab.nodes}
    there = lab.migrate("guest1", "host3")
    assert lab.states("guest1") == {"host3": "running"}
    back = lab.migrate("guest1", "host1")
    assert lab.states("guest1") == {"host1": "running"}
    for moved in (there, back):
        assert 0 < moved.blackout.seconds < 3
    for node in lab.nodes:
        assert "Sync left" not in lab.exec(node, ["cat", RING_LOG]).stdout[seen[node] :]
        assert lab.members(node).endswith("2 nodes")


@pytest.mark.full
def test_a_guest_stands_still_for_an_exact_time_and_its_clock_with_it(lab: VmLab) -> None:
    outside, inside = time.monotonic(), uptime(lab, "cfguest2")
    done = lab.blackout("guest2", 3)
    lag = (time.monotonic() - outside) - (uptime(lab, "cfguest2") - inside)
    assert 3 <= done.seconds < 3 + SLACK_SECONDS
    assert lag == pytest.approx(done.seconds, abs=SLACK_SECONDS)
    assert lab.states("guest2") == {"host2": "running"}


def test_a_blackout_beyond_the_heartbeat_timeout_drops_the_node_and_it_comes_back(lab: VmLab) -> None:
    with fencing_off(lab), heartbeat(lab, token=1000, consensus=1200):
        seen = len(lab.exec("cfguest1", ["cat", RING_LOG]).stdout)
        moved = lab.migrate("guest2", "host3", blackout_seconds=5)
        assert 5 <= moved.blackout.seconds < 5 + SLACK_SECONDS
        lab.wait(lambda: lab.members("cfguest2") == lab.members("cfguest1"), 60, "one ring")
        said = lab.exec("cfguest1", ["cat", RING_LOG]).stdout[seen:]
        assert "Sync left[1]: 2" in said, "cfguest2 was dropped"
        assert said.rindex("Sync joined[1]: 2") > said.rindex("Sync left[1]: 2"), "and is back"
        lab.wait_ready()
    lab.wait_settled()
    lab.migrate("guest2", "host2")


def test_a_stale_fence_virsh_says_already_off_of_a_guest_that_runs_elsewhere(lab: VmLab) -> None:
    lab.migrate("guest1", "host3", undefine_source=False)
    assert lab.states("guest1") == {"host1": "shut off", "host3": "running"}
    stale = fence_virsh(lab, "host1", "guest1", "off")
    assert (stale.returncode, "Success: Already OFF" in stale.stdout) == (0, True)
    assert lab.states("guest1")["host3"] == "running"
    assert len(lab.powered()) == 2, "nobody was stopped: the success was a lie"
    lab.host("host1").must_virsh("undefine", "guest1")
    assert fence_virsh(lab, "host1", "guest1", "off").returncode == 1, "without the definition it only fails"
    assert fence_virsh(lab, "host3", "guest1", "status").returncode == 0
    lab.migrate("guest1", "host1")


@pytest.mark.costs(0.8)
def test_libvirt_sees_a_panic_and_the_cluster_fences_and_restarts_the_guest(lab: VmLab) -> None:
    lab.power("guest1", "panic")
    host = lab.host("host1")
    assert host.must_virsh("domstate", "--reason", "guest1") == "shut off (crashed)"
    lab.wait(lambda: host.domains()["guest1"] == "running", 120, "fence_virsh to start guest1 again")
    # The agent turns the guest on, and then still looks whether it is on.
    lab.wait(lambda: was_rebooted(lab, "cfguest1"), AGENT_LIMIT_SECONDS, "the fencer's word that it is done")
    lab.wait_ready()


@pytest.mark.full
def test_a_host_without_power_ends_its_guests_and_is_no_proof_for_the_cluster(lab: VmLab) -> None:
    host = lab.host("host2")
    pid = host.qemu_pid("guest2")
    assert pid is not None
    lab.power("host2", "off")
    assert host.group.pids() == []
    assert not lab.is_on("guest2")
    assert lab.powered() == {"cfguest1"}

    def unclean() -> bool:
        seen = lab.status("cfguest1")
        lost = seen.node("cfguest2") if seen else None
        return lost is not None and lost.unclean

    lab.wait(unclean, 60, "cfguest2 to be UNCLEAN")
    assert fence_virsh(lab, "host2", "guest2", "off").returncode == 1
    lab.power("host2", "on")
    lab.wait(lambda: host.domains() == {"guest2": "running"}, 120, "the next fencing to restart guest2")


def devices_are_placed(lab: VmLab) -> bool:
    """Each node's fence device and gate run on the other node."""
    seen = lab.status("cfguest1")
    places = {one.name: one.nodes for one in seen.resources if one.role == "Started"} if seen else {}
    wanted = {"cfguest1": ("cfguest2",), "cfguest2": ("cfguest1",)}
    return all(
        places.get(device) == other
        for node, other in wanted.items()
        for device in (f"SA_virsh-{node}", f"gate-{node}-1")
    )


def was_rebooted(lab: VmLab, node: str) -> bool:
    """The fencer's history has a reboot of this node that came to its end."""
    shown = lab.exec("cfguest2", ["stonith_admin", "--history", node]).stdout
    return "reboot" in shown


def fence_virsh(lab: VmLab, host: str, guest: str, action: str) -> Result:
    """As the cluster calls it, from the node in the other guest."""
    node = "cfguest2" if guest == "guest1" else "cfguest1"
    options = {"action": action, "ip": host, "username": "root", "identity_file": KEY_FILE, "plug": guest}
    # An emulated guest beside other work takes its time for the login.
    options |= {"login_timeout": "30", "shell_timeout": "20"}
    text = "".join(f"{name}={value}\n" for name, value in options.items())
    return lab.exec(node, ["fence_virsh"], AGENT_LIMIT_SECONDS, input=text)


def uptime(lab: VmLab, node: str) -> float:
    """CLOCK_BOOTTIME of a node, in seconds."""
    return float(lab.exec(node, ["cat", "/proc/uptime"]).stdout.split()[0])


@contextmanager
def fencing_off(lab: VmLab) -> Iterator[None]:
    """Without fencing, for a blackout that nothing guards."""
    lab.set_fencing(False)
    try:
        yield
    finally:
        lab.set_fencing(True)


@contextmanager
def heartbeat(lab: VmLab, *, token: int, consensus: int) -> Iterator[None]:
    """Other heartbeat values, in ms, on every node (cmap_keys(8): they count as soon as they are set)."""
    old = {key: running(lab, key) for key in ("token", "consensus")}
    set_running(lab, {"token": token, "consensus": consensus})
    try:
        yield
    finally:
        set_running(lab, dict(reversed(old.items())))


def running(lab: VmLab, key: str) -> int:
    """A totem value in force on the first node."""
    done = lab.exec("cfguest1", ["corosync-cmapctl", "-g", f"runtime.config.totem.{key}"])
    return int(done.stdout.split("=")[1])


def set_running(lab: VmLab, values: dict[str, int]) -> None:
    """Set totem values on every node and read them back."""
    for node in lab.nodes:
        for key, value in values.items():
            lab.exec(node, ["corosync-cmapctl", "-s", f"totem.{key}", "u32", str(value)])
            done = lab.exec(node, ["corosync-cmapctl", "-g", f"runtime.config.totem.{key}"])
            assert done.stdout.endswith(f"= {value}\n"), done
