"""What must be true before a migration, and for how long its window is opened."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_cluster import FakeCluster
from test_migration import HOSTS, MOVE, answers

from standfast.core import migration_before as before
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.messages import Message
from standfast.core.record import Phase
from standfast.core.steps import NodeAim, Snapshot

G = GuestState
GIB = 1 << 30


def snapshot(**more: object) -> Snapshot:
    aims = {f"cfguest{k}": NodeAim(f"cfguest{k}", f"guest{k}", f"ctrl{k}", 1, {}) for k in (1, 2)}
    given: dict[str, object] = {
        "members": frozenset({"cfguest1", "cfguest2", "cfguest3"}), "hosts": HOSTS, "aims": aims, **more
    }  # fmt: skip
    return Snapshot("cfguest1", **{"record": None, **given})  # type: ignore[arg-type]


def codes(*messages: Message | None) -> list[str]:
    return [message.code for message in messages if message is not None]


# -- times ------------------------------------------------------------------------------------------------


def test_the_lease_is_what_was_asked_for_else_twice_the_prediction_within_bounds() -> None:
    assert before.lease_seconds(7, 10_000, 240) == 420
    assert before.lease_seconds(None, None, 240) == 240 * 60
    assert before.lease_seconds(None, 10, 240) == 15 * 60
    assert before.lease_seconds(None, 3600, 240) == 7200
    assert before.lease_seconds(None, 10**9, 240) == 24 * 3600


def test_the_prediction_is_the_memory_over_a_slow_network_sent_twice() -> None:
    assert before.predicted_seconds(None) is None
    assert before.predicted_seconds(0) == 30
    assert 180 < (before.predicted_seconds(8 * GIB) or 0) < 200


@pytest.mark.parametrize(("lease", "limit"), [(60, 30), (600, 300), (900, 600), (14400, 14100)])
def test_the_migration_leaves_time_to_close_within_the_lease(lease: int, limit: int) -> None:
    assert before.limit_seconds(lease) == limit


# -- who and where ----------------------------------------------------------------------------------------


def test_nothing_speaks_against_an_ordinary_migration() -> None:
    assert before.who_and_where(snapshot(), MOVE) == ()


def test_the_node_that_moves_is_told_where_to_type_it() -> None:
    found = before.who_and_where(replace(snapshot(), me="cfguest2"), MOVE)
    assert codes(*found) == ["ON_THE_MOVER"]
    assert found[0].next_command == "standfast migrate guest2 --to ctrl3 (on cfguest1)"


def test_hosts_that_a_person_looks_after_are_refused_with_what_that_person_does() -> None:
    by_hand = {name: replace(entry, kind="manual", login=False) for name, entry in HOSTS.items()}
    found = before.who_and_where(snapshot(), replace(MOVE, hosts=by_hand))
    assert codes(*found) == ["MOVED_BY_HAND"]
    assert found[0].next_command.startswith("clovmmigrate -p guest2; move it")
    assert found[0].next_command.endswith("clovmmigrate -u guest2 ctrl3")


def test_a_host_without_login_is_named() -> None:
    blind = {**HOSTS, "ctrl3": replace(HOSTS["ctrl3"], login=False)}
    found = before.who_and_where(snapshot(), replace(MOVE, hosts=blind))
    assert codes(*found) == ["NEEDS_LOGIN"]
    assert found[0].host == "ctrl3"


def test_an_open_window_is_in_the_way() -> None:
    record = replace(FakeCluster(3).record, phase=Phase.OPEN, mover="cfguest3")
    assert codes(*before.who_and_where(snapshot(record=record), MOVE)) == ["WINDOW_OPEN"]


LIVE = [
    ((G.ABSENT, G.RUNNING, G.ABSENT), []),
    ((G.ABSENT, G.ABSENT, G.RUNNING), ["HERE_ALREADY"]),
    ((G.ABSENT, G.STOPPED, G.ABSENT), ["GUEST_STOPPED"]),
    ((G.ABSENT, G.MIGRATING_OUT, G.INCOMING), ["MIGRATING"]),
    ((G.ABSENT, G.RUNNING, G.SILENT), ["NO_PLACE"]),
    ((G.RUNNING, G.ABSENT, G.ABSENT), ["NO_PLACE"]),
    ((G.ABSENT, G.PAUSED, G.ABSENT), ["NO_PLACE"]),
]
COLD = [
    ((G.ABSENT, G.STOPPED, G.ABSENT), []),
    ((G.ABSENT, G.RUNNING, G.ABSENT), ["NOT_STOPPED"]),
    ((G.ABSENT, G.ABSENT, G.STOPPED), ["HERE_ALREADY"]),
    ((G.ABSENT, G.STOPPED, G.STOPPED), ["NO_PLACE"]),
    ((G.ABSENT, G.ABSENT, G.ABSENT), ["NO_PLACE"]),
    ((G.ABSENT, G.STOPPED, G.SILENT), ["NO_PLACE"]),
]


@pytest.mark.parametrize(("states", "expected"), LIVE)
def test_a_live_migration_begins_with_a_guest_that_plainly_runs_on_the_source(
    states: tuple[GuestState, ...], expected: list[str]
) -> None:
    assert codes(before.placed(MOVE, answers(*states), cold=False)) == expected


@pytest.mark.parametrize(("states", "expected"), COLD)
def test_a_cold_one_with_a_guest_that_is_stopped_on_one_host(
    states: tuple[GuestState, ...], expected: list[str]
) -> None:
    assert codes(before.placed(MOVE, answers(*states), cold=True)) == expected


def test_a_stopped_guest_has_arrived_when_the_target_alone_knows_it() -> None:
    assert before.arrived(MOVE, answers(G.ABSENT, G.ABSENT, G.STOPPED))
    assert not before.arrived(MOVE, answers(G.ABSENT, G.STOPPED, G.STOPPED))
    assert not before.arrived(MOVE, answers(G.SILENT, G.ABSENT, G.STOPPED))
    assert not before.arrived(MOVE, answers(G.ABSENT, G.ABSENT, G.ABSENT))


def test_the_source_is_where_the_guest_is_and_only_then_where_its_agents_aim() -> None:
    assert before.source_of(answers(G.ABSENT, G.RUNNING, G.ABSENT), "ctrl1") == "ctrl2"
    assert before.source_of(answers(G.STOPPED, G.ABSENT, G.ABSENT), "ctrl2") == "ctrl1"
    assert before.source_of(answers(G.SILENT, G.SILENT, G.SILENT), "ctrl2") == "ctrl2"


# -- the other guests -------------------------------------------------------------------------------------


def places(host: str, state: GuestState) -> dict[str, tuple[HostAnswer, ...]]:
    return {"guest1": (HostAnswer(host, "guest1", state),)}


def test_two_nodes_of_a_cluster_do_not_come_to_one_host_unless_that_is_forced() -> None:
    there = places("ctrl3", G.RUNNING)
    found = before.others(snapshot(), MOVE, there, forced=False)
    assert codes(*found) == ["NEIGHBOURS"]
    assert found[0].force == "--force"
    assert before.others(snapshot(), MOVE, there, forced=True) == ()
    assert before.others(snapshot(), MOVE, places("ctrl1", G.RUNNING), forced=False) == ()


def test_another_guest_on_its_way_is_waited_for_and_no_force_helps() -> None:
    moving = places("ctrl1", G.MIGRATING_OUT)
    assert codes(*before.others(snapshot(), MOVE, moving, forced=True)) == ["OTHER_GUEST"]
