"""What a reload would make live. File and map are those of corosync 3.1.7, as read on a running node."""

from __future__ import annotations

from pathlib import Path

import pytest

from standfast.cluster import corosync_conf
from standfast.cluster.corosync_map import MAX_NAMED, Value, expected, unloaded
from standfast.core import heartbeat
from standfast.daemon.heartbeat_duty import converge

FILE = """totem {
  version: 2
  cluster_name: standfast
  transport: knet
  token: 4545
  token_coefficient: 0
  max_messages: 20
  nonsense_key: hello
  config_version: 3
  interface {
    linknumber: 0
    bindnetaddr: 10.88.0.0
    mcastport: 5405
    knet_link_priority: 2
    knet_transport: udp
    knet_ping_timeout: 60000
    odd: 4
  }
  consensus: 5455
}

nodelist {
  node {
    ring0_addr: 10.88.0.1
    name: cfguest1
    nodeid: 1
  }
  node {
    ring0_addr: 10.88.0.2
    name: cfguest2
    nodeid: 2
    quorum_votes: 1
    site: b
  }
}

quorum {
  provider: corosync_votequorum
  two_node: 1
  wait_for_all: 0
}

system {
  move_to_root_cgroup: no
}

logging {
  to_stderr: no
  logfile: /var/log/corosync/corosync.log
  logger_subsys {
    subsys: QUORUM
    debug: off
  }
}

uidgid {
  uid: 0
}
"""
MAP: dict[str, Value] = {
    "logging.logfile": "/var/log/corosync/corosync.log",
    "logging.logger_subsys.QUORUM.debug": "off",
    "logging.logger_subsys.QUORUM.subsys": "QUORUM",
    "logging.to_stderr": "no",
    "nodelist.local_node_pos": 0,
    "nodelist.node.0.name": "cfguest1",
    "nodelist.node.0.nodeid": 1,
    "nodelist.node.0.ring0_addr": "10.88.0.1",
    "nodelist.node.1.name": "cfguest2",
    "nodelist.node.1.nodeid": 2,
    "nodelist.node.1.quorum_votes": 1,
    "nodelist.node.1.ring0_addr": "10.88.0.2",
    "nodelist.node.1.site": "b",
    "quorum.provider": "corosync_votequorum",
    "quorum.two_node": 1,
    "quorum.wait_for_all": 0,
    "totem.cluster_name": "standfast",
    "totem.config_version": 3,
    "totem.consensus": 5455,
    "totem.interface.0.bindnetaddr": "10.88.0.1",
    "totem.interface.0.knet_link_priority": 2,
    "totem.interface.0.knet_ping_timeout": 60000,
    "totem.interface.0.knet_transport": "udp",
    "totem.interface.0.mcastport": 5405,
    "totem.interface.odd": "4",
    "totem.max_messages": 20,
    "totem.nonsense_key": "hello",
    "totem.token": 4545,
    "totem.token_coefficient": 0,
    "totem.transport": "knet",
    "totem.version": 2,
}


def test_a_file_that_was_loaded_differs_in_nothing() -> None:
    assert unloaded(FILE, MAP) == ()


@pytest.mark.parametrize("gone", ["nodelist.local_node_pos", "totem.interface.0.bindnetaddr"])
def test_what_a_reload_takes_out_of_the_map_is_no_difference(gone: str) -> None:
    """Both go with a reload, the first with one that failed, and the file is loaded all the same."""
    assert unloaded(FILE, {key: value for key, value in MAP.items() if key != gone}) == ()


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("    ring0_addr: 10.88.0.2\n", "    ring0_addr: 10.88.0.9\n", ("nodelist.node.1.ring0_addr",)),
        ("    quorum_votes: 1\n", "    quorum_votes: 2\n", ("nodelist.node.1.quorum_votes",)),
        ("    site: b\n", "", ("nodelist.node.1.site",)),
        ("  two_node: 1\n", "", ("quorum.two_node",)),
        ("  two_node: 1\n", "  two_node: yes\n", ("quorum.two_node",)),
        ("  two_node: 1\n", "  two_node: 1\n  expected_votes: 3\n", ("quorum.expected_votes",)),
        ("standfast\n", "other\n", ("totem.cluster_name",)),
        ("    knet_link_priority: 2\n", "", ("totem.interface.0.knet_link_priority",)),
        ("    linknumber: 0\n", "    linknumber: 1\n", ("totem.interface.0.knet_link_priority",)),
        ("    debug: off\n", "    debug: on\n", ("logging.logger_subsys.QUORUM.debug",)),
        ("  to_stderr: no\n", "", ("logging.to_stderr",)),
    ],
)
def test_what_was_edited_and_not_loaded_is_named(old: str, new: str, keys: tuple[str, ...]) -> None:
    assert old in FILE
    found = unloaded(FILE.replace(old, new), MAP)
    assert set(keys) <= set(found)
    if "linknumber" not in old:
        assert found == keys


def test_a_node_that_was_added_or_taken_away_is_named_by_its_keys() -> None:
    third = "  node {\n    ring0_addr: 10.88.0.3\n    name: cfguest3\n    nodeid: 3\n  }\n}\n\nquorum"
    assert unloaded(FILE.replace("}\n\nquorum", third), MAP) == (
        "nodelist.node.2.name",
        "nodelist.node.2.nodeid",
        "nodelist.node.2.ring0_addr",
    )
    start = FILE.index("  node {\n    ring0_addr: 10.88.0.2")
    less = FILE[:start] + FILE[FILE.index("}\n\nquorum") :]
    assert unloaded(less, MAP) == tuple(sorted(key for key in MAP if key.startswith("nodelist.node.1.")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  token: 4545\n", "  token: 1000\n"),
        ("  consensus: 5455\n", "  hold: 400\n"),
        ("    knet_ping_timeout: 60000\n", "    knet_ping_interval: 1000\n"),
        ("  move_to_root_cgroup: no\n", "  move_to_root_cgroup: yes\n"),
        ("  uid: 0\n", "  uid: root\n"),
        ("totem {\n", "# a comment\n\ntotem {\n"),
        ("  two_node: 1\n", "  two_node: 01\n"),
        ("    nodeid: 2\n", ""),
    ],
)
def test_the_heartbeat_and_what_the_map_cannot_tell_are_not_compared(old: str, new: str) -> None:
    assert old in FILE
    assert unloaded(FILE.replace(old, new), MAP) == ()


def test_later_statements_override_and_a_second_nodelist_begins_anew() -> None:
    text = "quorum {\n  votes: 1\n}\nquorum {\n  votes: 2\n}\n"
    assert expected(text) == {"quorum.votes": "2"}
    twice = "nodelist {\n  node {\n    name: a\n  }\n}\nnodelist {\n  node {\n    name: b\n  }\n}\n"
    assert expected(twice) == {"nodelist.node.0.name": "b"}


def test_many_differences_are_not_all_named() -> None:
    assert len(unloaded(FILE, {})) == MAX_NAMED


def test_a_broken_file_is_an_error() -> None:
    with pytest.raises(corosync_conf.CorosyncConfError):
        unloaded("totem {\n", MAP)


def test_a_look_at_the_file_tells_what_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "corosync.conf"
    path.write_text(FILE)
    runtime = heartbeat.expected_runtime({"token": "4545", "consensus": "5455"}, 2)
    assert converge(None, "cfguest1", runtime, path, MAP).unloaded == ()
    path.write_text(FILE.replace("two_node: 1", "two_node: 0"))
    assert converge(None, "cfguest1", runtime, path, MAP).unloaded == ("quorum.two_node",)
