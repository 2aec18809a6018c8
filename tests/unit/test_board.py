"""The states of sdtool, and that only a test which worked is a proof."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from standfast.core import aims, devices, record
from standfast.core.hostlist import NO_PPAR, ControlDomain, HostList
from standfast.core.record import Phase, Record
from standfast.core.report import proves
from standfast.core.steps import HostEntry
from standfast.daemon import probe
from standfast.daemon.board import Board
from standfast.daemon.probe import Trial
from standfast.processors import agents
from standfast.processors.agents import AgentResult, Outcome

CIB = (
    '<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="0">'
    "<configuration><crm_config/><nodes><node id='1' uname='n1'/><node id='2' uname='n2'/></nodes>"
    "<resources/><constraints/></configuration><status/></cib>"
)
NODE = devices.XscfNode("n2", "g2", 0, "10.20.30.72", "10.20.40.72", "xuser", "ssh")
FIRST = "SA_xscfsnmpg0p-n2"


class World:
    """Agents that answer as told, and a folder of secrets."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.results: dict[str, AgentResult] = {}
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.secret = folder / "xscf-n2"
        self.secret.write_text("secret\n")
        (folder / "fence_xscf").touch()
        monkeypatch.setattr(agents, "AGENT_DIR", str(folder))
        monkeypatch.setattr(agents, "run", self._run)
        tree = devices.with_node(ET.fromstring(CIB), NODE)
        for pair in tree.iter("nvpair"):
            if pair.get("name") == "password_file":
                pair.set("value", str(self.secret))
        self.cib = tree
        self.changes = 0
        self.board = Board(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def _run(
        self, agent: str, action: str, options: dict[str, str], limit_seconds: float
    ) -> AgentResult:
        self.calls.append((agent, action, dict(options)))
        return self.results.get(options["ip"], AgentResult(Outcome.DONE, "", 0.1))

    async def test_all(self, epoch: int) -> None:
        for task in self.board.test(list(self.board.rows), epoch):
            await task


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


async def test_an_agent_that_sees_its_guest_is_tested_initialised_and_proven(world: World) -> None:
    altered = world.board.follow(world.cib)
    assert [row.agent for row in world.board.rows.values()] == [
        "SA_xscfsnmpg0p.so",
        "SA_xscfsnmpg1p.so",
        "SA_xscfsnmpg0r.so",
        "SA_xscfsnmpg1r.so",
    ]
    assert altered == list(world.board.rows)
    await world.test_all(7)
    row = world.board.rows[FIRST]
    assert (row.sa_state, row.shut_state, row.test_state, row.init_state) == (
        "Idle",
        "Unknown",
        "TestWorked",
        "InitWorked",
    )
    assert proves(row.proof, aims.fingerprint(row.device.parameters), 7)
    assert not proves(row.proof, aims.fingerprint(row.device.parameters), 8)
    assert {action for _, action, _ in world.calls} == {"status"}
    assert all("pcmk_host_list" not in options for _, _, options in world.calls)


@pytest.mark.parametrize("outcome", [Outcome.OFF, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.MISSING])
async def test_anything_but_a_guest_seen_running_is_no_proof(world: World, outcome: Outcome) -> None:
    world.results["10.20.30.72"] = AgentResult(outcome, "why", 0.1)
    world.board.follow(world.cib)
    await world.test_all(7)
    row = world.board.rows[FIRST]
    assert (row.test_state, row.init_state, row.proof, row.said) == ("TestFailed", "InitWorked", "", "why")
    assert world.board.rows["SA_xscfsnmpg1p-n2"].test_state == "TestWorked"


async def test_a_node_without_the_secret_shows_init_failed_and_mends_when_it_comes(world: World) -> None:
    world.secret.unlink()
    world.board.follow(world.cib)
    await world.test_all(7)
    row = world.board.rows[FIRST]
    assert (row.init_state, row.test_state, row.proof) == ("InitFailed", "Unknown", "")
    assert str(world.secret) in row.said
    assert world.calls == []
    assert world.board.mended() == []
    world.secret.write_text("secret\n")
    assert world.board.mended() == list(world.board.rows)


async def test_a_device_with_other_parameters_loses_its_proof(world: World) -> None:
    world.board.follow(world.cib)
    await world.test_all(7)
    assert world.board.follow(world.cib) == []
    moved = devices.reaim(world.cib, "n2", HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 1))
    assert world.board.follow(moved) == list(world.board.rows)
    assert world.board.rows[FIRST].proof == ""
    assert world.board.rows[FIRST].test_state == "Unknown"


async def test_a_stopped_facility_tests_nothing_and_shows_it(world: World) -> None:
    world.board.follow(world.cib)
    await world.test_all(7)
    world.board.stop()
    row = world.board.rows[FIRST]
    assert (row.test_state, row.init_state, row.proof) == ("Unknown", "UnInitWorked", "")


async def test_devices_that_are_gone_are_shown_no_more(world: World) -> None:
    world.board.follow(world.cib)
    world.board.follow(ET.fromstring(CIB))
    assert world.board.rows == {}


def with_record(world: World, **values: object) -> ET.Element:
    record.write(world.cib, Record(epoch=9, **values))  # type: ignore[arg-type]
    return world.cib


@pytest.mark.parametrize("ended", ["KillWorked", "KillFailed"])
async def test_the_end_of_a_window_shows_old_kills_no_more(world: World, ended: str) -> None:
    world.board.follow(with_record(world, window=4, phase=Phase.CLOSING))
    world.board.shut("n2", ended)
    world.board.follow(with_record(world, window=4, phase=Phase.CLOSING))
    assert world.board.rows[FIRST].shut_state == ended
    world.board.follow(with_record(world, window=4))
    assert world.board.rows[FIRST].shut_state == "Unknown"
    world.board.shut("n2", ended)
    world.board.follow(with_record(world, window=4))
    assert world.board.rows[FIRST].shut_state == ended


async def test_a_window_that_this_node_did_not_see_counts_too(world: World) -> None:
    world.board.follow(with_record(world, window=4))
    world.board.shut("n2", "KillWorked")
    world.board.follow(with_record(world, window=7))
    assert world.board.rows[FIRST].shut_state == "Unknown"


async def test_a_kill_under_way_is_shown_through_the_end_of_a_window(world: World) -> None:
    world.board.follow(with_record(world, window=4, phase=Phase.OPEN))
    world.board.shut("n2", "Killing")
    world.board.follow(with_record(world, window=4))
    row = world.board.rows[FIRST]
    assert (row.shut_state, row.sa_state) == ("Killing", "Killing")


async def test_the_age_of_the_last_test_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.board.follow(world.cib)
    assert world.board.rows[FIRST].tested_seconds_ago is None
    monkeypatch.setattr("standfast.daemon.board.time.monotonic", lambda: 100.0)
    await world.test_all(7)
    monkeypatch.setattr("standfast.daemon.board.time.monotonic", lambda: 142.5)
    assert world.board.rows[FIRST].tested_seconds_ago == 42
    world.board.stop()
    assert world.board.rows[FIRST].tested_seconds_ago is None


class LibvirtWorld:
    """A registered node with fence_virsh, and the file that its agent reads."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.key = folder / "key"
        self.key.write_text("secret\n")
        self.key.chmod(0o600)
        (folder / "fence_virsh").touch()
        self.result = AgentResult(Outcome.DONE, "", 0.1)
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        monkeypatch.setattr(agents, "AGENT_DIR", str(folder))
        monkeypatch.setattr(agents, "run", self._run)
        self.reach = {"identity_file": str(self.key), "ip": "10.88.0.202", "username": "root"}
        node = devices.HostNode("n2", "g2", "fence_virsh", tuple(self.reach.items()))
        self.cib = devices.with_node(ET.fromstring(CIB), node)
        self.board = Board(lambda: None)
        self.board.follow(self.cib)

    async def _run(
        self, agent: str, action: str, options: dict[str, str], limit_seconds: float
    ) -> AgentResult:
        self.calls.append((agent, action, dict(options)))
        return self.result

    async def row(self) -> tuple[str, str, str]:
        for task in self.board.test(["SA_virsh-n2"], 7):
            await task
        row = self.board.rows["SA_virsh-n2"]
        return row.init_state, row.test_state, row.said


@pytest.fixture
def libvirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtWorld:
    return LibvirtWorld(tmp_path, monkeypatch)


async def test_an_ordinary_agent_is_tested_with_what_reaches_its_host_and_its_guest(
    libvirt: LibvirtWorld,
) -> None:
    assert [row.agent for row in libvirt.board.rows.values()] == ["SA_virsh"]
    assert await libvirt.row() == ("InitWorked", "TestWorked", "")
    ((agent, action, options),) = libvirt.calls
    assert (agent, action) == ("fence_virsh", "status")
    assert options == {
        **libvirt.reach,
        "plug": "g2",
        "login_timeout": "10",
        "shell_timeout": "10",
        "power_timeout": "30",
    }
    row = libvirt.board.rows["SA_virsh-n2"]
    assert proves(row.proof, aims.fingerprint(row.device.parameters), 7)


@pytest.mark.parametrize("outcome", [Outcome.OFF, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.MISSING])
async def test_a_guest_that_is_not_on_at_the_host_of_the_aim_is_no_proof(
    libvirt: LibvirtWorld, outcome: Outcome
) -> None:
    libvirt.result = AgentResult(outcome, "Status: OFF", 0.1)
    assert await libvirt.row() == ("InitWorked", "TestFailed", "Status: OFF")
    assert libvirt.board.rows["SA_virsh-n2"].proof == ""


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610])
async def test_an_agent_whose_secret_others_may_use_does_not_begin(libvirt: LibvirtWorld, mode: int) -> None:
    libvirt.key.chmod(mode)
    init, test, said = await libvirt.row()
    assert (init, test) == ("InitFailed", "Unknown")
    assert said == f"{libvirt.key} on this node may be used by others than its owner: chmod go= {libvirt.key}"
    assert libvirt.calls == []
    libvirt.key.chmod(0o600)
    assert libvirt.board.mended() == ["SA_virsh-n2"]


async def test_an_agent_whose_secret_is_missing_does_not_begin(libvirt: LibvirtWorld) -> None:
    libvirt.key.unlink()
    init, _, said = await libvirt.row()
    assert init == "InitFailed"
    assert f"{libvirt.key} on this node: No such file or directory; fence_virsh needs it" in said


async def test_an_agent_has_to_reach_every_host_but_those_where_it_has_worked(libvirt: LibvirtWorld) -> None:
    hosts = tuple(
        ControlDomain(f"host{n}", f"10.88.0.20{n}", "libvirt", NO_PPAR, "", "", 1, "root", "", "fence_virsh",
                      (("ip", f"10.88.0.20{n}"),))
        for n in (1, 2)
    )  # fmt: skip
    libvirt.result = AgentResult(Outcome.FAILED, "Unable to connect/login to fencing device", 0.1)
    device = libvirt.board.rows["SA_virsh-n2"].device
    said = await probe.reach_all(HostList("", "", hosts), device, ["host2"])
    assert said == {"host1": Trial("Unable to connect/login to fencing device"), "host2": Trial()}
    ((agent, action, options),) = libvirt.calls
    assert (agent, action, options["ip"], options["plug"]) == ("fence_virsh", "monitor", "10.88.0.201", "g2")
    assert "identity_file" not in options  # that host needs none, by its own parameters
