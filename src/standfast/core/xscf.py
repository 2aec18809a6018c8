"""What an XSCF says about a logical domain, and when that proves a kill. The standard library only.

Sources: Fujitsu M10 XSCF MIB and Trap Lists (C120-0006), table of scfDomainStatus; SPARC M12/M10
notes (C120-0105) 3.1.5 for `Unknown` and a stale `Host stopped`. Rules of this file:

* "Resetting" is an answer to an order, not a result. A kill is proven only by what the status
  table shows, and only to a call that saw the domain ALIVE there before its own order: after a
  migration the old XSCF keeps saying `Host stopped` of a guest that runs elsewhere.
* After the order the status must CHANGE into one that a running kernel cannot have.
* Whatever proves nothing (`Host stopped`, `Unknown`, `-`, suspended, a word not in the table)
  is doubt, before the order and after it. In doubt before the order, no order is given: with a
  stale name map it would hit another guest.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from standfast.core.evidence import GuestState

HOST_STOPPED = "Host stopped"

# A running kernel, or one on its way down: this domain is alive behind this XSCF.
_SOLARIS_UP = frozenset(
    {
        "Solaris running",
        "Solaris halting",
        "Solaris debugging",
        "OS Started. No state support.",
    }
)
# The kernel that ran before is gone, or executes nothing but its own end.
_FALLEN = frozenset(
    {
        "Solaris booting",
        "Solaris powering down",
        "Solaris rebooting",
        "Solaris panicking",
        "OpenBoot initializing",
        "OpenBoot Running",
        "OpenBoot Primary Boot Loader",
        "OpenBoot Running OS Boot",
        "OpenBoot Running Host Halted",
        "OpenBoot Exited",
        "OpenBoot Host Received Break",
        "OpenBoot Failed",
    }
)
_DOUBTFUL = frozenset({HOST_STOPPED, "Solaris suspended", "Unknown", "-"})

STATUSES = _SOLARIS_UP | _FALLEN | _DOUBTFUL

_DOMAIN_HEADER = re.compile(r"Logical Domain Name\s+Status", re.IGNORECASE)
_PPAR_HEADER = re.compile(r"PPAR-ID\s+PPAR Status", re.IGNORECASE)
_PPAR_ROW = re.compile(r"(\d{1,2})\s+(\S.*)")


class NotUnderstood(ValueError):
    """A table that does not have the documented form."""


class Kind(Enum):
    """What one status says by itself."""

    UP = "up"  # alive, with a kernel that may still reach data
    FALLEN = "fallen"  # alive, and the kernel that ran before it is no more
    DOUBTFUL = "doubtful"  # proves neither


def kind(status: str) -> Kind:
    """Place a status; a word that is not in the manual's table is doubtful."""
    word = _LOWER.get(" ".join(status.split()).lower(), "")
    if word in _SOLARIS_UP:
        return Kind.UP
    return Kind.FALLEN if word in _FALLEN else Kind.DOUBTFUL


def is_live(status: str) -> bool:
    """Whether this status shows the domain running behind this XSCF: kernel or firmware."""
    return kind(status) is not Kind.DOUBTFUL


def guest_state(status: str | None) -> GuestState:
    """What a row of the table says about a guest; None: the table was read whole and has no such row.

    An XSCF knows nothing of a migration, and `Unknown` may mean a guest that is arriving, or one that runs
    under a configuration that was never saved: it is UNKNOWN, which proves nothing in either direction.
    """
    if status is None:
        return GuestState.ABSENT
    if is_live(status):
        return GuestState.RUNNING
    word = " ".join(status.split()).lower()
    return _STANDING.get(word, GuestState.UNKNOWN)


_STANDING = {HOST_STOPPED.lower(): GuestState.STOPPED, "solaris suspended": GuestState.PAUSED}
_LOWER = {status.lower(): status for status in STATUSES}


@dataclass(frozen=True)
class DomainStatus:
    """One row of `showdomainstatus`."""

    domain: str
    status: str


@dataclass(frozen=True)
class PparStatus:
    """One row of `showpparstatus`."""

    ppar_id: int
    status: str

    @property
    def powered_off(self) -> bool:
        """Whether no domain of this partition can run: its machine is off."""
        return self.status.lower() == "powered off"


def parse_domain_status(text: str) -> tuple[DomainStatus, ...]:
    """Read the table of `showdomainstatus`; lines before its header (an echo) are skipped.

    Raises NotUnderstood without a header, for a row of one word, and for a domain listed twice.
    """
    rows = []
    for line in _below(text, _DOMAIN_HEADER, "showdomainstatus"):
        name, _, status = line.partition(" ")
        if not status.strip():
            raise NotUnderstood(f"showdomainstatus: a row without a status: {line!r}")
        rows.append(DomainStatus(name, " ".join(status.split())))
    if len({row.domain for row in rows}) != len(rows):
        raise NotUnderstood("showdomainstatus: a domain is listed twice")
    return tuple(rows)


def status_of(domain: str, rows: Sequence[DomainStatus]) -> str:
    """The status of one domain. Raises NotUnderstood where the table does not have it."""
    for row in rows:
        if row.domain == domain:
            return row.status
    raise NotUnderstood(f"showdomainstatus does not list {domain}")


def parse_ppar_status(text: str) -> tuple[PparStatus, ...]:
    """Read the table of `showpparstatus`. Raises NotUnderstood as parse_domain_status does."""
    rows = []
    for line in _below(text, _PPAR_HEADER, "showpparstatus"):
        row = _PPAR_ROW.fullmatch(line)
        if row is None:
            raise NotUnderstood(f"showpparstatus: not a row: {line!r}")
        rows.append(PparStatus(int(row[1]), " ".join(row[2].split())))
    if len({row.ppar_id for row in rows}) != len(rows):
        raise NotUnderstood("showpparstatus: a partition is listed twice")
    return tuple(rows)


def _below(text: str, header: re.Pattern[str], command: str) -> list[str]:
    lines = [line.strip().replace("\t", " ") for line in text.splitlines()]
    heads = [number for number, line in enumerate(lines) if header.fullmatch(line)]
    if len(heads) != 1:
        raise NotUnderstood(f"{command}: {'no' if not heads else 'more than one'} table in the answer")
    return [line for line in lines[heads[0] + 1 :] if line]


class Verdict(Enum):
    """Where a kill stands."""

    LOOK = "look"  # nothing seen yet: look before any order
    ORDER = "order"  # seen alive: the order may be given, once
    WAIT = "wait"  # ordered, not proven yet: look again
    PROVEN = "proven"  # killed, by this call's own observation
    DOUBT = "doubt"  # not seen alive: no order may be given


class OutOfTurn(RuntimeError):
    """Our own mistake: an order that was not due, or a second one."""


@dataclass(frozen=True)
class Proof:
    """One kill of one domain, fed with what is observed; never with what the XSCF replies.

    `Proof().seen(status)` first; where that gives ORDER, give it and take `.ordered()`; then
    `.seen(status)` until PROVEN or the caller's time limit.
    """

    verdict: Verdict = Verdict.LOOK
    statuses: tuple[str, ...] = ()  # every change, in order, for the message
    before_order: str = ""

    def seen(self, status: str) -> "Proof":
        """The proof after one more look at the status table."""
        status = " ".join(status.split())
        changed = not self.statuses or self.statuses[-1] != status
        statuses = (*self.statuses, status) if changed else self.statuses
        return replace(self, statuses=statuses, verdict=self._verdict(status, changed))

    def _verdict(self, status: str, changed: bool) -> Verdict:
        if self.verdict is Verdict.WAIT:
            return Verdict.PROVEN if changed and kind(status) is Kind.FALLEN else Verdict.WAIT
        if self.verdict in (Verdict.PROVEN, Verdict.DOUBT):
            return self.verdict
        return Verdict.ORDER if is_live(status) else Verdict.DOUBT

    def ordered(self) -> "Proof":
        """The proof after the order was given. Raises OutOfTurn unless ORDER is due."""
        if self.verdict is not Verdict.ORDER:
            raise OutOfTurn(f"a kill was ordered while the proof says {self.verdict.value}")
        return replace(self, verdict=Verdict.WAIT, before_order=self.statuses[-1])

    @property
    def story(self) -> str:
        """What was seen, for messages: ``Solaris running -> Solaris panicking``."""
        return " -> ".join(self.statuses) or "nothing"
