"""The gate's own way to hosts with libvirt: the real virsh behind a fake ssh, and the built program."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_world import IDLE, World
from gate_world import cib as cib_text
from hosts_kit import IDENTITIES, LibvirtSite, libvirtd
from test_killing_gate import MORE, WINDOW

from standfast.commands import build_gate, gate_hosts
from standfast.core import devices, guarded
from standfast.core.devices import HostNode
from standfast.core.evidence import GuestState
from standfast.sightings import Sightings, boottime_seconds

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="libvirtd is started as root")
CONF = """format = 1
[[control_domain]]
name = "ctrl1"
address = "10.20.50.71"
kind = "libvirt"
login = "standfast"
[[control_domain]]
name = "ctrl2"
address = "10.20.50.72"
kind = "libvirt"
uri = "qemu+tls://ctrl2/system"
[[control_domain]]
name = "ctrl3"
address = "10.20.50.73"
kind = "manual"
"""
# The real virsh, asked for the real libvirtd of the test whatever URI the gate names.
VIRSH = """#!/usr/bin/python3 -IS
import os, sys, time
with open("{folder}/calls", "a") as calls:
    calls.write(" ".join(["virsh", *sys.argv[1:]]).replace(chr(10), " ") + chr(10))
if os.path.exists("{folder}/hang"):
    time.sleep(30)
uri = os.environ.get("STANDFAST_TEST_URI", "{uri}")
words = [uri if word.startswith("qemu") else word for word in sys.argv[1:]]
os.execv("/usr/bin/virsh", ["virsh", *words])
"""
SSH = """#!/bin/sh
echo "ssh $*" >> {folder}/calls
for word in "$@"; do case "$word" in 10.*) host=$word;; esac; done
test ! -e {folder}/uri-$host || export STANDFAST_TEST_URI="$(cat {folder}/uri-$host)"
exec sh -c "$word"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with libvirtd(tmp_path_factory.mktemp("libvirt") / "d") as address:
        yield address


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("gate") / "fence_standfast"
    build_gate.build(destination)
    return destination


class Node:
    """A node whose hosts are one real libvirt, by ssh and from here, and one that nobody asks."""

    def __init__(self, world: World, site: LibvirtSite) -> None:
        self.world, self.site = world, site
        for name, text in (("virsh", VIRSH), ("ssh", SSH)):
            path = world.bin / name
            path.write_text(text.format(folder=world.folder, uri=site.uri))
            path.chmod(0o755)
        world.conf(CONF)

    @property
    def hosts(self) -> gate_hosts.Hosts:
        return gate_hosts.Hosts(str(self.world.root))


@pytest.fixture
def node(
    tmp_path_factory: pytest.TempPathFactory, program: Path, daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> Node:
    # Short names: there is a socket below, and the path of one has 107 characters at most (unix(7)).
    world = World(tmp_path_factory.mktemp("w"), program)
    monkeypatch.setenv("PATH", f"{world.bin}:{os.environ['PATH']}")
    return Node(world, LibvirtSite(daemon, tmp_path_factory.mktemp("s"), None))


def test_the_gate_asks_by_ssh_and_from_here_and_knows_whom_nobody_asks(node: Node) -> None:
    answers, note = node.hosts.ask(["guest2", "app72", "guest1"])
    assert note == "standfastd is not running"
    said = {guest: [answer.state for answer in all_of] for guest, all_of in answers.items()}
    assert said == {
        "guest2": [GuestState.RUNNING, GuestState.RUNNING, GuestState.SILENT],
        "app72": [GuestState.STOPPED, GuestState.STOPPED, GuestState.SILENT],
        "guest1": [GuestState.ABSENT, GuestState.ABSENT, GuestState.SILENT],
    }
    assert {answer.identity for answer in answers["guest2"][:2]} == {IDENTITIES["guest2"]}
    assert len(node.world.calls("ssh")) == 1
    assert len(node.world.calls("virsh")) == 2


def test_a_guest_that_a_fresh_listing_did_not_ask_for_is_asked_for(node: Node) -> None:
    hosts = node.hosts
    hosts.ask(["guest2"])
    assert hosts.ask(["guest2"])[0]["guest2"][0].state is GuestState.RUNNING
    assert hosts.rounds == 1
    assert hosts.ask(["passing"])[0]["passing"][0].state is GuestState.PAUSED
    assert hosts.rounds == 2


def test_an_order_is_given_to_the_very_guest_that_was_seen(node: Node) -> None:
    hosts = node.hosts
    assert hosts.ask_one("ctrl1", "guest2").identity == IDENTITIES["guest2"]
    assert hosts.order("ctrl1", "guest2", kill=True) == ""
    assert hosts.ask_one("ctrl1", "guest2").state is GuestState.STOPPED
    order = next(call for call in node.world.calls("virsh") if "destroy" in call)
    assert shlex.split(order)[-2:] == ["destroy", IDENTITIES["guest2"]]
    assert "--readonly" not in order
    assert "domain is not running" in hosts.order("ctrl2", "guest2", kill=True)
    assert "not supported" in hosts.order("ctrl1", "guest2", kill=False)
    assert hosts.order("ctrl3", "guest2", kill=True) == "no login there"


def test_a_host_that_hangs_is_silent_within_the_limit_and_no_client_is_left_here(node: Node) -> None:
    (node.world.folder / "hang").touch()
    for name in ("ctrl1", "ctrl2"):
        answer = node.hosts.ask_one(name, "guest2")
        assert (answer.state, "no answer within" in answer.detail) == (GuestState.SILENT, True)
    left = subprocess.run(["pgrep", "-f", "qemu[+]tls://ctrl2/system"], capture_output=True, text=True)
    assert left.stdout == ""


def test_a_program_that_is_not_there_is_silence_and_never_absence(node: Node) -> None:
    (node.world.bin / "virsh").write_text("#!/nonexistent\n")
    for guest in ("guest2", "guest1"):
        answer = node.hosts.ask_one("ctrl2", guest)
        assert (answer.state, bool(answer.detail)) == (GuestState.SILENT, True)


def test_the_killing_gate_stops_a_guest_that_hangs_by_its_uuid_and_proves_that_it_is_gone(
    node: Node, tmp_path_factory: pytest.TempPathFactory
) -> None:
    by_ssh = CONF.partition('[[control_domain]]\nname = "ctrl2"')[0]
    entry = by_ssh.partition("\n")[2]
    node.world.conf(
        by_ssh
        + entry.replace("ctrl1", "ctrl2").replace(".71", ".72")
        + entry.replace("ctrl1", "ctrl3").replace(".71", ".73")
    )
    tree = guarded.guard(ET.fromstring(cib_text(WINDOW, {})), "cfguest2")
    node.world.cib(None, text=ET.tostring(tree, encoding="unicode"))
    sightings = str(node.world.root / "run/standfast/sightings.json")
    for ago in range(70, -1, -1):
        seen = Sightings(sightings, clock=lambda ago=ago: boottime_seconds() - ago)
        seen.plain("guest2", "ctrl2")
        seen.dropped("cfguest2", quorate=True)
    with libvirtd(tmp_path_factory.mktemp("e") / "d") as empty:
        for address in ("10.20.50.71", "10.20.50.73"):
            (node.world.folder / f"uri-{address}").write_text(f"test+unix:///default?socket={empty}")
        called = node.world.gate("reboot", more=MORE)
    assert (called.code, called.rule) == (0, "kill"), called.log
    orders = [shlex.split(call)[-2:] for call in node.world.calls("virsh") if "--readonly" not in call]
    assert orders == [["destroy", IDENTITIES["guest2"]]]
    assert node.site.virsh("domstate", "guest2").strip() == "shut off"


def test_the_built_gate_imports_what_it_needs_for_libvirt_from_its_own_zip(node: Node) -> None:
    world = node.world
    world.cib(WINDOW)
    argv = ["/usr/bin/python3", "-I", "-S", "-v", str(world.program), "--root", str(world.root)]
    words = [*argv, "action=off", "plug=cfguest2", "kill=1", "guest=guest2", "pcmk_host_list=cfguest2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = set(re.findall(r"import '(standfast[\w.]*)'", done.stderr))
    wanted = (*build_gate.MODULES, *build_gate.KILL_MODULES, *build_gate.LIBVIRT_MODULES)
    assert said == {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in wanted}
    assert world.calls("virsh"), "it asked"


def fenced_conf(*kinds: str) -> str:
    """Hosts ctrl1, ctrl2, ... of these kinds, with fence_virsh."""
    text = "format = 1\n"
    for number, kind in enumerate(kinds, 1):
        login = 'login = "standfast"\n' if kind == "libvirt" else ""
        text += f"""[[control_domain]]
name = "ctrl{number}"
address = "10.20.50.7{number}"
kind = "{kind}"
{login}fence_agent = "fence_virsh"
[control_domain.fence_parameters]
ip = "10.20.50.7{number}"
username = "root"
"""
    return text


def registered(guest: str, aim: int) -> str:
    """A CIB in which cfguest2 is `guest`, and its fence_virsh aims at ctrl`aim`."""
    root = ET.fromstring(cib_text(IDLE, {}))
    for section in ("resources", "fencing-topology"):
        for child in list(root.find(f"./configuration/{section}") or ()):
            root.find(f"./configuration/{section}").remove(child)  # type: ignore[union-attr]
    reach = (("ip", f"10.20.50.7{aim}"), ("username", "root"))
    return ET.tostring(devices.with_node(root, HostNode("cfguest2", guest, "fence_virsh", reach)), "unicode")


@pytest.mark.parametrize(
    ("guest", "aim", "kinds", "rule", "said"),
    [
        ("guest2", 1, ("libvirt",), "clear", ""),
        ("passing", 1, ("libvirt",), "clear", ""),
        ("guest2", 2, ("libvirt", "manual"), "elsewhere", "repair with: clovmmigrate -u guest2 ctrl1"),
        ("app72", 1, ("libvirt",), "clear", ""),
        ("app72", 1, ("libvirt", "manual"), "no-evidence", "ctrl1 shows app72 stopped, so that its device"),
        ("app72", 2, ("libvirt", "manual"), "clear", ""),
        ("guest2", 3, ("libvirt", "libvirt"), "no-evidence", "aims at no host of clovmmigrate.conf"),
        ("guest2", 1, ("manual", "manual"), "clear", ""),
    ],
)
def test_an_agent_that_trusts_its_host_is_let_through_by_evidence_alone(
    node: Node, guest: str, aim: int, kinds: tuple[str, ...], rule: str, said: str
) -> None:
    node.world.conf(fenced_conf(*kinds))
    node.world.cib(None, text=registered(guest, aim))
    called = node.world.gate("off")
    assert (called.code, called.rule) == (int(rule != "clear"), rule), called.log
    assert said in called.said


def test_without_a_file_of_hosts_an_agent_that_trusts_its_host_is_not_let_through(node: Node) -> None:
    node.world.conf(None)
    node.world.cib(None, text=registered("guest2", 1))
    called = node.world.gate("off")
    assert (called.code, called.rule) == (1, "no-evidence"), called.log
    assert "clovmmigrate.conf cannot be read" in called.log
