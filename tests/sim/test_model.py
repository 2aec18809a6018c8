"""The model does what was measured of the engine, and the story's operator what is printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from standfast.core.messages import Message
from standfast.core.record import Phase
from standfast.core.steps import Stop
from standfast.sim import clocks
from standfast.sim.checkers import Checkers
from standfast.sim.node import Node
from standfast.sim.rules import Rules
from standfast.sim.store import Change, written
from standfast.sim.story import Story
from standfast.sim.world import World

LIMIT_MS = 20_000


def _worlds() -> list[World]:
    """Some of three nodes. Without a story nothing happens by itself, and here nobody is fenced."""
    found = [world for world in (World(seed, Rules()) for seed in range(1, 30)) if len(world.nodes) == 3]
    for world in found:
        for node in world.nodes.values():
            node.facility = "stopped"
    assert len(found) > 5
    return found


def _send(world: World, node: Node) -> list[str]:
    answers: list[str] = []
    change = written(node.cib.record.epoch, node.cib.record.next(owner=node.name))
    world.network.write(node, change, "a write", LIMIT_MS)(answers.append)
    return answers


def _barrier(world: World, node: Node) -> list[int]:
    """The epoch of the node's own copy when its barrier is answered ok."""
    epochs: list[int] = []

    def answered(answer: str) -> None:
        # The limit speaks too, later: a process hears the first answer only.
        if answer == "ok":
            epochs.append(node.cib.record.epoch)

    world.network.barrier(node, LIMIT_MS)(answered)
    return epochs


def _after(world: World, seconds: float) -> None:
    world.kernel.run(world.kernel.now_ms + int(seconds * 1000))


def _epochs(world: World) -> dict[str, int]:
    return {name: node.cib.record.epoch for name, node in world.nodes.items()}


def test_what_is_sent_in_a_stall_waits_in_its_senders_corosync_and_not_with_the_others() -> None:
    for world in _worlds():
        first, second, _third = world.nodes.values()
        second.stand("freeze", True)
        _after(world, 1)
        answers = _send(world, first)
        first.stand("freeze", True)
        _after(world, 200)
        assert _epochs(world) == {"n1": 1, "n2": 1, "n3": 1}
        first.stand("freeze", False)
        second.stand("freeze", False)
        _after(world, 60)
        assert _epochs(world) == {"n1": 2, "n2": 2, "n3": 2}
        assert answers


def test_what_a_dead_node_sent_in_a_stall_is_gone_with_it() -> None:
    for world in _worlds():
        first, second, _ = world.nodes.values()
        second.stand("freeze", True)
        _after(world, 1)
        _send(world, first)
        first.die()
        _after(world, 200)
        second.stand("freeze", False)
        _after(world, 200)
        assert set(_epochs(world).values()) == {1}


def test_who_slept_while_the_others_carried_out_its_write_has_it_in_its_own_copy_with_the_answer() -> None:
    carried = 0
    for world in _worlds():
        first = world.nodes["n1"]
        answers = _send(world, first)
        first.stand("freeze", True)
        _after(world, 60)
        if world.nodes["n2"].cib.record.epoch != 2:
            continue
        carried += 1
        assert first.cib.record.epoch == 1
        epochs = _barrier(world, first)
        first.stand("freeze", False)
        _after(world, 60)
        assert epochs == [2]
        assert answers
    assert carried > 2


def test_a_barrier_answers_when_the_nodes_own_writes_are_in_its_own_copy() -> None:
    for world in _worlds():
        node = world.nodes["n1"]
        _send(world, node)
        epochs = _barrier(world, node)
        _after(world, 1)
        assert epochs == [2]


def test_a_nodes_knowledge_of_a_window_begins_with_its_copy_and_anew_with_its_boot() -> None:
    world = _worlds()[0]
    node = world.nodes["n1"]
    open_record = replace(node.cib.record.next(), phase=type(node.cib.record.phase).OPEN, window=2)
    change: Change = written(1, open_record)
    _after(world, 50)
    answers: list[Any] = []
    world.network.write(node, change, "a window", LIMIT_MS)(answers.append)
    _after(world, 30)
    assert node.window == 2
    assert 29 < node.clock() - node.knows_since_s <= 30
    node.die()
    _after(world, 5)
    node.start()
    _after(world, 10)
    assert node.window == 2
    assert 9 < node.clock() - node.knows_since_s <= 10


def test_the_operator_types_the_command_that_a_refusal_prints() -> None:
    story = Story(_worlds()[0])

    def told(command: str) -> tuple[str, str] | None:
        found = story._told(Stop((Message("OTHER_GUEST", "", next_command=command),), unfinished=True))
        return (found[0].name, found[1]) if found is not None else None

    assert told("clovmmigrate -u g2 ctrl1") == ("g2", "ctrl1")
    assert told("ldm list-domain -o status g3 (on ctrl2); when it has ended: clovmmigrate -u g3 HOST") == (
        "g3",
        "",
    )
    assert told("clovmmigrate -u source-ldom target-host") is None
    assert story._told(None) is None


def test_a_window_in_a_damaged_copy_is_not_known_until_that_is_mended_and_then_goes_on() -> None:
    world = _worlds()[0]
    node = world.nodes["n1"]
    record = replace(node.cib.record.next(), phase=Phase.OPEN, window=2)
    whole = replace(node.cib, version=node.cib.version + 1, record=record)
    damaged = replace(whole, version=whole.version + 1, damage="damaged")
    node.delivered(node.ring, damaged)
    assert node.window == 0
    _after(world, 30)
    node.delivered(node.ring, replace(whole, version=damaged.version + 1))
    assert node.window == 2
    _after(world, 20)
    assert 19 < node.clock() - node.knows_since_s <= 20
    node.delivered(node.ring, replace(damaged, version=damaged.version + 2))
    _after(world, 10)
    node.delivered(node.ring, replace(whole, version=damaged.version + 3))
    assert 29 < node.clock() - node.knows_since_s <= 30


def test_a_guest_boots_not_in_a_blackout_but_after_it() -> None:
    for world in _worlds():
        guest = world.guest_of("n1")
        world.site.kill(guest, "panic")
        world.move(guest, "ctrl3", "moved", announced=False, blackout_ms=60_000)
        _after(world, 21)
        assert guest.in_blackout
        world.site.boot(guest)
        _after(world, 30)
        assert not guest.os_alive
        _after(world, 40)
        assert guest.os_alive
        assert (guest.host, world.nodes["n1"].up) == ("ctrl3", True)


def test_a_window_that_is_lost_as_two_halves_meet_is_not_replaced_by_a_later_one() -> None:
    def checkers() -> Checkers:
        check = Checkers()
        check.written(base=1, epoch=2, phase="closing", number=2, lease_s=60, writer="n2", standing=1)
        return check

    def next_window(check: Checkers) -> list[str]:
        check.written(base=2, epoch=3, phase="closing", number=3, lease_s=60, writer="n2", standing=2)
        return [one.code for one in check.found]

    assert next_window(checkers()) == ["S7"]
    lost = checkers()
    lost.overruled(epoch=2, phase="idle", number=0, lease_s=0)
    assert next_window(lost) == []
    other = checkers()
    other.overruled(epoch=2, phase="opening", number=1, lease_s=60)
    assert next_window(other) == ["S7"]
    announced = checkers()
    announced.announced(2, "n2", 60, 0, {}, in_store=2)
    announced.overruled(epoch=2, phase="idle", number=0, lease_s=0)
    assert next_window(announced) == ["S7"]


def test_what_two_halves_have_as_they_meet_is_told_to_the_checkers() -> None:
    world = _worlds()[0]
    world.network.side["n3"] = 1
    world.network.look()
    _after(world, 60)
    closing = replace(world.cib.record.next(), phase=Phase.CLOSING, window=2)
    small, main = world.nodes["n3"].ring, world.main_ring()
    assert main is not None
    assert main.members == {"n1", "n2"}
    world.network.commit(main, main.cib, replace(main.cib, version=5, record=closing), "n1", "a window", 10)
    assert world.check.open_number == 2
    small.cib = replace(small.cib, version=9)
    world.network.side["n3"] = 0
    world.network.look()
    _after(world, 60)
    assert len(world.nodes["n1"].ring.members) == 3
    assert world.check.open_number == 0
    assert world.overruled_ms > 60_000


# -- clocks that lag -----------------------------------------------------------------------------------------


def _lagging(monkeypatch: pytest.MonkeyPatch, never: float = 1.0) -> World:
    """Three nodes, of which n1 has just come out of a blackout of 20 s."""
    monkeypatch.setattr(clocks, "LAG_SHARE", 1.0)
    monkeypatch.setattr(clocks, "NEVER", never)
    world = _worlds()[0]
    _after(world, 20)
    world.move(world.guest_of("n1"), "ctrl3", "moved", announced=True, blackout_ms=20_000)
    while not world.guest_of("n1").resumed_ms >= 0:
        _after(world, 1)
    return world


def _out(world: World) -> dict[str, tuple[str, ...]]:
    return {name: node.reports[name].clocks_out for name, node in world.nodes.items()}


def test_a_clock_lags_by_its_blackout_until_somebody_sets_it_and_every_node_tells_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = _lagging(monkeypatch)
    _after(world, 35)
    assert _out(world) == {"n1": ("n2", "n3"), "n2": ("n1",), "n3": ("n1",)}
    assert -20.5 < world.nodes["n2"].reports["n2"].clocks["n1"] < -19.5
    assert world.clocks.apart(frozenset(world.nodes)) == ["n1"]
    assert world.clocks.apart(frozenset({"n2", "n3"})) == []
    _after(world, 3_600)
    assert _out(world)["n2"] == ("n1",)
    world.clocks.set_right("n1")
    _after(world, 20)
    assert _out(world) == {"n1": (), "n2": (), "n3": ()}
    offsets = world.nodes["n2"].reports["n2"].clocks
    assert set(offsets) == {"n1", "n3"}
    assert all(abs(offset) < 0.5 for offset in offsets.values())


def test_a_time_service_mends_it_after_a_while_and_a_boot_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _lagging(monkeypatch, never=0.0)
    _after(world, 300)
    assert world.clocks.behind_s == {}
    world = _lagging(monkeypatch)
    world.nodes["n1"].die()
    world.nodes["n1"].start()
    assert world.clocks.behind_s == {}


def test_a_closing_that_asks_is_answered_within_seconds_with_what_was_measured_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = _lagging(monkeypatch)
    _after(world, 60)
    node = world.nodes["n2"]
    record = replace(node.cib.record.next(), phase=Phase.CLOSING, mover="n1", window=2)
    record = replace(record, prove=record.epoch)
    answers: list[Any] = []
    world.network.write(node, written(record.epoch - 1, record), "asks", LIMIT_MS)(answers.append)
    _after(world, 0.2)
    assert all(report.clocks_at < record.epoch or not report.clocks for report in node.reports.values())
    _after(world, 4)
    for report in node.reports.values():
        assert report.clocks_at == record.epoch
        assert set(report.clocks) == set(world.nodes) - {report.node}
    assert node.reports["n3"].clocks_out == ("n1",)


def test_a_run_without_lagging_clocks_draws_nothing_of_them() -> None:
    for world in _worlds():
        state = world.clocks.rng.getstate()
        world.move(world.guest_of("n1"), "ctrl3", "moved", announced=True, blackout_ms=20_000)
        _after(world, 120)
        assert world.clocks.lag or world.clocks.rng.getstate() == state
