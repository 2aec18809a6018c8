"""standfast node against an offline CIB: Pacemaker's own cibadmin and crm_diff do the reading and writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from test_clsnmpsetup import CIB, DATA
from test_clsnmpsetup import Node as XscfSide

from standfast import config
from standfast.commands.node import node as command
from standfast.commands.secret_store import SecretStore
from standfast.commands.setup_outside import Outside, Probe
from standfast.core import devices, record

ENTRY = """
[[control_domain]]
name = "host{0}"
address = "10.88.0.20{0}"
kind = "libvirt"
login = "root"
weight = {0}
fence_agent = "fence_virsh"
[control_domain.fence_parameters]
ip = "10.88.0.20{0}"
username = "root"
"""
CONF = "format = 1\n" + "".join(ENTRY.format(number) for number in (1, 2, 3))
ADD = ("add", "cfguest2", "--guest", "guest2", "--host", "host2")


@dataclass
class Site:
    """One node's view of a cluster whose CIB is a file."""

    file: Path
    conf: Path
    root: bool = True
    answers: list[bool] = field(default_factory=list)
    probes: dict[str, Probe] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def run(self, *words: str) -> Result:
        outside = Outside(
            own_node=lambda: "cfguest1",
            cleanup=lambda device, node: None,
            probe=self._probe,
            unknown_to=self._unknown_to,
            confirm=lambda question: self.answers.pop(),
            keep_rescue=lambda cib: "",
            is_root=lambda: self.root,
        )
        return CliRunner().invoke(command, words, obj=outside)

    def _probe(self, parameters: Mapping[str, str], program: str) -> Probe:
        self.asked.append((program, parameters))
        return self.probes.get(parameters["ip"], Probe(True, "login works, the guest is running"))

    def _unknown_to(self, agent: str, parameters: Mapping[str, str]) -> tuple[str, ...]:
        assert parameters["plug"]
        return self.unknown

    def done(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.output

    def refused(self, *words: str, code: int = 1) -> str:
        before = self.file.read_bytes()
        result = self.run(*words)
        assert result.exit_code == code, result.output
        assert self.file.read_bytes() == before
        return result.output

    def cib(self) -> ET.Element:
        return ET.parse(self.file).getroot()

    @property
    def epoch(self) -> int:
        found = record.read(self.cib())
        assert found is not None
        return found.epoch


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    file, conf = tmp_path / "cib.xml", tmp_path / "clovmmigrate.conf"
    file.write_text(CIB)
    conf.write_text(CONF)
    monkeypatch.setenv("CIB_file", str(file))
    load = config.load
    monkeypatch.setattr(config, "load", lambda: load(str(conf)))
    return Site(file, conf)


def test_a_node_is_registered_with_what_the_file_says_of_its_host(site: Site) -> None:
    said = site.done(*ADD)
    assert "Registered: cfguest2, guest guest2, fence_virsh at host2, weight 2." in said
    assert "takes its gates out of fencing" in said
    (entry,) = devices.registered(site.cib())
    assert entry == devices.HostNode(
        "cfguest2", "guest2", "fence_virsh", (("ip", "10.88.0.202"), ("username", "root")), 2
    )


def test_the_same_again_changes_nothing_and_other_data_is_refused(site: Site) -> None:
    site.done(*ADD)
    epoch = site.epoch
    assert "Registered already" in site.done(*ADD)
    assert site.epoch == epoch
    said = site.refused("add", "cfguest2", "--guest", "guest9", "--host", "host3")
    assert (
        "registered already with other data (guest is guest2; host is ip=10.88.0.202, username=root" in said
    )
    assert "standfast node change cfguest2" in said


def test_change_takes_what_is_given_and_leaves_the_rest(site: Site) -> None:
    site.done(*ADD)
    site.done("change", "cfguest2", "--host", "host3")
    found = devices.find(site.cib(), "cfguest2")
    assert isinstance(found, devices.HostNode)
    assert (found.guest, dict(found.reach)["ip"], found.weight) == ("guest2", "10.88.0.203", 3)
    site.done("change", "cfguest2", "--weight", "7")
    found = devices.find(site.cib(), "cfguest2")
    assert found is not None
    assert found.weight == 7
    assert "Registered already" in site.done("change", "cfguest2")


def test_change_without_options_puts_right_what_is_missing(site: Site) -> None:
    site.done(*ADD)
    tree = site.cib()
    constraints = tree.find("./configuration/constraints")
    assert constraints is not None
    constraints.remove(constraints[0])
    site.file.write_bytes(ET.tostring(tree))
    site.file.with_suffix(".xml.sig").unlink(missing_ok=True)
    assert "is not banned from cfguest2; put it right: standfast node change cfguest2" in site.done("list")
    site.done("change", "cfguest2")
    (shown,) = json.loads(site.done("list", "--json"))["nodes"]
    assert shown["faults"] == []


def test_a_dry_run_says_what_and_changes_nothing(site: Site) -> None:
    before = site.file.read_bytes()
    assert "Would register: cfguest2, guest guest2" in site.done(*ADD, "-n")
    assert site.file.read_bytes() == before
    site.done(*ADD)
    before = site.file.read_bytes()
    assert "Would remove cfguest2" in site.done("remove", "cfguest2", "-n")
    assert "Would register" in site.done("change", "cfguest2", "--host", "host1", "--dry-run")
    assert site.file.read_bytes() == before


def test_with_the_last_node_all_is_as_before_the_first(site: Site) -> None:
    before = site.cib()
    site.done(*ADD)
    site.done("add", "cfguest1", "--guest", "guest1", "--host", "host1")
    site.answers = [False]
    assert "nothing was changed" in site.refused("remove", "cfguest2")
    site.answers = [True]
    assert "Removed: cfguest2." in site.done("remove", "cfguest2")
    site.done("remove", "cfguest1", "--yes")
    assert devices.same_configuration(site.cib(), before)
    assert "Nothing is registered for cfguest1." in site.done("remove", "cfguest1", "--yes")
    assert "nowhere is no node of this cluster" in site.refused("remove", "nowhere", "--yes")


def test_the_list_shows_every_node_with_its_host(site: Site) -> None:
    site.done(*ADD)
    assert site.done("list").splitlines() == [
        "NODE      GUEST   HOST   AGENT     WEIGHT",
        "cfguest2  guest2  host2  SA_virsh  2",
    ]
    assert json.loads(site.done("list", "--json"))["nodes"] == [
        {
            "node": "cfguest2",
            "guest": "guest2",
            "host": "host2",
            "agents": ["SA_virsh"],
            "weight": 2,
            "faults": [],
        }
    ]
    site.conf.unlink()
    assert "cfguest2  guest2  ?" in site.done("list")


def test_check_runs_the_agent_with_the_parameters_of_the_cib(site: Site) -> None:
    site.done(*ADD)
    assert "cfguest2: fence_virsh 10.88.0.202: login works, the guest is running" in site.done("check")
    ((program, parameters),) = site.asked
    assert (program, parameters["plug"], parameters["ip"]) == ("fence_virsh", "guest2", "10.88.0.202")
    site.probes["10.88.0.202"] = Probe(False, "no route")
    assert "not usable from this node" in site.refused("check", "cfguest2")
    assert "nothing is registered for cfguest1" in site.refused("check", "cfguest1")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "cfguest9", "--guest", "g", "--host", "host1"), 1, "cfguest9 is no node of this cluster"),
        (("add", "cfguest2", "--guest", "g", "--host", "host9"), 1, "host9 is no control domain"),
        (("add", "cfguest2", "--guest", "-g;", "--host", "host1"), 2, "guest '-g;'"),
        (("add", "cf guest", "--guest", "g", "--host", "host1"), 2, "node 'cf guest'"),
        (("add", "cfguest2", "--guest", "g"), 2, "--host"),
        (("add", "cfguest2", "--guest", "g", "--host", "host1", "--weight", "0"), 2, "--weight"),
        (("change", "cfguest1", "--host", "host1"), 1, "standfast node add cfguest1 --guest GUEST"),
        (
            ("add", "cfguest1", "--guest", "guest2", "--host", "host1"),
            1,
            "guest guest2 is registered for cfguest2",
        ),
    ],
)
def test_bad_input_names_the_thing_and_changes_nothing(
    site: Site, words: tuple[str, ...], code: int, said: str
) -> None:
    site.done(*ADD)
    assert said in site.refused(*words, code=code)


def test_what_the_agent_does_not_know_is_refused_before_anything_is_changed(site: Site) -> None:
    site.unknown = ("usernam",)
    assert "fence_virsh does not know usernam and would ignore it" in site.refused(*ADD)


def test_a_host_without_an_agent_and_one_with_an_xscf_are_refused_with_what_to_type(site: Site) -> None:
    text = CONF.replace('fence_agent = "fence_virsh"\n', "")
    for number in (1, 2, 3):
        table = f'[control_domain.fence_parameters]\nip = "10.88.0.20{number}"\nusername = "root"\n'
        text = text.replace(table, "")
    site.conf.write_text(text)
    assert "host2 has no fence_agent in clovmmigrate.conf" in site.refused(*ADD)
    site.conf.write_text((Path(__file__).parents[2] / "packaging/clovmmigrate.conf.sample").read_text())
    said = site.refused("add", "cfguest2", "--guest", "guest2", "--host", "ctrl2")
    assert "ctrl2 is of kind ldm and killed through its XSCF" in said
    assert "clsnmpsetup -a" in said


def test_nothing_is_changed_while_a_window_is_open(site: Site) -> None:
    site.done(*ADD)
    tree = site.cib()
    found = record.read(tree)
    assert found is not None
    record.write(tree, found.next(phase=record.Phase.OPEN))
    site.file.write_bytes(ET.tostring(tree))
    site.file.with_suffix(".xml.sig").unlink(missing_ok=True)
    for words in (("change", "cfguest2", "--host", "host1"), ("remove", "cfguest2", "--yes")):
        assert "a migration window is open" in site.refused(*words)


def test_refusals_are_json_where_json_is_asked_for(site: Site) -> None:
    answer = json.loads(site.refused("change", "cfguest2", "--host", "host1", "--json"))
    assert answer["exit"] == 1
    assert answer["messages"][0]["code"] == "setup.not-registered"
    assert json.loads(site.done(*ADD, "--json"))["changed"] is True


def test_only_root_may(site: Site) -> None:
    site.root = False
    assert "must be run as root" in site.refused("list")


def test_each_kind_of_node_is_changed_by_its_own_command_and_both_are_listed(
    site: Site, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("kept-out\n")
    behind = XscfSide("cfguest1", site.file, SecretStore(str(tmp_path / "secrets")))
    site.done("add", "cfguest1", "--guest", "guest1", "--host", "host1")
    assert behind.run("-a", "cfguest2", *DATA, "--password-file", str(password)) == 0
    listed = json.loads(site.done("list", "--json"))["nodes"]
    assert [(entry["node"], len(entry["agents"])) for entry in listed] == [("cfguest1", 1), ("cfguest2", 4)]
    assert "clsnmpsetup -d cfguest2" in site.refused("remove", "cfguest2", "--yes")
    assert "clsnmpsetup -m cfguest2" in site.refused("change", "cfguest2", "--host", "host1")
    assert "LAN#0 10.20.30.73" in site.done("check", "cfguest2")


def test_clsnmpsetup_sends_to_this_command_where_no_host_has_an_xscf(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = XscfSide("cfguest1", site.file, SecretStore(str(tmp_path / "secrets")))
    made = behind.outside
    monkeypatch.setattr(
        behind, "outside", lambda: Outside(**{**vars(made()), "kinds": lambda: frozenset({"libvirt"})})
    )
    assert behind.run("-a", "cfguest2", *DATA, "--password") == 1
    said = capsys.readouterr().err
    assert "are of kind libvirt and have no XSCF; nothing was changed" in said
    assert "standfast node add cfguest2 --guest GUEST --host HOST" in said
    assert devices.registered(site.cib()) == ()
    site.done(*ADD)
    assert behind.run("-l") == 0
    assert "standfast node list" in capsys.readouterr().err
