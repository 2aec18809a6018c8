"""Reports survive attrd_updater, which quotes but does not escape."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from standfast.cluster import attrd


def _as_attrd_shows(values: dict[str, str]) -> str:
    return "".join(
        f'name="standfast-report" host="{node}" value="{value}"\n' for node, value in values.items()
    )


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_json_goes_through_as_it_is(value: dict[str, str | int]) -> None:
    text = json.dumps(value)
    assert attrd.encode(text) == text
    assert attrd.parse(_as_attrd_shows({"n1": attrd.encode(text)})) == {"n1": text}


@given(st.text(min_size=1))
@example("\x80\U00019bfe")
def test_every_other_text_goes_through_too(value: str) -> None:
    encoded = attrd.encode(value)
    assert encoded.isascii()
    assert "\n" not in encoded
    assert "+" not in encoded or encoded == value
    assert not encoded.endswith("++")
    assert attrd.parse(_as_attrd_shows({"n1": encoded, "n2": "{}"})) == {"n1": value, "n2": "{}"}


def test_a_node_without_a_value_has_no_report() -> None:
    assert attrd.parse(_as_attrd_shows({"n1": "", "n2": "{}"})) == {"n2": "{}"}


def test_a_damaged_value_counts_as_none() -> None:
    assert attrd.parse(_as_attrd_shows({"n1": "b64:%%", "n2": "b64:/w=="})) == {}


def test_other_lines_are_not_taken_for_reports() -> None:
    assert attrd.parse('name="other" host="n1" value="{}"\nname="standfast-report" host="n1"\n') == {}


def test_a_report_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="at most"):
        attrd.publish("x" * attrd.MAX_VALUE_BYTES)
