"""How the system's ssh is called, which of its questions is answered, and what its last words mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from standfast.processors import openssh
from standfast.processors.xscf_login import (
    XscfError,
    XscfKeyUnknown,
    XscfLogin,
    XscfLoginRefused,
    XscfSetting,
    XscfUnreachable,
)

LOGIN = XscfLogin(
    address="10.20.30.71", user="xuser", password="se cret", known_hosts_file="/etc/x/known_hosts"
)


@pytest.mark.parametrize(
    "question",
    [
        "xuser@10.20.30.71's password: ",
        "(xuser@10.20.30.71) Password: ",
        "(xuser@10.20.30.71) Password:",
        "Password for xuser@10.20.30.71: ",
        "(xuser@10.20.30.71) New rules hold from today. Ask?\nPassword: ",
    ],
)
def test_the_password_of_the_login_is_given(question: str) -> None:
    assert openssh.asks_for_password(question, LOGIN)


def test_a_user_whose_name_is_a_word_of_other_questions_is_let_in_too() -> None:
    login = replace(LOGIN, user="new")
    assert openssh.asks_for_password("new@10.20.30.71's password: ", login)
    assert not openssh.asks_for_password("Enter new@10.20.30.71's new password: ", login)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "\n",
        "(xuser@10.20.30.71) Verification code: ",
        "Enter xuser@10.20.30.71's old password: ",
        "Enter xuser@10.20.30.71's new password: ",
        "Retype xuser@10.20.30.71's new password: ",
        "(xuser@10.20.30.71) Current Password: ",
        "(xuser@10.20.30.71) Your password has expired. Change it? ",
        "Enter passphrase for key '/root/.ssh/id_rsa': ",
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
        "Password:\nOne-time code: ",
    ],
)
def test_no_other_question_gets_it(question: str) -> None:
    assert not openssh.asks_for_password(question, LOGIN)


@pytest.mark.parametrize(
    ("errors", "kind", "said"),
    [
        (
            "No ED25519 host key is known for 10.20.30.71 and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            XscfKeyUnknown,
            "its host key is not the one in /etc/x/known_hosts",
        ),
        (
            "xuser@10.20.30.71: Permission denied (password,keyboard-interactive).\r\n",
            XscfLoginRefused,
            "login as xuser refused",
        ),
        (
            "Received disconnect from 10.20.30.71 port 22:2: Too many authentication failures\r\n",
            XscfLoginRefused,
            "login as xuser refused",
        ),
        (
            "ssh: connect to host 10.20.30.71 port 22: Connection refused\r\n",
            XscfUnreachable,
            "no connection: connect to host 10.20.30.71 port 22: Connection refused",
        ),
        (
            "Unable to negotiate with 10.20.30.71 port 22: no matching key exchange method found.\r\n"
            "Their offer: x\r\n",
            XscfUnreachable,
            "no connection: Unable to negotiate with 10.20.30.71 port 22: no matching key exchange method "
            "found. / Their offer: x",
        ),
        (
            "ssh_askpass: exec(/x/ssh-askpass): Permission denied\r\n"
            "xuser@10.20.30.71: Permission denied (password).\r\n",
            XscfSetting,
            f"{openssh.ASKPASS} cannot be executed; type: chmod 755 {openssh.ASKPASS}",
        ),
        ("", XscfUnreachable, "no connection: ssh ended with exit status 255"),
        # Words of these kinds before the last line, as a server could send them, decide nothing.
        (
            "Host key verification failed.\nx: Permission denied (password).\nConnection reset by peer\n",
            XscfUnreachable,
            "no connection: Host key verification failed. / x: Permission denied (password). / "
            "Connection reset by peer",
        ),
    ],
)
def test_the_last_words_of_ssh_become_our_errors(errors: str, kind: type[XscfError], said: str) -> None:
    found = openssh.reason(LOGIN, errors, 255)
    assert (type(found), str(found)) == (kind, said)


def test_what_ssh_does_not_know_of_itself_is_no_answer_of_the_xscf() -> None:
    for line in ("Bad SSH2 KexAlgorithms '+x'.", "Bad key types '+x'.", "Bad configuration option: x"):
        found = openssh.reason(LOGIN, f"command-line: line 0: {line}\r\n", 255)
        assert isinstance(found, openssh.CannotError)
    late = "command-line line 0: Unsupported option x\nxuser@h: Permission denied (password).\n"
    assert isinstance(openssh.reason(LOGIN, late, 255), XscfLoginRefused)


def settings(words: list[str]) -> dict[str, str]:
    return dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-o")  # type: ignore[misc]


def test_ssh_is_called_with_nobodys_settings_and_without_the_password() -> None:
    login = replace(LOGIN, legacy_algorithms=("ssh-rsa", "ssh-dss", "diffie-hellman-group1-sha1", "hmac-md5"))
    words = openssh.command(login)
    assert words[:4] == ["ssh", "-F", "none", "-tt"]
    assert words[-6:] == ["-p", "22", "-l", "xuser", "--", "10.20.30.71"]
    assert not any(login.password in word for word in words)
    given = settings(words)
    assert given["UserKnownHostsFile"] == '"/etc/x/known_hosts"'
    assert given["StrictHostKeyChecking"] == "yes"
    assert given["NumberOfPasswordPrompts"] == "1"
    assert given["HostKeyAlgorithms"] == "+ssh-rsa,ssh-dss"
    assert given["KexAlgorithms"] == "+diffie-hellman-group1-sha1,diffie-hellman-group14-sha1"
    assert given["MACs"] == "+hmac-md5"
    assert "Ciphers" not in given
    assert settings(openssh.command(LOGIN))["KexAlgorithms"] == "+diffie-hellman-group14-sha1"


def test_a_known_hosts_file_of_any_ordinary_name_is_given_as_it_is() -> None:
    login = replace(LOGIN, known_hosts_file="/my dir/100%h/known")
    assert settings(openssh.command(login))["UserKnownHostsFile"] == '"/my dir/100%%h/known"'


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"address": "-oProxyCommand=reboot"}, "'-oProxyCommand=reboot' is not an address"),
        ({"address": "ssh://10.0.0.1"}, "'ssh://10.0.0.1' is not an address"),
        ({"address": "root@10.0.0.1"}, "'root@10.0.0.1' is not an address"),
        ({"address": ""}, "'' is not an address"),
        ({"known_hosts_file": "/x/${HOME}"}, "/x/${HOME}"),
        ({"known_hosts_file": '/x/" /y'}, "known_hosts"),
    ],
)
def test_what_ssh_would_read_as_something_else_is_not_given_to_it(
    changed: dict[str, str], named: str
) -> None:
    with pytest.raises(XscfSetting) as caught:
        openssh.command(replace(LOGIN, **changed))  # type: ignore[arg-type]
    assert named in str(caught.value)


def test_a_client_an_algorithm_or_a_file_that_there_is_not_is_named(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.touch()
    good = replace(LOGIN, known_hosts_file=str(known))
    good.checked()
    for changed, named in (
        (replace(good, client="putty"), "'putty'"),
        (replace(good, legacy_algorithms=("rot13",)), "'rot13'"),
        (replace(good, known_hosts_file=str(tmp_path / "missing")), f"cannot read {tmp_path}/missing"),
    ):
        with pytest.raises(XscfSetting) as caught:
            changed.checked()
        assert named in str(caught.value)
