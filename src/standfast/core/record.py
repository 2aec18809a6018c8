"""The record: the one cluster-wide truth about the window, as it stands in the CIB.

Rules of this file:

* The set exists from set-up on with every name present, so that a change is always a modification
  (the controller ignores options that come with a newly created set) and a missing name is damage; only
  ``owed``, ``confirmed``, ``confirmed-at``, ``overtaken``, ``stopped``, ``armed`` and ``just-in-time`` may be
  missing, since older versions did not write them.
* Every name has the prefix ``standfast-``: names in ``crm_config`` are global to the cluster.
* The id of the phase's nvpair carries the epoch. A patch that moves it names the old id, so it is refused
  whole when somebody else has moved on, and it cannot apply twice.
* Text in, text out: nothing here knows how the CIB is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from xml.etree import ElementTree as ET

from standfast.core.names import RECORD_SET_ID

FORMAT = 1
PREFIX = "standfast-"
PHASE_ID_PREFIX = "standfast-phase-"
ARMED_AGAIN = "fencing is armed again"
"""What operators are told of a window whose guests are proven (`Record.left`)."""
ONLY_RAISED = f"{ARMED_AGAIN}, only the heartbeat timeout is still raised"
MAX_VALUE_CHARS = 16000
"""Pacemaker took 20 kB in one value; we stay below."""


class Phase(Enum):
    """Where the window stands. ``idle`` means: there is none."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class Mode(Enum):
    """Who is held while the window is open. ``guarded``: the ordinary gates hold as in ``frozen`` until
    their table has rows of its own; only the killing gate (core/killing.py) tells the two apart."""

    FROZEN = "frozen"
    GUARDED = "guarded"


class Armed(Enum):
    """Whether the nodes have made a frozen window a guarded one at the end of its lease (core/arming.py)."""

    NO = ""
    FOR_MOVER = "mover"
    """For the node that it was opened for."""
    FOR_EVERY_NODE = "every"
    """For one that was lost in it. Any guest may have moved: it was opened for every node, or for another."""


class Totem(Enum):
    """What the record asks every member's heartbeat keys to be.

    The way down has two stages: with one reload the knet defaults are computed from the token that is still
    in force, so the old effective values are written out first and absent keys are removed after that.
    """

    ORIGINAL = "original"
    RAISED = "raised"
    LOWERED = "lowered"
    """After a raise just in time: the old token set, the knet values of the raise. A ping timeout that
    falls as a guest runs on has its link called down, and the node dropped (6 of 6; measured)."""
    EXPLICIT = "explicit"


class RecordError(Exception):
    """The record is damaged or of a format that this version does not know."""


@dataclass(frozen=True)
class OldHeartbeat:
    """One node's heartbeat before the window: its file's keys (a missing one was absent), and what ran."""

    file_keys: Mapping[str, str]
    runtime: Mapping[str, int]
    structure: str = ""
    """Fingerprint of everything else in that file."""
    rest: str = ""
    """The same without the node list; empty: an older version did not note it."""


@dataclass(frozen=True)
class Record:
    """A parsed record. Times are durations: no wall-clock time decides anything."""

    epoch: int
    phase: Phase = Phase.IDLE
    owner: str = ""
    """Cluster node whose command or daemon wrote this epoch."""
    mover: str = ""
    """Cluster node that a window is for; empty: every node counts as moving."""
    source: str = ""
    """Control domain on which the mover ran when the window was opened."""
    target: str = ""
    """Control domain that closing aims at."""
    mode: Mode = Mode.FROZEN
    totem: Totem = Totem.ORIGINAL
    budget_seconds: int = 0
    """Heartbeat timeout that the window has raised to; just in time: that it was raised to at last."""
    hold_limit_seconds: int = 300
    lease_seconds: int = 0
    window: int = 0
    """Epoch with which this window began; names the window for lease and history."""
    settle: tuple[str, ...] = ()
    """Nodes whose fencing is refused for the settling time after this epoch was first seen."""
    saved: Mapping[str, str] = field(default_factory=dict)
    """Control domain -> name of the configuration saved there in this window, ``by hand...``, or
    ``skipped: reason``; empty: it has to be saved."""
    aimed: bool = False
    """Closing: the devices aim at `target` and have been proven, or nothing was to be aimed. With `totem`
    still raised: only the clocks are in the way."""
    prove: int = 0
    """Epoch from which a proof of the mover's devices counts; 0: any."""
    abort: bool = False
    """The window never opened: closing only puts the heartbeat back."""
    confirmed: Mapping[str, str] = field(default_factory=dict)
    """Control domain -> a person's reason why it is dead; counts in this window, while it is silent."""
    confirmed_at: Mapping[str, int] = field(default_factory=dict)
    """Control domain -> epoch at which it was noted that somebody is about to say so; without an entry in
    `confirmed` nobody has said it yet (core/confirmed.py)."""
    overtaken: Mapping[str, str] = field(default_factory=dict)
    """Control domain -> the reason of such a word that counts no more: it has answered since
    (core/confirmed.py)."""
    armed: Armed = Armed.NO
    """Of a guarded window: how it became one, where it was opened as a frozen one."""
    just_in_time: bool = False
    """A guarded window that raises nothing until its command asks for it, in mid-course (core/raising.py)."""
    maintenance: str = ""
    """What maintenance-mode was before the window set it; empty: the window did not touch it."""
    old: Mapping[str, OldHeartbeat] = field(default_factory=dict)
    owed: Mapping[str, OldHeartbeat] = field(default_factory=dict)
    """Nodes that were away when a window closed, and the values that each must take back (core/owed.py).
    Not of this window: every later record carries them until they are taken back or forgotten."""
    stopped: tuple[str, ...] = ()
    """Nodes whose shutdown facility is stopped (core/facility.py). Not of this window either."""
    why: str = ""
    stonith_max_attempts: str = ""
    """The user's stonith-max-attempts before set-up; empty: absent."""

    @property
    def open(self) -> bool:
        """Whether there is a window (opening and closing count)."""
        return self.phase is not Phase.IDLE

    @property
    def proven(self) -> bool:
        """Closing, and every guest that moved is found, aimed at and proven: what is left is the heartbeat.
        Fencing is then as with no window."""
        return self.phase is Phase.CLOSING and self.aimed and not self.abort

    @property
    def waits_for_clocks(self) -> bool:
        """Proven, and the heartbeat stays raised: the clocks were not known to agree."""
        return self.proven and self.totem is Totem.RAISED

    @property
    def holds(self) -> bool:
        """Whether fencing is held because of this window."""
        return self.open and not self.proven

    @property
    def guarded_mover(self) -> str:
        """The node that a guarded window is for, while it holds; empty: there is no such window."""
        return self.mover if self.holds and self.mode is Mode.GUARDED else ""

    @property
    def raised_now(self) -> bool:
        """Raised just in time, and not lowered yet."""
        return self.just_in_time and self.totem is Totem.RAISED

    @property
    def left(self) -> str:
        """Of a proven window, for people: what fencing does, and what is left to do. Else empty."""
        if not self.proven:
            return ""
        return (
            ONLY_RAISED if self.waits_for_clocks else f"{ARMED_AGAIN}, only the end of the closing is missing"
        )

    def next(self, **changes: object) -> Record:
        """This record with `changes`, one epoch later."""
        return replace(self, epoch=self.epoch + 1, **changes)  # type: ignore[arg-type]

    def after(self) -> Record:
        """A record one epoch later that knows no window, with all that outlives one."""
        return Record(
            epoch=self.epoch + 1,
            owed=self.owed,
            stopped=self.stopped,
            stonith_max_attempts=self.stonith_max_attempts,
        )

    @classmethod
    def fresh(cls, stonith_max_attempts: str = "", epoch: int = 1) -> Record:
        """The record that set-up creates: no window."""
        return cls(epoch=epoch, stonith_max_attempts=stonith_max_attempts)


def phase_id(epoch: int) -> str:
    """Id of the phase's nvpair at `epoch`; moving it is the compare-and-set."""
    return f"{PHASE_ID_PREFIX}{epoch}"


def to_values(record: Record) -> dict[str, str]:
    """The record as the names and values of its property set."""
    values = {
        "format": str(FORMAT),
        "phase": record.phase.value,
        "epoch": str(record.epoch),
        "owner": record.owner,
        "mover": record.mover,
        "source": record.source,
        "target": record.target,
        "mode": record.mode.value,
        "armed": record.armed.value,
        "totem": record.totem.value,
        "budget-seconds": str(record.budget_seconds),
        "hold-limit-seconds": str(record.hold_limit_seconds),
        "lease-seconds": str(record.lease_seconds),
        "window": str(record.window),
        "settle": ",".join(record.settle),
        "saved": _dump(dict(record.saved)),
        "aimed": _flag(record.aimed),
        "prove": str(record.prove),
        "abort": _flag(record.abort),
        "confirmed": _dump(dict(record.confirmed)),
        "confirmed-at": _dump(dict(record.confirmed_at)),
        "overtaken": _dump(dict(record.overtaken)),
        "just-in-time": _flag(record.just_in_time),
        "maintenance": record.maintenance,
        "old": _dump_beats(record.old),
        "owed": _dump_beats(record.owed),
        "stopped": ",".join(record.stopped),
        "why": record.why,
        "old-stonith-max-attempts": record.stonith_max_attempts,
    }
    too_long = [name for name, value in values.items() if len(value) > MAX_VALUE_CHARS]
    if too_long:
        raise RecordError(f"value of {PREFIX}{too_long[0]} is longer than {MAX_VALUE_CHARS} characters")
    return {PREFIX + name: value for name, value in values.items()}


def from_values(values: Mapping[str, str]) -> Record:
    """Parse the names and values of the property set.

    Raises RecordError for an unknown format, a missing name or a value that cannot be read.
    """
    try:
        found = values[PREFIX + "format"]
        if found != str(FORMAT):
            raise RecordError(f"record format {found!r} is not known to this version (it knows {FORMAT})")
        get = {name.removeprefix(PREFIX): value for name, value in values.items()}
        return Record(
            epoch=int(get["epoch"]),
            phase=Phase(get["phase"]),
            owner=get["owner"],
            mover=get["mover"],
            source=get["source"],
            target=get["target"],
            mode=Mode(get["mode"]),
            totem=Totem(get["totem"]),
            budget_seconds=int(get["budget-seconds"]),
            hold_limit_seconds=int(get["hold-limit-seconds"]),
            lease_seconds=int(get["lease-seconds"]),
            window=int(get["window"]),
            settle=tuple(name for name in get["settle"].split(",") if name),
            saved={str(k): str(v) for k, v in json.loads(get["saved"]).items()},
            aimed=get["aimed"] == "true",
            prove=int(get["prove"]),
            abort=get["abort"] == "true",
            maintenance=get["maintenance"],
            old=_beats(get["old"]),
            # Records made before there were these names lack them. Calling that damage would hold all
            # fencing from the first program that is updated until the next write; empty is what they knew.
            confirmed={str(k): str(v) for k, v in json.loads(get.get("confirmed", "{}")).items()},
            confirmed_at={str(k): int(v) for k, v in json.loads(get.get("confirmed-at", "{}")).items()},
            overtaken={str(k): str(v) for k, v in json.loads(get.get("overtaken", "{}")).items()},
            armed=Armed(get.get("armed", "")),
            just_in_time=get.get("just-in-time") == "true",
            owed=_beats(get.get("owed", "{}")),
            stopped=tuple(name for name in get.get("stopped", "").split(",") if name),
            why=get["why"],
            stonith_max_attempts=get["old-stonith-max-attempts"],
        )
    except KeyError as error:
        raise RecordError(f"the record lacks {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"the record cannot be read: {error}") from None


def find_set(cib: ET.Element) -> ET.Element | None:
    """The record's property set in a CIB (root ``<cib>``), or None before set-up."""
    return cib.find(f"./configuration/crm_config/cluster_property_set[@id='{RECORD_SET_ID}']")


def read(cib: ET.Element) -> Record | None:
    """The record in a CIB; None before set-up. Raises RecordError if it is damaged."""
    found = find_set(cib)
    if found is None:
        return None
    values: dict[str, str] = {}
    ids: dict[str, str] = {}
    for pair in found.findall("nvpair"):
        name = pair.get("name", "")
        if name in values:
            raise RecordError(f"the record has {name!r} twice")
        values[name] = pair.get("value", "")
        ids[name] = pair.get("id", "")
    record = from_values(values)
    if ids[PREFIX + "phase"] != phase_id(record.epoch):
        raise RecordError(
            f"the record's epoch is {record.epoch} but its phase has id {ids[PREFIX + 'phase']!r}"
        )
    return record


def read_or_why(cib: ET.Element) -> tuple[Record | None, str]:
    """The record, or why it cannot be read; (None, "") before set-up."""
    try:
        return read(cib), ""
    except RecordError as error:
        return None, str(error)


def write(cib: ET.Element, record: Record) -> None:
    """Put `record` into a CIB that is about to be written (in place). The set is made if it is absent."""
    found = find_set(cib)
    if found is None:
        parent = cib.find("./configuration/crm_config")
        if parent is None:
            raise RecordError("the CIB has no crm_config section")
        found = ET.SubElement(parent, "cluster_property_set", {"id": RECORD_SET_ID})
    pairs = {pair.get("name", ""): pair for pair in found.findall("nvpair")}
    for name, value in to_values(record).items():
        identifier = (
            phase_id(record.epoch) if name == PREFIX + "phase" else f"standfast-window-{name[len(PREFIX) :]}"
        )
        pair = pairs.get(name)
        if pair is None:
            pair = ET.SubElement(found, "nvpair")
        pair.attrib.clear()
        pair.attrib.update({"id": identifier, "name": name, "value": value})


def _dump_beats(beats: Mapping[str, OldHeartbeat]) -> str:
    return _dump(
        {
            node: {
                "file": dict(beat.file_keys),
                "runtime": dict(beat.runtime),
                "structure": beat.structure,
                "rest": beat.rest,
            }
            for node, beat in beats.items()
        }
    )


def _beats(text: str) -> dict[str, OldHeartbeat]:
    return {
        str(node): OldHeartbeat(
            {str(k): str(v) for k, v in beat["file"].items()},
            {str(k): int(v) for k, v in beat["runtime"].items()},
            str(beat["structure"]),
            str(beat.get("rest", "")),
        )
        for node, beat in json.loads(text).items()
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


__all__ = [
    "FORMAT",
    "MAX_VALUE_CHARS",
    "Armed",
    "Mode",
    "OldHeartbeat",
    "Phase",
    "Record",
    "RecordError",
    "Totem",
    "find_set",
    "from_values",
    "phase_id",
    "read",
    "to_values",
    "write",
]
