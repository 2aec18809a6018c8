"""Who is killed, through what, and who is not: in a window, after it, and when somebody moved the guest."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from window_kit import (
    BUDGET,
    GUEST,
    MOVER,
    Picture,
    closed,
    eventually,
    home,
    kills,
    members,
    migrate_command,
    move,
    opened,
    spare,
    starts_and_stops,
    unclean,
    window,
)

from standfast.cluster.run import Result
from standfast.core.names import SETTLE_SECONDS
from standfast.core.record import Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)
JOIN_ROUND = r"\(S_(PENDING|ELECTION|INTEGRATION|FINALIZE_JOIN)\)$"
"""How a gate shows that its controller takes part in an election or a join round (Pacemaker's own names)."""


def gate_lines(scene: Scene, target: str) -> list[str]:
    """What the gates of all living nodes have answered about a target."""
    found = []
    for node in scene.lab.nodes:
        log = scene.path(node, "/var/log/standfast/gate.log")
        if log.exists():
            found += [line for line in log.read_text().splitlines() if f"target={target} " in line]
    return found


def rule_of(line: str) -> str:
    """The rule by which a gate has answered."""
    return next(word.removeprefix("rule=") for word in line.split() if word.startswith("rule="))


def resets(scene: Scene, mark: int) -> set[object]:
    """The hosts whose service processors were told to reset somebody since a mark."""
    return {
        entry["host"]
        for entry in scene.control.log(mark, event="command")
        if str(entry.get("line", "")).startswith("reset")
    }


def service_runs_elsewhere(scene: Scene) -> bool:
    """The mover's service runs on a node that is not its own."""
    seen = scene.lab.status("cfguest1")
    return seen is not None and any(
        r.name == f"r-{MOVER}" and r.role == "Started" and r.nodes != (MOVER,) for r in seen.resources
    )


@pytest.mark.full
def test_a_node_that_outlasts_the_budget_is_dropped_held_and_taken_back(scene: Scene) -> None:
    before, mark, said = Picture.of(scene), scene.control.mark(), len(gate_lines(scene, MOVER))
    opened(scene, "cfguest1", GUEST, *BUDGET)
    # 15 s until it is dropped, and time for an answer of the gate, which takes 5 s, before it is back.
    scene.control.migrate(GUEST, spare(scene), duration_seconds=31.0, blackout_seconds=30.0)
    assert eventually(lambda: MOVER in unclean(scene, "cfguest1"), 30), "the ring has not dropped it"
    assert scene.control.wait_migration(GUEST, limit_seconds=60.0)["phase"] == "done"
    assert eventually(lambda: members(scene, "cfguest1") == set(scene.lab.nodes), 30)
    closed(scene, "cfguest1", spare(scene))
    answers = gate_lines(scene, MOVER)[said:]
    assert answers
    # First the window holds. The node's return starts an election and a join round, in which no controller
    # counts as joined for some seconds; from its end on the node is a member, and that alone holds.
    rules = [rule_of(line) for line in answers]
    assert rules[0] == "frozen", answers
    assert rules[-1] == "target-back", answers
    assert set(rules) <= {"frozen", "not-joined", "target-back"}, answers
    joining = [line for line, rule in zip(answers, rules, strict=True) if rule == "not-joined"]
    assert all(re.search(JOIN_ROUND, line) for line in joining), joining
    assert all(" hold " in line for line in answers), answers
    assert kills(scene, mark) == []
    assert resets(scene, mark) == set()
    later = Picture.of(scene)
    assert {node: one.conf for node, one in later.nodes.items()} == {
        node: one.conf for node, one in before.nodes.items()
    }
    assert later.events == before.events, starts_and_stops(scene.lab)[before.events :]


def test_after_a_move_a_real_death_is_answered_through_the_new_service_processor_only(scene: Scene) -> None:
    opened(scene, "cfguest1")
    move(scene, spare(scene))
    closed(scene, "cfguest3", spare(scene))
    mark, known = scene.control.mark(), len(starts_and_stops(scene.lab))
    scene.control.call("hang", name=GUEST)
    assert eventually(lambda: len(starts_and_stops(scene.lab)) > known, 60), "its service is nowhere"
    assert starts_and_stops(scene.lab)[known] in (
        f"r-{MOVER} start on cfguest1",
        f"r-{MOVER} start on cfguest3",
    )
    assert resets(scene, mark) == {spare(scene)}
    assert {entry["hit"] for entry in kills(scene, mark)} == {GUEST}
    old = [
        e
        for e in scene.control.log(mark)
        if (e["host"], e["endpoint"]) in ((home(scene), "lan0"), (home(scene), "lan1"))
    ]
    assert old == []


@pytest.mark.full
def test_a_guest_that_somebody_moved_is_not_aimed_at_and_an_operator_has_a_way_out(scene: Scene) -> None:
    move(scene, spare(scene))
    mark = scene.control.mark()
    scene.control.call("hang", name=GUEST)
    assert eventually(lambda: any("rule=elsewhere" in line for line in gate_lines(scene, MOVER)), 60)
    assert resets(scene, mark) == set()
    repair = migrate_command(scene, "cfguest1", "-u", GUEST, spare(scene))
    assert repair.returncode != 0
    assert f"for {MOVER} to be back in the membership" in repair.stderr
    assert window(scene, "cfguest1").phase is Phase.IDLE
    # The way out: stop the domain by hand, on the host where it is.
    scene.control.call("stop", host=spare(scene), name=GUEST)
    assert eventually(lambda: unclean(scene, "cfguest1") == set(), 90), gate_lines(scene, MOVER)[-5:]
    # That every control domain shows it stopped is proof enough: nothing is left to kill, and nobody was.
    assert kills(scene, mark) == []
    assert resets(scene, mark) == set()
    assert eventually(lambda: service_runs_elsewhere(scene), 30), starts_and_stops(scene.lab)


@pytest.mark.full
def test_the_facility_of_one_node_can_be_stopped_and_its_gate_then_refuses(scene: Scene) -> None:
    for node in ("cfguest1", "cfguest3"):
        assert scene.run(node, "sdtool", "-e").ok
    states = {row["init_state"] for row in scene.states("cfguest1")["agents"]}
    assert states == {"UnInitWorked"}
    last = scene.run(MOVER, "sdtool", "-e")
    assert last.returncode == 1
    assert "last node whose shutdown facility runs" in last.stderr
    mark, said = scene.control.mark(), len(gate_lines(scene, "cfguest3"))
    scene.control.call("hang", name="guest3")
    assert eventually(lambda: scene.control.running("guest3") == [] or not scene.lab.alive("cfguest3"), 90)
    assert resets(scene, mark) == {"ctrl3"}
    answers = gate_lines(scene, "cfguest3")[said:]
    assert any("node=cfguest2" in line and "rule=clear" in line for line in answers), answers
    assert not any("node=cfguest1" in line and "rule=clear" in line for line in answers), answers
    assert scene.run("cfguest1", "sdtool", "-b").ok
    assert eventually(lambda: unclean(scene, "cfguest1") == set(), 60)


def test_of_all_nodes_that_stop_their_facility_at_once_one_is_refused(scene: Scene) -> None:
    nodes = scene.lab.nodes
    try:
        with ThreadPoolExecutor(len(nodes)) as pool:
            done = dict(
                zip(nodes, pool.map(lambda node: scene.run(node, "sdtool", "-e"), nodes), strict=True)
            )
        refused = [node for node, result in done.items() if not result.ok]
        assert len(refused) == 1, {node: result.stderr for node, result in done.items()}
        assert "last node whose shutdown facility runs" in done[refused[0]].stderr
        assert set(window(scene, refused[0]).stopped) == set(nodes) - set(refused)
    finally:
        for node in nodes:
            assert scene.run(node, "sdtool", "-b").ok
    assert window(scene, "cfguest1").stopped == ()


@pytest.mark.full
def test_sdtool_kills_a_node_through_its_service_processor_and_shows_it(scene: Scene) -> None:
    mark = scene.control.mark()
    assert scene.run("cfguest1", "sdtool", "-k", "cfguest1", "--yes").returncode == 1
    assert scene.run("cfguest1", "sdtool", "-k", "nobody", "--yes").returncode == 1
    assert kills(scene, mark) == []
    # The test before has closed a window: no member is killed for the settling time after one.
    tries: list[Result] = []

    def killed() -> bool:
        tries.append(scene.run("cfguest1", "sdtool", "-k", "cfguest3", "--yes", limit_seconds=120))
        return tries[-1].returncode == 0

    assert eventually(killed, SETTLE_SECONDS + 15.0), tries[-1].stderr
    done = tries[-1]
    assert {entry["hit"] for entry in kills(scene, mark)} == {"guest3"}
    assert resets(scene, mark) == {"ctrl3"}
    assert done.stdout.count("KillWorked") == 4
    assert scene.run("cfguest1", "sdtool", "-C").ok
    assert scene.run("cfguest1", "sdtool", "-r").ok
