"""What the tests of the window share: pictures of a cluster to compare, commands killed half-way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.cluster.run import Result
from standfast.core import names, record
from standfast.core.record import Phase, Record
from standfast.lab.cluster import Lab
from standfast.lab.scene import Scene

GUEST, MOVER = "guest2", "cfguest2"
COROSYNC_CONF = "/etc/corosync/corosync.conf"
COMMAND_LIMIT_SECONDS = 180.0
POLL_SECONDS = 0.1
BUDGET = ("--budget", "15")
"""A window whose heartbeat timeout ends within a test's time."""
KILLS = ("panic", "sir", "stop")


def home(scene: Scene) -> str:
    """The control domain on which the mover starts."""
    return "ctrl2"


def spare(scene: Scene) -> str:
    """The control domain to which it moves: the one without a guest of its own."""
    return f"ctrl{len(scene.lab.nodes) + 1}"


# -- pictures ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """What of one node a window must leave as it was."""

    conf: str
    totem: dict[str, str]
    ring: str


@dataclass(frozen=True)
class Picture:
    """What of a whole cluster a window must leave as it was."""

    nodes: dict[str, Node]
    configuration: str
    """The CIB's configuration section without the record."""
    fencing: dict[str, int]
    events: int
    """How often a service was started or stopped so far."""

    @classmethod
    def of(cls, scene: Scene, *nodes: str) -> Picture:
        """Take it, from all nodes or from some."""
        chosen = nodes or scene.lab.nodes
        return cls(
            {node: Node(conf(scene, node), scene.heartbeat(node), ring(scene, node)) for node in chosen},
            configuration(cib(scene, chosen[0])),
            {node: fencings(scene, node) for node in chosen},
            len(starts_and_stops(scene.lab)),
        )

    def differences(self, later: Picture) -> list[str]:
        """What is not the same, in words; empty when all is."""
        found = []
        for node, before in self.nodes.items():
            after = later.nodes[node]
            if before.conf != after.conf:
                found.append(f"{node}: corosync.conf was {before.conf!r} and is {after.conf!r}")
            for key in sorted(before.totem.keys() | after.totem.keys()):
                if before.totem.get(key) != after.totem.get(key):
                    found.append(f"{node}: {key} was {before.totem.get(key)}, is {after.totem.get(key)}")
            if before.ring != after.ring:
                found.append(f"{node}: ring was {before.ring}, is {after.ring}")
        if self.configuration != later.configuration:
            found.append(f"configuration was {self.configuration} and is {later.configuration}")
        if self.fencing != later.fencing:
            found.append(f"fencing calls: {self.fencing}, then {later.fencing}")
        if self.events != later.events:
            found.append(f"{later.events - self.events} starts and stops of services")
        return found


def conf(scene: Scene, node: str) -> str:
    """corosync.conf of a node, read on this machine: also of a node without power."""
    return scene.path(node, COROSYNC_CONF).read_text()


def cib(scene: Scene, node: str) -> ET.Element:
    """The CIB as a node's own copy has it."""
    return ET.fromstring(scene.run(node, "cibadmin", "--query", "--local").stdout)


def configuration(tree: ET.Element) -> str:
    """The configuration section, the record apart, as text. Fencing levels in the order of node and index: a
    guarded window makes those of its mover anew, behind the others."""
    found = tree.find("configuration")
    assert found is not None
    for options in found.findall("crm_config"):
        for group in options.findall(f"cluster_property_set[@id='{record.RECORD_SET_ID}']"):
            options.remove(group)
    for topology in found.findall("fencing-topology"):
        topology[:] = sorted(topology, key=lambda level: (level.get("target", ""), level.get("index", "")))
    return ET.canonicalize(ET.tostring(found, encoding="unicode"), strip_text=True)


def window(scene: Scene, node: str) -> Record:
    """The record as a node's own copy has it."""
    found = record.read(cib(scene, node))
    assert found is not None
    return found


def ring(scene: Scene, node: str) -> str:
    """The membership's identity: it changes whenever anybody leaves or joins."""
    lines = scene.run(node, "corosync-quorumtool", "-s", limit_seconds=10.0).stdout.splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Ring ID")), "none")


def fencings(scene: Scene, node: str) -> int:
    """How many fencing operations this node's fencer remembers; without --verbose it tells no failed one."""
    done = scene.run(node, "stonith_admin", "--history", "*", "--verbose", "--output-as=xml")
    return done.stdout.count("<fence_event ")


def starts_and_stops(lab: Lab) -> list[str]:
    """Every start and stop of a service so far."""
    return [f"{e.resource} {e.action} on {e.node}" for e in lab.events() if e.action in ("start", "stop")]


def kills(scene: Scene, mark: int) -> list[dict[str, object]]:
    """What the emulated hosts really did to guests since a mark."""
    return [entry for entry in scene.control.log(mark, event="acted") if entry["action"] in KILLS]


# -- commands ---------------------------------------------------------------------------------------------


def migrate_command(scene: Scene, node: str, *argv: str) -> Result:
    """``clovmmigrate`` on a node."""
    done = scene.run(node, "clovmmigrate", *argv, limit_seconds=COMMAND_LIMIT_SECONDS)
    assert not done.timed_out, f"clovmmigrate {' '.join(argv)} on {node} did not end: {done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def opened(scene: Scene, node: str, *argv: str) -> Result:
    """``clovmmigrate -p``, which has to work."""
    done = migrate_command(scene, node, "-p", *argv)
    assert done.returncode == 0, f"on {node}: {done.stderr}{done.stdout}"
    return done


def closed(scene: Scene, node: str, host: str) -> Result:
    """``clovmmigrate -u``, which has to work."""
    done = migrate_command(scene, node, "-u", GUEST, host)
    assert done.returncode == 0, f"on {node}: {done.stderr}{done.stdout}"
    return done


_KILLER = """
import json, signal, subprocess, sys, time
limit, delay, argv = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
child = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
lines, killed = [], False
for line in child.stderr:
    lines.append(line.rstrip())
    steps = sum(one.startswith("  ") and "to be idle" not in one for one in lines)
    if steps == limit and not killed:
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        killed = True
print(json.dumps({"lines": lines, "code": child.wait()}))
"""


@dataclass(frozen=True)
class Killed:
    """How a command ended that was to be killed after so many of its lines."""

    lines: tuple[str, ...]
    code: int

    @property
    def was_killed(self) -> bool:
        """False: it had ended before it said so much."""
        return self.code == -9


def killed_after(
    scene: Scene,
    node: str,
    lines: int,
    *argv: str,
    delay_seconds: float = 0.0,
    program: str = "clovmmigrate",
) -> Killed:
    """Run ``clovmmigrate``, or another program; kill -9 it `delay_seconds` after it has announced its step
    number `lines`."""
    done = scene.run(
        node,
        "/usr/bin/python3",
        "-c",
        _KILLER,
        str(lines),
        str(delay_seconds),
        program,
        *argv,
        limit_seconds=COMMAND_LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Killed(tuple(said["lines"]), said["code"])


LINES_FILE = "/var/log/standfast/lines-of-a-test"


@dataclass
class Running:
    """A command under way, whose steps can be counted from outside its node."""

    scene: Scene
    node: str
    argv: tuple[str, ...]
    code: int | None = None

    def __post_init__(self) -> None:
        self._file = self.scene.path(self.node, LINES_FILE)
        self._file.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        script = f'exec clovmmigrate "$@" >{LINES_FILE} 2>&1'
        argv = ("/bin/sh", "-c", script, "run", *self.argv)
        self.code = self.scene.run(self.node, *argv, limit_seconds=COMMAND_LIMIT_SECONDS).returncode

    def said(self) -> str:
        """Everything that it has said so far."""
        return self._file.read_text() if self._file.exists() else ""

    def steps(self) -> int:
        """How many steps and waits it has announced."""
        return sum(line.startswith("  ") and "to be idle" not in line for line in self.said().splitlines())

    def wait_steps(self, count: int) -> bool:
        """Wait until it has announced so many, or has ended; whether it has."""
        while self.steps() < count and self.code is None:
            time.sleep(0.005)
        return self.steps() >= count

    def end(self) -> int:
        """Wait for its end; its exit code."""
        self._thread.join()
        assert self.code is not None
        assert "Traceback" not in self.said()
        return self.code


# -- the mover --------------------------------------------------------------------------------------------


def move(scene: Scene, target: str, blackout_seconds: float = 0.0, duration_seconds: float = 1.0) -> None:
    """Migrate the guest, and wait until it has arrived and runs."""
    assert eventually(lambda: booted(scene, GUEST), 60), "the guest is still booting"
    scene.control.migrate(GUEST, target, duration_seconds=duration_seconds, blackout_seconds=blackout_seconds)
    outcome = scene.control.wait_migration(GUEST, limit_seconds=blackout_seconds + duration_seconds + 30)
    assert outcome["phase"] == "done", outcome


def booted(scene: Scene, guest: str) -> bool:
    """Whether a guest's own system runs: one that was reset stands at its firmware for a while."""
    hosts = scene.control.state()["hosts"].values()
    states = [host["domains"][guest]["status"] for host in hosts if guest in host["domains"]]
    return any("running" in state.lower() for state in states)


# -- back to the beginning --------------------------------------------------------------------------------


def restore(scene: Scene) -> None:
    """Window closed, the guest and its agents at home, every node up, every agent working.

    Raises AssertionError or LabError when that cannot be reached: then the scene is of no more use.
    """
    scene.control.clear()
    for number, node in enumerate(scene.lab.nodes, 1):
        if scene.lab.alive(node):
            scene.lab.thaw(node)
        if not scene.lab.alive(node):
            power_on(scene, node, f"guest{number}")
        elif not scene.run(node, "sdtool", "-s").ok:
            # It was killed, and its domain has booted again by itself.
            scene.start_daemon(node)
    scene.wait(lambda: everybody_in(scene) or revived(scene), 90, "every node in the membership")
    wait_reports(scene)
    first = scene.lab.nodes[0]
    where = scene.control.running(GUEST)
    if window(scene, first).phase is not Phase.IDLE:
        closed(scene, first, where[0])
    if where != [home(scene)]:
        move(scene, home(scene))
    if window(scene, first).mover != MOVER or aim(scene) != home(scene):
        closed(scene, first, home(scene))
    forget_kills(scene)
    scene.wait_ready()
    # Saved configurations and the log of what was typed too: names of saved ones are used in turn.
    scene.control.reset()


def forget_kills(scene: Scene) -> None:
    """No agent shows a kill any more, and no fencer remembers one.

    A daemon keeps the Shut State of a kill as long as it runs, and takes it from its fencer's history.
    """
    shown = [
        node
        for node in scene.lab.nodes
        if any(row["shut_state"] != "Unknown" for row in scene.states(node).get("agents", []))
    ]
    if shown or any(fencings(scene, node) for node in scene.lab.nodes):
        scene.run(scene.lab.nodes[0], "stonith_admin", "--cleanup", "--history", "*")
        assert eventually(lambda: not any(fencings(scene, node) for node in scene.lab.nodes), 10)
    restart_daemons(scene, *shown)


def power_on(scene: Scene, node: str, guest: str) -> None:
    """A node that was shut down comes back, and its standfastd with it."""
    where = scene.control.running(guest)
    if where:
        # Only the node had died, its domain never noticed.
        scene.lab.power(node, "on")
    else:
        hosts = scene.control.state()["hosts"]
        there = next(name for name, host in hosts.items() if guest in host["domains"])
        scene.control.call("start", host=there, name=guest)
    scene.wait(lambda: scene.lab.alive(node), 30, f"power of {node}")
    scene.start_daemon(node)


def revived(scene: Scene) -> bool:
    """Start the engine where it has stopped itself; never true.

    Emulated guests boot within a second, so the news that a node was fenced can find it in the cluster again,
    and Pacemaker then shuts itself down on that node.
    """
    for node in scene.lab.nodes:
        if scene.lab.alive(node) and not scene.run(node, "pgrep", "-x", "pacemakerd").ok:
            scene.lab.engine(node, "kill")
            scene.lab.engine(node, "start")
    return False


def everybody_in(scene: Scene) -> bool:
    """Every node sees every node online."""
    return all(members(scene, node) == set(scene.lab.nodes) for node in scene.lab.nodes)


def members(scene: Scene, node: str) -> set[str]:
    """The nodes that a node sees in the cluster, well."""
    seen = scene.lab.status(node)
    return set() if seen is None else {one.name for one in seen.nodes if one.well}


def unclean(scene: Scene, node: str) -> set[str]:
    """The nodes that a node sees as lost and not yet proven dead."""
    seen = scene.lab.status(node)
    return set(scene.lab.nodes) if seen is None else {one.name for one in seen.nodes if one.unclean}


def wait_reports(scene: Scene, limit_seconds: float = 60.0) -> None:
    """Wait until every node's daemon has reported, as seen from the first."""
    scene.wait(lambda: reporting(scene) == set(scene.lab.nodes), limit_seconds, "every daemon to report")


def reporting(scene: Scene) -> set[str]:
    """Nodes whose daemon's report the first living node has."""
    node = next(n for n in scene.lab.nodes if scene.lab.alive(n) and not scene.lab.frozen(n))
    done = scene.run(node, "attrd_updater", "-Q", "-A", "-n", names.REPORT_ATTRIBUTE)
    words = [
        line.split('host="', 1)[1].split('"', 1)[0] for line in done.stdout.splitlines() if "host=" in line
    ]
    return set(words)


def aim(scene: Scene) -> str:
    """The control domain at whose LAN#0 the mover's first agent aims."""
    tree = cib(scene, scene.lab.nodes[0])
    for pair in tree.iterfind(f".//primitive[@id='SA_xscfsnmpg0p-{MOVER}']/instance_attributes/nvpair"):
        if pair.get("name") == "ip":
            return f"ctrl{int(pair.get('value', '').rsplit('.', 1)[1]) - 70}"
    return ""


def eventually(condition: Callable[[], bool], limit_seconds: float) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


# -- daemons ----------------------------------------------------------------------------------------------


def kill_daemon(scene: Scene, node: str) -> None:
    """kill -9 of standfastd on a node."""
    scene.run(node, "/bin/sh", "-c", "kill -9 $(pgrep -f /standfastd$)")
    assert eventually(lambda: not scene.run(node, "pgrep", "-f", "/standfastd$").stdout, 10)


def restart_daemons(scene: Scene, *nodes: str) -> None:
    """kill -9 of standfastd on some nodes, and new ones that answer."""
    for node in nodes:
        kill_daemon(scene, node)
        scene.start_daemon(node)
    for node in nodes:
        assert eventually(lambda node=node: scene.run(node, "sdtool", "-s").ok, 30)
