"""What the commands refuse on a real cluster: one clear message each, and every node as before."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from window_kit import (
    GUEST,
    Picture,
    eventually,
    home,
    members,
    migrate_command,
    opened,
    spare,
    window,
)

from standfast.core import names
from standfast.core.record import Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(240)
AS_NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    # The programs of a source tree may lie where only root can look.
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip
LAST = "cfguest3"


@contextmanager
def nothing_changes(scene: Scene, *nodes: str) -> Iterator[None]:
    """Every node is, and the record stays, as it was."""
    before, record = Picture.of(scene, *nodes), window(scene, "cfguest1")
    yield
    assert before.differences(Picture.of(scene, *nodes)) == []
    assert window(scene, "cfguest1") == record


def refused(scene: Scene, node: str, *argv: str) -> str:
    """``clovmmigrate`` refuses with exit 1 and no change; what it said."""
    with nothing_changes(scene, *sorted(members(scene, "cfguest1"))):
        done = migrate_command(scene, node, *argv)
        assert done.returncode == 1, done.stderr + done.stdout
    return done.stderr


def retest(scene: Scene, *nodes: str) -> None:
    for node in nodes or scene.lab.nodes:
        assert scene.run(node, "sdtool", "-r").ok


@contextmanager
def other_file(scene: Scene, node: str, path: str, text: str | None) -> Iterator[None]:
    """A file of a node has another text (None: it is missing), and the daemon has seen it."""
    here = scene.path(node, path)
    old, mode = here.read_text(), here.stat().st_mode
    if text is None:
        here.unlink()
    else:
        here.write_text(text)
    retest(scene, node)
    yield
    here.write_text(old)
    here.chmod(mode)
    retest(scene, node)


@contextmanager
def read_only(scene: Scene, node: str) -> Iterator[None]:
    """/etc/corosync of a node cannot be written."""
    assert scene.run(node, "mount", "--bind", "/etc/corosync", "/etc/corosync").ok
    assert scene.run(node, "mount", "-o", "remount,ro,bind", "/etc/corosync").ok
    try:
        yield
    finally:
        assert scene.run(node, "umount", "/etc/corosync").ok


@contextmanager
def option(scene: Scene, name: str, value: str, after: str) -> Iterator[None]:
    """A cluster option has another value; `after` (empty: none) from then on."""
    argv = ["crm_attribute", "-t", "crm_config", "-n", name]
    assert scene.run("cfguest1", *argv, "-v", value).ok
    yield
    assert scene.run("cfguest1", *argv, *(["-v", after] if after else ["-D"])).ok


def test_operands_that_mean_nothing_are_named(scene: Scene) -> None:
    with nothing_changes(scene):
        for argv in (["-p", "guest9"], ["-u", "guest9", home(scene)]):
            done = migrate_command(scene, "cfguest1", *argv)
            assert done.returncode == 1
            assert "'guest9' (known: guest1, guest2, guest3) [UNKNOWN_GUEST]" in done.stderr
        for host in ("ctrl9", "10.20.50.99"):
            done = migrate_command(scene, "cfguest1", "-u", GUEST, host)
            assert done.returncode == 1
            assert f"{host} is no control domain of clovmmigrate.conf" in done.stderr
        for argv in (["-u", GUEST], ["-p", "-u"], [], ["-p", "--budget", "5"], ["-p", GUEST, "x"]):
            assert migrate_command(scene, "cfguest1", *argv).returncode == 2


def test_whoever_is_not_root_is_told_so(scene: Scene) -> None:
    with nothing_changes(scene):
        for argv in (["clovmmigrate", "-p"], ["clsnmpsetup", "-d", "cfguest1", "--yes"], ["sdtool", "-e"]):
            done = scene.run("cfguest1", *AS_NOBODY, *argv)
            assert done.returncode == 1, argv
            assert "root" in done.stderr, (argv, done.stderr)
            assert "Traceback" not in done.stderr


def test_no_window_opens_while_an_option_of_the_cluster_speaks_against_it(scene: Scene) -> None:
    with option(scene, "stonith-enabled", "false", "true"):
        assert "stonith-enabled is false" in refused(scene, "cfguest1", "-p")
    with option(scene, "maintenance-mode", "true", ""):
        assert "maintenance-mode is on already" in refused(scene, "cfguest1", "-p")


def test_no_window_opens_with_a_node_in_standby(scene: Scene) -> None:
    argv = ["crm_attribute", "-N", LAST, "-n", "standby"]
    assert scene.run("cfguest1", *argv, "-v", "on").ok
    scene.wait(lambda: f"r-{LAST}" in str(scene.lab.status()), 10, "the standby to be seen")
    eventually(
        lambda: [r.nodes for r in scene.lab.status().resources if r.name == f"r-{LAST}"] != [(LAST,)], 20
    )
    assert f"{LAST} is in standby [NODE_UNWELL]" in refused(scene, "cfguest1", "-p")
    assert scene.run("cfguest1", *argv, "-D").ok


def test_no_window_opens_with_a_node_stopped_and_on_that_node_the_command_says_so(scene: Scene) -> None:
    scene.lab.engine(LAST, "stop")
    assert eventually(lambda: members(scene, "cfguest1") == {"cfguest1", "cfguest2"}, 30)
    assert f"{LAST} is offline [NODE_UNWELL]" in refused(scene, "cfguest1", "-p")
    for argv in (["clovmmigrate", "-p"], ["clsnmpsetup", "-l"], ["clsnmpsetup", "-d", LAST, "--yes"]):
        done = scene.run(LAST, *argv)
        assert done.returncode == 1
        assert "the cluster is not running on this node" in done.stderr
    scene.lab.engine(LAST, "start")


def test_no_window_opens_with_an_agent_that_fails(scene: Scene) -> None:
    scene.control.inject("login_refused", home(scene), "lan0")
    retest(scene, "cfguest1")
    said = refused(scene, LAST, "-p")
    assert (
        "on cfguest1 the agent SA_xscfsnmpg0p-cfguest2 shows TestFailed: fence_xscf: XSCF 10.20.30.72" in said
    )
    assert "login as xuser refused" in said
    scene.control.clear()
    # A service processor where no guest is now must let us in too: the guest may come there.
    scene.control.inject("path_dead", spare(scene), "lan1", mode="refused")
    retest(scene, "cfguest1")
    said = refused(scene, LAST, "-p")
    assert "from cfguest1 the registered user cannot log in to the XSCF at 10.20.40.74" in said
    scene.control.clear()
    retest(scene)


def test_no_window_opens_while_a_control_domain_cannot_be_asked(scene: Scene) -> None:
    text = scene.path("cfguest1", names.KNOWN_HOSTS_FILE).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("10.20.50.74")]
    key = next(line.split(" ", 1)[1] for line in lines if line.startswith("10.20.50.73"))
    with other_file(
        scene, "cfguest1", names.KNOWN_HOSTS_FILE, "\n".join([*lines, f"10.20.50.74 {key}"]) + "\n"
    ):
        said = refused(scene, LAST, "-p")
        assert "cfguest1 cannot ask control domain ctrl4" in said
        assert "host key" in said.lower()


def test_no_window_opens_without_the_password_on_one_node(scene: Scene) -> None:
    with other_file(scene, LAST, names.secret_file("cfguest2"), None):
        said = refused(scene, "cfguest1", "-p")
        assert f"on {LAST} the agent SA_xscfsnmpg0p-cfguest2 shows InitFailed" in said
        assert f"{names.secret_file('cfguest2')} is missing on this node" in said


def test_no_window_opens_with_configurations_that_differ_or_are_wrong(scene: Scene) -> None:
    good = scene.path(LAST, names.CONFIG_FILE).read_text()
    with other_file(scene, LAST, names.CONFIG_FILE, good + "# one more line\n"):
        assert "not the same on all nodes: cfguest1 cfguest2 / cfguest3" in refused(scene, "cfguest1", "-p")
    wrong = {
        "format = 2\n": "format",
        good.replace("weight = 1", 'weight = "heavy"', 1): "weight: must be a whole number",
        good.replace("10.20.50.72", "10.20.50.71"): "10.20.50.71",
        good + "colour = 1\n": "colour",
        "[[control_domain]\n": "line 1",
    }
    for text, named in wrong.items():
        scene.path(LAST, names.CONFIG_FILE).write_text(text)
        assert named in refused(scene, LAST, "-p")
    retest(scene, LAST)
    assert f"{LAST}: /etc/standfast/clovmmigrate.conf" in refused(scene, "cfguest1", "-p")
    scene.path(LAST, names.CONFIG_FILE).write_text(good)
    retest(scene, LAST)


def test_no_window_opens_where_one_file_cannot_be_written_though_it_could_a_moment_ago(scene: Scene) -> None:
    """The roll call has every daemon look at its file again: its last report may be ten seconds old."""
    before = Picture.of(scene)
    with read_only(scene, LAST):
        done = migrate_command(scene, "cfguest1", "-p")
        assert done.returncode == 1
        assert f"{LAST}: corosync.conf cannot be written" in done.stderr
        assert "[COROSYNC_CONF]" in done.stderr
        assert before.differences(Picture.of(scene)) == []
        assert {window(scene, node).phase for node in scene.lab.nodes} == {Phase.IDLE}

        again = migrate_command(scene, "cfguest2", "-p")
        assert again.returncode == 1
        assert f"{LAST}: corosync.conf cannot be written" in again.stderr
        assert before.differences(Picture.of(scene)) == []


def test_no_window_opens_while_the_shutdown_facility_of_a_node_is_stopped(scene: Scene) -> None:
    assert scene.run(LAST, "sdtool", "-e").ok
    said = refused(scene, "cfguest1", "-p")
    assert f"the shutdown facility of {LAST} is stopped [FACILITY_STOPPED]" in said
    assert f"next: sdtool -b (on {LAST})" in said
    assert scene.run(LAST, "sdtool", "-b").ok


def test_a_command_needs_its_own_daemon(scene: Scene) -> None:
    scene.run(LAST, "/bin/sh", "-c", "kill $(cat /run/standfast/standfastd.lock)")
    assert eventually(lambda: scene.run(LAST, "sdtool", "-s").returncode == 1, 10)
    assert "standfastd does not answer on this node" in refused(scene, LAST, "-p")
    assert f"standfastd of {LAST} does not report [NO_REPORT]" in refused(scene, "cfguest1", "-p")
    scene.start_daemon(LAST)
    scene.wait_ready()
    opened(scene, "cfguest1")
