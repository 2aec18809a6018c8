"""The lab of real guests, as far as it goes without one: cache, monitor, descriptions, domains."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from standfast import config
from standfast.cluster.run import Result
from standfast.commands.lab import lab as lab_commands
from standfast.lab import removal
from standfast.lab.errors import LabError
from standfast.lab.layout import Spec, kind_of
from standfast.lab.vm import cache, domain, emulator, environment, fencing, image, layout, seed
from standfast.lab.vm.layout import VmSpec
from standfast.lab.vm.qmp import Monitor

GREETING = {"QMP": {"version": {}, "capabilities": []}}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("STANDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def spec(root: Path, **other: object) -> VmSpec:
    values: dict[str, object] = {
        "lab_id": "x", "nodes": ("cfguest1", "cfguest2"), "hosts": ("host1", "host2", "host3"),
        "heartbeat_timeout_seconds": 10.0, "memory_mib": 512, "accelerator": "tcg", "fencing": "plain",
        "freezer": "v1", "group": str(root / "group"), "image": "/i", "python": "/p",
    }  # fmt: skip
    return VmSpec(**{**values, **other})  # type: ignore[arg-type]


def test_the_guests_read_a_file_of_all_hosts_and_how_each_is_fenced(tmp_path: Path) -> None:
    path = tmp_path / "clovmmigrate.conf"
    path.write_text(seed.clovmmigrate_conf(spec(tmp_path)))
    hosts = config.load(str(path)).config.hosts.hosts
    assert [(host.name, host.kind, host.fence_agent, host.obeys) for host in hosts] == [
        (f"host{number}", "libvirt", "fence_virsh", True) for number in (1, 2, 3)
    ]
    assert {dict(host.fence_parameters)["identity_file"] for host in hosts} == {seed.KEY_FILE}


class Registering:
    """A lab whose first node does what it is told, and keeps it."""

    def __init__(self, spec: VmSpec) -> None:
        self.spec, self.calls = spec, list[list[str]]()

    def exec(
        self, name: str, argv: Sequence[str], limit_seconds: float = 30.0, input: str | None = None
    ) -> Result:
        assert name == "cfguest1"
        self.calls.append(list(argv))
        return Result(tuple(argv), 0, "", "")


def test_a_lab_registers_its_nodes_as_an_administrator_does_before_fencing_is_on(tmp_path: Path) -> None:
    lab = Registering(spec(tmp_path, fencing="standfast"))
    fencing.configure(lab)
    added = [call[3:] for call in lab.calls if call[:3] == ["standfast", "node", "add"]]
    assert added == [
        [f"cfguest{number}", "--guest", f"guest{number}", "--host", f"host{number}"] for number in (1, 2)
    ]
    assert lab.calls[-1][-3:] == ["stonith-enabled", "-v", "true"]
    assert fencing.device(lab.spec, "cfguest2") == "SA_virsh-cfguest2"
    assert fencing.device(spec(tmp_path), "cfguest2") == "st-cfguest2"


# -- the cache -------------------------------------------------------------------------------------------


def test_an_entry_is_built_once(cached: Path) -> None:
    built = []

    def build(directory: Path) -> None:
        built.append(directory)
        (directory / "file").write_text("made")

    assert cache.entry("thing-1", build) == cached / "thing-1"
    assert (cache.entry("thing-1", build) / "file").read_text() == "made"
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing_that_could_be_taken_for_the_entry(cached: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise LabError("no mirror")

    with pytest.raises(LabError, match="no mirror"):
        cache.entry("thing-1", fail)
    assert [entry.name for entry in cached.iterdir()] == ["lock"]


def test_what_a_killed_build_has_left_goes_with_the_next_build(cached: Path) -> None:
    (cached / "thing-1.partial/scratch").mkdir(parents=True)
    cache.entry("thing-1", lambda directory: None)
    assert sorted(entry.name for entry in cached.iterdir()) == ["lock", "thing-1"]


def test_what_was_not_used_for_a_month_goes_and_what_was_used_stays(cached: Path) -> None:
    for name in ("old", "new"):
        cache.entry(name, lambda directory: None)
    long_ago = (cached / "old").stat().st_mtime - cache.UNUSED_SECONDS - 60
    os.utime(cached / "old", (long_ago, long_ago))
    cache.entry("new", lambda directory: None)
    assert sorted(entry.name for entry in cached.iterdir()) == ["lock", "new"]


def test_the_guests_get_what_standfast_needs_and_no_tool_for_tests() -> None:
    names = {line.partition("==")[0] for line in environment.requirements()}
    assert {"asyncssh", "cryptography", "pydantic", "pydantic-core", "click", "cffi"} <= names
    assert not names & {"pytest", "ruff", "mypy", "hypothesis"}


def test_the_image_is_named_by_what_it_is_made_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = image.key()
    for name in ("image_hook.sh", "initramfs_init.sh"):
        (tmp_path / name).write_text("changed")
    monkeypatch.setattr(image, "_SCRIPTS", tmp_path)
    assert image.key() != before


def test_a_tree_fits_into_its_file_system_image(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / f"tree/{number % 30}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(b"x" * 5000)
    image.ext4(tmp_path / "tree", tmp_path / "made", spare_mib=1)
    assert (tmp_path / "made").stat().st_size < 8 * 1024 * 1024


# -- descriptions ----------------------------------------------------------------------------------------


def test_a_lab_of_real_guests_is_known_as_one_and_refused_as_another(tmp_path: Path) -> None:
    spec(tmp_path).write(tmp_path)
    assert kind_of(tmp_path) == "vm"
    assert VmSpec.read(tmp_path) == spec(tmp_path)
    with pytest.raises(LabError, match="has real guests"):
        Spec.read(tmp_path)


def test_a_lab_of_namespaces_is_refused_as_one_of_real_guests(tmp_path: Path) -> None:
    Spec("x", ("cfguest1",), 10.0, "v1", "/g", "plain", False).write(tmp_path)
    assert kind_of(tmp_path) == "namespaces"
    with pytest.raises(LabError, match="has no real guests"):
        VmSpec.read(tmp_path)


def test_a_lab_of_real_guests_is_removed_from_its_directory_alone(tmp_path: Path) -> None:
    root = tmp_path / "labs" / "x"
    (root / "hosts/host1").mkdir(parents=True)
    spec(tmp_path).write(root)
    removal.remove(root)
    assert not root.exists()


def test_the_guest_is_told_who_it_is_and_libvirt_nothing_secret(tmp_path: Path) -> None:
    tree = ElementTree.fromstring(domain.xml(spec(tmp_path), "guest2"))
    assert (tree.get("type"), tree.findtext("name"), tree.findtext("memory")) == ("qemu", "guest2", "512")
    words = (tree.findtext("os/cmdline") or "").split()
    assert {"lab.node=cfguest2", "lab.address=10.88.0.2"} <= set(words)
    assert len(tree.findall("devices/disk/readonly")) == len(tree.findall("devices/disk/shareable")) == 3
    assert tree.find("devices/interface/mac").get("address") == layout.mac_address(2)  # type: ignore[union-attr]


def test_under_kvm_the_guest_gets_the_real_processor(tmp_path: Path) -> None:
    tree = ElementTree.fromstring(domain.xml(spec(tmp_path, accelerator="kvm"), "guest1"))
    assert (tree.get("type"), tree.find("cpu").get("mode")) == ("kvm", "host-passthrough")  # type: ignore[union-attr]


def test_every_name_of_the_lab_has_an_address(tmp_path: Path) -> None:
    lines = seed.hosts_file(spec(tmp_path)).splitlines()
    assert "10.88.0.2 cfguest2" in lines
    assert "10.88.0.203 host3" in lines
    assert len({line.split()[0] for line in lines}) == len(lines)


QEMU_ARGV = [
    "-name", "guest=guest1", "-m", "512", "-smp", "1", "-append", "a  b -m 512",
    "-object", '{"qom-type":"memory-backend-ram","id":"pc.ram","size":536870912}',
]  # fmt: skip


def as_qemu_is_called(given: VmSpec, tmp_path: Path) -> list[str]:
    (tmp_path / "printer").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "printer").chmod(0o755)
    script = emulator.program(given).replace(f"/usr/bin/{emulator.NAME}", str(tmp_path / "printer"))
    done = subprocess.run(["sh", "-c", script, "sh", *QEMU_ARGV], capture_output=True, text=True, timeout=10)
    return done.stdout.splitlines()


def test_an_emulated_guest_gets_memory_that_is_no_multiple_of_64_pages(tmp_path: Path) -> None:
    called = as_qemu_is_called(spec(tmp_path), tmp_path)
    assert called[3] == "524296k"
    assert json.loads(called[-1])["size"] == 524296 * 1024
    assert 524296 % 256 != 0
    assert [one for one in called if one not in (called[3], called[-1])] == [
        one for one in QEMU_ARGV if one not in (QEMU_ARGV[3], QEMU_ARGV[-1])
    ]


def test_under_kvm_qemu_is_called_as_libvirt_says(tmp_path: Path) -> None:
    assert as_qemu_is_called(spec(tmp_path, accelerator="kvm"), tmp_path) == QEMU_ARGV


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--vm", "--standfast"], "--vm has hosts and standfastd of its own"),
        (["--memory", "512"], "--memory is for real guests: give --vm too"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    monkeypatch.setenv("STANDFAST_LAB_ROOT", str(tmp_path / "labs"))
    refused = CliRunner().invoke(lab_commands, ["up", *argv])
    assert refused.exit_code == 1
    assert words in refused.output
    assert not (tmp_path / "labs").exists()


# -- the monitor -----------------------------------------------------------------------------------------


def event(name: str, seconds: int, microseconds: int) -> dict[str, object]:
    return {"event": name, "timestamp": {"seconds": seconds, "microseconds": microseconds}}


@contextmanager
def qemu(path: Path, answers: list[list[dict[str, object]]]) -> Iterator[Path]:
    """A monitor that greets, then answers each line with the next messages, then ends."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as stream:
            stream.write(json.dumps(GREETING) + "\n")
            stream.flush()
            for messages in answers:
                if not stream.readline():
                    return
                stream.write("".join(json.dumps(message) + "\n" for message in messages))
                stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        server.close()
        thread.join(5)


def test_an_event_that_came_before_the_answer_is_not_lost_and_has_qemus_time(tmp_path: Path) -> None:
    with (
        qemu(tmp_path / "qmp", [[{"return": {}}], [event("STOP", 100, 250000), {"return": {}}]]) as path,
        Monitor(path) as monitor,
    ):
        monitor.call("stop")
        stopped = monitor.wait_event("STOP", 0.1)
    assert stopped is not None
    assert stopped.wall == 100.25


def test_a_refused_command_is_told_in_qemus_words(tmp_path: Path) -> None:
    refused = {"error": {"class": "GenericError", "desc": "not now"}}
    with (
        qemu(tmp_path / "qmp", [[{"return": {}}], [refused]]) as path,
        Monitor(path) as monitor,
        pytest.raises(LabError, match="QEMU refused cont: not now"),
    ):
        monitor.call("cont")


def test_a_qemu_that_ends_has_no_event_and_no_answer(tmp_path: Path) -> None:
    with qemu(tmp_path / "qmp", [[{"return": {}}]]) as path, Monitor(path) as monitor:
        assert monitor.wait_event("RESUME", 5.0) is None


def test_where_no_qemu_is_there_is_no_monitor(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no QEMU answers at"):
        Monitor(tmp_path / "none")
