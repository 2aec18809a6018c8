"""Takes the snapshot that the planner looks at: the CIB, the reports, the membership, the hosts.

Questions that only some decisions need (the controller's idleness, the hosts) are asked only where the record
says that they are needed, so that opening stays fast. All questions of one snapshot run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree as ET

from standfast.cluster import attrd, cib, corosync_conf, membership, ring
from standfast.cluster.run import EngineError, pause_seconds
from standfast.core import aims, devices, guarded, preflight, record
from standfast.core.clock_step import OFF
from standfast.core.clocks import THRESHOLD_SECONDS
from standfast.core.closing import proof_asked
from standfast.core.evidence import HostAnswer, gone_everywhere
from standfast.core.hostlist import ControlDomain
from standfast.core.opening import called
from standfast.core.record import Phase, Record
from standfast.core.report import Report, decode_all
from standfast.core.steps import Goal, LowerGoal, OpenGoal, RaiseGoal, Snapshot
from standfast.core.unbroken import needing_membership
from standfast.hosts.asking import ask_everywhere
from standfast.hosts.base import Host
from standfast.sightings import Sightings

DC_LIMIT_SECONDS = 5.0
"""It does not answer for 1 to 2 s after a write; on an emulated node each of the two questions takes 2 s."""
ASK_LIMIT_SECONDS = 5.0


@dataclass
class Survey:
    """How a command looks at the cluster from this node."""

    me: str
    entries: tuple[ControlDomain, ...]
    make_hosts: Callable[[Mapping[str, str] | None], Mapping[str, Host]] = lambda account: {}
    """Makes the adapters when the first question to a host comes: opening usually asks none. It is given the
    parameters of a registered device (`hosts.make`)."""
    config: str = ""
    """Fingerprint of the clovmmigrate.conf that the command has read; empty: not to be compared."""
    clock_threshold_seconds: float = THRESHOLD_SECONDS
    clock_step: str = OFF
    _account: Mapping[str, str] | None = None
    _hosts: Mapping[str, Host] | None = None
    _texts: Mapping[str, str] = field(default_factory=dict)
    _took_seconds: float = 0.0
    """How long the engine's tools took to answer for the last snapshot."""

    @property
    def hosts(self) -> Mapping[str, Host]:
        """An adapter for each control domain."""
        if self._hosts is None:
            self._hosts = self.make_hosts(self._account)
        return self._hosts

    async def reported(
        self, over: Callable[[Mapping[str, Report]], bool], limit_seconds: float, poll_seconds: float
    ) -> None:
        """Return when what the nodes report is what is waited for, at the latest after `limit_seconds`, or
        twice the time of the last snapshot.

        One small question instead of a whole snapshot: what is waited for is nearly always a report.
        """
        deadline = time.monotonic() + pause_seconds(limit_seconds, self._took_seconds)
        took = 0.0
        while time.monotonic() < deadline:
            await asyncio.sleep(pause_seconds(poll_seconds, took))
            began = time.monotonic()
            with contextlib.suppress(EngineError):
                texts = await asyncio.to_thread(attrd.reports)
                if texts != self._texts:
                    self._texts = texts
                    if over(decode_all(texts)):
                        return
            took = time.monotonic() - began

    async def close(self) -> None:
        """Drop all connections to hosts."""
        for host in (self._hosts or {}).values():
            await host.close()

    async def take(
        self,
        guest: str = "",
        *,
        whole: bool = True,
        controller: bool = True,
        quick: bool = False,
        off: bool = False,
    ) -> tuple[Snapshot, ET.Element]:
        """A snapshot, and the CIB that it was taken from (the original of the next patch).

        `whole`: ask also what only the first and last steps need. `controller`: ask whether the designated
        controller is idle; it does not answer for a second after each write. `quick`: no host is asked, also
        where a member is absent. `off`: prove also without a window that the guest's own node is off. Raises
        EngineError, CibError.
        """
        began = time.monotonic()
        tree, reports, seen = await asyncio.gather(
            asyncio.to_thread(cib.query),
            asyncio.to_thread(attrd.reports),
            asyncio.to_thread(ring.look),
        )
        self._took_seconds = time.monotonic() - began
        self._texts = reports
        if self._hosts is None:
            self._account = devices.account(tree)
        found, why = record.read_or_why(tree)
        snapshot = Snapshot(
            me=self.me,
            record=found,
            record_error=why,
            config=self.config,
            clock_threshold_seconds=self.clock_threshold_seconds,
            clock_step=self.clock_step,
            configured=_nodes(tree),
            members=seen.members,
            reports=decode_all(reports),
            cluster_idle=None,
            stonith_enabled=_option(tree, "stonith-enabled", "true").lower() not in preflight.FALSE_WORDS,
            maintenance_mode=_option(tree, "maintenance-mode", ""),
            hosts=aims.entries(self.entries),
            aims=aims.aims(tree, self.entries),
            guarded=(guards := guarded.guarded(tree)),
            guard_whole=frozenset(node for node in guards if guarded.whole(tree, node)),
        )
        absent = _absent(snapshot, guest if off else "")
        if not quick and (whole or absent):
            snapshot = await self._whole(snapshot, tree, guest, absent, controller)
        return snapshot, tree

    async def _whole(
        self, snapshot: Snapshot, tree: ET.Element, guest: str, absent: list[str], controller: bool
    ) -> Snapshot:
        places_and_off = asyncio.gather(
            self.ask(_guests(snapshot) if guest else ()), self._proven_off(snapshot, absent)
        )
        if snapshot.record is not None and snapshot.record.phase is Phase.CLOSING:
            # Asked for at the beginning: each of our own writes makes the controller busy for a second.
            places, off = await places_and_off
            return replace(
                snapshot, places=places, proven_off=off, seconds_since_return=_since_return(snapshot, guest)
            )
        status, dc_state, (places, off) = await asyncio.gather(
            asyncio.to_thread(membership.status),
            asyncio.to_thread(membership.dc_state, DC_LIMIT_SECONDS) if controller else _nothing(),
            places_and_off,
        )
        return replace(
            snapshot,
            cluster_idle=None if dc_state is None else status.idle(dc_state),
            cluster_quiet=status.idle("S_IDLE"),
            fencing_pending=tuple(sorted({text.rpartition(" of ")[2] for text in status.fencing_pending})),
            unwell=_unwell(snapshot, status),
            unsupported=_unsupported(tree, status),
            monitors=_monitors(tree),
            unbroken=needing_membership(tree),
            places=places,
            proven_off=off,
            seconds_since_return=_since_return(snapshot, guest),
        )

    async def ask(self, guests: Sequence[str]) -> dict[str, tuple[HostAnswer, ...]]:
        """What every host says about each guest. All are asked at once, each for one listing."""
        return await ask_everywhere(self.hosts.values(), guests, ASK_LIMIT_SECONDS) if guests else {}

    async def _proven_off(self, snapshot: Snapshot, absent: list[str]) -> frozenset[str]:
        guests = {node: snapshot.aims[node].guest for node in absent if node in snapshot.aims}
        if not guests or not self.hosts:
            return frozenset()
        asked = tuple(guests.values())
        rounds = [await self.ask(asked), await self.ask(asked)]
        return frozenset(
            node
            for node, guest in guests.items()
            if gone_everywhere(self.hosts, [told[guest] for told in rounds])
        )


def _guests(snapshot: Snapshot) -> tuple[str, ...]:
    """Every registered guest: one that moves makes a window of its own, whoever closes it."""
    return tuple(dict.fromkeys(aim.guest for aim in snapshot.aims.values()))


async def _nothing() -> None:
    return None


def needs_whole(found: Record | None, goal: Goal) -> bool:
    """Whether the next decision looks at more than files and values.

    An opening that was left is closed by somebody who has to know where the guest is.
    """
    if isinstance(goal, RaiseGoal | LowerGoal):
        return False
    if found is None:
        return True
    if found.phase is Phase.OPENING:
        return not isinstance(goal, OpenGoal)
    return not (found.phase is Phase.CLOSING and found.aimed) or found.waits_for_clocks


def needs_controller(found: Record | None, goal: Goal, me: str) -> bool:
    """Whether the next decision asks if the controller is idle: only before the first change."""
    if isinstance(goal, RaiseGoal | LowerGoal):
        return False
    phase = found.phase if found is not None else Phase.IDLE
    if isinstance(goal, OpenGoal):
        return phase is Phase.IDLE and not (found is not None and called(found, me, goal.since_epoch))
    return phase is not Phase.CLOSING and not proof_asked(found, goal)


def _nodes(tree: ET.Element) -> tuple[str, ...]:
    return tuple(
        node.get("uname", "")
        for node in tree.iterfind("./configuration/nodes/node")
        if node.get("type", "member") == "member"
    )


def _option(tree: ET.Element, name: str, default: str) -> str:
    for pair in tree.iterfind("./configuration/crm_config/cluster_property_set/nvpair"):
        if pair.get("name") == name:
            return pair.get("value", default)
    return default


def _absent(snapshot: Snapshot, guest: str) -> list[str]:
    """Nodes that may be proven off: members of the window that are gone; without one, the guest's own."""
    if snapshot.record is None:
        return []
    own = {aim.node for aim in snapshot.aims.values() if guest and aim.guest == guest}
    asked = set(snapshot.record.old) if snapshot.record.open else own
    return sorted(asked - snapshot.members)


def _unwell(snapshot: Snapshot, status: membership.ClusterStatus) -> dict[str, str]:
    found = {}
    for name in snapshot.configured:
        node = status.node(name)
        if node is None or not node.online:
            found[name] = "UNCLEAN (lost, not proven dead)" if node and node.unclean else "offline"
        elif node.unclean:
            found[name] = "UNCLEAN"
        elif node.pending:
            found[name] = "still joining"
        elif node.standby or node.maintenance:
            found[name] = "in standby" if node.standby else "in maintenance"
    return found


def _unsupported(tree: ET.Element, status: membership.ClusterStatus) -> tuple[str, ...]:
    found = []
    if _option(tree, "stonith-watchdog-timeout", "0") not in ("0", "0s", ""):
        found.append("watchdog fencing (stonith-watchdog-timeout is set)")
    if any(node.kind != "member" for node in status.nodes):
        found.append("Pacemaker remote nodes")
    try:
        text = corosync_conf.read_file()
        if len(corosync_conf.links(text)) > 1:
            found.append("more than one knet link")
        for path, key, value in corosync_conf.settings(text):
            if (path, key) == (("totem",), "transport") and value != "knet":
                found.append(f"the transport {value} (only knet)")
        if any(path[:2] == ("quorum", "device") for path, _, _ in corosync_conf.settings(text)):
            found.append("a quorum device")
    except (OSError, corosync_conf.CorosyncConfError) as error:
        found.append(f"corosync.conf of this node: {error}")
    return tuple(found)


def _monitors(tree: ET.Element) -> dict[str, float]:
    """Timeouts of recurring monitors of ordinary resources: each may be in flight in the blackout."""
    found: dict[str, float] = {}
    for primitive in tree.iterfind("./configuration/resources//primitive"):
        if primitive.get("class") == "stonith":
            continue
        for operation in primitive.iterfind("./operations/op"):
            if operation.get("name") == "monitor" and operation.get("interval", "0") not in ("0", "0s"):
                seconds = _seconds(operation.get("timeout", "20s"))
                name = primitive.get("id", "")
                found[name] = min(found.get(name, seconds), seconds)
    return found


def _seconds(text: str) -> float:
    """A Pacemaker interval in seconds; what cannot be read counts as 0, which only warns."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|msec|us|usec|s|sec|m|min|h|hr)?\s*", text)
    if match is None:
        return 0.0
    unit = {
        "ms": 1e-3,
        "msec": 1e-3,
        "us": 1e-6,
        "usec": 1e-6,
        "m": 60.0,
        "min": 60.0,
        "h": 3600.0,
        "hr": 3600.0,
    }
    return float(match[1]) * unit.get(match[2] or "s", 1.0)


def _since_return(snapshot: Snapshot, guest: str) -> float | None:
    node = next((aim.node for aim in snapshot.aims.values() if aim.guest == guest), "")
    return Sightings().seconds_since_return(node) if node else None


__all__ = ["EngineError", "Survey", "needs_whole"]
