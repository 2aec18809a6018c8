"""The way out keeps every real device, in its level and order, and drops the gates alone."""

from xml.etree import ElementTree as ET

from standfast.core import guarded, rescue
from standfast.core.device_objects import AGENTS, XscfNode, device, gate, level_of

CIB = """<cib><configuration><resources>
<primitive id="g1" class="stonith" type="fence_standfast"/>
<primitive id="g2" class="stonith" type="fence_standfast"/>
<primitive id="x1" class="stonith" type="fence_xscf"/>
<primitive id="x2" class="stonith" type="fence_ipmilan"/>
</resources><fencing-topology>
<fencing-level id="a" target="n1" index="1" devices="g1,x1"/>
<fencing-level id="b" target="n1" index="2" devices="g2, x2"/>
<fencing-level id="c" target-pattern="n.*" index="3" devices="x2,x1"/>
<fencing-level id="d" target="n2" index="1" devices="g1"/>
</fencing-topology></configuration></cib>"""


def test_gates_go_and_everything_else_stays_as_it_was() -> None:
    found = ET.fromstring(rescue.document(ET.fromstring(CIB)))
    assert [level.attrib for level in found] == [
        {"id": "a", "target": "n1", "index": "1", "devices": "x1"},
        {"id": "b", "target": "n1", "index": "2", "devices": "x2"},
        {"id": "c", "target-pattern": "n.*", "index": "3", "devices": "x2,x1"},
    ]


def test_the_file_says_how_it_is_used() -> None:
    assert "cibadmin -R -o fencing-topology -x /etc/standfast/rescue.xml" in rescue.document(
        ET.fromstring(CIB)
    )


def test_without_gates_there_is_nothing_to_rescue_from() -> None:
    assert rescue.document(ET.fromstring(CIB.replace("fence_standfast", "fence_xscf"))) == ""


def registered(node: str) -> ET.Element:
    """A CIB in which this node has its agents and gates."""
    root = ET.fromstring(
        "<cib><configuration><nodes/><resources/><constraints/><fencing-topology/></configuration></cib>"
    )
    resources, topology = root.find(".//resources"), root.find(".//fencing-topology")
    assert resources is not None
    assert topology is not None
    for agent in AGENTS:
        entry = XscfNode(node, "guest2", 0, "10.20.30.72", "10.20.40.72", "xuser", "ssh")
        resources.extend([gate(entry, agent), device(entry, agent)])
        topology.append(level_of(node, agent))
    return root


def test_in_a_guarded_window_the_mover_has_its_own_levels_in_it_and_a_line_starts_its_agents() -> None:
    before = registered("n2")
    text = rescue.document(guarded.guard(before, "n2"))
    assert rescue.UNPARK in text
    assert "n2 is in a guarded window" in text
    plain = rescue.document(before)
    assert rescue.UNPARK not in plain

    def levels(document: str) -> list[tuple[str, str]]:
        return sorted((one.get("index", ""), one.get("devices", "")) for one in ET.fromstring(document))

    assert levels(text) == levels(plain)
    assert len(levels(text)) == len(AGENTS)
