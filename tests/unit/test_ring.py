"""The membership is read from corosync's own map, and never guessed."""

from standfast.cluster.ring import Ring, parse

MAP: dict[str, int | str] = {
    "nodelist.node.0.name": "n1",
    "nodelist.node.0.nodeid": 1,
    "nodelist.node.0.ring0_addr": "10.0.0.1",
    "nodelist.node.1.name": "n2",
    "nodelist.node.1.nodeid": 12,
    "runtime.members.1.config_version": 0,
    "runtime.members.1.status": "joined",
    "runtime.members.12.ip": "r(0) ip(10.0.0.2)",
    "runtime.members.12.status": "joined",
    "runtime.votequorum.this_node_id": 12,
}


def test_joined_nodes_are_members_under_their_names() -> None:
    assert parse(MAP) == Ring("n2", frozenset({"n1", "n2"}))


def test_a_node_that_left_is_no_member() -> None:
    assert parse(MAP | {"runtime.members.1.status": "left"}) == Ring("n2", frozenset({"n2"}))


def test_a_member_without_a_name_is_not_guessed() -> None:
    assert parse({key: value for key, value in MAP.items() if key != "nodelist.node.0.name"}) is None
    assert parse(MAP | {"runtime.votequorum.this_node_id": 7}) is None
    assert parse({}) is None
