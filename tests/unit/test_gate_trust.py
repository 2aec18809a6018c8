"""The gate in front of an agent that trusts its host: what is evidence, and what is not."""

from __future__ import annotations

import dataclasses

import pytest
from test_gate import CLEAR, GATE, IDLE, SAVED, WINDOW, hosts
from test_gate_guarded import WINDOW as GUARDED

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.gate import Answer, GateView, Rule, decide
from standfast.core.topology import Device, Level

VIRSH = Level(1, (GATE, Device("SA_virsh-n2", "fence_virsh", {"plug": "g2"})))
GONE = hosts(ctrl2=GuestState.STOPPED, ctrl3=GuestState.ABSENT)
VIEW = dataclasses.replace(CLEAR, levels=(VIRSH,), trusts_words=True, saves=False)


def ask(view: GateView = VIEW, **changes: object) -> Answer:
    return decide(dataclasses.replace(view, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [GuestState.RUNNING, GuestState.PAUSED, GuestState.CRASHED])
@pytest.mark.parametrize(
    "other", [GuestState.ABSENT, GuestState.STOPPED, GuestState.SILENT, GuestState.UNKNOWN]
)
def test_a_guest_that_the_aimed_host_has_may_be_killed_there(state: GuestState, other: GuestState) -> None:
    assert ask(hosts=hosts(ctrl2=state, ctrl3=other)) == Answer(
        True, Rule.CLEAR, "nothing speaks against fencing n2", hosts_matter=True
    )


@pytest.mark.parametrize("state", [GuestState.STOPPED, GuestState.ABSENT])
@pytest.mark.parametrize("other", [GuestState.SILENT, GuestState.UNKNOWN, GuestState.CRASHED])
def test_already_off_is_not_believed_while_another_host_may_have_it(
    state: GuestState, other: GuestState
) -> None:
    seen = hosts(ctrl2=state, ctrl3=other)
    answer = ask(hosts=seen, hosts_before=seen)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.NO_EVIDENCE, False)
    assert f"ctrl2 shows g2 {state.value}, so that its device would call it off" in answer.reason
    assert f"it may be on ctrl3 (ctrl3: {other.value})" in answer.reason
    assert "stonith_admin --confirm=n2" in answer.reason


@pytest.mark.parametrize("state", [GuestState.RUNNING, GuestState.PAUSED, GuestState.MIGRATING_OUT])
def test_a_guest_that_is_shown_elsewhere_is_held_with_that_place(state: GuestState) -> None:
    for here in (GuestState.STOPPED, GuestState.ABSENT, GuestState.SILENT):
        assert ask(hosts=hosts(ctrl2=here, ctrl3=state)).rule is Rule.ELSEWHERE


@pytest.mark.parametrize("state", [GuestState.SILENT, GuestState.UNKNOWN])
@pytest.mark.parametrize("other", [GuestState.ABSENT, GuestState.SILENT])
def test_an_aimed_host_that_does_not_show_it_holds(state: GuestState, other: GuestState) -> None:
    seen = (HostAnswer("ctrl2", "g2", state, "no route"), *hosts(ctrl3=other))
    answer = ask(hosts=seen, hosts_before=seen)
    assert answer.rule is Rule.NO_EVIDENCE
    assert (
        f"ctrl2, at which the device of n2 aims, does not show g2 (ctrl2: {state.value} (no route))"
        in answer.reason
    )


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (GuestState.PAUSED, "pmsuspended (unknown)"),
        (GuestState.RUNNING, "in shutdown (unknown)"),
        (GuestState.RUNNING, "in shutdown (unknown), transient"),
    ],
)
def test_a_guest_that_is_not_off_but_that_the_agent_calls_off_is_held_with_the_order_to_type(
    state: GuestState, detail: str
) -> None:
    seen = (HostAnswer("ctrl2", "g2", state, detail), *hosts(ctrl3=GuestState.ABSENT))
    answer = ask(hosts=seen, hosts_before=seen)
    assert (answer.allow, answer.rule) == (False, Rule.NO_EVIDENCE)
    assert "would call it off without killing it; type: virsh destroy g2 (on ctrl2)" in answer.reason


def test_gone_everywhere_lets_go_after_the_second_round() -> None:
    first = ask(hosts=GONE)
    assert first.rule is Rule.NO_EVIDENCE
    assert first.reason == "ctrl2 shows g2 stopped, and every other host too, but not yet in two rounds"
    assert ask(hosts=GONE, hosts_before=GONE).allow
    moved = hosts(ctrl2=GuestState.ABSENT, ctrl3=GuestState.ABSENT)
    assert ask(hosts=GONE, hosts_before=moved).rule is Rule.NO_EVIDENCE


@pytest.mark.parametrize(
    ("there", "helps"),
    [
        (GuestState.STOPPED, "ctrl3 does: if its device fails, type: standfast window repair g2"),
        (
            GuestState.ABSENT,
            "its device may fail: if n2 is off for certain, type: stonith_admin --confirm=n2",
        ),
    ],
)
def test_a_yes_for_one_that_its_aimed_host_does_not_know_says_what_helps(
    there: GuestState, helps: str
) -> None:
    seen = hosts(ctrl2=GuestState.ABSENT, ctrl3=there)
    answer = ask(hosts=seen, hosts_before=seen)
    assert answer.allow
    assert answer.reason == f"nothing speaks against fencing n2; ctrl2 does not know g2, and {helps}"
    assert "type:" not in ask(hosts=GONE, hosts_before=GONE).reason, "its aimed host knows it"
    assert "type:" not in ask(hosts=seen, hosts_before=seen, trusts_words=False).reason


@pytest.mark.parametrize("there", [GuestState.STOPPED, GuestState.ABSENT])
def test_gone_is_no_proof_where_it_was_so_while_its_node_was_alive(there: GuestState) -> None:
    seen = hosts(ctrl2=there, ctrl3=GuestState.STOPPED)
    answer = ask(hosts=seen, hosts_before=seen, unlisted=True)
    assert (answer.allow, answer.rule, answer.final) == (False, Rule.NO_EVIDENCE, False)
    assert "none did while n2 was alive: it runs on one that is not listed" in answer.reason
    assert "if n2 is off for certain, type: stonith_admin --confirm=n2" in answer.reason
    running = hosts(ctrl2=GuestState.RUNNING, ctrl3=GuestState.ABSENT)
    assert ask(hosts=running, unlisted=True).allow, "there is something to kill"


def test_hosts_that_were_not_asked_yet_hold_and_are_asked() -> None:
    answer = ask(hosts=())
    assert (answer.rule, answer.hosts_matter) == (Rule.NO_EVIDENCE, True)
    assert "ctrl2, at which the device of n2 aims, could not be asked" in answer.reason


def test_a_device_that_aims_at_no_known_host_holds_with_the_repair() -> None:
    answer = ask(aim="", hosts=hosts(ctrl2=GuestState.ABSENT, ctrl3=GuestState.SILENT))
    assert answer.rule is Rule.NO_EVIDENCE
    assert "type: clovmmigrate -u GUEST HOST" in answer.reason


def test_where_nobody_can_be_asked_fencing_goes_on_as_without_the_gate() -> None:
    assert ask(trusts_words=False, hosts=hosts(ctrl2=GuestState.SILENT, ctrl3=GuestState.SILENT)).allow


def test_a_window_asks_for_the_same_evidence_where_its_own_rules_let_go() -> None:
    over = dataclasses.replace(VIEW, record=WINDOW, seconds_since_window_seen=1000.0)
    assert ask(over).allow  # plainly at its aim: nothing has to be saved on such hosts
    assert ask(over, saves=True).rule is Rule.UNSAVED
    assert ask(over, record=SAVED, saves=True).allow
    assert ask(over, hosts=hosts(ctrl2=GuestState.PAUSED, ctrl3=GuestState.ABSENT)).rule is Rule.UNSAVED
    assert ask(over, hosts=GONE, hosts_before=GONE).allow
    other = dataclasses.replace(GUARDED, mover="n3", source="ctrl2", target="ctrl3")
    beside = dataclasses.replace(VIEW, record=other, seconds_since_window_seen=1.0)
    assert ask(beside).allow
    assert ask(beside, saves=True).rule is Rule.UNSAVED
    assert ask(beside, hosts=hosts(ctrl2=GuestState.SILENT, ctrl3=GuestState.ABSENT)).rule is Rule.NO_EVIDENCE


def test_a_hold_for_want_of_evidence_is_no_reason_to_settle() -> None:
    assert ask(record=IDLE, seconds_since_held=None).allow
