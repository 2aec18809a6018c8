"""What hosts say about guests: the words that every decision about a guest is made from.

A host is asked "what is this guest to you?". Its answer is one `HostAnswer`; a host that
gave none answers `SILENT`, which proves nothing, in either direction. The standard library
only: the gate imports this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


class GuestState(Enum):
    """What one host says about one guest."""

    RUNNING = "running"  # it executes here, be it firmware, kernel or services
    PAUSED = "paused"  # it is here, with its memory, and executes nothing
    MIGRATING_OUT = "migrating out"  # it is here and is being sent away
    INCOMING = "incoming"  # a copy of it is being received here
    STOPPED = "stopped"  # known here, without running memory (ldm: bound, inactive)
    CRASHED = "crashed"  # its memory is here, its processors have given up
    ERROR = "error"  # a migration broke off: this copy is neither alive nor gone
    ABSENT = "absent"  # the host answered in full and does not know it
    UNKNOWN = "unknown"  # the host answered, and the answer could not be placed
    SILENT = "silent"  # the host gave no answer

    @property
    def proves_not_here(self) -> bool:
        """Whether this host, at that instant, could not run the guest."""
        return self in (GuestState.STOPPED, GuestState.ABSENT)

    @property
    def is_present(self) -> bool:
        """Whether this host holds a live copy of the guest, running or able to run on."""
        return self in _PRESENT


_PRESENT = frozenset(
    {
        GuestState.RUNNING,
        GuestState.PAUSED,
        GuestState.MIGRATING_OUT,
        GuestState.INCOMING,
        GuestState.ERROR,
    }
)


MOVING = frozenset({GuestState.MIGRATING_OUT, GuestState.INCOMING, GuestState.ERROR})
"""States of a guest that is between two hosts, or that a migration has left there."""


@dataclass(frozen=True)
class HostAnswer:
    """One host's word on one guest. `detail` is for people: the raw state, or why it is silent."""

    host: str
    guest: str
    state: GuestState
    detail: str = ""
    identity: str = ""
    """UUID of the guest that the host has under this name, where it tells one."""
    job: bool = False
    """The host reports a migration of it, whatever the state says."""

    def __str__(self) -> str:
        """One phrase for messages: ``ctrl2: running (active -n----)``."""
        return f"{self.host}: {self.state.value}" + (f" ({self.detail})" if self.detail else "")


def silent(host: str, guest: str, why: str) -> HostAnswer:
    """The answer of a host that gave none."""
    return HostAnswer(host, guest, GuestState.SILENT, why)


def gone_everywhere(hosts: Iterable[str], rounds: Sequence[Sequence[HostAnswer]]) -> bool:
    """Whether these rounds of questions prove that the guest runs on none of `hosts`.

    Two rounds at least, each question begun after the answer before it: in a single round a
    guest can move from a host not yet asked to one already asked. Every round must hold
    exactly one answer of every host, and each must say "not here" in the same way as before,
    of the same guest, with no migration of it.
    """
    wanted = sorted(hosts)
    if len(rounds) < 2 or not wanted:
        return False
    tables = [{answer.host: (answer.state, answer.identity) for answer in answers} for answers in rounds]
    complete = all(sorted(answer.host for answer in answers) == wanted for answers in rounds)
    same = all(table == tables[0] for table in tables)
    quiet = not any(answer.job for answers in rounds for answer in answers)
    return complete and same and quiet and all(state.proves_not_here for state, _ in tables[0].values())


def off_on(answers: Sequence[HostAnswer]) -> str:
    """The one host that knows the guest, which is off, while every other one answers that it does not; empty:
    nothing so plain."""
    knowing = [answer for answer in answers if answer.state is not GuestState.ABSENT]
    plain = len(knowing) == 1 and knowing[0].state is GuestState.STOPPED
    return knowing[0].host if plain and not any(answer.job for answer in answers) else ""


def on_its_way(answers: Iterable[HostAnswer], aim: str) -> HostAnswer | None:
    """The first answer that shows the guest being moved, or alive elsewhere than on `aim` (empty: any)."""
    for answer in answers:
        if answer.state in MOVING or (aim and answer.host != aim and answer.state.is_present):
            return answer
    return None
