"""The lease: who reminds, who closes a window that stays open, and what nobody does by himself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.lease import AskHosts, Close, LeaseView, Nothing, Over, Remind, decide
from standfast.core.record import Phase, Record, Totem
from standfast.core.steps import NodeAim

NODES = ("n1", "n2", "n3")
AIMS = {f"n{i}": NodeAim(f"n{i}", f"guest{i}", f"ctrl{i}", 1, {}) for i in (1, 2, 3)}
RECORD = Record(epoch=7, phase=Phase.OPEN, mover="n2", lease_seconds=1000, window=5)


def said(guest: str, **states: GuestState) -> tuple[HostAnswer, ...]:
    hosts = ("ctrl1", "ctrl2", "ctrl3", "ctrl4")
    return tuple(HostAnswer(host, guest, states.get(host, GuestState.ABSENT)) for host in hosts)


HOME = {f"n{i}": said(f"guest{i}", **{f"ctrl{i}": GuestState.RUNNING}) for i in (1, 2, 3)}


def view(seconds: float, me: str = "n1", **changes: object) -> LeaseView:
    made = LeaseView(me, frozenset(NODES), RECORD, seconds, aims=AIMS)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "reminded", "percent"),
    [
        (499, 0, 0),
        (500, 0, 50),
        (500, 50, 0),
        (799, 50, 0),
        (800, 50, 80),
        (950, 80, 95),
        (999, 95, 0),
        (960, 0, 95),
    ],
)
def test_each_mark_is_reminded_of_once_and_a_late_node_skips_to_the_newest(
    seconds: float, reminded: int, percent: int
) -> None:
    answer = decide(view(seconds, reminded_percent=reminded))
    assert answer == (Remind(percent, 1000 - seconds) if percent else Nothing())


def test_without_a_window_nothing_is_done() -> None:
    assert decide(view(5000, record=replace(RECORD, phase=Phase.IDLE))) == Nothing()


def test_the_mover_never_acts_for_its_own_window() -> None:
    answer = decide(view(9999, "n2", where=HOME))
    assert isinstance(answer, Over)
    assert "never closes its own window" in answer.why


def test_the_nodes_act_one_after_the_other() -> None:
    assert decide(view(1000, "n1")) == AskHosts()
    assert isinstance(decide(view(1000, "n3")), Over)
    assert isinstance(decide(view(1029, "n3")), Over)
    assert decide(view(1030, "n3")) == AskHosts()
    assert decide(view(1000, "n3", members=frozenset({"n2", "n3"}))) == AskHosts(), "n1 is gone"


def test_a_node_outside_the_membership_does_nothing_but_alarm() -> None:
    assert isinstance(decide(view(5000, "n1", members=frozenset({"n2", "n3"}))), Over)


def test_the_window_is_closed_with_the_host_on_which_its_guest_runs() -> None:
    for host in ("ctrl2", "ctrl4"):
        where = {**HOME, "n2": said("guest2", **{host: GuestState.RUNNING})}
        answer = decide(view(1000, where=where))
        assert isinstance(answer, Close)
        assert (answer.goal.node, answer.goal.guest, answer.goal.target) == ("n2", "guest2", host)


def test_a_window_for_every_node_is_closed_for_the_one_that_has_moved() -> None:
    anybody = replace(RECORD, mover="")
    where = {**HOME, "n3": said("guest3", ctrl4=GuestState.RUNNING)}
    answer = decide(view(1000, record=anybody, where=where))
    assert isinstance(answer, Close)
    assert (answer.goal.node, answer.goal.target) == ("n3", "ctrl4")
    home = decide(view(1000, record=anybody, where=HOME))
    assert isinstance(home, Close)
    assert (home.goal.node, home.goal.target) == ("n1", "ctrl1")


@pytest.mark.parametrize(
    ("node", "states", "why"),
    [
        ("n2", {"ctrl2": GuestState.MIGRATING_OUT, "ctrl4": GuestState.INCOMING}, "being migrated"),
        ("n3", {"ctrl3": GuestState.MIGRATING_OUT}, "guest3 is being migrated"),
        ("n2", {"ctrl2": GuestState.RUNNING, "ctrl4": GuestState.RUNNING}, "ctrl2 and on ctrl4"),
        ("n2", {}, "no control domain shows guest2 running"),
        ("n2", {"ctrl2": GuestState.SILENT}, "no control domain shows guest2 running"),
        ("n3", {"ctrl4": GuestState.RUNNING}, "guest3 was moved too"),
    ],
)
def test_what_is_not_plain_is_left_to_people(node: str, states: dict[str, GuestState], why: str) -> None:
    number = node[1]
    answer = decide(view(1000, where={**HOME, node: said(f"guest{number}", **states)}))
    assert isinstance(answer, Over)
    assert why in answer.why
    assert answer.next_command == "clovmmigrate -u guest2 target-host"


def test_an_attempt_that_failed_is_repeated_after_a_while_and_its_reason_is_told_meanwhile() -> None:
    early = decide(view(1100, seconds_since_attempt=60.0, refusal="guest2 is not proven", where=HOME))
    why = "guest2 is not proven; not armed: n1 is in a part of the cluster without quorum"
    assert early == Over(100.0, why, "clovmmigrate -u guest2 target-host")
    assert isinstance(decide(view(1200, seconds_since_attempt=120.0, where=HOME)), Close)


PROVEN = replace(RECORD, phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED)
LAGS = "n2 is 20.0 s behind n1"


def test_while_only_clocks_are_in_the_way_no_command_is_started_that_would_wait_for_them() -> None:
    answer = decide(view(1000, record=PROVEN, clocks=LAGS, where=HOME))
    assert answer == Over(0.0, LAGS, "clovmmigrate -u guest2 target-host", tried=True)
    again = decide(view(1060, record=PROVEN, clocks=LAGS, seconds_since_attempt=60.0, refusal=LAGS))
    assert again == Over(60.0, LAGS, "clovmmigrate -u guest2 target-host")
    assert isinstance(decide(view(1000, record=PROVEN, where=HOME)), Close)
    assert isinstance(decide(view(1000, record=replace(PROVEN, aimed=False), where=HOME)), Close)


def test_a_guest_that_has_moved_once_more_is_closed_for_whatever_the_clocks_say() -> None:
    """Its gate holds by where it is, until its devices aim there."""
    moved = {**HOME, "n2": said("guest2", ctrl4=GuestState.RUNNING)}
    answer = decide(view(1000, record=PROVEN, clocks=LAGS, where=moved))
    assert isinstance(answer, Close)
    assert (answer.goal.guest, answer.goal.target) == ("guest2", "ctrl4")
