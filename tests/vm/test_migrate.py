"""`standfast migrate` on real libvirt hosts: cancelled, its target killed, a guest under load moved."""

from __future__ import annotations

import pytest

from standfast.lab.vm import cases, rounds
from standfast.lab.vm.cluster import VmLab

pytestmark = [pytest.mark.timeout(900), pytest.mark.lab]


@pytest.mark.costs(1.2)
def test_ctrl_c_cancels_a_real_migration_and_all_is_as_before(lab: VmLab) -> None:
    rounds.ready(lab)
    with cases.Case(lab, "cancelled", print) as case:
        cases.cancelled(case)
    assert case.row.good, case.row.wrong


@pytest.mark.costs(1.4)
def test_a_target_that_dies_in_flight_costs_nothing(lab: VmLab) -> None:
    rounds.ready(lab)
    with cases.Case(lab, "failed", print) as case:
        cases.failed(case)
    assert case.row.good, case.row.wrong


@pytest.mark.full
def test_a_guest_under_memory_load_is_migrated_there_and_back_and_nobody_is_touched(lab: VmLab) -> None:
    tally = rounds.play(lab, 2, "standfast migrate", rounds.by_standfast, print)
    assert [(move.host, move.moved) for move in tally.moves] == [("host3", True), ("host2", True)], tally
    assert (tally.left, tally.fencings, tally.restarts, tally.boots) == (0, 0, 0, 0)
    for move in tally.moves:
        assert move.pages_wrong == 0
        assert move.aims_right, "its fence agent, as the cluster would call it, sees it on"
        assert move.blackout is not None
        assert move.told_blackout == pytest.approx(move.blackout, abs=0.1)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_power_loss_of_either_host_or_of_the_commands_node_in_flight() -> None:
    names = ("destination-killed", "coordinator-killed", "source-killed")
    rows = cases.play(names, print)
    assert [(row.name, row.wrong) for row in rows] == [(name, []) for name in names]
