"""The emulators, met by clients that are not ours: OpenSSH and Debian's fence_ldom."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from emulators_kit import FAST, Site, running_site

from standfast.lab.emulators.control import ControlError


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("emulators")) as site:
        yield site


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """The site, at rest and without faults."""
    shared.control.reset()
    yield shared
    shared.control.clear()


def rows(listing: str) -> dict[str, str]:
    """The rows of the last showdomainstatus in a session."""
    part = listing.rpartition("Logical Domain Name   Status\n")[2].partition("XSCF>")[0]
    return {line[:22].strip(): line[22:] for line in part.splitlines()}


def status_of(site: Site, host: str, ppar: int, name: str) -> str:
    return rows(site.xscf(host, f"showdomainstatus -p {ppar}"))[name]


def xscf_connection(site: Site) -> Any:
    """asyncssh's client, where a test must type while it reads."""
    address, port = site.control.endpoint("ctrl1", "lan0")
    return asyncssh.connect(
        address,
        port,
        username="xuser",
        password=site.written.xscf_password,
        known_hosts=str(site.known_hosts),
        client_keys=None,
        config=None,
    )


# --- XSCF: OpenSSH -------------------------------------------------------------------------------


def test_openssh_with_a_password_gets_the_shell_and_the_status_table(site: Site) -> None:
    assert site.xscf("ctrl2", "showdomainstatus -p 0", lan="lan1") == (
        "XSCF> showdomainstatus -p 0\n"
        "Logical Domain Name   Status\n"
        "primary               Solaris running\n"
        "guest2                Solaris running\n"
        "app72                 Solaris running\n"
        "XSCF> exit\nlogout\n"
    )


def test_one_domain_the_ppar_and_the_board_can_be_shown(site: Site) -> None:
    shown = site.xscf(
        "ctrl3", "showdomainstatus -p 1 -g app73", "showpparstatus -p 1", "showpparstatus -a", "showbbstatus"
    )
    assert rows(shown) == {"app73": "Solaris running"}
    assert shown.count("PPAR-ID         PPAR Status\n01              Running\n") == 2
    assert "BB#00 (Master)\n" in shown


def test_the_booting_configuration_is_shown(site: Site) -> None:
    shown = site.xscf("ctrl1", "showdomainconfig -p 0")
    assert "PPAR-ID :0\nBooting config\n(Current) :initial\n(Reserved) :initial\n" in shown
    assert "config_name   :factory-default\ndomains       :1\ndate_created  :-\n" in shown


def test_a_session_without_a_terminal_has_no_echo_and_plain_newlines(site: Site) -> None:
    done = site.ssh("ctrl1", "lan0", typed="showbbstatus\nexit\n")
    assert done.stdout == "XSCF> BB#00 (Master)\nXSCF> logout\n"


def test_the_xscf_runs_no_command_over_exec(site: Site) -> None:
    done = site.ssh("ctrl1", "lan0", "showbbstatus")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(("user", "password"), [("xuser", "wrong"), ("nobody", "wrong")])
def test_a_wrong_login_is_refused_and_recorded(site: Site, user: str, password: str) -> None:
    mark = site.control.mark()
    done = site.ssh("ctrl1", "lan0", user=user, password=password)
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
    assert {entry["event"] for entry in site.control.log(mark)} == {"login-refused"}


def test_openssh_refuses_a_host_key_that_is_not_the_known_one(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    lines = site.known_hosts.read_text().splitlines()
    keys = [line.split(" ", 1)[1] for line in lines]
    other.write_text(
        "\n".join(f"{line.split()[0]} {key}" for line, key in zip(lines, keys[::-1], strict=True))
    )
    wrong = Site(site.control, site.written, site.directory, other)
    assert wrong.ssh("ctrl1", "lan0", typed="exit\n").returncode == 255


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("showdomainstatus", "Invalid parameter."),
        ("showdomainstatus -p 7", "PPAR-ID 7 does not exist."),
        ("showdomainstatus -p 0 -g nix", "Domain nix does not exist."),
        ("reset -p 0 -g guest1 off", "Invalid parameter."),
        ("reset -q -p 0 -g guest1 panic", "Invalid parameter."),
        ("reset -p 0 -g nix panic", "Domain nix does not exist."),
        ("reset -p 0 -g 'guest1 panic", "Invalid parameter."),
        ("ls", "ls: command not found"),
        ("poweron -p 0", "PPAR-ID 0 is in a state in which the command cannot be executed."),
    ],
)
def test_a_bad_command_gets_one_line_and_no_question(site: Site, line: str, answer: str) -> None:
    assert site.xscf("ctrl1", line) == f"XSCF> {line}\n{answer}\nXSCF> exit\nlogout\n"


def test_a_user_who_may_only_look_cannot_reset(site: Site) -> None:
    shown = site.xscf("ctrl1", "showdomainstatus -p 0", "reset -y -p 0 -g guest1 panic", user="viewer")
    assert rows(shown)["guest1"] == "Solaris running"
    assert "Permission denied.\n" in shown
    assert site.control.state()["hosts"]["ctrl1"]["xscf"]["guest1"] == "Solaris running"


# --- XSCF: reset ---------------------------------------------------------------------------------

QUESTION = "PPAR-ID :00\nDomain Name :guest1\nContinue? [y|n] :"
DONE = (
    "00 guest1 :Resetting\n\n*Note*\n This command only issues the instruction to reset.\n"
    ' The result of the instruction can be checked by the "showdomainstatus".\n'
)


@pytest.mark.parametrize(
    ("line", "answer", "shown", "acts"),
    [
        ("reset -p 0 -g guest1 panic", "y\n", QUESTION + "y\n" + DONE, True),
        ("reset -p 0 -g guest1 panic", "n\n", QUESTION + "n\n", False),
        ("reset -p 0 -g guest1 panic", "maybe\nn\n", f"{QUESTION}maybe\nContinue? [y|n] :n\n", False),
        ("reset -y -p 0 -g guest1 sir", "", QUESTION + "y\n" + DONE, True),
        ("reset -q -y -p 0 -g guest1 sir", "", DONE, True),
        ("reset -n -p 0 -g guest1 sir", "", QUESTION + "n\n", False),
    ],
)
def test_reset_asks_and_acts_only_on_yes(site: Site, line: str, answer: str, shown: str, acts: bool) -> None:
    done = site.ssh("ctrl1", "lan0", typed=f"{line}\n{answer}exit\n", pty=True)
    assert done.stdout.replace("\r\n", "\n") == f"XSCF> {line}\n{shown}XSCF> exit\nlogout\n"
    hits = [(entry["asked"], entry["hit"]) for entry in site.control.log(event="acted")]
    assert hits == ([("guest1", "guest1")] if acts else [])


def test_a_panic_is_seen_as_panicking_then_rebooting_then_openboot_then_running_again(site: Site) -> None:
    site.control.call("timing", openboot_seconds=0.2)
    typed = "reset -y -p 0 -g guest1 panic\n" + "showdomainstatus -p 0 -g guest1\n" * 300 + "exit\n"
    site.control.inject("latency", "ctrl1", "lan0", seconds=0.005)
    shown = site.ssh("ctrl1", "lan0", typed=typed, limit_seconds=20).stdout
    seen = list(dict.fromkeys(re.findall(r"^guest1 {16}(.+)$", shown, re.MULTILINE)))
    assert seen == [
        "Solaris panicking",
        "Solaris rebooting",
        "OpenBoot initializing",
        "OpenBoot Running",
        "OpenBoot Primary Boot Loader",
        "OpenBoot Running OS Boot",
        "Solaris booting",
        "Solaris running",
    ]


def test_without_auto_boot_a_reset_domain_stays_at_openboot(site: Site) -> None:
    site.control.call("boot", host="ctrl1", name="guest1", policy="prompt")
    site.xscf("ctrl1", "reset -y -p 0 -g guest1 sir")
    site.control.wait(lambda state: state["hosts"]["ctrl1"]["xscf"]["guest1"] == "OpenBoot Running")
    time.sleep(0.5)  # nothing may follow
    assert status_of(site, "ctrl1", 0, "guest1") == "OpenBoot Running"


def test_power_off_stops_every_domain_and_silences_the_control_domain_but_not_the_xscf(site: Site) -> None:
    shown = site.xscf("ctrl1", "poweroff -y -p 0", "showpparstatus -p 0", "showdomainstatus -p 0")
    assert "00 :Powering off\n" in shown
    assert "00              Powered Off\n" in shown
    assert set(rows(shown).values()) == {"Host stopped"}
    assert site.ssh("ctrl1", "ldm", "true", connect_seconds=1).returncode == 255
    assert "00 :Powering on\n" in site.xscf("ctrl1", "poweron -y -p 0")
    site.control.wait(lambda state: state["running"]["guest1"] == ["ctrl1"])
    assert site.ldm("ctrl1", "list-domain").returncode == 0


def test_a_hung_guest_is_called_running_and_dies_of_a_panic(site: Site) -> None:
    assert site.control.call("hang", name="guest1") == "ctrl1"
    assert status_of(site, "ctrl1", 0, "guest1") == "Solaris running"
    assert "|state=active|flags=-n----|" in site.ldm("ctrl1", "ls", "-p", "guest1").stdout
    site.xscf("ctrl1", "reset -y -p 0 -g guest1 panic")
    actions = [entry["action"] for entry in site.control.log(event="machine", machine="cfguest1")]
    assert actions[:2] == ["freeze", "power_off"]


# --- the stale name map --------------------------------------------------------------------------


def test_before_saving_both_xscfs_are_wrong_and_a_reset_hits_a_bystander(site: Site) -> None:
    site.control.migrate("guest2", "ctrl3")
    with pytest.raises(ControlError, match="did not come in time"):
        site.control.wait_migration("guest2", 0.05)
    assert site.control.wait_migration("guest2")["phase"] == "done"
    assert status_of(site, "ctrl2", 0, "guest2") == "Host stopped"
    assert status_of(site, "ctrl3", 1, "guest2") == "Unknown"
    assert "00 guest2 :Resetting\n" in site.xscf("ctrl2", "reset -y -p 0 -g guest2 panic")
    assert "01 guest2 :Resetting\n" in site.xscf("ctrl3", "reset -y -p 1 -g guest2 panic")
    acted = [(e["host"], e["asked"], e["hit"]) for e in site.control.log(event="acted")]
    assert acted == [("ctrl2", "guest2", "app72"), ("ctrl3", "guest2", "app73")]
    assert site.control.running("guest2") == ["ctrl3"]


def test_after_saving_on_both_sides_the_new_xscf_is_right_and_the_old_one_knows_nothing(site: Site) -> None:
    site.control.migrate("guest2", "ctrl3")
    site.control.wait_migration("guest2")
    for host in ("ctrl2", "ctrl3"):
        assert site.ldm(host, "add-spconfig", "standfast-a").returncode == 0
        listed = site.ldm(host, "list-spconfig").stdout
        assert listed == "factory-default\ninitial\nstandfast-a [current]\n"
    assert status_of(site, "ctrl3", 1, "guest2") == "Solaris running"
    assert "Domain guest2 does not exist." in site.xscf("ctrl2", "reset -y -p 0 -g guest2 panic")
    mark = site.control.mark()
    site.xscf("ctrl3", "reset -y -p 1 -g guest2 panic")
    assert [entry["hit"] for entry in site.control.log(mark, event="acted")] == ["guest2"]
    assert site.control.log(mark, host="ctrl2") == []


def test_the_log_file_holds_every_command_with_its_time(site: Site) -> None:
    before = time.time()
    site.xscf("ctrl2", "showdomainstatus -p 0", lan="lan1")
    lines = (site.directory / "commands.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    found = [entry for entry in entries if entry.get("line") == "showdomainstatus -p 0"][-1]
    assert (found["host"], found["endpoint"], found["user"]) == ("ctrl2", "lan1", "xuser")
    assert before <= found["time"] <= time.time()


# --- faults --------------------------------------------------------------------------------------


def test_a_refused_login_hits_one_lan_only(site: Site) -> None:
    site.control.inject("login_refused", "ctrl1", "lan0")
    assert site.ssh("ctrl1", "lan0", typed="exit\n").returncode == 255
    assert site.ssh("ctrl1", "lan1", typed="exit\n").returncode == 0


def test_a_dead_path_refuses_connections_and_comes_back_on_the_same_port(site: Site) -> None:
    site.control.inject("path_dead", "ctrl1", "lan0", mode="refused")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(site.control.endpoint("ctrl1", "lan0"), 2)
    site.control.clear()
    assert site.ssh("ctrl1", "lan0", typed="exit\n").returncode == 0


def test_a_silent_path_never_says_a_word(site: Site) -> None:
    site.control.inject("path_dead", "ctrl1", "lan0", mode="silent")
    with socket.create_connection(site.control.endpoint("ctrl1", "lan0"), 2) as dead:
        dead.settimeout(0.5)
        with pytest.raises(TimeoutError):
            dead.recv(1)
    assert site.ssh("ctrl1", "lan1", typed="exit\n").returncode == 0
    site.control.clear()
    assert site.ssh("ctrl1", "lan0", typed="exit\n").returncode == 0


async def test_a_path_that_dies_under_a_session_leaves_it_waiting(site: Site) -> None:
    async with xscf_connection(site) as connection, connection.create_process(term_type="vt100") as session:
        await asyncio.wait_for(session.stdout.readuntil("XSCF> "), 5)
        await asyncio.to_thread(site.control.inject, "path_dead", "ctrl1", "lan0")
        session.stdin.write("showbbstatus\r")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.stdout.read(1), 0.5)
        await asyncio.to_thread(site.control.clear)
        assert "BB#00 (Master)" in await asyncio.wait_for(session.stdout.readuntil("XSCF> "), 5)


@pytest.mark.parametrize(
    ("at", "asked", "acted"), [("before", False, False), ("question", True, False), ("after", True, True)]
)
def test_a_session_can_be_cut_at_each_point_of_a_reset(site: Site, at: str, asked: bool, acted: bool) -> None:
    site.control.inject("cut", "ctrl1", "lan0", times=1, match="reset", at=at)
    done = site.ssh("ctrl1", "lan0", typed="reset -p 0 -g guest1 panic\ny\nexit\n")
    assert done.returncode == 255
    assert ("Continue?" in done.stdout) is asked
    assert "Resetting" not in done.stdout
    assert bool(site.control.log(event="acted")) is acted
    assert site.ssh("ctrl1", "lan0", typed="exit\n").returncode == 0


@pytest.mark.parametrize(("kind", "pieces"), [("latency", 2), ("slow_prompt", 2)])
def test_output_and_prompt_can_be_slow(site: Site, kind: str, pieces: int) -> None:
    site.control.inject(kind, "ctrl1", "lan0", seconds=0.4)
    begun = time.monotonic()
    site.ssh("ctrl1", "lan0", typed="showbbstatus\nexit\n")
    assert time.monotonic() - begun >= 0.4 * pieces


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ({"kind": "newline", "text": "\n"}, "XSCF> exit\nlogout\n"),
        ({"kind": "newline", "text": "\r\n"}, "XSCF> exit\r\nlogout\r\n"),
        ({"kind": "echo", "on": False}, "XSCF> logout\r\n"),
        ({"kind": "noise", "text": "NOTICE\n"}, "NOTICE\r\nXSCF> exit\r\nlogout\r\n"),
    ],
)
async def test_newlines_echo_and_noise_can_differ(site: Site, fault: dict[str, object], wanted: str) -> None:
    site.control.inject(host="ctrl1", endpoint="lan0", **fault)  # type: ignore[arg-type]
    async with xscf_connection(site) as connection:
        done = await connection.run(term_type="vt100", input="exit\r")
        assert done.stdout == wanted


async def test_an_idle_session_is_ended(site: Site) -> None:
    site.control.inject("autologout", "ctrl1", "lan0", seconds=0.3)
    begun = time.monotonic()
    async with xscf_connection(site) as connection, connection.create_process(term_type="vt100") as session:
        shown = await asyncio.wait_for(session.stdout.read(), 8)
    assert "Timeout. Connection closed." in shown
    assert 0.3 <= time.monotonic() - begun < 5


def test_the_question_can_have_other_words(site: Site) -> None:
    site.control.inject("question", "ctrl1", "xscf", text="Are you sure (yes/no)? ", accept="yes")
    shown = site.ssh("ctrl1", "lan0", typed="reset -p 0 -g guest1 panic\ny\nno\nexit\n").stdout
    assert shown.count("Are you sure (yes/no)? ") == 2
    assert "Continue?" not in shown
    assert site.control.log(event="acted") == []


def test_a_standby_xscf_shows_itself_and_refuses_the_rest(site: Site) -> None:
    site.control.inject("standby", "ctrl1", "xscf")
    shown = site.xscf("ctrl1", "showbbstatus", "showdomainstatus -p 0")
    assert "BB#01 (Standby)\n" in shown
    assert "standby" in shown.partition("showdomainstatus")[2]
    assert "Logical Domain Name" not in shown


def test_a_reset_can_be_ignored_although_the_text_says_it_worked(site: Site) -> None:
    site.control.inject("reset_ignored", "ctrl1")
    shown = site.xscf("ctrl1", "reset -y -p 0 -g guest1 panic", "showdomainstatus -p 0")
    assert "00 guest1 :Resetting\n" in shown
    assert rows(shown)["guest1"] == "Solaris running"


def test_the_status_can_be_frozen_at_what_it_was(site: Site) -> None:
    site.control.inject("status_frozen", "ctrl1", "xscf")
    site.xscf("ctrl1", "reset -y -p 0 -g guest1 panic")
    assert status_of(site, "ctrl1", 0, "guest1") == "Solaris running"
    site.control.clear()
    assert status_of(site, "ctrl1", 0, "guest1") != "Solaris running"


def test_one_status_and_the_name_map_can_be_made_wrong(site: Site) -> None:
    site.control.inject("status_text", "ctrl1", "xscf", name="guest1", text="OpenBoot Failed")
    site.control.inject("name_map", "ctrl1", "xscf", asked="guest1", hit="app71")
    assert status_of(site, "ctrl1", 0, "guest1") == "OpenBoot Failed"
    site.xscf("ctrl1", "reset -y -p 0 -g guest1 panic")
    assert [entry["hit"] for entry in site.control.log(event="acted")] == ["app71"]


def test_a_command_can_hang_for_good(site: Site) -> None:
    site.control.inject("hang", "ctrl1", "*", match="domain")
    with pytest.raises(subprocess.TimeoutExpired):
        site.ssh("ctrl1", "lan0", typed="showdomainstatus -p 0\n", limit_seconds=1)
    with pytest.raises(subprocess.TimeoutExpired):
        site.ssh("ctrl1", "ldm", "ldm", "list-domain", limit_seconds=1)
    assert site.ssh("ctrl1", "lan0", typed="showbbstatus\nexit\n").returncode == 0


def test_a_site_may_have_old_key_exchanges_other_words_and_users_of_one_ppar(tmp_path: Path) -> None:
    words = tmp_path / "site.toml"
    packaged = resources.files("standfast.lab.emulators") / "dialects" / "xscf.toml"
    words.write_text(packaged.read_text().replace("Continue? [y|n] :", "Continue?[y/n]"))

    def edit(world: dict[str, Any]) -> None:
        world["hosts"][1]["kex"] = ["diffie-hellman-group14-sha1"]
        world["xscf_dialect"] = str(words)
        secret = world["xscf_users"][0]["password"]
        world["xscf_users"].append({"name": "mgr0", "password": secret, "privileges": ["pparmgr@0"]})

    with running_site(tmp_path, edit=edit) as site:
        assert site.ssh("ctrl2", "lan0", typed="exit\n").returncode == 255
        options = ("KexAlgorithms=+diffie-hellman-group14-sha1",)
        assert site.ssh("ctrl2", "lan0", typed="exit\n", options=options).returncode == 0
        assert "Continue?[y/n]n\n" in site.xscf("ctrl1", "reset -p 0 -g guest1 sir", "n", user="mgr0")
        assert "Permission denied.\n" in site.xscf("ctrl3", "showdomainstatus -p 1", user="mgr0")


# --- ldm: OpenSSH --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ldm", "/usr/sbin/ldm", "/opt/SUNWldm/bin/ldm"])
def test_openssh_with_a_key_runs_ldm_by_every_path(site: Site, path: str) -> None:
    done = site.ssh("ctrl2", "ldm", path, "list-domain")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "FLAGS", "CONS", "VCPU", "MEMORY", "UTIL", "NORM", "UPTIME"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["primary", "active", "-n-cv-"],
        ["app72", "active", "-n----"],
        ["guest2", "active", "-n----"],
    ]


def test_the_parseable_list_has_a_version_and_bytes_and_seconds(site: Site) -> None:
    lines = site.ldm("ctrl2", "list-domain", "-p", "guest2").stdout.splitlines()
    assert re.fullmatch(r"VERSION 1\.\d+", lines[0])
    fields = dict(field.split("=", 1) for field in lines[1].split("|")[1:])
    assert fields["mem"] == str(16 << 30)
    assert int(fields["uptime"]) >= 86_400
    assert (fields["state"], fields["flags"], fields["ncpu"]) == ("active", "-n----", "8")


def test_the_long_parseable_list_has_flags_as_words(site: Site) -> None:
    shown = site.ldm("ctrl2", "list-domain", "-l", "-p").stdout
    assert "|flags=normal,control,vio-service|" in shown


def test_the_status_list_has_no_status_part_without_a_migration(site: Site) -> None:
    assert site.ldm("ctrl2", "list-domain", "-o", "status", "guest2").stdout == "NAME\nguest2\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("list-domain", "nix"), 'LDom "nix" was not found'),
        (("frobnicate",), "unknown command"),
        (("stop-domain",), "Usage error"),
        (("start-domain", "guest1"), "is already active"),
        (("stop-domain", "primary"), "cannot be migrated or stopped"),
        (("cancel-operation", "migration", "guest1"), "No migration in progress"),
        (("add-spconfig", "initial"), "already exists"),
        (("remove-spconfig", "factory-default"), "cannot be removed"),
    ],
)
def test_a_refused_ldm_command_exits_1_and_says_why(
    site: Site, arguments: tuple[str, ...], text: str
) -> None:
    done = site.ldm("ctrl1", *arguments)
    assert done.returncode == 1
    assert text in done.stderr


def test_a_domain_manager_that_does_not_answer_fails_every_command(site: Site) -> None:
    site.control.inject("ldmd_down", "ctrl1", "ldm")
    for command in (("ls",), ("list-spconfig",), ("stop-domain", "guest1")):
        done = site.ldm("ctrl1", *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Failed to connect to logical domain manager" in done.stderr
    assert site.control.running("guest1") == ["ctrl1"]


def test_a_user_without_write_rights_can_list_and_nothing_else(site: Site) -> None:
    assert site.ssh("ctrl1", "ldm", "ldm", "ls", user="reader").returncode == 0
    done = site.ssh("ctrl1", "ldm", "ldm", "stop-domain", "guest1", user="reader")
    assert (done.returncode, done.stderr) == (1, "Authorization failed\n")


def test_a_password_login_and_a_terminal_work_too(site: Site) -> None:
    done = site.ssh(
        "ctrl1", "ldm", password=site.written.control_password, typed="ldm ls -p guest1\nexit 3\n", pty=True
    )
    assert done.returncode == 3
    assert "|name=guest1|" not in done.stderr
    assert "DOMAIN|name=guest1|state=active|" in done.stdout


def test_the_shell_joins_commands_and_knows_what_it_does_not_know(site: Site) -> None:
    line = "ldm ls nix || echo no; false; echo $?; LC_ALL=C ldm ls -p guest1 > /dev/null 2>&1 && uname"
    done = site.ssh("ctrl1", "ldm", line)
    assert done.stdout.splitlines()[0] == "no"
    assert "127\n" in done.stdout
    assert "-sh: false: not found\n" in done.stderr
    assert site.ssh("ctrl1", "ldm", "ldm ls | grep x").returncode == 2


def test_domains_can_be_stopped_started_panicked_bound_and_unbound(site: Site) -> None:
    assert site.ldm("ctrl1", "stop-domain", "guest1").stdout == "LDom guest1 stopped\n"
    assert "|state=bound|flags=------|" in site.ldm("ctrl1", "ls", "-p", "guest1").stdout
    assert site.ldm("ctrl1", "unbind-domain", "guest1").returncode == 0
    assert "|state=inactive|" in site.ldm("ctrl1", "ls", "-p", "guest1").stdout
    assert site.ldm("ctrl1", "start-domain", "guest1").returncode == 1
    assert site.ldm("ctrl1", "bind-domain", "guest1").returncode == 0
    assert site.ldm("ctrl1", "start-domain", "guest1").stdout == "LDom guest1 started\n"
    site.control.wait(lambda s: s["hosts"]["ctrl1"]["domains"]["guest1"]["status"] == "Solaris running")
    assert site.ldm("ctrl1", "panic-domain", "guest1").returncode == 0
    assert site.control.state()["hosts"]["ctrl1"]["xscf"]["guest1"] == "Solaris panicking"


def test_configurations_are_few_and_the_suffixes_follow(site: Site) -> None:
    for number in range(6):
        assert site.ldm("ctrl1", "add-spconfig", f"c{number}").returncode == 0
    full = site.ldm("ctrl1", "add-spconfig", "c6")
    assert full.returncode == 1
    assert "limit of 8" in full.stderr
    assert site.ldm("ctrl1", "set-spconfig", "c1").returncode == 0
    assert site.ldm("ctrl1", "remove-spconfig", "c0").returncode == 0
    assert site.ldm("ctrl1", "list-spconfig").stdout.splitlines() == [
        "factory-default",
        "initial",
        "c1 [next poweron]",
        "c2",
        "c3",
        "c4",
        "c5 [current]",
    ]
    site.control.call("degraded", host="ctrl1")
    assert "c5 [current] [degraded]\n" in site.ldm("ctrl1", "list-spconfig").stdout


# --- migration -----------------------------------------------------------------------------------


def target(site: Site, host: str = "ctrl3") -> str:
    return site.control.endpoint(host, "ldm")[0]


def store_password(site: Site, host: str = "ctrl2") -> None:
    secret = f"{site.written.control_password}\n"
    assert site.ssh(host, "ldm", "cat > /tmp/secret", typed=secret).returncode == 0


def test_a_migration_shows_progress_and_flags_and_blacks_out_once_at_the_end(site: Site) -> None:
    store_password(site)
    begun = time.monotonic()
    line = ["ldm", "migrate-domain", "-p", "/tmp/secret", "guest2", target(site)]
    results: list[subprocess.CompletedProcess[str]] = []
    runner = threading.Thread(target=lambda: results.append(site.ssh("ctrl2", "ldm", *line)))
    runner.start()
    site.control.wait(lambda state: bool(state["migrations"]))
    shown = site.ssh("ctrl2", "ldm", "ldm ls -p guest2; ldm ls -o status guest2; ldm ls -p -o status guest2")
    there = site.ldm("ctrl3", "ls", "-p", "guest2")
    runner.join(10)
    took = time.monotonic() - begun
    assert (results[0].returncode, results[0].stdout, results[0].stderr) == (0, "", "")
    assert FAST["migration_seconds"] <= took < FAST["migration_seconds"] + 3
    assert "|state=active|flags=-n---s|" in shown.stdout
    assert re.search(
        r"STATUS\n    OPERATION    PROGRESS    TARGET\n    migration    \d+% +ctrl3\n", shown.stdout
    )
    assert re.search(r"^\|op=migration\|progress=\d+\|error=no\|target=ctrl3$", shown.stdout, re.MULTILINE)
    assert "|state=bound|flags=-t---t|" in there.stdout
    machine = {entry["action"]: entry["time"] for entry in site.control.log(event="machine")}
    assert list(machine) == ["freeze", "thaw"]
    assert machine["thaw"] - machine["freeze"] == pytest.approx(FAST["blackout_seconds"], abs=0.15)
    assert site.control.running("guest2") == ["ctrl3"]


def test_both_machines_save_by_themselves_with_s_or_with_the_property(site: Site) -> None:
    assert site.ldm("ctrl2", "migrate-domain", "-c", "-s", "guest2", target(site)).returncode == 0
    for host in ("ctrl2", "ctrl3"):
        assert "@post-migration [current]\n" in site.ldm(host, "list-spconfig").stdout
    assert status_of(site, "ctrl3", 1, "guest2") == "Solaris running"
    site.control.call("save_property", host="ctrl3", on=True)
    differs = site.ldm("ctrl3", "migrate-domain", "-n", "-c", "guest2", target(site, "ctrl2"))
    assert "migration_save_spconfig" in differs.stderr
    site.control.call("save_property", host="ctrl2", on=True)
    assert site.ldm("ctrl3", "migrate-domain", "-c", "guest2", target(site, "ctrl2")).returncode == 0
    assert status_of(site, "ctrl2", 0, "guest2") == "Solaris running"


def test_the_target_password_is_asked_for_on_a_terminal_and_not_echoed(site: Site) -> None:
    secret = site.written.control_password
    typed = f"ldm migrate-domain -n guest2 {target(site)}\n{secret}\necho code=$?\nexit\n"
    shown = site.ssh("ctrl2", "ldm", typed=typed, pty=True).stdout
    assert "Target Password: " in shown
    assert secret not in shown
    assert "code=0" in shown
    wrong = site.ssh("ctrl2", "ldm", typed=typed.replace(secret, "wrong"), pty=True).stdout
    assert "Authentication failure" in wrong
    assert "Domain Migration of LDom guest2 would fail if attempted" in wrong
    assert site.control.state()["migrations"] == []


def test_a_dry_run_names_the_reason_and_a_passing_one_promises_nothing(site: Site) -> None:
    migrate = ("migrate-domain", "-c", "guest2", target(site))
    dry = (migrate[0], "-n", *migrate[1:])
    site.control.inject("migration_refused", "ctrl2", "ldm", text="missing vds volume vol1@vds0")
    done = site.ldm("ctrl2", *dry)
    assert done.returncode == 1
    last = "Domain Migration of LDom guest2 would fail if attempted"
    assert done.stderr.splitlines() == ["missing vds volume vol1@vds0", last]
    site.control.clear()
    site.control.inject("migration_refused", "ctrl2", "ldm", text="MAC in use", dry=False)
    assert site.ldm("ctrl2", *dry).returncode == 0
    real = site.ldm("ctrl2", *migrate)
    assert real.returncode == 1
    assert real.stderr.splitlines() == ["MAC in use", "Domain Migration of LDom guest2 failed"]
    assert site.control.running("guest2") == ["ctrl2"]


def test_a_domain_at_openboot_cannot_be_migrated(site: Site) -> None:
    site.control.call("boot", host="ctrl2", name="guest2", policy="prompt")
    site.control.call("act", host="ctrl2", name="guest2", action="sir")
    done = site.ldm("ctrl2", "migrate-domain", "-n", "-c", "guest2", target(site))
    assert "is not running an operating system" in done.stderr


def test_a_lost_session_leaves_the_migration_running(site: Site) -> None:
    site.control.inject("cut", "ctrl2", "ldm", times=1, match="ls", at="before")
    line = f"ldm migrate-domain -c guest2 {target(site)}"
    with pytest.raises(subprocess.TimeoutExpired):
        site.ssh("ctrl2", "ldm", line, limit_seconds=0.6)
    assert site.ssh("ctrl2", "ldm", "ldm ls").returncode == 255
    assert site.control.wait_migration("guest2")["phase"] == "done"


def test_a_cancel_leaves_the_source_running_and_ldm_hanging(site: Site) -> None:
    site.control.migrate("guest2", "ctrl3", duration_seconds=10, blackout_seconds=1)
    begun = time.monotonic()
    assert site.ldm("ctrl2", "cancel-operation", "migration", "guest2").returncode == 0
    assert site.control.running("guest2") == ["ctrl2"]
    assert site.ldm("ctrl3", "ls", "guest2").returncode == 1
    assert time.monotonic() - begun >= FAST["scrub_seconds"]
    assert site.control.wait_migration("guest2")["reason"] == "cancelled"


async def test_an_interrupt_of_ldm_cancels_the_migration(site: Site) -> None:
    site.control.call("timing", migration_seconds=20)
    address, port = site.control.endpoint("ctrl2", "ldm")
    async with (
        asyncssh.connect(
            address,
            port,
            username="standfast",
            client_keys=[str(site.written.client_key)],
            known_hosts=str(site.known_hosts),
            config=None,
        ) as connection,
        connection.create_process(term_type="vt100") as session,
    ):
        session.stdin.write(f"ldm migrate-domain -c guest2 {target(site)}\r")
        await asyncio.to_thread(site.control.wait, lambda state: bool(state["migrations"]))
        session.stdin.write("\x03")
        ended = await asyncio.to_thread(site.control.wait_migration, "guest2", 5)
        session.stdin.write("exit\r")
        assert "^C" in await asyncio.wait_for(session.stdout.read(), 5)
    assert (ended["phase"], ended["reason"]) == ("failed", "cancelled")
    assert site.control.running("guest2") == ["ctrl2"]


def test_a_lost_network_leaves_the_error_flag_and_a_copy_to_choose(site: Site) -> None:
    site.control.migrate("guest2", "ctrl3", duration_seconds=10)
    site.control.call("lose_network", name="guest2", runs_on_target=False)
    shown = site.ldm("ctrl2", "ls", "-p", "guest2").stdout
    assert "|state=suspended|flags=-n---e|" in shown
    assert "|error=yes|" in site.ldm("ctrl2", "ls", "-o", "status", "-p", "guest2").stdout
    assert site.ldm("ctrl2", "cancel-operation", "migration", "guest2").returncode == 0
    assert site.control.running("guest2") == ["ctrl2"]


def test_a_stalled_migration_stays_at_its_progress(site: Site) -> None:
    site.control.migrate("guest2", "ctrl3")
    site.control.call("stall", name="guest2")
    first = site.control.state()["migrations"][0]["progress"]
    time.sleep(FAST["migration_seconds"])
    assert site.control.state()["migrations"][0] == {
        "name": "guest2",
        "source": "ctrl2",
        "target": "ctrl3",
        "phase": "copying",
        "progress": first,
        "reason": "",
    }
    site.control.call("stall", name="guest2", stalled=False)
    assert site.control.wait_migration("guest2")["phase"] == "done"


def test_a_target_without_power_cannot_be_reached(site: Site) -> None:
    site.control.call("power_off", host="ctrl3")
    done = site.ldm("ctrl2", "migrate-domain", "-n", "-c", "guest2", target(site))
    assert done.stderr.startswith("Failed to establish connection with ldmd(1m) on target: ctrl3\n")


# --- fence_ldom ----------------------------------------------------------------------------------


def fence_ldom(site: Site, action: str, **more: str) -> subprocess.CompletedProcess[str]:
    address, port = site.control.endpoint("ctrl1", "ldm")
    options = {
        "action": action,
        "ip": address,
        "ipport": str(port),
        "username": "standfast",
        "password": site.written.control_password,
        "ssh": "1",
        "plug": "guest1",
        "power_wait": "0",
        "ssh_options": f"-F none -o StrictHostKeyChecking=yes -o UserKnownHostsFile={site.known_hosts}",
        **more,
    }
    text = "\n".join(f"{name}={value}" for name, value in options.items())
    return subprocess.run(
        ["/usr/sbin/fence_ldom"],
        input=text,
        capture_output=True,
        text=True,
        timeout=20,
        start_new_session=True,
        check=False,
    )


def test_fence_ldom_runs_all_its_actions_with_the_right_exit_codes(site: Site) -> None:
    assert fence_ldom(site, "monitor").returncode == 0
    assert fence_ldom(site, "list").stdout.split() == ["primary,", "app71,", "guest1,"]
    assert (fence_ldom(site, "status").returncode, site.control.running("guest1")) == (0, ["ctrl1"])
    assert (fence_ldom(site, "off").returncode, site.control.running("guest1")) == (0, [])
    assert fence_ldom(site, "status").returncode == 2
    assert (fence_ldom(site, "on").returncode, site.control.running("guest1")) == (0, ["ctrl1"])
    mark = site.control.mark()
    assert fence_ldom(site, "reboot").returncode == 0
    acted = [entry["action"] for entry in site.control.log(mark, event="acted")]
    assert acted == ["stop", "start"]


def test_fence_ldom_logs_in_with_a_key_and_fails_with_1_for_what_does_not_exist(site: Site) -> None:
    assert fence_ldom(site, "status", identity_file=str(site.written.client_key)).returncode == 0
    assert fence_ldom(site, "status", plug="nix").returncode == 1
    assert fence_ldom(site, "status", password="wrong", login_timeout="2").returncode == 1


# --- the process ---------------------------------------------------------------------------------


def test_a_bad_world_file_is_named_with_place_and_cause(tmp_path: Path) -> None:
    world = tmp_path / "world.json"
    world.write_text(
        '{"format": 1, "xscf_users": [], "control_users": [], "hosts": [{"name": 3}], "prot": 1}'
    )
    argv = [sys.executable, "-m", "standfast.lab.emulators", "--world", str(world)]
    done = subprocess.run(
        [*argv, "--control", str(tmp_path / "c.sock")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert str(world) in done.stderr
    assert "hosts.0.name" in done.stderr
    assert "prot" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("dance", {}),
        ("inject", {"kind": "flood", "host": "ctrl1"}),
        ("migrate", {"name": "nix", "target": "x"}),
    ],
)
def test_a_refused_control_command_says_why(site: Site, command: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        site.control.call(command, **arguments)


def test_keys_and_passwords_are_readable_by_the_owner_only(site: Site) -> None:
    for path in (site.written.world, site.written.client_key, site.directory / "control.sock"):
        assert path.stat().st_mode & 0o077 == 0
