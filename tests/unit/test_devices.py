"""A node's XSCF data in the CIB: what is made, what is refused, and that nothing is left afterwards."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standfast.core import devices, fields, record, topology
from standfast.core.devices import AGENTS, XscfNode
from standfast.core.steps import HostEntry

ONE = XscfNode("cfguest1", "guest1", 0, "10.20.30.71", "10.20.40.71", "xuser", "ssh")
TWO = XscfNode("cfguest2", "guest2", 0, "10.20.30.72", "10.20.40.72", "xuser", "telnet", 4)
OPTIONS = '<cluster_property_set id="cib-bootstrap-options">{}</cluster_property_set>'


def cib(
    crm_config: str = OPTIONS.format(""), resources: str = "", constraints: str = "", more: str = ""
) -> ET.Element:
    return ET.fromstring(
        '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" '
        'admin_epoch="0">'
        f"<configuration><crm_config>{crm_config}</crm_config><nodes>"
        '<node id="1" uname="cfguest1"/><node id="2" uname="cfguest2"/></nodes>'
        f"<resources>{resources}</resources><constraints>{constraints}</constraints>{more}</configuration>"
        "<status/></cib>"
    )


def level(identifier: str, target: str) -> str:
    """A section with one level that set-up did not make; `target` is the attribute that says whose it is."""
    made = f'<fencing-level id="{identifier}" {target} index="1" devices="st"/>'
    return f"<fencing-topology>{made}</fencing-topology>"


def option(identifier: str, name: str, value: str) -> str:
    return f'<nvpair id="{identifier}" name="{name}" value="{value}"/>'


STRANGER = '<primitive id="st" class="stonith" type="fence_dummy"/>'
DUMMY = '<primitive id="{}" class="ocf" provider="pacemaker" type="Dummy"/>'


def both(start: ET.Element) -> ET.Element:
    return devices.with_node(devices.with_node(start, ONE), TWO)


def parameters(root: ET.Element, identifier: str) -> dict[str, str]:
    return devices.parameters_of(root, identifier)


def test_what_is_registered_is_read_back_in_order() -> None:
    assert devices.registered(both(cib())) == (ONE, TWO)
    assert devices.registered(cib()) == ()


def test_the_four_agents_stand_in_the_documented_order_each_behind_its_own_gate() -> None:
    levels = topology.levels_for(both(cib()), "cfguest2")
    assert [[device.id for device in level.devices] for level in levels] == [
        ["gate-cfguest2-1", "SA_xscfsnmpg0p-cfguest2"],
        ["gate-cfguest2-2", "SA_xscfsnmpg1p-cfguest2"],
        ["gate-cfguest2-3", "SA_xscfsnmpg0r-cfguest2"],
        ["gate-cfguest2-4", "SA_xscfsnmpg1r-cfguest2"],
    ]
    assert all(level.guarded for level in levels)


def test_each_agent_has_its_lan_and_its_way_to_kill_and_only_the_path_of_the_secret() -> None:
    made = both(cib())
    assert parameters(made, "SA_xscfsnmpg0p-cfguest2") == {
        "pcmk_host_list": "cfguest2",
        "pcmk_off_retries": "1",
        "pcmk_reboot_retries": "1",
        "pcmk_off_timeout": "75s",
        "pcmk_reboot_timeout": "75s",
        "login_timeout": "10",
        "shell_timeout": "5",
        "power_timeout": "30",
        "ip": "10.20.30.72",
        "username": "xuser",
        "ppar_id": "0",
        "domain": "guest2",
        "connection": "telnet",
        "kill": "panic",
        "password_file": "/etc/standfast/secrets/xscf-cfguest2",
    }
    others = [parameters(made, agent.device_id("cfguest2")) for agent in AGENTS[1:]]
    assert [(other["ip"], other["kill"]) for other in others] == [
        ("10.20.40.72", "panic"),
        ("10.20.30.72", "sir"),
        ("10.20.40.72", "sir"),
    ]


def test_every_device_and_gate_is_banned_from_its_own_node() -> None:
    made = both(cib())
    bans = {
        ban.get("rsc"): ban.get("node")
        for ban in made.iter("rsc_location")
        if ban.get("score") == "-INFINITY"
    }
    assert bans == {
        primitive.get("id"): primitive.get("id", "").split("-")[1] for primitive in made.iter("primitive")
    }
    assert len(bans) == 16


@pytest.mark.parametrize(("weight", "delay"), [(1, None), (2, "1s"), (11, "10s"), (12, "10s"), (100, "10s")])
def test_the_weight_is_a_head_start_of_a_second_a_point_at_most_ten(weight: int, delay: str | None) -> None:
    made = devices.with_node(cib(), replace(ONE, weight=weight))
    gates = [parameters(made, agent.gate_id("cfguest1")) for agent in AGENTS]
    assert [gate.get("pcmk_delay_base") for gate in gates] == [delay, None, None, None]
    assert {gate["weight"] for gate in gates} == {str(weight)}
    assert {(gate["pcmk_off_retries"], gate["pcmk_reboot_retries"]) for gate in gates} == {("1", "1")}


def test_a_change_back_to_weight_one_takes_the_head_start_away() -> None:
    heavy = devices.with_node(cib(), replace(ONE, weight=9))
    light = devices.with_node(heavy, ONE)
    assert "pcmk_delay_base" not in parameters(light, "gate-cfguest1-1")
    assert devices.registered(light) == (ONE,)


def test_the_input_is_never_changed() -> None:
    start = both(cib())
    text = ET.tostring(start)
    devices.with_node(start, replace(ONE, lan0="10.20.30.99"))
    devices.reaim(start, "cfguest2", HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 1))
    devices.without_node(start, "cfguest1")
    assert ET.tostring(start) == text


def test_a_change_touches_neither_levels_nor_order_nor_what_the_user_added() -> None:
    start = both(cib())
    device = next(p for p in start.iter("primitive") if p.get("id") == "SA_xscfsnmpg0p-cfguest1")
    tuned = next(pair for pair in device[0] if pair.get("name") == "pcmk_off_timeout")
    tuned.set("value", "40s")
    ET.SubElement(device[0], "nvpair", {"id": "mine", "name": "pcmk_monitor_timeout", "value": "50s"})
    changed = devices.with_node(start, replace(ONE, lan0="10.20.30.99", ppar_id=3))
    assert parameters(changed, "SA_xscfsnmpg0p-cfguest1")["pcmk_off_timeout"] == "40s"
    assert parameters(changed, "SA_xscfsnmpg0p-cfguest1")["pcmk_monitor_timeout"] == "50s"
    assert devices.registered(changed) == (replace(ONE, lan0="10.20.30.99", ppar_id=3), TWO)
    levels = [[level.attrib for level in root.iter("fencing-level")] for root in (start, changed)]
    assert len(levels[0]) == 8
    assert levels[0] == levels[1]


def test_re_aiming_moves_addresses_ppar_id_and_weight_of_all_four_agents_and_nothing_else() -> None:
    start = both(cib())
    moved = devices.reaim(start, "cfguest2", HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 7))
    assert devices.registered(moved) == (
        ONE,
        replace(TWO, ppar_id=1, lan0="10.20.30.73", lan1="10.20.40.73", weight=7),
    )
    assert devices.faults(moved, devices.registered(moved)[1]) == ()
    back = devices.reaim(moved, "cfguest2", HostEntry("ctrl2", TWO.ppar_id, TWO.lan0, TWO.lan1, TWO.weight))
    assert devices.same_configuration(back, start)
    assert record.read(moved) == record.read(start)


def test_re_aiming_a_node_that_is_not_registered_is_refused() -> None:
    with pytest.raises(devices.NotRegisteredError, match="cfguest2"):
        devices.reaim(
            devices.with_node(cib(), ONE), "cfguest2", HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 1)
        )


def test_every_change_of_set_up_moves_the_epoch() -> None:
    first = devices.with_node(cib(), ONE)
    steps = [first, devices.with_node(first, TWO), devices.without_node(both(cib()), "cfguest2")]
    epochs = [found.epoch for step in steps if (found := record.read(step))]
    assert epochs == [2, 3, 4], "from the CIB's own epoch on, so that none is ever used twice"


@pytest.mark.parametrize(
    "start",
    [
        cib(),
        cib(OPTIONS.format(option("x", "stonith-max-attempts", "25"))),
        cib(OPTIONS.format(option("x", "fencing-max-attempts", "INFINITY"))),
        cib(""),
        cib(
            f'<cluster_property_set id="m">{option("y", "stonith-max-attempts", "3")}</cluster_property_set>'
        ),
        cib(more="<fencing-topology/>"),
        cib(resources=STRANGER, more=level("u", 'target="other"')),
        cib(resources=DUMMY.format("st"), more='<tags><tag id="t"><obj_ref id="st"/></tag></tags>'),
    ],
    ids=["plain", "attempts", "new-name", "no-set", "other-set", "empty-topology", "topology", "tags"],
)
@pytest.mark.parametrize("order", [("cfguest1", "cfguest2"), ("cfguest2", "cfguest1")])
def test_without_the_last_node_the_cib_is_as_before_the_first(
    start: ET.Element, order: tuple[str, str]
) -> None:
    made = both(start)
    values = [
        pair.get("value")
        for pair in made.iter("nvpair")
        if pair.get("name") in ("stonith-max-attempts", "fencing-max-attempts")
    ]
    assert values == ["INFINITY"]
    assert not devices.same_configuration(made, start)
    for node in order:
        made = devices.without_node(made, node)
    assert devices.same_configuration(made, start)


def test_a_users_later_value_of_max_attempts_is_left_alone_by_removal() -> None:
    made = devices.with_node(cib(), ONE)
    pair = next(pair for pair in made.iter("nvpair") if pair.get("name") == "stonith-max-attempts")
    pair.set("value", "40")
    after = devices.without_node(made, "cfguest1")
    assert [pair.get("value") for pair in after.iter("nvpair")] == ["40"]


def test_deleting_a_node_that_is_not_registered_is_refused() -> None:
    with pytest.raises(devices.NotRegisteredError, match="cfguest2"):
        devices.without_node(devices.with_node(cib(), ONE), "cfguest2")


def test_a_half_registered_node_can_be_deleted_and_keeps_the_record_until_then() -> None:
    made = both(cib())
    resources = made.find("./configuration/resources")
    assert resources is not None
    resources.remove(next(p for p in resources if p.get("id") == "SA_xscfsnmpg0p-cfguest2"))
    without = devices.without_node(made, "cfguest1")
    assert record.read(without) is not None
    assert devices.same_configuration(devices.without_node(without, "cfguest2"), cib())


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (cib(more=level("u", 'target="CFGUEST1"')), "fencing level of its own"),
        (cib(more=level("u", 'target-pattern="cfg.*"')), "fencing level of its own"),
        (cib(more=level("fl-cfguest1-1", 'target="x"')), "fl-cfguest1-1 is not as set-up made it"),
        (cib(resources=DUMMY.format("gate-cfguest1-1")), "the id gate-cfguest1-1 belongs to"),
        (
            cib(resources=STRANGER.replace('"st"', '"SA_xscfsnmpg1r-cfguest1"')),
            "the id SA_xscfsnmpg1r-cfguest1 belongs to",
        ),
        (
            cib(constraints='<rsc_location id="ban-gate-cfguest1-2" rsc="o" node="cfguest1" score="1"/>'),
            "the id ban-gate-cfguest1-2 belongs",
        ),
        (
            cib(
                OPTIONS.format(
                    option("a", "stonith-max-attempts", "1") + option("b", "fencing-max-attempts", "2")
                )
            ),
            "set more than once",
        ),
    ],
    ids=["target", "pattern", "level-id", "gate-id", "device-id", "ban-id", "twice"],
)
def test_what_others_made_is_in_the_way_and_is_named(start: ET.Element, words: str) -> None:
    with pytest.raises(devices.ForeignError, match=words):
        devices.with_node(start, ONE)


def test_other_nodes_levels_are_no_obstacle() -> None:
    start = cib(more=level("u", 'target-pattern="^db"'))
    assert devices.registered(devices.with_node(start, ONE)) == (ONE,)


def test_a_node_that_the_cluster_does_not_have_is_refused_with_the_list_of_nodes() -> None:
    with pytest.raises(devices.UnknownNodeError, match=r"^cfguest9 is no node .* are cfguest1, cfguest2$"):
        devices.with_node(cib(), replace(ONE, node="cfguest9"))


@pytest.mark.parametrize("phase", [record.Phase.OPENING, record.Phase.OPEN, record.Phase.CLOSING])
def test_nothing_is_set_up_while_a_window_is_open(phase: record.Phase) -> None:
    start = both(cib())
    found = record.read(start)
    assert found is not None
    record.write(start, found.next(phase=phase, mover="cfguest2"))
    with pytest.raises(devices.WindowOpenError, match=f"for cfguest2 is {phase.value}"):
        devices.with_node(start, ONE)
    with pytest.raises(devices.WindowOpenError):
        devices.without_node(start, "cfguest1")


def test_a_users_constraint_on_our_device_must_go_before_the_device() -> None:
    start = both(cib(constraints='<rsc_location id="u" rsc="gate-cfguest2-1" node="cfguest1" score="5"/>'))
    with pytest.raises(devices.ForeignError, match=r"u \(rsc_location\) refers to gate-cfguest2-1"):
        devices.without_node(start, "cfguest2")
    assert devices.registered(devices.without_node(start, "cfguest1")) == (TWO,)


def test_damage_is_named_and_a_change_repairs_it() -> None:
    start = both(cib())
    for parent in list(start.iter()):
        for child in list(parent):
            gone = child.get("id") in ("SA_xscfsnmpg1p-cfguest1", "ban-gate-cfguest1-3", "fl-cfguest1-4")
            if gone:
                parent.remove(child)
            if child.get("id") == "SA_xscfsnmpg0r-cfguest1-instance_attributes-ip":
                child.set("value", "10.9.9.9")
    assert set(devices.faults(start, ONE)) == {
        "SA_xscfsnmpg1p-cfguest1 is missing",
        "SA_xscfsnmpg0r-cfguest1 has another ip",
        "gate-cfguest1-3 is not banned from cfguest1",
        "fencing level fl-cfguest1-4 is missing or changed",
    }
    assert devices.faults(devices.with_node(start, ONE), ONE) == ()
    assert devices.faults(start, TWO) == ()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"node": "a b"}, "node"),
        ({"domain": ""}, "domain"),
        ({"ppar_id": 16}, "ppar_id"),
        ({"ppar_id": -1}, "ppar_id"),
        ({"lan0": "xscf1"}, "lan0"),
        ({"lan1": "10.20.30.71"}, "lan1"),
        ({"user": "x user"}, "user"),
        ({"connection": "snmp"}, "connection"),
        ({"weight": 101}, "weight"),
    ],
)
def test_every_field_is_checked_and_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(fields.FieldError, match=f"^{field} "):
        replace(ONE, **change).checked()  # type: ignore[arg-type]


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)


@given(names, names, st.integers(0, 15), st.integers(1, 100), st.sampled_from(["ssh", "telnet"]))
def test_any_checked_data_survives_the_way_through_the_cib(
    node: str, domain: str, ppar_id: int, weight: int, connection: str
) -> None:
    start = cib()
    nodes = start.find("./configuration/nodes")
    assert nodes is not None
    nodes[0].set("uname", node)
    wanted = XscfNode(node, domain, ppar_id, "2001:db8::1", "10.0.0.1", "u", connection, weight).checked()
    made = devices.with_node(start, wanted)
    assert devices.registered(made) == (wanted,)
    assert devices.faults(made, wanted) == ()
    identifiers = [
        element.get("id") for element in made.iter() if element.get("id") and element.tag != "node"
    ]
    assert len(identifiers) == len(set(identifiers))
    assert devices.same_configuration(devices.without_node(made, node), start)


def test_failed_starts_are_found_on_the_own_node_only() -> None:
    start = both(cib())
    status = start.find("status")
    assert status is not None
    status.extend(
        ET.fromstring(
            f'<node_state uname="{name}"><lrm id="1"><lrm_resources><lrm_resource id="{resource}">'
            f'<lrm_rsc_op operation="start" rc-code="{code}"/></lrm_resource></lrm_resources></lrm>'
            "</node_state>"
        )
        for name, resource, code in (
            ("cfguest1", "SA_xscfsnmpg0p-cfguest2", 1),
            ("cfguest2", "SA_xscfsnmpg1p-cfguest2", 1),
            ("cfguest1", "SA_xscfsnmpg1r-cfguest2", 0),
        )
    )
    assert devices.failed_starts(start, "cfguest1", "cfguest2") == ("SA_xscfsnmpg0p-cfguest2",)


def test_pacemaker_takes_it_and_gives_it_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "cib.xml"
    path.write_bytes(ET.tostring(both(cib())))
    environment = {"CIB_file": str(path), "PATH": "/usr/sbin:/usr/bin"}
    argv = ["cibadmin", "--query", "--local"]
    read = subprocess.run(argv, env=environment, capture_output=True, timeout=20, check=True)
    assert devices.same_configuration(ET.fromstring(read.stdout), both(cib()))


def test_the_way_in_to_any_xscf_is_that_of_a_registered_device_and_no_secret_is_in_it() -> None:
    assert devices.account(cib()) is None
    assert devices.account(both(cib())) == {
        "username": ONE.user,
        "connection": "ssh",
        "password_file": "/etc/standfast/secrets/xscf-cfguest1",
    }
