"""Opens or closes a window for a person: what clovmmigrate and ``standfast window`` share.

Exit status: 0 done, 1 refused or guest stopped, 2 usage, 3 not finished (a window is still open; the next
command is printed).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from standfast.commands.daemon_client import DaemonError
from standfast.core import names
from standfast.core.messages import Message, Refused, Severity

if TYPE_CHECKING:
    from standfast.config import Config, Loaded
    from standfast.core.steps import CloseGoal, OpenGoal, Stop
    from standfast.hosts.base import Host

EXIT_DONE, EXIT_REFUSED, EXIT_USAGE, EXIT_UNFINISHED = 0, 1, 2, 3
NOT_FINISHED = "not finished: a window is still open"
ANNOUNCE_AGAIN_SECONDS = 1.0
"""To a daemon that is started anew; less than after what others take its command for ended
(`raising.UNCOMMANDED_SECONDS`)."""
DAEMON_LIMIT_SECONDS = 5.0
LEASE_NOTE = (
    "close it, also if the migration is cancelled or fails, with: clovmmigrate -u source-ldom target-host"
)


@dataclass
class Screen:
    """What the operator sees: progress on standard error, the outcome (or one JSON object) on output."""

    as_json: bool = False
    program: str = "clovmmigrate"
    steps: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    seconds: float = 0.0
    """How long the steps took, without the start of the program."""

    def say(self, line: str) -> None:
        self.steps.append(line)
        if not self.as_json:
            click.echo(f"  {line}", err=True)

    def tell(self, message: Message) -> None:
        self.messages.append(message)
        if not self.as_json:
            kind = "warning: " if message.severity is Severity.WARNING else f"{self.program}: "
            click.echo(f"{kind}{message}", err=True)

    def end(self, code: int, text: str, **more: object) -> int:
        if self.as_json:
            shown = [
                {"code": m.code, "severity": m.severity.value, "text": m.text, "node": m.node, "host": m.host,
                 "next": m.next_command}
                for m in self.messages
            ]  # fmt: skip
            click.echo(
                json.dumps(
                    {
                        "exit": code,
                        "text": text,
                        "messages": shown,
                        "steps": self.steps,
                        "seconds": round(self.seconds, 3),
                        **more,
                    }
                )
            )
        elif text:
            click.echo(text)
        return code


@dataclass(frozen=True)
class Wish:
    """The command line, parsed."""

    prepare: bool
    operands: tuple[str, ...]
    dry_run: bool
    budget_seconds: int | None
    lease_minutes: int | None
    skip_save: tuple[str, ...]
    saved: tuple[str, ...]
    reason: str
    guarded: bool = False
    to: str = ""
    """Control domain that the guest is to move to, if the operator says so when opening."""
    raise_if_needed: bool = False
    """Guarded: raise the timeout to the file's value if a resource needs the membership unbroken."""
    ignore_clocks: bool = False
    """Lower the heartbeat although clocks do not agree."""
    hold_alone: bool = False
    """Guarded: raise nothing, also where a resource needs it."""
    just_in_time: bool = False
    """Guarded: raise nothing yet; the command does it in mid-course."""


async def work(wish: Wish, screen: Screen) -> int:
    """Carry out the wish; its exit status. Raises Refused."""
    async with driving(screen.program) as (config, survey):
        return await _drive(wish, screen, config, survey)


@contextlib.asynccontextmanager
async def driving(program: str) -> AsyncIterator[tuple[Config, Survey]]:
    """Root, alone on this node, known to the daemon: then configuration and eyes. Raises Refused."""
    require_root(program)
    loaded = load_config()
    with _alone():
        node = await own_node()
        async with _announced(), looking(loaded, node) as survey:
            yield loaded.config, survey


@contextlib.asynccontextmanager
async def looking(loaded: Loaded, node: str) -> AsyncIterator[Survey]:
    """Eyes on the cluster and the hosts; changes nothing."""
    from standfast.survey import Survey

    config = loaded.config
    survey = Survey(
        node,
        config.hosts.hosts,
        lambda account: _hosts(config, account),
        loaded.fingerprint,
        config.clock_threshold_seconds,
        config.clock_step,
    )
    try:
        yield survey
    finally:
        await survey.close()


def require_root(program: str) -> None:
    """Raises Refused."""
    if os.geteuid() != 0:
        raise Refused(Message("NOT_ROOT", "this needs root", next_command=f"sudo {program} ..."))


async def _drive(wish: Wish, screen: Screen, config: Config, survey: Survey) -> int:
    from standfast.core.steps import Done, OpenGoal
    from standfast.execute import Executor

    goal = await goal_of(wish, config, survey, screen.program)
    executor = Executor(survey, goal, screen.say)
    if wish.dry_run:
        return await _plan(executor, goal, screen)
    if wish.ignore_clocks:
        _record_override(wish, survey.me, screen)
    began = time.monotonic()
    outcome = await executor.run()
    screen.seconds = time.monotonic() - began
    if not isinstance(outcome, Done):
        return stopped(outcome, screen)
    for warning in outcome.warnings:
        screen.tell(warning)
    if not isinstance(goal, OpenGoal) and outcome.changed:
        await tidy(goal, survey, screen.say)
    text = outcome.reason
    if isinstance(goal, OpenGoal) and not outcome.changed:
        text += f"\nIt was open already, {await _lease_left(survey)}; {LEASE_NOTE}"
        if wish.lease_minutes:
            text += f"\n--lease {wish.lease_minutes} is not applied: the lease goes on as it began"
    elif isinstance(goal, OpenGoal):
        text += (
            f"\nThe lease ends at {clock(goal.lease_seconds)} ({goal.lease_seconds // 60} min); {LEASE_NOTE}"
        )
    return screen.end(EXIT_DONE, text)


def _record_override(wish: Wish, node: str, screen: Screen) -> None:
    """Before anything is done: it stands in the journal also where the command dies."""
    from standfast.journal import Journal

    text = f"-u {' '.join(wish.operands)}: clocks are not waited for: {wish.reason}"
    if trouble := Journal().add("clocks", text, node=node):
        screen.say(f"not in the journal: {trouble}")
    screen.say(text)


async def tidy(goal: CloseGoal, survey: Survey, say: Callable[[str], None]) -> None:
    """The window is closed: the fencers need not remember that its gates held the node."""
    from standfast import refusals

    snapshot, _ = await look(survey)
    said = {node: refusals.told(report.answered) for node, report in snapshot.reports.items()}
    count = await asyncio.to_thread(refusals.forget, goal.node, goal.since_epoch, said)
    if count:
        say(f"{count} held fencings of {goal.node} are in the journal, and forgotten by the fencers")


async def _lease_left(survey: Survey) -> str:
    """When the lease of the window ends that is open, as this node counts it."""
    from standfast.sightings import Sightings

    snapshot, _ = await look(survey)
    record = snapshot.record
    if record is None or not record.open:
        return "and is closed by now"
    seen = await asyncio.to_thread(Sightings().see, record)
    left = round(record.lease_seconds - seen.window_seconds)
    return f"its lease ends at about {clock(left)}" if left > 0 else "its lease is over"


def stopped(outcome: Stop, screen: Screen) -> int:
    for message in outcome.messages:
        screen.tell(message)
    if outcome.unfinished:
        return screen.end(EXIT_UNFINISHED, not_finished(outcome))
    return screen.end(EXIT_REFUSED, "")


def not_finished(outcome: Stop) -> str:
    """The last line of a command that leaves a window."""
    return f"not finished: {outcome.left}" if outcome.left else NOT_FINISHED


async def goal_of(wish: Wish, config: Config, survey: Survey, program: str) -> OpenGoal | CloseGoal:
    from standfast.core import by_kind
    from standfast.core.record import Mode
    from standfast.core.steps import CloseGoal, OpenGoal
    from standfast.core.unbroken import needing_membership

    snapshot, tree = await look(survey)
    by_guest = {aim.guest: aim.node for aim in snapshot.aims.values()}
    lease_seconds = 60 * (wish.lease_minutes or config.lease_minutes)
    guest = wish.operands[0] if wish.operands else ""
    if guest and guest not in by_guest:
        known = ", ".join(sorted(by_guest)) or "none"
        text = f"no cluster node is registered for guest domain {guest!r} (known: {known})"
        raise Refused(Message("UNKNOWN_GUEST", text, next_command=by_kind.listing(snapshot.hosts)))
    if wish.prepare:
        raised = not wish.guarded or (wish.raise_if_needed and needing_membership(tree))
        default = config.budget_seconds if raised else 0
        return OpenGoal(
            by_guest.get(guest, ""),
            wish.budget_seconds or default,
            lease_seconds,
            config.maintenance_mode and not wish.guarded,
            wish.reason or ("clovmmigrate -p" if program == "clovmmigrate" else "standfast window open"),
            since_epoch=snapshot.record.epoch if snapshot.record else 0,
            mode=Mode.GUARDED if wish.guarded else Mode.FROZEN,
            target=host_name(config, wish.to) if wish.to else "",
            hold_alone=wish.hold_alone,
            just_in_time=wish.just_in_time,
        )
    return CloseGoal(
        node=by_guest[guest],
        guest=guest,
        target=host_name(config, wish.operands[1]),
        skip_save={host_name(config, name): wish.reason for name in wish.skip_save},
        saved_by_hand=frozenset(_without_login(config, name) for name in wish.saved),
        lease_seconds=lease_seconds,
        since_epoch=snapshot.record.epoch if snapshot.record else 0,
        ignore_clocks=wish.reason if wish.ignore_clocks else "",
    )


async def look(survey: Survey):  # type: ignore[no-untyped-def]  # the type is a lazily imported one
    from standfast.cluster.cib import CibError
    from standfast.cluster.run import EngineError

    try:
        return await survey.take(whole=False)
    except (EngineError, CibError) as error:
        text = f"the cluster is not running on this node: {error}"
        raise Refused(Message("NO_CLUSTER", text, next_command="crm_mon -1")) from None


def host_name(config: Config, given: str) -> str:
    from standfast.core.hostlist import HostLookupError

    try:
        return config.find_host(given).name
    except HostLookupError as error:
        raise Refused(Message("UNKNOWN_HOST", str(error), next_command=f"see {names.CONFIG_FILE}")) from None


def _without_login(config: Config, given: str) -> str:
    found = config.find_host(host_name(config, given))
    if found.kind != "ldm":
        text = f"{found.name} is of kind {found.kind}: there is no domain configuration to save"
        raise Refused(
            Message("NOTHING_TO_SAVE", text, host=found.name, next_command="the same without --saved")
        )
    if found.obeys:
        text = f"{found.name} has a login in clovmmigrate.conf: -u saves its configuration and verifies it"
        raise Refused(Message("HAS_LOGIN", text, host=found.name, next_command="the same without --saved"))
    return found.name


async def _plan(executor: Executor, goal: OpenGoal | CloseGoal, screen: Screen) -> int:
    from standfast.commands.migration_plan import lines
    from standfast.core.steps import Stop

    decision, snapshot = await executor.plan()
    if isinstance(decision, Stop):
        return stopped(decision, screen)
    for line in lines(goal, snapshot):
        screen.say(line)
    return screen.end(EXIT_DONE, "nothing was changed (dry run)")


def load_config() -> Loaded:
    from standfast import config

    try:
        return config.load()
    except config.ConfigError as error:
        raise Refused(
            *(
                Message("CONFIG", line, next_command=f"mend {names.CONFIG_FILE}")
                for line in str(error).splitlines()
            )
        ) from None


async def own_node() -> str:
    from standfast.cluster import ring
    from standfast.cluster.run import EngineError

    try:
        return (await asyncio.to_thread(ring.look)).own
    except EngineError as error:
        text = f"the cluster is not running on this node: {error}"
        raise Refused(
            Message("NO_CLUSTER", text, next_command="systemctl start corosync pacemaker")
        ) from None


def _hosts(config: Config, account: Mapping[str, str] | None) -> dict[str, Host]:
    from standfast.hosts import make

    return make.adapters(config.hosts, account)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One command at a time on a node; the kernel lets go of the lock however the command ends."""
    path = Path(names.COMMAND_LOCK_FILE)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(Message("BUSY", "another command drives the window on this node")) from None
        yield


@contextlib.asynccontextmanager
async def _announced():  # type: ignore[no-untyped-def]
    """Tell the daemon that a command is alive here, for as long as the connection stands; and a daemon that
    is started anew meanwhile, as soon as it answers."""
    try:
        link = await _announce()
    except (OSError, TimeoutError, ValueError, DaemonError) as error:
        text = f"standfastd does not answer on this node: {error or 'no answer in time'}"
        raise Refused(Message("NO_DAEMON", text, next_command="systemctl start standfastd")) from None
    staying = asyncio.create_task(_stay_announced(link))
    try:
        yield
    finally:
        staying.cancel()
        await asyncio.wait({staying})


Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _announce() -> Link:
    async with asyncio.timeout(DAEMON_LIMIT_SECONDS):
        reader, writer = await asyncio.open_unix_connection(names.SOCKET_FILE)
        try:
            writer.write(b'{"op":"command"}\n')
            line = await reader.readline()
            if not line or json.loads(line).get("ok") is not True:
                raise DaemonError("standfastd refused", "journalctl -u standfastd")
        except BaseException:
            writer.close()
            raise
    return reader, writer


async def _stay_announced(link: Link) -> None:
    """Until it is cancelled. The daemon says no more on this connection: it ends when the daemon does."""
    while True:
        reader, writer = link
        try:
            while await reader.read(1024):
                pass
        except OSError:
            pass
        finally:
            writer.close()
        while True:
            await asyncio.sleep(ANNOUNCE_AGAIN_SECONDS)
            with contextlib.suppress(OSError, TimeoutError, ValueError, DaemonError):
                link = await _announce()
                break


def clock(seconds: int) -> str:
    from datetime import datetime, timedelta

    return (datetime.now().astimezone() + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M")


if TYPE_CHECKING:
    from standfast.execute import Executor
    from standfast.survey import Survey
