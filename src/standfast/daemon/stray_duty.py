"""A node's part in noticing guests that somebody moves without a window: look, tell, and mend where that is
allowed (`repair`, `auto_window` of clovmmigrate.conf).

The decisions are `core.strays`; here are its eyes and hands. What a node finds stands in its report, so that
all nodes alarm. Mending is the operator's own ``standfast window``, started as a process: with its lock, its
announcement to this daemon, its preflight and its proofs.

While a command works on a window, or one is open, nobody looks: but for a window that the nodes have opened
themselves, and a repair that was left, which they finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from standfast.core import strays, topology
from standfast.core.aims import entries
from standfast.core.evidence import HostAnswer
from standfast.core.gate import plainly_on
from standfast.core.report import Report, decode_all
from standfast.core.steps import HostEntry, NodeAim
from standfast.core.strays import Kind, Sight, Tries
from standfast.daemon import own_command
from standfast.daemon.listening import Listening
from standfast.daemon.stray_view import Entry, View, order
from standfast.hosts.asking import ask_everywhere

if TYPE_CHECKING:
    from standfast.daemon.known import Known
    from standfast.daemon.own_command import Ended
    from standfast.hosts.base import Host
    from standfast.sightings import Sightings

TURN_SECONDS = 5.0
"""Between two looks at whose turn it is; costs nothing but that."""
LOOK_SECONDS = 20.0
LISTENING_LOOK_SECONDS = 40.0
"""Where every host tells by itself what happens."""
CONFIRM_SECONDS = 5.0
"""Until a guest that is elsewhere is looked at for the second time, where the nodes repair."""
CLOSELY_SECONDS = 2.0
"""While a guest is on its way, and in a window that the nodes finish."""
AFTER_EVENT_SECONDS = 1.0
EVENT_LASTS_SECONDS = 10.0
"""So long after a host has told of an event of a guest it is looked at closely: the hosts' lists follow."""
HEARD_SECONDS = 35.0
"""Daemons answer each other every 15 s: one that has missed two times does not look."""
GRACE_SECONDS = 30.0
"""So long a word stands where another node looks now than the one that gave it."""
ALIVE_SECONDS, ALIVE_TOKENS = 10.0, 3
"""A word of a node's daemon that comes so long after a look, and so many tokens, was sent after it: what it
sent before it died is delivered when the ring has given it up."""
UNBROKEN_SECONDS = 60.0
"""Between two looks of a row; else the guest may have run here, and have been lost once more."""
ASK_LIMIT_SECONDS = 5.0
COMMAND_LIMIT_SECONDS = 400.0
"""More than the command's own limit."""

log = logging.getLogger("standfastd")

Run = Callable[[tuple[str, ...], float], Awaitable["Ended"]]


class StrayDuty:
    """One daemon's share; `watch` is one of its tasks."""

    def __init__(
        self,
        known: Known,
        hosts: Callable[[], Mapping[str, Host]],
        heard: Callable[[float], frozenset[str]],
        idle: Callable[[], bool],
        facility: Callable[[], bool],
        tell: Callable[[str, str], None],
        changed: Callable[[], None],
        sightings: Sightings,
        run: Run = own_command.run,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heard(seconds)`: other members whose daemon was heard of. `idle`: no command works on this node.
        `facility`: its shutdown facility runs. `tell`: a line for log and journal. `changed`: the report is
        another one now."""
        self._sightings = sightings
        self._nowhere: dict[str, tuple[float, float]] = {}
        """Node -> the first and the last of an unbroken row of looks that have shown its guest on no host."""
        self._known, self._hosts, self._heard = known, hosts, heard
        self._idle, self._facility = idle, facility
        self._tell, self._changed, self._run, self._now = tell, changed, run, now
        self._wake = asyncio.Event()
        self._listening = Listening(self._event)
        self._book: dict[str, Entry] = {}
        self._mine: frozenset[str] = frozenset()
        self._looked: dict[str, float] = {}
        self._events: dict[str, float] = {}
        """Node -> when a host last told of an event of its guest."""
        self._plain: tuple[str, str, float] = ("", "", 0.0)
        """Of a window that the nodes finish: mover, host where it plainly runs, since when."""
        self._closing, self._closed_at = Tries(), 0.0
        self._work: asyncio.Task[None] | None = None
        self._read: tuple[Mapping[str, str], dict[str, Report]] = ({}, {})

    # -- what is told --------------------------------------------------------------------------------------

    @property
    def watches(self) -> bool:
        """Whether this node can look."""
        known = self._known
        return known.engine and known.config is not None and known.record is not None and bool(self._hosts())

    @property
    def told(self) -> dict[str, str]:
        """For the report: what this node has seen itself."""
        return {node: entry.sight.word for node, entry in sorted(self._book.items()) if node in self._mine}

    def shown(self) -> list[dict[str, object]]:
        """For people and programs: a row for each guest that is astray."""
        return [
            {
                "node": node,
                "guest": aim.guest,
                "state": entry.sight.kind.value,
                "host": entry.sight.host,
                "seconds": round(self._now() - entry.since),
                "text": text,
                "next_command": command,
            }
            for node, aim, entry, text, command in self._texts()
        ]

    def alarms(self) -> Iterator[str]:
        """One sentence for each guest that is astray; and for a window that the nodes could not close."""
        for _, _, _, text, command in self._texts():
            yield f"{text}; type: {command}"
        found = self._known.record
        if self._closing.refusal and found is not None and found.open:
            guest = self._guest_of(found.mover)
            yield (
                f"the window of {guest} was not closed by the nodes: {self._closing.refusal}; close it: "
                f"standfast window close {guest}"
            )

    def _texts(self) -> Iterator[tuple[str, NodeAim, Entry, str, str]]:
        aims, hosts, now = self._known.aims(), self._entries(), self._now()
        for node, entry in sorted(self._book.items()):
            if (aim := aims.get(node)) is None:
                continue
            found = strays.message(entry.sight, aim, hosts, now - entry.since, proven=self._proven)
            what = "opening a window" if entry.sight.kind is Kind.MOVING else "the repair"
            tried = f"; not mended by the nodes: {entry.obstacle}" if entry.obstacle else ""
            text = f"{found.text} [{found.code}]{tried or entry.tried(now).told(what)}"
            yield node, aim, entry, text, found.next_command

    @property
    def _proven(self) -> bool:
        found = self._known.record
        return found is not None and found.waits_for_clocks

    def _guest_of(self, node: str) -> str:
        aim = self._known.aims().get(node)
        return aim.guest if aim is not None else node

    def _entries(self) -> dict[str, HostEntry]:
        found = self._known.config
        return entries(found.config.hosts.hosts) if found is not None else {}

    # -- turns ---------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Until cancelled."""
        try:
            while True:
                seconds = await self.turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            await self._listening.stop()

    async def turn(self) -> float:
        """Do what is due; seconds until the next turn."""
        view = self._view()
        if view is None:
            self._mine = frozenset()
            await self._listening.stop()
            return TURN_SECONDS
        me = self._known.node
        before = self.told
        self._mine = frozenset(n for n in view.aims if strays.looks_at(n, view.able) == me)
        self._listening.follow(self._hosts() if self._mine else {})
        self._keep(view)
        if self.told != before:
            self._changed()
        if self._work is not None and not self._work.done():
            return TURN_SECONDS
        if view.record.open:
            seconds = await self._in_window(view)
            if view.expected or (self._work is not None and not self._work.done()):
                return seconds
        else:
            self._closing = Tries()
        if not self._quiet(view):
            return TURN_SECONDS
        await self._look(view, [node for node in sorted(self._mine) if self._due_in(node, view) <= 0])
        if not view.record.open:
            self._mend(view)
        return min([TURN_SECONDS, *(max(0.2, self._due_in(node, view)) for node in self._mine)])

    async def ended(self) -> None:
        """Wait for the command that this node has started."""
        if self._work is not None:
            await self._work

    def _view(self) -> View | None:
        known = self._known
        if not self.watches or known.record is None or known.config is None:
            return None
        if self._read[0] is not known.texts:
            self._read = (known.texts, decode_all(known.texts))
        reports = self._read[1]
        heard = self._heard(HEARD_SECONDS) & known.members
        able = {node for node in heard if node in reports and reports[node].watches}
        loaded = known.config.config
        return View(
            known.record,
            known.aims(),
            entries(loaded.hosts.hosts),
            reports,
            frozenset(able | {known.node}),
            repairs=loaded.repair == "auto",
            opens=loaded.auto_window,
        )

    def _quiet(self, view: View) -> bool:
        """No command works on a window. (A report of a daemon that is not heard of says nothing.)"""
        others = view.able - {self._known.node}
        return self._idle() and not any(view.reports[node].commanding for node in others)

    def _due_in(self, node: str, view: View) -> float:
        return self._looked.get(node, float("-inf")) + self._period(node, view) - self._now()

    def _period(self, node: str, view: View) -> float:
        entry = self._book.get(node)
        if self._told_of(node):
            return AFTER_EVENT_SECONDS
        if entry is not None and entry.sight.kind is Kind.MOVING:
            return CLOSELY_SECONDS
        if entry is not None and view.repairs and entry.sight.plain and entry.sights < strays.WANTED_SIGHTS:
            return CONFIRM_SECONDS
        return LISTENING_LOOK_SECONDS if self._listening.whole else LOOK_SECONDS

    def _told_of(self, node: str) -> bool:
        """Whether a host has just told of an event of its guest."""
        return self._now() - self._events.get(node, float("-inf")) < EVENT_LASTS_SECONDS

    def _event(self, guest: str) -> None:
        """A host tells of an event of `guest`; empty: it listens, and what was before is not told."""
        for node, aim in self._known.aims().items():
            if not guest:
                self._looked.pop(node, None)
            elif aim.guest == guest:
                self._events[node] = self._now()
        self._wake.set()

    # -- looking -------------------------------------------------------------------------------------------

    async def _look(self, view: View, due: Sequence[str]) -> None:
        """Ask the host at which each one's devices aim; where that is not enough, all."""
        if not due:
            return
        all_hosts = {node for node in due if node in self._book or self._told_of(node)}
        rest = await self._not_at_home(view, [node for node in due if node not in all_hosts])
        wide = [node for node in due if node in all_hosts or node in rest]
        guests = [view.aims[node].guest for node in wide]
        told = await ask_everywhere(self._hosts().values(), guests, ASK_LIMIT_SECONDS)
        found = self._known.record
        if found is None or found.epoch != view.record.epoch:
            return  # something was changed meanwhile: where devices aim, or that there is a window
        for node in due:
            self._looked[node] = self._now()
            aim = view.aims[node]
            self._see(
                aim,
                strays.judge(aim, told[aim.guest], view.hosts)
                if node in wide
                else Sight(Kind.HOME, aim.host),
            )

    async def _not_at_home(self, view: View, nodes: Sequence[str]) -> set[str]:
        """Which of them their aimed hosts do not show running, each asked once for all of its guests."""
        hosts = self._hosts()
        by_host: dict[str, list[str]] = {}
        for node in nodes:
            by_host.setdefault(view.aims[node].host, []).append(node)

        async def ask(name: str) -> set[str]:
            guests = [view.aims[node].guest for node in by_host[name]]
            told = await ask_everywhere([hosts[name]], guests, ASK_LIMIT_SECONDS)
            return {n for n in by_host[name] if not all(map(strays.at_home, told[view.aims[n].guest]))}

        known = [name for name in by_host if name in hosts]
        rest = {node for name in by_host if name not in hosts for node in by_host[name]}
        return rest.union(*await asyncio.gather(*map(ask, known)))

    def _see(self, aim: NodeAim, sight: Sight) -> None:
        """Note what a look has shown."""
        if sight.kind is Kind.UNKNOWN:
            self._nowhere.pop(aim.node, None)  # what was between nobody has seen
            return
        if sight.kind in (Kind.NOWHERE, Kind.OFF):
            sight = self._on_no_host(aim, sight)
        else:
            self._nowhere.pop(aim.node, None)
            self._sightings.listed(aim.node)
        if not sight.astray:
            self._over(aim.node, aim, sight)
            return
        entry = self._note(aim, sight)
        entry.told_by = ""
        entry.sights = entry.sights + 1 if sight.plain else 0

    def _on_no_host(self, aim: NodeAim, sight: Sight) -> Sight:
        """What it means that no host runs this guest: whose daemon is heard of after that is alive elsewhere,
        and that stays true of one that is lost later. A member may be a dead one for as long as its token."""
        node, now = aim.node, self._now()
        since, last = self._nowhere.get(node, (now, now))
        if now - last > UNBROKEN_SECONDS:
            since = now
        self._nowhere[node] = (since, now)
        late = ALIVE_SECONDS + ALIVE_TOKENS * self._known.runtime.get("token", 0) / 1000
        alive = now - since > late and node in self._heard(now - since - late) & self._known.members
        if alive or self._sightings.is_unlisted(node):
            self._sightings.unlisted(node)
            return Sight(Kind.UNLISTED)
        # In a window that waits for clocks nothing is repaired: its own -u comes first.
        plain = node not in self._known.members and not self._proven
        return sight if plain else Sight(Kind.NOWHERE)

    def _note(self, aim: NodeAim, sight: Sight) -> Entry:
        """A guest is astray, by our own look or another node's word: new, or as before."""
        now, entry = self._now(), self._book.get(aim.node)
        same = entry is not None and entry.sight.kind is sight.kind
        if entry is not None and same and (sight.kind is Kind.MOVING or entry.sight.host == sight.host):
            changed = entry.sight.word != sight.word
            entry.sight, entry.confirmed = sight, now
            if changed:
                self._changed()
            return entry
        entry = self._book[aim.node] = Entry(sight, now, now)
        found = strays.message(sight, aim, self._entries(), 0.0, proven=self._proven)
        log.error("ALARM: %s [%s]; type: %s", found.text, found.code, found.next_command)
        self._tell("unannounced", f"{aim.guest} ({aim.node}): {sight.word}")
        self._changed()
        return entry

    def _over(self, node: str, aim: NodeAim | None, sight: Sight, *, window: bool = False) -> None:
        if self._book.pop(node, None) is not None:
            if aim is not None:
                self._tell("unannounced", strays.over(aim, sight, window=window))
            self._changed()

    def _keep(self, view: View) -> None:
        """What others have seen, and what ends without a look."""
        now = self._now()
        for node, aim in view.aims.items():
            if node in self._mine or view.expected:
                continue
            looks = strays.looks_at(node, view.able)
            word = view.reports[looks].strays.get(node, "") if looks in view.reports else ""
            sight = strays.read(word) if word else None
            old = sight is not None and sight.kind in (Kind.ELSEWHERE, Kind.OFF) and sight.host == aim.host
            if sight is not None and sight.astray and not old:
                # (Devices that aim there by now: the report is from before that.)
                self._note(aim, sight).told_by = looks
                if sight.kind is Kind.UNLISTED:
                    self._sightings.unlisted(node)
            elif node in self._book:
                entry = self._book[node]
                if entry.told_by == looks:
                    self._sightings.listed(node)
                if entry.told_by == looks or now - entry.confirmed > GRACE_SECONDS:
                    self._over(node, aim, Sight(Kind.HOME))
        for node in list(self._book):
            if node not in view.aims:
                self._over(node, None, Sight(Kind.NOWHERE))
            elif view.expected:
                self._over(node, view.aims[node], Sight(Kind.HOME), window=True)

    # -- mending -------------------------------------------------------------------------------------------

    def _mend(self, view: View) -> None:
        """Begin one command, where that is allowed and due."""
        for node in sorted(self._mine & set(self._book)):
            entry, aim = self._book[node], view.aims[node]
            moving = entry.sight.kind is Kind.MOVING
            ready = moving or (entry.sight.plain and entry.sights >= strays.WANTED_SIGHTS)
            mends = entry.sight.kind in (Kind.ELSEWHERE, Kind.OFF)
            allowed = view.opens if moving else view.repairs and mends
            if not (ready and allowed):
                continue
            entry.obstacle = self._obstacle(node, entry.sight, view)
            if not entry.obstacle and entry.tried(self._now()).due:
                self._work = asyncio.create_task(self._command(node, entry, order(aim, entry.sight)))
                return

    def _obstacle(self, node: str, sight: Sight, view: View) -> str:
        if not self._facility():
            return f"the shutdown facility of {self._known.node} is stopped"
        quorate, members = topology.quorate(self._known.tree), self._known.members
        if sight.kind is Kind.OFF:
            return strays.in_the_way_off(node, members=members, quorate=quorate)
        target = "" if sight.kind is Kind.MOVING else sight.host
        for other, entry in sorted(self._book.items()):
            if target and entry.sight.kind is Kind.MOVING:
                return f"{view.aims[other].guest} is on its way, and no host can save its configuration"
        return strays.in_the_way(
            node,
            target,
            view.hosts,
            view.reports,
            members=members,
            able=view.able,
            quorate=quorate,
        )

    async def _command(self, node: str, entry: Entry, argv: tuple[str, ...]) -> None:
        self._tell("unannounced", " ".join(argv))
        ended = await self._run(argv, COMMAND_LIMIT_SECONDS)
        entry.tried_at = self._now()
        entry.tries = Tries(entry.tries.count + (not ended.busy), 0.0, ended.refusal)
        self._tell("unannounced", f"refused: {ended.refusal}" if ended.refusal else "done")
        if ended.refusal and not ended.busy:
            # Where a window is left of it, closing that waits for as long as the next try would.
            self._closing, self._closed_at = Tries(1, 0.0, ended.refusal), self._now()
        self._looked.pop(node, None)
        self._wake.set()

    async def _in_window(self, view: View) -> float:
        """Finish a window that the nodes have begun."""
        found, me = view.record, self._known.node
        ours = strays.by_the_nodes(found, repairs=view.repairs, opens=view.opens)
        if not ours or strays.looks_at(found.mover, view.able) != me or found.mover not in view.aims:
            self._plain = ("", "", 0.0)
            return TURN_SECONDS
        if not self._quiet(view):
            return CLOSELY_SECONDS
        aim = view.aims[found.mover]
        answers: tuple[HostAnswer, ...] = (
            await ask_everywhere(self._hosts().values(), [aim.guest], ASK_LIMIT_SECONDS)
        )[aim.guest]
        where, now = plainly_on(answers), self._now()
        if self._plain[:2] != (found.mover, where):
            self._plain = (found.mover, where, now)
        target = strays.arrived(found, answers, now - self._plain[2])
        if target and replace(self._closing, seconds_since=now - self._closed_at).due:
            argv = ("standfast", "window", "close", aim.guest, "--to", target, "--yes", "--json")
            self._work = asyncio.create_task(self._close(argv))
        return CLOSELY_SECONDS

    async def _close(self, argv: tuple[str, ...]) -> None:
        self._tell("unannounced", " ".join(argv))
        ended = await self._run(argv, COMMAND_LIMIT_SECONDS)
        self._closed_at = self._now()
        self._closing = Tries(self._closing.count + (not ended.busy), 0.0, ended.refusal)
        self._tell("unannounced", f"not closed: {ended.refusal}" if ended.refusal else "the window is closed")
        self._wake.set()
