"""Our keys in corosync.conf, and every other byte."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standfast.cluster import corosync_conf as conf
from standfast.core import heartbeat

PLAIN = """\
# Please read the corosync.conf.5 manual page
totem {
\tversion: 2
\tcluster_name: debian\x20\x20
\ttransport: knet

\ttoken:   10000
\t# trailing comment
}
nodelist {
\tnode {
\t\tname: a
\t\tnodeid: 1
\t\tring0_addr: 10.0.0.1
\t}
\tnode {
\t\tname: b
\t\tnodeid: 2
\t\tring0_addr: 10.0.0.2
\t}
}
quorum {\x20
  provider: corosync_votequorum
  two_node: 1
}
logging {
  to_syslog: yes
  logger_subsys {
    subsys: QUORUM
    token: 5
  }
}"""

WITH_BLOCKS = """\
totem {
  version: 2
  interface {
    linknumber: 1
    knet_ping_timeout: 7777
  }
  interface {
    mcastport: 5405
    knet_ping_timeout: 5555
  }
}
totem {
  token: 1000
  token: 2000
}
"""

RAISED = heartbeat.raised(600)


def _restored(text: str) -> str:
    old = conf.read_keys(text)
    changed = conf.write_keys(text, RAISED)
    assert conf.read_keys(changed) == RAISED
    return conf.write_keys(changed, {key: old.get(key) for key in conf.KEYS})


@pytest.mark.parametrize("text", [PLAIN, WITH_BLOCKS, PLAIN.replace("\n", "\r\n")])
def test_raising_and_going_back_gives_the_same_bytes(text: str) -> None:
    assert _restored(text) == text


def test_a_raise_changes_only_our_lines() -> None:
    changed = conf.write_keys(PLAIN, RAISED)
    inserted = """\
\ttoken:   272727
\t# trailing comment
\ttoken_coefficient: 0
\ttoken_retransmit: 500
\thold: 400
\tconsensus: 327273
\tinterface {
\t\t# made by standfast, goes away with its values
\t\tlinknumber: 0
\t\tknet_ping_interval: 1000
\t\tknet_ping_timeout: 600000
\t\tknet_pong_count: 1
\t}
}
"""
    assert changed == PLAIN.replace("\ttoken:   10000\n\t# trailing comment\n}\n", inserted, 1)


def test_only_the_interface_block_of_link_0_is_ours() -> None:
    assert conf.read_keys(WITH_BLOCKS) == {"token": "2000", "interface.0.knet_ping_timeout": "5555"}
    changed = conf.write_keys(WITH_BLOCKS, RAISED)
    assert "knet_ping_timeout: 7777" in changed
    assert changed.count("interface {") == 2
    assert "token: 1000\n  token: 272727\n" in changed


def test_a_users_own_interface_block_stays_although_nothing_is_in_it_but_its_number() -> None:
    text = "totem {\n  interface {\n    linknumber: 0\n  }\n}\n"
    assert _restored(text) == text


def test_a_block_that_we_made_stays_when_somebody_has_put_a_key_of_his_own_into_it() -> None:
    changed = conf.write_keys(PLAIN, RAISED).replace(
        "linknumber: 0\n", "linknumber: 0\n\t\tmcastport: 5406\n"
    )
    back = conf.write_keys(changed, dict.fromkeys(conf.KEYS))
    assert "mcastport: 5406" in back
    assert not conf.read_keys(back)


def test_a_key_that_is_not_named_stays_as_it_is() -> None:
    assert conf.read_keys(conf.write_keys(WITH_BLOCKS, {"hold": "400"})) == {
        "token": "2000",
        "hold": "400",
        "interface.0.knet_ping_timeout": "5555",
    }


def test_removing_a_key_removes_every_occurrence_of_it() -> None:
    assert "token" not in conf.read_keys(conf.write_keys(WITH_BLOCKS, {"token": None}))


def test_the_fingerprint_does_not_see_our_keys_nor_comments() -> None:
    assert conf.structure(conf.write_keys(PLAIN, RAISED)) == conf.structure(PLAIN)
    assert conf.structure("# more\n" + PLAIN) == conf.structure(PLAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nodeid: 2", "nodeid: 3"),
        ("two_node: 1", "two_node: 0"),
        ("10.0.0.2", "10.0.0.3"),
        ("token: 5", "token: 6"),
    ],
)
def test_the_fingerprint_sees_every_other_change(old: str, new: str) -> None:
    assert conf.structure(PLAIN.replace(old, new)) != conf.structure(PLAIN)


def test_links_come_from_the_nodelist_and_from_interface_blocks() -> None:
    assert conf.links(PLAIN) == (0,)
    assert conf.links(PLAIN.replace("ring0_addr: 10.0.0.2", "ring1_addr: 10.0.0.2")) == (0, 1)
    assert conf.links(WITH_BLOCKS) == (0, 1)
    assert conf.node_count(PLAIN) == 2


def test_a_users_own_number_of_retransmits_is_seen_because_timers_are_derived_from_it() -> None:
    text = PLAIN.replace("version: 2", "version: 2\n token_retransmits_before_loss_const: 10", 1)
    assert conf.retransmits_before_loss(text) == 10
    assert conf.retransmits_before_loss(PLAIN) == heartbeat.RETRANSMITS_BEFORE_LOSS
    assert heartbeat.expected_runtime({"token": "10007"}, 3, 10)["token_retransmit"] == 1044


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("totem {\n  token 1000\n}\n", "line 2: neither"),
        ("totem {\n}\n}\n", "line 3: closing brace without"),
        ("# x\ntotem {\n  token: 1\n", "line 2: section totem is never closed"),
        ("totem { token: 1\n}\n", "line 1: a section opens"),
        ("{\n}\n", "line 1: a section opens"),
        ("totem {\n  token: ten\n}\n", "line 2: token: 'ten' is not a number"),
        ("totem {\n  interface {\n    linknumber: x\n  }\n}\n", "line 2: linknumber"),
        ("totem {\n  a: " + "x" * 600 + "\n}\n", "line 2: line too long"),
        ("totem {\n } # end\n", "line 2: neither"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(conf.CorosyncConfError, match=said):
        conf.write_keys(text, RAISED)


def test_a_file_without_a_totem_section_is_refused() -> None:
    with pytest.raises(conf.CorosyncConfError, match="no totem section"):
        conf.write_keys("quorum {\n}\n", RAISED)


def test_what_is_not_ours_or_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="cluster_name"):
        conf.write_keys(PLAIN, {"cluster_name": "1"})
    with pytest.raises(ValueError, match="token"):
        conf.write_keys(PLAIN, {"token": "1\n}"})


def test_installing_keeps_mode_and_owner_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "corosync.conf"
    path.write_bytes(b"totem {\n  # caf\xe9\n}\n")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 7, 8)
    old = path.stat()
    conf.install(path, conf.write_keys(conf.read_file(path), {"token": "1000"}))
    new = path.stat()
    assert path.read_bytes() == b"totem {\n  # caf\xe9\n\ttoken: 1000\n}\n"
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_installation_leaves_the_old_file_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        conf.install(tmp_path / "corosync.conf", PLAIN)
    assert list(tmp_path.iterdir()) == []


blanks = st.sampled_from(["", " ", "  ", "\t", "    "])
number = st.integers(0, 10**6).map(str)
other_line = st.sampled_from(
    ["", "# token: 1", "#}", "version: 2", "a:b:c", "cluster_name: x y", "name: \u00e9"]
)


def _key(names: list[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda name, before, after, value, end: f"{name}{before}:{after}{value}{end}",
        st.sampled_from(names),
        blanks,
        blanks,
        number,
        blanks,
    )


def _section(
    name: str, lines: st.SearchStrategy[list[str]], indent: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    def build(inner: list[str], blank: str) -> str:
        return "\n".join([f"{name} {{", *(blank + line.replace("\n", "\n" + blank) for line in inner), "}"])

    return st.builds(build, lines, indent)


totem_names = [key for key in conf.KEYS if "." not in key]
knet_names = [key.split(".")[-1] for key in conf.KEYS if "." in key]
link = st.sampled_from(["linknumber: 0", "linknumber: 1", "mcastport: 5405"])
interface = _section("interface", st.lists(st.one_of(link, _key(knet_names), other_line), max_size=5), blanks)
totem = _section("totem", st.lists(st.one_of(interface, _key(totem_names), other_line), max_size=7), blanks)
other = _section("nodelist", st.lists(st.one_of(_key(totem_names), other_line), max_size=3), blanks)
file = st.builds(
    lambda before, first, after, end: "\n".join([*before, first, *after]) + end,
    st.lists(st.one_of(other, other_line), max_size=2),
    totem,
    st.lists(st.one_of(totem, other, other_line), max_size=3),
    st.sampled_from(["", "\n", "\n\n"]),
)
values = st.dictionaries(st.sampled_from(conf.KEYS), number)


@given(file, values, values)
def test_any_change_and_back_gives_the_same_bytes(
    text: str, first: dict[str, str], second: dict[str, str]
) -> None:
    old = conf.read_keys(text)
    changed = conf.write_keys(conf.write_keys(text, first), second)
    assert conf.read_keys(changed) == {**old, **first, **second}
    assert conf.structure(changed) == conf.structure(text)
    assert conf.write_keys(changed, {key: old.get(key) for key in conf.KEYS}) == text


@given(file, values)
def test_writing_the_same_values_again_changes_nothing(text: str, wanted: dict[str, str]) -> None:
    once = conf.write_keys(text, wanted)
    assert conf.write_keys(once, wanted) == once


def test_a_changed_node_list_changes_the_structure_and_not_the_rest_of_it() -> None:
    for old, new in (("nodeid: 2", "nodeid: 3"), ("\tnode {\n\t\tname: b\n", "\tnode {\n\t\tname: c\n")):
        assert old in PLAIN
        changed = PLAIN.replace(old, new)
        assert conf.structure(changed) != conf.structure(PLAIN)
        assert conf.rest(changed) == conf.rest(PLAIN)
        assert conf.nodes(changed) != conf.nodes(PLAIN)
    other = PLAIN.replace("two_node: 1", "two_node: 0")
    assert conf.rest(other) != conf.rest(PLAIN)
    assert conf.nodes(other) == conf.nodes(PLAIN)


def test_the_nodes_are_named_first_and_told_whole() -> None:
    assert conf.nodes(PLAIN) == (
        "a name=a nodeid=1 ring0_addr=10.0.0.1",
        "b name=b nodeid=2 ring0_addr=10.0.0.2",
    )
    assert conf.nodes("nodelist {\n  node {\n    ring0_addr: h\n  }\n}\n") == ("h ring0_addr=h",)


def test_the_rest_is_the_same_whatever_our_keys_are() -> None:
    assert conf.rest(conf.write_keys(PLAIN, RAISED)) == conf.rest(PLAIN)
