"""What `ldm` prints, read without guessing. The standard library only: the gate imports this.

Sources: Oracle VM Server for SPARC, ldm(8) and the flag definitions of the administration
guide; the parseable form from field samples. Rules of this file:

* "Absent" is evidence, so it is only said from a listing that is whole: it begins with the
  VERSION line and has the control domain in it. Anything else raises `NotUnderstood`.
* Keys that are not known are skipped: they grow with each release.
* A state or flag that is not known makes that one guest `UNKNOWN`, never the listing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.jobs import MigrationJob, NotUnderstood

FACTORY_DEFAULT = "factory-default"
POST_MIGRATION = "@post-migration"
# With factory-default; the count on SPARC M10 is from field knowledge, not from a manual.
MOST_CONFIGURATIONS = 8

_FLAGS = re.compile(r"[-s][-ntd][-dr][-c][-v]([-ste])?")
_TAG = re.compile(r"\[([^\]]*)\]")
_PROGRESS = re.compile(r"(\d{1,3})%?")


class NoRoom(ValueError):
    """No saved configuration can be added without removing one that is not ours."""


@dataclass(frozen=True)
class Domain:
    """One row of `ldm list-domain -p`; `flags` as printed, six columns or (old releases) five."""

    name: str
    state: str
    flags: str
    memory_bytes: int | None = None
    """`mem`, where the row has it."""

    @property
    def is_control(self) -> bool:
        """Whether this is the control domain (flag column 4)."""
        return len(self.flags) >= 4 and self.flags[3] == "c"

    @property
    def guest_state(self) -> GuestState:
        """The row as evidence."""
        if _FLAGS.fullmatch(self.flags) is None:
            return GuestState.UNKNOWN
        migration = self.flags[5] if len(self.flags) == 6 else ""
        if migration in _MIGRATION:
            return _MIGRATION[migration]
        if not migration and self.flags[1] == "t":
            # Five columns cannot tell a migration from a domain at its firmware.
            return GuestState.UNKNOWN
        if self.state in ("bound", "inactive"):
            changing = self.flags[0] == "s" or self.flags[1] == "t"
            return GuestState.UNKNOWN if changing else GuestState.STOPPED
        return _STATES.get(self.state, GuestState.UNKNOWN)


_MIGRATION = {"s": GuestState.MIGRATING_OUT, "t": GuestState.INCOMING, "e": GuestState.ERROR}
_STATES = {
    "active": GuestState.RUNNING,
    "starting": GuestState.RUNNING,
    "stopping": GuestState.RUNNING,
    "suspended": GuestState.PAUSED,
    "resuming": GuestState.PAUSED,
}


@dataclass(frozen=True)
class SavedConfiguration:
    """One row of `ldm list-spconfig`."""

    name: str
    current: bool = False
    next_poweron: bool = False
    degraded: bool = False


@dataclass(frozen=True)
class SavePlan:
    """How to save without touching anything that is not ours.

    `remove_first` is None or one of the two slots; `save_as` None means that the running
    configuration counts as saved already (`already`).
    """

    save_as: str | None
    remove_first: str | None = None
    already: str = ""


def parse_domains(text: str) -> tuple[Domain, ...]:
    """Read the whole of `ldm list-domain -p`, as printed (its last line end is looked for).

    Only for a command that ended with exit status 0: a list cut at the end of a row looks whole.
    Raises NotUnderstood if it is not whole.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("VERSION "):
        raise NotUnderstood("ldm list-domain -p: no VERSION line")
    if not text.endswith("\n"):
        raise NotUnderstood("ldm list-domain -p: cut off in a row")
    domains = [_domain(line) for line in lines[1:] if line.startswith("DOMAIN|")]
    names = [domain.name for domain in domains]
    if len(set(names)) != len(names):
        raise NotUnderstood("ldm list-domain -p: a domain is listed twice")
    if not any(domain.is_control for domain in domains):
        raise NotUnderstood("ldm list-domain -p: no control domain in it, so the list is not whole")
    return tuple(domains)


def _domain(line: str) -> Domain:
    fields = _fields(line)
    try:
        memory = fields.get("mem", "")
        amount = int(memory) if memory.isascii() and memory.isdigit() else None
        return Domain(fields["name"], fields["state"], fields["flags"], amount)
    except KeyError as missing:
        raise NotUnderstood(f"ldm list-domain -p: a row without {missing.args[0]}") from None


def _fields(line: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in line.split("|"))
    return {key: value for key, equals, value in pairs if equals}


def answers(host: str, domains: Sequence[Domain]) -> tuple[HostAnswer, ...]:
    """A listing as evidence, one answer for each domain that is not the control domain."""
    return tuple(_answer(host, domain) for domain in domains if not domain.is_control)


def answer_for(host: str, guest: str, domains: Sequence[Domain]) -> HostAnswer:
    """What this listing says about one guest; ABSENT if it is not in it."""
    for domain in domains:
        if domain.name == guest:
            return _answer(host, domain)
    return HostAnswer(host, guest, GuestState.ABSENT)


def _answer(host: str, domain: Domain) -> HostAnswer:
    return HostAnswer(host, domain.name, domain.guest_state, f"{domain.state} {domain.flags}")


def parse_job(guest: str, text: str) -> MigrationJob | None:
    """Read `ldm list-domain -o status -p GUEST`; None if it reports no migration.

    Raises NotUnderstood for a migration row whose progress is no number, and for two rows.
    """
    rows = [_fields(line) for line in text.splitlines() if "op=" in line]
    rows = [fields for fields in rows if fields.get("op") == "migration"]
    if not rows:
        return None
    if len(rows) > 1:
        raise NotUnderstood("ldm list-domain -o status: two migrations of one domain")
    fields = rows[0]
    progress = _PROGRESS.fullmatch(fields.get("progress", "").strip())
    if progress is None and fields.get("progress", "").strip():
        raise NotUnderstood(f"ldm list-domain -o status: progress {fields['progress']!r}")
    return MigrationJob(
        guest=guest,
        progress_percent=min(int(progress[1]), 100) if progress else None,
        failed=fields.get("error", "no") != "no",
        peer=fields.get("target") or fields.get("source", ""),
        outgoing="source" not in fields,
    )


def parse_configurations(text: str) -> tuple[SavedConfiguration, ...]:
    """Read `ldm list-spconfig`. Raises NotUnderstood where factory-default, always there, is missing."""
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name = line.split()[0]
        tags = {tag.strip() for tag in _TAG.findall(line)}
        found.append(
            SavedConfiguration(
                name=name,
                current="current" in tags,
                next_poweron="next poweron" in tags,
                degraded="degraded" in tags,
            )
        )
    if FACTORY_DEFAULT not in {configuration.name for configuration in found}:
        raise NotUnderstood("ldm list-spconfig: no factory-default in it, so the list is not whole")
    if len({configuration.name for configuration in found}) != len(found):
        raise NotUnderstood("ldm list-spconfig: a name is listed twice")
    return tuple(found)


def plan_save(
    existing: Sequence[SavedConfiguration],
    slots: tuple[str, str],
    accept_post_migration: bool = True,
    most: int = MOST_CONFIGURATIONS,
) -> SavePlan:
    """Choose the slot to save under: never the current one, and nothing else is ever removed.

    Raises NoRoom when the list is full of names that are not ours.
    """
    names = {configuration.name for configuration in existing}
    current = {configuration.name for configuration in existing if configuration.current}
    if accept_post_migration and POST_MIGRATION in current:
        return SavePlan(None, already=POST_MIGRATION)
    # A slot that does not exist yet is taken before one that has to be removed.
    for slot in sorted((slot for slot in slots if slot not in current), key=lambda slot: slot in names):
        if len(names - {slot}) < most:
            return SavePlan(slot, remove_first=slot if slot in names else None)
    raise NoRoom(
        f"{len(names)} saved configurations of at most {most}, and neither {slots[0]} nor {slots[1]} "
        "can make room: remove one with 'ldm remove-spconfig NAME'"
    )


def migration_refusal(output: str) -> str:
    """The reason in the output of a refused or failed migration.

    That is its first line that is neither a summary nor the question for a password, which on a
    terminal stands in the same output.
    """
    lines = [re.sub(r"^.*Password:\s*", "", line).strip() for line in output.splitlines()]
    told = [line for line in lines if line]
    reasons = [line for line in told if not re.search(r"would fail if attempted|^Domain Migration of", line)]
    return (reasons or told or ["ldm gave no reason"])[0]
