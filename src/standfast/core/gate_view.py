"""What the gate can know, and what it can answer: the words of its rules (`gate`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from standfast.core.evidence import HostAnswer, gone_everywhere
from standfast.core.record import Record
from standfast.core.topology import Level


class Rule(Enum):
    """Which rule answered; the names are those of the table in `gate`."""

    FACILITY_STOPPED = "facility-stopped"
    NOT_JOINED = "not-joined"
    RECORD_UNKNOWN = "record-unknown"
    LEVELS_UNSAFE = "levels-unsafe"
    TARGET_BACK = "target-back"
    SETTLING = "settling"
    EXECUTOR_MOVING = "executor-moving"
    GUARDED = "guarded"
    FROZEN = "frozen"
    UNSAVED = "unsaved"
    ELSEWHERE = "elsewhere"
    NO_EVIDENCE = "no-evidence"
    CLEAR = "clear"


@dataclass(frozen=True)
class GateView:
    """What the gate can know. Durations in seconds by CLOCK_BOOTTIME; None = not known."""

    target: str
    executor: str
    controller_state: str
    record: Record | None
    record_error: str
    levels: tuple[Level, ...]
    membership: frozenset[str] | None
    seconds_since_epoch_seen: float = 0.0
    """Since this node first saw the record's epoch."""
    seconds_since_window_seen: float = 0.0
    """Since this node first saw the record's window."""
    seconds_since_return: float | None = None
    """Since the target came back into the membership; None: it was not seen to return."""
    seconds_since_held: float | None = None
    """Since a gate of this node last answered UNSAVED or ELSEWHERE for the target; None: it did not."""
    seconds_since_met: float | None = None
    """Since this node's ring became one that is not just its last without some member; None: long ago, or it
    cannot be told."""
    facility_stopped: bool = False
    aim: str = ""
    """Control domain at which the target's devices aim; empty: not known."""
    trusts_words: bool = False
    """A device of the target believes its host, and that host can be asked by us too."""
    saves: bool = True
    """The hosts' service processors know guests by configurations that have to be saved (kind ldm)."""
    hosts: tuple[HostAnswer, ...] = field(default=())
    mover_hosts: tuple[HostAnswer, ...] = field(default=())
    """What the hosts say about the guest that a guarded window is for."""
    own_hosts: tuple[HostAnswer, ...] = field(default=())
    """What the hosts say about this node's own guest; asked without a guarded window where no other node is
    seen."""
    own_aim: str = ""
    """Control domain at which this node's own devices aim; empty: not known."""
    seconds_held_as_mover: float | None = None
    """For how long this node has held this target without a break because it is itself the mover, or has been
    moved without a word."""
    unlisted: bool = False
    """While the target was alive no host ran its guest: the hosts that can be asked are not all."""
    hosts_before: tuple[HostAnswer, ...] = field(default=())
    """The round of answers before, in this same call: one round alone proves no absence."""

    @property
    def alone(self) -> bool:
        """This node sees no other one (a cluster of two): it may be the one that stood still."""
        return self.membership == frozenset({self.executor})


@dataclass(frozen=True)
class Answer:
    """The gate's answer.

    `final`: waiting longer cannot change it, answer at once. `hosts_matter`: what hosts say can change it.
    """

    allow: bool
    rule: Rule
    reason: str
    final: bool = True
    hosts_matter: bool = False


def hold(rule: Rule, reason: str, *, final: bool = False, hosts_matter: bool = False) -> Answer:
    """No, by this rule."""
    return Answer(False, rule, reason, final, hosts_matter)


def gone(view: GateView) -> bool:
    """Whether every host shows the target stopped or absent, in two rounds."""
    return gone_everywhere([answer.host for answer in view.hosts], [view.hosts_before, view.hosts])
