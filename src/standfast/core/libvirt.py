"""What `virsh` prints, read without guessing. The standard library only: the gate imports this.

Sources: virsh(1); the numbers of states, reasons, job types and operations are those of libvirt's public
header libvirt-domain.h, which never change their meaning. Seen with libvirt 9.0.0. Rules of this file:

* One call of virsh answers a whole question: it runs several commands, `echo` sets marks between them, and
  the last mark proves that the answer is whole. virsh goes on after a command that failed, so an error is
  read in the section in which it stands.
* "Absent" is evidence: only from a whole answer whose lists agree. "Stopped" is only a domain that libvirt
  lists as inactive: the target of a migration that is just starting shows "shut off" too, and is active.
* A domain whose migration could not be asked about is `UNKNOWN`: on its source it looks plainly running.
* Keys that are not known are skipped; numbers that are not known make that one guest `UNKNOWN`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from standfast.core.evidence import GuestState, HostAnswer
from standfast.core.jobs import MigrationJob, NotUnderstood
from standfast.core.names import is_domain_name

LOCAL_URI = "qemu:///system"
"""The host's own libvirt, for a program that runs there."""
_MARK = "standfast:"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME_ROW = re.compile(rf"({_UUID.pattern}) (.+)")
_STATS_ROW = re.compile(r"Domain: '(.+)'")
_JOB_TYPE = re.compile(r"Job type: (\d+)")

_RUNNING, _BLOCKED, _PAUSED, _SHUTTING_DOWN, _SHUT_OFF, _CRASHED, _SLEEPING = range(1, 8)
_STATE_WORDS = {
    0: "no state",
    _RUNNING: "running",
    _BLOCKED: "idle",
    _PAUSED: "paused",
    _SHUTTING_DOWN: "in shutdown",
    _SHUT_OFF: "shut off",
    _CRASHED: "crashed",
    _SLEEPING: "pmsuspended",
}
_REASON_WORDS = {
    _RUNNING: (
        "unknown",
        "booted",
        "migrated",
        "restored",
        "from snapshot",
        "unpaused",
        "migration canceled",
        "save canceled",
        "event wakeup",
        "crashed",
        "post-copy",
        "post-copy failed",
    ),
    _PAUSED: (
        "unknown",
        "user",
        "migrating",
        "saving",
        "dumping",
        "I/O error",
        "watchdog",
        "from snapshot",
        "shutting down",
        "creating snapshot",
        "crashed",
        "starting up",
        "post-copy",
        "post-copy failed",
        "api error",
    ),
    _SHUT_OFF: (
        "unknown",
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "saved",
        "failed",
        "from snapshot",
        "daemon",
    ),
    _CRASHED: ("unknown", "panicked"),
}
_RUNNING_BY_REASON = {10: GuestState.INCOMING, 11: GuestState.ERROR}
_PAUSED_BY_REASON = {
    # Of a migration that nobody reports any more: this copy is neither alive nor gone.
    2: GuestState.ERROR,
    10: GuestState.CRASHED,
    12: GuestState.MIGRATING_OUT,
    13: GuestState.ERROR,
}
_PLAIN_PAUSES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 9, 11, 14})
_INCOMING_OPERATION, _OUTGOING_OPERATION = 4, 5
_JOB_NONE, _JOB_COMPLETED, _JOB_FAILED, _JOB_CANCELLED = 0, 3, 4, 5


class Direction(Enum):
    """What a domain's job was found to be."""

    NONE = "none"  # no migration; a job of another kind may run
    OUT = "out"
    IN = "in"
    UNKNOWN = "unknown"  # not asked, or the answer could not be placed


@dataclass(frozen=True)
class Domain:
    """One domain of a host. `state` and `reason` as libvirt numbers them; None: its lists do not agree."""

    name: str
    identity: str
    state: int | None
    reason: int | None
    active: bool
    persistent: bool
    direction: Direction = Direction.UNKNOWN
    job: MigrationJob | None = None

    @property
    def guest_state(self) -> GuestState:
        """The domain as evidence."""
        if self.state is None or self.reason is None:
            return GuestState.UNKNOWN
        if not self.active:
            return GuestState.STOPPED if self.state == _SHUT_OFF else GuestState.UNKNOWN
        if self.direction is Direction.UNKNOWN:
            return GuestState.UNKNOWN
        if self.state == _CRASHED:
            return GuestState.CRASHED
        if self.direction is not Direction.NONE:
            out = self.direction is Direction.OUT
            return GuestState.MIGRATING_OUT if out else GuestState.INCOMING
        if self.state == _RUNNING:
            return _RUNNING_BY_REASON.get(self.reason, GuestState.RUNNING)
        if self.state == _PAUSED:
            plain = GuestState.PAUSED if self.reason in _PLAIN_PAUSES else GuestState.UNKNOWN
            return _PAUSED_BY_REASON.get(self.reason, plain)
        return _OTHER_STATES.get(self.state, GuestState.UNKNOWN)

    @property
    def shown(self) -> str:
        """State and reason in virsh's words, for people."""
        if self.state is None or self.reason is None:
            return "its lists do not agree: it changed while it was asked"
        words = _REASON_WORDS.get(self.state, ())
        reason = words[self.reason] if self.reason < len(words) else str(self.reason)
        shown = f"{_STATE_WORDS.get(self.state, str(self.state))} ({reason})"
        if not self.persistent:
            shown += ", transient"
        return shown + {Direction.OUT: ", being sent", Direction.IN: ", arriving"}.get(self.direction, "")


_OTHER_STATES = {
    _BLOCKED: GuestState.RUNNING,
    _SHUTTING_DOWN: GuestState.RUNNING,
    _SLEEPING: GuestState.PAUSED,
}


def is_identity(text: str) -> bool:
    """Whether this is a UUID as libvirt prints it."""
    return _UUID.fullmatch(text) is not None


# -- what is typed ---------------------------------------------------------------------------------------


def command_line(
    uri: str,
    words: Sequence[str],
    *,
    program: str = "virsh",
    change: bool = False,
    limit_seconds: float | None = None,
) -> str:
    """One call of virsh for a shell (sh), errors with its output. Only a change asks for write access.

    With a limit the call ends itself a little after it: a session that is given up leaves nothing behind on
    the host, and no order that takes effect much later.
    """
    # In the foreground: in the caller's process group, so that what ends that ends this too.
    ended = ["timeout", "--foreground", "-k", "1"]
    ended = [] if limit_seconds is None else [*ended, str(math.ceil(limit_seconds) + 1)]
    access = [] if change else ["--readonly"]
    argv = ["env", "LC_ALL=C", *ended, program, "--quiet", *access, "--connect", uri, *words]
    return f"{shlex.join(argv)} 2>&1"


def question(guests: Iterable[str]) -> str:
    """The commands that tell all domains of a host, and the jobs of these guests, for one call of virsh.

    Raises ValueError for a name that cannot be a word of a command.
    """
    asked = list(dict.fromkeys(guests))
    for guest in asked:
        if not is_domain_name(guest):
            raise ValueError(f"{guest!r} cannot be the name of a domain")
    # The jobs first: read after the state, "paused for a migration" and "no job" would follow each other at
    # every plain end of a migration.
    parts = []
    for guest in asked:
        parts += [_mark(f"job {guest}"), f"domjobinfo --rawstats {guest}"]
    parts += [
        _mark("names"),
        "list --all --uuid --name",
        _mark("states"),
        "domstats --raw --state",
        _mark("inactive"),
        "list --inactive --uuid",
        _mark("persistent"),
        "list --all --persistent --uuid",
    ]
    return "; ".join([*parts, _mark("end")])


def _mark(name: str) -> str:
    # virsh's echo ends no line by itself.
    return f"echo '{_MARK}{name}\n'"


# -- what is read ----------------------------------------------------------------------------------------


def parse_answer(text: str) -> tuple[Domain, ...]:
    """Read the whole answer to `question`. Raises NotUnderstood if it is not whole."""
    sections = _sections(text)
    try:
        names = _names(sections["names"])
        states = _states(sections["states"])
        inactive = _identities(sections["inactive"], "list --inactive")
        persistent = _identities(sections["persistent"], "list --persistent")
    except KeyError as missing:
        raise NotUnderstood(f"virsh: its answer has no part {missing.args[0]!r}") from None
    jobs = {name.removeprefix("job "): rows for name, rows in sections.items() if name.startswith("job ")}
    found = []
    for name in dict.fromkeys((*names, *states)):
        identity = names.get(name, "")
        state, reason = states.get(name, (None, None)) if identity else (None, None)
        direction, job = _job(name, jobs[name]) if name in jobs else (Direction.UNKNOWN, None)
        active = identity not in inactive
        found.append(Domain(name, identity, state, reason, active, identity in persistent, direction, job))
    return tuple(found)


def answers(host: str, domains: Sequence[Domain]) -> tuple[HostAnswer, ...]:
    """One answer for each domain."""
    return tuple(_answer(host, domain) for domain in domains)


def answer_for(host: str, guest: str, domains: Sequence[Domain]) -> HostAnswer:
    """What this host says about one guest; ABSENT if it is in none of its lists."""
    domain = find(guest, domains)
    return _answer(host, domain) if domain else HostAnswer(host, guest, GuestState.ABSENT)


def find(guest: str, domains: Sequence[Domain]) -> Domain | None:
    """The domain of this name."""
    return next((domain for domain in domains if domain.name == guest), None)


def _answer(host: str, domain: Domain) -> HostAnswer:
    moving = domain.direction in (Direction.OUT, Direction.IN)
    return HostAnswer(host, domain.name, domain.guest_state, domain.shown, domain.identity, moving)


def _sections(text: str) -> dict[str, list[str]]:
    """Mark -> the lines after it. Raises NotUnderstood unless the last mark is the last line."""
    found: dict[str, list[str]] = {}
    rows: list[str] = []
    name = ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(_MARK):
            name = line.removeprefix(_MARK)
            if name in found:
                raise NotUnderstood(f"virsh: the part {name!r} came twice")
            rows = found[name] = []
        else:
            if line.startswith("error: ") and not name.startswith("job "):
                raise NotUnderstood(f"virsh: {trouble(text)}")
            rows.append(line)
    if not lines or lines[-1] != f"{_MARK}end" or not text.endswith("\n"):
        raise NotUnderstood(f"virsh: {trouble(text) or 'its answer is cut off'}")
    return found


def trouble(text: str) -> str:
    """The reason in an answer that has errors: the last one, which is the cause; empty: there is none."""
    told = [line.strip().removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]
    return told[-1] if told else ""


def _names(rows: list[str]) -> dict[str, str]:
    """Name -> UUID."""
    found: dict[str, str] = {}
    for row in rows:
        match = _NAME_ROW.fullmatch(row)
        if match is None:
            raise NotUnderstood(f"virsh list: {_shortened(row)}")
        name = match[match.lastindex or 0]
        if name in found or match[1] in found.values():
            raise NotUnderstood(f"virsh list: {name} is listed twice")
        found[name] = match[1]
    return found


def _states(rows: list[str]) -> dict[str, tuple[int | None, int | None]]:
    """Name -> state and reason."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for row in rows:
        match = _STATS_ROW.fullmatch(row)
        if match is not None:
            if match[1] in found:
                raise NotUnderstood(f"virsh domstats: {match[1]} is listed twice")
            current = found[match[1]] = {}
            continue
        key, equals, value = row.strip().partition("=")
        if current is None or not equals:
            raise NotUnderstood(f"virsh domstats: {_shortened(row)}")
        current[key] = value
    return {
        name: (number(fields.get("state.state")), number(fields.get("state.reason")))
        for name, fields in found.items()
    }


def _identities(rows: list[str], what: str) -> frozenset[str]:
    for row in rows:
        if not is_identity(row):
            raise NotUnderstood(f"virsh {what}: {_shortened(row)}")
    return frozenset(rows)


def _job(guest: str, rows: list[str]) -> tuple[Direction, MigrationJob | None]:
    text = "\n".join(rows)
    if any(row.startswith("error: ") for row in rows):
        return _job_refusal(text), None
    try:
        return parse_job(guest, text)
    except NotUnderstood:
        return Direction.UNKNOWN, None


def _job_refusal(text: str) -> Direction:
    """What the error of `domjobinfo` proves.

    libvirt has no figures for an incoming migration (qemu_driver.c, 9.0: "migration statistics are
    available only on the source host"); a driver without jobs has no migration.
    """
    if "only on the source host" in text:
        return Direction.IN
    if "not supported by the connection driver" in text:
        return Direction.NONE
    return Direction.UNKNOWN


def parse_job(guest: str, text: str) -> tuple[Direction, MigrationJob | None]:
    """Read `domjobinfo --rawstats`, of a running job or of a completed one. Raises NotUnderstood."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kind = _JOB_TYPE.fullmatch(lines[0]) if lines else None
    if kind is None:
        raise NotUnderstood(f"virsh domjobinfo: {trouble(text) or _shortened(text)}")
    pairs = (line.partition(":") for line in lines[1:])
    fields = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    if int(kind[1]) == _JOB_NONE:
        return Direction.NONE, None
    operation = number(fields.get("operation"))
    if operation is None:
        raise NotUnderstood("virsh domjobinfo: it does not say which operation it is")
    if operation not in (_INCOMING_OPERATION, _OUTGOING_OPERATION):
        return Direction.NONE, None
    job = _migration(guest, int(kind[1]), operation == _OUTGOING_OPERATION, fields)
    if job.failed:
        return Direction.NONE, job
    return (Direction.OUT if job.outgoing else Direction.IN), job


def _migration(guest: str, kind: int, outgoing: bool, fields: Mapping[str, str]) -> MigrationJob:
    total, remaining = number(fields.get("memory_total")), number(fields.get("memory_remaining"))
    done = kind == _JOB_COMPLETED
    percent = 100 if done else None
    if not done and total and remaining is not None:
        percent = max(0, min(99, (total - remaining) * 100 // total))
    return MigrationJob(
        guest=guest,
        progress_percent=percent,
        failed=kind in (_JOB_FAILED, _JOB_CANCELLED),
        peer="",
        outgoing=outgoing,
        copied_bytes=number(fields.get("memory_processed")),
        remaining_bytes=remaining,
        total_bytes=total,
        rate_bytes_per_second=number(fields.get("memory_bps")),
        iteration=number(fields.get("memory_iteration")),
        elapsed_ms=number(fields.get("time_elapsed")),
        downtime_ms=number(fields.get("downtime")),
        done=done,
    )


def number(text: str | None) -> int | None:
    """A whole number, or None."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _shortened(text: str) -> str:
    return repr(" ".join(text.split())[:80])
