"""clsnmpsetup against an offline CIB: Pacemaker's own cibadmin and crm_diff do the reading and writing."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from standfast.cluster import cib
from standfast.commands import clsnmpsetup, secret_store
from standfast.commands.secret_store import SecretStore
from standfast.commands.setup_outside import Outside, Probe
from standfast.commands.setup_text import table
from standfast.core import devices, record
from standfast.core.devices import XscfNode
from standfast.core.messages import Refused

LISTING_1 = """\
device-name cluster-host-name PPAR-ID domain-name    IP-address1     IP-address2     user-name      connection-type
-------------------------------------------------------------------------------------------------------------------
xscf        cfguest1          0       guest1         10.20.30.71     10.20.40.71     xuser          ssh
xscf        cfguest2          1       guest2         10.20.30.73     10.20.40.73     xuser          ssh
"""  # noqa: E501
CIB = (
    '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">'
    '<configuration><crm_config><cluster_property_set id="cib-bootstrap-options">'
    '<nvpair id="s" name="stonith-enabled" value="true"/></cluster_property_set></crm_config>'
    '<nodes><node id="1" uname="cfguest1"/><node id="2" uname="cfguest2"/></nodes>'
    "<resources/><constraints/></configuration><status/></cib>"
)
SECRET = "kept-out-of-the-cib"
PROBED = Probe(True, "login works, the domain is running")
DATA = [
    "--domain",
    "guest2",
    "--ppar-id",
    "1",
    "--lan0",
    "10.20.30.73",
    "--lan1",
    "10.20.40.73",
    "--user",
    "xuser",
    "--connection",
    "ssh",
]
ONE = [
    "--domain",
    "guest1",
    "--ppar-id",
    "0",
    "--lan0",
    "10.20.30.71",
    "--lan1",
    "10.20.40.71",
    "--user",
    "xuser",
    "--connection",
    "ssh",
]


@dataclass
class Node:
    """One node's view: the shared CIB, its own secrets, and what was asked of the outside."""

    name: str
    file: Path
    secrets: SecretStore
    answers: list[bool] = field(default_factory=list)
    probes: dict[str, Probe] = field(default_factory=dict)
    probed: list[Mapping[str, str]] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)
    root: bool = True

    def outside(self) -> Outside:
        return Outside(
            own_node=lambda: self.name,
            cleanup=lambda device, node: self.cleaned.append(f"{device} {node}"),
            probe=self._probe,
            confirm=lambda question: self.answers.pop(),
            ask_password=lambda: SECRET,
            keep_rescue=lambda cib: "",
            is_root=lambda: self.root,
            secrets=self.secrets,
        )

    def _probe(self, parameters: Mapping[str, str]) -> Probe:
        self.probed.append(parameters)
        return self.probes.get(parameters["ip"], PROBED)

    def run(self, *arguments: str) -> int:
        return clsnmpsetup.main(arguments, self.outside())

    def cib(self) -> ET.Element:
        return ET.parse(self.file).getroot()

    def put(self, root: ET.Element) -> None:
        self.file.write_bytes(ET.tostring(root))
        # cibadmin compares the file with its signature where there is one.
        self.file.with_suffix(".xml.sig").unlink(missing_ok=True)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    file = tmp_path / "cib.xml"
    file.write_text(CIB)
    monkeypatch.setenv("CIB_file", str(file))
    return Node("cfguest1", file, SecretStore(str(tmp_path / "one")))


@pytest.fixture
def other(node: Node, tmp_path: Path) -> Node:
    return Node("cfguest2", node.file, SecretStore(str(tmp_path / "two")))


def refused(node: Node, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Run what must be refused with one clear message, and without a trace in the CIB."""
    before = node.file.read_bytes()
    capsys.readouterr()
    assert node.run(*arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("clsnmpsetup: ")
    assert "Traceback" not in output.err
    assert node.file.read_bytes() == before
    return output.err


def test_the_listing_is_the_manuals_to_the_character(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest1", *ONE)
    node.run("-a", "cfguest2", *DATA)
    capsys.readouterr()
    assert node.run("-l") == 0
    assert capsys.readouterr().out == LISTING_1
    assert len(LISTING_1.splitlines()[1]) == 115


def test_longer_values_push_the_row_and_stay_apart() -> None:
    long = XscfNode("n" * 18, "d" * 20, 15, "2001:db8:1:2:3:4:5:6", "2001:db8::1", "u" * 15, "telnet")
    assert table([long])[2].split() == [
        "xscf",
        "n" * 18,
        "15",
        "d" * 20,
        "2001:db8:1:2:3:4:5:6",
        "2001:db8::1",
        "u" * 15,
        "telnet",
    ]


def test_an_empty_listing_is_the_heading_alone(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.run("-l") == 0
    assert capsys.readouterr().out.splitlines() == LISTING_1.splitlines()[:2]


def test_json_names_weight_and_faults_but_no_password(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest2", *DATA, "--weight", "3")
    capsys.readouterr()
    assert node.run("-l", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "device": "xscf",
            "node": "cfguest2",
            "domain": "guest2",
            "ppar_id": 1,
            "lan0": "10.20.30.73",
            "lan1": "10.20.40.73",
            "user": "xuser",
            "connection": "ssh",
            "weight": 3,
            "faults": [],
        }
    ]


def test_adding_puts_everything_but_the_secret_into_the_cib(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node.run("-a", "cfguest2", *DATA) == 0
    output = capsys.readouterr()
    assert "Registered: cfguest2, domain guest2, PPAR-ID 1" in output.out
    assert "on each other node, for its password file: cfguest2." in output.out
    assert devices.registered(node.cib())[0].lan0 == "10.20.30.73"
    assert record.read(node.cib()) == record.Record.fresh(epoch=2)
    assert SECRET not in node.file.read_text() + output.out + output.err
    kept = node.secrets.path("cfguest2")
    assert kept.read_text() == SECRET + "\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert [path.name for path in kept.parent.iterdir()] == ["xscf-cfguest2"]


def test_the_same_command_on_the_other_node_stores_the_secret_and_nothing_else(
    node: Node, other: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = node.file.read_bytes()
    capsys.readouterr()
    assert other.run("-a", "cfguest2", *DATA) == 0
    assert "registered already with the same data: the password is stored" in capsys.readouterr().out
    assert node.file.read_bytes() == before
    assert other.secrets.read("cfguest2") == SECRET


def test_storing_the_secret_is_possible_while_a_window_is_open(node: Node, other: Node) -> None:
    node.run("-a", "cfguest2", *DATA)
    open_window(node)
    assert other.run("-a", "cfguest2", *DATA) == 0
    assert other.secrets.read("cfguest2") == SECRET


def test_adding_with_other_data_is_refused_and_points_to_modify(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    message = refused(node, capsys, "-a", "cfguest2", *DATA[:-1], "telnet", "--weight", "2")
    assert "(connection is ssh, weight is 1); nothing was changed" in message
    assert "next: clsnmpsetup -m cfguest2" in message


def test_devices_that_could_not_start_without_the_secret_are_started_again(node: Node, other: Node) -> None:
    node.run("-a", "cfguest1", *ONE)
    root = node.cib()
    status = root.find("status")
    assert status is not None
    status.append(
        ET.fromstring(
            '<node_state id="2" uname="cfguest2"><lrm id="2"><lrm_resources>'
            '<lrm_resource id="SA_xscfsnmpg1p-cfguest1" class="stonith" type="fence_xscf">'
            '<lrm_rsc_op id="o" operation="start" rc-code="1"/></lrm_resource></lrm_resources></lrm>'
            "</node_state>"
        )
    )
    node.put(root)
    assert other.run("-a", "cfguest1", *ONE) == 0
    assert other.cleaned == ["SA_xscfsnmpg1p-cfguest1 cfguest2"]
    assert node.cleaned == []


def test_modify_changes_what_is_given_and_keeps_the_rest(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = devices.registered(node.cib())[0]
    assert node.run("-m", "cfguest2", "--lan0", "10.20.30.72", "--ppar-id", "0", "--weight", "5") == 0
    assert devices.registered(node.cib()) == (replace(before, lan0="10.20.30.72", ppar_id=0, weight=5),)
    assert "Changed: cfguest2" in capsys.readouterr().out


def test_modify_with_a_password_alone_touches_this_nodes_file_only(node: Node, tmp_path: Path) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = node.file.read_bytes()
    (tmp_path / "pw").write_text("another\n")
    assert node.run("-m", "cfguest2", "--password-file", str(tmp_path / "pw")) == 0
    assert node.secrets.read("cfguest2") == "another"
    assert node.file.read_bytes() == before


def test_modifying_to_the_same_data_changes_nothing_and_says_so(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = node.file.read_bytes()
    assert node.run("-m", "cfguest2", "--ppar-id", "1") == 0
    assert node.file.read_bytes() == before
    assert "nothing to change" in capsys.readouterr().out


def test_deleting_the_last_node_leaves_the_cib_as_before_the_first(node: Node) -> None:
    node.run("-a", "cfguest1", *ONE)
    node.run("-a", "cfguest2", *DATA)
    assert node.run("-d", "cfguest1", "--yes") == 0
    assert [found.node for found in devices.registered(node.cib())] == ["cfguest2"]
    assert node.run("-d", "cfguest2", "--yes") == 0
    assert devices.same_configuration(node.cib(), ET.fromstring(CIB))
    assert list(node.secrets.folder.iterdir()) == []


def test_deleting_asks_and_no_means_no(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest2", *DATA)
    node.answers = [True, False]
    refused(node, capsys, "-d", "cfguest2")
    assert node.secrets.has("cfguest2")
    assert node.run("-d", "cfguest2") == 0
    assert devices.registered(node.cib()) == ()


def test_deleting_on_the_other_node_removes_its_secret(
    node: Node, other: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    other.run("-a", "cfguest2", *DATA)
    node.run("-d", "cfguest2", "--yes")
    assert other.run("-d", "cfguest2") == 0
    assert not other.secrets.has("cfguest2")
    assert "no XSCF data is registered for cfguest2" in refused(other, capsys, "-d", "cfguest2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", "cfguest1", *ONE),
        ("-m", "cfguest2", "--weight", "9"),
        ("-d", "cfguest2", "--yes"),
        ("-d", "cfguest2"),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    node: Node, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = node.file.read_bytes()
    capsys.readouterr()
    assert node.run(*arguments, "-n") == 0
    output = capsys.readouterr().out
    assert output.startswith("Would ")
    assert output.endswith("Nothing was changed.\n")
    assert node.file.read_bytes() == before
    assert [path.name for path in node.secrets.folder.iterdir()] == ["xscf-cfguest2"]


def open_window(node: Node) -> None:
    root = node.cib()
    found = record.read(root)
    assert found is not None
    record.write(root, found.next(phase=record.Phase.OPEN, mover="cfguest2"))
    node.put(root)


@pytest.mark.parametrize(
    "arguments",
    [("-a", "cfguest1", *ONE), ("-m", "cfguest2", "--weight", "9"), ("-d", "cfguest2", "--yes")],
)
def test_nothing_is_set_up_while_a_window_is_open(
    node: Node, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    open_window(node)
    message = refused(node, capsys, *arguments)
    assert "a migration window for cfguest2 is open; set-up waits until it is closed" in message
    assert "next: clovmmigrate -u" in message
    assert [path.name for path in node.secrets.folder.iterdir()] == ["xscf-cfguest2"]


def test_a_node_that_the_cluster_does_not_have_is_refused(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(node, capsys, "-a", "cfguest9", *DATA)
    assert "cfguest9 is no node of this cluster; its nodes are cfguest1, cfguest2" in message
    assert not node.secrets.has("cfguest9")


@pytest.mark.parametrize(
    "arguments", [("-m", "cfguest1", "--weight", "2"), ("-d", "cfguest1"), ("--check", "cfguest1")]
)
def test_a_node_that_is_not_registered_is_refused(
    node: Node, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert "no XSCF data is registered for cfguest1" in refused(node, capsys, *arguments)


def test_who_is_not_root_is_refused(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.root = False
    assert "must be run as root" in refused(node, capsys, "-l")


def test_a_cluster_that_does_not_run_is_named_with_what_to_start(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_file", "/nonexistent/cib.xml")
    message = refused(node, capsys, "-a", "cfguest1", *ONE)
    assert "the cluster is not running on this node" in message
    assert "next: systemctl start corosync pacemaker" in message
    assert not node.secrets.has("cfguest1")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--ppar-id", "16", "--ppar-id 16: must be a whole number from 0 to 15"),
        ("--lan0", "xscf", "--lan0 'xscf': must be a literal IPv4 or IPv6 address"),
        ("--lan1", "10.20.30.73", "--lan1 '10.20.30.73': must differ from lan0"),
        ("--domain", "a b", "--domain 'a b': must be a logical domain name"),
        ("--user", "", "--user '': must be a user name"),
        ("--connection", "snmp", "--connection 'snmp': must be ssh or telnet"),
        ("--weight", "0", "--weight 0: must be a whole number from 1 to 100"),
    ],
)
def test_each_wrong_field_is_named_with_what_is_allowed(
    node: Node, capsys: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    assert words in refused(node, capsys, "-a", "cfguest2", *DATA, option, value, code=2)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-a"],
        ["-a", "cfguest2"],
        ["-a", "cfguest2", *DATA[:-2]],
        ["-m", "cfguest2"],
        ["-d", "cfguest2", "--weight", "2"],
        ["-l", "-d", "x"],
        ["-l", "--user", "x"],
        ["-a", "cfguest2", *DATA, "--ppar-id", "one"],
        ["-a", "cfguest2", *DATA, "--json"],
        ["--chec"],
    ],
)
def test_wrong_usage_is_exit_code_2(
    node: Node, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        node.run(*arguments)
    assert caught.value.code == 2
    assert "usage: clsnmpsetup" in capsys.readouterr().err


def test_a_change_is_made_anew_when_somebody_else_wrote_first(node: Node) -> None:
    tries: list[int] = []

    def apply(before: ET.Element, wanted: ET.Element) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise cib.CibConflict("somebody else wrote first")
        cib.apply(before, wanted)

    assert clsnmpsetup.main(["-a", "cfguest2", *DATA], replace(node.outside(), apply=apply)) == 0
    assert len(tries) == 3
    assert len(devices.registered(node.cib())) == 1


@pytest.mark.parametrize(
    ("error", "kept", "words"),
    [
        (cib.CibConflict("no"), None, "8 times in a row; nothing was changed"),
        (cib.CibError("schema"), None, "schema; nothing was changed"),
        (cib.CibUnknown("no answer"), SECRET, "whether the change was made is not known yet"),
    ],
)
@pytest.mark.parametrize("old", [None, "old"])
def test_a_change_that_fails_puts_the_secret_back_unless_it_may_still_land(
    node: Node,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    kept: str | None,
    words: str,
    old: str | None,
) -> None:
    def apply(before: ET.Element, wanted: ET.Element) -> None:
        raise error

    if old is not None:
        node.secrets.write("cfguest2", old)
    assert clsnmpsetup.main(["-a", "cfguest2", *DATA], replace(node.outside(), apply=apply)) == 1
    assert words in capsys.readouterr().err
    assert node.secrets.read("cfguest2") == (kept or old)


def test_two_first_registrations_at_once_do_not_mix(node: Node) -> None:
    before = node.outside().query()
    one = devices.with_node(before, XscfNode("cfguest1", "guest1", 0, "10.0.0.1", "10.0.0.2", "x", "ssh"))
    two = devices.with_node(before, XscfNode("cfguest2", "guest2", 0, "10.0.0.3", "10.0.0.4", "x", "ssh"))
    cib.apply(before, one)
    with pytest.raises(cib.CibError):
        cib.apply(before, two)
    assert [found.node for found in devices.registered(node.cib())] == ["cfguest1"]


def test_a_window_that_opens_meanwhile_refuses_the_change(node: Node) -> None:
    node.run("-a", "cfguest2", *DATA)
    before = node.outside().query()
    late = devices.with_node(before, replace(devices.registered(before)[0], weight=9))
    open_window(node)
    with pytest.raises(cib.CibConflict):
        cib.apply(before, late)


def test_check_asks_the_first_agent_of_each_lan(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest2", *DATA)
    capsys.readouterr()
    assert node.run("--check") == 0
    assert [(asked["ip"], asked["password_file"]) for asked in node.probed] == [
        ("10.20.30.73", "/etc/standfast/secrets/xscf-cfguest2"),
        ("10.20.40.73", "/etc/standfast/secrets/xscf-cfguest2"),
    ]
    assert capsys.readouterr().out.splitlines() == [
        "cfguest2: LAN#0 10.20.30.73: login works, the domain is running",
        "cfguest2: LAN#1 10.20.40.73: login works, the domain is running",
        "cfguest2: usable from this node",
    ]


def test_check_says_which_lan_fails_and_why(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest2", *DATA)
    node.probes["10.20.30.73"] = Probe(False, "no route to host")
    assert node.run("--check", "cfguest2") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "cfguest2: LAN#0 10.20.30.73: no route to host" in lines
    assert lines[-1] == "cfguest2: not usable from this node"


def test_check_without_the_secret_says_how_to_store_it(
    node: Node, other: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.run("-a", "cfguest2", *DATA)
    assert other.run("--check") == 1
    assert "store it: clsnmpsetup -m cfguest2 --password" in capsys.readouterr().out
    assert other.probed == []


def test_check_names_damage_in_the_cib(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.run("-a", "cfguest2", *DATA)
    root = node.cib()
    constraints = root.find("./configuration/constraints")
    assert constraints is not None
    constraints.remove(constraints[0])
    node.put(root)
    assert node.run("--check") == 1
    assert "gate-cfguest2-1 is not banned from cfguest2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("two\nlines\n", "must be one line"),
        ("tab\there", "must be one line"),
        ("x" * 257, "must be one line of at most 256"),
    ],
)
def test_a_password_file_that_is_no_password_is_refused(
    node: Node, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "pw").write_text(content)
    message = refused(node, capsys, "-a", "cfguest2", *DATA, "--password-file", str(tmp_path / "pw"))
    assert words in message
    assert not node.secrets.has("cfguest2")


def test_a_missing_password_file_is_named(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(node, capsys, "-a", "cfguest2", *DATA, "--password-file", "/nonexistent/pw")
    assert "password file /nonexistent/pw cannot be read: No such file or directory" in message


def test_the_password_is_asked_twice_with_the_products_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def getpass(prompt: str) -> str:
        prompts.append(prompt)
        return "same"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(secret_store.getpass, "getpass", getpass)
    assert secret_store.from_terminal() == "same"
    assert prompts == ["Enter User's Password:", "Re-enter User's Password:"]


def test_two_different_passwords_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one", "two"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(secret_store.getpass, "getpass", lambda prompt: next(typed))
    with pytest.raises(Refused, match="the two passwords differ; nothing was changed"):
        secret_store.from_terminal()


def test_without_a_terminal_a_password_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(Refused) as caught:
        secret_store.from_terminal()
    assert caught.value.messages[0].next_command == "use --password-file FILE"


def test_a_secret_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    store = SecretStore(str(tmp_path / "s"))
    store.write("n", "first")
    os.chmod(store.path("n"), 0o644)  # noqa: PTH101
    store.write("n", "second")
    assert store.read("n") == "second"
    assert stat.S_IMODE(store.path("n").stat().st_mode) == 0o600
    assert store.remove("n") is True
    assert store.remove("n") is False
    assert store.read("n") is None


def test_a_folder_that_cannot_be_written_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file")
    with pytest.raises(Refused, match="the password cannot be stored in"):
        SecretStore(str(tmp_path / "s")).write("n", "x")


def test_a_password_that_is_kept_elsewhere_by_a_link_is_changed_there(tmp_path: Path) -> None:
    store = SecretStore(str(tmp_path / "s"))
    store.write("n", "old")
    (tmp_path / "kept").mkdir()
    kept = store.path("n").rename(tmp_path / "kept" / "n")
    store.path("n").symlink_to(kept)
    store.write("n", "new")
    assert store.path("n").readlink() == kept
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("new\n", 0o600)
    assert store.remove("n")
    assert not kept.exists()
    assert not store.remove("n")
