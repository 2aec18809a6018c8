"""A node on a host of kind libvirt in the CIB: one level, another aim, and nothing is left afterwards."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from test_devices import cib, parameters

from standfast.core import aims, devices, fields, guarded, host_fencing, record, topology
from standfast.core.devices import HostNode, XscfNode
from standfast.core.hostlist import NO_PPAR, ControlDomain
from standfast.core.steps import HostEntry

KEY = ("identity_file", "/root/.ssh/key")


def host(number: int, *more: tuple[str, str]) -> ControlDomain:
    reach = tuple(sorted((("ip", f"10.88.0.20{number}"), ("username", "root"), *more)))
    name, address = f"host{number}", f"10.88.0.20{number}"
    return ControlDomain(name, address, "libvirt", NO_PPAR, "", "", number, "root", "", "fence_virsh", reach)


HOSTS = (host(1, KEY), host(2, KEY), host(3, ("password_script", "/etc/s/h3")))
ENTRIES = aims.entries(HOSTS)
ONE = HostNode("cfguest1", "guest1", "fence_virsh", HOSTS[0].fence_parameters)
TWO = HostNode("cfguest2", "guest2", "fence_virsh", HOSTS[1].fence_parameters, 2)
DEVICE = "SA_virsh-cfguest2"


def both() -> ET.Element:
    return devices.with_node(devices.with_node(cib(), ONE), TWO)


def test_what_is_registered_is_read_back_in_order() -> None:
    assert devices.registered(both()) == (ONE, TWO)
    assert devices.find(both(), "cfguest2") == TWO
    assert [devices.faults(both(), entry) for entry in (ONE, TWO)] == [(), ()]


def test_the_node_has_one_level_a_gate_and_its_device() -> None:
    (level,) = topology.levels_for(both(), "cfguest2")
    assert [device.id for device in level.devices] == ["gate-cfguest2-1", DEVICE]
    assert level.guarded
    assert level.devices[1].guest == "guest2"


def test_the_device_has_what_reaches_its_host_the_guest_and_our_limits() -> None:
    assert parameters(both(), DEVICE) == {
        "pcmk_host_list": "cfguest2",
        "pcmk_off_retries": "1",
        "pcmk_reboot_retries": "1",
        "pcmk_on_retries": "1",
        "pcmk_off_timeout": "75s",
        "pcmk_reboot_timeout": "75s",
        "pcmk_on_timeout": "30s",
        "login_timeout": "10",
        "shell_timeout": "10",
        "power_timeout": "30",
        "identity_file": "/root/.ssh/key",
        "ip": "10.88.0.202",
        "username": "root",
        "plug": "guest2",
    }
    assert parameters(both(), "gate-cfguest2-1")["pcmk_delay_base"] == "1s"


def test_gate_and_device_are_banned_from_their_own_node() -> None:
    bans = {ban.get("rsc"): ban.get("node") for ban in both().iter("rsc_location")}
    assert bans == {
        "gate-cfguest1-1": "cfguest1",
        "SA_virsh-cfguest1": "cfguest1",
        "gate-cfguest2-1": "cfguest2",
        DEVICE: "cfguest2",
    }


def test_another_aim_replaces_all_that_reaches_the_host_and_the_topology_stays() -> None:
    start = both()
    moved = devices.reaim(start, "cfguest2", ENTRIES["host3"])
    assert aims.aims(start, HOSTS)["cfguest2"].host == "host2"
    found = aims.aims(moved, HOSTS)["cfguest2"]
    assert (found.host, found.guest, found.weight) == ("host3", "guest2", 3)
    assert "identity_file" not in parameters(moved, DEVICE)
    assert parameters(moved, DEVICE)["password_script"] == "/etc/s/h3"
    assert parameters(moved, "gate-cfguest2-1")["pcmk_delay_base"] == "2s"
    assert devices.find(moved, "cfguest1") == ONE
    back = devices.reaim(moved, "cfguest2", ENTRIES["host2"])
    assert devices.registered(back) == devices.registered(start)
    assert topology.levels_for(back, "cfguest2") == topology.levels_for(start, "cfguest2")


def test_a_limit_that_an_administrator_has_set_stays_and_hides_no_aim() -> None:
    start = both()
    tuned = next(
        pair
        for pair in start.iter("nvpair")
        if pair.get("id", "").endswith("virsh-cfguest2-instance_attributes-login_timeout")
    )
    tuned.set("value", "25")
    moved = devices.reaim(start, "cfguest2", ENTRIES["host3"])
    assert parameters(moved, DEVICE)["login_timeout"] == "25"
    assert aims.aims(moved, HOSTS)["cfguest2"].host == "host3"


def test_a_device_that_fits_no_host_whole_has_no_aim() -> None:
    start = both()
    attributes = next(device for device in start.iter("primitive") if device.get("id") == DEVICE)[0]
    ET.SubElement(attributes, "nvpair", {"id": "x", "name": "missing_as_off", "value": "1"})
    assert aims.aims(start, HOSTS)["cfguest2"].host == ""
    assert devices.faults(start, TWO) == (f"{DEVICE} has another missing_as_off",)
    assert aims.aims(devices.reaim(start, "cfguest2", ENTRIES["host2"]), HOSTS)["cfguest2"].host == "host2"


def test_the_fingerprint_of_a_proof_changes_with_the_aim() -> None:
    before = aims.aims(both(), HOSTS)["cfguest2"].proofs
    after = aims.aims(devices.reaim(both(), "cfguest2", ENTRIES["host3"]), HOSTS)["cfguest2"].proofs
    assert list(before) == [DEVICE]
    assert before != after


def test_the_last_one_leaves_the_cib_as_before_the_first() -> None:
    start = cib()
    gone = devices.without_node(devices.without_node(both(), "cfguest1"), "cfguest2")
    assert devices.same_configuration(gone, start)


@pytest.mark.parametrize("missing", [DEVICE, "gate-cfguest2-1", "fl-cfguest2-1", "ban-SA_virsh-cfguest2"])
def test_a_node_of_which_somebody_has_deleted_a_part_is_removed_whole(missing: str) -> None:
    start = both()
    for parent in start.findall("./configuration/*"):
        for child in list(parent):
            if child.get("id") == missing:
                parent.remove(child)
    assert devices.same_configuration(devices.without_node(start, "cfguest2"), moved_on(start))


def moved_on(start: ET.Element) -> ET.Element:
    """The first node alone, with the epoch of a removal."""
    alone = devices.with_node(cib(), ONE)
    current = record.read(start)
    assert current is not None
    record.write(alone, current.next())
    return alone


def test_each_change_moves_the_epoch_and_none_is_made_while_a_window_is_open() -> None:
    first, second = (record.read(root) for root in (devices.with_node(cib(), ONE), both()))
    assert first is not None
    assert second is not None
    assert second.epoch == first.epoch + 1
    opened = both()
    record.write(opened, replace(second, phase=record.Phase.OPEN, epoch=second.epoch + 1))
    for change in (lambda: devices.with_node(opened, TWO), lambda: devices.without_node(opened, "cfguest2")):
        with pytest.raises(devices.WindowOpenError):
            change()


def test_a_node_with_other_agents_is_not_registered_over_them() -> None:
    xscf = XscfNode("cfguest1", "guest1", 0, "10.20.30.71", "10.20.40.71", "xuser", "ssh")
    with pytest.raises(devices.ForeignError, match="with other shutdown agents: SA_xscfsnmpg0p"):
        devices.with_node(devices.with_node(cib(), xscf), ONE)
    with pytest.raises(devices.ForeignError, match="with other shutdown agents: SA_virsh"):
        devices.with_node(devices.with_node(cib(), ONE), xscf)
    with pytest.raises(devices.DeviceError, match="agents of an XSCF, and host2 is of kind libvirt"):
        devices.reaim(devices.with_node(cib(), xscf), "cfguest1", ENTRIES["host2"])
    with pytest.raises(devices.DeviceError, match="has the agent fence_virsh, and ctrl1 none"):
        devices.reaim(both(), "cfguest1", HostEntry("ctrl1", 0, "10.20.30.71", "10.20.40.71", 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"node": "a b"}, "node 'a b'"),
        ({"guest": "-x"}, "guest '-x'"),
        ({"agent": "virsh"}, "agent 'virsh'"),
        ({"weight": 0}, "weight 0"),
        ({"reach": (("password", "x"),)}, "password is a secret"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(change: dict[str, object], said: str) -> None:
    with pytest.raises(fields.FieldError, match=said):
        replace(ONE, **change).checked()  # type: ignore[arg-type]


def test_a_guarded_window_replaces_the_one_level_and_brings_it_back() -> None:
    start = both()
    opened = guarded.guard(start, "cfguest2")
    (level,) = topology.levels_for(opened, "cfguest2")
    assert [device.id for device in level.devices] == ["kill-cfguest2"]
    assert parameters(opened, "kill-cfguest2")["guest"] == "guest2"
    assert guarded.guarded(opened) == {"cfguest2"}
    assert guarded.whole(opened, "cfguest2")
    closed = guarded.unguard(opened, "cfguest2")
    assert guarded.guarded(closed) == frozenset()
    assert [device.id for device in topology.levels_for(closed, "cfguest2")[0].devices] == [
        "gate-cfguest2-1",
        DEVICE,
    ]
    assert devices.faults(closed, TWO) == ()


def test_a_device_that_set_up_did_not_make_names_no_node() -> None:
    assert host_fencing.node_of("SA_virsh-a-b", "fence_virsh") == "a-b"
    assert host_fencing.node_of("SA_virsh-n", "fence_xvm") == ""
    assert host_fencing.node_of("SA_xscf-n", "fence_xscf") == ""
    assert host_fencing.node_of("virsh-n", "fence_virsh") == ""
