"""A lab: N real nodes with real corosync and pacemaker, in namespaces of this machine."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from standfast.cluster.membership import ClusterStatus, parse_status
from standfast.cluster.run import Result
from standfast.commands import install
from standfast.lab import engine, engine_config, network, removal, settling
from standfast.lab import freezer as freezers
from standfast.lab import power as controller
from standfast.lab.checks import check_machine
from standfast.lab.errors import LabError
from standfast.lab.layout import (
    MAX_NODES,
    Fencing,
    Spec,
    check_id,
    labs_root,
    netns,
    new_id,
    shared_dir,
)
from standfast.lab.node import Node, NodeProcess
from standfast.lab.process import detach, joining, must

_AGENTS = Path(__file__).with_name("agents")
_POLL_SECONDS = 0.1
_FORM_LIMIT_SECONDS = 180.0
# Sixteen nodes on two cores mean a load of 30: process starts take seconds then.
_SETTLE_LIMIT_SECONDS_PER_NODE = 30.0


@dataclass(frozen=True)
class Event:
    """One line of the Recorder resources. `monotonic` is CLOCK_MONOTONIC of this machine, in seconds."""

    monotonic: float
    wall: float
    node: str
    action: str
    resource: str


@dataclass(frozen=True)
class Blackout:
    """A finished blackout: CLOCK_MONOTONIC seconds when the node stood still, and when it was let go."""

    node: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long the node really stood still."""
        return self.ended - self.began


class Lab:
    """A running lab. Make one with `up`, find one again with `load`; several can run at once."""

    def __init__(self, root: Path, spec: Spec) -> None:
        self.root = root
        self.spec = spec

    @property
    def id(self) -> str:
        """The lab's id."""
        return self.spec.lab_id

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, powered or not: cfguest1, cfguest2, ..."""
        return self.spec.nodes

    @property
    def hw_netns(self) -> Path:
        """The pinned namespace with the hosts' and service processors' addresses. Raises LabError without."""
        if not self.spec.hosts:
            raise LabError(f"lab {self.id} was started without hosts")
        return netns(self.root, network.HARDWARE)

    @classmethod
    def up(
        cls,
        lab_id: str | None = None,
        nodes: int = 2,
        heartbeat_timeout_seconds: float = 10.0,
        freezer: Literal["auto", "v1", "v2"] = "auto",
        fencing: Fencing = "plain",
        hosts: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> "Lab":
        """Start a lab and return once its cluster is settled. Raises LabError; then nothing is left of it."""
        check_machine()
        lab = cls._create(lab_id, nodes, heartbeat_timeout_seconds, freezer, fencing, hosts)
        try:
            lab._build(say)
            lab._form(say)
        except BaseException as error:
            if isinstance(error, LabError):
                lab._keep_last_words(error)
            lab.down()
            raise
        return lab

    @classmethod
    def load(cls, lab_id: str) -> "Lab":
        """The lab of this id. Raises LabError when there is none."""
        root = labs_root() / check_id(lab_id)
        return cls(root, Spec.read(root))

    @classmethod
    def _create(
        cls,
        lab_id: str | None,
        nodes: int,
        timeout_seconds: float,
        wanted: Literal["auto", "v1", "v2"],
        fencing: Fencing,
        hosts: bool,
    ) -> "Lab":
        if not 2 <= nodes <= MAX_NODES:
            raise LabError(f"a lab has 2 to {MAX_NODES} nodes, not {nodes}")
        if timeout_seconds < 2:
            raise LabError(f"a heartbeat timeout of {timeout_seconds:g} s is too short, give 2 s or more")
        version, mount_point = freezers.choose(wanted)
        chosen = check_id(lab_id or new_id())
        root = labs_root() / chosen
        try:
            make_root(root)
        except FileExistsError:
            raise LabError(
                f"lab {chosen} is there already; `standfast lab down {chosen}` removes it"
            ) from None
        names = tuple(f"cfguest{i}" for i in range(1, nodes + 1))
        group = str(mount_point / f"standfast-lab-{chosen}-{new_id()}")
        spec = Spec(chosen, names, timeout_seconds, version, group, fencing, hosts)
        spec.write(root)
        return cls(root, spec)

    def _build(self, say: Callable[[str], None]) -> None:
        say("network and disks")
        for name in self.nodes:
            self.spec.node_group(name).create()
        self.spec.outside_group().create()
        self._write_shared()
        host_count = len(self.nodes) + 1 if self.spec.hosts else 0
        network.build(self.root, host_count, self.nodes)
        for name in self.nodes:
            self.node(name).prepare()
        controller.start(self.root, self.spec)
        say(f"starting {len(self.nodes)} nodes")
        for name in self.nodes:
            self.node(name).power_on()

    def _write_shared(self) -> None:
        shared_dir(self.root).mkdir()
        sbin, ocf = self.root / "sbin", self.root / "ocf" / "lab"
        sbin.mkdir()
        ocf.mkdir(parents=True)
        for source, target in (("fence_lab.py", sbin / "fence_lab"), ("recorder.py", ocf / "Recorder")):
            shutil.copyfile(_AGENTS / source, target)
            target.chmod(0o755)
        install.programs(sbin)

    def _form(self, say: Callable[[str], None]) -> None:
        say("waiting until the nodes have met")
        self._wait(self._all_online, _FORM_LIMIT_SECONDS, "all nodes online with quorum")
        say("resources" + (" and fencing" if self.spec.fencing == "plain" else ""))
        wanted = engine_config.resources(self.nodes, self.spec.fencing)
        argv = ["cibadmin", "--modify", "--allow-create", "--scope", "configuration", "--xml-pipe"]
        done = self.exec(self.nodes[0], argv, limit_seconds=60, input=wanted)
        if done.returncode != 0:
            raise LabError(f"lab {self.id}: the resources were refused: {done.stderr.strip()}")
        self.wait_settled(_SETTLE_LIMIT_SECONDS_PER_NODE * len(self.nodes))

    def _keep_last_words(self, error: LabError) -> None:
        """The directory goes; what the engine said last goes into the error."""
        for name in self.nodes[:3]:
            log = self.node(name).path("/var/log/corosync/corosync.log")
            with suppress(OSError):
                for line in log.read_text(errors="replace").splitlines()[-2:]:
                    error.add_note(f"{name}: {line}")

    def down(self) -> None:
        """Remove everything of this lab: processes, cgroups, namespaces, mounts, files."""
        removal.remove(self.root)

    # -- nodes ---------------------------------------------------------------------------------------

    def node(self, name: str) -> Node:
        """A node of this lab. Raises LabError for an unknown name."""
        if name not in self.nodes:
            raise LabError(f"lab {self.id} has no node {name!r}; it has {', '.join(self.nodes)}")
        return Node(self.root, self.spec, name)

    def exec(
        self, node: str, argv: Sequence[str], limit_seconds: float = 30.0, input: str | None = None
    ) -> Result:
        """Run a command in a node. It shares the node's fate: frozen with it, killed with it.

        At the limit it returns with `timed_out`, also from a frozen node. Raises LabError without power.
        """
        return self.node(node).execute(argv, limit_seconds, input)

    def add_process(self, node: str, argv: Sequence[str]) -> NodeProcess:
        """Start a daemon in a node, in its freezer group; returns its process id as the node counts it."""
        return self.node(node).add_process(argv)

    def add_outside_process(self, argv: Sequence[str], log: Path, *, hardware: bool = False) -> None:
        """Start a daemon of the lab outside all nodes, in the `hw` namespace if asked; `down` ends it."""
        entered = network.enter(self.hw_netns, argv) if hardware else list(argv)
        detach(joining(self.spec.outside_group().procs_file, entered), log)

    def freeze(self, node: str) -> float:
        """Stop a node; returns the CLOCK_MONOTONIC second at which it really stood still."""
        self.node(node).group.freeze()
        return time.monotonic()

    def thaw(self, node: str) -> float:
        """Let a frozen node run on; returns the CLOCK_MONOTONIC second up to which it surely stood still."""
        still = time.monotonic()
        self.node(node).group.thaw()
        return still

    def frozen(self, node: str) -> bool:
        """True while the node stands still."""
        return self.node(node).group.frozen()

    def blackout(self, node: str, seconds: float) -> Blackout:
        """Stop a node for an exact time, counted from the moment at which it really stands still."""
        began = self.freeze(node)
        try:
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            ended = self.thaw(node)
        return Blackout(node, began, ended)

    def cut(self, node: str, *, mended: bool = False) -> None:
        """Take a node off the ring at the switch, as a broken cable does, or (`mended`) put it back.

        It keeps running, and reaches hosts and service processors as before.
        """
        port = network.ring_port(self.nodes.index(self.node(node).name) + 1)
        link = ["ip", "link", "set", port, "up" if mended else "down"]
        must(network.enter(netns(self.root, network.SWITCH), link))

    def power(self, node: str, what: Literal["off", "on", "panic"]) -> None:
        """`off` and `panic` kill everything in the node at once, frozen or not; `on` starts it."""
        if what == "on":
            self.node(node).power_on()
        else:
            self.node(node).power_off()

    def alive(self, node: str) -> bool:
        """True while the node has power, frozen or not."""
        return self.node(node).init_pid() is not None

    def engine(self, node: str, what: Literal["start", "stop", "kill"]) -> None:
        """Start, cleanly stop, or kill -9 corosync and pacemaker in a node that has power.

        `start` and `stop` return when that is done. Raises LabError at their limit.
        """
        {"start": engine.start, "stop": engine.stop, "kill": engine.kill}[what](self.node(node))

    def add_program(self, name: str, text: str) -> None:
        """Put an executable script into /usr/sbin of every node that has power; it survives power off."""
        for node in self._powered():
            argv = ["/bin/sh", "-c", 'cat > "$1" && chmod 755 "$1"', "add", f"/usr/sbin/{name}"]
            done = self.exec(node, argv, input=text)
            if not done.ok:
                raise LabError(f"cannot write /usr/sbin/{name} in node {node}: {done.complaint()}")

    def reboot_cycles(self, wanted: bool) -> None:
        """Whether a `reboot` of fence_lab starts the node again; by default it leaves it off."""
        flag = self.root / controller.CYCLE_FLAG
        flag.touch() if wanted else flag.unlink(missing_ok=True)

    # -- what happened -------------------------------------------------------------------------------

    def events(self) -> list[Event]:
        """All starts and stops of the Recorder resources so far, oldest first."""
        try:
            lines = (shared_dir(self.root) / "events.log").read_text().splitlines()
        except OSError:
            return []
        return sorted((Event(**json.loads(line)) for line in lines), key=lambda event: event.monotonic)

    def power_calls(self) -> list[controller.PowerCall]:
        """All fencing calls that reached the lab's power controller, oldest first."""
        return controller.calls(self.root)

    def status(self, node: str | None = None, limit_seconds: float = 10.0) -> ClusterStatus | None:
        """The cluster as `node` (default: the first that runs) sees it; None if it cannot say."""
        seen_by = node or next((n for n in self.nodes if self.alive(n) and not self.frozen(n)), None)
        if seen_by is None:
            return None
        result = self.exec(seen_by, ["crm_mon", "-1", "--output-as=xml"], limit_seconds=limit_seconds)
        try:
            return parse_status(ElementTree.fromstring(result.stdout)) if result.ok else None
        except ElementTree.ParseError:
            return None

    def wait_settled(self, limit_seconds: float = 60.0) -> None:
        """Wait until all powered nodes are online, each service is at home and the controller is idle."""
        self._wait(self._settled, limit_seconds, "the cluster to settle")

    def _powered(self) -> frozenset[str]:
        return frozenset(name for name in self.nodes if self.alive(name))

    def _all_online(self) -> bool:
        return all(settling.sees_all(self.status(name), self._powered()) for name in self._powered())

    def _settled(self) -> bool:
        seen = self.status()
        devices = [(name, f"st-{name}") for name in self.nodes] if self.spec.fencing == "plain" else []
        if seen is None or seen.dc is None or not settling.at_home(seen, self._powered(), devices):
            return False
        state = self.exec(seen.dc, ["crmadmin", "--status", seen.dc], limit_seconds=10.0)
        return seen.idle("S_IDLE" if "S_IDLE" in state.stdout else None)

    def _wait(self, condition: Callable[[], bool], limit_seconds: float, what: str) -> None:
        deadline = time.monotonic() + limit_seconds
        while not condition():
            if time.monotonic() > deadline:
                seen = self.status()
                raise LabError(f"lab {self.id}: waited {limit_seconds:g} s for {what}; now: {seen}")
            time.sleep(_POLL_SECONDS)


def make_root(root: Path) -> None:
    """Make a lab's directory. Raises FileExistsError; another lab's end may take an empty parent away."""
    for _ in range(10):
        root.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return root.mkdir()
    raise LabError(f"cannot make {root}: its parent directory comes and goes")


def known_ids() -> list[str]:
    """Ids of all labs below the labs' root, broken ones too."""
    try:
        return sorted(entry.name for entry in labs_root().iterdir() if entry.is_dir())
    except OSError:
        return []
