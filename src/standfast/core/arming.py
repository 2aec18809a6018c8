"""At the end of a frozen window's lease: may it become a guarded one, and for which node?

A frozen window holds everybody, and when its lease is over the gate still holds whom an XSCF might miss
(rule `unsaved`). Where closing cannot help, because the node that moves is lost, the nodes arm the window:
it is guarded from then on, so that the killing gate proves or kills that node, and every other one is fenced
as always. Rules (docs/design.md, section 4, "The lease"):

* It is armed for the window's mover where that is absent, else for the one registered node that is. Where it
  was not opened for that node alone, any host may have a stale map, and the gate of every other node goes on
  asking that its host has saved.
* Never for a member, and not before the absence has been seen for a minute, by a node that ran and had quorum
  all the while: who has just come out of a blackout needs up to 33 s to be a member again (measured), and one
  that has just woken up believes that all others are lost.
* Never while a host shows any guest of the cluster on its way, or cannot be asked, or could not be told to
  stop the guest: a killing gate that cannot prove anything would only take the agents' place.
* Never once the closing is proven: then nobody is held any more, and each node's own agents fence it.
* Once more for another node, where the one that it was armed for is a member again: that one is fenced by its
  own agents from then on, as far as they are sure of their host, as any node of an armed window.
* Nothing else changes with it: no heartbeat, no aim, no lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.names import RELEASE_SECONDS
from standfast.core.record import Armed, Mode, Phase, Record
from standfast.core.report import Report
from standfast.core.steps import HostEntry, NodeAim

ABSENT_SECONDS = float(RELEASE_SECONDS)
"""For so long the absence has been seen, past the lease."""
STAGGER_SECONDS = 30.0
"""How much later than the node before it in the order of names each node arms. In a cluster of two that has
fallen apart each sees the other one absent: one of them is first, and its killing gate too."""

_ON_ITS_WAY = frozenset({GuestState.MIGRATING_OUT, GuestState.INCOMING})
_NO_WORD = frozenset({GuestState.SILENT, GuestState.UNKNOWN})

Where = Mapping[str, tuple[HostAnswer, ...]]


@dataclass(frozen=True)
class ArmView:
    """What one node knows of a window that is past its lease. Durations in seconds."""

    me: str
    members: frozenset[str]
    record: Record
    quorate: bool = False
    """This node's membership has quorum."""
    aims: Mapping[str, NodeAim] | None = None
    hosts: Mapping[str, HostEntry] | None = None
    absent_seconds: Mapping[str, float] | None = None
    """Node -> for how long this node, running and with quorum, has seen it absent past the lease."""


@dataclass(frozen=True)
class Arm:
    """Make the window a guarded one of `node`."""

    node: str
    window: int
    """The window that this was decided for: another one is not armed by it."""
    mover: str
    """Whom it was for."""
    former: str = ""
    """Whom it is armed for until now, who is a member again; empty: nobody."""


def whom(view: ArmView) -> tuple[str, str]:
    """The node for which it may be armed, as far as this node knows without the hosts; or empty, and why not.
    Both empty: there is nothing to arm."""
    record, aims = view.record, view.aims or {}
    if not _for_nobody(record, view.members) or not record.open:
        return "", ""
    if record.proven:
        return "", ""  # nobody is held: who is absent is fenced by its own agents
    if record.armed is not Armed.NO and not set(aims) - view.members:
        return "", ""
    if record.phase is Phase.OPENING or record.abort:
        return "", "nobody was told to migrate in it, and the gate goes by what the hosts show"
    if not view.quorate:
        return "", f"{view.me} is in a part of the cluster without quorum"
    absent = sorted(set(aims) - view.members)
    if record.mover in absent:
        node = record.mover
    elif len(absent) == 1:
        node = absent[0]
    else:
        return "", f"{' and '.join(absent)} are absent" if absent else "no node is absent"
    seen = (view.absent_seconds or {}).get(node, 0.0)
    needed = ABSENT_SECONDS + _place(view) * STAGGER_SECONDS
    if seen < needed:
        return "", f"{node} has been absent for {seen:.0f} s, and {view.me} waits for {needed:.0f} s"
    return node, ""


def _for_nobody(record: Record, members: Iterable[str]) -> bool:
    """Whether the window is for nobody that is absent: frozen, or armed for a node that is a member again."""
    return record.mode is Mode.FROZEN or (record.armed is not Armed.NO and record.mover in members)


def decide(view: ArmView, node: str, where: Where) -> tuple[Arm | None, str]:
    """Whether the window is armed for `node`, which `whom` has named, by what every host says; or why not."""
    hosts, aims = view.hosts or {}, view.aims or {}
    why = (
        _not_told(hosts)
        or _not_asked(hosts, aims, where)
        or _moving(aims, where)
        or _not_listed(view.record, hosts, aims[node])
    )
    if why:
        return None, why
    if all(answer.state.proves_not_here for answer in where.get(node, ())):
        return None, f"no control domain has {aims[node].guest}, and the gate lets its fencing go on"
    former = view.record.mover if view.record.armed is not Armed.NO else ""
    return Arm(node, view.record.window, view.record.mover, former), ""


def came_back(arm: Arm, members: Iterable[str]) -> bool:
    """Whether the node is a member by now, or the one that it was armed for is none any more: looked at once
    more with the write, since the hosts were asked meanwhile."""
    there = frozenset(members)
    return arm.node in there or bool(arm.former and arm.former not in there)


def armed(record: Record, arm: Arm, aims: Mapping[str, NodeAim]) -> Record | None:
    """The record of the armed window; None: it is no longer the one that this was decided for."""
    nobody = _for_nobody(record, [arm.former])
    opened_so = nobody and record.phase in (Phase.OPEN, Phase.CLOSING)
    same = (record.window, record.mover) == (arm.window, arm.mover)
    own = record.mover == arm.node
    if not (opened_so and same) or record.proven or record.abort:
        return None
    # Whom a `-u` has named may be one of several that have moved in a window for every node.
    alone = own and record.phase is Phase.OPEN
    return record.next(
        mode=Mode.GUARDED,
        armed=Armed.FOR_MOVER if alone else Armed.FOR_EVERY_NODE,
        mover=arm.node,
        source=_source(record, aims[arm.node]),
        target=record.target if own else "",
        # Its former mover has to be aimed and proven too before the window closes (core/others.py).
        settle=tuple(sorted({*record.settle, record.mover} - {"", arm.node})),
    )


def _source(record: Record, aim: NodeAim) -> str:
    own = record.mover == aim.node
    return (record.source if own else "") or aim.host


def not_yet(record: Record, members: Iterable[str], reports: Mapping[str, Report]) -> list[str]:
    """Members of an armed window whose own fencer has not reported, at this epoch, that it would use the
    killing gate alone. The mover's own does not count: it may not fence itself."""
    return [
        node
        for node in sorted(set(members) - {record.mover})
        if (report := reports.get(node)) is None
        or report.killing != record.mover
        or report.epoch != record.epoch
    ]


def _place(view: ArmView) -> int:
    """Of this node among all: the one that is absent here counts too, since it may think the same of us. The
    window's mover comes last: what it believes of others may be from before a blackout."""
    everybody = {*(view.aims or {}), *view.members}
    return len(everybody) if view.me == view.record.mover else sorted(everybody).index(view.me)


def _not_told(hosts: Mapping[str, HostEntry]) -> str:
    if not hosts:
        return "no control domain is known"
    without = [name for name, host in sorted(hosts.items()) if not host.login]
    return f"control domain {without[0]} has no login, and nothing can be stopped there" if without else ""


def _not_asked(hosts: Mapping[str, HostEntry], aims: Mapping[str, NodeAim], where: Where) -> str:
    for node, aim in sorted(aims.items()):
        said = {answer.host: answer for answer in where.get(node, ())}
        for host in sorted(hosts):
            if host not in said or said[host].state in _NO_WORD:
                return f"control domain {host} gives no plain answer about {aim.guest}"
    return ""


def _moving(aims: Mapping[str, NodeAim], where: Where) -> str:
    for node, aim in sorted(aims.items()):
        for answer in where.get(node, ()):
            if answer.state in _ON_ITS_WAY or answer.job:
                return f"{aim.guest} is being migrated ({answer})"
    return ""


def _not_listed(record: Record, hosts: Mapping[str, HostEntry], aim: NodeAim) -> str:
    source = _source(record, aim)
    if not source:
        return f"the agents of {aim.node} aim at no control domain of clovmmigrate.conf"
    target = record.target if record.mover == aim.node else ""
    unlisted = sorted({source, target} - {"", *hosts})
    return f"{unlisted[0]} is not in clovmmigrate.conf" if unlisted else ""
