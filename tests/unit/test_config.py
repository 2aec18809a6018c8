"""clovmmigrate.conf: what is accepted, what is refused in which words, and that the gate reads the same."""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
from pathlib import Path

import pytest

from standfast import config
from standfast.core import hostlist

SAMPLE = Path(__file__).parents[2] / "packaging" / "clovmmigrate.conf.sample"
ENTRY = """
[[control_domain]]
name = "ctrl1"
address = "10.20.50.71"
kind = "ldm"
ppar_id = 0
xscf_lan0 = "10.20.30.71"
xscf_lan1 = "10.20.40.71"
weight = 1
login = "standfast"
"""
SECOND = ENTRY.replace("ctrl1", "ctrl3").replace(".71", ".73").replace("ppar_id = 0", "ppar_id = 1")


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "clovmmigrate.conf"
    path.write_text(text)
    return str(path)


def loaded(tmp_path: Path, text: str) -> config.Config:
    return config.load(written(tmp_path, text)).config


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(config.ConfigError) as caught:
        config.load(written(tmp_path, text))
    return str(caught.value)


def test_the_sample_is_the_manuals_figure_and_loads() -> None:
    found = config.load(str(SAMPLE))
    assert [entry.name for entry in found.config.control_domain] == ["ctrl1", "ctrl2", "ctrl3"]
    assert found.config.find_host("ctrl3", "/nonexistent").ppar_id == 1
    assert found.fingerprint == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()


def test_the_values_commented_out_in_the_sample_are_the_defaults() -> None:
    shown = "\n".join(re.findall(r"^#(\w+ = .*)$", SAMPLE.read_text(), re.MULTILINE))
    defaults = {name: field.default for name, field in config.Config.model_fields.items()}
    documented = tomllib.loads(shown)
    assert set(documented) == set(config.Config.model_fields) - {"format", "control_domain"}
    assert documented == {name: defaults[name] for name in documented}


def test_the_gate_reads_the_same_hosts_as_the_strict_loader() -> None:
    assert hostlist.from_text(SAMPLE.read_text()) == config.load(str(SAMPLE)).config.hosts


@pytest.mark.parametrize("line", ["", 'login = ""'])
def test_a_control_domain_without_login_is_one_where_nobody_logs_in(tmp_path: Path, line: str) -> None:
    text = "format = 1\n" + ENTRY.replace('login = "standfast"', line)
    assert loaded(tmp_path, text).hosts.hosts[0].login == ""
    assert hostlist.from_text(text) == loaded(tmp_path, text).hosts


def test_a_small_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    found = loaded(tmp_path, "format = 1\n" + ENTRY)
    assert (found.budget_seconds, found.lease_minutes, found.maintenance_mode) == (600, 240, False)
    assert (found.repair, found.auto_window) == ("ask", False)
    assert found.clock_step == "off"
    assert loaded(tmp_path, 'format = 1\nclock_step = "rtc"\n' + ENTRY).clock_step == "rtc"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("ppar_id = 0", "ppar_id = 16"),
            "control_domain 1 (ctrl1): ppar_id: must be a whole number from 0 to 15",
        ),
        (("ppar_id = 0", 'ppar_id = "0"'), "control_domain 1 (ctrl1): ppar_id: must be a whole number"),
        (("ppar_id = 0", "ppar_id = true"), "control_domain 1 (ctrl1): ppar_id: must be a whole number"),
        (("ppar_id = 0\n", ""), "control_domain 1 (ctrl1): ppar_id: is missing"),
        (
            ("weight = 1", "weight = 0"),
            "control_domain 1 (ctrl1): weight: must be a whole number from 1 to 100",
        ),
        (('"10.20.50.71"', '"ctrl1"'), "control_domain 1 (ctrl1): address: must be a literal IPv4 or IPv6"),
        (('"10.20.50.71"', '"fe80::1%eth0"'), "link-local addresses with a zone are not allowed"),
        (('"10.20.50.71"', '"0.0.0.0"'), "control_domain 1 (ctrl1): address: must be a literal"),
        (('"10.20.40.71"', '"10.20.30.71"'), "address, xscf_lan0 and xscf_lan1 must all differ"),
        (
            ('kind = "ldm"', 'kind = "kvm"'),
            "control_domain 1 (ctrl1): kind: must be ldm or libvirt or manual",
        ),
        (('login = "standfast"', 'login = "a b"'), "control_domain 1 (ctrl1): login: must be a user name"),
        (('name = "ctrl1"', 'name = "a b"'), "control_domain 1 (a b): name: must be a host name"),
        (("weight", "wieght"), "wieght: is not a known field; known are name, address, kind"),
        (("format = 1", "format = 2"), "file: format: is 2; must be 1"),
        (("format = 1", ""), "file: format: is missing; must be 1"),
        (("format = 1", "format = 1\nbudget = 3"), "file: budget: is not a known field; known are format,"),
        (("format = 1", "format = 1\nbudget_seconds = 10"), "from 11 to 3600 seconds"),
        (("format = 1", "format = 1\nbudget_seconds = 3601"), "from 11 to 3600 seconds"),
        (("format = 1", "format = 1\nlease_minutes = 0"), "lease_minutes: must be a whole number from 1 to"),
        (("format = 1", "format = 1\nmaintenance_mode = 1"), "maintenance_mode: must be true or false"),
        (("format = 1", 'format = 1\nrepair = "yes"'), "file: repair: must be ask or auto"),
        (("format = 1", "format = 1\nauto_window = 1"), "file: auto_window: must be true or false"),
        (("format = 1", 'format = 1\nclock_step = "ntp"'), "clock_step: must be off or chrony or rtc"),
        (("format = 1", 'format = 1\nknown_hosts = "kh"'), "known_hosts: must be an absolute path"),
        (("format = 1", "format = = 1"), "file: not TOML"),
    ],
)
def test_a_wrong_value_is_refused_naming_entry_field_and_what_is_allowed(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    text = "format = 1\n" + ENTRY
    assert change[0] in text
    message = refused(tmp_path, text.replace(*change))
    assert words in message
    assert all(line.startswith(str(tmp_path / "clovmmigrate.conf")) for line in message.splitlines())


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = (
        ("format = 1\n" + ENTRY + SECOND)
        .replace("ppar_id = 1", "ppar_id = 99")
        .replace("weight = 1", "weight = 0", 1)
    )
    message = refused(tmp_path, text)
    assert "control_domain 1 (ctrl1): weight" in message
    assert "control_domain 2 (ctrl3): ppar_id" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('name = "ctrl3"', 'name = "CTRL1"'), "name: ctrl1 is used by ctrl1, CTRL1"),
        (
            ('address = "10.20.50.73"', 'address = "10.20.50.71"'),
            "address: 10.20.50.71 is used by ctrl1, ctrl3",
        ),
    ],
)
def test_names_and_addresses_are_used_once(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert words in refused(tmp_path, "format = 1\n" + ENTRY + SECOND.replace(*change))


def test_one_xscf_may_serve_two_partitions_but_not_one_partition_twice(tmp_path: Path) -> None:
    shared = SECOND.replace("10.20.30.73", "10.20.30.71").replace("10.20.40.73", "10.20.40.71")
    assert len(loaded(tmp_path, "format = 1\n" + ENTRY + shared).control_domain) == 2
    message = refused(tmp_path, "format = 1\n" + ENTRY + shared.replace("ppar_id = 1", "ppar_id = 0"))
    assert "xscf_lan0: 10.20.30.71 with ppar_id 0 is used by ctrl1, ctrl3" in message


def test_no_control_domain_is_refused(tmp_path: Path) -> None:
    assert "control_domain: is missing" in refused(tmp_path, "format = 1\n")


def test_a_missing_file_is_one_line_naming_it() -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.load("/nonexistent/clovmmigrate.conf")
    assert (
        str(caught.value) == "/nonexistent/clovmmigrate.conf: file: cannot be read: No such file or directory"
    )


def test_addresses_are_kept_in_their_short_form(tmp_path: Path) -> None:
    text = "format = 1\n" + ENTRY.replace("10.20.50.71", "2001:DB8:0:0::71")
    found = loaded(tmp_path, text)
    assert found.control_domain[0].address == "2001:db8::71"
    assert found.find_host("2001:db8:0::71", "/nonexistent").name == "ctrl1"


@pytest.fixture
def etc_hosts(tmp_path: Path) -> str:
    path = tmp_path / "hosts"
    path.write_text(
        "127.0.0.1 localhost\n# 10.20.50.99 ctrl3\n10.20.50.73 ctrl3.example ctrl3 spare # x\n"
        "10.9.9.9 other\n"
    )
    return str(path)


@pytest.mark.parametrize("given", ["ctrl3", "CTRL3", "10.20.50.73", "ctrl3.example", "spare", " ctrl3 "])
def test_a_host_is_found_by_name_by_address_and_by_any_name_in_etc_hosts(
    tmp_path: Path, etc_hosts: str, given: str
) -> None:
    assert loaded(tmp_path, "format = 1\n" + ENTRY + SECOND).find_host(given, etc_hosts).name == "ctrl3"


@pytest.mark.parametrize("given", ["other", "10.9.9.9", "nowhere", "ctrl", ""])
def test_an_unknown_host_is_refused_with_the_list_of_known_ones(
    tmp_path: Path, etc_hosts: str, given: str
) -> None:
    with pytest.raises(hostlist.HostLookupError, match=r"it knows ctrl1 \(10.20.50.71\), ctrl3"):
        loaded(tmp_path, "format = 1\n" + ENTRY + SECOND).find_host(given, etc_hosts)


def test_a_name_that_etc_hosts_contradicts_is_refused(tmp_path: Path, etc_hosts: str) -> None:
    text = "format = 1\n" + SECOND.replace("10.20.50.73", "10.20.50.74")
    words = "ctrl3 is 10.20.50.74 in clovmmigrate.conf but 10.20.50.73 in /etc/hosts"
    with pytest.raises(hostlist.HostLookupError, match=f"^{re.escape(words)}$"):
        loaded(tmp_path, text).find_host("ctrl3", etc_hosts)


def test_a_slip_that_the_gate_does_not_need_does_not_make_it_blind() -> None:
    text = "format = 1\nbudget_seconds = 1\nsurplus = 2\n" + ENTRY
    assert [host.name for host in hostlist.from_text(text).hosts] == ["ctrl1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 2\n" + ENTRY, "format 2 is not known"),
        ("format = 1\n", r"no \[\[control_domain\]\] entry"),
        ("format = 1\n" + ENTRY + ENTRY, "name 'ctrl1' is in two"),
        (
            "format = 1\n" + ENTRY.replace("ppar_id = 0", "ppar_id = 77"),
            r"control_domain 1 \(ctrl1\): ppar_id must be",
        ),
        ("format = 1\n" + ENTRY.replace("10.20.30.71", "x"), "xscf_lan0 must be a literal"),
        ("format = 1\n" + ENTRY.replace('login = "standfast"', "login = 3"), "login must be a text"),
        ("format = 1\ncontrol_domain = [3]\n", "control_domain 1 is no table"),
        ("nonsense", "not TOML"),
    ],
)
def test_the_gate_refuses_what_it_cannot_use(text: str, words: str) -> None:
    with pytest.raises(hostlist.HostListError, match=words):
        hostlist.from_text(text)


def test_loading_takes_less_than_60_ms() -> None:
    began = time.perf_counter()
    config.load(str(SAMPLE))
    assert time.perf_counter() - began < 0.060


LIBVIRT = """
[[control_domain]]
name = "host1"
address = "10.20.50.71"
kind = "libvirt"
login = "standfast"
"""
REMOTE = """
[[control_domain]]
name = "host2"
address = "10.20.50.72"
kind = "libvirt"
uri = "qemu+tls://host2.example/system"
"""
MANUAL = """
[[control_domain]]
name = "host3"
address = "10.20.50.73"
kind = "manual"
"""


def test_hosts_with_libvirt_and_hosts_by_hand_need_no_xscf_and_the_gate_reads_the_same(
    tmp_path: Path,
) -> None:
    text = "format = 1\n" + LIBVIRT + REMOTE + MANUAL
    found = loaded(tmp_path, text).hosts
    assert [host.kind for host in found.hosts] == ["libvirt", "libvirt", "manual"]
    assert [host.uri for host in found.hosts] == ["qemu:///system", "qemu+tls://host2.example/system", ""]
    assert [host.obeys for host in found.hosts] == [True, True, False]
    assert {host.ppar_id for host in found.hosts} == {hostlist.NO_PPAR}
    assert hostlist.from_text(text) == found


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        (LIBVIRT, ('login = "standfast"', ""), "login: is missing: qemu:///system is reached by ssh"),
        (LIBVIRT, ('kind = "libvirt"', 'kind = "libvirt"\nppar_id = 0'), "ppar_id: is only for kind ldm"),
        (REMOTE, ("uri =", 'login = "x"\nuri ='), "login: is not needed"),
        (REMOTE, ("/system", "/system?no_verify=1"), "uri: must be a libvirt URI without options"),
        (REMOTE, ("qemu+tls://host2.example", "qemu+tls://"), "uri: must be a libvirt URI"),
        (REMOTE, ("example/system", "example/session"), "uri: must be a libvirt URI"),
        (REMOTE, ("qemu+tls://host2.example/system", "test:///default"), "uri: must be a libvirt URI"),
        (REMOTE, ("qemu+tls://host2.example", "qemu://host2.example"), "uri: must be a libvirt URI"),
        (REMOTE, ("host2.example/", "u:secret@host2.example/"), "uri: must be a libvirt URI"),
        (REMOTE, ("host2.example/system", "h/system; reboot"), "uri: must be a libvirt URI"),
        (MANUAL, ('kind = "manual"', 'kind = "manual"\nlogin = "x"'), "login: is not for kind manual"),
        (
            MANUAL,
            ('kind = "manual"', 'kind = "manual"\nuri = "qemu:///system"'),
            "uri: is only for kind libvirt",
        ),
        (ENTRY, ('kind = "ldm"', 'kind = "ldm"\nuri = "qemu:///system"'), "uri: is only for kind libvirt"),
    ],
)
def test_a_field_that_a_kind_needs_or_cannot_have_is_named_and_the_gate_refuses_it_too(
    tmp_path: Path, entry: str, change: tuple[str, str], words: str
) -> None:
    assert change[0] in entry
    text = "format = 1\n" + entry.replace(*change)
    assert words in refused(tmp_path, text)
    with pytest.raises(hostlist.HostListError, match=words.partition(":")[0]):
        hostlist.from_text(text)


def test_control_domains_and_other_hosts_are_not_in_one_file(tmp_path: Path) -> None:
    text = "format = 1\n" + ENTRY + REMOTE
    assert "no guest moves between them" in refused(tmp_path, text)
    with pytest.raises(hostlist.HostListError, match="no guest moves between them"):
        hostlist.from_text(text)


FENCED = """
[[control_domain]]
name = "host1"
address = "10.88.0.201"
kind = "libvirt"
login = "root"
fence_agent = "fence_virsh"
[control_domain.fence_parameters]
ip = "10.88.0.201"
username = "root"
identity_file = "/root/.ssh/id_ed25519"

[[control_domain]]
name = "host2"
address = "10.88.0.202"
kind = "manual"
fence_agent = "fence_virsh"
[control_domain.fence_parameters]
ip = "10.88.0.202"
username = "root"
password_script = "/etc/standfast/secrets/host2"
"""


def test_an_ordinary_fence_agent_and_what_reaches_each_host_are_read_alike_by_both(tmp_path: Path) -> None:
    text = "format = 1\n" + FENCED
    found = loaded(tmp_path, text).hosts
    assert found == hostlist.from_text(text)
    assert [host.fence_agent for host in found.hosts] == ["fence_virsh", "fence_virsh"]
    assert dict(found.hosts[0].fence_parameters) == {
        "ip": "10.88.0.201",
        "username": "root",
        "identity_file": "/root/.ssh/id_ed25519",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('ip = "10.88.0.201"', 'password = "hunter2"'), "password is a secret, which is never kept here"),
        (('ip = "10.88.0.201"', 'passwd = "hunter2"'), "use identity_file or password_script"),
        (('ip = "10.88.0.201"', 'snmp_priv_passwd = "hunter2"'), "snmp_priv_passwd is a secret"),
        (('ip = "10.88.0.201"', 'api_token = "hunter2"'), "api_token is a secret"),
        (('ip = "10.88.0.201"', 'ip = "ssh://root:hunter2@h"'), "ip is a secret"),
        (('ip = "10.88.0.201"', 'plug = "guest1"'), "plug is set by Standfast, not here"),
        (('ip = "10.88.0.201"', 'port = "guest1"'), "port is set by Standfast, not here"),
        (('ip = "10.88.0.201"', 'missing_as_off = "1"'), "missing_as_off is set by Standfast, not here"),
        (('ip = "10.88.0.201"', 'pcmk_host_list = "n1"'), "pcmk_host_list is set by Standfast"),
        (('ip = "10.88.0.201"', 'login_timeout = "5"'), "login_timeout is set by Standfast"),
        (('ip = "10.88.0.201"', "ssh = true"), "ssh must be text in quotes"),
        (('ip = "10.88.0.201"', 'ip = ""'), "ip must be printable text"),
        (('ip = "10.88.0.201"', 'Ip = "1"'), "'Ip' is no parameter's name"),
        (('"/root/.ssh/id_ed25519"', '".ssh/id"'), "identity_file must be an absolute path"),
        (('agent = "fence_virsh"', 'agent = "fence_dummy"'), "fence_dummy alone kills nobody"),
        (('agent = "fence_virsh"', 'agent = "fence_xscf"'), "fence_xscf: that is for kind ldm"),
        (('agent = "fence_virsh"', 'agent = "virsh"'), "must be the name of a fence agent"),
        (('fence_agent = "fence_virsh"\n', ""), "fence_agent: is missing: fence_parameters needs it"),
        (('10.88.0.202"\nusername = "root"\npassword_script = "/etc/standfast/secrets/host2"',
          '10.88.0.201"\nusername = "root"\nidentity_file = "/root/.ssh/id_ed25519"'),
         "host1 and host2 are the same: the two cannot be told apart"),
    ],
)  # fmt: skip
def test_what_no_agent_of_a_host_may_have_is_refused_by_both_and_no_secret_is_shown(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    text = (
        "format = 1\n" + FENCED.replace(*change, 1)
        if "202" not in change[0]
        else ("format = 1\n" + change[1].join(FENCED.rsplit(change[0], 1)))
    )
    told = refused(tmp_path, text)
    with pytest.raises(hostlist.HostListError) as caught:
        hostlist.from_text(text)
    for words in (told, str(caught.value).replace("fence_agent is missing", "fence_agent: is missing")):
        assert said in words
        assert "hunter2" not in words


def test_all_hosts_of_a_file_have_the_same_fence_agent(tmp_path: Path) -> None:
    for other in ('"fence_xvm"', None):
        head, tail = FENCED.split('kind = "manual"\n')
        tail = tail.replace('"fence_virsh"', other) if other else ""
        text = "format = 1\n" + head + 'kind = "manual"\n' + tail
        said = refused(tmp_path, text)
        assert (
            f"must be the same for all hosts (host1 fence_virsh, host2 {(other or 'none').strip(chr(34))})"
            in said
        )
        with pytest.raises(hostlist.HostListError, match="must be the same for all hosts"):
            hostlist.from_text(text)


def test_a_control_domain_has_no_fence_agent_of_its_own(tmp_path: Path) -> None:
    text = (
        "format = 1\n" + ENTRY + 'fence_agent = "fence_virsh"\n[control_domain.fence_parameters]\nip = "1"\n'
    )
    said = refused(tmp_path, text)
    assert "fence_agent: is only for kind libvirt or manual" in said
    assert "fence_parameters: is only for kind libvirt or manual" in said
    with pytest.raises(hostlist.HostListError, match="fence_agent is only for kind libvirt or manual"):
        hostlist.from_text(text)
