"""The exchange of clock readings, played between nodes with clocks of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from standfast.core.clock_exchange import MAX_MESSAGE_BYTES, TELL_AFTER_SECONDS, Exchange, Reading
from standfast.core.clocks import Sample


@dataclass
class Wire:
    """Nodes on one wire. `lags`: by how much a node's clock is behind; its steady clock has a zero of its
    own and stands still where the node does."""

    names: tuple[str, ...] = ("n1", "n2")
    delay_seconds: float = 0.002
    lags: dict[str, float] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.nodes = {name: Exchange(name) for name in self.names}
        self.stood = dict.fromkeys(self.names, 0.0)
        self.samples: dict[str, list[tuple[str, Sample]]] = {name: [] for name in self.names}
        self.sent = 0

    def reading(self, name: str) -> Reading:
        steady = self.now - self.stood[name] + 17.0 * self.names.index(name)
        return Reading(steady, self.now + 1.6e9 - self.lags.get(name, 0.0) - self.stood[name])

    def send(self, message: bytes) -> None:
        """To all, the sender included."""
        self.sent += 1
        self.now += self.delay_seconds
        replies = []
        for name, node in self.nodes.items():
            more, sample = node.heard(message, self.reading(name))
            replies += more
            self.samples[name] += [sample] if sample else []
        for reply in replies:
            self.send(reply)

    def still(self, name: str, seconds: float) -> None:
        """This node stands still, with all its clocks, as a paused guest does."""
        self.now += seconds
        self.stood[name] += seconds

    def tell(self) -> None:
        self.now += TELL_AFTER_SECONDS + 0.01
        for name, node in self.nodes.items():
            for message in node.due(self.reading(name)):
                self.send(message)

    def round(self) -> None:
        first = self.names[0]
        self.send(self.nodes[first].ask(self.reading(first)))
        self.tell()


def test_one_round_gives_every_pair_of_nodes_a_sample_in_both_directions() -> None:
    names = tuple(f"n{number}" for number in range(1, 9))
    wire = Wire(names, lags={"n3": 20.0})
    wire.round()
    assert wire.sent == 2 * len(names)
    for me in names:
        assert {name for name, _ in wire.samples[me]} == set(names) - {me}
        for name, sample in wire.samples[me]:
            right = 20.0 * (me == "n3") - 20.0 * (name == "n3")
            assert sample.offset_seconds == pytest.approx(right, abs=sample.uncertainty_seconds + 1e-6)
            assert sample.uncertainty_seconds < 0.1


def test_what_the_other_held_the_question_is_no_uncertainty() -> None:
    wire = Wire()
    wire.round()
    (_, sample), *_ = wire.samples["n1"]
    assert sample.uncertainty_seconds < 3 * wire.delay_seconds


def test_a_clock_that_is_set_in_the_middle_spoils_no_sample() -> None:
    wire = Wire(lags={"n1": 20.0})
    wire.send(wire.nodes["n1"].ask(wire.reading("n1")))
    wire.lags["n1"] = 0.0
    wire.tell()
    for _, sample in wire.samples["n1"] + wire.samples["n2"]:
        assert abs(sample.offset_seconds) < 0.01


def test_a_slow_ring_makes_a_sample_uncertain_and_not_wrong() -> None:
    wire = Wire(lags={"n2": 1.0})
    wire.send(wire.nodes["n1"].ask(wire.reading("n1")))
    wire.delay_seconds = 12.0
    wire.tell()
    for me, right in (("n1", -1.0), ("n2", 1.0)):
        ((_, sample),) = wire.samples[me]
        assert sample.uncertainty_seconds > 2.5
        assert abs(sample.offset_seconds - right) <= sample.uncertainty_seconds


def test_a_node_that_stands_still_with_a_question_makes_it_uncertain_for_the_one_who_asked() -> None:
    wire = Wire()
    wire.send(wire.nodes["n1"].ask(wire.reading("n1")))
    wire.still("n2", 20.0)
    wire.tell()
    ((_, sample),) = wire.samples["n1"]
    assert sample.uncertainty_seconds > 9.0


def test_the_round_after_a_blackout_tells_how_far_the_clock_lags() -> None:
    wire = Wire()
    wire.round()
    wire.still("n2", 20.0)
    wire.now += 10.0
    wire.round()
    assert wire.samples["n1"][-1][1].offset_seconds == pytest.approx(-20.0, abs=0.1)
    assert wire.samples["n2"][-1][1].offset_seconds == pytest.approx(20.0, abs=0.1)


def test_a_sample_belongs_to_the_epoch_at_which_it_was_asked_for() -> None:
    wire = Wire()
    wire.nodes["n1"].epoch = 4
    wire.send(wire.nodes["n1"].ask(wire.reading("n1")))
    wire.nodes["n1"].epoch = 5
    wire.tell()
    assert wire.samples["n1"][-1][1].epoch == 4


def test_a_node_that_asked_lately_does_not_ask_along() -> None:
    wire = Wire()
    wire.round()
    wire.now += 1.0
    before = wire.sent
    wire.round()
    assert wire.sent == before + 2, "one question, and one answer to it"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"v":2,"n":"n2","k":"ask","id":1}',
        b'{"v":1,"n":"n2","k":"ask"}',
        b'{"v":1,"n":"n2","k":"ask","id":"x"}',
        b'{"v":1,"n":"n2","k":"tell","w":"x","held":{"n1":[1,0]}}',
        b'{"v":1,"n":"n2","k":"tell","w":NaN,"held":{"n1":[1,0]}}',
        b'{"v":1,"n":"n2","k":"tell","w":1.0,"held":{"n1":[1,NaN]}}',
        b'{"v":1,"n":"n2","k":"tell","w":1.0,"held":{"n1":7}}',
        b'{"v":1,"n":"n2","k":"tell","w":1.0,"held":[]}',
        b'{"v":1,"n":"n2","k":"tell","w":1.0,"held":{"n1":[99,0]}}',
        b'{"v":1,"n":"n2","k":"other"}',
        json.dumps({"v": 1, "n": "x" * MAX_MESSAGE_BYTES, "k": "ask", "id": 1}).encode(),
    ],
)
def test_what_cannot_be_read_is_ignored(message: bytes) -> None:
    node = Exchange("n1")
    node.ask(Reading(0.0, 0.0))
    assert node.heard(message, Reading(0.1, 0.1)) == ([], None)
