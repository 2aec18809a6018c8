"""A node's part in noticing moves: whose turn it is, what it asks, what it tells, which command it starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from standfast.core import strays
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.libvirt_events import LISTENING, LOST, HostEvent
from standfast.core.record import Phase, Record, Totem
from standfast.core.report import Report, encode
from standfast.core.steps import NodeAim
from standfast.daemon import stray_duty
from standfast.daemon.known import Known
from standfast.daemon.own_command import Ended
from standfast.daemon.stray_duty import StrayDuty

RUNNING, ABSENT, SILENT = GuestState.RUNNING, GuestState.ABSENT, GuestState.SILENT
STOPPED = GuestState.STOPPED
NODES = ("n1", "n2", "n3")
REPAIR = ("standfast", "window", "repair", "g2", "--lease", "10", "--json")


class Place:
    """One host of the world, which counts what it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.guests: dict[str, GuestState] = {}
        self.silent = False
        self.asked: list[tuple[str, ...]] = []

    async def ask_each(self, guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        self.asked.append(tuple(guests))
        return tuple(
            HostAnswer(self.name, guest, SILENT if self.silent else self.guests.get(guest, ABSENT))
            for guest in guests
        )


class Telling(Place):
    """One that tells events too."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.coming: asyncio.Queue[HostEvent] = asyncio.Queue()
        self.listeners = 0

    async def events(self) -> AsyncIterator[HostEvent]:
        self.listeners += 1
        try:
            while True:
                yield await self.coming.get()
        finally:
            self.listeners -= 1


@dataclass
class Seen(Known):
    """What a daemon knows, with devices that aim where the test says."""

    aimed: dict[str, NodeAim] = field(default_factory=dict)

    def aims(self) -> dict[str, NodeAim]:
        return dict(self.aimed)


class Book:
    """What this node notes of hosts that are not listed (`sightings.Sightings`)."""

    def __init__(self) -> None:
        self.noted: set[str] = set()

    def unlisted(self, node: str) -> None:
        self.noted.add(node)

    def listed(self, node: str) -> None:
        self.noted.discard(node)

    def is_unlisted(self, node: str) -> bool:
        return node in self.noted


class World:
    """Three nodes, three hosts, g1 to g3 at home; the duty of one node, and its clock."""

    def __init__(
        self, me: str = "n1", kind: type[Place] = Place, hosts: str = "ldm", **options: object
    ) -> None:
        self.hosts = {name: kind(name) for name in ("ctrl1", "ctrl2", "ctrl3", "ctrl4")}
        for number in (1, 2, 3):
            self.hosts[f"ctrl{number}"].guests[f"g{number}"] = RUNNING
        aims = {f"n{n}": NodeAim(f"n{n}", f"g{n}", f"ctrl{n}", 1, {}) for n in (1, 2, 3)}
        listed = [
            SimpleNamespace(
                name=name, ppar_id=0, xscf_lan0=name + "-0", xscf_lan1=name + "-1", weight=1, obeys=True,
                kind=hosts, fence_agent="", fence_parameters=(),
            )
            for name in self.hosts
        ]  # fmt: skip
        file = SimpleNamespace(
            hosts=SimpleNamespace(hosts=tuple(listed)), **{"repair": "ask", "auto_window": False, **options}
        )
        self.known = Seen(
            node=me,
            identity="",
            tree=ET.Element("cib", {"have-quorum": "1"}),
            record=Record(epoch=7),
            members=frozenset(NODES),
            config=SimpleNamespace(config=file),  # type: ignore[arg-type]
            engine=True,
            aimed=aims,
        )
        self.reports = {node: Report(node, watches=True) for node in NODES if node != me}
        self.heard = frozenset(self.reports)
        self.time, self.busy, self.facility = 1000.0, False, True
        self.told: list[str] = []
        self.ran: list[tuple[str, ...]] = []
        self.ends = [Ended()]
        self.changes = 0
        self.words: dict[str, float] = {}
        """When a daemon was last heard of, where that is not now."""
        self.book = Book()
        self.duty = StrayDuty(
            self.known,
            lambda: self.hosts,  # type: ignore[arg-type,return-value]
            self._heard,
            idle=lambda: not self.busy,
            facility=lambda: self.facility,
            tell=lambda kind, text: self.told.append(text),
            changed=self._changed,
            sightings=self.book,  # type: ignore[arg-type]
            run=self._run,
            now=lambda: self.time,
        )

    def _changed(self) -> None:
        self.changes += 1

    def _heard(self, seconds: float) -> frozenset[str]:
        return frozenset(n for n in self.heard if self.time - self.words.get(n, self.time) <= seconds)

    async def _run(self, argv: tuple[str, ...], limit_seconds: float) -> Ended:
        self.ran.append(argv)
        return self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]

    async def turn(self, seconds: float = 0.0) -> float:
        """One turn, `seconds` after the one before; whatever it starts ends."""
        self.time += seconds
        self.known.texts = {node: encode(report) for node, report in self.reports.items()}
        due = await self.duty.turn()
        await self.duty.ended()
        return due

    def move(self, guest: str, host: str) -> None:
        for place in self.hosts.values():
            place.guests.pop(guest, None)
        self.hosts[host].guests[guest] = RUNNING

    def asked(self) -> dict[str, list[tuple[str, ...]]]:
        found = {name: place.asked for name, place in self.hosts.items() if place.asked}
        for place in self.hosts.values():
            place.asked = []
        return found

    def retarget(self, guest: str, host: str) -> None:
        """What a repair ends in."""
        node = "n" + guest[1:]
        self.known.aimed[node] = replace(self.known.aimed[node], host=host)
        assert self.known.record is not None
        self.known.record = replace(self.known.record, epoch=self.known.record.epoch + 4)


def alarms(world: World) -> str:
    return "\n".join(world.duty.alarms())


# -- looking ----------------------------------------------------------------------------------------------


async def test_at_rest_the_aimed_host_alone_is_asked_every_20_seconds_by_one_node() -> None:
    asked = {}
    for me in NODES:
        world = World(me)
        for _ in range(12):
            await world.turn(5.0)
        asked[me] = world.asked()
        assert world.duty.told == {}
    assert {host: len(said) for host, said in asked["n1"].items()} == {"ctrl2": 3, "ctrl3": 3}
    assert {host: len(said) for host, said in asked["n2"].items()} == {"ctrl1": 3}
    assert asked["n3"] == {}, "the third one is silent"


async def test_a_guest_that_was_moved_is_told_within_a_look_with_what_to_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.turn()
    world.move("g2", "ctrl4")
    began = world.time
    while not world.duty.told:
        assert world.time - began <= stray_duty.LOOK_SECONDS
        await world.turn(await world.turn())
    assert world.duty.told == {"n2": "elsewhere ctrl4"}
    assert "g2 (n2) was moved to ctrl4 without a window" in alarms(world)
    assert "type: standfast window repair g2" in alarms(world)
    assert any("ALARM: g2 (n2) was moved" in one.message for one in caplog.records)
    await world.turn(25.0)
    (row,) = world.duty.shown()
    assert (row["guest"], row["host"], row["state"]) == ("g2", "ctrl4", "elsewhere")
    assert row["seconds"] == 25
    assert world.ran == [], "nobody was asked to repair"


async def test_an_alarm_ends_with_the_retarget_and_says_so() -> None:
    world = World()
    world.move("g2", "ctrl4")
    await world.turn()
    assert alarms(world)
    world.retarget("g2", "ctrl4")
    await world.turn(20.0)
    assert alarms(world) == ""
    assert world.duty.told == {}
    assert world.told[-1] == "over: g2 (n2) is not astray any more: it runs on ctrl4, where its fencing aims"


async def test_hosts_that_fall_silent_neither_begin_nor_end_an_alarm() -> None:
    world = World()
    world.hosts["ctrl2"].silent = True
    await world.turn()
    assert world.duty.told == {}
    world.move("g2", "ctrl4")
    world.hosts["ctrl2"].silent = False
    await world.turn(20.0)
    for place in world.hosts.values():
        place.silent = True
    await world.turn(20.0)
    assert world.duty.told == {"n2": "elsewhere ctrl4"}


async def test_what_was_asked_as_the_record_moved_says_nothing() -> None:
    """The aim was changed between the question and the answer: the guest is not astray."""
    world = World()
    world.move("g2", "ctrl4")

    async def answer(guests: Sequence[str], limit_seconds: float = 5.0) -> tuple[HostAnswer, ...]:
        world.retarget("g2", "ctrl4")
        return tuple(HostAnswer("ctrl4", guest, RUNNING) for guest in guests)

    world.hosts["ctrl4"].ask_each = answer  # type: ignore[method-assign]
    await world.turn()
    assert world.duty.told == {}


# -- the others -------------------------------------------------------------------------------------------


async def test_the_next_node_takes_over_from_one_whose_daemon_is_not_heard_of() -> None:
    world = World("n3")
    world.move("g2", "ctrl4")
    await world.turn()
    assert world.asked() == {}
    world.heard = frozenset({"n2"})
    await world.turn(5.0)
    assert world.duty.told == {"n2": "elsewhere ctrl4"}


async def test_a_daemon_that_is_older_or_cannot_look_is_passed_over() -> None:
    world = World("n3")
    world.reports["n1"] = Report("n1")
    await world.turn()
    assert set(world.asked()) == {"ctrl2"}


async def test_a_node_alone_looks_at_its_own_guest_too() -> None:
    world = World("n1")
    world.heard, world.known.members = frozenset(), frozenset({"n1"})
    await world.turn()
    assert set(world.asked()) >= {"ctrl1", "ctrl2", "ctrl3"}


async def test_every_node_alarms_by_the_word_of_the_one_that_looks() -> None:
    world = World("n3")
    world.reports["n1"] = Report("n1", watches=True, strays={"n2": "elsewhere ctrl4"})
    await world.turn()
    assert "g2 (n2) was moved to ctrl4" in alarms(world)
    assert world.duty.told == {}, "it is not its own word"
    assert world.asked() == {}
    world.reports["n1"] = Report("n1", watches=True)
    await world.turn(5.0)
    assert alarms(world) == "", "who has said it takes it back"


async def test_a_word_stands_for_a_while_where_another_node_looks_now_than_the_one_that_gave_it() -> None:
    world = World("n3")
    world.reports["n2"] = Report("n2", watches=True, strays={"n1": "elsewhere ctrl4"})
    await world.turn()
    assert "g1 (n1) was moved to ctrl4" in alarms(world)
    world.known.node, world.heard = "n4", frozenset({"n3"})
    world.reports["n3"] = Report("n3", watches=True)
    await world.turn(5.0)
    assert alarms(world), "it has not looked yet"
    await world.turn(stray_duty.GRACE_SECONDS)
    assert alarms(world) == ""


async def test_who_takes_over_goes_on_with_what_it_has_heard() -> None:
    world = World("n3")
    world.reports["n1"] = Report("n1", watches=True, strays={"n2": "elsewhere ctrl4"})
    world.move("g2", "ctrl4")
    await world.turn()
    world.heard = frozenset({"n2"})
    await world.turn(30.0)
    assert world.duty.told == {"n2": "elsewhere ctrl4"}
    assert world.duty.shown()[0]["seconds"] == 30


# -- repair -----------------------------------------------------------------------------------------------


async def test_auto_repairs_what_was_seen_twice_by_the_operators_own_command() -> None:
    world = World(repair="auto")
    world.move("g2", "ctrl4")
    due = await world.turn()
    assert (world.ran, due) == ([], stray_duty.CONFIRM_SECONDS)
    await world.turn(due)
    assert world.ran == [REPAIR]


async def test_ask_repairs_nothing() -> None:
    world = World()
    world.move("g2", "ctrl4")
    for _ in range(20):
        await world.turn(20.0)
    assert world.ran == []


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("host silent", ""),
        ("quorum", "no quorum"),
        ("away", "n2 is not in the membership"),
        ("facility", "the shutdown facility of n1 is stopped"),
        ("deaf", "standfastd of n3 is not heard of"),
        ("login", "the agents do not get in at ctrl4: refused"),
    ],
)
async def test_auto_repairs_nothing_that_is_not_plain_and_tells_why(why: str, said: str) -> None:
    world = World(repair="auto")
    world.move("g2", "ctrl4")
    if why == "host silent":
        world.hosts["ctrl3"].silent = True
    elif why == "quorum":
        assert world.known.tree is not None
        world.known.tree.set("have-quorum", "0")
    elif why == "away":
        world.known.members = frozenset({"n1", "n3"})
    elif why == "facility":
        world.facility = False
    elif why == "deaf":
        world.heard = frozenset({"n2"})
    else:
        world.reports["n3"] = Report("n3", watches=True, logins={"ctrl4-1": "refused"})
    for _ in range(5):
        await world.turn(20.0)
    assert world.ran == []
    assert said in alarms(world)
    assert "g2 (n2) was moved to ctrl4" in alarms(world)


@pytest.mark.parametrize("repair", ["ask", "auto"])
async def test_a_guest_that_was_moved_and_is_off_is_told_and_aimed_at_where_it_may_be(repair: str) -> None:
    world = World(hosts="libvirt", repair=repair)
    world.move("g2", "ctrl4")
    await world.turn()
    world.known.members = frozenset({"n1", "n3"})
    world.hosts["ctrl4"].guests["g2"] = STOPPED
    await world.turn(20.0)
    assert world.duty.told == {"n2": "off ctrl4"}
    assert "g2 (n2) is off, and ctrl4 knows it" in alarms(world)
    assert "type: standfast window repair g2" in alarms(world)
    await world.turn(stray_duty.CONFIRM_SECONDS)
    await world.turn(20.0)
    assert world.ran == ([REPAIR] if repair == "auto" else [])


async def test_auto_aims_at_nothing_that_is_off_without_quorum() -> None:
    world = World(hosts="libvirt", repair="auto")
    world.move("g2", "ctrl4")
    world.hosts["ctrl4"].guests["g2"] = STOPPED
    world.known.members = frozenset({"n1", "n3"})
    assert world.known.tree is not None
    world.known.tree.set("have-quorum", "0")
    for _ in range(3):
        await world.turn(20.0)
    assert "not mended by the nodes: this part of the cluster has no quorum" in alarms(world)
    assert world.ran == []


async def test_a_node_that_is_alive_while_its_guest_runs_nowhere_runs_on_a_host_that_is_not_listed() -> None:
    """Its definition was left behind: that it is off there proves nothing, also once it is lost."""
    world = World(hosts="libvirt", repair="auto")
    world.move("g2", "ctrl4")
    world.hosts["ctrl4"].guests["g2"] = STOPPED
    await world.turn()
    assert world.duty.told == {}, "it may be dead, and a member for as long as its token"
    await world.turn(20.0)
    assert world.duty.told == {"n2": "unlisted"}
    assert world.book.noted == {"n2"}
    assert "g2 (n2) is alive, and no host of clovmmigrate.conf runs it" in alarms(world)
    world.known.members, world.heard = frozenset({"n1", "n3"}), frozenset({"n3"})
    for _ in range(5):
        await world.turn(20.0)
    assert (world.duty.told, world.ran) == ({"n2": "unlisted"}, [])
    world.hosts["ctrl4"].guests["g2"] = RUNNING
    await world.turn(20.0)
    assert world.duty.told == {"n2": "elsewhere ctrl4"}
    assert world.book.noted == set()


async def test_one_that_dies_is_no_such_node_however_long_it_stays_a_member() -> None:
    world = World(hosts="libvirt")
    world.known.runtime = {"token": 27000}
    world.move("g2", "ctrl4")
    world.hosts["ctrl4"].guests["g2"] = STOPPED
    await world.turn()
    world.words["n2"] = world.time + 60.0  # what it had sent is delivered late
    for _ in range(10):
        await world.turn(20.0)
    assert (world.duty.told, world.book.noted) == ({}, set())
    world.known.members = frozenset({"n1", "n3"})
    await world.turn(20.0)
    assert world.duty.told == {"n2": "off ctrl4"}


@pytest.mark.parametrize("between", ["nobody looked", "a host was silent"])
async def test_one_that_lived_between_two_looks_and_dies_again_is_no_such_node(between: str) -> None:
    world = World(hosts="libvirt")
    world.hosts["ctrl2"].guests["g2"] = STOPPED
    await world.turn()
    if between == "nobody looked":
        world.busy = True  # a command worked on a window
    else:
        world.hosts["ctrl1"].silent = True
    for _ in range(5):
        await world.turn(20.0)
    world.busy = world.hosts["ctrl1"].silent = False
    # It ran again meanwhile, was heard of, and has died: still a member for as long as its token.
    world.words["n2"] = world.time
    await world.turn(20.0)
    assert (world.duty.told, world.book.noted) == ({}, set())


async def test_what_another_node_tells_of_an_unlisted_host_is_noted_here_too() -> None:
    world = World("n3")
    world.reports["n1"] = Report("n1", watches=True, strays={"n2": "unlisted"})
    await world.turn()
    assert world.book.noted == {"n2"}
    world.reports["n1"] = Report("n1", watches=True)
    await world.turn(5.0)
    assert world.book.noted == set()


async def test_auto_repairs_nothing_of_two_copies_or_of_a_guest_on_its_way() -> None:
    world = World(repair="auto")
    world.hosts["ctrl4"].guests["g2"] = RUNNING
    world.hosts["ctrl3"].guests["g3"] = GuestState.MIGRATING_OUT
    for _ in range(5):
        await world.turn(20.0)
    # The aimed host shows g2 running, and it alone is asked: the other copy is seen by whoever asks all.
    assert world.duty.told == {"n3": "moving"}
    world.hosts["ctrl2"].guests["g2"] = ABSENT
    world.hosts["ctrl1"].guests["g2"] = RUNNING
    for _ in range(5):
        await world.turn(20.0)
    assert world.duty.told == {"n2": "copies ctrl1,ctrl4", "n3": "moving"}
    assert world.ran == []


async def test_auto_repairs_nothing_while_another_guest_is_on_its_way() -> None:
    world = World(repair="auto")
    world.move("g2", "ctrl4")
    world.hosts["ctrl3"].guests["g3"] = GuestState.MIGRATING_OUT
    for _ in range(5):
        await world.turn(20.0)
    assert world.ran == []
    assert "not mended by the nodes: g3 is on its way" in alarms(world)
    world.hosts["ctrl3"].guests["g3"] = RUNNING
    await world.turn(2.0)
    await world.turn(20.0)
    assert world.ran == [REPAIR]


async def test_a_repair_that_is_refused_is_tried_again_with_growing_pauses_and_stands_in_the_alarm() -> None:
    world = World(repair="auto")
    world.ends = [Ended("guest2 is still being moved", ("MIGRATING",))]
    world.move("g2", "ctrl4")
    at = []
    for _ in range(2400):
        before = len(world.ran)
        await world.turn(5.0)
        at += [world.time] * (len(world.ran) - before)
    assert len(at) == strays.MAX_TRIES
    pauses = [round(b - a) for a, b in pairwise(at)]
    assert pauses == sorted(pauses)
    assert pauses[0] in range(30, 51)
    assert pauses[-1] in range(1800, 1821)
    assert "was refused: guest2 is still being moved (given up after 10 times)" in alarms(world)


async def test_another_command_at_work_is_left_alone() -> None:
    world = World(repair="auto")
    world.move("g2", "ctrl4")
    await world.turn()
    world.busy = True
    for _ in range(3):
        await world.turn(20.0)
    world.busy = False
    world.reports["n3"] = Report("n3", watches=True, commanding=True)
    for _ in range(3):
        await world.turn(20.0)
    assert world.ran == []
    # The last report of a daemon that was killed says for ever that its command is alive: it is gone with it.
    world.heard, world.known.members = frozenset({"n2"}), frozenset({"n1", "n2"})
    world.ends = [Ended("another command drives the window on this node", ("BUSY",)), Ended()]
    await world.turn(20.0)
    await world.turn(stray_duty.CONFIRM_SECONDS)
    assert len(world.ran) == 1
    await world.turn(31.0)
    assert len(world.ran) == 2, "it was no try"


async def test_a_repair_that_was_left_half_way_is_alarmed_and_closed_by_the_nodes() -> None:
    world = World(repair="auto")
    world.ends = [Ended("not proven to reach g2 on ctrl4", ("PROOF",)), Ended()]
    world.move("g2", "ctrl4")
    await world.turn()
    await world.turn(5.0)
    assert world.ran == [REPAIR]
    world.known.record = Record(
        epoch=11, phase=Phase.CLOSING, mover="n2", source="ctrl2", window=8, why=strays.REPAIR_REASON
    )
    await world.turn(2.0)
    assert "the window of g2 was not closed by the nodes: not proven to reach g2 on ctrl4" in alarms(world)
    for _ in range(13):
        await world.turn(2.0)
    assert world.ran == [REPAIR]
    await world.turn(2.0)
    assert world.ran[1:] == [("standfast", "window", "close", "g2", "--to", "ctrl4", "--yes", "--json")]


async def test_a_report_of_before_the_retarget_is_no_alarm() -> None:
    world = World("n3")
    world.reports["n1"] = Report("n1", watches=True, strays={"n2": "elsewhere ctrl4"})
    world.retarget("g2", "ctrl4")
    await world.turn()
    assert alarms(world) == ""


# -- windows ----------------------------------------------------------------------------------------------


async def test_a_move_that_nobody_announced_is_an_alarm_until_it_has_ended() -> None:
    world = World()
    world.hosts["ctrl2"].guests["g2"] = GuestState.MIGRATING_OUT
    world.hosts["ctrl4"].guests["g2"] = GuestState.INCOMING
    assert await world.turn() == stray_duty.CLOSELY_SECONDS
    assert "g2 (n2) is being moved to ctrl4 and no window is open" in alarms(world)
    assert world.ran == []
    world.hosts["ctrl2"].guests["g2"] = RUNNING
    del world.hosts["ctrl4"].guests["g2"]
    await world.turn(2.0)
    assert alarms(world) == ""


async def test_with_auto_window_it_is_opened_and_closed_where_the_guest_has_come_to_rest() -> None:
    world = World(auto_window=True)
    world.hosts["ctrl2"].guests["g2"] = GuestState.MIGRATING_OUT
    world.hosts["ctrl4"].guests["g2"] = GuestState.INCOMING
    await world.turn()
    reason = ("--reason", strays.AUTO_REASON)
    assert world.ran == [("standfast", "window", "open", "g2", "--to", "ctrl4", *reason, "--json")]
    world.known.record = Record(
        epoch=12, phase=Phase.OPEN, mover="n2", source="ctrl2", window=10, why=strays.AUTO_REASON
    )
    await world.turn(2.0)
    assert "a window is open now" in world.told[-1]
    world.move("g2", "ctrl4")
    for _ in range(2):
        await world.turn(2.0)
    assert world.ran[1:] == [("standfast", "window", "close", "g2", "--to", "ctrl4", "--yes", "--json")]


async def test_a_move_that_ends_on_the_old_host_is_closed_there_after_15_seconds() -> None:
    world = World(auto_window=True)
    world.known.record = Record(
        epoch=12, phase=Phase.OPEN, mover="n2", source="ctrl2", window=10, why=strays.AUTO_REASON
    )
    for _ in range(8):
        await world.turn(2.0)
        assert world.ran == []
    await world.turn(2.0)
    assert world.ran == [("standfast", "window", "close", "g2", "--to", "ctrl2", "--yes", "--json")]


async def test_an_opening_that_was_undone_by_the_blackout_and_left_is_finished_by_the_nodes() -> None:
    world = World(auto_window=True)
    world.ends = [Ended("the cluster was not quiet within 45 s", ("TOO_LONG",)), Ended()]
    world.hosts["ctrl2"].guests["g2"] = GuestState.MIGRATING_OUT
    await world.turn()
    assert len(world.ran) == 1
    why = "the cluster was not quiet within 45 s"
    world.known.record = Record(
        epoch=12, phase=Phase.CLOSING, mover="n2", source="ctrl2", window=10, abort=True, aimed=True, why=why
    )
    world.move("g2", "ctrl4")
    await world.turn(2.0)
    assert "the window of g2 was not closed by the nodes: the cluster was not quiet" in alarms(world)
    for _ in range(16):
        await world.turn(2.0)
    assert world.ran[1:] == [("standfast", "window", "close", "g2", "--to", "ctrl4", "--yes", "--json")]


async def test_an_operators_window_is_left_to_the_operator() -> None:
    world = World(auto_window=True, repair="auto")
    world.known.record = Record(epoch=12, phase=Phase.OPEN, mover="n2", source="ctrl2", window=10, why="mine")
    world.move("g2", "ctrl4")
    for _ in range(20):
        await world.turn(5.0)
    assert world.ran == []
    assert world.asked() == {}


async def test_what_moves_while_a_window_waits_for_its_clocks_is_told_and_left_to_people() -> None:
    """Fencing is armed then, and nobody expects a move."""
    world = World(auto_window=True, repair="auto")
    world.known.record = Record(
        epoch=12, phase=Phase.CLOSING, mover="n2", source="ctrl2", window=10, aimed=True, totem=Totem.RAISED
    )
    await world.turn()
    world.hosts["ctrl2"].guests["g2"] = GuestState.MIGRATING_OUT
    world.hosts["ctrl4"].guests["g2"] = GuestState.INCOMING
    for _ in range(20):
        await world.turn(5.0)
    assert "g2 (n2) is being moved to ctrl4" in alarms(world)
    assert "type: when it has ended: clovmmigrate -u g2 ctrl4" in alarms(world)
    world.move("g2", "ctrl4")
    for _ in range(20):
        await world.turn(5.0)
    assert "type: clovmmigrate -u g2 ctrl4" in alarms(world)
    assert world.ran == []
    world.known.record = replace(world.known.record, epoch=13, aimed=False)
    await world.turn(5.0)
    assert alarms(world) == "", "it is a window again"


async def test_a_close_that_is_refused_is_an_alarm_and_tried_again() -> None:
    world = World(auto_window=True)
    world.ends = [Ended("waited 30 s for n2 to be back", ("NOT_READY",))]
    world.known.record = Record(
        epoch=12, phase=Phase.OPEN, mover="n2", source="ctrl2", window=10, why=strays.AUTO_REASON
    )
    world.move("g2", "ctrl4")
    for _ in range(3):
        await world.turn(2.0)
    assert "the window of g2 was not closed by the nodes: waited 30 s for n2 to be back" in alarms(world)
    assert len(world.ran) == 1
    await world.turn(31.0)
    assert len(world.ran) == 2


# -- events -----------------------------------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (the tasks of the duty have no event for it)
            await asyncio.sleep(0)


async def test_an_event_is_a_look_at_once_at_all_hosts_and_closely_for_a_while() -> None:
    world = World(kind=Telling)
    hosts: Mapping[str, Telling] = world.hosts  # type: ignore[assignment]
    await world.turn()
    await until(lambda: all(host.listeners == 1 for host in hosts.values()))
    for host in hosts.values():
        host.coming.put_nowait(HostEvent(LISTENING))
    await until(lambda: world.duty._listening.whole)
    await world.turn()
    world.asked()
    await world.turn(30.0)
    assert world.asked() == {}, "where all hosts tell, they are asked every 40 s"
    hosts["ctrl4"].coming.put_nowait(HostEvent("lifecycle", "g2", "Started Migrated"))
    await until(lambda: world.duty._events)
    world.move("g2", "ctrl4")
    assert await world.turn() == stray_duty.AFTER_EVENT_SECONDS
    assert set(world.asked()) == set(hosts)
    assert world.duty.told == {"n2": "elsewhere ctrl4"}
    await world.duty._listening.stop()
    assert not any(host.listeners for host in hosts.values())


async def test_events_of_strangers_and_a_stream_that_is_lost_are_no_look() -> None:
    world = World(kind=Telling)
    hosts: Mapping[str, Telling] = world.hosts  # type: ignore[assignment]
    await world.turn()
    for host in hosts.values():
        host.coming.put_nowait(HostEvent(LISTENING))
    await until(lambda: world.duty._listening.whole)
    await world.turn()
    world.asked()
    hosts["ctrl1"].coming.put_nowait(HostEvent("lifecycle", "foreign", "Started Booted"))
    hosts["ctrl1"].coming.put_nowait(HostEvent(LOST, what="cut"))
    await until(lambda: not world.duty._listening.whole)
    await world.turn(5.0)
    assert world.asked() == {}
    await world.turn(stray_duty.LOOK_SECONDS - 5.0)
    assert world.asked(), "it is asked as often as others again"
    await world.duty._listening.stop()


async def test_a_node_whose_turn_it_is_not_listens_to_nobody() -> None:
    world = World("n3", kind=Telling)
    await world.turn()
    await asyncio.sleep(0)
    assert not any(host.listeners for host in world.hosts.values())  # type: ignore[attr-defined]


async def test_the_task_goes_on_by_itself_and_stops_its_listeners(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    world = World(kind=Telling)
    world.known.texts = {node: encode(report) for node, report in world.reports.items()}
    task = asyncio.create_task(world.duty.watch())
    hosts: Mapping[str, Telling] = world.hosts  # type: ignore[assignment]
    await until(lambda: hosts["ctrl4"].listeners == 1)
    world.move("g2", "ctrl4")
    hosts["ctrl4"].coming.put_nowait(HostEvent("lifecycle", "g2", "Resumed Migrated"))
    await until(lambda: world.duty.told)
    task.cancel()
    await asyncio.wait({task})
    assert not any(host.listeners for host in hosts.values())
