"""A cluster that does what it is told at once: the other side of the planner in unit tests.

It keeps files, runtime values and the record of every node, carries out the planner's steps, and can be told
to misbehave. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from standfast.core import heartbeat, members
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Record
from standfast.core.report import Report, proof
from standfast.core.steps import (
    CloseGoal,
    HostEntry,
    NodeAim,
    OpenGoal,
    Reaim,
    Reload,
    SaveConfiguration,
    Snapshot,
    Wait,
    WriteRecord,
)

HOSTS = {
    "ctrl1": HostEntry("ctrl1", 0, "10.20.30.71", "10.20.40.71", 1),
    "ctrl2": HostEntry("ctrl2", 0, "10.20.30.72", "10.20.40.72", 1),
    "ctrl3": HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 2),
}


@dataclass
class Node:
    """One member: its file and what its corosync runs."""

    keys: dict[str, str]
    runtime: dict[str, int]
    structure: str = "s"
    unwritable: str = ""
    deaf: bool = False
    """Its daemon does nothing any more."""
    keeps_values: bool = False
    """Its corosync ignores reloads."""
    epoch: int = 0
    commanding: bool = False
    file_error: str = ""


@dataclass
class FakeCluster:
    """Nodes n1.., guests g1.. on ctrl1..; g2 is the one that moves."""

    count: int = 2
    hosts: dict[str, HostEntry] = field(default_factory=lambda: dict(HOSTS))
    base: dict[str, str] = field(default_factory=lambda: {"token": "4545", "consensus": "5455"})
    record: Record = field(default_factory=Record.fresh)
    nodes: dict[str, Node] = field(default_factory=dict)
    aims: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    guest_on: dict[str, GuestState] = field(default_factory=dict)
    maintenance: str = ""
    agent_fails: set[str] = field(default_factory=set)
    agent_states: dict[str, str] = field(default_factory=dict)
    saves: list[str] = field(default_factory=list)
    proven_off: frozenset[str] = frozenset()
    gone: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(1, self.count + 1):
            name = f"n{number}"
            self.nodes[name] = Node(dict(self.base), heartbeat.expected_runtime(self.base, self.count))
            self.aims[name] = f"ctrl{min(number, 3)}" if number != 3 else "ctrl1"
            self.weights[name] = 1
        self.guest_on = {"ctrl2": GuestState.RUNNING}
        self.sync()

    def members(self) -> dict[str, Node]:
        return {name: node for name, node in self.nodes.items() if name not in self.gone}

    def sync(self) -> None:
        """Every daemon does its duty once."""
        for name, node in self.members().items():
            if node.deaf:
                continue
            node.epoch = self.record.epoch
            wanted = (
                dict(members.wanted_keys(self.record, name, node.keys)) if self.record.open else node.keys
            )
            node.file_error = ""
            if wanted != node.keys:
                if node.unwritable:
                    node.file_error = node.unwritable
                else:
                    node.keys = dict(wanted)

    def reload(self) -> None:
        for node in self.members().values():
            if node.keeps_values:
                continue
            ran = node.runtime
            node.runtime = heartbeat.expected_runtime(node.keys, self.count)
            for key, name in (
                (heartbeat.PING_INTERVAL, "knet_ping_interval"),
                (heartbeat.PING_TIMEOUT, "knet_ping_timeout"),
            ):
                if key not in node.keys:  # the lag of one reload, as measured
                    node.runtime[name] = ran["token"] // (4 if name == "knet_ping_interval" else 2)

    def fingerprint(self, node: str) -> str:
        return f"{self.aims[node]}/{self.weights[node]}"

    def snapshot(self, me: str, reloads: int = 0, expired: frozenset[str] = frozenset()) -> Snapshot:
        alive = self.members()
        devices = {name: f"SA-{name}" for name in self.nodes}
        reports = {
            name: Report(
                node=name,
                epoch=node.epoch,
                file_keys=dict(node.keys),
                file_error=node.file_error,
                structure=node.structure,
                runtime=dict(node.runtime),
                config="c",
                agents={device: self.agent_states.get(device, "TestWorked") for device in devices.values()},
                proofs={
                    device: "" if device in self.agent_fails else proof(self.fingerprint(owner), node.epoch)
                    for owner, device in devices.items()
                },
                commanding=node.commanding,
            )
            for name, node in alive.items()
        }
        return Snapshot(
            me=me,
            record=self.record,
            configured=tuple(self.nodes),
            members=frozenset(alive),
            unwell=dict.fromkeys(self.gone, "offline"),
            reports=reports,
            # A node that is gone is being fenced, for as long as the gate holds that.
            fencing_pending=tuple(sorted(self.gone)),
            cluster_idle=not self.gone,
            cluster_quiet=not self.gone,
            maintenance_mode=self.maintenance,
            hosts=self.hosts,
            aims={
                name: NodeAim(
                    name,
                    name.replace("n", "g"),
                    self.aims[name],
                    self.weights[name],
                    {devices[name]: self.fingerprint(name)},
                )
                for name in self.nodes
            },
            where=tuple(HostAnswer(host, "g2", self.guest_on.get(host, GuestState.ABSENT)) for host in HOSTS),
            proven_off=self.proven_off,
            reloads=reloads,
            expired=expired,
        )

    def do(self, step: object, expect_epoch: int) -> None:
        """Carry out one step as the executor would; compare-and-set included."""
        self.log.append(type(step).__name__ + ": " + str(getattr(step, "reason", "")))
        match step:
            case WriteRecord(record=record, maintenance_mode=mode):
                self._write(record, expect_epoch)
                if mode is not None:
                    self.maintenance = mode
            case Reaim(record=record, node=node, host=host):
                self._write(record, expect_epoch)
                self.aims[node], self.weights[node] = host.name, host.weight
            case SaveConfiguration(host=host):
                self.saves.append(host)
                self._write(self.record.next(saved={**self.record.saved, host: "standfast-a"}), expect_epoch)
            case Reload():
                self.reload()
            case Wait():
                pass
        self.sync()

    def _write(self, record: Record, expect_epoch: int) -> None:
        assert self.record.epoch == expect_epoch
        assert record.epoch == expect_epoch + 1
        self.record = replace(record)

    def facts(self) -> tuple[object, ...]:
        """What must be the same before and after a window."""
        return (
            {name: (dict(node.keys), dict(node.runtime)) for name, node in self.nodes.items()},
            self.maintenance,
        )


OPEN = OpenGoal(mover="", budget_seconds=600, lease_seconds=14400, why="test")
CLOSE = CloseGoal(node="n2", guest="g2", target="ctrl3")
