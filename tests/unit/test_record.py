"""The record survives the way into the CIB and back, and damage is named."""

from xml.etree import ElementTree as ET

import pytest

from standfast.core import record as rec
from standfast.core.record import Armed, Mode, OldHeartbeat, Phase, Record, RecordError, Totem

FULL = Record(
    epoch=7,
    phase=Phase.OPEN,
    owner="n1",
    mover="n2",
    source="ctrl2",
    target="ctrl3",
    mode=Mode.FROZEN,
    armed=Armed.FOR_EVERY_NODE,
    totem=Totem.RAISED,
    budget_seconds=600,
    lease_seconds=14400,
    window=5,
    settle=("n2", "n3"),
    saved={"ctrl2": "standfast-a", "ctrl3": 'skipped: "dead", really'},
    aimed=True,
    abort=True,
    confirmed={"ctrl1": "burnt"},
    confirmed_at={"ctrl1": 6},
    overtaken={"ctrl4": "no power"},
    maintenance="false",
    old={
        "n1": OldHeartbeat({"token": "4545"}, {"token": 4545, "hold": 855}, "ab12", "ef56"),
        "n2": OldHeartbeat({}, {}),
    },
    stopped=("n2", "n4"),
    owed={"n3": OldHeartbeat({"token": "1000"}, {"token": 1000}, "cd34")},
    why='<move> & "test"',
    stonith_max_attempts="10",
)


def empty_cib() -> ET.Element:
    return ET.fromstring("<cib><configuration><crm_config/></configuration></cib>")


def test_a_record_comes_back_from_a_cib_exactly_as_it_was_written() -> None:
    cib = empty_cib()
    rec.write(cib, FULL)
    assert rec.read(ET.fromstring(ET.tostring(cib))) == FULL


def test_before_set_up_there_is_no_record() -> None:
    assert rec.read(empty_cib()) is None


def test_each_write_moves_the_id_of_the_phase_and_no_other_id() -> None:
    cib = empty_cib()
    rec.write(cib, FULL)
    before = {p.get("name"): p.get("id") for p in cib.iter("nvpair")}
    rec.write(cib, FULL.next(phase=Phase.CLOSING))
    after = {p.get("name"): p.get("id") for p in cib.iter("nvpair")}
    assert before.pop("standfast-phase") == "standfast-phase-7"
    assert after.pop("standfast-phase") == "standfast-phase-8"
    assert before == after


def test_every_name_is_prefixed_since_option_names_are_global() -> None:
    assert all(name.startswith("standfast-") for name in rec.to_values(FULL))


def test_a_record_of_before_there_was_owed_owes_nothing_and_its_next_write_has_the_name() -> None:
    cib = empty_cib()
    rec.write(cib, FULL)
    found = rec.find_set(cib)
    assert found is not None
    found.remove(next(p for p in found if p.get("name") == "standfast-owed"))
    old = rec.read(cib)
    assert old is not None
    assert old.owed == {}
    rec.write(cib, old.next())
    assert "standfast-owed" in {p.get("name") for p in cib.iter("nvpair")}


def test_a_record_of_before_there_was_a_list_of_stopped_facilities_has_none_stopped() -> None:
    values = rec.to_values(FULL)
    assert values.pop("standfast-stopped") == "n2,n4"
    assert rec.from_values(values).stopped == ()


def test_values_of_before_the_node_list_was_told_apart_have_no_fingerprint_without_it() -> None:
    values = rec.to_values(FULL)
    values["standfast-old"] = values["standfast-old"].replace('"rest":"ef56",', "")
    assert rec.from_values(values).old["n1"] == OldHeartbeat(
        {"token": "4545"}, {"token": 4545, "hold": 855}, "ab12"
    )


def test_a_record_after_a_window_keeps_what_outlives_it() -> None:
    after = FULL.after()
    assert (after.epoch, after.phase, after.old, after.saved) == (8, Phase.IDLE, {}, {})
    assert (after.owed, after.stopped, after.stonith_max_attempts) == (FULL.owed, FULL.stopped, "10")


def test_a_record_of_before_there_were_confirmed_hosts_has_none() -> None:
    values = rec.to_values(FULL)
    for name in ("confirmed", "confirmed-at", "overtaken"):
        del values[f"standfast-{name}"]
    found = rec.from_values(values)
    assert (found.confirmed, found.confirmed_at, found.overtaken) == ({}, {}, {})


MAY_BE_MISSING = {
    "standfast-armed",
    "standfast-just-in-time",
    "standfast-owed",
    "standfast-confirmed",
    "standfast-confirmed-at",
    "standfast-overtaken",
    "standfast-stopped",
}


@pytest.mark.parametrize("name", sorted(set(rec.to_values(FULL)) - MAY_BE_MISSING))
def test_a_missing_name_is_damage_and_is_named(name: str) -> None:
    values = rec.to_values(FULL)
    del values[name]
    with pytest.raises(RecordError, match=name.removeprefix("standfast-")):
        rec.from_values(values)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(RecordError, match="format '2'"):
        rec.from_values({**rec.to_values(FULL), "standfast-format": "2"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", "x"), ("phase", "half-open"), ("old", "{"), ("old", "[1]"), ("saved", "3"), ("totem", "")],
)
def test_a_value_that_cannot_be_read_is_damage(name: str, value: str) -> None:
    with pytest.raises(RecordError):
        rec.from_values({**rec.to_values(FULL), f"standfast-{name}": value})


def test_an_epoch_that_disagrees_with_the_phase_id_is_damage() -> None:
    cib = empty_cib()
    rec.write(cib, FULL)
    pair = next(p for p in cib.iter("nvpair") if p.get("name") == "standfast-phase")
    pair.set("id", "standfast-phase-6")
    with pytest.raises(RecordError, match="epoch is 7"):
        rec.read(cib)


def test_a_value_too_long_for_the_cib_is_refused_before_it_is_written() -> None:
    with pytest.raises(RecordError, match="standfast-why"):
        rec.to_values(FULL.next(why="x" * 20000))
