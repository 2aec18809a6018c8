"""What the emulated machines consist of: values only, the rules are in `world`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

GIB = 1 << 30


class Status(Enum):
    """Domain states as the XSCF reports them, in the order of the MIB object scfDomainStatus.

    Source: Fujitsu M10 XSCF MIB and Trap Lists, table 2-13; `UNKNOWN` from C120-0105 section 3.1.5.
    The texts are in the dialect file.
    """

    HOST_STOPPED = "host_stopped"
    SOLARIS_BOOTING = "solaris_booting"
    SOLARIS_RUNNING = "solaris_running"
    SOLARIS_SUSPENDED = "solaris_suspended"
    SOLARIS_HALTING = "solaris_halting"
    SOLARIS_POWERING_DOWN = "solaris_powering_down"
    SOLARIS_REBOOTING = "solaris_rebooting"
    SOLARIS_PANICKING = "solaris_panicking"
    SOLARIS_DEBUGGING = "solaris_debugging"
    OPENBOOT_INITIALIZING = "openboot_initializing"
    OPENBOOT_RUNNING = "openboot_running"
    OPENBOOT_PRIMARY_BOOT_LOADER = "openboot_primary_boot_loader"
    OPENBOOT_RUNNING_OS_BOOT = "openboot_running_os_boot"
    OPENBOOT_RUNNING_HOST_HALTED = "openboot_running_host_halted"
    OPENBOOT_EXITED = "openboot_exited"
    OPENBOOT_HOST_RECEIVED_BREAK = "openboot_host_received_break"
    OPENBOOT_FAILED = "openboot_failed"
    OS_STARTED = "os_started"
    UNKNOWN = "unknown"
    NONE = "none"


class State(Enum):
    """The STATE column of `ldm list-domain`."""

    INACTIVE = "inactive"
    BOUND = "bound"
    ACTIVE = "active"
    STOPPING = "stopping"
    SUSPENDED = "suspended"


class Power(Enum):
    """PPAR states as `showpparstatus` has them; the texts are in the dialect file."""

    OFF = "powered_off"
    INITIALIZING = "initialization_phase"
    RUNNING = "running"
    ABORTED = "hypervisor_aborted"


class Phase(Enum):
    COPYING = "copying"
    BLACKOUT = "blackout"
    LOST = "lost"
    DONE = "done"
    FAILED = "failed"


BootPolicy = Literal["auto", "prompt", "stopped"]
"""After a panic or reset: boot again, stay at the OpenBoot prompt, or stay down."""


@dataclass(frozen=True)
class Effect:
    """Something that a driver has to do to the real node behind a domain."""

    kind: Literal["freeze", "thaw", "power_off", "power_on"]
    machine: str


@dataclass(frozen=True)
class Timing:
    """Durations in seconds."""

    panicking_seconds: float = 3.0
    rebooting_seconds: float = 1.0
    openboot_seconds: float = 0.5
    booting_seconds: float = 4.0
    halting_seconds: float = 2.0
    power_on_seconds: float = 5.0
    migration_seconds: float = 20.0
    blackout_seconds: float = 1.0
    scrub_seconds: float = 5.0


@dataclass
class Domain:
    """One copy of a logical domain, as one hypervisor knows it."""

    name: str
    state: State = State.INACTIVE
    status: Status = Status.HOST_STOPPED
    cpus: int = 8
    memory_bytes: int = 16 * GIB
    boot: BootPolicy = "auto"
    machine: str | None = None
    control: bool = False
    started: float = 0.0
    mark: Literal["-", "s", "t", "e"] = "-"
    hung: bool = False
    lost: bool = False
    script: list[tuple[float, Status]] = field(default_factory=list)

    @property
    def incoming(self) -> bool:
        return self.mark == "t"

    @property
    def alive(self) -> bool:
        """Runs, or could go on running: a copy that a second one beside would double."""
        return self.state in (State.ACTIVE, State.STOPPING)

    def flags(self) -> str:
        """The six FLAGS columns (ldoms-admin, flag definitions)."""
        if self.incoming:
            second = "t"
        elif self.state in (State.INACTIVE, State.BOUND):
            second = "-"
        else:
            second = "n" if self.status.value.startswith("solaris") else "t"
        role = "cv" if self.control else "--"
        first = "s" if self.state is State.STOPPING else "-"
        return f"{first}{second}-{role}{self.mark}"


@dataclass(frozen=True)
class SavedDomain:
    name: str
    active: bool
    cpus: int
    memory_bytes: int
    boot: BootPolicy
    machine: str | None
    control: bool


@dataclass(frozen=True)
class SavedConfig:
    """A domain configuration in the service processor. The XSCF maps names through the current one."""

    name: str
    domains: tuple[SavedDomain, ...]
    saved_at: float

    @property
    def names(self) -> list[str]:
        return [saved.name for saved in self.domains]


FACTORY = "factory-default"


@dataclass
class Host:
    """One PPAR: its hypervisor, its saved configurations, its control domain's properties."""

    name: str
    ppar_id: int
    cpus: int = 64
    memory_bytes: int = 256 * GIB
    save_after_migration: bool = False
    power: Power = Power.RUNNING
    power_at: float | None = None
    domains: list[Domain] = field(default_factory=list)
    configs: dict[str, SavedConfig] = field(default_factory=dict)
    current: str = FACTORY
    next_poweron: str = FACTORY
    degraded: bool = False
    ldm_hangs_until: float = 0.0

    def find(self, name: str) -> Domain | None:
        return next((domain for domain in self.domains if domain.name == name), None)

    @property
    def control_domain_up(self) -> bool:
        control = next((domain for domain in self.domains if domain.control), None)
        return (
            self.power is Power.RUNNING and control is not None and control.status is Status.SOLARIS_RUNNING
        )


@dataclass
class Migration:
    """A live migration. The blackout is its last part; `copy_seconds` come before it."""

    name: str
    source: str
    target: str
    started: float
    copy_seconds: float
    blackout_seconds: float
    save: bool = False
    phase: Phase = Phase.COPYING
    stalled_at: float | None = None
    live: bool = False
    source_killed: bool = False
    reason: str = ""

    @property
    def blackout_at(self) -> float:
        return self.started + self.copy_seconds

    @property
    def ends_at(self) -> float:
        return self.blackout_at + self.blackout_seconds

    def progress(self, now: float) -> int:
        """Percent. 100 only for a finished one."""
        if self.phase is Phase.DONE:
            return 100
        now = self.stalled_at if self.stalled_at is not None else now
        whole = max(self.ends_at - self.started, 0.001)
        return max(0, min(99, int(100 * (now - self.started) / whole)))


class WorldError(Exception):
    """A refused action; `code` names a text of the dialect, `fields` fill it."""

    def __init__(self, code: str, **fields: object) -> None:
        super().__init__(f"{code} {fields}" if fields else code)
        self.code = code
        self.fields = fields
