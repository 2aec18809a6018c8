"""The membership is read from corosync's own map, and never guessed."""

from standfast.cluster.ring import Ring, parse

MAP = """nodelist.node.0.name (str) = n1
nodelist.node.0.nodeid (u32) = 1
nodelist.node.0.ring0_addr (str) = 10.0.0.1
nodelist.node.1.name (str) = n2
nodelist.node.1.nodeid (u32) = 12
runtime.members.1.config_version (u64) = 0
runtime.members.1.status (str) = joined
runtime.members.12.ip (str) = r(0) ip(10.0.0.2)
runtime.members.12.status (str) = joined
runtime.votequorum.this_node_id (u32) = 12
"""


def test_joined_nodes_are_members_under_their_names() -> None:
    assert parse(MAP) == Ring("n2", frozenset({"n1", "n2"}))


def test_a_node_that_left_is_no_member() -> None:
    text = MAP.replace("runtime.members.1.status (str) = joined", "runtime.members.1.status (str) = left")
    assert parse(text) == Ring("n2", frozenset({"n2"}))


def test_a_member_without_a_name_is_not_guessed() -> None:
    assert parse(MAP.replace("nodelist.node.0.name (str) = n1\n", "")) is None
    assert parse(MAP.replace("this_node_id (u32) = 12", "this_node_id (u32) = 7")) is None
    assert parse("") is None
