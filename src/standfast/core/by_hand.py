"""Saving the domain configuration where nobody can log in: the operator does it, the XSCF shows that he did.

Before `ldm add-spconfig` the XSCF of the host to which a guest came calls it `Unknown`, and the one that it
left still lists it as `Host stopped` (SPARC M12/M10 notes C120-0105, 3.1.5). After it the one shows it live,
and the other does not list it any more. What the other lists as `Host stopped` proves neither: there the
operator's own word counts (``--saved``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.messages import Message
from standfast.core.record import Record
from standfast.core.steps import CloseGoal, Snapshot

NOTED = "by hand"
"""What the record notes of a configuration that the operator says to have saved."""


def source_of(snapshot: Snapshot, goal: CloseGoal, record: Record) -> str:
    """The control domain that the goal's guest came from; empty where its devices aim at none.

    The source that the record has of another guest is no answer: this one's would stay unsaved.
    """
    noted = record.source if record.mover == goal.node else ""
    return noted or snapshot.aims[goal.node].host


def unsaved(
    snapshot: Snapshot, goal: CloseGoal, record: Record, answers: Mapping[str, HostAnswer]
) -> list[str]:
    """Hosts without login whose configuration is plainly not saved; with them the source, if it may not be.

    Only a guest that an XSCF calls `Unknown` begins it (SPARC M12/M10 notes C120-0105, 3.1.5).
    """

    def shows(host: str, state: GuestState) -> bool:
        return not snapshot.hosts[host].login and host in answers and answers[host].state is state

    found = [
        host
        for host in snapshot.hosts
        if shows(host, GuestState.UNKNOWN) and (host == goal.target or host not in goal.skip_save)
    ]
    source = source_of(snapshot, goal, record)
    settled = source in goal.skip_save or source in goal.saved_by_hand or bool(record.saved.get(source))
    if found and source in snapshot.hosts and shows(source, GuestState.STOPPED) and not settled:
        found.append(source)
    return found


def told_to_save(goal: CloseGoal, hosts: list[str], answers: Mapping[str, HostAnswer]) -> Message:
    shown = ", ".join(str(answers[host]) for host in hosts)
    text = (
        f"{goal.guest} is still arriving, or the domain configuration on {' and on '.join(hosts)} is not "
        f"saved yet ({shown}); nobody can log in there to save it"
    )
    return Message("NOT_SAVED", text, host=hosts[0], next_command=what_to_type(goal, hosts))


def what_to_type(goal: CloseGoal, hosts: Sequence[str]) -> str:
    """What to type where Standfast cannot save, and how to go on."""
    where = " and on ".join(hosts)
    return (
        f"ldm add-spconfig NAME (on {where}; a NAME not in ldm list-spconfig, such as standfast-a), "
        f"then clovmmigrate -u {goal.guest} {goal.target}"
    )
