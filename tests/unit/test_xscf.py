"""The status tables of an XSCF, and the proof of a kill: every state against every state."""

import itertools

import pytest

from standfast.core import xscf
from standfast.core.evidence import GuestState
from standfast.core.xscf import DomainStatus, Kind, NotUnderstood, OutOfTurn, Proof, Verdict

TABLE = "Logical Domain Name   Status\nprimary               Solaris running\nguest2                Unknown\n"
# Written out here from the manual's table, not taken from the code under test.
LIVE = (
    "Solaris booting",
    "Solaris running",
    "Solaris halting",
    "Solaris powering down",
    "Solaris rebooting",
    "Solaris panicking",
    "Solaris debugging",
    "OpenBoot initializing",
    "OpenBoot Running",
    "OpenBoot Primary Boot Loader",
    "OpenBoot Running OS Boot",
    "OpenBoot Running Host Halted",
    "OpenBoot Exited",
    "OpenBoot Host Received Break",
    "OpenBoot Failed",
    "OS Started. No state support.",
)
DEATHS = tuple(
    status
    for status in LIVE
    if status.startswith("OpenBoot")
    or status in ("Solaris panicking", "Solaris rebooting", "Solaris booting", "Solaris powering down")
)
DOUBTS = ("Host stopped", "Unknown", "-", "Solaris suspended", "something new", "")
ALL = LIVE + DOUBTS


def killed(*statuses: str) -> Proof:
    """A proof whose order was given after the first status."""
    proof = Proof().seen(statuses[0]).ordered()
    for status in statuses[1:]:
        proof = proof.seen(status)
    return proof


def test_the_table_is_read_row_by_row_and_an_echo_above_it_is_skipped() -> None:
    rows = xscf.parse_domain_status("showdomainstatus -p 0\r\n" + TABLE.replace("\n", "\r\n"))
    assert rows == (DomainStatus("primary", "Solaris running"), DomainStatus("guest2", "Unknown"))
    assert xscf.status_of("guest2", rows) == "Unknown"


def test_a_domain_name_longer_than_its_column_is_read() -> None:
    name = "a-domain-with-a-rather-long-name"
    rows = xscf.parse_domain_status(f"Logical Domain Name   Status\n{name} Solaris running\n")
    assert rows == (DomainStatus(name, "Solaris running"),)


def test_a_domain_that_is_not_listed_is_an_error_and_not_a_status() -> None:
    with pytest.raises(NotUnderstood, match="guest9"):
        xscf.status_of("guest9", xscf.parse_domain_status(TABLE))


@pytest.mark.parametrize(
    "text",
    ["", "Permission denied.\n", TABLE + TABLE, TABLE + "guest3\n", TABLE + "guest2 Solaris running\n"],
)
def test_what_is_not_one_whole_table_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        xscf.parse_domain_status(text)


def test_the_partition_table_is_read() -> None:
    rows = xscf.parse_ppar_status("PPAR-ID         PPAR Status\n00              Running\n01  Powered Off\n")
    assert [(row.ppar_id, row.status, row.powered_off) for row in rows] == [
        (0, "Running", False),
        (1, "Powered Off", True),
    ]


@pytest.mark.parametrize("text", ["", "PPAR-ID  PPAR Status\nBB#00 Master\n", "00  Running\n"])
def test_a_partition_table_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        xscf.parse_ppar_status(text)


def test_the_manuals_status_table_is_known_whole() -> None:
    assert set(LIVE) | {"Host stopped", "Unknown", "-", "Solaris suspended"} == xscf.STATUSES


def test_case_and_spacing_of_a_status_do_not_matter_but_its_words_do() -> None:
    assert xscf.kind("SOLARIS  Running ") is Kind.UP
    assert xscf.kind("openboot running") is Kind.FALLEN
    assert xscf.kind("Solaris running fast") is Kind.DOUBTFUL


@pytest.mark.parametrize("status", LIVE)
def test_an_order_is_due_once_the_domain_was_seen_alive(status: str) -> None:
    assert Proof().seen(status).verdict is Verdict.ORDER


@pytest.mark.parametrize("status", DOUBTS)
def test_no_order_is_due_and_none_becomes_due_after_a_doubtful_first_look(status: str) -> None:
    proof = Proof().seen(status)
    assert proof.verdict is Verdict.DOUBT
    for later in ALL:
        assert proof.seen(later).verdict is Verdict.DOUBT


@pytest.mark.parametrize(("before", "after"), list(itertools.product(LIVE, ALL)))
def test_a_kill_is_proven_only_by_a_change_into_a_state_without_a_running_kernel(
    before: str, after: str
) -> None:
    expected = after in DEATHS and after != before
    assert (killed(before, after).verdict is Verdict.PROVEN) == expected


@pytest.mark.parametrize("path", list(itertools.product(LIVE[:3], ALL, ALL)))
def test_what_is_not_proven_yet_waits_and_never_turns_into_another_order(path: tuple[str, ...]) -> None:
    proof = killed(*path)
    assert proof.verdict in (Verdict.WAIT, Verdict.PROVEN)


def test_an_order_that_is_ignored_is_never_proven() -> None:
    assert killed("Solaris running", *["Solaris running"] * 50).verdict is Verdict.WAIT


def test_a_domain_that_moves_away_after_the_order_is_not_taken_for_dead() -> None:
    for gone in (("Host stopped",), ("Solaris suspended", "Host stopped"), ("-",), ("Unknown",)):
        assert killed("Solaris running", *gone).verdict is Verdict.WAIT


def test_a_proof_stays_whatever_is_seen_later() -> None:
    proof = killed("Solaris running", "Solaris panicking", "Solaris running", "Host stopped")
    assert proof.verdict is Verdict.PROVEN


def test_an_order_before_the_first_look_in_doubt_or_twice_is_our_own_mistake() -> None:
    for proof in (Proof(), Proof().seen("Host stopped"), Proof().seen("Solaris running").ordered()):
        with pytest.raises(OutOfTurn):
            proof.ordered()


def test_the_story_tells_each_change_once() -> None:
    proof = killed("Solaris running", "Solaris running", "Solaris panicking")
    assert proof.story == "Solaris running -> Solaris panicking"
    assert proof.before_order == "Solaris running"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *(
            (status, GuestState.RUNNING)
            for status in ("Solaris running", "OpenBoot Running", "solaris  RUNNING")
        ),
        ("Solaris panicking", GuestState.RUNNING),
        ("Solaris suspended", GuestState.PAUSED),
        ("Host stopped", GuestState.STOPPED),
        *((status, GuestState.UNKNOWN) for status in ("Unknown", "-", "Solaris", "")),
        (None, GuestState.ABSENT),
    ],
)
def test_a_row_says_of_a_guest_what_its_status_plainly_means_and_no_more(
    status: str | None, state: GuestState
) -> None:
    assert xscf.guest_state(status) is state


def test_what_may_be_a_guest_that_was_never_saved_proves_nothing() -> None:
    found = {status: xscf.guest_state(status) for status in xscf.STATUSES}
    assert {s for s, state in found.items() if state.proves_not_here} == {"Host stopped"}
    assert not xscf.guest_state("Unknown").is_present
