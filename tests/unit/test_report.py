"""Reports survive the wire; foreign or damaged ones are refused."""

import json

import pytest

from standfast.core.report import Report, ReportError, decode, encode

FULL = Report(
    node="n2",
    epoch=9,
    file_keys={"token": "4545"},
    file_error='cannot write "/etc"',
    structure="ab12",
    rest="cd34",
    nodes=("n1 name=n1 nodeid=1", "n2 name=n2 nodeid=2"),
    unloaded=("nodelist.node.2.name", "quorum.two_node"),
    runtime={"token": 4545},
    members=("n1", "n2"),
    config="cafe",
    agents={"SA_xscfsnmpg0p-n1": "TestWorked"},
    proofs={"SA_xscfsnmpg0p-n1": "77"},
    hosts={"ctrl1": "", "ctrl2": "no answer in 5 s"},
    logins={"10.20.30.71": ""},
    facility="stopped",
    watches=True,
    strays={"n3": "elsewhere ctrl1"},
    clock_step="is setting its clock (rtc, try 1 of 3)",
    commanding=True,
)


def test_a_report_comes_back_as_it_was_sent() -> None:
    assert decode(encode(FULL)) == FULL
    assert decode(encode(Report("n1"))) == Report("n1")


def test_a_report_of_before_files_were_compared_names_no_difference() -> None:
    body = json.loads(encode(FULL))
    for name in ("unl", "rest", "nodes"):
        del body[name]
    old = decode(json.dumps(body))
    assert (old.unloaded, old.rest, old.nodes) == ((), "", ())


def test_a_report_of_before_nodes_set_their_clocks_says_nothing_of_it() -> None:
    body = json.loads(encode(FULL))
    del body["cstep"]
    assert decode(json.dumps(body)).clock_step == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"v":1}', '{"v":1,"node":3}'])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ReportError):
        decode(text)


def test_another_format_is_refused() -> None:
    body = {**json.loads(encode(FULL)), "v": 2}
    with pytest.raises(ReportError, match="format 2"):
        decode(json.dumps(body))
