"""The gate without a daemon: whom it can ask, and what it says of those whom it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from standfast.commands import gate_hosts
from standfast.core.evidence import GuestState

CONF = """
format = 1
[[control_domain]]
name = "ctrl1"
address = "10.20.50.71"
ppar_id = 0
xscf_lan0 = "10.20.30.71"
xscf_lan1 = "10.20.40.71"
"""


def test_a_host_without_login_is_left_to_the_daemon_and_is_silent_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> list[str]:
        raise AssertionError("ssh was called for a host without a login")

    monkeypatch.setattr(gate_hosts, "ssh_argv", nobody)
    file = tmp_path / "etc/standfast/clovmmigrate.conf"
    file.parent.mkdir(parents=True)
    file.write_text(CONF)
    answers, note = gate_hosts.Hosts(str(tmp_path)).ask(["guest1"])
    assert note == "standfastd is not running"
    (answer,) = answers["guest1"]
    assert (answer.host, answer.state, answer.detail) == ("ctrl1", GuestState.SILENT, "no login there")


def test_what_the_daemon_tells_of_uuid_and_migration_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"host": "host1", "state": "running", "identity": "some-uuid", "job": True}
    older = {"host": "host2", "state": "absent", "job": "yes"}
    monkeypatch.setattr(gate_hosts, "_exchange", lambda *_: {"answers": [said, older]})
    first, second = gate_hosts._question("socket", "guest1", 0.0)
    assert (first.identity, first.job, first.detail) == ("some-uuid", True, "")
    assert (second.identity, second.job, second.state) == ("", False, GuestState.ABSENT)
