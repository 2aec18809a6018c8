"""Opening and closing where the hosts are libvirt's, or nobody's to ask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driver import codes, drive
from fake_cluster import CLOSE, HOSTS, OPEN, FakeCluster

from standfast.commands import migration_plan
from standfast.core import by_kind, preflight
from standfast.core.evidence import GuestState
from standfast.core.record import Mode, Phase
from standfast.core.steps import Done, Stop

GUARDED = replace(OPEN, mover="n2", mode=Mode.GUARDED, budget_seconds=0, target="ctrl3")


def cluster(kind: str, count: int = 2) -> FakeCluster:
    hosts = {
        name: replace(host, kind=kind, agent="fence_virsh", reach=(("ip", name),), login=kind == "libvirt")
        for name, host in HOSTS.items()
    }
    return FakeCluster(count, hosts=hosts)


@pytest.mark.parametrize("goal", [OPEN, GUARDED])
def test_hosts_of_libvirt_save_nothing_and_all_is_as_before(goal: object) -> None:
    world = cluster("libvirt")
    before = world.facts()
    assert isinstance(drive(world, goal), Done)
    assert world.record.phase is Phase.OPEN
    assert world.guarded == ({"n2"} if goal is GUARDED else set())
    world.guest_on = {"ctrl3": GuestState.RUNNING}
    outcome = drive(world, CLOSE)
    assert isinstance(outcome, Done), outcome
    assert world.record.phase is Phase.IDLE
    assert world.saves == []
    assert (world.aims["n2"], world.weights["n2"]) == ("ctrl3", 2)
    assert world.facts() == before


def test_a_repair_without_a_window_saves_nothing_either() -> None:
    world = cluster("libvirt")
    world.guest_on = {"ctrl3": GuestState.RUNNING}
    assert isinstance(drive(world, CLOSE), Done)
    world.agent_fails.add("SA-n2")
    outcome = drive(world, replace(CLOSE, since_epoch=world.record.epoch))
    assert isinstance(outcome, Stop)
    assert codes(outcome) == ["PROOF"]
    assert world.saves == []


OFF = replace(CLOSE, off=True)


def lost(kind: str = "libvirt") -> FakeCluster:
    """g2 was moved to ctrl3 without a window, its node is lost, and it is off there."""
    world = cluster(kind, 3)
    world.guest_on = {"ctrl3": GuestState.STOPPED}
    world.gone, world.proven_off = {"n2"}, frozenset({"n2"})
    return world


def test_the_agents_of_a_lost_guest_that_is_off_aim_at_the_host_that_knows_it_and_hold_nobody() -> None:
    world = lost()
    outcome = drive(world, OFF)
    assert isinstance(outcome, Done), outcome
    assert "aim at ctrl3, where g2 is off; once it runs again: clovmmigrate -u g2 ctrl3" in outcome.reason
    assert (world.aims["n2"], world.weights["n2"]) == ("ctrl3", 2)
    assert world.record.phase is Phase.IDLE
    assert (world.record.prove, world.saves) == (0, [])
    again = drive(world, replace(OFF, since_epoch=world.record.epoch))
    assert isinstance(again, Done)
    # Once it runs there, it is proven as ever.
    world.guest_on = {"ctrl3": GuestState.RUNNING}
    world.gone, world.proven_off = set(), frozenset()
    proven = drive(world, replace(CLOSE, since_epoch=world.record.epoch))
    assert isinstance(proven, Done)
    assert "every agent of n2 has proven ctrl3" in proven.reason


def test_where_it_hangs_there_the_repair_tells_to_stop_it_and_to_aim_at_it_then() -> None:
    world = lost()
    world.guest_on, world.proven_off = {"ctrl3": GuestState.RUNNING}, frozenset()
    outcome = drive(world, CLOSE)
    assert isinstance(outcome, Stop)
    assert codes(outcome) == ["NOT_READY"]
    typed = "if it hangs: virsh destroy g2 (on ctrl3), then standfast window repair g2"
    assert outcome.messages[0].next_command == typed


@pytest.mark.parametrize(
    "why", ["asked otherwise", "not proven", "a member", "elsewhere", "service processor"]
)
def test_nothing_is_aimed_at_a_guest_that_is_off_unless_all_is_plain(why: str) -> None:
    world = lost("ldm" if why == "service processor" else "libvirt")
    if why == "not proven":
        world.proven_off = frozenset()
    elif why == "a member":
        world.gone = set()
    elif why == "elsewhere":
        world.guest_on = {"ctrl1": GuestState.STOPPED}
    outcome = drive(world, CLOSE if why == "asked otherwise" else OFF)
    assert isinstance(outcome, Stop)
    assert codes(outcome) == ["GUEST_STOPPED"]
    assert world.aims["n2"] == "ctrl2"


def test_hosts_that_nobody_asks_are_closed_by_the_operators_word_and_the_agents_proof() -> None:
    world = cluster("manual")
    before = world.facts()
    assert isinstance(drive(world, OPEN), Done)
    world.guest_on = {"ctrl3": GuestState.RUNNING}
    wrong = drive(world, replace(CLOSE, target="ctrl1"))
    assert isinstance(wrong, Stop)
    assert codes(wrong) == ["PROOF"]
    assert world.record.open
    outcome = drive(world, replace(CLOSE, since_epoch=world.record.epoch))
    assert isinstance(outcome, Done), outcome
    assert world.aims["n2"] == "ctrl3"
    assert world.facts() == before


def test_a_guarded_window_needs_hosts_that_can_be_asked() -> None:
    found = [
        m for m in preflight.errors(cluster("manual").snapshot("n1"), GUARDED) if m.code == "NEEDS_LOGIN"
    ]
    assert len(found) == 3
    assert "host ctrl1 has no login" in found[0].text
    assert found[0].next_command.startswith("standfast window open GUEST --mode frozen")


@pytest.mark.parametrize(
    ("places", "code", "typed"),
    [
        ({"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}, "MIGRATING",
         "virsh domjobinfo g2 (on ctrl2); when it has ended, repeat"),
        ({"ctrl2": GuestState.RUNNING, "ctrl3": GuestState.RUNNING}, "TWO_COPIES",
         "virsh destroy g2 (on ctrl2 or ctrl3), then clovmmigrate -u g2 HOST"),
        ({"ctrl2": GuestState.STOPPED}, "GUEST_STOPPED",
         "virsh start g2 (on its host), then clovmmigrate -u g2 HOST"),
    ],
)  # fmt: skip
def test_what_is_to_be_typed_on_a_host_is_virsh(places: dict[str, GuestState], code: str, typed: str) -> None:
    world = cluster("libvirt")
    assert isinstance(drive(world, OPEN), Done)
    world.guest_on = places
    outcome = drive(world, CLOSE)
    assert isinstance(outcome, Stop)
    assert [(message.code, message.next_command) for message in outcome.messages] == [(code, typed)]


def test_a_node_that_is_not_registered_is_told_how_by_the_kind_of_its_hosts() -> None:
    for kind, typed in (
        ("ldm", "clsnmpsetup -a n2 ..."),
        ("libvirt", "standfast node add n2 --guest GUEST --host HOST"),
    ):
        world = cluster(kind)
        world.unregister("n2")
        (found,) = [m for m in preflight.errors(world.snapshot("n1"), OPEN) if m.code == "NOT_REGISTERED"]
        assert found.next_command == typed


def test_an_agent_that_does_not_reach_a_host_is_named_with_it() -> None:
    snapshot = cluster("libvirt").snapshot("n1")
    report = replace(snapshot.reports["n1"], logins={"ctrl3": "no route"})
    told = preflight.errors(replace(snapshot, reports={**snapshot.reports, "n1": report}), OPEN)
    assert [(message.code, message.host) for message in told] == [("LOGIN", "ctrl3")]
    assert "from n1 fence_virsh does not reach ctrl3 with its fence_parameters: no route" in told[0].text


def test_the_plan_names_the_agent_and_no_configuration_to_save() -> None:
    world = cluster("libvirt")
    assert isinstance(drive(world, OPEN), Done)
    lines = list(migration_plan.lines(CLOSE, world.snapshot("n1")))
    assert "agents of n2: ctrl2 to ctrl3 (fence_virsh, weight 2)" in lines
    assert not any("configuration" in line for line in lines)


def test_words_for_a_host_that_is_not_listed_are_those_of_the_others() -> None:
    hosts = cluster("manual").hosts
    assert by_kind.start(hosts, "", "g2") == "start g2 by hand (on its host)"
    assert by_kind.stop({}, "", "g2") == "ldm stop-domain g2 (on its control domain)"
    assert by_kind.listing(hosts) == "standfast node list"
