"""Patches of the CIB: what they contain, and what Pacemaker's own code makes of them.

Here cibadmin works on a file (CIB_file), with the same patch and schema code as the daemon; the race on a
real ring is in tests/lab.
"""

import copy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from standfast.cluster import cib

CIB = """\
<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="5" num_updates="3" admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <!-- a comment of the user -->
        <nvpair id="opt-1" name="stonith-enabled" value="true"/>
      </cluster_property_set>
      <cluster_property_set id="standfast-window">
        <nvpair id="standfast-phase-7" name="standfast-phase" value="idle"/>
        <nvpair id="standfast-window-epoch" name="standfast-epoch" value="7"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources>
      <primitive id="k" class="stonith" type="fence_standfast"/>
      <primitive id="d" class="stonith" type="fence_xscf">
        <instance_attributes id="d-ia"><nvpair id="d-ip" name="ip" value="10.20.30.72"/></instance_attributes>
      </primitive>
    </resources>
    <constraints>
      <rsc_location id="ban-d" rsc="d" node="n2" score="-INFINITY"/>
    </constraints>
    <fencing-topology>
      <fencing-level id="fl-n2-1" target="n2" index="1" devices="k,d"/>
      <fencing-level id="fl-n2-2" target="n2" index="2" devices="k,d"/>
      <fencing-level id="fl-n2-3" target="n2" index="3" devices="k,d"/>
    </fencing-topology>
  </configuration>
  <status/>
</cib>
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIB in a file, which all of Pacemaker's tools take for the cluster's."""
    path = tmp_path / "cib.xml"
    path.write_text(CIB)
    monkeypatch.setenv("CIB_file", str(path))
    return path


def _step(root: ElementTree.Element, epoch: int, phase: str, owner: str = "a") -> ElementTree.Element:
    """The record moved on, levels 2 and 3 gone, level 1 changed, a ban and a re-aimed device."""
    wanted = copy.deepcopy(root)
    set_ = wanted.find(".//cluster_property_set[@id='standfast-window']")
    assert set_ is not None
    pair = set_.find("nvpair[@name='standfast-phase']")
    assert pair is not None
    pair.attrib.update(id=f"standfast-phase-{epoch}", value=phase)
    set_.find("nvpair[@name='standfast-epoch']").set("value", str(epoch))  # type: ignore[union-attr]
    topology = wanted.find("configuration/fencing-topology")
    assert topology is not None
    for level in topology.findall("fencing-level")[1:]:
        topology.remove(level)
    topology[0].set("devices", "k")
    constraints = wanted.find("configuration/constraints")
    assert constraints is not None
    ElementTree.SubElement(
        constraints, "rsc_location", id=f"ban-k-{owner}", rsc="k", node="n2", score="-INFINITY"
    )
    wanted.find(".//nvpair[@id='d-ip']").set("value", "10.20.30.73")  # type: ignore[union-attr]
    return wanted


def _configuration(root: ElementTree.Element) -> str:
    configuration = root.find("configuration")
    assert configuration is not None
    return ElementTree.canonicalize(ElementTree.tostring(configuration), strip_text=True)


def test_the_patch_begins_with_a_modify_on_the_path_of_the_old_id() -> None:
    root = ElementTree.fromstring(CIB)
    patch = cib.make_patch(root, _step(root, 8, "opening"))
    assert patch is not None
    changes = list(ElementTree.fromstring(patch))
    assert changes[0].attrib == {
        "operation": "modify",
        "path": "/cib/configuration/crm_config/cluster_property_set[@id='standfast-window']"
        "/nvpair[@id='standfast-phase-7']",
    }
    result = changes[0].find("change-result/nvpair")
    assert result is not None
    assert result.attrib == {"id": "standfast-phase-8", "name": "standfast-phase", "value": "opening"}
    assert not [change for change in changes[1:] if "standfast-phase" in change.get("path", "")]
    assert not [change for change in changes if change.tag == "version"]


def test_a_whole_step_is_applied_as_wanted_and_only_that(store: Path) -> None:
    root = cib.query()
    wanted = _step(root, 8, "opening")
    cib.apply(root, wanted)
    assert _configuration(cib.query()) == _configuration(wanted)
    assert "a comment of the user" in store.read_text()


def test_a_late_copy_of_a_patch_is_refused_whole(store: Path) -> None:
    root = cib.query()
    wanted = _step(root, 8, "opening")
    cib.apply(root, wanted)
    before = store.read_bytes()
    with pytest.raises(cib.CibConflict):
        cib.apply(root, wanted)
    assert store.read_bytes() == before


def test_the_loser_of_a_race_changes_nothing_in_any_section(store: Path) -> None:
    root = cib.query()
    cib.apply(root, _step(root, 8, "opening", "winner"))
    before = store.read_bytes()
    with pytest.raises(cib.CibConflict):
        cib.apply(root, _step(root, 8, "opening", "loser"))
    assert store.read_bytes() == before


def test_without_the_guard_the_deletes_and_creates_of_a_loser_would_be_carried_out(store: Path) -> None:
    """Why the guard is there: this is the same patch without it."""
    root = cib.query()
    patch = cib.make_patch(root, _step(root, 8, "opening", "loser"))
    assert patch is not None
    tree = ElementTree.fromstring(patch)
    tree.remove(tree[0])
    moved = copy.deepcopy(root)
    moved.find(".//nvpair[@id='standfast-phase-7']").set("id", "standfast-phase-8")  # type: ignore[union-attr]
    cib.apply(root, moved)
    cib.send_patch(ElementTree.tostring(tree, encoding="unicode"))
    assert "ban-k-loser" in store.read_text()


def test_a_change_of_something_else_needs_no_move_but_the_same_epoch(store: Path) -> None:
    root = cib.query()
    wanted = copy.deepcopy(root)
    wanted.find(".//nvpair[@id='d-ip']").set("value", "10.20.30.99")  # type: ignore[union-attr]
    cib.apply(root, wanted)
    assert "standfast-phase-7" in store.read_text()
    assert "10.20.30.99" in store.read_text()
    now = cib.query()
    cib.apply(now, _step(now, 8, "opening"))
    with pytest.raises(cib.CibConflict):
        cib.apply(root, wanted)


def test_an_unrelated_writer_in_between_does_not_matter(store: Path) -> None:
    root = cib.query()
    other = copy.deepcopy(root)
    other.find(".//nvpair[@id='opt-1']").set("value", "false")  # type: ignore[union-attr]
    cib.apply(root, other)
    cib.apply(root, _step(root, 8, "opening"))
    text = store.read_text()
    assert "standfast-phase-8" in text
    assert 'value="false"' in text


def test_what_somebody_else_has_removed_is_not_silently_brought_back(store: Path) -> None:
    root = cib.query()
    without = copy.deepcopy(root)
    resource = without.find(".//primitive[@id='d']/instance_attributes")
    assert resource is not None
    resource.remove(resource[0])
    cib.apply(root, without)
    before = store.read_bytes()
    with pytest.raises(cib.CibConflict):
        cib.apply(root, _step(root, 8, "opening"))
    assert store.read_bytes() == before


def test_what_is_there_already_is_never_there_twice(store: Path) -> None:
    root = cib.query()
    wanted = copy.deepcopy(root)
    constraints = wanted.find("configuration/constraints")
    assert constraints is not None
    ElementTree.SubElement(constraints, "rsc_location", id="new", rsc="k", node="n2", score="0")
    cib.apply(root, wanted)
    before = store.read_bytes()
    with pytest.raises(cib.CibError, match="schema"):
        cib.apply(root, wanted)
    assert store.read_bytes() == before


def test_taking_the_record_away_needs_the_epoch_that_was_read(store: Path) -> None:
    root = cib.query()
    wanted = copy.deepcopy(root)
    config = wanted.find("configuration/crm_config")
    assert config is not None
    config.remove(config[1])
    now = _step(root, 8, "idle")
    cib.apply(root, now)
    with pytest.raises(cib.CibConflict):
        cib.apply(root, wanted)
    cib.apply(cib.query(), wanted)
    assert "standfast-window" not in store.read_text()


def test_nothing_to_change_is_nothing_to_send() -> None:
    root = ElementTree.fromstring(CIB)
    newer = copy.deepcopy(root)
    newer.set("epoch", "9")
    newer.find("status").append(ElementTree.Element("node_state", id="1"))  # type: ignore[union-attr]
    assert cib.make_patch(root, newer) is None


def test_an_ambiguous_id_is_named_before_anything_is_sent() -> None:
    root = ElementTree.fromstring(CIB)
    wanted = copy.deepcopy(root)
    topology = wanted.find("configuration/fencing-topology")
    assert topology is not None
    topology.append(copy.deepcopy(topology[0]))
    with pytest.raises(cib.CibError, match="fencing-level fl-n2-1 would be there twice"):
        cib.make_patch(root, wanted)


def test_the_set_is_made_once(store: Path) -> None:
    new = ElementTree.fromstring(
        '<cluster_property_set id="standfast-window"><nvpair id="x" name="y"/></cluster_property_set>'
    )
    with pytest.raises(cib.CibConflict):
        cib.create_set(new)
    new.set("id", "another")
    cib.create_set(new)
    assert 'id="another"' in store.read_text()


def test_a_barrier_changes_nothing(store: Path) -> None:
    before = _configuration(cib.query())
    cib.barrier()
    assert _configuration(cib.query()) == before
    assert cib.query().get("epoch") == "5"


def test_a_cib_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_file", str(tmp_path / "nothing.xml"))
    with pytest.raises(cib.CibError, match="the CIB cannot be read"):
        cib.query()
