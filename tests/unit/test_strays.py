"""Guests that somebody moves without a window: who looks, what is seen, what is said, what is done."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from fake_cluster import FakeCluster

from standfast.core import closing, strays
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Phase, Record
from standfast.core.report import Report
from standfast.core.steps import CloseGoal, HostEntry, NodeAim
from standfast.core.strays import Kind, Sight, Tries

AIM = NodeAim("n2", "g2", "ctrl2", 1, {})
HOSTS = {name: HostEntry(name, 0, f"{name}-lan0", f"{name}-lan1", 1) for name in ("ctrl1", "ctrl2", "ctrl3")}
OF_LIBVIRT = {name: replace(host, kind="libvirt") for name, host in HOSTS.items()}
RUNNING, ABSENT, SILENT = GuestState.RUNNING, GuestState.ABSENT, GuestState.SILENT
OUT, IN, STOPPED = GuestState.MIGRATING_OUT, GuestState.INCOMING, GuestState.STOPPED
PAUSED, ERROR, UNKNOWN = GuestState.PAUSED, GuestState.ERROR, GuestState.UNKNOWN
CRASHED = GuestState.CRASHED


def answers(*states: GuestState, job: bool = False) -> tuple[HostAnswer, ...]:
    """Of ctrl1, ctrl2 (where the devices aim), ctrl3; `job`: ctrl2 reports a migration."""
    return tuple(
        HostAnswer(f"ctrl{number}", "g2", state, job=job and number == 2)
        for number, state in enumerate(states, 1)
    )


# -- who looks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("able", "of_n1", "of_n2"),
    [
        (("n1", "n2", "n3"), "n2", "n1"),
        (("n2", "n3"), "n2", "n3"),
        (("n2",), "n2", "n2"),
        (("n3",), "n3", "n3"),
        ((), "", ""),
    ],
)
def test_one_node_looks_at_a_guest_and_not_its_own_while_there_is_another(
    able: tuple[str, ...], of_n1: str, of_n2: str
) -> None:
    assert (strays.looks_at("n1", able), strays.looks_at("n2", able)) == (of_n1, of_n2)


def test_whoever_is_lost_each_guest_is_looked_at_by_exactly_one_of_those_that_are_left() -> None:
    nodes = [f"n{number}" for number in range(1, 6)]
    for present in product((False, True), repeat=5):
        able = {node for node, here in zip(nodes, present, strict=True) if here}
        for node in nodes:
            looks = [me for me in able if strays.looks_at(node, able) == me]
            assert len(looks) == (1 if able else 0)
            assert looks != [node] or able == {node}


# -- what is seen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "sight"),
    [
        ((ABSENT, RUNNING, ABSENT), Sight(Kind.HOME, "ctrl2")),
        ((SILENT, RUNNING, SILENT), Sight(Kind.HOME, "ctrl2")),
        ((ABSENT, PAUSED, ABSENT), Sight(Kind.HOME, "ctrl2")),
        ((ABSENT, STOPPED, RUNNING), Sight(Kind.ELSEWHERE, "ctrl3", plain=True)),
        ((SILENT, ABSENT, RUNNING), Sight(Kind.ELSEWHERE, "ctrl3")),
        ((ABSENT, SILENT, RUNNING), Sight(Kind.ELSEWHERE, "ctrl3")),
        ((ABSENT, ABSENT, PAUSED), Sight(Kind.ELSEWHERE, "ctrl3")),
        ((ABSENT, OUT, IN), Sight(Kind.MOVING, "ctrl3")),
        ((ABSENT, OUT, SILENT), Sight(Kind.MOVING)),
        ((ABSENT, ABSENT, IN), Sight(Kind.MOVING, "ctrl3")),
        ((ABSENT, RUNNING, RUNNING), Sight(Kind.COPIES, "ctrl2,ctrl3")),
        ((ABSENT, ERROR, ABSENT), Sight(Kind.LEFT, "ctrl2")),
        ((ABSENT, ERROR, RUNNING), Sight(Kind.LEFT, "ctrl2")),
        ((ABSENT, STOPPED, ABSENT), Sight(Kind.NOWHERE)),
        ((ABSENT, STOPPED, STOPPED), Sight(Kind.NOWHERE)),
        ((ABSENT, ABSENT, ABSENT), Sight(Kind.NOWHERE)),
        ((ABSENT, ABSENT, STOPPED), Sight(Kind.OFF, "ctrl3", plain=True)),
        ((STOPPED, ABSENT, STOPPED), Sight(Kind.OFF, "ctrl1,ctrl3")),
        ((SILENT, ABSENT, STOPPED), Sight(Kind.UNKNOWN)),
        ((ABSENT, CRASHED, STOPPED), Sight(Kind.NOWHERE)),
        ((ABSENT, CRASHED, ABSENT), Sight(Kind.NOWHERE)),
        ((ABSENT, SILENT, ABSENT), Sight(Kind.UNKNOWN)),
        ((ABSENT, UNKNOWN, ABSENT), Sight(Kind.UNKNOWN)),
        ((SILENT, SILENT, SILENT), Sight(Kind.UNKNOWN)),
    ],
)
def test_what_the_hosts_say_is_one_of_a_closed_list(states: tuple[GuestState, ...], sight: Sight) -> None:
    assert strays.judge(AIM, answers(*states), OF_LIBVIRT) == sight


def test_a_guest_with_a_migration_reported_is_on_its_way_though_it_runs() -> None:
    found = answers(ABSENT, RUNNING, ABSENT, job=True)
    assert strays.judge(AIM, found, OF_LIBVIRT).kind is Kind.MOVING
    assert not strays.at_home(found[1])
    assert strays.at_home(answers(ABSENT, RUNNING, ABSENT)[1])


def test_only_what_is_plain_everywhere_is_ever_called_plain() -> None:
    for states in product(GuestState, repeat=3):
        found = strays.judge(AIM, answers(*states), OF_LIBVIRT)
        if found.plain and found.kind is Kind.OFF:
            assert sorted(s.value for s in states) == ["absent", "absent", "stopped"]
            assert states[1] is ABSENT
        elif found.plain:
            assert found.kind is Kind.ELSEWHERE
            assert [s for s in states if s is RUNNING] == [RUNNING]
            assert all(s.proves_not_here for s in states if s is not RUNNING)
            assert states[1] is not RUNNING


def test_one_that_is_off_is_no_matter_of_the_aim_where_a_service_processor_knows_its_name() -> None:
    assert strays.judge(AIM, answers(ABSENT, ABSENT, STOPPED), HOSTS).kind is Kind.NOWHERE


def test_silence_never_ends_an_alarm_and_never_makes_one() -> None:
    for states in product((SILENT, UNKNOWN), repeat=3):
        assert strays.judge(AIM, answers(*states), OF_LIBVIRT).kind is Kind.UNKNOWN
    assert strays.judge(AIM, (), OF_LIBVIRT).kind is Kind.UNKNOWN


def test_a_guest_whose_devices_aim_at_no_known_host_is_elsewhere() -> None:
    aim = replace(AIM, host="")
    found = strays.judge(aim, answers(ABSENT, RUNNING, ABSENT), HOSTS)
    assert found == Sight(Kind.ELSEWHERE, "ctrl2", plain=True)
    assert "aims at no host of clovmmigrate.conf" in strays.message(found, aim, HOSTS, 3.0).text


def test_a_sight_comes_over_the_wire_and_an_unknown_word_is_no_sight() -> None:
    for kind in Kind:
        assert strays.read(Sight(kind, "ctrl3").word) == Sight(kind, "ctrl3")
        assert strays.read(Sight(kind).word) == Sight(kind)
    assert strays.read("teleported ctrl3") is None
    assert strays.read("") is None


# -- what is said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sight", "code", "typed"),
    [
        (Sight(Kind.ELSEWHERE, "ctrl3"), "STALE_AIM", "standfast window repair g2"),
        (Sight(Kind.MOVING, "ctrl3"), "UNANNOUNCED", "standfast window open g2 --to ctrl3"),
        (Sight(Kind.MOVING), "UNANNOUNCED", "standfast window open g2"),
        (Sight(Kind.COPIES, "ctrl2,ctrl3"), "TWO_COPIES", "ldm stop-domain g2 (on ctrl2 or ctrl3)"),
        (
            Sight(Kind.UNLISTED),
            "UNLISTED_HOST",
            "put its host into clovmmigrate.conf (all nodes; sdtool -r)",
        ),
        (Sight(Kind.OFF, "ctrl3"), "STALE_AIM", "standfast window repair g2"),
        (
            Sight(Kind.OFF, "ctrl1,ctrl3"),
            "STALE_AIM",
            "virsh undefine g2 (on all hosts but one), then standfast window repair g2",
        ),
        (Sight(Kind.LEFT, "ctrl2"), "HALF_MOVED", "ldm list-domain -o status g2 (on ctrl2)"),
    ],
)
def test_an_alarm_names_guest_node_host_since_when_and_what_to_type(
    sight: Sight, code: str, typed: str
) -> None:
    found = strays.message(sight, AIM, HOSTS, 41.7)
    assert (found.code, found.next_command) == (code, typed)
    assert "g2 (n2)" in found.text
    assert "seen 42 s ago for the first time" in found.text
    for host in filter(None, sight.host.split(",")):
        assert host in found.text


def test_an_alarm_ends_with_a_line_that_says_why() -> None:
    assert "it runs on ctrl2, where its fencing aims" in strays.over(AIM, Sight(Kind.HOME), window=False)
    assert "it runs on no host" in strays.over(AIM, Sight(Kind.NOWHERE), window=False)
    assert "a window is open now" in strays.over(AIM, Sight(Kind.HOME), window=True)


# -- what is done by itself --------------------------------------------------------------------------------


def test_pauses_grow_and_end_and_another_command_at_work_is_no_try() -> None:
    pauses = [Tries(count, refusal="no").pause_seconds for count in range(1, strays.MAX_TRIES)]
    assert pauses == [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    assert Tries().due
    busy = Tries(0, 5.0, "another command drives the window on this node")
    assert not busy.due
    assert replace(busy, seconds_since=30.0).due
    assert not Tries(strays.MAX_TRIES, 1e9, "no").due
    assert "given up after 10 times" in Tries(strays.MAX_TRIES, 0.0, "no").told("the repair")


def obstacle(**changes: object) -> str:
    told: dict[str, object] = {
        "node": "n2",
        "target": "ctrl3",
        "hosts": HOSTS,
        "reports": {f"n{n}": Report(f"n{n}", logins={"ctrl3-lan0": "", "ctrl3-lan1": ""}) for n in (1, 2, 3)},
        "members": {"n1", "n2", "n3"},
        "able": {"n1", "n2", "n3"},
        "quorate": True,
        **changes,
    }
    return strays.in_the_way(**told)  # type: ignore[arg-type]


def test_nothing_is_done_without_quorum_without_the_node_or_where_the_agents_do_not_get_in() -> None:
    assert obstacle() == ""
    assert obstacle(target="") == ""
    assert "no quorum" in obstacle(quorate=False)
    assert "n2 is not in the membership" in obstacle(members={"n1", "n3"})
    assert "standfastd of n2, n3 is not heard of" in obstacle(able={"n1"})
    assert "standfastd of n3 is not heard of" in obstacle(able={"n1", "n2"}, target="")
    assert "ctrl9 is not in clovmmigrate.conf" in obstacle(target="ctrl9")
    refused = {"n3": Report("n3", logins={"ctrl3-lan1": "wrong password"})}
    assert obstacle(reports=refused) == "from n3 the agents do not get in at ctrl3: wrong password"
    # What a node that is away once said is nobody's trouble now.
    assert obstacle(reports=refused, members={"n1", "n2"}) == ""


def test_of_one_that_is_off_nothing_is_done_without_quorum_or_while_its_node_is_a_member() -> None:
    assert strays.in_the_way_off("n2", members={"n1"}, quorate=True) == ""
    assert "no quorum" in strays.in_the_way_off("n2", members={"n1"}, quorate=False)
    assert "n2 is in the membership" in strays.in_the_way_off("n2", members={"n1", "n2"}, quorate=True)


WINDOW = Record(epoch=5, phase=Phase.OPEN, mover="n2", source="ctrl2", window=4, why=strays.AUTO_REASON)


def test_the_nodes_finish_what_they_have_begun_and_no_operators_window() -> None:
    assert strays.by_the_nodes(WINDOW, repairs=False, opens=False)
    assert strays.by_the_nodes(replace(WINDOW, phase=Phase.CLOSING), repairs=False, opens=False)
    assert not strays.by_the_nodes(replace(WINDOW, why="maintenance of ctrl2"), repairs=True, opens=False)
    assert not strays.by_the_nodes(replace(WINDOW, phase=Phase.IDLE), repairs=True, opens=False)
    assert not strays.by_the_nodes(None, repairs=True, opens=False)
    left = replace(WINDOW, phase=Phase.CLOSING, why=strays.REPAIR_REASON)
    assert strays.by_the_nodes(left, repairs=True, opens=False)
    assert not strays.by_the_nodes(left, repairs=False, opens=False)
    undone = replace(WINDOW, phase=Phase.CLOSING, abort=True, why="the membership changed while it opened")
    assert strays.by_the_nodes(undone, repairs=False, opens=True)
    assert not strays.by_the_nodes(undone, repairs=True, opens=False)


def test_a_repair_that_was_left_is_known_by_the_words_that_closing_writes() -> None:
    cluster = FakeCluster(3)
    goal = CloseGoal("n2", "g2", "ctrl3")
    assert closing._repair(cluster.snapshot("n1"), goal, cluster.record).why == strays.REPAIR_REASON


@pytest.mark.parametrize(
    ("states", "seconds", "host"),
    [
        ((ABSENT, ABSENT, RUNNING), 0.0, ""),
        ((ABSENT, ABSENT, RUNNING), 2.0, "ctrl3"),
        ((ABSENT, RUNNING, ABSENT), 14.0, ""),
        ((ABSENT, RUNNING, ABSENT), 15.0, "ctrl2"),
        ((ABSENT, OUT, IN), 60.0, ""),
        ((SILENT, ABSENT, RUNNING), 60.0, ""),
        ((ABSENT, RUNNING, RUNNING), 60.0, ""),
        ((ABSENT, STOPPED, ABSENT), 60.0, ""),
    ],
)
def test_a_window_of_the_nodes_is_closed_where_the_guest_has_come_to_rest(
    states: tuple[GuestState, ...], seconds: float, host: str
) -> None:
    assert strays.arrived(WINDOW, answers(*states), seconds) == host


def test_a_job_that_is_reported_is_no_rest() -> None:
    assert strays.arrived(WINDOW, answers(ABSENT, RUNNING, ABSENT, job=True), 60.0) == ""
