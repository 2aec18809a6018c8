"""What a running fencer has, beside what the configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from xml.etree import ElementTree as ET

import pytest

from standfast.cluster import fencer
from standfast.cluster.run import EngineError, Result
from standfast.core import devices, guarded, running
from standfast.core.devices import XscfNode
from standfast.core.running import RunningDevice
from standfast.core.steps import HostEntry
from standfast.daemon.fencer_duty import SOON_TRIES, FencerDuty

NODES = ("cfguest1", "cfguest2", "cfguest3")


def configured() -> ET.Element:
    tree = ET.fromstring(
        "<cib epoch='3'><configuration><crm_config/><nodes>"
        + "".join(f"<node id='{number}' uname='{node}'/>" for number, node in enumerate(NODES, 1))
        + "</nodes><resources/><constraints/></configuration><status/></cib>"
    )
    for number, node in enumerate(NODES, 1):
        lan0, lan1 = f"10.20.30.7{number}", f"10.20.40.7{number}"
        tree = devices.with_node(tree, XscfNode(node, node.removeprefix("cf"), 0, lan0, lan1, "xuser", "ssh"))
    return tree


def as_configured(tree: ET.Element, node: str) -> dict[str, RunningDevice]:
    wanted = running.expected(tree, node)
    return {device.id: RunningDevice(device.agent, dict(device.parameters)) for device in wanted.values()}


def test_a_fencer_must_have_the_gates_and_agents_of_all_other_nodes_and_none_of_its_own() -> None:
    found = running.expected(configured(), "cfguest1")
    assert len(found) == 2 * 8
    assert {name.partition(" ")[0] for name in found} == {"cfguest2", "cfguest3"}
    assert not any("cfguest1" in device.id for device in found.values())


def test_of_the_mover_of_a_guarded_window_it_must_have_the_killing_gate_alone() -> None:
    tree = guarded.guard(configured(), "cfguest2")
    found = running.expected(tree, "cfguest1")
    assert {name for name in found if "cfguest2" in name} == {"cfguest2 kill-cfguest2"}
    assert not running.expected(tree, "cfguest2"), "the mover's own fencer acts against nobody"


def test_one_that_agrees_is_not_named() -> None:
    tree = configured()
    assert not running.differences(running.expected(tree, "cfguest1"), as_configured(tree, "cfguest1"))


def test_what_the_executor_has_added_when_it_started_a_device_is_no_difference() -> None:
    tree = configured()
    added = {"CRM_meta_on_node": "cfguest1", "CRM_meta_timeout": "20000", "crm_feature_set": "3.16.1"}
    started = {
        name: RunningDevice(device.agent, {**device.parameters, **added})
        for name, device in as_configured(tree, "cfguest1").items()
    }
    assert not running.differences(running.expected(tree, "cfguest1"), started)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "the running fencer does not have it"),
        (("fence_other", {}), "the running fencer has the agent fence_other, configured is fence_xscf"),
        (
            ("", {"ip": "10.20.30.99"}),
            "the running fencer has ip 10.20.30.99 not 10.20.30.72",
        ),
        (("", {"odd": "x"}), "the running fencer has odd x not (none)"),
        (
            ("", {"kill": None, "ip": "10.20.30.9"}),
            "the running fencer has ip 10.20.30.9 not 10.20.30.72, kill (none) not panic",
        ),
    ],
)
def test_one_that_differs_is_named_with_what_it_has_and_what_is_configured(
    change: tuple[str, dict[str, str | None]] | None, said: str
) -> None:
    tree = configured()
    there = as_configured(tree, "cfguest1")
    name = "SA_xscfsnmpg0p-cfguest2"
    if change is None:
        del there[name]
    else:
        agent, changes = change
        parameters = {**there[name].parameters, **changes}
        kept = {key: value for key, value in parameters.items() if value is not None}
        there[name] = RunningDevice(agent or there[name].agent, kept)
    assert running.differences(running.expected(tree, "cfguest1"), there) == {f"cfguest2 {name}": said}


ANSWER = """<st-reply st_op="st_query"><st_calldata><stonith_query_capable_device_cb>
<st_device_id id="d1" agent="fence_xscf"><attributes ip="10.20.30.72" domain="guest2"/></st_device_id>
<st_device_id id="g1" agent="fence_standfast"/>
</stonith_query_capable_device_cb></st_calldata></st-reply>"""


def answering(monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str = "") -> None:
    monkeypatch.setattr(
        fencer, "run", lambda argv, limit_seconds: Result(tuple(argv), code, out, err, timed_out=False)
    )


def test_the_answer_of_the_fencer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 0, ANSWER)
    assert fencer.running() == {
        "d1": RunningDevice("fence_xscf", {"ip": "10.20.30.72", "domain": "guest2"}),
        "g1": RunningDevice("fence_standfast", {}),
    }


@pytest.mark.parametrize(
    ("code", "out", "err", "said"),
    [
        (1, "", "the fencer does not take a connection\n", "does not take a connection"),
        (-11, "", "", "cannot be asked for its devices"),
        (0, "<st-reply", "", "cannot be read"),
    ],
)
def test_no_answer_is_an_error_with_its_reason_and_never_an_empty_fencer(
    monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, said: str
) -> None:
    answering(monkeypatch, code, out, err)
    with pytest.raises(EngineError, match=said):
        fencer.running()


class Fencer:
    def __init__(self, has: Mapping[str, RunningDevice]) -> None:
        self.has: Mapping[str, RunningDevice] | None = has
        self.asked = 0

    def ask(self, _: float) -> Mapping[str, RunningDevice]:
        self.asked += 1
        if self.has is None:
            raise EngineError("no answer")
        return self.has


def looked(duty: FencerDuty, tree: ET.Element, times: int = 1) -> None:
    for _ in range(times):
        asyncio.run(duty.look(tree, "cfguest1"))


def test_it_is_asked_once_while_nothing_changes_and_again_after_a_change_of_fencing_only() -> None:
    tree = configured()
    there = Fencer(as_configured(tree, "cfguest1"))
    duty = FencerDuty(lambda _: None, there.ask)
    looked(duty, tree, 3)
    assert (there.asked, duty.differs) == (1, {})
    tree.set("epoch", "4")
    ET.SubElement(tree.find("./configuration/crm_config"), "cluster_property_set", {"id": "x"})  # type: ignore[arg-type]
    looked(duty, tree)
    assert there.asked == 1
    moved = devices.reaim(tree, "cfguest2", HostEntry("ctrl3", 1, "10.20.30.73", "10.20.40.73", 2))
    looked(duty, moved)
    assert there.asked == 2
    assert duty.differs["cfguest2 SA_xscfsnmpg0p-cfguest2"].startswith(
        "the running fencer has ip 10.20.30.72"
    )
    there.has = as_configured(moved, "cfguest1")
    looked(duty, moved)
    assert duty.differs == {}


def test_while_it_disagrees_it_is_asked_again_soon_and_not_for_ever() -> None:
    tree = configured()
    again: list[float] = []
    duty = FencerDuty(again.append, Fencer({}).ask)
    looked(duty, tree, SOON_TRIES)
    assert not duty.alarms()
    looked(duty, tree, 5)
    assert len(again) == SOON_TRIES
    (alarm,) = duty.alarms()
    assert "SA_xscfsnmpg0p-cfguest2: the running fencer does not have it, and 15 more" in alarm


def test_a_fencer_that_gives_no_answer_is_neither_agreement_nor_difference() -> None:
    tree = configured()
    there = Fencer(as_configured(tree, "cfguest1"))
    there.has = None
    duty = FencerDuty(lambda _: None, there.ask)
    looked(duty, tree)
    assert (duty.differs, duty.error) == ({}, "no answer")
    there.has = as_configured(tree, "cfguest1")
    looked(duty, tree)
    assert (duty.differs, duty.error, there.asked) == ({}, "", 2)


def test_a_new_test_asks_anew() -> None:
    tree = configured()
    there = Fencer(as_configured(tree, "cfguest1"))
    duty = FencerDuty(lambda _: None, there.ask)
    looked(duty, tree)
    there.has = {}
    looked(duty, tree)
    assert duty.differs == {}
    duty.forget()
    looked(duty, tree)
    assert len(duty.differs) == 16


def test_a_proof_that_is_asked_for_asks_the_fencer_once_whoever_tests_or_not() -> None:
    tree = configured()
    there = Fencer(as_configured(tree, "cfguest1"))
    duty = FencerDuty(lambda _: None, there.ask)
    for prove in (0, 0, 7, 7, 7, 9):
        asyncio.run(duty.look(tree, "cfguest1", prove))
    assert there.asked == 3
