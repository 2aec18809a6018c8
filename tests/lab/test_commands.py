"""What the commands refuse on a real cluster: one clear message each, and every node as before."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from window_kit import (
    GUEST,
    MOVER,
    Picture,
    eventually,
    home,
    members,
    migrate_command,
    opened,
    spare,
    window,
)

from standfast.cluster.run import Result
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
    """``sdtool -r`` on some nodes, all at once."""
    with ThreadPoolExecutor(len(nodes)) as pool:
        assert all(pool.map(lambda node: scene.run(node, "sdtool", "-r").ok, nodes))


@contextmanager
def other_file(scene: Scene, node: str, path: str, text: str | None) -> Iterator[None]:
    """A file of a node has another text (None: it is missing); its daemon reads it with the next retest."""
    here = scene.path(node, path)
    old, mode = here.read_text(), here.stat().st_mode
    if text is None:
        here.unlink()
    else:
        here.write_text(text)
    yield
    here.write_text(old)
    here.chmod(mode)


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


def test_no_window_opens_while_the_cluster_speaks_against_it(scene: Scene) -> None:
    # Not under maintenance: with that, no service would leave or come back.
    with standby(scene, LAST):
        assert f"{LAST} is in standby [NODE_UNWELL]" in refused(scene, "cfguest1", "-p")
    with option(scene, "stonith-enabled", "false", "true"), option(scene, "maintenance-mode", "true", ""):
        said = refused(scene, "cfguest1", "-p")
        assert "stonith-enabled is false" in said
        assert "maintenance-mode is on already" in said


@contextmanager
def standby(scene: Scene, node: str) -> Iterator[None]:
    """A node in standby, its service begun elsewhere; afterwards all is back, whatever the test found."""
    standby = ["crm_attribute", "-N", node, "-n", "standby"]
    everywhere = {name: {name} for name in scene.lab.nodes}
    assert scene.run("cfguest1", *standby, "-v", "on").ok
    try:
        # Stopped at home is half of the way: what starts elsewhere afterwards would be taken for our doing.
        assert eventually(lambda: runs_elsewhere(scene, node), 30)
        yield
    finally:
        assert scene.run("cfguest1", *standby, "-D").ok
        assert eventually(lambda: places(scene) == everywhere, 30)


def places(scene: Scene) -> dict[str, set[str]]:
    """Where each node's own service runs."""
    seen = scene.lab.status()
    return (
        {}
        if seen is None
        else {r.name.removeprefix("r-"): set(r.nodes) for r in seen.resources if r.name[:2] == "r-"}
    )


def runs_elsewhere(scene: Scene, node: str) -> bool:
    """Whether the service of a node runs, and not at home."""
    return places(scene).get(node, set()) not in (set(), {node})


def test_no_window_opens_with_a_node_stopped_and_on_that_node_the_command_says_so(scene: Scene) -> None:
    scene.lab.engine(LAST, "stop")
    assert eventually(lambda: members(scene, "cfguest1") == {"cfguest1", "cfguest2"}, 30)
    assert eventually(lambda: runs_elsewhere(scene, LAST), 30)
    assert f"{LAST} is offline [NODE_UNWELL]" in refused(scene, "cfguest1", "-p")
    for argv in (["clovmmigrate", "-p"], ["clsnmpsetup", "-l"], ["clsnmpsetup", "-d", LAST, "--yes"]):
        done = scene.run(LAST, *argv)
        assert done.returncode == 1
        assert "the cluster is not running on this node" in done.stderr
    scene.lab.engine(LAST, "start")


def test_no_window_opens_and_all_that_is_wrong_on_any_node_is_named_at_once(scene: Scene) -> None:
    good = scene.path(LAST, names.CONFIG_FILE).read_text()
    keys = scene.path("cfguest1", names.KNOWN_HOSTS_FILE).read_text()
    with (
        other_file(
            scene, "cfguest1", names.KNOWN_HOSTS_FILE, with_the_key_of(keys, "10.20.50.73", "10.20.50.74")
        ),
        other_file(scene, MOVER, names.CONFIG_FILE, good + "# one more line\n"),
        other_file(scene, LAST, names.CONFIG_FILE, "format = 2\n"),
        other_file(scene, LAST, names.secret_file(MOVER), None),
    ):
        scene.control.inject("login_refused", home(scene), "lan0")
        # A service processor where no guest is now must let us in too: the guest may come there.
        scene.control.inject("path_dead", spare(scene), "lan1", mode="refused")
        assert scene.run(MOVER, "sdtool", "-e").ok
        retest(scene, *scene.lab.nodes)
        said = refused(scene, MOVER, "-p")
    scene.control.clear()
    assert (
        "on cfguest1 the agent SA_xscfsnmpg0p-cfguest2 shows TestFailed: fence_xscf: XSCF 10.20.30.72" in said
    )
    assert "login as xuser refused" in said
    assert "from cfguest1 the registered user cannot log in to the XSCF at 10.20.40.74" in said
    assert re.search("cfguest1 cannot ask control domain ctrl4: .*host key", said, re.IGNORECASE), said
    assert f"on {LAST} the agent SA_xscfsnmpg1p-cfguest2 shows InitFailed" in said
    assert f"{names.secret_file(MOVER)} is missing on this node" in said
    assert "not the same on all nodes: cfguest1 / cfguest2 [CONFIG_DIFFERS]" in said
    assert f"{LAST}: /etc/standfast/clovmmigrate.conf" in said
    assert f"the shutdown facility of {MOVER} is stopped [FACILITY_STOPPED]" in said
    assert f"next: sdtool -b (on {MOVER})" in said
    # The facility that was stopped has nothing to test, and reads its file again all the same.
    retest(scene, *scene.lab.nodes)
    assert scene.run(MOVER, "sdtool", "-b").ok
    scene.wait_ready()
    opened(scene, "cfguest1")


def with_the_key_of(known_hosts: str, right: str, wrong: str) -> str:
    """known_hosts in which the address `wrong` has the key of `right`."""
    lines = [line for line in known_hosts.splitlines() if not line.startswith(wrong)]
    key = next(line.split(" ", 1)[1] for line in lines if line.startswith(right))
    return "\n".join([*lines, f"{wrong} {key}"]) + "\n"


def test_a_configuration_that_is_wrong_on_this_node_is_named_with_its_place(scene: Scene) -> None:
    good = scene.path(LAST, names.CONFIG_FILE).read_text()
    wrong = {
        "format = 2\n": "format",
        good.replace("weight = 1", 'weight = "heavy"', 1): "weight: must be a whole number",
        good.replace("10.20.50.72", "10.20.50.71"): "10.20.50.71",
        good + "colour = 1\n": "colour",
        "[[control_domain]\n": "line 1",
    }
    with nothing_changes(scene):
        for text, named in wrong.items():
            with other_file(scene, LAST, names.CONFIG_FILE, text):
                done = migrate_command(scene, LAST, "-p")
                assert (done.returncode, named in done.stderr) == (1, True), (text, done.stderr)


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


def test_no_window_opens_with_a_corosync_conf_that_was_edited_and_not_loaded(scene: Scene) -> None:
    """The window's own reload would make the edit live. Put back (or loaded), a window opens."""
    before, file = Picture.of(scene), scene.path(LAST, names.COROSYNC_CONF)
    good = file.read_text()
    file.write_text(good.replace("    nodeid: 2\n", "    nodeid: 2\n    quorum_votes: 1\n"))
    done = migrate_command(scene, "cfguest1", "-p")
    file.write_text(good)
    assert done.returncode == 1
    assert f"corosync of {LAST} has not loaded its corosync.conf" in done.stderr
    assert "nodelist.node.1.quorum_votes [CONF_NOT_LOADED]" in done.stderr
    assert before.differences(Picture.of(scene)) == []
    opened(scene, "cfguest1")


@pytest.mark.full
def test_a_node_list_that_changed_in_the_window_stays_where_it_is_live_everywhere(scene: Scene) -> None:
    files = [scene.path(node, names.COROSYNC_CONF) for node in scene.lab.nodes]
    before = [file.read_text() for file in files]

    def votes(line: str) -> None:
        for file in files:
            text = file.read_text().replace("    quorum_votes: 1\n", "")
            file.write_text(text.replace("    nodeid: 2\n", f"    nodeid: 2\n{line}"))

    def close() -> Result:
        return migrate_command(scene, "cfguest1", "-u", GUEST, home(scene))

    opened(scene, "cfguest1")
    try:
        votes("    quorum_votes: 1\n")
        # The daemons look every second.
        assert eventually(lambda: "[CONF_CHANGED]" in close().stderr, 10)
        refused = close()
        assert refused.returncode == 3
        assert "has not loaded it: nodelist.node.1.quorum_votes" in refused.stderr
        assert f"corosync-cfgtool -R, then clovmmigrate -u {GUEST} {home(scene)}" in refused.stderr
        assert scene.run(LAST, "corosync-cfgtool", "-R").ok
        assert eventually(lambda: "[NODES_CHANGED]" in close().stderr, 30)
        assert window(scene, "cfguest1").phase is Phase.IDLE
    finally:
        votes("")
        assert scene.run(LAST, "corosync-cfgtool", "-R").ok
    assert [file.read_text() for file in files] == before


def test_a_command_needs_its_own_daemon(scene: Scene) -> None:
    scene.run(LAST, "/bin/sh", "-c", "kill $(cat /run/standfast/standfastd.lock)")
    assert eventually(lambda: scene.run(LAST, "sdtool", "-s").returncode == 1, 10)
    assert "standfastd does not answer on this node" in refused(scene, LAST, "-p")
    assert f"standfastd of {LAST} does not report [NO_REPORT]" in refused(scene, "cfguest1", "-p")
    scene.start_daemon(LAST)
    scene.wait_ready()
    opened(scene, "cfguest1")
