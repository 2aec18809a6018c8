"""What ``standfast verify`` calls proven, and what it finds."""

from __future__ import annotations

import dataclasses

import pytest
from driver import codes, drive, opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast.core import verify
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.record import Phase
from standfast.core.report import FAILED, Report, proof
from standfast.core.steps import Done, Snapshot, Stop

EPOCH = 7
OWN = "2a9e0b5e-0000-4000-8000-000000000002"
OTHER = "99999999-0000-4000-8000-000000000002"


def proven() -> Snapshot:
    """Three nodes; every agent was tested at EPOCH, from every node; g2 is on ctrl2."""
    cluster = FakeCluster(3)
    snapshot = cluster.snapshot("n1")
    record = dataclasses.replace(cluster.record, epoch=EPOCH, prove=EPOCH)
    aims = snapshot.aims
    tested = {
        device: proof(fingerprint, EPOCH)
        for aim in aims.values()
        for device, fingerprint in aim.proofs.items()
    }
    reports = {
        name: dataclasses.replace(
            report,
            epoch=EPOCH,
            agents=dict.fromkeys(tested, "TestWorked"),
            proofs=dict(tested),
            fencer_error="",
            identity=OWN if name == "n2" else "",
        )
        for name, report in snapshot.reports.items()
    }
    return dataclasses.replace(snapshot, record=record, reports=reports)


def changed(snapshot: Snapshot, node: str, **changes: object) -> Snapshot:
    report: Report = dataclasses.replace(snapshot.reports[node], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(snapshot, reports={**snapshot.reports, node: report})


def placed(snapshot: Snapshot, **states: GuestState) -> Snapshot:
    answers = tuple(
        HostAnswer(host, "g2", states.get(host, GuestState.ABSENT), identity=OWN if host in states else "")
        for host in snapshot.hosts
    )
    return dataclasses.replace(snapshot, places={**snapshot.places, "g2": answers})


def row(snapshot: Snapshot, *, machines: bool = True) -> verify.GuestRow:
    return next(row for row in verify.rows(snapshot, EPOCH, machines=machines) if row.guest == "g2")


def test_all_is_proven_from_every_node_but_the_guests_own() -> None:
    found = verify.rows(proven(), EPOCH, machines=True)
    assert len(found) == 3
    assert all(one.proven for one in found)
    assert [cell.seen_from for cell in row(proven()).cells] == ["n1", "n3"]
    assert verify.complete(proven(), EPOCH)


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        ({"ctrl3": GuestState.RUNNING}, "STALE_AIM", "g2 is on ctrl3, its agents aim at ctrl2"),
        (
            {"ctrl2": GuestState.RUNNING, "ctrl3": GuestState.PAUSED},
            "TWO_COPIES",
            "ctrl2: running and on ctrl3: paused",
        ),
        ({}, "NOT_RUNNING", "no host shows g2 running"),
        ({"ctrl2": GuestState.PAUSED}, "NOT_RUNNING", "g2 does not run: ctrl2: paused"),
        (
            {"ctrl2": GuestState.RUNNING, "ctrl1": GuestState.SILENT},
            "HOST_SILENT",
            "ctrl1 gives no answer about g2",
        ),
    ],
)
def test_a_guest_in_another_place_is_named(states: dict[str, GuestState], code: str, said: str) -> None:
    found = row(placed(proven(), **states))
    assert not found.proven
    assert [(one, said in text) for one, text in found.troubles] == [(code, True)]


def test_another_machine_under_the_same_name_is_named() -> None:
    snapshot = placed(proven(), ctrl2=GuestState.RUNNING)
    assert row(snapshot).proven
    ((code, text),) = row(changed(snapshot, "n2", identity=OTHER)).troubles
    assert code == "OTHER_MACHINE"
    assert OWN in text
    assert OTHER in text
    assert row(changed(snapshot, "n2", identity=OTHER), machines=False).proven, "a node in a namespace"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fencer": {"n2 SA-n2": "the running fencer has ip 1", "n1 SA-n2": "odd"}},
            "the running fencer has ip 1",
        ),
        ({"fencer_error": "no connection"}, "its running fencer is not known: no connection"),
        (
            {"agents": {"SA-n2": "TestFailed: no route"}, "proofs": {"SA-n2": proof(FAILED, EPOCH)}},
            "TestFailed: no route",
        ),
        ({"proofs": {"SA-n2": proof("ctrl9/1", EPOCH)}}, "was tested with other parameters"),
        ({"proofs": {"SA-n2": proof("ctrl2/1", EPOCH - 1)}}, "not tested in time"),
        ({"facility": "stopped"}, "its shutdown facility is stopped (sdtool -b)"),
    ],
)
def test_what_is_missing_from_one_node_is_named_for_that_node_alone(
    changes: dict[str, object], said: str
) -> None:
    found = row(changed(proven(), "n3", **changes))
    assert [(cell.seen_from, cell.why) for cell in found.cells if not cell.proven] == [("n3", said)]
    assert not found.proven


def test_a_node_that_does_not_report_proves_nothing() -> None:
    snapshot = proven()
    reports = {name: report for name, report in snapshot.reports.items() if name != "n3"}
    found = row(dataclasses.replace(snapshot, reports=reports))
    assert [cell.why for cell in found.cells] == ["", "standfastd does not report"]


def test_a_node_without_agents_is_not_proven() -> None:
    snapshot = proven()
    aim = dataclasses.replace(snapshot.aims["n2"], proofs={})
    assert not row(dataclasses.replace(snapshot, aims={**snapshot.aims, "n2": aim})).proven


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": EPOCH - 1},
        {"agents": {"SA-n2": "Testing"}},
        {"proofs": {"SA-n2": proof("ctrl2/1", EPOCH - 1)}},
        {"proofs": {}},
    ],
)
def test_it_is_waited_for_while_a_member_has_not_told_how_its_tests_ended(changes: dict[str, object]) -> None:
    assert not verify.complete(changed(proven(), "n3", **changes), EPOCH)


def test_a_test_that_failed_is_over_and_a_stopped_facility_is_not_waited_for() -> None:
    failed = changed(
        proven(), "n3", agents={"SA-n2": "TestFailed: x"}, proofs=dict.fromkeys(
            ("SA-n1", "SA-n2", "SA-n3"), proof(FAILED, EPOCH)
        )
    )  # fmt: skip
    assert verify.complete(failed, EPOCH)
    assert verify.complete(changed(proven(), "n3", facility="stopped", proofs={}), EPOCH)


def moved() -> FakeCluster:
    cluster = opened(3)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    return cluster


def test_a_window_is_not_called_closed_while_a_running_fencer_would_do_otherwise() -> None:
    cluster = moved()
    cluster.odd_fencers = {"n3": {"n2 SA-n2": "the running fencer has ip 10.20.30.72"}}
    cluster.sync()
    decision = drive(cluster, CLOSE)
    assert codes(decision) == ["FENCER_DIFFERS"]
    assert isinstance(decision, Stop)
    assert decision.unfinished
    assert (
        "the fencer of n3 would do is not what is configured: SA-n2: the running fencer has ip"
        in decision.messages[0].text
    )
    assert cluster.record.phase is Phase.CLOSING
    assert cluster.record.holds, "nor is its gate armed"
    cluster.odd_fencers = {}
    cluster.sync()
    assert isinstance(drive(cluster, CLOSE), Done)
    assert cluster.record.phase is Phase.IDLE


def test_a_fencer_that_hears_of_it_a_moment_later_is_waited_for() -> None:
    cluster = moved()
    cluster.odd_fencers = {"n3": {"n2 SA-n2": "the running fencer does not have it"}}
    cluster.sync()

    def hears(cluster: FakeCluster, _: int) -> None:
        if any("the fencer of n3" in line for line in cluster.log[-1:]):
            cluster.odd_fencers = {}
            cluster.sync()

    assert isinstance(drive(cluster, CLOSE, disturb=hears), Done)


def test_a_close_is_not_held_up_for_the_fencing_of_another_node_and_an_opening_is() -> None:
    cluster = moved()
    cluster.odd_fencers = {"n3": {"n1 SA-n1": "the running fencer does not have it"}}
    cluster.sync()
    assert isinstance(drive(cluster, CLOSE), Done)
    assert codes(drive(cluster, OPEN)) == ["FENCER_DIFFERS"]
