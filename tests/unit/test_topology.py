"""Levels are found however they name their target, and a missing device is never taken for a real one."""

from xml.etree import ElementTree as ET

import pytest

from standfast.core.topology import levels_for, quorate

CIB = """<cib><configuration><crm_config/>
<nodes><node id="2" uname="n2"><instance_attributes id="a">
 <nvpair id="b" name="rack" value="r7"/></instance_attributes></node></nodes>
<resources>
 <primitive id="g" class="stonith" type="fence_standfast"/>
 <group id="grp"><primitive id="x" class="stonith" type="fence_xscf"><instance_attributes id="xi">
  <nvpair id="xp" name="ip" value="10.0.0.1"/></instance_attributes></primitive></group>
 <primitive id="web" class="ocf" provider="heartbeat" type="Dummy"/>
</resources><constraints/><fencing-topology>%s</fencing-topology></configuration></cib>"""


def levels(xml: str, target: str = "n2"):  # type: ignore[no-untyped-def]
    return levels_for(ET.fromstring(CIB % xml), target)


@pytest.mark.parametrize(
    "names",
    ['target="n2"', 'target="N2"', 'target-pattern="n[0-9]"', 'target-attribute="rack" target-value="r7"'],
)
def test_a_level_is_found_by_name_pattern_and_attribute(names: str) -> None:
    found = levels(f'<fencing-level id="l" {names} index="1" devices="g,x"/>')
    assert [device.id for device in found[0].devices] == ["g", "x"]
    assert found[0].guarded
    assert found[0].devices[1].parameters["ip"] == "10.0.0.1"


@pytest.mark.parametrize(
    "names", ['target="n3"', 'target-pattern="^x"', 'target-attribute="rack" target-value="r8"']
)
def test_a_level_of_somebody_else_is_not_ours(names: str) -> None:
    assert levels(f'<fencing-level id="l" {names} index="1" devices="g,x"/>') == ()


def test_a_pattern_that_cannot_be_read_counts_as_naming_us() -> None:
    assert len(levels('<fencing-level id="l" target-pattern="[" index="1" devices="g"/>')) == 1


@pytest.mark.parametrize("devices", ["g", "x", "x,g", "g,nowhere", "g,web", "", "g,x,g"])
def test_other_shapes_are_not_guarded(devices: str) -> None:
    assert not levels(f'<fencing-level id="l" target="n2" index="1" devices="{devices}"/>')[0].guarded


def test_levels_come_in_the_order_of_their_index() -> None:
    xml = "".join(
        f'<fencing-level id="l{index}" target="n2" index="{index}" devices="g,x"/>' for index in (2, 1)
    )
    assert [level.index for level in levels(xml)] == [1, 2]


@pytest.mark.parametrize(("mark", "has"), [("1", True), ("0", False), (None, False)])
def test_quorum_is_what_the_controller_has_marked(mark: str | None, has: bool) -> None:
    cib = ET.Element("cib", {} if mark is None else {"have-quorum": mark})
    assert quorate(cib) is has
    assert quorate(None) is False
