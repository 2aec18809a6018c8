"""A node's corosync.conf follows the record, comes back byte for byte, and is otherwise the operator's."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from standfast.cluster import corosync_conf
from standfast.core import heartbeat
from standfast.core.owed import Debt
from standfast.core.record import OldHeartbeat, Phase, Record, Totem
from standfast.daemon.heartbeat_duty import converge

CONF = """totem {
  version: 2
  # ours is below
  token: 4545
  consensus: 5455
  transport: knet
}
nodelist {
  node {
    name: n1
    nodeid: 1
    ring0_addr: 10.0.0.1
  }
}
"""
RUNTIME = heartbeat.expected_runtime({"token": "4545", "consensus": "5455"}, 2)
OLD = {"n1": OldHeartbeat({"token": "4545", "consensus": "5455"}, RUNTIME, "x")}
RAISED = Record(epoch=3, phase=Phase.OPEN, totem=Totem.RAISED, budget_seconds=600, old=OLD)
EXPLICIT = dataclasses.replace(RAISED, phase=Phase.CLOSING, totem=Totem.EXPLICIT)
ORIGINAL = dataclasses.replace(RAISED, phase=Phase.CLOSING, totem=Totem.ORIGINAL)
IDLE = dataclasses.replace(ORIGINAL, phase=Phase.IDLE)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "corosync.conf"
    path.write_text(CONF)
    return path


def keys(path: Path) -> dict[str, str]:
    return corosync_conf.read_keys(path.read_text())


def test_a_whole_window_leaves_not_one_byte(conf: Path) -> None:
    assert converge(RAISED, "n1", RUNTIME, conf).changed
    assert keys(conf) == heartbeat.raised(600)
    assert converge(EXPLICIT, "n1", RUNTIME, conf).changed
    assert keys(conf) == heartbeat.explicit(RUNTIME)
    state = converge(ORIGINAL, "n1", RUNTIME, conf)
    assert state.changed
    assert state.debt is Debt.NONE
    assert conf.read_text() == CONF


def test_an_opening_raises_nothing_in_a_part_of_the_cluster_and_its_end_leaves_that_file_alone(
    conf: Path,
) -> None:
    """The store of the other part may win when they meet: then nobody knows what the file was."""
    old = OLD | {"n2": OLD["n1"]}
    opening = dataclasses.replace(RAISED, phase=Phase.OPENING, old=old)
    aborted = dataclasses.replace(EXPLICIT, abort=True, old=old)
    alone, both = frozenset({"n1"}), frozenset({"n1", "n2", "n3"})
    for record in (opening, aborted, dataclasses.replace(aborted, totem=Totem.ORIGINAL)):
        assert not converge(record, "n1", RUNTIME, conf, membership=alone).changed
    assert conf.read_text() == CONF
    assert converge(opening, "n1", RUNTIME, conf, membership=both).changed
    assert converge(aborted, "n1", RUNTIME, conf, membership=alone).changed
    assert keys(conf) == heartbeat.explicit(RUNTIME)


def test_a_window_that_is_open_is_kept_in_a_part_of_the_cluster_too(conf: Path) -> None:
    assert converge(RAISED, "n1", RUNTIME, conf, membership=frozenset()).changed
    assert keys(conf) == heartbeat.raised(600)


@pytest.mark.parametrize(
    "own",
    [
        "  interface {\n    linknumber: 0\n    knet_pong_count: 3   \n    knet_transport: udp\n  }\n",
        "  interface {\n\tknet_ping_timeout:60000\n    # why\n  }\n",
        "  token: 4545\n  hold: 400\n  token_coefficient: 650\n",
        "".join(
            f"  {key.split('.')[-1]}: {value}\n" for key, value in list(heartbeat.raised(600).items())[:5]
        ),
    ],
    ids=["pong count", "block without number", "twice", "raised already"],
)
def test_keys_of_the_users_own_come_back_byte_for_byte(conf: Path, own: str) -> None:
    text = CONF.replace("  transport: knet\n", f"  transport: knet\n{own}")
    conf.write_text(text)
    old = {"n1": OldHeartbeat(keys(conf), heartbeat.expected_runtime(keys(conf), 2), "x")}
    for record in (RAISED, EXPLICIT, ORIGINAL):
        assert converge(dataclasses.replace(record, old=old), "n1", RUNTIME, conf).error == ""
    assert conf.read_text() == text


def test_the_structure_is_the_same_whatever_our_keys_are(conf: Path) -> None:
    before = converge(None, "n1", RUNTIME, conf).structure
    assert converge(RAISED, "n1", RUNTIME, conf).structure == before
    conf.write_text(conf.read_text().replace("10.0.0.1", "10.0.0.9"))
    assert converge(RAISED, "n1", RUNTIME, conf).structure != before


@pytest.mark.parametrize("record", [None, Record.fresh(), IDLE])
def test_without_a_window_the_file_is_not_touched(conf: Path, record: Record | None) -> None:
    text = CONF.replace("token: 4545", "token: 9000")
    conf.write_text(text)
    state = converge(record, "n1", RUNTIME, conf)
    assert (state.changed, state.error) == (False, "")
    assert conf.read_text() == text


OWING = dataclasses.replace(Record.fresh(), owed=OLD)
RAISED_RUNTIME = heartbeat.expected_runtime(heartbeat.raised(600), 1)


def test_a_node_that_was_away_goes_the_way_of_a_closing_and_waits_for_each_reload(conf: Path) -> None:
    converge(RAISED, "n1", RAISED_RUNTIME, conf)
    for _ in range(2):  # not before the values run
        assert converge(OWING, "n1", RAISED_RUNTIME, conf).debt is Debt.RELOAD
        assert keys(conf) == heartbeat.explicit(RUNTIME)
    state = converge(OWING, "n1", RUNTIME, conf)
    assert (state.changed, state.debt) == (True, Debt.RELOAD)
    assert conf.read_text() == CONF
    assert converge(OWING, "n1", RAISED_RUNTIME, conf).debt is Debt.RELOAD
    assert converge(OWING, "n1", RUNTIME, conf).debt is Debt.PAID


@pytest.mark.parametrize("left", [RAISED, EXPLICIT])
def test_values_of_the_operators_own_stay_though_a_window_once_had_the_same(conf: Path, left: Record) -> None:
    converge(left, "n1", RUNTIME, conf)
    text = conf.read_text()
    for record in (IDLE, dataclasses.replace(IDLE, owed={"n2": OLD["n1"]})):
        assert not converge(record, "n1", RUNTIME, conf).changed
    assert conf.read_text() == text


def test_a_file_that_somebody_edited_since_is_said_and_not_touched(conf: Path) -> None:
    converge(RAISED, "n1", RUNTIME, conf)
    conf.write_text(conf.read_text().replace("272727", "5000"))
    text = conf.read_text()
    assert converge(OWING, "n1", RUNTIME, conf).debt is Debt.FOREIGN
    assert conf.read_text() == text


def test_a_node_that_joined_in_mid_window_gets_the_others_values(conf: Path) -> None:
    converge(RAISED, "n9", RUNTIME, conf)
    assert keys(conf) == heartbeat.raised(600)
    converge(ORIGINAL, "n9", RUNTIME, conf)
    assert keys(conf) == OLD["n1"].file_keys


def test_a_file_that_cannot_be_read_or_written_is_said_and_never_raised(conf: Path) -> None:
    conf.write_text("totem {\n")
    assert "corosync.conf" in converge(RAISED, "n1", RUNTIME, conf).error
    conf.unlink()
    assert "corosync.conf" in converge(RAISED, "n1", RUNTIME, conf).error


def test_a_read_only_file_is_said_before_a_window_needs_it(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "read-only" in converge(Record.fresh(), "n1", RUNTIME, conf).error
