"""A cluster that does what it is told at once: the other side of the planner in unit tests.

It keeps files, runtime values, agents and the last report of every node, and carries out the planner's
steps. Its daemons behave as standfastd does (`daemon/main.py`): they converge the file with the production
rule, also when no window is open; they test an agent only when its parameters change or when the record asks
for proof; and they report only while they live. What a dead one said last stays. It can be told to misbehave,
and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from standfast.core import heartbeat, members, owed
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.owed import Debt
from standfast.core.record import Phase, Record
from standfast.core.report import OLDER_CLOCKS, Report, proof
from standfast.core.steps import (
    CloseGoal,
    Guard,
    HostEntry,
    NodeAim,
    OpenGoal,
    Reaim,
    Reload,
    SaveConfiguration,
    Snapshot,
    Unguard,
    Wait,
    WriteRecord,
)

HOSTS = {
    "ctrl1": HostEntry("ctrl1", 0, "10.20.30.71", "10.20.40.71", 1),
    "ctrl2": HostEntry("ctrl2", 0, "10.20.30.72", "10.20.40.72", 1),
    "ctrl3": HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 2),
}


MAX_ROUNDS = 10
"""A node that was away needs five of them; corosync that keeps its values never gets there."""


class LostRaceError(Exception):
    """The compare-and-set was refused: somebody else has moved the record."""


@dataclass
class Node:
    """One member: its file, what its corosync runs, and what its daemon knows."""

    keys: dict[str, str]
    runtime: dict[str, int]
    structure: str = "s"
    rest: str = "r"
    nodes: tuple[str, ...] = ()
    """The node list of its file; empty: not told, and as many as there are."""
    unloaded: tuple[str, ...] = ()
    """What its corosync has not loaded of its file."""
    unwritable: str = ""
    """Seen only when the daemon writes (a full disk, say)."""
    read_only: str = ""
    """Seen at each look, before anything is written."""
    deaf: bool = False
    """Its daemon does nothing any more; its last report stays."""
    keeps_values: bool = False
    """Its corosync ignores reloads."""
    epoch: int = 0
    commanding: bool = False
    file_error: str = ""
    facility: str = "running"
    config: str = "c"
    known: dict[str, str] = field(default_factory=dict)
    """Device -> fingerprint of the parameters that the daemon has seen last."""
    proofs: dict[str, str] = field(default_factory=dict)
    proven_since: int = 0


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
    guests: dict[str, dict[str, GuestState]] = field(default_factory=dict)
    """Guest -> what the hosts say about it; a host that is not named says that it is absent."""
    maintenance: str = ""
    agent_fails: set[str] = field(default_factory=set)
    agent_hangs: set[str] = field(default_factory=set)
    """Their tests do not end: what they proved before stays in the report."""
    agent_states: dict[str, str] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)
    """Nodes whose fencing is that of a guarded window's mover."""
    odd_fencers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Node -> device -> in what its running fencer differs from the configuration."""
    slow_fencers: set[str] = field(default_factory=set)
    """Nodes whose fencer does not take a change of the topology."""
    clock_ahead: dict[str, float] = field(default_factory=dict)
    """Node -> by how many seconds its clock is ahead of the right time; negative: behind."""
    no_clocks: set[str] = field(default_factory=set)
    """Nodes with a daemon of before clocks were measured."""
    clock_steps: dict[str, str] = field(default_factory=dict)
    """Node -> what it says of setting its own clock."""
    older: set[str] = field(default_factory=set)
    """Nodes with a daemon of before there was a raise just in time."""
    stale_clocks: bool = False
    """Nobody has measured anew since the closing asked."""
    saves: list[str] = field(default_factory=list)
    proven_off: frozenset[str] = frozenset()
    gone: set[str] = field(default_factory=set)
    published: dict[str, Report] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(1, self.count + 1):
            name = f"n{number}"
            self.nodes[name] = Node(dict(self.base), heartbeat.expected_runtime(self.base, self.count))
            self.aims[name] = f"ctrl{min(number, 3)}" if number != 3 else "ctrl1"
            self.weights[name] = 1
            self.guests[f"g{number}"] = {self.aims[name]: GuestState.RUNNING}
        self.sync()

    @property
    def guest_on(self) -> dict[str, GuestState]:
        """Where g2 is."""
        return self.guests["g2"]

    @guest_on.setter
    def guest_on(self, places: dict[str, GuestState]) -> None:
        self.guests["g2"] = places

    def members(self) -> dict[str, Node]:
        return {name: node for name, node in self.nodes.items() if name not in self.gone}

    # -- the daemons --------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Every daemon that lives does its duty, until none has anything to do at once."""
        for name in self.gone:
            self.published.pop(name, None)
        for _ in range(MAX_ROUNDS):
            debts = {}
            for name, node in self.members().items():
                if not node.deaf:
                    node.epoch = self.record.epoch
                    debts[name] = self._converge(name, node)
                    self._test_what_is_due(node)
            if not any(self._take_back(name, debt) for name, debt in debts.items()):
                break
        for name, node in self.members().items():
            if not node.deaf:
                self.published[name] = self._report(name, node)

    def _converge(self, name: str, node: Node) -> Debt:
        """As heartbeat_duty.converge."""
        entry = owed.entry_of(self.record, name)
        fresh = heartbeat.expected_runtime(node.keys, self.count)
        debt = owed.debt(entry, node.keys, node.runtime, fresh)
        wanted = dict(owed.keys_to_write(entry, debt, node.keys))
        if self.record.open:
            wanted = dict(members.wanted_keys(self.record, name, node.keys))
        node.file_error = node.read_only
        if wanted == node.keys:
            return debt
        if node.unwritable or node.read_only:
            node.file_error = node.unwritable or node.read_only
            return debt
        node.keys = wanted
        return Debt.RELOAD if entry is not None else Debt.NONE

    def _take_back(self, name: str, debt: Debt) -> bool:
        """The daemon's step back to the values of a node that was away; whether there was one."""
        if debt is Debt.RELOAD:
            self.reload()
        elif debt is Debt.PAID:
            self.record = owed.without(self.record, name, owner=name)
        return debt in (Debt.RELOAD, Debt.PAID)

    def _test_what_is_due(self, node: Node) -> None:
        devices = {f"SA-{owner}": owner for owner in self.aims}
        altered = [d for d, owner in devices.items() if node.known.get(d) != self.fingerprint(owner)]
        for device in altered:
            node.known[device], node.proofs[device] = self.fingerprint(devices[device]), ""
        if node.facility != "running":
            return
        due = set(altered)
        if self.record.prove > node.proven_since and self.record.mover:
            node.proven_since = self.record.prove
            due.add(f"SA-{self.record.mover}")
        for device in (due & set(devices)) - self.agent_hangs:
            owner = devices[device]
            there = self.guests[owner.replace("n", "g")].get(self.aims[owner]) is GuestState.RUNNING
            worked = there and device not in self.agent_fails
            node.proofs[device] = proof(self.fingerprint(owner), node.epoch) if worked else ""

    def _report(self, name: str, node: Node) -> Report:
        shown = {device: "TestWorked" if good else "TestFailed" for device, good in node.proofs.items()}
        return Report(
            node=name,
            epoch=node.epoch,
            file_keys=dict(node.keys),
            file_error=node.file_error,
            structure=node.structure,
            rest=node.rest,
            nodes=node.nodes,
            unloaded=node.unloaded,
            runtime=dict(node.runtime),
            config=node.config,
            agents=shown | self.agent_states,
            proofs={device: text for device, text in node.proofs.items() if text},
            facility=node.facility,
            killing="" if name in self.slow_fencers else next(iter(self.guarded - {name}), ""),
            fencer=self.odd_fencers.get(name, {}),
            commanding=node.commanding,
            just_in_time=name not in self.older,
            clocks=(measured := self._measured(name)),
            clocks_out=tuple(other for other, offset in measured.items() if abs(offset) > 5.0),
            clocks_at=0 if self.stale_clocks or self.record.phase is not Phase.CLOSING else self.record.prove,
            clock_error=OLDER_CLOCKS if name in self.no_clocks else "",
            clock_step=self.clock_steps.get(name, ""),
        )

    def _measured(self, name: str) -> dict[str, float]:
        """What this node's daemon has measured of the others' clocks."""
        others = self.members().keys() - {name} - self.no_clocks if name not in self.no_clocks else set()
        own = self.clock_ahead.get(name, 0.0)
        return {other: self.clock_ahead.get(other, 0.0) - own for other in sorted(others)}

    def restart_daemon(self, name: str) -> None:
        """It has forgotten everything that it did not read from the CIB."""
        node = self.nodes[name]
        node.deaf, node.commanding, node.proven_since = False, False, 0
        node.known, node.proofs = {}, {}
        self.sync()

    def come_back(self, name: str) -> None:
        """The node boots: corosync starts with its file as it stands, and the daemon begins."""
        node = self.nodes[name]
        node.runtime = heartbeat.expected_runtime(node.keys, self.count)
        self.gone.discard(name)
        self.restart_daemon(name)

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

    # -- what a command sees and does ---------------------------------------------------------------------

    def fingerprint(self, node: str) -> str:
        return f"{self.aims[node]}/{self.weights[node]}"

    def unregister(self, node: str) -> None:
        """clsnmpsetup -d"""
        del self.aims[node]

    def snapshot(self, me: str, reloads: int = 0, expired: frozenset[str] = frozenset()) -> Snapshot:
        alive = self.members()
        return Snapshot(
            me=me,
            record=self.record,
            configured=tuple(self.nodes),
            members=frozenset(alive),
            unwell=dict.fromkeys(self.gone, "offline"),
            reports=dict(self.published),
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
                    {f"SA-{name}": self.fingerprint(name)},
                )
                for name in self.aims
            },
            places={
                guest: tuple(HostAnswer(host, guest, self.shown(host, states)) for host in HOSTS)
                for guest, states in self.guests.items()
            },
            proven_off=self.proven_off,
            guarded=frozenset(self.guarded),
            guard_whole=frozenset(self.guarded),
            reloads=reloads,
            expired=expired,
        )

    def shown(self, host: str, states: dict[str, GuestState]) -> GuestState:
        """What a host says; one of kind manual says nothing."""
        unasked = host in self.hosts and self.hosts[host].kind == "manual"
        return GuestState.SILENT if unasked else states.get(host, GuestState.ABSENT)

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
            case Guard(record=record, node=node):
                self._write(record, expect_epoch)
                self.guarded.add(node)
            case Unguard(record=record, nodes=nodes):
                self._write(record, expect_epoch)
                self.guarded -= set(nodes)
            case SaveConfiguration(host=host):
                self.saves.append(host)
                self._write(self.record.next(saved={**self.record.saved, host: "standfast-a"}), expect_epoch)
            case Reload():
                self.reload()
            case Wait():
                pass
        self.sync()

    def _write(self, record: Record, expect_epoch: int) -> None:
        if self.record.epoch != expect_epoch:
            raise LostRaceError
        assert record.epoch == expect_epoch + 1
        self.record = replace(record)

    def facts(self) -> tuple[object, ...]:
        """What must be the same before and after a window."""
        return (
            {name: (dict(node.keys), dict(node.runtime)) for name, node in self.nodes.items()},
            self.maintenance,
            set(self.guarded),
        )


OPEN = OpenGoal(mover="", budget_seconds=600, lease_seconds=14400, why="test")
CLOSE = CloseGoal(node="n2", guest="g2", target="ctrl3")
