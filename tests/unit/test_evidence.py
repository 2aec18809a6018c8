"""The words of evidence, and when two rounds of questions prove that a guest is gone."""

import pytest

from standfast.core.evidence import GuestState, HostAnswer, gone_everywhere, silent

HOSTS = ("ctrl1", "ctrl2", "ctrl3")


def answers(*states: GuestState) -> list[HostAnswer]:
    return [HostAnswer(host, "guest2", state) for host, state in zip(HOSTS, states, strict=True)]


GONE = answers(GuestState.ABSENT, GuestState.STOPPED, GuestState.ABSENT)


def test_two_equal_rounds_of_not_here_prove_that_it_is_gone() -> None:
    assert gone_everywhere(HOSTS, [GONE, GONE])


def test_one_round_proves_nothing_because_the_guest_may_have_moved_behind_it() -> None:
    assert not gone_everywhere(HOSTS, [GONE])


@pytest.mark.parametrize("state", [s for s in GuestState if not s.proves_not_here])
@pytest.mark.parametrize("place", range(3))
def test_any_other_answer_of_any_host_in_the_second_round_proves_nothing(
    state: GuestState, place: int
) -> None:
    second = list(GONE)
    second[place] = HostAnswer(HOSTS[place], "guest2", state)
    assert not gone_everywhere(HOSTS, [GONE, second])
    assert not gone_everywhere(HOSTS, [second, second])


def test_an_answer_that_changed_between_the_rounds_proves_nothing() -> None:
    other = answers(GuestState.STOPPED, GuestState.ABSENT, GuestState.ABSENT)
    assert not gone_everywhere(HOSTS, [GONE, other])


def test_a_host_that_was_not_asked_or_asked_twice_proves_nothing() -> None:
    assert not gone_everywhere(HOSTS, [GONE[:2], GONE[:2]])
    assert not gone_everywhere(HOSTS, [[*GONE, GONE[0]], [*GONE, GONE[0]]])


def test_no_hosts_at_all_prove_nothing() -> None:
    assert not gone_everywhere((), [[], []])


def test_silence_is_neither_presence_nor_absence() -> None:
    answer = silent("ctrl2", "guest2", "no connection")
    assert answer.state is GuestState.SILENT
    assert not answer.state.is_present
    assert not answer.state.proves_not_here
    assert str(answer) == "ctrl2: silent (no connection)"


def test_no_state_is_both_present_and_not_here() -> None:
    assert not [state for state in GuestState if state.is_present and state.proves_not_here]
