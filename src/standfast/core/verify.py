"""Is every node's fencing proven, from every node, now? What is known, as rows that a person can read.

For every registered node, each of its agents and each member that could kill by it: the agent, asked now with
the parameters of the configuration, sees this guest running; the running fencer of that member has the device
with just these parameters; and of all hosts that one at which the devices aim, and no other, has the guest,
under the UUID that the guest itself tells.

Pure: a snapshot in, rows out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from standfast.core import facility, members
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.report import Report, begun_since, proves
from standfast.core.running import key
from standfast.core.steps import NodeAim, Snapshot

UNFINISHED = ("Testing", "Init-ing")


@dataclass(frozen=True)
class Cell:
    """One agent, seen from one member. `why` is empty where it is proven."""

    device: str
    seen_from: str
    why: str = ""

    @property
    def proven(self) -> bool:
        """Nothing is missing."""
        return not self.why


@dataclass(frozen=True)
class GuestRow:
    """One node's fencing. `troubles`: what is wrong with the place of its guest, code and sentence."""

    node: str
    guest: str
    aim: str
    places: tuple[HostAnswer, ...]
    identity: str
    """UUID that the node itself tells; empty: not known, or its hosts tell none."""
    troubles: tuple[tuple[str, str], ...] = ()
    cells: tuple[Cell, ...] = field(default=())

    @property
    def proven(self) -> bool:
        """The place is right, there are agents, and each is proven from each member that could kill."""
        return not self.troubles and bool(self.cells) and all(cell.proven for cell in self.cells)


def rows(
    snapshot: Snapshot, since_epoch: int, *, machines: bool, expired: bool = True
) -> tuple[GuestRow, ...]:
    """A row for each registered node. Tests count that were begun at `since_epoch` or later.

    `machines`: the UUID that a node tells is that of its guest (libvirt). `expired`: what is not there yet
    will not come.
    """
    return tuple(
        _row(snapshot, aim, since_epoch, machines=machines, expired=expired) for aim in snapshot.aims.values()
    )


def complete(snapshot: Snapshot, since_epoch: int) -> bool:
    """Whether every member has told how its tests since `since_epoch` ended, and has asked its fencer."""
    for member in snapshot.members:
        report = snapshot.reports.get(member)
        if report is None or report.epoch < since_epoch:
            return False
        if members.facility_runs(snapshot, member):
            for aim in snapshot.aims.values():
                if any(not _over(report, device, since_epoch) for device in aim.proofs):
                    return False
    return True


def _over(report: Report, device: str, since_epoch: int) -> bool:
    running = report.agents.get(device, "") in UNFINISHED
    return not running and begun_since(report.proofs.get(device, ""), since_epoch)


def _row(snapshot: Snapshot, aim: NodeAim, since_epoch: int, *, machines: bool, expired: bool) -> GuestRow:
    answers = snapshot.places.get(aim.guest, ())
    report = snapshot.reports.get(aim.node)
    identity = report.identity if machines and report is not None else ""
    cells = [
        Cell(device, member, _why(snapshot, aim, device, member, since_epoch, expired=expired))
        for device in aim.proofs
        for member in sorted(snapshot.members - {aim.node})
    ]
    troubles = tuple(_place(aim, answers, identity))
    return GuestRow(aim.node, aim.guest, aim.host, tuple(answers), identity, troubles, tuple(cells))


def _why(
    snapshot: Snapshot, aim: NodeAim, device: str, member: str, since_epoch: int, *, expired: bool
) -> str:
    report = snapshot.reports.get(member)
    if report is None:
        return "standfastd does not report"
    if facility.is_stopped(snapshot.record, member) or report.facility != "running":
        return "its shutdown facility is stopped (sdtool -b)"
    if not _over(report, device, since_epoch):
        return "not tested in time" if expired else "is being tested"
    if not proves(report.proofs.get(device, ""), aim.proofs[device], since_epoch):
        state = report.agents.get(device, "Unknown")
        return state if "Failed" in state else "was tested with other parameters"
    if report.fencer_error:
        return f"its running fencer is not known: {report.fencer_error}"
    return report.fencer.get(key(aim.node, device), "")


def _place(aim: NodeAim, answers: Sequence[HostAnswer], identity: str) -> list[tuple[str, str]]:
    found = []
    alive = [answer for answer in answers if answer.state.is_present]
    if not aim.host:
        text = f"the agents of {aim.node} aim at no host of clovmmigrate.conf"
        found.append(("AIM_UNKNOWN", text))
    if len(alive) > 1:
        found.append(("TWO_COPIES", f"{aim.guest} is on {' and on '.join(str(a) for a in alive)}"))
    elif alive and aim.host and alive[0].host != aim.host:
        text = f"{aim.guest} is on {alive[0].host}, its agents aim at {aim.host}"
        found.append(("STALE_AIM", text))
    elif alive and alive[0].state is not GuestState.RUNNING:
        found.append(("NOT_RUNNING", f"{aim.guest} does not run: {alive[0]}"))
    if not alive:
        shown = ", ".join(str(answer) for answer in answers) or "no host was asked"
        found.append(("NOT_RUNNING", f"no host shows {aim.guest} running ({shown})"))
    for answer in answers:
        if answer.state in (GuestState.SILENT, GuestState.UNKNOWN):
            text = f"{answer.host} gives no answer about {aim.guest}: {answer.detail}"
            found.append(("HOST_SILENT", text))
        if identity and answer.state.is_present and answer.identity and answer.identity != identity:
            text = (
                f"the {aim.guest} on {answer.host} is another machine: its UUID is {answer.identity}, "
                f"{aim.node} tells {identity}"
            )
            found.append(("OTHER_MACHINE", text))
    return found
