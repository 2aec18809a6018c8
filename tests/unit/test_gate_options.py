"""How the gate reads its call: what the fencer sends, what a person types, and what must not work."""

from __future__ import annotations

import pytest

from standfast.commands.gate_options import Options, OptionsError, from_lines, read_options


def options(text: str) -> Options:
    return Options(from_lines(text))


def test_the_fencers_lines_are_read_and_what_is_not_ours_is_left_alone() -> None:
    found = options("nodename=n2\naction=off\nport=x2\nweight=3\nlevel=2\ncrm_feature_set=3.16\n")
    assert (found.action, found.target, found.level, found.root) == ("off", "n2", "2", "")


@pytest.mark.parametrize("key", ["nodename", "plug", "port"])
def test_the_target_has_three_names(key: str) -> None:
    assert options(f"action=reboot\n{key}=n2\n").target == "n2"


def test_the_cluster_name_wins_over_what_a_host_map_made_of_it() -> None:
    assert options("action=off\nport=outlet7\nplug=outlet7\nnodename=n2\n").target == "n2"


def test_comments_empty_lines_and_lines_without_a_value_are_skipped() -> None:
    text = "# a\n\n#b=c\n  action = off\nplug=n=2\nnothing\n"
    assert from_lines(text) == {"action": " off", "plug": "n=2"}
    assert options("# x\naction= OFF \nplug=n2\n").action == "off"


@pytest.mark.parametrize("listed", ["n2 n3", "n2,n3", "n2;n3", " n2 , n3 "])
def test_a_host_list_is_read_as_pacemaker_reads_it(listed: str) -> None:
    assert options(f"action=list\npcmk_host_list={listed}\n").targets == ("n2", "n3")


@pytest.mark.parametrize(
    "text",
    ["", "action=", "action=shoot\nplug=n2", "action=off", "action=off\nplug=", "action=off\nplug=a\tb"],
)
def test_a_call_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(OptionsError):
        options(text)


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "off", "-n", "n2"],
        ["--action=off", "--plug=n2"],
        ["--action", "off", "--plug", "n2"],
        ["action=off", "nodename=n2"],
    ],
)
def test_a_person_may_type_it_as_arguments(words: list[str]) -> None:
    found = read_options([*words, "--root", "/tmp/x/"])
    assert (found.action, found.target, found.root) == ("off", "n2", "/tmp/x")


@pytest.mark.parametrize("words", [["-o"], ["off"], ["--action", "off", "--plug"], ["--help"]])
def test_arguments_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(OptionsError):
        read_options(words)


def test_the_fencer_cannot_move_the_gate_to_another_root() -> None:
    found = options("action=off\nplug=n2\nroot=/tmp/evil\n--root=/tmp/evil\n")
    assert found.root == ""
