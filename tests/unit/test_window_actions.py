"""``standfast window`` beside opening and closing: what it finds, what it refuses, what it writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from driver import drive, opened
from fake_cluster import OPEN, FakeCluster
from test_window_guarded import GUARDED

from standfast.cluster import cib, record_change
from standfast.commands import window_actions, window_run, window_status
from standfast.commands.daemon_client import DaemonError
from standfast.commands.standfast import main
from standfast.commands.window_run import Screen
from standfast.core import confirmed
from standfast.core import record as records
from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.messages import Refused
from standfast.core.record import ONLY_RAISED, Armed, Phase, Record, Totem
from standfast.core.steps import CloseGoal, Done, Snapshot
from standfast.sightings import Seen

HOSTS = ("ctrl1", "ctrl2", "ctrl3")


class Eyes:
    """A survey that shows a FakeCluster."""

    me = "n1"

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def take(self, guest: str = "", **_: bool) -> tuple[Snapshot, ET.Element]:
        tree = ET.fromstring("<cib><configuration><crm_config/></configuration></cib>")
        records.write(tree, self.cluster.record)
        return self.cluster.snapshot(self.me), tree

    async def ask(self, guests: Sequence[str]) -> dict[str, tuple[HostAnswer, ...]]:
        return {
            guest: tuple(
                HostAnswer(host, guest, self.cluster.guests[guest].get(host, GuestState.ABSENT))
                for host in HOSTS
            )
            for guest in guests
        }

    async def reported(self, *_: object) -> None:
        return None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster of three in which a guarded window of n2 is open, and the commands see it."""
    made = opened(3, GUARDED)
    see(made, monkeypatch)
    return made


def see(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes = Eyes(cluster)

    @contextlib.asynccontextmanager
    async def driving(_: str) -> AsyncIterator[tuple[object, Eyes]]:
        yield SimpleNamespace(lease_minutes=240), eyes

    @contextlib.asynccontextmanager
    async def looking(*_: object) -> AsyncIterator[Eyes]:
        yield eyes

    async def own() -> str:
        return "n1"

    def query() -> ET.Element:
        tree = ET.fromstring("<cib><configuration><crm_config/></configuration></cib>")
        records.write(tree, cluster.record)
        return tree

    def apply(original: ET.Element, wanted: ET.Element, limit_seconds: float) -> None:
        before, after = records.read(original), records.read(wanted)
        assert before is not None
        assert after is not None
        if before.epoch != cluster.record.epoch:
            raise cib.CibConflict("somebody else wrote first")
        assert after.epoch == before.epoch + 1
        cluster.record = after

    def alarms(*_: object) -> dict[str, object]:
        raise DaemonError("not running")

    monkeypatch.setattr(window_run, "driving", driving)
    monkeypatch.setattr(window_run, "looking", looking)
    monkeypatch.setattr(window_run, "own_node", own)
    monkeypatch.setattr(window_run, "load_config", lambda: type("Loaded", (), {"config": None}))
    monkeypatch.setattr(window_run, "host_name", lambda _, name: name)
    monkeypatch.setattr(window_run, "require_root", lambda _: None)
    monkeypatch.setattr(cib, "apply", apply)
    monkeypatch.setattr(cib, "query", query)
    monkeypatch.setattr(window_status, "ask", alarms)
    monkeypatch.setattr("standfast.sightings.Sightings.see", lambda *_: Seen(5.0, 60.0))


def refused(error: pytest.ExceptionInfo[Refused]) -> list[str]:
    return [message.code for message in error.value.messages]


# -- where ------------------------------------------------------------------------------------------------


async def test_close_finds_the_guest_of_the_window_and_where_it_is(cluster: FakeCluster) -> None:
    cluster.guest_on = {"ctrl3": GuestState.RUNNING}
    assert await window_actions.place("", "") == ("g2", "ctrl3")
    assert await window_actions.place("g1", "") == ("g1", "ctrl1")
    assert await window_actions.place("g1", "ctrl9") == ("g1", "ctrl9")


async def test_close_refuses_what_it_cannot_find_out(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.guest_on = {"ctrl2": GuestState.MIGRATING_OUT, "ctrl3": GuestState.INCOMING}
    with pytest.raises(Refused) as nowhere:
        await window_actions.place("", "")
    assert refused(nowhere) == ["NO_PLACE"]
    see(FakeCluster(2), monkeypatch)
    with pytest.raises(Refused) as nobody:
        await window_actions.place("", "")
    assert refused(nobody) == ["NO_GUEST"]


# -- changing the record ----------------------------------------------------------------------------------


async def test_extend_lengthens_the_lease_and_changes_nothing_else(cluster: FakeCluster) -> None:
    before = cluster.record
    assert await window_actions.extend(Screen(True), 30) == 0
    assert cluster.record == before.next(lease_seconds=before.lease_seconds + 1800)


async def test_extend_without_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = FakeCluster(2)
    see(idle, monkeypatch)
    with pytest.raises(Refused) as error:
        await window_actions.extend(Screen(True), 30)
    assert refused(error) == ["NO_WINDOW"]
    assert idle.record == Record.fresh()


async def test_a_lost_race_is_tried_again_on_what_is_there_now(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lease = cib.query, cluster.record.lease_seconds
    looks = 0

    def query() -> ET.Element:
        nonlocal looks
        looks += 1
        found = asked()
        if looks == 1:
            cluster.record = cluster.record.next(lease_seconds=lease + 60)
        return found

    monkeypatch.setattr(cib, "query", query)
    assert await window_actions.extend(Screen(True), 10) == 0
    assert cluster.record.lease_seconds == lease + 660


async def test_a_silent_host_may_be_confirmed_dead_and_one_that_answers_may_not(cluster: FakeCluster) -> None:
    with pytest.raises(Refused) as answers:
        await window_actions.confirm_dead(Screen(True), "g2", "ctrl1", "burnt")
    assert refused(answers) == ["HOST_ANSWERS"]
    cluster.guest_on = {"ctrl1": GuestState.SILENT}
    assert await window_actions.confirm_dead(Screen(True), "g2", "ctrl1", "burnt") == 0
    assert cluster.record.confirmed == {"ctrl1": "burnt"}
    assert cluster.record.confirmed_at == {"ctrl1": cluster.record.epoch - 1}


def before_each_change(monkeypatch: pytest.MonkeyPatch, happens: Callable[[int], None]) -> None:
    """Something happens right before each change of the record; it is given the number of that."""
    change, numbers = record_change.change, count(1)

    def changed(decide: record_change.Decide) -> Record:
        happens(next(numbers))
        return change(decide)

    monkeypatch.setattr(record_change, "change", changed)


async def test_a_word_is_not_written_once_somebody_has_heard_the_host(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.guest_on = {"ctrl1": GuestState.SILENT}

    def heard(number: int) -> None:
        if number == 2:  # a node has heard it since it was noted that it is about to be called dead
            cluster.record = (
                confirmed.overtake(cluster.record, confirmed.asked(cluster.record)) or cluster.record
            )

    before_each_change(monkeypatch, heard)
    with pytest.raises(Refused) as moved:
        await window_actions.confirm_dead(Screen(True), "g2", "ctrl1", "burnt")
    assert refused(moved) == ["MOVED_ON"]
    assert cluster.record.confirmed == {}


async def test_a_host_that_answers_the_second_question_is_not_called_dead(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.guest_on = {"ctrl1": GuestState.SILENT}

    def back(_: int) -> None:
        cluster.guest_on = {"ctrl1": GuestState.ABSENT}

    before_each_change(monkeypatch, back)
    with pytest.raises(Refused) as answers:
        await window_actions.confirm_dead(Screen(True), "g2", "ctrl1", "burnt")
    assert refused(answers) == ["HOST_ANSWERS"]
    assert cluster.record.confirmed == {}


async def test_a_word_is_written_although_the_window_has_moved_on_for_another_reason(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.guest_on = {"ctrl1": GuestState.SILENT}

    def longer(_: int) -> None:
        cluster.record = cluster.record.next(lease_seconds=cluster.record.lease_seconds + 60)

    before_each_change(monkeypatch, longer)
    assert await window_actions.confirm_dead(Screen(True), "g2", "ctrl1", "burnt") == 0
    assert cluster.record.confirmed == {"ctrl1": "burnt"}


async def test_only_a_guarded_window_of_this_guest_takes_a_person_s_word(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.guests["g1"] = {"ctrl3": GuestState.SILENT}
    with pytest.raises(Refused) as other:
        await window_actions.confirm_dead(Screen(True), "g1", "ctrl3", "burnt")
    assert refused(other) == ["NOT_GUARDED"]
    frozen = opened(2, dataclasses.replace(OPEN, mover="n2"))
    frozen.guest_on = {"ctrl3": GuestState.SILENT}
    see(frozen, monkeypatch)
    with pytest.raises(Refused) as mode:
        await window_actions.confirm_dead(Screen(True), "g2", "ctrl3", "burnt")
    assert refused(mode) == ["NOT_GUARDED"]


@pytest.mark.parametrize("words", [["--reason", ""], ["--reason", "a\nb"], ["--reason", "x" * 201], []])
def test_a_person_s_word_needs_a_reason_that_can_be_recorded(words: list[str]) -> None:
    argv = ["window", "confirm-dead", "g2", "--host", "ctrl1", "--yes", *words]
    assert CliRunner().invoke(main, argv).exit_code == 2


def test_without_a_terminal_a_person_s_word_needs_yes() -> None:
    done = CliRunner().invoke(main, ["window", "confirm-dead", "g2", "--host", "ctrl1", "--reason", "burnt"])
    assert done.exit_code == 2
    assert "--yes" in done.output


# -- status -----------------------------------------------------------------------------------------------


async def test_status_tells_a_program_all_of_it(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await window_status.show(Screen(True), None) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["open"] is True
    assert (told["mode"], told["guest"], told["mover"], told["source"], told["target"]) == (
        "guarded",
        "g2",
        "n2",
        "ctrl2",
        "ctrl3",
    )
    assert told["lease_left_seconds"] == cluster.record.lease_seconds - 60
    assert told["killing_gate_on"] == ["n1", "n3"]
    assert told["places"] == {"ctrl1": "absent", "ctrl2": "running", "ctrl3": "absent"}
    assert told["next_command"] == "standfast window close g2"
    assert told["alarms"] == ["standfastd does not answer on this node: not running"]


async def test_status_shows_the_clocks(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert await window_status.show(Screen(True), None) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["clocks_agree"], told["clocks"], told["clocks_out_of_sync"]) == (True, "", {})
    assert told["clock_offsets_seconds"]["n1"] == {"n2": 0.0, "n3": 0.0}
    cluster.clock_ahead, cluster.no_clocks = {"n2": -20.0}, {"n3"}
    cluster.sync()
    assert await window_status.show(Screen(True), None) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["clocks_agree"], told["clocks_out_of_sync"]) == (False, {"n1": ["n2"], "n2": ["n1"]})
    assert list(told["clocks_not_measured"]) == ["n3"]
    assert await window_status.show(Screen(False), None) == 0
    assert "clocks: n2 is 20.0 s behind n1" in capsys.readouterr().out


async def test_status_says_that_only_the_heartbeat_is_still_raised(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await window_status.show(Screen(True), None) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["proven"], told["left"]) == (False, "")
    cluster.record = cluster.record.next(phase=Phase.CLOSING, aimed=True, totem=Totem.RAISED)
    assert await window_status.show(Screen(True), None) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["open"], told["proven"], told["left"]) == (True, True, ONLY_RAISED)
    assert await window_status.show(Screen(False), None) == 0
    assert f"{ONLY_RAISED}; move nothing before it is closed" in capsys.readouterr().out


async def test_status_shows_a_person_s_word_and_that_it_is_overtaken(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: set[str] = set()
    monkeypatch.setattr("standfast.sightings.Sightings.is_overtaken", lambda _, host, epoch: host in heard)
    cluster.guest_on = {"ctrl1": GuestState.SILENT}
    cluster.record = confirmed.said(cluster.record, "ctrl1", "burnt")
    for now in ("silent", "heard", "answers", "written"):
        if now == "heard":
            heard.add("ctrl1")
        if now == "answers":
            heard.clear()
            cluster.guest_on = {"ctrl1": GuestState.ABSENT}
        if now == "written":
            cluster.guest_on = {"ctrl1": GuestState.SILENT}
            cluster.record = confirmed.overtake(cluster.record, cluster.record.confirmed_at) or cluster.record
        assert await window_status.show(Screen(True), None) == 0
        told = json.loads(capsys.readouterr().out)
        both = (told["confirmed_dead"], told["confirmed_dead_overtaken"])
        assert both == (({"ctrl1": "burnt"}, {}) if now == "silent" else ({}, {"ctrl1": "burnt"})), now
    assert await window_status.show(Screen(False), None) == 0
    assert "it has answered since: ctrl1 (burnt)" in capsys.readouterr().out


async def test_status_tells_that_a_window_was_armed(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await window_status.show(Screen(False), None) == 0
    assert "armed" not in capsys.readouterr().out
    cluster.record = cluster.record.next(armed=Armed.FOR_MOVER)
    assert await window_status.show(Screen(True), None) == 0
    assert json.loads(capsys.readouterr().out)["armed"] == "mover"
    assert await window_status.show(Screen(False), None) == 0
    assert "the nodes have armed it at the end of its lease" in capsys.readouterr().out


async def test_status_names_who_is_away(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.gone = {"n2"}
    cluster.sync()
    assert await window_status.show(Screen(False), None) == 0
    said = capsys.readouterr().out
    assert "not in the membership: n2" in said
    assert "a guarded window is open for g2" in said


async def test_waiting_ends_with_the_window_or_with_exit_3(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(window_status, "POLL_SECONDS", 0.01)
    assert await window_status.show(Screen(True), 1) == 3
    idle = FakeCluster(2)
    see(idle, monkeypatch)
    assert await window_status.show(Screen(False), 60) == 0
    assert "no window is open" in capsys.readouterr().out


# -- repair -----------------------------------------------------------------------------------------------


async def test_repair_aims_what_was_moved_and_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FakeCluster(3)
    made.guest_on = {"ctrl3": GuestState.RUNNING}
    made.guests["g3"] = {"ctrl1": GuestState.PAUSED}
    see(made, monkeypatch)
    goals = []

    class Played:
        def __init__(self, survey: Eyes, goal: object, say: object) -> None:
            goals.append(goal)

        async def run(self) -> object:
            return drive(made, goals[-1])

    monkeypatch.setattr("standfast.execute.Executor", Played)
    assert await window_actions.repair(Screen(True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["repaired"], told["left_alone"]) == (["g2"], ["g3"])
    assert made.aims["n2"] == "ctrl3"
    assert isinstance(drive(made, goals[0]), Done)


@pytest.mark.parametrize(("kind", "left"), [("libvirt", []), ("ldm", ["g2"])])
async def test_repair_aims_at_a_lost_guest_that_is_off_where_no_service_processor_knows_its_name(
    kind: str, left: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FakeCluster(3)
    made.hosts = {name: dataclasses.replace(host, kind=kind) for name, host in made.hosts.items()}
    made.guest_on = {"ctrl3": GuestState.STOPPED}
    made.gone, made.proven_off = {"n2"}, frozenset({"n2"})
    see(made, monkeypatch)

    class Played:
        def __init__(self, survey: Eyes, goal: CloseGoal, say: object) -> None:
            self.goal = goal

        async def run(self) -> object:
            return drive(made, self.goal)

    monkeypatch.setattr("standfast.execute.Executor", Played)
    assert await window_actions.repair(Screen(True), "g2") == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["left_alone"] == left
    assert made.aims["n2"] == ("ctrl2" if left else "ctrl3")


async def test_repair_of_one_guest_leaves_the_others_and_holds_no_longer_than_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FakeCluster(3)
    made.guest_on = {"ctrl3": GuestState.RUNNING}
    made.guests["g3"] = {"ctrl2": GuestState.RUNNING}
    see(made, monkeypatch)
    goals: list[CloseGoal] = []

    class Played:
        def __init__(self, survey: Eyes, goal: CloseGoal, say: object) -> None:
            goals.append(goal)

        async def run(self) -> object:
            return drive(made, goals[-1])

    monkeypatch.setattr("standfast.execute.Executor", Played)
    assert await window_actions.repair(Screen(True), "g2", 10) == 0
    assert json.loads(capsys.readouterr().out)["repaired"] == ["g2"]
    assert [(goal.guest, goal.lease_seconds) for goal in goals] == [("g2", 600)]
    assert (made.aims["n2"], made.aims["n3"]) == ("ctrl3", "ctrl1")


async def test_repair_of_a_guest_that_is_no_node_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    see(FakeCluster(3), monkeypatch)
    with pytest.raises(Refused) as error:
        await window_actions.repair(Screen(True), "g9")
    assert refused(error) == ["UNKNOWN_GUEST"]
    assert "g1, g2, g3" in error.value.messages[0].text


async def test_repair_beside_a_window_is_refused(cluster: FakeCluster) -> None:
    with pytest.raises(Refused) as error:
        await window_actions.repair(Screen(True))
    assert refused(error) == ["WINDOW_OPEN"]
