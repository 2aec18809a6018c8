"""Where nobody can log in, a window closes only when the XSCFs show, or the operator says, it is saved."""

from __future__ import annotations

from dataclasses import replace

from driver import codes, drive
from fake_cluster import CLOSE, HOSTS, OPEN, FakeCluster

from standfast.core import by_hand
from standfast.core.evidence import GuestState
from standfast.core.record import Phase
from standfast.core.steps import Done, SaveConfiguration, Stop
from standfast.core.window import decide

UNSAVED = {"ctrl2": GuestState.STOPPED, "ctrl3": GuestState.UNKNOWN}
HALF = {"ctrl2": GuestState.STOPPED, "ctrl3": GuestState.RUNNING}


def opened(*without_login: str) -> FakeCluster:
    """A window is open, the guest has moved to ctrl3, and nobody can log in to these hosts."""
    hosts = {name: replace(entry, login=name not in without_login) for name, entry in HOSTS.items()}
    cluster = FakeCluster(2, hosts=hosts)
    assert isinstance(drive(cluster, OPEN), Done)
    return cluster


def test_a_target_that_its_xscf_calls_unknown_is_named_with_the_source_and_the_command_to_type() -> None:
    cluster = opened("ctrl2", "ctrl3")
    cluster.guest_on = dict(UNSAVED)
    stop = drive(cluster, CLOSE)
    assert codes(stop) == ["NOT_SAVED"]
    assert isinstance(stop, Stop)
    assert stop.unfinished
    message = stop.messages[0]
    assert message.host == "ctrl3"
    assert message.next_command.startswith("ldm add-spconfig NAME (on ctrl3 and on ctrl2;")
    assert message.next_command.endswith("then clovmmigrate -u g2 ctrl3")
    assert cluster.saves == []
    assert cluster.record.phase is Phase.OPEN


def test_a_source_that_can_be_logged_in_to_is_not_named() -> None:
    cluster = opened("ctrl3")
    cluster.guest_on = dict(UNSAVED)
    stop = drive(cluster, CLOSE)
    assert isinstance(stop, Stop)
    assert "ctrl2" not in stop.messages[0].text + stop.messages[0].next_command


def test_unknown_is_no_proof_even_with_the_word_of_the_operator_or_without_saving() -> None:
    for goal in (
        replace(CLOSE, saved_by_hand=frozenset({"ctrl2", "ctrl3"})),
        replace(CLOSE, skip_save={"ctrl2": "dead", "ctrl3": "dead"}),
    ):
        cluster = opened("ctrl2", "ctrl3")
        cluster.guest_on = dict(UNSAVED)
        assert codes(drive(cluster, goal)) == ["NOT_SAVED"]


def test_unknown_on_a_third_host_is_as_bad_as_no_answer() -> None:
    cluster = opened("ctrl1", "ctrl2", "ctrl3")
    cluster.guest_on = {"ctrl1": GuestState.UNKNOWN, "ctrl3": GuestState.RUNNING}
    assert codes(drive(cluster, CLOSE)) == ["NOT_SAVED"]


def test_unknown_on_a_host_with_login_is_still_a_silent_host() -> None:
    cluster = opened()
    cluster.guest_on = dict(UNSAVED)
    assert codes(drive(cluster, CLOSE)) == ["HOST_SILENT"]


def test_the_hosts_are_verified_with_what_each_must_show() -> None:
    cluster = opened("ctrl2", "ctrl3")
    cluster.guest_on = dict(HALF)
    steps = [cluster.log, cluster.saves]
    assert isinstance(drive(cluster, CLOSE), Done)
    assert steps[1] == ["ctrl2", "ctrl3"]
    told = [line for line in steps[0] if line.startswith("SaveConfiguration")]
    assert all("see whether" in line for line in told)


def test_the_target_must_show_the_guest_and_the_source_must_not() -> None:
    cluster = opened("ctrl2", "ctrl3")
    cluster.guest_on = dict(HALF)
    asked = {}
    for _ in range(6):
        step = decide(cluster.snapshot("n1"), CLOSE)
        if isinstance(step, SaveConfiguration):
            asked[step.host] = step.runs_here
        cluster.do(step, cluster.record.epoch)
    assert asked == {"ctrl2": False, "ctrl3": True}


def test_the_operator_s_word_is_noted_and_that_host_is_not_verified() -> None:
    cluster = opened("ctrl2", "ctrl3")
    cluster.guest_on = dict(HALF)
    drive(cluster, replace(CLOSE, saved_by_hand=frozenset({"ctrl2"})), limit=2)
    assert cluster.record.saved == {"ctrl2": by_hand.NOTED}
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.saves == ["ctrl3"]
