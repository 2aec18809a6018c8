"""fence_xscf on an emulated site: a kill is proven or it is an error, and never a guess."""

import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from xscf_site import Called, Site, finished, running_site

from standfast.commands import fence_xscf
from standfast.processors import agents


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    kex = {"ctrl2": "diffie-hellman-group14-sha1", "ctrl3": "diffie-hellman-group1-sha1"}
    with running_site(tmp_path_factory.mktemp("site"), kex) as site:
        yield site


@pytest.fixture
def site(shared: Site) -> Site:
    """The shared site, at rest."""
    shared.rest()
    return shared


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Site]:
    """A site of its own on which guest2 has just moved from ctrl2 to ctrl3, nothing saved yet."""
    with running_site(tmp_path / "moved") as site:
        site.control.migrate("guest2", "ctrl3", duration_seconds=0.4, blackout_seconds=0.1)
        assert site.control.wait_migration("guest2")["phase"] == "done"
        yield site


def one_line(called: Called, *words: str) -> bool:
    """Whether the call failed with one line on standard error that has all these words."""
    lines = called.err.splitlines()
    return called.code == 1 and len(lines) == 1 and all(word in lines[0] for word in words)


# --- the contract ---------------------------------------------------------------------------


def test_metadata_imports_nothing_heavy_and_is_what_pacemaker_reads() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "standfast.commands.fence_xscf", "-o", "metadata"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "standfast" in imported
    assert not imported & {"asyncssh", "asyncio", "cryptography", "pydantic", "click", "ssl"}
    known = agents.parse_metadata(done.stdout)
    assert known.name == "fence_xscf"
    assert {
        "on",
        "off",
        "reboot",
        "status",
        "monitor",
        "list",
        "list-status",
        "validate-all",
    } <= known.actions
    assert {"ip", "username", "ppar_id", "domain", "kill", "connection", "password_file"} <= known.parameters


def test_metadata_has_no_plug_or_port_in_which_pacemaker_would_put_the_nodes_name() -> None:
    known = agents.parse_metadata(fence_xscf.metadata())
    assert not {"plug", "port"} & known.parameters
    on = ElementTree.fromstring(fence_xscf.metadata()).find("./actions/action[@name='on']")
    assert on is not None
    assert on.get("automatic") == "0"


@pytest.mark.parametrize("words", [["-p", "secret"], ["--password=secret"], ["--passwd", "secret"]])
def test_a_password_as_argument_is_refused_and_not_repeated(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "standfast.commands.fence_xscf", "-o", "status", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "standard input" in done.stderr
    assert "secret" not in done.stderr


def test_what_pacemaker_adds_by_itself_does_not_replace_the_domain_or_the_ssh_port() -> None:
    text = "domain=guest2\nnodename=cfguest2\nport=cfguest2\nplug=cfguest2\naction=status\n"
    warned = StringIO()
    options = fence_xscf.from_input(StringIO(text), warned)
    assert (options["domain"], options["ipport"], warned.getvalue()) == ("guest2", "22", "")
    assert fence_xscf.from_input(StringIO("port=2222\n"), warned)["ipport"] == "2222"


def test_arguments_and_input_lines_give_the_same_options() -> None:
    words = ["--ip=10.0.0.1", "-l", "xuser", "-P0", "-n", "guest1", "--kill", "sir", "-o", "off"]
    text = "ipaddr=10.0.0.1\nlogin=xuser\n# a comment\n\nppar_id = 0\ndomain=guest1\nkill=sir\naction=off\n"
    assert fence_xscf.from_arguments(words) == fence_xscf.from_input(StringIO(text), StringIO())


GOOD = {
    "action": "off",
    "ip": "192.0.2.1",
    "username": "xuser",
    "password": "secret",
    "ppar_id": "0",
    "domain": "guest1",
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ip": ""}, "ip is missing"),
        ({"domain": ""}, "domain is missing"),
        ({"domain": "a b"}, "'a b'"),
        ({"domain": "-f"}, "'-f'"),
        ({"ppar_id": "16"}, "ppar_id"),
        ({"ppar_id": "x"}, "ppar_id"),
        ({"kill": "por"}, "kill"),
        ({"connection": "telnet"}, "telnet is not supported yet"),
        ({"password": ""}, "password_file"),
        ({"password": "", "password_file": "/nonexistent/secret"}, "/nonexistent/secret"),
        ({"password": "", "passwd_script": "/bin/false"}, "/bin/false"),
        ({"power_timeout": "0"}, "power_timeout"),
        ({"legacy_algorithms": "rot13"}, "rot13"),
        ({"dialect": "/dev/null"}, "/dev/null: format"),
        ({"action": "explode"}, "'explode'"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    named: str,
) -> None:
    lines = "".join(f"{key}={value}\n" for key, value in {**GOOD, **changed}.items())
    monkeypatch.setattr(sys, "stdin", StringIO(lines))
    code = fence_xscf.main([])
    out, err = capsys.readouterr()
    assert one_line(Called(code, out, err, 0.0), named), err
    assert "secret" not in err.replace("/nonexistent/secret", "")


def test_a_known_hosts_file_that_is_missing_is_named(site: Site) -> None:
    missing = "/nonexistent/known_hosts"
    assert one_line(site.call("off", "ctrl1", "guest1", known_hosts=missing), missing, "no order was given")


def test_a_line_of_options_without_equals_is_an_error() -> None:
    with pytest.raises(fence_xscf.UsageError, match="'='"):
        fence_xscf.from_input(StringIO("action=off\nhello\n"), StringIO())


def test_an_option_that_nobody_knows_is_warned_of_and_ignored() -> None:
    warned = StringIO()
    assert "ppar" not in fence_xscf.from_input(StringIO("ppar=1\npcmk_host_list=x\n"), warned)
    assert warned.getvalue() == "fence_xscf: unknown option 'ppar' ignored\n"


def test_a_password_file_that_others_can_read_is_refused(site: Site) -> None:
    secret = site.folder / "readable"
    secret.write_text(site.written.xscf_password + "\n", encoding="ascii")
    secret.chmod(0o644)
    called = site.call("status", "ctrl1", "guest1", password=None, password_file=secret)
    assert one_line(called, "chmod 600", str(secret))


def test_the_password_comes_from_a_file_or_from_a_script(site: Site) -> None:
    secret = site.folder / "xscf-password"
    assert site.call("status", "ctrl1", "guest1", password=None, password_file=secret).code == 0
    script = site.folder / "script"
    script.write_text(f"#!/bin/sh\ncat {secret}\n", encoding="ascii")
    script.chmod(0o700)
    assert site.call("status", "ctrl1", "guest1", password=None, passwd_script=script).code == 0


# --- looking --------------------------------------------------------------------------------


def test_looking_says_what_is_there_and_orders_nothing(site: Site) -> None:
    mark = site.control.mark()
    assert site.call("monitor", "ctrl1").code == 0
    assert site.call("on", "ctrl1", "guest1").code == 0
    assert site.call("validate-all", "ctrl1", "guest1").code == 0
    assert site.call("list", "ctrl1").out.splitlines() == ["primary,", "guest1,", "app71,"]
    status = site.call("status", "ctrl1", "guest1")
    assert (status.code, status.out) == (0, "Status: ON\n")
    assert site.orders(mark) == []


@pytest.mark.parametrize("text", ["Host stopped", "Unknown", "-", "Solaris suspended", "Something new"])
def test_a_doubtful_status_is_neither_on_nor_off_and_nothing_is_ordered(site: Site, text: str) -> None:
    site.control.inject("status_text", "ctrl1", "xscf", name="guest1", text=text)
    mark = site.control.mark()
    assert one_line(site.call("off", "ctrl1", "guest1"), "guest1", text, "no order was given")
    if text == "Host stopped":
        assert one_line(site.call("status", "ctrl1", "guest1"), "guest1", text)
        assert one_line(site.call("reboot", "ctrl1", "guest1"), "guest1", text, "no order was given")
    assert site.orders(mark) == []
    assert site.control.running("guest1") == ["ctrl1"]


def test_list_status_never_says_off(site: Site) -> None:
    site.control.inject("status_text", "ctrl1", "xscf", name="guest1", text="Host stopped")
    called = site.call("list-status", "ctrl1")
    assert "guest1,,UNKNOWN" in called.out
    assert "OFF" not in called.out


# --- killing --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["off", "reboot"])
@pytest.mark.parametrize("kill", ["panic", "sir"])
def test_a_running_domain_is_killed_once_and_the_kill_is_seen(site: Site, action: str, kill: str) -> None:
    mark = site.control.mark()
    lan = "lan0" if action == "off" else "lan1"
    called = site.call(action, "ctrl1", "guest1", kill=kill, lan=lan)
    assert called.code == 0, called
    assert f"{kill}, seen: Solaris running -> " in called.out
    assert site.orders(mark) == [f"reset -p 0 -g guest1 {kill}"]
    assert site.killed("ctrl1", "guest1", mark) == ["guest1"]


def test_an_order_that_does_nothing_is_an_error_at_the_power_timeout(site: Site) -> None:
    site.control.inject("reset_ignored", "ctrl1", "xscf")
    called = site.call("off", "ctrl1", "guest1", power_timeout=2, conf=site.conf)
    assert one_line(called, "ordered", "no death was seen within 2 s", "nothing is proven"), called
    assert 2 <= called.seconds < 5


def test_an_order_that_hits_another_domain_is_an_error(site: Site) -> None:
    site.control.inject("name_map", "ctrl1", "xscf", asked="guest1", hit="app71")
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", power_timeout=1)
    assert one_line(called, "nothing is proven"), called
    assert site.killed("ctrl1", "guest1", mark) == ["app71"]


def test_two_calls_at_once_both_prove_the_death_of_the_same_domain(site: Site) -> None:
    mark = site.control.mark()
    began = time.monotonic()
    calls = [site.start("off", "ctrl1", "guest1", lan=lan) for lan in ("lan0", "lan1")]
    results = [finished(call, began) for call in calls]
    assert [result.code for result in results] == [0, 0], results
    assert set(site.killed("ctrl1", "guest1", mark)) == {"guest1"}


def test_calls_of_two_domains_at_once_do_not_mix(site: Site) -> None:
    mark = site.control.mark()
    began = time.monotonic()
    calls = [site.start("off", "ctrl1", "guest1"), site.start("off", "ctrl1", "app71")]
    results = [finished(call, began) for call in calls]
    assert [result.code for result in results] == [0, 0], results
    assert site.killed("ctrl1", "guest1", mark) == ["guest1"]
    assert site.killed("ctrl1", "app71", mark) == ["app71"]


def test_a_hung_guest_that_still_counts_as_running_is_killed(site: Site) -> None:
    site.control.call("hang", name="guest1")
    assert site.call("off", "ctrl1", "guest1").code == 0


# --- trouble --------------------------------------------------------------------------------


def test_a_wrong_password_is_named_and_nothing_is_ordered(site: Site) -> None:
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", kill="sir", password="wrong-secret")
    assert one_line(
        called, "XSCF 10.20.30.71", "domain guest1", "login as xuser refused", "no order was given"
    ), called
    assert "wrong-secret" not in called.err
    assert site.orders(mark) == []


@pytest.mark.parametrize("mode", ["silent", "refused"])
def test_a_dead_lan_is_an_error_within_the_login_timeout(site: Site, mode: str) -> None:
    site.control.inject("path_dead", "ctrl1", "lan0", mode=mode)
    called = site.call("off", "ctrl1", "guest1", kill="sir", login_timeout=1)
    assert one_line(called, "no order was given"), called
    assert called.seconds < 3
    assert site.call("status", "ctrl1", "guest1", lan="lan1").code == 0


def test_a_host_key_that_is_not_the_known_one_ends_the_call_before_the_password(site: Site) -> None:
    other = site.folder / "other_known_hosts"
    lines = site.known_hosts.read_text(encoding="ascii").splitlines()
    keys = [" ".join(line.split()[1:]) for line in lines]
    names = [line.split()[0] for line in lines]
    other.write_text("\n".join(f"{n} {k}" for n, k in zip(names, keys[-1:] + keys[:-1], strict=True)) + "\n")
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", kill="sir", known_hosts=other)
    assert one_line(called, "host key", str(other)), called
    assert site.control.log(mark, event="login") == []


@pytest.mark.parametrize(
    ("at", "said"),
    [("before", "no order was given"), ("question", "may be carried out"), ("after", "may be carried out")],
)
def test_a_session_cut_in_the_order_is_an_error_that_says_how_far_it_came(
    site: Site, at: str, said: str
) -> None:
    site.control.inject("cut", "ctrl1", "lan0", times=1, match="reset", at=at)
    called = site.call("off", "ctrl1", "guest1", kill="sir")
    assert one_line(called, "the session was cut", said), called


def test_a_shell_that_hangs_after_the_answer_is_an_error_within_the_shell_timeout(site: Site) -> None:
    site.control.inject("hang", "ctrl1", "lan0", match="reset")
    called = site.call("off", "ctrl1", "guest1", kill="sir", shell_timeout=1)
    assert one_line(called, "no prompt within 1 s", "no order was given"), called
    assert called.seconds < 4


def test_a_question_with_other_wording_is_answered_with_n(site: Site) -> None:
    site.control.inject("question", "ctrl1", "xscf", text="Really do it? [yes|no] :", accept="yes")
    mark = site.control.mark()
    called = site.call("off", "ctrl1", "guest1", kill="sir")
    assert one_line(called, "Really do it?", "answered 'n'", "no order was given"), called
    answers = site.control.log(mark, event="answer")
    assert [entry["answer"] for entry in answers] in ([], ["n"])
    assert site.control.running("guest1") == ["ctrl1"]


def test_a_site_corrects_the_wording_in_its_dialect_file(site: Site) -> None:
    site.control.inject("question", "ctrl1", "xscf", text="Really do it? [yes|no] :", accept="yes")
    own = site.folder / "dialect.toml"
    own.write_text(
        "format = 1\nquestion = 'Really do it\\? \\[yes\\|no\\] :\\Z'\nyes = 'yes'\n", encoding="ascii"
    )
    assert site.call("off", "ctrl1", "guest1", kill="sir", dialect=own).code == 0


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("echo", {"on": False}),
        ("newline", {"text": "\n"}),
        ("newline", {"text": "\r\r\n"}),
        ("slow_prompt", {"seconds": 0.3}),
        ("latency", {"seconds": 0.05}),
        ("noise", {"text": "\nNOTICE: fan speed [y|n]? changed\n"}),
    ],
)
def test_terminals_of_other_habits_are_understood(site: Site, kind: str, params: dict[str, object]) -> None:
    site.control.inject(kind, "ctrl1", "xscf", **params)
    called = site.call("off", "ctrl1", "guest1", kill="sir", login_timeout=8, shell_timeout=8)
    assert called.code == 0, called


def test_an_old_xscf_is_reached_as_it_is_and_a_very_old_one_only_by_name_of_its_algorithm(site: Site) -> None:
    ordinary = site.call("monitor", "ctrl2")
    assert (ordinary.code, ordinary.err) == (0, "")
    assert one_line(site.call("monitor", "ctrl3"), "no connection", "no order was given")
    named = site.call("monitor", "ctrl3", legacy_algorithms="diffie-hellman-group1-sha1")
    assert (named.code, named.err) == (0, "")


def test_a_user_without_the_right_to_reset_is_told_so(site: Site) -> None:
    called = site.call("off", "ctrl1", "guest1", kill="sir", username="viewer")
    assert one_line(called, "the order was not taken", "Permission denied", "no order was given"), called


def test_a_standby_xscf_and_a_wrong_ppar_are_errors(site: Site) -> None:
    assert one_line(site.call("off", "ctrl1", "guest1", kill="sir", ppar_id=3), "no order was given")
    site.control.inject("standby", "ctrl1", "xscf")
    assert one_line(site.call("off", "ctrl1", "guest1", kill="sir"), "no order was given")


# --- after a move ---------------------------------------------------------------------------


def test_the_old_xscf_never_says_off_of_a_guest_that_runs_elsewhere(moved: Site) -> None:
    mark = moved.control.mark()
    for conf in ("/nonexistent", moved.conf):
        for action in ("off", "reboot", "status"):
            called = moved.call(action, "ctrl2", "guest2", conf=conf)
            assert called.code == 1, called
    assert "ctrl3: running" in called.err
    assert moved.orders(mark) == []


def test_the_new_xscf_orders_nothing_until_it_knows_the_guest_and_then_kills_it(moved: Site) -> None:
    mark = moved.control.mark()
    assert one_line(moved.call("off", "ctrl3", "guest2"), "'Unknown'", "no order was given")
    assert moved.orders(mark) == []
    for host in ("ctrl2", "ctrl3"):
        moved.control.call("save", host=host, name="standfast-a")
    assert moved.call("status", "ctrl3", "guest2").code == 0
    assert moved.call("off", "ctrl3", "guest2").code == 0
    assert moved.killed("ctrl3", "guest2", mark) == ["guest2"]
    assert moved.call("off", "ctrl2", "guest2").code == 1
    assert moved.control.log(mark, event="acted", host="ctrl2") == []


# --- doubt, settled by the control domains -------------------------------------------------------


def test_a_stopped_domain_is_off_only_if_every_control_domain_says_so(tmp_path: Path) -> None:
    with running_site(tmp_path / "stopped") as site:
        site.control.call("stop", host="ctrl1", name="guest1", force=True)
        mark = site.control.mark()
        assert site.call("off", "ctrl1", "guest1").code == 1
        off = site.call("off", "ctrl1", "guest1", conf=site.conf)
        assert (off.code, off.err) == (0, "")
        assert "ldm on ctrl1, ctrl2, ctrl3 says not active, in two rounds" in off.out
        assert site.call("status", "ctrl1", "guest1", conf=site.conf).code == 2
        lists = [e["host"] for e in site.control.log(mark, event="command", endpoint="ldm")]
        assert lists[:6] == ["ctrl1", "ctrl2", "ctrl3"] * 2
        site.control.inject("ldmd_down", "ctrl3", "ldm")
        silent = site.call("off", "ctrl1", "guest1", conf=site.conf)
        assert one_line(silent, "ctrl3: silent", "no order was given"), silent
        assert site.orders(mark) == []


def test_a_domain_that_stays_down_after_its_reset_is_proven_by_the_control_domains(site: Site) -> None:
    site.control.call("boot", host="ctrl1", name="app71", policy="stopped")
    try:
        alone = site.call("off", "ctrl1", "app71", kill="sir", power_timeout=1)
        assert one_line(alone, "Solaris running -> Host stopped", "nothing is proven"), alone
        site.control.call("start", host="ctrl1", name="app71")
        asked = site.call("off", "ctrl1", "app71", kill="sir", power_timeout=4, conf=site.conf)
        assert asked.code == 0, asked
        assert "in two rounds" in asked.out
    finally:
        site.control.call("boot", host="ctrl1", name="app71", policy="auto")
        site.control.call("start", host="ctrl1", name="app71")


def test_a_mistake_of_our_own_is_one_line_and_never_a_traceback(site: Site) -> None:
    broken = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from standfast.commands import fence_xscf, fence_xscf_actions as a\n"
            "async def boom(device):\n    raise KeyError('x')\n"
            "a._ACTIONS['off'] = boom\nsys.exit(fence_xscf.main())",
        ],
        input="".join(f"{k}={v}\n" for k, v in site.options("ctrl1", "guest1").items()) + "action=off\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1
    assert "mistake in fence_xscf itself" in broken.stderr


def test_the_agents_runner_sees_the_same_results_as_pacemaker_would(site: Site) -> None:
    import asyncio

    program = site.folder / "fence_xscf"
    words = [*site.inside, sys.executable, "-m", "standfast.commands.fence_xscf"]
    program.write_text(f"#!/bin/sh\nexec {' '.join(words)}\n", encoding="ascii")
    program.chmod(0o700)
    options = site.options("ctrl1", "guest1")
    result = asyncio.run(agents.run(str(program), "status", options, 10))
    assert (result.outcome, result.said) == (agents.Outcome.DONE, "Status: ON")
