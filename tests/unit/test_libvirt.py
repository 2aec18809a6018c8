"""What `virsh` prints, as evidence: texts of libvirt 9.0.0, and what must not be taken for evidence."""

import shlex
from itertools import product
from xml.etree import ElementTree as ET

import pytest

from standfast.core import libvirt, libvirt_needs
from standfast.core.evidence import GuestState, gone_everywhere
from standfast.core.jobs import NotUnderstood
from standfast.core.libvirt import Direction

ONE, TWO = "11111111-2222-3333-4444-555555555555", "21111111-2222-3333-4444-555555555555"
NO_JOB = "Job type: 0\n\n"
SENDING = """Job type: 2

operation: 5
time_elapsed: 2310
downtime: 300
setup_time: 4
memory_total: 554504192
memory_processed: 2437120
memory_remaining: 498073600
memory_bps: 1062912
memory_constant: 13312
memory_normal: 581
memory_dirty_rate: 0
memory_iteration: 1
memory_page_size: 4096
a_new_key: no number
"""
ARRIVING = (
    "error: Requested operation is not valid: migration statistics are available only on the source host\n"
)


def answer(
    state: int = 1,
    reason: int = 1,
    *,
    active: bool = True,
    persistent: bool = True,
    job: str | None = NO_JOB,
    name: str = "guest1",
) -> str:
    """The whole answer of a host with one domain, asked for the job of guest1."""
    lines = ["standfast:names", f"{ONE} {name}", "standfast:states", f"Domain: '{name}'"]
    lines += [f"  state.state={state}", f"  state.reason={reason}", "", "standfast:inactive"]
    lines += [] if active else [ONE, ""]
    lines += ["standfast:persistent", *([ONE] if persistent else [])]
    if job is not None:
        lines += ["standfast:job guest1", *job.splitlines()]
    return "\n".join([*lines, "standfast:end", ""])


def state_of(text: str) -> GuestState:
    return libvirt.answer_for("host1", "guest1", libvirt.parse_answer(text)).state


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (1, 1, GuestState.RUNNING),
        (1, 2, GuestState.RUNNING),
        (1, 6, GuestState.RUNNING),
        (1, 10, GuestState.INCOMING),
        (1, 11, GuestState.ERROR),
        (2, 0, GuestState.RUNNING),
        (3, 1, GuestState.PAUSED),
        (3, 2, GuestState.ERROR),
        (3, 5, GuestState.PAUSED),
        (3, 10, GuestState.CRASHED),
        (3, 11, GuestState.PAUSED),
        (3, 12, GuestState.MIGRATING_OUT),
        (3, 13, GuestState.ERROR),
        (3, 99, GuestState.UNKNOWN),
        (4, 1, GuestState.RUNNING),
        (5, 0, GuestState.UNKNOWN),
        (6, 1, GuestState.CRASHED),
        (7, 0, GuestState.PAUSED),
        (0, 0, GuestState.UNKNOWN),
        (8, 0, GuestState.UNKNOWN),
    ],
)
def test_state_and_reason_of_an_active_domain_without_a_job_become_one_word(
    state: int, reason: int, expected: GuestState
) -> None:
    assert state_of(answer(state, reason)) is expected


@pytest.mark.parametrize("state", [1, 3])
def test_a_job_says_whether_the_copy_leaves_or_arrives_whatever_its_state(state: int) -> None:
    for job, expected in ((SENDING, GuestState.MIGRATING_OUT), (ARRIVING, GuestState.INCOMING)):
        text = answer(state, 2 if state == 3 else 1, job=job)
        found = libvirt.answer_for("host1", "guest1", libvirt.parse_answer(text))
        assert (found.state, found.job) == (expected, True)


@pytest.mark.parametrize(
    "job",
    [
        None,
        "",
        "error: failed to get domain 'guest1'\n",
        "error: Timed out during operation: cannot acquire state change lock\n",
        "Job type: 2\n",
        "half a li",
    ],
)
def test_a_domain_whose_job_cannot_be_told_is_unknown_not_running(job: str | None) -> None:
    assert state_of(answer(1, 1, job=job)) is GuestState.UNKNOWN


def test_jobs_that_are_no_migration_or_have_ended_leave_the_state_alone() -> None:
    for job in (SENDING.replace("operation: 5", "operation: 9"), SENDING.replace("type: 2", "type: 5")):
        assert state_of(answer(1, 1, job=job)) is GuestState.RUNNING
    unsupported = (
        "error: Optional flags or --rawstats are not supported by the daemon\n"
        "error: this function is not supported by the connection driver: virDomainGetJobStats\n"
    )
    assert state_of(answer(1, 0, job=unsupported)) is GuestState.RUNNING


def test_not_here_is_only_said_of_an_inactive_domain_that_is_shut_off() -> None:
    for state, reason, active in product(range(9), range(14), (True, False)):
        here = not state_of(answer(state, reason, active=active)).proves_not_here
        assert here == (active or state != 5)


def test_a_guest_that_is_in_none_of_the_lists_is_absent_and_one_in_some_of_them_is_unknown() -> None:
    empty = "\n".join(f"standfast:{part}" for part in ("names", "states", "inactive", "persistent", "end"))
    assert state_of(empty + "\n") is GuestState.ABSENT
    assert state_of(answer(name="other")) is GuestState.ABSENT
    came = answer().replace(f"{ONE} guest1\n", "")
    gone = answer().replace("Domain: 'guest1'\n  state.state=1\n  state.reason=1\n", "")
    assert came != answer() != gone
    assert state_of(came) is state_of(gone) is GuestState.UNKNOWN


def test_every_cut_of_an_answer_is_not_understood() -> None:
    text = answer(job=SENDING)
    for length in range(len(text)):
        with pytest.raises(NotUnderstood):
            libvirt.parse_answer(text[:length])
    assert state_of(text) is GuestState.MIGRATING_OUT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((f"{ONE} guest1", "error: Disconnected from qemu:///system"), "Disconnected"),
        (("  state.state=1", "error: no a=b"), "no a=b"),
        ((f"{ONE} guest1", f"{ONE} guest1\n{TWO} guest1"), "guest1 is listed twice"),
        ((f"{ONE} guest1", f"{ONE} guest1\n{ONE} guest2"), "guest2 is listed twice"),
        (("standfast:states", "standfast:names"), "came twice"),
        (("standfast:inactive\n", ""), "no part 'inactive'"),
        (("  state.state", "state"), ""),
        (("standfast:inactive", "standfast:inactive\nguest1"), "list --inactive: 'guest1'"),
        (("standfast:end\n", "standfast:end\nerror: broken pipe\n"), "broken pipe"),
    ],
)
def test_an_answer_of_another_form_proves_nothing(change: tuple[str, str], words: str) -> None:
    text = answer()
    assert change[0] in text
    if not words:
        assert state_of(text.replace(*change)) is GuestState.UNKNOWN
        return
    with pytest.raises(NotUnderstood, match=words):
        libvirt.parse_answer(text.replace(*change))


def test_the_answer_tells_the_guests_uuid_and_its_words() -> None:
    found = libvirt.answer_for("host1", "guest1", libvirt.parse_answer(answer(3, 1, persistent=False)))
    assert found.identity == ONE
    assert str(found) == "host1: paused (paused (user), transient)"
    sent = libvirt.answer_for("host1", "guest1", libvirt.parse_answer(answer(job=SENDING)))
    assert sent.detail == "running (booted), being sent"


def test_another_guest_under_the_same_name_or_a_reported_migration_is_no_proof_of_gone() -> None:
    off = libvirt.answer_for("host1", "guest1", libvirt.parse_answer(answer(5, 1, active=False, job=None)))
    other = libvirt.answer_for(
        "host1",
        "guest1",
        libvirt.parse_answer(answer(5, 1, active=False, job=None).replace(ONE, TWO)),
    )
    assert gone_everywhere(["host1"], [[off], [off]])
    assert not gone_everywhere(["host1"], [[off], [other]])
    moving = libvirt.answer_for(
        "host1", "guest1", libvirt.parse_answer(answer(5, 1, active=False, job=ARRIVING))
    )
    assert not gone_everywhere(["host1"], [[moving], [moving]])


def test_a_job_tells_its_figures() -> None:
    direction, job = libvirt.parse_job("guest1", SENDING)
    assert direction is Direction.OUT
    assert job is not None
    assert (job.outgoing, job.failed, job.done, job.progress_percent) == (True, False, False, 10)
    assert (job.copied_bytes, job.remaining_bytes, job.total_bytes) == (2437120, 498073600, 554504192)
    assert (job.rate_bytes_per_second, job.iteration, job.downtime_ms) == (1062912, 1, 300)
    _, done = libvirt.parse_job("guest1", SENDING.replace("type: 2", "type: 3"))
    assert done is not None
    assert (done.done, done.progress_percent, done.downtime_ms) == (True, 100, 300)


def test_what_is_typed_is_safe_for_a_shell_and_whole_for_virsh() -> None:
    line = libvirt.command_line("qemu:///system", [libvirt.question(["guest1", "guest1"])])
    assert line.endswith(" 2>&1")
    words = shlex.split(line.removesuffix(" 2>&1"))
    expected = ["env", "LC_ALL=C", "virsh", "--quiet", "--readonly", "--connect", "qemu:///system"]
    assert words[:-1] == expected
    assert words[-1].count("domjobinfo") == 1
    limited = shlex.split(libvirt.command_line("qemu:///system", ["destroy", "guest1"], limit_seconds=2.5))
    assert limited[2:7] == ["timeout", "--foreground", "-k", "1", "4"]
    assert "--readonly" not in libvirt.command_line("qemu:///system", ["destroy", "guest1"], change=True)
    for name in ("", "-x", "a b", "guest1; reboot", "$(reboot)", "a'b", "a\nb"):
        with pytest.raises(ValueError):
            libvirt.question([name])


def test_what_a_guest_needs_is_read_from_its_definition() -> None:
    xml = """<domain type='kvm'><memory unit='KiB'>524288</memory>
<os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><cpu mode='custom'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices></domain>"""
    found = libvirt_needs.needs(ET.fromstring(xml))
    assert (found.memory_kib, found.compare_cpu) == (524288, True)
    assert found.cpu_words[:6] == ("--virttype", "kvm", "--arch", "x86_64", "--machine", "pc-i440fx-7.2")
    passed = libvirt_needs.needs(ET.fromstring(xml.replace("<model>qemu64</model>", "")))
    assert not passed.compare_cpu
    huge = xml.replace("<os>", "<memoryBacking><hugepages/></memoryBacking><os>")
    assert libvirt_needs.needs(ET.fromstring(huge)).memory_kib is None
    for wrong in ("<domain/>", "<cpu/>", xml.replace("'KiB'", "'GiB'"), xml.replace("524288", "much")):
        with pytest.raises(NotUnderstood):
            libvirt_needs.needs(ET.fromstring(wrong))


def test_the_networks_of_a_guest_are_those_of_libvirt_not_the_host_s_bridges() -> None:
    nics = "".join(
        f"<interface type='{kind}'><source {kind}='{name}'/></interface>"
        for kind, name in (("network", "b"), ("network", "a"), ("network", "b"), ("bridge", "br0"))
    )
    found = ET.fromstring(f"<domain type='kvm'><memory>1</memory><devices>{nics}</devices></domain>")
    assert libvirt_needs.needs(found).networks == ("a", "b")


def test_the_largest_memory_is_read_from_dominfo() -> None:
    text = "Id:             3\nMax memory:     524288 KiB\nUsed memory:    4096 KiB\n"
    assert libvirt_needs.maximum_memory_bytes(text) == 512 << 20
    assert libvirt_needs.maximum_memory_bytes(text.replace("524288", "much")) is None
    assert libvirt_needs.maximum_memory_bytes("") is None


def test_free_memory_is_what_is_free_or_quickly_freed() -> None:
    text = "total  :   24541884 KiB\nfree   :        100 KiB\nbuffers:   20 KiB\ncached :  3 KiB\n"
    assert libvirt_needs.free_memory_kib(text) == 123
    assert libvirt_needs.free_memory_kib(text.replace("cached", "cachet")) is None
    assert libvirt_needs.free_memory_kib("") is None
