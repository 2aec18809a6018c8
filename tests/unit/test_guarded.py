"""The fencing topology of a guarded window: one killing gate for the mover, and all as before afterwards."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from standfast.core import devices, guarded, topology
from standfast.core.devices import AGENTS, XscfNode

NODES = tuple(
    XscfNode(f"cfguest{n}", f"guest{n}", 0, f"10.20.30.7{n}", f"10.20.40.7{n}", "xuser", "ssh", n)
    for n in (1, 2, 3)
)


def cluster(count: int) -> ET.Element:
    nodes = "".join(f'<node id="{n + 1}" uname="cfguest{n + 1}"/>' for n in range(count))
    cib = ET.fromstring(
        '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" '
        f'admin_epoch="0"><configuration><crm_config/><nodes>{nodes}</nodes><resources/><constraints/>'
        "</configuration><status/></cib>"
    )
    for node in NODES[:count]:
        cib = devices.with_node(cib, node)
    return cib


def levels(cib: ET.Element, node: str) -> list[list[str]]:
    return [[device.id for device in level.devices] for level in topology.levels_for(cib, node)]


def stopped(cib: ET.Element) -> set[str]:
    return {
        primitive.get("id", "")
        for primitive in cib.iter("primitive")
        for pair in primitive.iterfind("./meta_attributes/nvpair")
        if (pair.get("name"), pair.get("value")) == ("target-role", "Stopped")
    }


def bans(cib: ET.Element, node: str) -> set[str]:
    return {
        found.get("rsc", "")
        for found in cib.iter("rsc_location")
        if found.get("node") == node and found.get("score") == "-INFINITY"
    }


def of(node: str) -> set[str]:
    return {identifier for agent in AGENTS for identifier in (agent.gate_id(node), agent.device_id(node))}


@pytest.mark.parametrize("count", [2, 3])
def test_the_mover_has_one_level_with_nothing_but_the_killing_gate(count: int) -> None:
    made = guarded.guard(cluster(count), "cfguest2")
    assert levels(made, "cfguest2") == [["kill-cfguest2"]]
    assert topology.devices(made)["kill-cfguest2"].agent == "fence_standfast"
    assert topology.devices(made)["kill-cfguest2"].parameters["guest"] == "guest2"
    assert levels(made, "cfguest1") == levels(cluster(count), "cfguest1")


def test_the_movers_own_devices_and_gates_are_stopped_and_nobody_elses() -> None:
    assert stopped(guarded.guard(cluster(3), "cfguest2")) == of("cfguest2")


def test_with_three_nodes_the_mover_executes_no_fencing_of_anybody() -> None:
    everything = of("cfguest1") | of("cfguest2") | of("cfguest3") | {"kill-cfguest2"}
    assert bans(guarded.guard(cluster(3), "cfguest2"), "cfguest2") == everything


def test_with_two_nodes_somebody_must_be_left_to_fence_the_other() -> None:
    assert bans(guarded.guard(cluster(2), "cfguest2"), "cfguest2") == of("cfguest2") | {"kill-cfguest2"}


@pytest.mark.parametrize("count", [2, 3])
def test_afterwards_the_configuration_is_as_before(count: int) -> None:
    before = cluster(count)
    after = guarded.unguard(guarded.guard(before, "cfguest2"), "cfguest2")
    assert devices.same_configuration(_sorted_levels(after), _sorted_levels(before))
    assert guarded.guarded(after) == frozenset()


def _sorted_levels(cib: ET.Element) -> ET.Element:
    found = cib.find("./configuration/fencing-topology")
    assert found is not None
    found[:] = sorted(found, key=lambda level: level.get("id", ""))
    return cib


def test_done_twice_it_is_the_same() -> None:
    once = guarded.guard(cluster(3), "cfguest2")
    assert devices.same_configuration(guarded.guard(once, "cfguest2"), once)
    assert guarded.whole(once, "cfguest2")
    assert not guarded.whole(cluster(3), "cfguest2")


@pytest.mark.parametrize(
    "taken",
    [
        "./configuration/resources/primitive[@id='kill-cfguest2']",
        "./configuration/fencing-topology/*[@id='fl-cfguest2-kill']",
    ],
)
def test_what_somebody_took_out_by_hand_is_seen_and_mended(taken: str) -> None:
    made = guarded.guard(cluster(3), "cfguest2")
    parent = made.find(taken + "/..")
    child = made.find(taken)
    assert parent is not None
    assert child is not None
    parent.remove(child)
    assert not guarded.whole(made, "cfguest2")
    assert guarded.guarded(made) == {"cfguest2"}
    assert guarded.whole(guarded.guard(made, "cfguest2"), "cfguest2")
    before = _sorted_levels(cluster(3))
    assert devices.same_configuration(_sorted_levels(guarded.unguard(made, "cfguest2")), before)


def test_a_users_own_target_role_stays_his_and_does_not_win() -> None:
    cib = cluster(2)
    device = next(p for p in cib.iter("primitive") if p.get("id") == AGENTS[0].device_id("cfguest2"))
    meta = ET.SubElement(device, "meta_attributes", {"id": "his"})
    ET.SubElement(meta, "nvpair", {"id": "his-role", "name": "target-role", "value": "Started"})
    made = guarded.guard(cib, "cfguest2")
    ours = made.find(".//meta_attributes[@id='standfast-parked-SA_xscfsnmpg0p-cfguest2']")
    assert ours is not None
    assert ours.get("score") == "INFINITY"
    assert guarded.unguard(made, "cfguest2").find(".//meta_attributes[@id='his']") is not None


def test_an_id_that_is_somebody_elses_is_named_and_nothing_is_made() -> None:
    cib = cluster(2)
    resources = cib.find("./configuration/resources")
    assert resources is not None
    values = {"id": "kill-cfguest2", "class": "ocf", "provider": "pacemaker", "type": "Dummy"}
    ET.SubElement(resources, "primitive", values)
    with pytest.raises(devices.ForeignError, match="kill-cfguest2"):
        guarded.guard(cib, "cfguest2")
    assert guarded.guarded(cib) == frozenset()


def test_a_node_without_agents_has_no_guarded_window() -> None:
    with pytest.raises(devices.NotRegisteredError, match="cfguest9"):
        guarded.guard(cluster(2), "cfguest9")
