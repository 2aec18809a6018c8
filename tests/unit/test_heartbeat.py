"""The heartbeat timeout as corosync's keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standfast.core import heartbeat


def test_ten_minutes_are_the_documented_token_and_consensus() -> None:
    assert heartbeat.split(600_000) == (272_727, 327_273)
    assert heartbeat.split(10_000) == (4545, 5455)
    assert heartbeat.split(33_000) == (15_000, 18_000)


@given(st.integers(2_000, 3_600_000))
def test_token_and_consensus_always_add_up_to_the_timeout_at_the_wanted_ratio(timeout_ms: int) -> None:
    token, consensus = heartbeat.split(timeout_ms)
    assert token + consensus == timeout_ms
    # corosync asks for a consensus of at least 1.2 x token
    assert 0 <= consensus - 1.2 * token < 2.2


def test_a_raise_names_every_key_so_that_none_is_derived_from_the_raised_token() -> None:
    assert heartbeat.raised(600) == {
        "token": "272727",
        "token_coefficient": "0",
        "token_retransmit": "500",
        "hold": "400",
        "consensus": "327273",
        "interface.0.knet_ping_interval": "1000",
        "interface.0.knet_ping_timeout": "600000",
        "interface.0.knet_pong_count": "1",
    }
    assert tuple(heartbeat.raised(600)) == heartbeat.KEYS


def test_the_link_is_never_declared_down_within_a_minute() -> None:
    assert heartbeat.raised(33)["interface.0.knet_ping_timeout"] == "60000"


@pytest.mark.parametrize(
    ("keys", "nodes", "runtime"),
    [
        # read from the cmap of freshly started corosync 3.1.7 daemons (tests/lab repeats it)
        (
            {"token": "4545", "token_coefficient": "0", "consensus": "5455"},
            3,
            (4545, 1082, 855, 5455, 1136, 2272),
        ),
        ({"token": "10000"}, 3, (10650, 2535, 2018, 12780, 2662, 5325)),
        ({"token": "10000"}, 2, (10000, 2380, 1894, 12000, 2500, 5000)),
        ({}, 2, (3000, 714, 561, 3600, 750, 1500)),
        ({"token": "0"}, 2, (3000, 714, 561, 3600, 750, 1500)),
    ],
)
def test_the_values_of_a_fresh_start_are_derived_as_corosync_does(
    keys: dict[str, str], nodes: int, runtime: tuple[int, ...]
) -> None:
    assert tuple(heartbeat.expected_runtime(keys, nodes).values()) == runtime


@given(st.floats(2, 3600), st.integers(2, 16))
def test_a_raise_gives_the_same_values_whatever_the_number_of_nodes(budget: float, nodes: int) -> None:
    runtime = heartbeat.expected_runtime(heartbeat.raised(budget), nodes)
    assert heartbeat.timeout_ms(runtime) == round(budget * 1000)
    assert runtime["token_retransmit"] == 500


milliseconds = st.integers(1000, 600_000).map(str)
some_keys = st.fixed_dictionaries(
    {},
    optional={key: milliseconds for key in heartbeat.KEYS if key != heartbeat.PONG_COUNT}
    | {heartbeat.PONG_COUNT: st.integers(1, 5).map(str)},
)


@given(some_keys, st.integers(2, 16))
def test_old_values_written_out_give_exactly_the_old_runtime_values(keys: dict[str, str], nodes: int) -> None:
    old = heartbeat.expected_runtime(keys, nodes)
    assert heartbeat.expected_runtime(heartbeat.explicit(old), nodes) == old
