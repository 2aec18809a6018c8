"""The executor and the survey say what is wrong in words, with the exit status that fits; no traceback."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import cast
from xml.etree import ElementTree as ET

import pytest
from driver import opened
from fake_cluster import CLOSE, OPEN, FakeCluster

from standfast import execute, survey
from standfast.cluster import attrd, cib, corosync_conf, membership, ring
from standfast.cluster.cib import CibError
from standfast.cluster.run import EngineError, pause_seconds
from standfast.core import preflight
from standfast.core.evidence import GuestState
from standfast.core.record import MAX_VALUE_CHARS, Phase
from standfast.core.steps import CloseGoal, Done, OpenGoal, Reload, Snapshot, Step, Stop, WriteRecord
from standfast.execute import Executor, _Memory
from standfast.hosts.asking import ask_everywhere
from standfast.hosts.base import Host
from standfast.hosts.ldm import ControlDomainLogin, LdmHost
from standfast.survey import Survey

CIB = "<cib><configuration><crm_config/><nodes/></configuration></cib>"


class Scripted:
    """A survey that shows a FakeCluster, and fails at the look whose number is given."""

    me = "n1"

    def __init__(self, cluster: FakeCluster, fails_at: int = 0, late: range = range(0)) -> None:
        self.cluster, self.fails_at, self.late, self.looks = cluster, fails_at, late, 0

    async def take(self, guest: str = "", **_: bool) -> tuple[Snapshot, ET.Element]:
        self.looks += 1
        if self.looks == self.fails_at:
            raise CibError("the CIB cannot be read: no connection")
        if self.looks in self.late:
            raise EngineError("crm_mon did not answer in time", timed_out=True)
        return self.cluster.snapshot(self.me), ET.fromstring(CIB)

    async def reported(self, *_: object) -> None:
        return None


async def run(survey: Scripted, goal: OpenGoal | CloseGoal, limit_seconds: float = 1.0) -> Stop:
    outcome = await Executor(cast(Survey, survey), goal, total_limit_seconds=limit_seconds).run()
    assert isinstance(outcome, Stop)
    return outcome


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.OPEN])
async def test_an_engine_that_fails_leaves_a_window_only_where_one_was_seen(phase: Phase) -> None:
    cluster = FakeCluster()
    cluster.record = dataclasses.replace(cluster.record, phase=phase, window=1, owner="n1")
    cluster.sync()
    cluster.guest_on = {"ctrl2": GuestState.PAUSED}  # something to wait for
    outcome = await run(Scripted(cluster, fails_at=2), CLOSE)
    assert [message.code for message in outcome.messages] == ["ENGINE"]
    assert outcome.unfinished is (phase is Phase.OPEN)


async def test_who_waits_looks_for_a_third_of_its_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow node those who are waited for would not get on otherwise."""
    asked: list[float] = []

    def slow() -> dict[str, str]:
        asked.append(time.monotonic())
        time.sleep(0.1)
        return {}

    monkeypatch.setattr(attrd, "reports", slow)
    began = time.monotonic()
    await Survey("n1", ()).reported(lambda reports: False, 0.75, 0.01)
    assert len(asked) <= 4
    assert asked[1] - asked[0] >= 0.3
    assert time.monotonic() - began >= 0.75


@pytest.mark.parametrize(("took", "pause"), [(0.0, 0.02), (0.005, 0.02), (0.5, 1.0)])
def test_a_pause_is_as_long_as_it_was_asked_for_or_twice_the_look(took: float, pause: float) -> None:
    assert pause_seconds(0.02, took) == pause


async def test_a_look_that_finds_no_answer_in_time_is_repeated() -> None:
    cluster = FakeCluster()
    cluster.record = dataclasses.replace(cluster.record, owner="n1")
    said: list[str] = []
    late = Scripted(cluster, late=range(1, 4))
    wrong = dataclasses.replace(OPEN, why="x" * (MAX_VALUE_CHARS + 1))
    outcome = await Executor(cast(Survey, late), wrong, said.append, total_limit_seconds=5.0).run()
    assert isinstance(outcome, Stop)
    assert [message.code for message in outcome.messages] == ["RECORD"]
    assert said[:3] == ["crm_mon did not answer in time; looking again"] * 3


async def test_an_engine_that_never_answers_in_time_is_given_up_at_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execute, "LATE_LIMIT_SECONDS", 0.05)
    outcome = await run(Scripted(FakeCluster(), late=range(1, 10_000_000)), CLOSE, 5.0)
    assert [message.code for message in outcome.messages] == ["ENGINE"]
    assert not outcome.unfinished


class Overtaken(Scripted):
    """Between its first look, which takes long for the sake of a silent host, and its word an opening lands
    that another command had sent; then nothing more happens."""

    async def take(self, guest: str = "", **how: bool) -> tuple[Snapshot, ET.Element]:
        seen = await super().take(guest, **how)
        if self.looks == 1:
            await asyncio.sleep(0.02)
            self.cluster.record = opened().record
        return seen


@pytest.mark.parametrize(("limit_seconds", "looked_again"), [(0.01, True), (60.0, False)])
async def test_a_word_that_nothing_is_left_is_compared_with_the_record_after_a_long_look(
    monkeypatch: pytest.MonkeyPatch, limit_seconds: float, looked_again: bool
) -> None:
    monkeypatch.setattr(execute, "OVERTAKEN_SECONDS", limit_seconds)
    said: list[str] = []
    cluster = FakeCluster()
    late = cast(Survey, Overtaken(cluster))
    outcome = await Executor(late, dataclasses.replace(CLOSE, target="ctrl9"), said.append).run()
    assert isinstance(outcome, Stop)
    assert outcome.unfinished is looked_again
    assert ("the window has changed meanwhile; looking again" in said) is looked_again


async def test_a_reason_that_the_record_cannot_hold_is_refused() -> None:
    cluster = FakeCluster()
    cluster.record = dataclasses.replace(cluster.record, owner="n1")
    outcome = await run(Scripted(cluster), dataclasses.replace(OPEN, why="x" * (MAX_VALUE_CHARS + 1)))
    assert [message.code for message in outcome.messages] == ["RECORD"]
    assert "standfast-why" in outcome.messages[0].text
    assert not outcome.unfinished


async def test_a_host_that_this_node_has_no_key_for_is_silent_and_says_why(tmp_path: Path) -> None:
    key = str(tmp_path / "control-domain.key")
    host = LdmHost(ControlDomainLogin("ctrl1", "127.0.0.1", "standfast", key_file=key))
    survey = Survey("n1", (), lambda account: {"ctrl1": cast(Host, host)})
    (answer,) = (await survey.ask(["guest1"]))["guest1"]
    assert answer.state is GuestState.SILENT
    assert key in answer.detail or "known_hosts" in answer.detail


async def test_the_daemon_too_calls_a_host_that_it_has_no_key_for_silent(tmp_path: Path) -> None:
    key = str(tmp_path / "control-domain.key")
    host = LdmHost(ControlDomainLogin("ctrl1", "127.0.0.1", "standfast", key_file=key))
    (answer,) = (await ask_everywhere([cast(Host, host)], ["guest1"], 5.0))["guest1"]
    assert answer.state is GuestState.SILENT
    assert "no answer within" not in answer.detail


@pytest.mark.parametrize("word", ["false", "No", "off", "0"])
async def test_fencing_is_off_in_every_word_that_pacemaker_takes_for_it(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = f'<nvpair id="a" name="stonith-enabled" value="{word}"/>'
    text = CIB.replace(
        "<crm_config/>", f"<crm_config><cluster_property_set>{pair}</cluster_property_set></crm_config>"
    )
    monkeypatch.setattr(cib, "query", lambda: ET.fromstring(text))
    monkeypatch.setattr(attrd, "reports", dict)
    monkeypatch.setattr(ring, "look", lambda: ring.Ring("n1", frozenset({"n1"})))
    snapshot, _ = await Survey("n1", ()).take(whole=False)
    assert not snapshot.stonith_enabled


@pytest.mark.parametrize("word", ["true", "Yes", "on", "1"])
def test_maintenance_is_on_in_every_word_that_pacemaker_takes_for_it(word: str) -> None:
    snapshot = dataclasses.replace(FakeCluster().snapshot("n1"), maintenance_mode=word)
    assert [message.code for message in preflight.errors(snapshot, OPEN)] == ["MAINTENANCE"]


@pytest.mark.parametrize(("transport", "refused"), [("knet", False), ("udpu", True), ("udp", True)])
def test_a_transport_without_the_values_of_a_window_is_not_supported(
    transport: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "corosync.conf"
    file.write_text(f"totem {{\n  version: 2\n  transport: {transport}\n}}\n")
    monkeypatch.setattr(corosync_conf, "read_file", lambda: file.read_text())
    found = survey._unsupported(ET.fromstring(CIB), membership.ClusterStatus((), (), (), "", True))
    assert found == ((f"the transport {transport} (only knet)",) if refused else ())


async def test_opening_again_is_no_change_and_the_first_opening_is_one() -> None:
    cluster = FakeCluster()
    cluster.record = dataclasses.replace(cluster.record, owner="n1")
    command = Executor(cast(Survey, Scripted(cluster)), OPEN)
    opened = dataclasses.replace(cluster.record, phase=Phase.OPEN, window=7)
    snapshot = dataclasses.replace(cluster.snapshot("n1"), record=opened)
    assert command._changed(snapshot, 3)
    command.goal = dataclasses.replace(OPEN, since_epoch=7)
    assert not command._changed(snapshot, 3)


class ByHand(Executor):
    """Does its steps on the FakeCluster; the write that ends the window loses its first race."""

    lost = False

    async def _act(self, step: Step, tree: ET.Element, memory: _Memory) -> None:
        cluster = cast(Scripted, self.survey).cluster
        if isinstance(step, Reload):
            memory.reloads += 1
        ends = isinstance(step, WriteRecord) and step.record.phase is Phase.IDLE
        if ends and not self.lost:
            self.lost = True
            raise cib.CibConflict("somebody else wrote first")
        cluster.do(step, cluster.record.epoch)


async def test_what_the_operator_must_know_of_a_step_is_told_at_the_end_and_once() -> None:
    cluster = opened()
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    for node in cluster.nodes.values():
        node.nodes, node.structure = ("n1", "n2", "n3"), "with n3"
    cluster.sync()
    goal = dataclasses.replace(CLOSE, since_epoch=cluster.record.epoch)
    executor = ByHand(cast(Survey, Scripted(cluster)), goal, total_limit_seconds=20.0)
    outcome = await executor.run()
    assert isinstance(outcome, Done)
    assert executor.lost
    assert [warning.code for warning in outcome.warnings] == ["NODES_CHANGED"]


class Setting(Scripted):
    """What the nodes report while a command waits for the clocks: n2 tries to set its own, and then has."""

    def __init__(self, cluster: FakeCluster, says: list[str]) -> None:
        super().__init__(cluster)
        self.says = says

    async def reported(self, *_: object) -> None:
        if not self.cluster.record.waits_for_clocks:
            return
        if self.says:
            self.cluster.clock_steps = {"n2": self.says.pop(0)}
        else:
            self.cluster.clock_ahead = {}
        self.cluster.sync()


async def test_what_is_new_of_a_wait_is_said_once_while_it_goes_on() -> None:
    cluster = opened()
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    cluster.clock_ahead = {"n2": -20.0}
    first, second = "is setting its clock (rtc, try 1 of 3)", "has set its clock (rtc, try 1 of 3): well"
    goal = dataclasses.replace(CLOSE, since_epoch=cluster.record.epoch)
    survey, said = Setting(cluster, ["", first, first, second, second]), list[str]()
    outcome = await ByHand(cast(Survey, survey), goal, said.append, total_limit_seconds=20.0).run()
    assert isinstance(outcome, Done)
    assert [line for line in said if "its clock" in line] == [f"n2 {first}", f"n2 {second}"]
    assert sum(line.startswith("waiting for the clocks to agree: n2 is 20.0 s") for line in said) == 1


def test_a_closing_that_is_only_asked_whether_it_lives_does_not_begin_its_waits_anew() -> None:
    memory, found = _Memory(), dataclasses.replace(opened(3).record, phase=Phase.CLOSING, aimed=True)
    memory.at(found)
    memory.waits = {"clocks": 1.0, "proof": 2.0}
    memory.at(found.next())
    assert memory.waits == {"clocks": 1.0, "proof": 2.0}
    memory.at(found.next().next(owner="n3"))
    assert memory.waits == {}
    memory.waits = {"report": 1.0}
    memory.at(None)
    assert memory.waits == {}


def test_an_opening_does_whose_call_moves_nothing_but_the_epoch() -> None:
    memory = _Memory()
    memory.at(found := FakeCluster(3).record)
    memory.waits = {"calm": 1.0}
    memory.at(found.next())
    assert memory.waits == {}
