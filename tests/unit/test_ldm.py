"""What `ldm` prints, as evidence: never absent from a listing that is not whole."""

import pytest

from standfast.core import ldm
from standfast.core.evidence import GuestState
from standfast.core.jobs import NotUnderstood
from standfast.core.ldm import NoRoom, SavedConfiguration
from standfast.core.names import is_domain_name

CONTROL = (
    "DOMAIN|name=primary|state=active|flags=-n-cv-|cons=UART|ncpu=5|mem=47272862140|util=0.4|uptime=4772570"
)
SLOTS = ("standfast-a", "standfast-b")


def listing(*rows: str) -> str:
    return "\n".join(["VERSION 1.11", CONTROL, *rows]) + "\n"


def guest(state: str, flags: str) -> str:
    return f"DOMAIN|name=guest2|state={state}|flags={flags}|cons=5000|ncpu=8|mem=1|norm_util=0.4|new_key=1"


def state_of(state: str, flags: str) -> GuestState:
    return ldm.answer_for("ctrl2", "guest2", ldm.parse_domains(listing(guest(state, flags)))).state


@pytest.mark.parametrize(
    ("state", "flags", "expected"),
    [
        ("active", "-n----", GuestState.RUNNING),
        ("active", "-n--v-", GuestState.RUNNING),
        ("active", "-t----", GuestState.RUNNING),
        ("active", "-d----", GuestState.RUNNING),
        ("active", "-nr---", GuestState.RUNNING),
        ("active", "-n---s", GuestState.MIGRATING_OUT),
        ("suspended", "-n---s", GuestState.MIGRATING_OUT),
        ("bound", "-t---t", GuestState.INCOMING),
        ("active", "-n---t", GuestState.INCOMING),
        ("active", "-n---e", GuestState.ERROR),
        ("suspended", "-n---e", GuestState.ERROR),
        ("suspended", "-n----", GuestState.PAUSED),
        ("resuming", "-n----", GuestState.PAUSED),
        ("starting", "sn----", GuestState.RUNNING),
        ("stopping", "sn----", GuestState.RUNNING),
        ("bound", "------", GuestState.STOPPED),
        ("inactive", "------", GuestState.STOPPED),
        ("bound", "s-----", GuestState.UNKNOWN),
        ("bound", "-t----", GuestState.UNKNOWN),
        ("active", "-n---", GuestState.RUNNING),
        ("bound", "-----", GuestState.STOPPED),
        ("active", "-t---", GuestState.UNKNOWN),
        ("bound", "-t---", GuestState.UNKNOWN),
        ("hibernating", "-n----", GuestState.UNKNOWN),
        ("active", "-n----x", GuestState.UNKNOWN),
        ("bound", "normal", GuestState.UNKNOWN),
    ],
)
def test_state_and_flags_become_one_word_of_evidence(state: str, flags: str, expected: GuestState) -> None:
    assert state_of(state, flags) is expected


def test_not_here_is_only_said_of_a_stopped_domain_without_any_flag_of_change() -> None:
    for state in ("active", "bound", "inactive", "starting", "stopping", "suspended", "resuming", "new"):
        for one in "-s":
            for two in "-ntd":
                for six in "-ste":
                    stopped = state_of(state, f"{one}{two}---{six}").proves_not_here
                    assert stopped == (
                        state in ("bound", "inactive") and one == "-" and two != "t" and six == "-"
                    )


def test_a_domain_that_is_not_in_a_whole_list_is_absent() -> None:
    assert ldm.answer_for("ctrl1", "guest2", ldm.parse_domains(listing())).state is GuestState.ABSENT


def test_all_guests_are_listed_without_the_control_domain() -> None:
    rows = ldm.parse_domains(listing(guest("active", "-n----")))
    assert [(a.guest, a.state) for a in ldm.answers("ctrl2", rows)] == [("guest2", GuestState.RUNNING)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        CONTROL + "\n",
        "VERSION 1.11\n",
        "VERSION 1.11\n" + guest("active", "-n----") + "\n",
        listing("DOMAIN|name=guest2|state=active"),
        listing(guest("active", "-n----"), guest("bound", "------")),
        "Failed to connect to logical domain manager: Connection refused\n",
    ],
)
def test_a_listing_that_is_not_whole_is_refused_instead_of_saying_absent(text: str) -> None:
    with pytest.raises(NotUnderstood):
        ldm.parse_domains(text)


@pytest.mark.parametrize("cut", range(len(listing(guest("active", "-n----"))) - 1))
def test_a_listing_cut_anywhere_but_at_the_end_of_a_row_is_refused(cut: int) -> None:
    text = listing(guest("active", "-n----"))[:cut]
    if text == listing():
        return  # only the command's exit status tells that this one is not whole
    with pytest.raises(NotUnderstood):
        ldm.parse_domains(text)


def test_progress_of_an_outgoing_migration_is_read() -> None:
    job = ldm.parse_job(
        "guest2", "DOMAIN|name=guest2\nSTATUS\n|op=migration|progress=42|error=no|target=ctrl3\n"
    )
    assert job is not None
    assert (job.progress_percent, job.failed, job.peer, job.outgoing) == (42, False, "ctrl3", True)


def test_on_the_target_the_peer_is_the_source_and_an_error_is_seen() -> None:
    job = ldm.parse_job("guest2", "|op=migration|progress=17%|error=yes|source=ctrl2\n")
    assert job is not None
    assert (job.progress_percent, job.failed, job.peer, job.outgoing) == (17, True, "ctrl2", False)


def test_no_status_part_is_no_migration() -> None:
    assert ldm.parse_job("guest2", "VERSION 1.20\nDOMAIN|name=guest2\n") is None
    assert ldm.parse_job("guest2", "|op=memory_dr|progress=1\n") is None


@pytest.mark.parametrize("text", ["|op=migration|progress=soon\n", "|op=migration|progress=1\n" * 2])
def test_a_migration_that_cannot_be_read_is_an_error_and_not_no_migration(text: str) -> None:
    with pytest.raises(NotUnderstood):
        ldm.parse_job("guest2", text)


def test_saved_configurations_are_read_with_their_suffixes() -> None:
    text = "factory-default\nfirst [current] [degraded]\nstandfast-a [next poweron]\n"
    assert ldm.parse_configurations(text) == (
        SavedConfiguration("factory-default"),
        SavedConfiguration("first", current=True, degraded=True),
        SavedConfiguration("standfast-a", next_poweron=True),
    )


@pytest.mark.parametrize("text", ["", "mine [current]\n", "factory-default\nmine\nmine\n"])
def test_a_list_of_configurations_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood):
        ldm.parse_configurations(text)


def saved(*names: str, current: str = "") -> list[SavedConfiguration]:
    return [SavedConfiguration(name, current=name == current) for name in ("factory-default", *names)]


@pytest.mark.parametrize(
    ("names", "current", "save_as", "remove_first"),
    [
        ((), "factory-default", "standfast-a", None),
        (("mine",), "mine", "standfast-a", None),
        (("standfast-a",), "standfast-a", "standfast-b", None),
        (("standfast-a", "standfast-b"), "standfast-b", "standfast-a", "standfast-a"),
        (("standfast-a", "standfast-b"), "standfast-a", "standfast-b", "standfast-b"),
        (("standfast-a", "mine"), "mine", "standfast-b", None),
        (("standfast-a", "standfast-b", "mine"), "mine", "standfast-a", "standfast-a"),
    ],
)
def test_the_two_slots_take_turns_and_the_current_one_is_never_touched(
    names: tuple[str, ...], current: str, save_as: str, remove_first: str | None
) -> None:
    plan = ldm.plan_save(saved(*names, current=current), SLOTS)
    assert (plan.save_as, plan.remove_first) == (save_as, remove_first)


def test_a_full_list_is_refused_and_a_slot_of_ours_makes_room() -> None:
    others = [f"other{number}" for number in range(7)]
    with pytest.raises(NoRoom, match="remove-spconfig"):
        ldm.plan_save(saved(*others, current="other1"), SLOTS)
    with pytest.raises(NoRoom):
        ldm.plan_save(saved(*others[:6], "standfast-a", current="standfast-a"), SLOTS)
    plan = ldm.plan_save(saved(*others[:6], "standfast-b", current="other1"), SLOTS)
    assert plan.save_as == plan.remove_first == "standfast-b"


def test_nothing_but_the_two_slots_is_ever_removed() -> None:
    pool = ["standfast-a", "standfast-b", "@post-migration", "mine"]
    for bits in range(16):
        names = [name for number, name in enumerate(pool) if bits >> number & 1]
        for current in ["factory-default", *names]:
            plan = ldm.plan_save(saved(*names, current=current), SLOTS)
            assert plan.save_as != current
            assert plan.remove_first in (None, plan.save_as)


def test_a_current_post_migration_configuration_counts_as_saved_unless_that_is_not_wanted() -> None:
    existing = saved("@post-migration", current="@post-migration")
    assert ldm.plan_save(existing, SLOTS).save_as is None
    assert ldm.plan_save(existing, SLOTS, accept_post_migration=False).save_as == "standfast-a"


def test_the_reason_of_a_refusal_is_told_without_its_summary() -> None:
    text = "Unable to bind 2G memory region\nDomain Migration of LDom guest2 would fail if attempted\n"
    assert ldm.migration_refusal(text) == "Unable to bind 2G memory region"
    assert ldm.migration_refusal("Domain Migration of LDom g failed\n") == "Domain Migration of LDom g failed"
    assert ldm.migration_refusal("") == "ldm gave no reason"
    for asked in ("Target Password: \r\nBad vds\r\n", "Target Password: Bad vds\r\n"):
        assert ldm.migration_refusal(asked + "Domain Migration of LDom guest2 failed\r\n") == "Bad vds"


@pytest.mark.parametrize("name", ["", "-f", "a b", "a;b", "a\n", "$(x)", "x" * 256])
def test_a_name_that_could_be_an_option_or_a_command_is_no_domain_name(name: str) -> None:
    assert not is_domain_name(name)


def test_ordinary_domain_names_are_names() -> None:
    assert all(is_domain_name(name) for name in ("guest2", "ldg-src", "db_1.prod"))
