"""The words in which the window's decisions are spoken: what is (Snapshot), what is wanted, what to do next.

The planner is asked again after every step with a fresh snapshot. It keeps nothing between two questions, so
any command on any node can take over at any instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from standfast.core.clock_step import OFF
from standfast.core.clocks import THRESHOLD_SECONDS
from standfast.core.evidence import HostAnswer
from standfast.core.messages import Message
from standfast.core.record import Mode, Record
from standfast.core.report import Report


@dataclass(frozen=True)
class HostEntry:
    """One control domain of the configuration, as far as decisions need it."""

    name: str
    ppar_id: int
    lan0: str
    lan1: str
    weight: int
    login: bool = True
    """Whether Standfast may log in to it; without, its XSCF is asked, and nothing can be saved there."""
    kind: str = "ldm"
    agent: str = ""
    """Of kind libvirt and manual: the fence agent that kills there; empty: none."""
    reach: tuple[tuple[str, str], ...] = ()
    """What that agent needs to reach this host."""

    @property
    def saves(self) -> bool:
        """Whether its service processor knows guests by a configuration that has to be saved."""
        return self.kind == "ldm"

    @property
    def shown(self) -> str:
        """What agents that aim at it aim at, for people."""
        if self.kind == "ldm":
            return f"PPAR-ID {self.ppar_id}, {self.lan0}, {self.lan1}, weight {self.weight}"
        return f"{self.agent or 'no fence_agent'}, weight {self.weight}"


@dataclass(frozen=True)
class NodeAim:
    """Where the devices of one node aim now, and with which parameters they must have proven themselves."""

    node: str
    guest: str
    host: str
    """Control domain behind the addresses and the PPAR-ID; empty: no entry of the configuration fits."""
    weight: int
    proofs: Mapping[str, str]
    """Device -> fingerprint of its present parameters."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a decision may look at. Taken anew before each one."""

    me: str
    record: Record | None
    record_error: str = ""
    config: str = ""
    """Fingerprint of the clovmmigrate.conf that this command has read; empty: not to be compared."""
    configured: tuple[str, ...] = ()
    """Every cluster node of the CIB."""
    members: frozenset[str] = frozenset()
    """The membership as this node sees it."""
    unwell: Mapping[str, str] = field(default_factory=dict)
    """Node -> what is wrong with it (offline, UNCLEAN, pending, ...)."""
    reports: Mapping[str, Report] = field(default_factory=dict)
    cluster_idle: bool | None = None
    """Designated controller idle and nothing in progress; None: it did not answer."""
    cluster_quiet: bool = False
    """Nothing in progress anywhere, as the status section tells; the controller was not asked."""
    fencing_pending: tuple[str, ...] = ()
    clock_threshold_seconds: float = THRESHOLD_SECONDS
    """By how much clocks may differ, of clovmmigrate.conf."""
    clock_step: str = OFF
    """How a node sets its own clock where that is to blame, of clovmmigrate.conf (`core.clock_step`)."""
    stonith_enabled: bool = True
    maintenance_mode: str = ""
    """Value of maintenance-mode; empty: not set."""
    unsupported: tuple[str, ...] = ()
    """What this cluster has that Standfast cannot yet take through a window."""
    monitors: Mapping[str, float] = field(default_factory=dict)
    """Resource -> timeout of its recurring monitor, in seconds."""
    unbroken: tuple[str, ...] = ()
    """Resources that need the membership unbroken (`core.unbroken`)."""
    hosts: Mapping[str, HostEntry] = field(default_factory=dict)
    aims: Mapping[str, NodeAim] = field(default_factory=dict)
    """Node -> aim of its devices; nodes without registered devices are missing."""
    places: Mapping[str, tuple[HostAnswer, ...]] = field(default_factory=dict)
    """Guest -> what every host says about it, for every registered guest, asked after the previous step."""
    proven_off: frozenset[str] = frozenset()
    """Nodes outside the membership whose guest every host shows stopped or absent."""
    seconds_since_return: float | None = None
    """Since the guest's node came back into the membership; None: it was not seen to leave."""
    guarded: frozenset[str] = frozenset()
    """Nodes of which anything of a guarded window's fencing topology is in the CIB."""
    guard_whole: frozenset[str] = frozenset()
    """Those of them whose fencing is exactly that of a guarded window's mover."""
    reloads: int = 0
    """Reloads that this command has issued since the record moved to its epoch."""
    barriers: int = 0
    """Barriers that it has passed since then."""
    ring_changed: bool = False
    """This node's corosync has formed a ring since a command that raises the heartbeat began. What is read
    here may be from before."""
    expired: frozenset[str] = frozenset()
    """Keys of the waits whose limit has run out at this epoch."""


@dataclass(frozen=True)
class OpenGoal:
    """What ``clovmmigrate -p`` wants. Empty mover: every node counts as moving. A budget of 0 seconds: the
    heartbeat stays as it is."""

    mover: str
    budget_seconds: int
    lease_seconds: int
    maintenance: bool = False
    why: str = ""
    since_epoch: int = 0
    """Epoch of the record when the command began: a report that is older is no answer to its roll call."""
    mode: Mode = Mode.FROZEN
    target: str = ""
    """Control domain that the mover is to come to, as far as the operator says."""
    hold_alone: bool = False
    """The operator says that the timeout is not to be raised, also where a resource does not stand that."""
    just_in_time: bool = False
    """The command raises it in mid-course (`RaiseGoal`): the opening raises nothing."""


@dataclass(frozen=True)
class CloseGoal:
    """What ``clovmmigrate -u source-ldom target-host`` wants."""

    node: str
    guest: str
    target: str
    skip_save: Mapping[str, str] = field(default_factory=dict)
    """Control domain -> reason why its configuration cannot be saved (a dead source)."""
    saved_by_hand: frozenset[str] = frozenset()
    """Control domains without login of which the operator says that he saved their configuration."""
    lease_seconds: int = 14400
    since_epoch: int = 0
    """Epoch of the record when the command began: a proof that is older does not answer it."""
    ignore_clocks: str = ""
    """Why the heartbeat may come down although clocks do not agree; empty: it may not."""
    off: bool = False
    """The guest is off there, and its agents are to see that (``standfast window repair``)."""


@dataclass(frozen=True)
class RaiseGoal:
    """What ``standfast migrate --raise just-in-time`` wants while the switch-over is held: the heartbeat
    timeout raised, and read back from every member (`core.raising`)."""

    mover: str
    window: int
    """Of the window that this command has opened (`Record.window`)."""
    budget_seconds: int
    since_epoch: int = 0


@dataclass(frozen=True)
class LowerGoal:
    """What is wanted as soon as the guest runs on, or nobody can wait for that any longer: the heartbeat
    timeout of before."""

    window: int
    since_epoch: int = 0
    overdue: bool = False
    """Raised for longer than any command may have it: not left to one that is called alive."""


Goal = OpenGoal | CloseGoal | RaiseGoal | LowerGoal


@dataclass(frozen=True)
class WriteRecord:
    """Write `record` (compare-and-set on the snapshot's epoch), with an option of the cluster if given."""

    record: Record
    reason: str
    maintenance_mode: str | None = None
    """None: leave the option; empty: remove it."""
    warnings: tuple[Message, ...] = ()
    """What the operator is told at the end, once it is written."""


@dataclass(frozen=True)
class Reaim:
    """One patch: the devices of `node` aim at `host`, and the record moves."""

    record: Record
    node: str
    host: HostEntry
    reason: str


@dataclass(frozen=True)
class Guard:
    """One patch: from now on `node` is fenced by its killing gate alone, and the record moves."""

    record: Record
    node: str
    reason: str


@dataclass(frozen=True)
class Unguard:
    """One patch: the fencing levels of `nodes` as they were, and the record moves."""

    record: Record
    nodes: tuple[str, ...]
    reason: str
    warnings: tuple[Message, ...] = ()
    """As of WriteRecord."""


@dataclass(frozen=True)
class SaveConfiguration:
    """Save the domain configuration on `host`, verify it, and note its name in the record.

    Where nobody can log in it is only verified: the guest is there (`runs_here`), or is no more.
    """

    host: str
    runs_here: bool
    reason: str


@dataclass(frozen=True)
class Reload:
    """Have every member's corosync read its file again (one ring multicast)."""

    reason: str


@dataclass(frozen=True)
class Barrier:
    """See that this node takes part in the ring: a write that changes nothing goes around it. Whoever has
    stood still meets the others first, and then looks at what they have."""

    reason: str


@dataclass(frozen=True)
class Wait:
    """Look again until something has changed. After `limit_seconds` at the same epoch `key` expires."""

    key: str
    limit_seconds: float
    reason: str
    news: str = ""
    """Of `reason`, what the operator is told again when it has changed; empty: nothing."""


@dataclass(frozen=True)
class Done:
    """The goal is reached."""

    reason: str
    changed: bool = True
    warnings: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Stop:
    """The goal cannot be reached from here. `unfinished`: a window is still open (exit 3). `left`: it holds
    nobody any more, and what is left of it (`Record.left`)."""

    messages: tuple[Message, ...]
    unfinished: bool
    left: str = ""


Step = WriteRecord | Reaim | Guard | Unguard | SaveConfiguration | Reload | Barrier | Wait
Decision = Step | Done | Stop
