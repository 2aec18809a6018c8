"""clsnmpsetup on a real cluster with emulated XSCFs: made, tried, started, and gone without a trace."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pytest
from conftest import LabMaker

from standfast.cluster.run import Result
from standfast.core import devices, names
from standfast.lab.cluster import Lab
from standfast.lab.emulators import worldfile
from standfast.lab.emulators.control import Control

PASSWORD_FILE = "/run/xscf-password"
DATA = {
    f"cfguest{number}": [
        "--domain", f"guest{number}", "--ppar-id", "0", "--lan0", f"10.20.30.{70 + number}",
        "--lan1", f"10.20.40.{70 + number}", "--user", "xuser", "--connection", "ssh",
    ]
    for number in (1, 2)
}  # fmt: skip
LISTING = """\
device-name cluster-host-name PPAR-ID domain-name    IP-address1     IP-address2     user-name      connection-type
-------------------------------------------------------------------------------------------------------------------
xscf        cfguest1          0       guest1         10.20.30.71     10.20.40.71     xuser          ssh
xscf        cfguest2          0       guest2         10.20.30.72     10.20.40.72     xuser          ssh
"""  # noqa: E501


@dataclass
class Place:
    """A lab with hosts and XSCFs, on which nothing of Standfast is set up yet."""

    lab: Lab
    control: Control
    written: worldfile.Written

    def put(self, node: str, path: str, text: str) -> None:
        script = 'umask 077; mkdir -p "$(dirname "$1")" && cat > "$1"'
        assert self.lab.exec(node, ["sh", "-c", script, "put", path], input=text).ok

    def setup(self, node: str, *arguments: str) -> Result:
        return self.lab.exec(node, ["clsnmpsetup", *arguments], limit_seconds=90)

    def add(self, on: str, target: str) -> Result:
        return self.setup(on, "-a", target, *DATA[target], "--password-file", PASSWORD_FILE)

    def configuration(self) -> str:
        done = self.lab.exec("cfguest1", ["cibadmin", "--query", "--local", "--scope", "configuration"])
        assert done.ok
        return done.stdout

    def cib(self, node: str) -> ET.Element:
        return ET.fromstring(self.lab.exec(node, ["cibadmin", "--query", "--local"]).stdout)


def wait(condition: Callable[[], bool], limit_seconds: float) -> bool:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def site(module_labs: LabMaker) -> Iterator[Place]:
    """The place that the tests of this file share, with nothing registered."""
    lab = module_labs(fencing="none", hosts=True)
    folder = lab.root / "hosts"
    written = worldfile.write(folder, 2, lab=lab.id)
    socket = folder / "control.sock"
    argv = [
        sys.executable,
        "-m",
        "standfast.lab.emulators",
        "--world",
        str(written.world),
        "--control",
        str(socket),
    ]
    lab.add_outside_process(argv, folder / "emulators.log", hardware=True)
    control = Control(socket, limit_seconds=30.0)
    made = Place(lab, control, written)
    for node in lab.nodes:
        made.put(node, names.KNOWN_HOSTS_FILE, written.known_hosts.read_text())
        made.put(node, PASSWORD_FILE, written.xscf_password + "\n")
    assert lab.exec(
        "cfguest1", ["crm_attribute", "-t", "crm_config", "-n", "stonith-enabled", "-v", "true"]
    ).ok
    yield made
    control.close()


@pytest.fixture
def place(site: Place) -> Iterator[Place]:
    """The shared place; whatever a test registers is taken away after it."""
    yield site
    for target in site.lab.nodes:
        for on in site.lab.nodes:
            site.setup(on, "-d", target, "--yes")
    site.control.reset()
    assert site.lab.exec("cfguest1", ["crm_resource", "--cleanup"]).ok
    site.lab.wait_settled()


@pytest.mark.timeout(240)
def test_a_cluster_is_set_up_tried_and_cleared_without_a_trace(place: Place) -> None:
    before = place.configuration()
    for on in place.lab.nodes:
        for target in place.lab.nodes:
            done = place.add(on, target)
            assert (done.returncode, done.stderr) == (0, "")
    for node in place.lab.nodes:
        assert place.setup(node, "-l").stdout == LISTING
        checked = place.setup(node, "--check")
        assert checked.returncode == 0, checked.stdout
        assert checked.stdout.count("login works, the domain is running") == 4
        secrets = place.lab.exec(
            node, ["stat", "-c", "%a %U %n", names.SECRETS_DIR, names.secret_file("cfguest1")]
        )
        assert secrets.stdout.splitlines() == [
            f"700 root {names.SECRETS_DIR}",
            f"600 root {names.secret_file('cfguest1')}",
        ]
    assert place.written.xscf_password not in place.configuration()

    def started() -> bool:
        seen = place.lab.status()
        ours = [] if seen is None else [r for r in seen.resources if "cfguest" in r.name and r.name[0] != "r"]
        return len(ours) == 16 and all(r.role == "Started" and not r.failed for r in ours)

    assert wait(started, 120), place.lab.status()
    seen = place.lab.status()
    assert seen is not None
    on_itself = [
        r.name for r in seen.resources if r.name[0] != "r" for node in r.nodes if r.name.endswith(node)
    ]
    assert on_itself == []
    verified = place.lab.exec("cfguest1", ["crm_verify", "-L", "-VV"])
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    for target in place.lab.nodes:
        assert place.setup("cfguest1", "-d", target, "--yes").ok
        assert place.setup("cfguest2", "-d", target).ok
    assert place.configuration() == before
    for node in place.lab.nodes:
        assert place.lab.exec(node, ["ls", names.SECRETS_DIR]).stdout == ""
    assert place.lab.power_calls() == []


def test_a_device_that_failed_for_want_of_the_password_starts_once_it_is_stored(place: Place) -> None:
    assert place.add("cfguest1", "cfguest1").ok

    def failed() -> bool:
        return devices.failed_starts(place.cib("cfguest1"), "cfguest2", "cfguest1") != ()

    assert wait(failed, 60), "cfguest2 has no password, so nothing can start there"
    assert place.add("cfguest2", "cfguest1").ok

    def started() -> bool:
        seen = place.lab.status()
        ours = [] if seen is None else [r for r in seen.resources if r.name.startswith("SA_")]
        return len(ours) == 4 and all(r.role == "Started" and r.nodes == ("cfguest2",) for r in ours)

    assert wait(started, 120), place.lab.status()


def test_check_names_a_dead_lan_and_a_wrong_password(place: Place) -> None:
    assert place.add("cfguest1", "cfguest1").ok
    place.put("cfguest1", "/run/wrong", "wrong\n")
    assert place.setup("cfguest1", "-m", "cfguest1", "--password-file", "/run/wrong").ok
    refused = place.setup("cfguest1", "--check", "cfguest1")
    assert refused.returncode == 1
    assert "cfguest1: not usable from this node" in refused.stdout
    assert place.setup("cfguest1", "-m", "cfguest1", "--password-file", PASSWORD_FILE).ok
    assert place.setup("cfguest1", "--check").ok
    assert place.setup("cfguest1", "-m", "cfguest1", "--lan0", "10.20.30.99").ok
    dead = place.setup("cfguest1", "--check")
    assert dead.returncode == 1
    lines = dead.stdout.splitlines()
    assert lines[0].startswith("cfguest1: LAN#0 10.20.30.99: ")
    assert "login works" not in lines[0]
    assert lines[1] == "cfguest1: LAN#1 10.20.40.71: login works, the domain is running"
