"""Guests that somebody moves without a window: who looks, what is seen, what is said, and when it is mended.

While no window is open each guest is looked at by ONE node: the first, in the order of names, of those that
can, and not the guest's own while there is another. The next one takes its place as soon as it is not heard
of any more. A look is one question to the host at which the guest's devices aim; only where that does not
show it running are the others asked.

What is mended by itself is only what is plain: the guest runs on one host of the configuration, every other
host answers that it is not there, and two looks have shown the same.

Pure: what hosts answered comes in, words and decisions go out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from standfast.core import by_kind
from standfast.core.evidence import GuestState, HostAnswer, off_on
from standfast.core.gate import plainly_on
from standfast.core.messages import Message
from standfast.core.record import Phase, Record
from standfast.core.report import Report
from standfast.core.steps import HostEntry, NodeAim

WANTED_SIGHTS = 2
"""So many looks, one after the other, must show the same before anything is done by itself."""
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 1800.0
MAX_TRIES = 10
"""With pauses that double this is three hours; then only a person goes on, or another sight."""
STAYED_SECONDS = 15.0
"""A guest that runs on its source is back from a migration once it has run there plainly for so long: the
order may have been given only now."""
ARRIVED_SECONDS = 1.0
"""On another host than its source: two looks."""
REPAIR_REASON = "repair of the aim without a window"
"""How the record tells what ``standfast window repair`` has begun (core/closing.py)."""
AUTO_REASON = "opened by standfastd: somebody moves it"
"""How the record tells a window that the nodes have opened themselves."""


class Kind(Enum):
    """What a look has shown."""

    HOME = "home"  # it runs where its devices aim
    NOWHERE = "nowhere"  # it runs on no host: that is not ours
    UNKNOWN = "unknown"  # the hosts do not tell; what was known before stays
    ELSEWHERE = "elsewhere"  # it runs where its devices do not aim
    MOVING = "moving"  # a migration of it is under way
    LEFT = "left"  # a migration broke off and has left a copy
    COPIES = "copies"  # two copies of it run
    OFF = "off"  # it runs nowhere, and is known where its devices do not aim
    UNLISTED = "unlisted"  # it runs nowhere, and its node is alive: the hosts that are asked are not all


ASTRAY = frozenset({Kind.ELSEWHERE, Kind.MOVING, Kind.LEFT, Kind.COPIES, Kind.OFF, Kind.UNLISTED})


@dataclass(frozen=True)
class Sight:
    """What one look has shown of one guest. `host`: where it is, or goes to; several with commas."""

    kind: Kind
    host: str = ""
    plain: bool = False
    """ELSEWHERE: it runs there, and every other host says that it is not there. OFF: no other knows it."""

    @property
    def astray(self) -> bool:
        """Whether this is to be told."""
        return self.kind in ASTRAY

    @property
    def word(self) -> str:
        """For the report to the other nodes."""
        return f"{self.kind.value} {self.host}".rstrip()


def read(word: str) -> Sight | None:
    """What another node tells; None: this version does not know the word."""
    kind, _, host = word.partition(" ")
    try:
        return Sight(Kind(kind), host)
    except ValueError:
        return None


# -- who looks --------------------------------------------------------------------------------------------


def looks_at(node: str, able: Collection[str]) -> str:
    """The node that looks at the guest of `node`, and mends what it finds; empty: nobody can."""
    others = sorted(name for name in able if name != node)
    return others[0] if others else node if node in able else ""


# -- what is seen -----------------------------------------------------------------------------------------


def at_home(answer: HostAnswer) -> bool:
    """Whether the word of the host at which the devices aim is enough."""
    return answer.state is GuestState.RUNNING and not answer.job


def judge(aim: NodeAim, answers: Sequence[HostAnswer], hosts: Mapping[str, HostEntry]) -> Sight:
    """What the answers of all hosts show. (Of a guest that is off a service processor knows the name that was
    saved: where its devices aim then is no matter.)"""
    moving = [a for a in answers if _moves(a)]
    if moving:
        incoming = [a.host for a in moving if a.state is GuestState.INCOMING]
        return Sight(Kind.MOVING, incoming[0] if len(incoming) == 1 else "")
    running = sorted(a.host for a in answers if a.state is GuestState.RUNNING)
    if len(running) > 1:
        return Sight(Kind.COPIES, ",".join(running))
    if left := sorted(a.host for a in answers if a.state is GuestState.ERROR):
        return Sight(Kind.LEFT, ",".join(left))
    present = sorted(a.host for a in answers if a.state.is_present)
    if present:
        if aim.host in present:
            return Sight(Kind.HOME, aim.host)
        where = running or present
        return Sight(Kind.ELSEWHERE, ",".join(where), plain=plainly_on(answers) == where[0])
    if not answers or any(a.state in (GuestState.SILENT, GuestState.UNKNOWN) for a in answers):
        return Sight(Kind.UNKNOWN)
    off = sorted(a.host for a in answers if a.state is GuestState.STOPPED)
    saved = any(name in hosts and hosts[name].saves for name in off)
    if off and aim.host not in off and not saved and all(a.state.proves_not_here for a in answers):
        return Sight(Kind.OFF, ",".join(off), plain=off_on(answers) == off[0])
    return Sight(Kind.NOWHERE)


def _moves(answer: HostAnswer) -> bool:
    on_its_way = answer.state in (GuestState.MIGRATING_OUT, GuestState.INCOMING)
    return on_its_way or (answer.job and answer.state.is_present and answer.state is not GuestState.ERROR)


# -- what is said -----------------------------------------------------------------------------------------


def message(
    sight: Sight, aim: NodeAim, hosts: Mapping[str, HostEntry], seconds: float, *, proven: bool = False
) -> Message:
    """The alarm. `seconds`: since this node has first seen it, or heard of it. `proven`: a window whose
    guests are proven waits for its clocks; its own -u is what mends that."""
    found = _message(sight, aim, hosts, seconds)
    if not proven or sight.kind not in (Kind.MOVING, Kind.ELSEWHERE):
        return found
    typed = f"clovmmigrate -u {aim.guest} {sight.host or 'HOST'}"
    return replace(found, next_command=f"when it has ended: {typed}" if sight.kind is Kind.MOVING else typed)


def _message(sight: Sight, aim: NodeAim, hosts: Mapping[str, HostEntry], seconds: float) -> Message:
    who = f"{aim.guest} ({aim.node})"
    since = f"seen {seconds:.0f} s ago for the first time"
    where = sight.host.replace(",", " and ")
    aimed = aim.host or "no host of clovmmigrate.conf"
    if sight.kind is Kind.MOVING:
        to = f" to {where}" if where else ""
        text = (
            f"{who} is being moved{to} and no window is open, {since}: the gate holds while a host shows it "
            "on its way, and a real death in its blackout is not recovered"
        )
        option = f" --to {sight.host}" if sight.host else ""
        typed = f"standfast window open {aim.guest}{option}"
        return Message("UNANNOUNCED", text, node=aim.node, host=sight.host, next_command=typed)
    if sight.kind is Kind.COPIES:
        text = f"two copies of {who} run, on {where}, {since}: stop one, mind its data"
        typed = by_kind.stop(hosts, where.replace(" and ", " or "), aim.guest)
        return Message("TWO_COPIES", text, node=aim.node, host=sight.host, next_command=typed)
    if sight.kind is Kind.LEFT:
        text = f"a migration of {who} broke off and left a copy on {where}, {since}: nobody can fence it"
        typed = by_kind.look(hosts, sight.host.partition(",")[0], aim.guest)
        return Message("HALF_MOVED", text, node=aim.node, host=sight.host, next_command=typed)
    if sight.kind is Kind.UNLISTED:
        text = (
            f"{who} is alive, and no host of clovmmigrate.conf runs it, {since}: it runs on one that is not "
            "listed, or that does not show it, and that it runs nowhere proves nothing any more"
        )
        typed = "put its host into clovmmigrate.conf (all nodes; sdtool -r)"
        return Message("UNLISTED_HOST", text, node=aim.node, next_command=typed)
    if sight.kind is Kind.OFF:
        text = (
            f"{who} is off, and {where} knows it, {since}; its fencing aims at {aimed}, where an agent may "
            "fail since it is not there: a node that was lost is not recovered then"
        )
        first = f"virsh undefine {aim.guest} (on all hosts but one), then " if "," in sight.host else ""
        typed = f"{first}standfast window repair {aim.guest}"
        return Message("STALE_AIM", text, node=aim.node, host=sight.host, next_command=typed)
    text = (
        f"{who} was moved to {where} without a window, {since}; its fencing aims at {aimed}, so that nobody "
        "can fence it"
    )
    typed = f"standfast window repair {aim.guest}"
    return Message("STALE_AIM", text, node=aim.node, host=sight.host, next_command=typed)


def over(aim: NodeAim, sight: Sight, *, window: bool) -> str:
    """The line that ends an alarm."""
    if window:
        how = "a window is open now"
    elif sight.kind is Kind.HOME:
        how = f"it runs on {aim.host}, where its fencing aims"
    else:
        how = "it runs on no host"
    return f"over: {aim.guest} ({aim.node}) is not astray any more: {how}"


# -- what is done by itself -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tries:
    """What was tried about one sight."""

    count: int = 0
    seconds_since: float = 0.0
    """Since the last one has ended."""
    refusal: str = ""

    @property
    def pause_seconds(self) -> float:
        """How long after the last one the next one may begin."""
        return min(FIRST_PAUSE_SECONDS * 2.0 ** max(self.count - 1, 0), LONGEST_PAUSE_SECONDS)

    @property
    def spent(self) -> bool:
        """Nothing is tried any more."""
        return self.count >= MAX_TRIES

    @property
    def due(self) -> bool:
        """Whether the next one may begin."""
        first = self.count == 0 and not self.refusal
        return not self.spent and (first or self.seconds_since >= self.pause_seconds)

    def told(self, what: str) -> str:
        """For the alarm: what was tried, and how it went on."""
        if self.count == 0 or not self.refusal:
            return ""
        then = f"given up after {self.count} times" if self.spent else f"tried {self.count} times, and again"
        return f"; {what} by the nodes themselves was refused: {self.refusal} ({then})"


def in_the_way(
    node: str,
    target: str,
    hosts: Mapping[str, HostEntry],
    reports: Mapping[str, Report],
    *,
    members: Collection[str],
    able: Collection[str],
    quorate: bool,
) -> str:
    """Why nothing is done by itself about the guest of `node`; empty: nothing is in the way. `target`: the
    host at which its devices would aim; empty: they stay as they are. `able`: whose daemon is heard of."""
    if not quorate:
        return "this part of the cluster has no quorum"
    if node not in members:
        return f"{node} is not in the membership"
    # What cannot be proven, or closed, by every member would hold all fencing until its lease is over.
    if deaf := sorted(set(members) - set(able)):
        return f"standfastd of {', '.join(deaf)} is not heard of, and every member has to prove the agents"
    if target not in hosts:
        return "" if not target else f"{target} is not in clovmmigrate.conf"
    ways = (hosts[target].lan0, hosts[target].lan1, target)
    for name in sorted(members):
        logins = reports[name].logins if name in reports else {}
        for way in ways:
            if logins.get(way):
                return f"from {name} the agents do not get in at {target}: {logins[way]}"
    return ""


def in_the_way_off(node: str, *, members: Collection[str], quorate: bool) -> str:
    """The same of the guest of `node` that is off: what is aimed then needs no proof, and holds nobody."""
    if not quorate:
        return "this part of the cluster has no quorum"
    return f"{node} is in the membership" if node in members else ""


def by_the_nodes(record: Record | None, *, repairs: bool, opens: bool) -> bool:
    """Whether the nodes finish this window: they have opened it themselves, or, where they may repair, it is
    a repair that was left; or, where they may open one, an opening that was undone and left at that, which
    tells why it was undone and no more who began it. (To finish that one takes nothing from anybody.)"""
    if record is None or not record.open or not record.mover:
        return False
    closing = record.phase is Phase.CLOSING
    left = repairs and closing and record.why == REPAIR_REASON
    undone = opens and closing and record.abort
    return left or undone or record.why.startswith(AUTO_REASON)


def arrived(record: Record, answers: Sequence[HostAnswer], plain_seconds: float) -> str:
    """The host with which a window that the nodes finish is to be closed; empty: not yet.

    `plain_seconds`: for how long every look has shown the guest running plainly on the same host.
    """
    where = plainly_on(answers)
    if not where or any(map(_moves, answers)):
        return ""
    return where if plain_seconds >= (STAYED_SECONDS if where == record.source else ARRIVED_SECONDS) else ""
