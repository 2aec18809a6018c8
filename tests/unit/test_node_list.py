"""A node list that was changed in a window stays where it is live everywhere; else it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driver import Command, codes, drive
from fake_cluster import CLOSE, OPEN, FakeCluster, Node

from standfast.core import heartbeat, lowering, members
from standfast.core.evidence import GuestState
from standfast.core.record import Phase, Totem
from standfast.core.steps import Decision, Done, Stop, WriteRecord

OLD = ("n1 nodeid=1", "n2 nodeid=2", "n3 nodeid=3")
NEW = (*OLD, "n4 nodeid=4")


def window(base: dict[str, str] | None = None) -> FakeCluster:
    """An open window of three nodes, in which g2 has moved."""
    cluster = FakeCluster(3) if base is None else FakeCluster(3, base=base)
    for node in cluster.nodes.values():
        node.nodes = OLD
    cluster.sync()
    assert isinstance(drive(cluster, OPEN), Done)
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    return cluster


def listed(cluster: FakeCluster, *names: str, nodes: tuple[str, ...] = NEW) -> None:
    """These nodes have another node list in their files."""
    for name in names:
        cluster.nodes[name].nodes = nodes
        cluster.nodes[name].structure = f"with {len(nodes)} nodes"
    cluster.sync()


def refusal(decision: Decision | None) -> tuple[str, str]:
    """Text and next command of the one message."""
    assert isinstance(decision, Stop), decision
    (message,) = decision.messages
    assert (message.code, decision.unfinished) == ("CONF_CHANGED", True)
    return message.text, message.next_command


def warned(decision: Decision | None, cluster: FakeCluster) -> str:
    """The closing is done; the line with which it became idle."""
    assert isinstance(decision, Done), decision
    assert cluster.record.phase is Phase.IDLE
    return [line for line in cluster.log if "the gate is armed" in line][-1]


def test_a_node_list_that_every_member_has_and_runs_stays_and_the_old_values_come_back() -> None:
    before = FakeCluster(3).facts()
    cluster = window()
    listed(cluster, "n1", "n2", "n3")
    assert "all as before but the node list" in warned(drive(cluster, CLOSE), cluster)
    assert cluster.facts() == before


def test_the_warning_names_the_nodes() -> None:
    cluster = window()
    listed(cluster, "n1", "n2", "n3")
    command, found = Command(cluster, CLOSE, "n1"), []
    for _ in range(200):
        step = command.look()
        if isinstance(step, Done):
            break
        found += list(step.warnings) if isinstance(step, WriteRecord) else []
        command.act(step)
    (warning,) = found
    assert (warning.code, warning.severity.value) == ("NODES_CHANGED", "warning")
    assert "as every member has it now (n1, n2, n3, n4)" in warning.text


def test_a_window_in_which_nobody_edited_warns_of_nothing() -> None:
    cluster = window()
    assert "all as before: the gate" in warned(drive(cluster, CLOSE), cluster)


def test_a_node_list_that_only_some_have_is_refused_until_all_have_it() -> None:
    cluster = window()
    listed(cluster, "n1", "n2")
    text, typed = refusal(drive(cluster, CLOSE))
    assert text == (
        "the node list of n1, n2 was changed while the window was open, but that of n1 and that of n3 are "
        "not the same"
    )
    assert "corosync-cfgtool -R, then clovmmigrate -u g2 ctrl3" in typed
    assert all(node.keys == heartbeat.raised(600) for node in cluster.nodes.values())
    listed(cluster, "n3")
    assert "but the node list" in warned(drive(cluster, CLOSE), cluster)


def test_a_node_list_that_is_not_loaded_is_refused_until_it_is() -> None:
    cluster = window()
    listed(cluster, "n1", "n2", "n3")
    cluster.nodes["n3"].unloaded = ("nodelist.node.3.name",)
    text, _ = refusal(drive(cluster, CLOSE))
    assert text.endswith("but corosync of n3 has not loaded it: nodelist.node.3.name")
    cluster.nodes["n3"].unloaded = ()
    assert isinstance(drive(cluster, CLOSE), Done)


def test_it_can_be_put_back_too() -> None:
    cluster = window()
    listed(cluster, "n1")
    refusal(drive(cluster, CLOSE))
    cluster.nodes["n1"].nodes, cluster.nodes["n1"].structure = OLD, "s"
    assert "all as before: the gate" in warned(drive(cluster, CLOSE), cluster)


def test_any_other_change_is_refused_whatever_the_node_list_is() -> None:
    cluster = window()
    listed(cluster, "n1", "n2", "n3")
    cluster.nodes["n2"].rest = "two_node"
    text, typed = refusal(drive(cluster, CLOSE))
    assert text.startswith("corosync.conf of n2 was changed by hand while the window was open")
    assert typed == "put /etc/corosync/corosync.conf back (on n2), then clovmmigrate -u g2 ctrl3"


def test_in_a_window_of_an_older_version_every_change_is_refused() -> None:
    cluster = window()
    old = {name: replace(beat, rest="") for name, beat in cluster.record.old.items()}
    cluster.record = cluster.record.next(old=old)
    listed(cluster, "n1", "n2", "n3")
    assert codes(drive(cluster, CLOSE)) == ["CONF_CHANGED"]


@pytest.mark.parametrize("stage", [Totem.EXPLICIT, Totem.ORIGINAL])
def test_no_reload_follows_an_edit_in_the_last_moment(stage: Totem) -> None:
    cluster = window()
    command = Command(cluster, CLOSE, "n1")
    for _ in range(200):
        if cluster.record.phase is Phase.CLOSING and cluster.record.aimed and cluster.record.totem is stage:
            break
        command.act(command.look())
    listed(cluster, "n2")
    reloads = len([line for line in cluster.log if line.startswith("Reload")])
    refusal(drive(cluster, CLOSE))
    assert len([line for line in cluster.log if line.startswith("Reload")]) == reloads


def test_a_node_that_was_added_makes_the_token_longer_as_its_file_says() -> None:
    """Without token_coefficient corosync adds 650 ms for each node after the second."""
    base = {"token": "10000"}
    cluster = window(base)
    cluster.nodes["n4"] = Node({}, {}, nodes=NEW)
    cluster.nodes["n4"].keys, cluster.nodes["n4"].runtime = (
        dict(cluster.nodes["n1"].keys),
        dict(cluster.nodes["n1"].runtime),
    )
    cluster.count = 4
    listed(cluster, "n1", "n2", "n3", "n4")
    assert isinstance(drive(cluster, CLOSE), Done)
    assert [node.keys for node in cluster.nodes.values()] == [base] * 4
    assert {node.runtime["token"] for node in cluster.nodes.values()} == {11300}


def test_a_member_that_does_not_report_its_node_list_is_named() -> None:
    cluster = window()
    listed(cluster, "n1", "n2", "n3")
    cluster.nodes["n4"] = Node(dict(cluster.nodes["n1"].keys), dict(cluster.nodes["n1"].runtime), deaf=True)
    found = lowering.edited(cluster.snapshot("n1"), cluster.record, CLOSE)
    assert found == members.silent("n4")
