"""What a node has seen, by a clock that the test turns."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from standfast.core.record import Phase, Record
from standfast.sightings import (
    BREAK_SECONDS,
    LOCK_LIMIT_SECONDS,
    MAX_ENTRIES,
    PAUSE_SECONDS,
    PLAIN_BREAK_SECONDS,
    RING_DIR,
    RING_STEP,
    TURN_SECONDS,
    Sightings,
    boottime_seconds,
    read_boot_id,
    ring_number,
)

RECORD = Record(epoch=7, phase=Phase.OPEN, window=6)


class Node:
    """One node's file, its clock and its boot."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.boot = "boot-a"

    def process(self, lock_limit_seconds: float = LOCK_LIMIT_SECONDS) -> Sightings:
        """A new process on this node."""
        return Sightings(str(self.path), lambda: self.now, lambda: self.boot, lock_limit_seconds)

    def stamp(self) -> tuple[int, int]:
        """Changes with every write."""
        stat = self.path.stat()
        return stat.st_ino, stat.st_mtime_ns


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "standfast" / "sightings.json")


def test_what_one_process_saw_counts_for_the_next(node: Node) -> None:
    assert node.process().see(RECORD) == (0.0, 0.0)
    node.now += 12.5
    assert node.process().see(RECORD) == (12.5, 12.5)


def test_a_new_epoch_counts_anew_while_its_window_goes_on(node: Node) -> None:
    node.process().see(RECORD)
    node.now += 10
    assert node.process().see(replace(RECORD, epoch=8)) == (0.0, 10.0)
    node.now += 5
    assert node.process().see(replace(RECORD, epoch=8)) == (5.0, 15.0)
    assert node.process().see(replace(RECORD, epoch=9, window=9)) == (0.0, 0.0)


def test_nothing_new_is_nothing_written(node: Node) -> None:
    node.process().see(RECORD)
    before = node.stamp()
    node.now += 1
    seen = node.process()
    seen.see(RECORD)
    seen.see(RECORD)
    assert seen.seconds_since_return("n2") is None
    assert node.stamp() == before


def test_a_cib_that_went_back_counts_from_when_it_was_seen(node: Node) -> None:
    node.process().see(RECORD)
    node.now += 50
    assert node.process().see(replace(RECORD, epoch=2, window=2)) == (0.0, 0.0)
    node.now += 3
    assert node.process().see(replace(RECORD, epoch=2, window=2)) == (3.0, 3.0)


def test_only_the_newest_epoch_and_window_are_kept(node: Node) -> None:
    for epoch in range(20):
        node.now += 1
        node.process().see(replace(RECORD, epoch=epoch, window=epoch))
    assert sorted(json.loads(node.path.read_text())["seen"]) == ["epoch 19", "window 19"]


def test_a_long_lived_process_believes_a_newer_sighting_of_another_one(node: Node) -> None:
    daemon = node.process()
    daemon.see(RECORD)
    node.now += 50
    node.process().see(replace(RECORD, epoch=2))
    node.now += 1
    assert daemon.see(RECORD).epoch_seconds == 0.0


def test_a_file_that_vanished_is_written_again_with_what_the_process_knows(node: Node) -> None:
    daemon = node.process()
    daemon.see(RECORD)
    node.path.unlink()
    node.now += 20
    assert daemon.see(RECORD).epoch_seconds == 20.0
    assert node.process().see(RECORD).epoch_seconds == 20.0


def test_after_a_boot_everything_counts_anew(node: Node) -> None:
    seen = node.process()
    seen.see(RECORD)
    seen.returned("n2")
    seen.allowed("n2", "1")
    node.boot, node.now = "boot-b", 5.0
    after = node.process()
    assert after.see(RECORD) == (0.0, 0.0)
    assert after.seconds_since_return("n2") is None
    assert after.seconds_since_allowed("n2", "1") is None
    assert json.loads(node.path.read_text())["boot"] == "boot-b"


def test_a_return_and_a_fencing_are_known_by_node_and_level(node: Node) -> None:
    seen = node.process()
    assert seen.seconds_since_return("n2") is None
    seen.returned("n2")
    node.now += 2
    seen.allowed("n2", "1")
    node.now += 1
    other = node.process()
    assert other.seconds_since_return("n2") == 3.0
    assert other.seconds_since_return("n3") is None
    assert other.seconds_since_allowed("n2", "1") == 1.0
    assert other.seconds_since_allowed("n2", "2") is None
    assert other.seconds_since_allowed("n2") is None
    other.returned("n2")
    assert seen.seconds_since_return("n2") == 0.0


def test_who_was_away_at_the_last_look_has_come_back_at_this_one_whichever_process_looked(node: Node) -> None:
    node.process().back("n2")
    assert node.process().seconds_since_return("n2") is None
    node.process().away("n2")
    stamp = node.stamp()
    node.now += 60
    node.process().away("n2")
    assert node.stamp() == stamp
    node.process().back("n2")
    node.now += 5
    node.process().back("n2")
    assert node.process().seconds_since_return("n2") == 5.0
    node.process().away("n2")
    node.now += 1
    node.process().back("n2")
    assert node.process().seconds_since_return("n2") == 0.0
    assert node.process().seconds_since_return("n3") is None


def test_a_return_that_the_daemon_has_noted_is_not_counted_anew(node: Node) -> None:
    node.process().away("n2")
    node.now += 1
    node.process().returned("n2")
    node.now += 9
    node.process().back("n2")
    assert node.process().seconds_since_return("n2") == 9.0


def test_a_hold_is_known_to_the_next_call_by_its_target_until_the_next_boot(node: Node) -> None:
    assert node.process().seconds_since_held("n2") is None
    assert node.process().held("n2")
    node.now += 4
    assert node.process().seconds_since_held("n2") == 4.0
    assert node.process().seconds_since_held("n3") is None
    assert node.process().held("n2")
    assert node.process().seconds_since_held("n2") == 0.0
    node.boot = "boot-b"
    assert node.process().seconds_since_held("n2") is None


def test_a_hold_that_the_next_call_cannot_know_says_so(tmp_path: Path) -> None:
    (tmp_path / "standfast").write_text("a file where the folder should be")
    node = Node(tmp_path / "standfast" / "sightings.json")
    seen = node.process()
    assert not seen.held("n2")
    node.now += 1
    assert seen.seconds_since_held("n2") == 1.0
    assert node.process().seconds_since_held("n2") is None


def test_a_hold_without_a_boot_id_is_not_kept(node: Node) -> None:
    node.boot = ""
    assert not node.process().held("n2")
    assert node.process().seconds_since_held("n2") is None


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"format": 2, "boot": "boot-a", "seen": {"epoch 7": 1}}',
    b'{"format": 1, "boot": "boot-a", "seen": []}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": "x"}}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": null}}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": NaN}}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": 1e999}}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": -3}}',
    b'{"format": 1, "boot": "boot-a", "seen": {"epoch 7": 99999}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_counts_from_now_and_is_mended(node: Node, content: bytes) -> None:
    node.path.parent.mkdir()
    node.path.write_bytes(content)
    assert node.process().see(RECORD).epoch_seconds == 0.0
    node.now += 4
    assert node.process().see(RECORD).epoch_seconds == 4.0


def test_a_place_that_cannot_be_written_counts_from_now_within_the_process(tmp_path: Path) -> None:
    (tmp_path / "standfast").write_text("a file where the folder should be")
    node = Node(tmp_path / "standfast" / "sightings.json")
    seen = node.process()
    assert seen.see(RECORD) == (0.0, 0.0)
    seen.returned("n2")
    node.now += 3
    assert seen.see(RECORD) == (3.0, 3.0)
    assert seen.seconds_since_return("n2") == 3.0
    assert node.process().see(RECORD) == (0.0, 0.0)


def test_a_lock_that_is_never_released_costs_a_fifth_of_a_second(node: Node) -> None:
    import fcntl
    import time

    node.path.parent.mkdir()
    with open(f"{node.path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        assert node.process().see(RECORD).epoch_seconds == 0.0
        assert time.monotonic() - began < 2.0
    assert not node.path.exists()


def test_writers_at_the_same_time_lose_nothing(node: Node) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            node.process(lock_limit_seconds=60.0).returned(f"n{number}-{turn}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(node.path.read_text())["seen"]) == 40


def test_the_file_does_not_grow_for_ever_and_keeps_the_record(node: Node) -> None:
    node.process().see(RECORD)
    for number in range(MAX_ENTRIES + 40):
        node.now += 0.01
        node.process().returned(f"n{number}")
    seen = json.loads(node.path.read_text())["seen"]
    assert len(seen) <= MAX_ENTRIES + 2
    assert {"epoch 7", "window 6"} <= set(seen)
    node.now += 3601
    node.process().returned("n2")
    assert set(json.loads(node.path.read_text())["seen"]) == {"epoch 7", "window 6", "returned n2"}


def test_the_real_clock_and_boot_are_read() -> None:
    assert boottime_seconds() > 0
    assert len(read_boot_id()) == 36


# -- what counts only while it is seen again and again -------------------------------------------------------


def test_running_plainly_counts_while_it_is_noted_and_ends_with_the_first_gap(node: Node) -> None:
    assert node.process().seconds_plain("guest2", "ctrl2") is None
    for _ in range(10):
        node.process().plain("guest2", "ctrl2")
        node.now += 1
    assert node.process().seconds_plain("guest2", "ctrl2") == 10.0
    node.now += PLAIN_BREAK_SECONDS
    assert node.process().seconds_plain("guest2", "ctrl2") is None
    assert node.process().plain("guest2", "ctrl2") == 0.0


def test_running_plainly_on_another_host_is_another_story(node: Node) -> None:
    node.process().plain("guest2", "ctrl2")
    node.now += 2
    node.process().plain("guest2", "ctrl2")
    assert node.process().seconds_plain("guest2", "ctrl3") is None
    assert node.process().plain("guest2", "ctrl3") == 0.0


def test_a_drop_counts_from_its_first_sight_and_anew_after_a_time_without_one(node: Node) -> None:
    assert node.process().dropped("n2", quorate=True) == 0.0
    for seconds in (5, 10):
        node.now += 5
        assert node.process().dropped("n2", quorate=True) == seconds
    node.now += BREAK_SECONDS + 1  # nobody looked: it may have been back meanwhile
    assert node.process().dropped("n2", quorate=True) == 0.0


def test_a_drop_does_not_count_while_this_node_is_itself_cut_off(node: Node) -> None:
    for _ in range(100):
        assert node.process().dropped("n2", quorate=False) == 0.0
        node.now += 5
    assert node.process().dropped("n2", quorate=True) == 0.0
    node.now += 5
    assert node.process().dropped("n2", quorate=True) == 5.0


def test_a_drop_begins_anew_when_this_node_was_cut_off_in_between(node: Node) -> None:
    node.process().dropped("n2", quorate=True)
    for seconds, quorate, counted in ((4, True, 4.0), (2, False, 0.0), (2, True, 2.0), (4, True, 6.0)):
        node.now += seconds
        assert node.process().dropped("n2", quorate=quorate) == counted


def test_what_this_node_slept_through_does_not_count(node: Node) -> None:
    node.process().dropped("n2", quorate=True)
    node.now += PAUSE_SECONDS + 3
    assert node.process().dropped("n2", quorate=True) == PAUSE_SECONDS
    node.now += 1
    assert node.process().dropped("n2", quorate=True) == PAUSE_SECONDS + 1


def test_a_cancel_counts_from_the_first_one_of_the_same_absence(node: Node) -> None:
    node.process().dropped("n2", quorate=True)
    assert node.process().seconds_since_cancel("n2") is None
    node.now += 5
    node.process().cancelled("n2")
    node.now += 5
    node.process().dropped("n2", quorate=True)
    node.process().cancelled("n2")
    assert node.process().seconds_since_cancel("n2") == 5.0
    assert node.process().seconds_since_cancel("n3") is None
    node.now += BREAK_SECONDS + 1
    node.process().dropped("n2", quorate=True)  # it was back, and is away again
    assert node.process().seconds_since_cancel("n2") is None
    node.process().cancelled("n2")
    assert node.process().seconds_since_cancel("n2") == 0.0


def test_that_a_host_was_heard_since_it_was_called_dead_is_never_forgotten(node: Node) -> None:
    node.process().overtaken("ctrl1", 9)
    node.now += 50_000
    node.process().returned("n2")  # a write, which drops what is old
    node.process().overtaken("ctrl1", 9)
    assert node.process().is_overtaken("ctrl1", 9)
    assert not node.process().is_overtaken("ctrl1", 12)  # said again: counts again
    assert not node.process().is_overtaken("ctrl2", 9)


def test_holding_as_the_mover_is_counted_where_it_runs(node: Node) -> None:
    assert node.process().held_as_mover("n1", "ctrl2") == 0.0
    node.now += 5
    assert node.process().held_as_mover("n1", "ctrl2") == 5.0
    assert node.process().held_as_mover("n1", "ctrl3") == 0.0


def test_what_one_process_noted_goes_on_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    now = [100.0]
    lone = Sightings("/proc/standfast/sightings.json", lambda: now[0], lambda: "boot-a")
    lone.dropped("n2", quorate=True)
    now[0] += 3
    assert lone.dropped("n2", quorate=True) == 3.0


def test_the_absence_past_a_lease_counts_as_a_drop_does_and_apart_from_it(node: Node) -> None:
    """The killing gate's limits begin with the arming, not before it."""
    assert node.process().absent("n2", quorate=True) == 0.0
    for seconds in (5, 10):
        node.now += 5
        assert node.process().absent("n2", quorate=True) == seconds
    assert node.process().dropped("n2", quorate=True) == 0.0
    node.now += PAUSE_SECONDS + 3
    assert node.process().absent("n2", quorate=True) == 10 + PAUSE_SECONDS
    assert node.process().absent("n2", quorate=False) == 0.0
    node.now += 1
    assert node.process().absent("n2", quorate=True) == 1.0


ALL = ("n1", "n2", "n3")


def at_home(node: Node) -> None:
    """It has long been in ring 20 of all three."""
    node.process().met(20, ALL)
    node.now += 600
    assert node.process().met(20, ALL) == 600


def test_the_first_ring_that_a_boot_knows_counts_as_just_met(node: Node) -> None:
    assert node.process().met(20, ALL) == 0.0
    node.now += 3
    assert node.process().met(20, ALL) == 3.0


def test_the_next_ring_with_a_member_less_is_a_plain_loss(node: Node) -> None:
    at_home(node)
    assert node.process().met(20 + RING_STEP, ("n1", "n2")) == 600
    assert node.process().met(20 + 2 * RING_STEP, ("n1",)) == 600


@pytest.mark.parametrize(
    ("number", "members"),
    [
        (20 + 2 * RING_STEP, ("n1", "n2")),  # one ring was missed
        (20 + 2 * RING_STEP, ALL),
        (20 + RING_STEP, ("n1", "n2", "n4")),  # somebody new
        (20 - RING_STEP, ("n1", "n2")),  # an older one: nobody knows how
        (-1, ALL),  # being written
        (20, ("n1", "n2", "n3", "n4")),  # the engine sees later than corosync who is there
    ],
)
def test_any_other_new_ring_may_have_met_somebody(node: Node, number: int, members: tuple[str, ...]) -> None:
    at_home(node)
    assert node.process().met(number, members) == 0.0
    node.now += 2
    assert node.process().met(number, members) == 2.0


@pytest.mark.parametrize(
    ("number", "members", "back"),
    [
        (20 + RING_STEP, ("n1", "n2"), ()),  # a plain loss
        (20 + RING_STEP, ("n1", "n2", "n4"), ("n4",)),
        (20, (*ALL, "N4"), ("N4",)),  # the engine sees later than corosync who is there, and names it so
        (20 + 2 * RING_STEP, ALL, ALL),  # somebody was away in between, and nobody here looked
        (20 + 5 * RING_STEP, ("n1", "n3"), ("n1", "n3")),
    ],
)
def test_who_may_have_come_back_in_a_new_ring_has_returned(
    node: Node, number: int, members: tuple[str, ...], back: tuple[str, ...]
) -> None:
    at_home(node)
    assert all(node.process().seconds_since_return(name) is None for name in members)
    node.process().met(number, members)
    node.now += 5
    seen = {name: node.process().seconds_since_return(name) for name in members}
    assert seen == {name: 5 if name in back else None for name in members}


def test_who_was_alone_and_meets_the_others_has_met_them(node: Node) -> None:
    """As measured: a node that has slept is alone for about 2 s, in a ring of its own."""
    at_home(node)
    node.process().met(20 + 2 * RING_STEP, ("n1",))
    node.now += 30
    assert node.process().met(20 + 3 * RING_STEP, ("n1",)) == 0.0  # the engine still has the old members
    node.now += 0.2
    assert node.process().met(20 + 3 * RING_STEP, ("n1", "n2")) == 0.0
    node.now += 4
    assert node.process().met(20 + 3 * RING_STEP, ("n1", "n2")) == 4.0


def test_a_loss_that_the_engine_sees_a_moment_later_is_still_one(node: Node) -> None:
    at_home(node)
    assert node.process().met(20 + RING_STEP, ALL) == 0.0
    node.now += 0.1
    assert node.process().met(20 + RING_STEP, ("n1", "n2")) == 600.1


def test_the_same_members_in_a_new_ring_have_met(node: Node) -> None:
    at_home(node)
    node.process().met(20 + RING_STEP, ALL)
    node.now += TURN_SECONDS
    assert node.process().met(20 + RING_STEP, ALL) == 0.0
    node.now += 7
    assert node.process().met(20 + RING_STEP, ALL) == 7.0


def test_two_ways_of_writing_the_members_do_not_hold_for_ever(node: Node) -> None:
    node.process().met(20, ("n1", "n2"))
    node.process().met(20, ("n1.example", "n2.example"))
    node.now += 9
    assert node.process().met(20, ("N1", "n2")) == 9.0
    assert node.process().met(20, ("n1.example", "n2.example")) == 9.0


def test_the_number_of_the_ring_is_read_from_the_newest_file(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert ring_number(root) is None
    folder = tmp_path / RING_DIR.lstrip("/")
    folder.mkdir(parents=True)
    assert ring_number(root) is None
    old, new = folder / "ringid_1", folder / "ringid_3"
    old.write_bytes((400).to_bytes(8, sys.byteorder))
    new.write_bytes((25).to_bytes(8, sys.byteorder))
    (folder / "other").write_text("x")
    os.utime(old, (1, 1))
    assert ring_number(root) == 25
    new.write_bytes(b"")
    assert ring_number(root) == -1


def test_a_node_that_was_alive_while_no_host_ran_its_guest_is_known_until_one_shows_it(node: Node) -> None:
    assert not node.process().is_unlisted("n2")
    node.process().listed("n2")
    assert not node.process().is_unlisted("n2")
    node.process().unlisted("n2")
    node.now += 600
    assert node.process().is_unlisted("n2")
    assert not node.process().is_unlisted("n3")
    node.process().listed("n2")
    assert not node.process().is_unlisted("n2")
    node.now += 1
    node.process().unlisted("n2")
    assert node.process().is_unlisted("n2")
    written = node.path.read_text()
    node.now += 20
    node.process().unlisted("n2")
    assert node.path.read_text() == written, "only a change is written"
    for _ in range(6):
        node.now += 1200
        node.process().unlisted("n2")
    assert node.process().is_unlisted("n2"), "and what would be forgotten"
