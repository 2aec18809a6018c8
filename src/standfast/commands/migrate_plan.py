"""The preflight of ``standfast migrate``: looks, changes nothing, and refuses all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from standfast.commands import secret_store, window_run
from standfast.commands.migrate import Order
from standfast.commands.migrate_show import PROGRAM
from standfast.commands.migrate_text import size
from standfast.config import Config
from standfast.core import by_kind, fields, holding, members, migration_before
from standfast.core.messages import Message, Refused
from standfast.core.migration import Move
from standfast.core.steps import OpenGoal, Snapshot, Stop
from standfast.execute import Executor
from standfast.hosts.base import (
    HostBug,
    HostError,
    HostUnreachable,
    MigrationTarget,
    MovedByHand,
    PacesMigration,
)
from standfast.survey import Survey

CHECK_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """What is to be done, after nothing spoke against it."""

    move: Move
    goal: OpenGoal
    target: MigrationTarget
    memory_bytes: int | None
    predicted_seconds: int | None
    snapshot: Snapshot
    raise_seconds: int | None = None
    """Of a raise just in time: what was asked for; None: auto."""

    @property
    def limit_seconds(self) -> int:
        """How long the migration may take."""
        return migration_before.limit_seconds(self.goal.lease_seconds)

    def lines(self, *, cold: bool) -> Iterator[str]:
        """What would be done, a line for each part."""
        from standfast.commands import migration_plan

        move = self.move
        if cold:
            yield f"{move.guest} is stopped on {move.source}; {move.target} can take it"
            yield f"move its definition to {move.target}, without a window"
            return
        known = "" if self.memory_bytes is None else f", {size(self.memory_bytes)} of memory"
        yield f"{move.guest} ({move.node}) runs on {move.source}{known}; {move.target} can take it"
        if self.predicted_seconds is not None:
            yield f"it may take up to {-(-self.predicted_seconds // 60)} min"
        yield from migration_plan.lines(self.goal, self.snapshot)
        if self.target.postcopy:
            yield f"post-copy: if {move.source} or the network dies in the second phase, {move.guest} is lost"
        if self.goal.just_in_time:
            to = "by the prediction" if self.raise_seconds is None else f"to {self.raise_seconds} s"
            yield f"hold the switch-over and raise the heartbeat timeout {to}, until the guest runs on"
        most = f"{self.limit_seconds // 60} min at most"
        yield f"migrate {move.guest} from {move.source} to {move.target}, {most}"
        yield f"close the window, with fencing proven at {move.target}"

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "guest": self.move.guest, "node": self.move.node, "source": self.move.source,
            "target": self.move.target, "mode": self.goal.mode.value, "memory_bytes": self.memory_bytes,
            "budget_seconds": self.goal.budget_seconds, "lease_seconds": self.goal.lease_seconds,
            "postcopy": self.target.postcopy, "just_in_time": self.goal.just_in_time,
            "raise_seconds": self.raise_seconds,
            "predicted_seconds": self.predicted_seconds, "limit_seconds": self.limit_seconds,
        }  # fmt: skip


async def prepared(order: Order, config: Config, survey: Survey) -> Plan:
    """The whole preflight. Raises Refused with everything that speaks against it."""
    goal = await window_run.goal_of(_wish(order), config, survey, PROGRAM)
    assert isinstance(goal, OpenGoal)
    executor = Executor(survey, goal)
    decision, snapshot = await executor.plan()
    aim = snapshot.aims[goal.mover]
    move = Move(order.guest, goal.mover, aim.host, goal.target, snapshot.hosts)
    _refuse(*migration_before.who_and_where(snapshot, move))
    places = await survey.ask([one.guest for one in snapshot.aims.values()])
    move = replace(move, source=migration_before.source_of(places.get(move.guest, ()), aim.host))
    _refuse(*migration_before.who_and_where(snapshot, move))
    found = list(decision.messages) if isinstance(decision, Stop) and not order.cold else []
    found += migration_before.others(snapshot, move, places, forced=order.force)
    if goal.just_in_time:
        found += _paced(order, survey, move, snapshot)
    target, memory = target_of(order, config, move), None
    answers = places.get(move.guest, ())
    if (wrong := migration_before.placed(move, answers, cold=order.cold)) is not None:
        found.append(wrong)
    else:
        memory = await memory_bytes(survey, move)
        found += await _tried(survey, move, target)
    _refuse(*found)
    predicted = migration_before.predicted_seconds(memory)
    lease = migration_before.lease_seconds(order.lease_minutes, predicted, config.lease_minutes)
    asked = order.budget if goal.just_in_time and isinstance(order.budget, int) else None
    return Plan(move, replace(goal, lease_seconds=lease), target, memory, predicted, snapshot, asked)


def _paced(order: Order, survey: Survey, move: Move, snapshot: Snapshot) -> list[Message]:
    """What forbids a raise just in time: a host that cannot hold the copy, or a budget that is no raise."""
    again = f"standfast migrate {move.guest} --to {move.target} --budget SECONDS, for the whole window"
    if not isinstance(survey.hosts[move.source], PacesMigration):
        kind = by_kind.kind(move.hosts, move.source)
        text = f"{move.source} is of kind {kind}: the switch-over of a guest cannot be held there"
        return [Message("NOT_JUST_IN_TIME", text, host=move.source, next_command=again)]
    if isinstance(order.budget, int):
        wrong = holding.budget(order.budget, None, members.longest_timeout_seconds(snapshot.reports))
        return [wrong] if isinstance(wrong, Message) else []
    return []


def _wish(order: Order) -> window_run.Wish:
    return window_run.Wish(
        prepare=True,
        operands=(order.guest,),
        dry_run=order.dry_run,
        budget_seconds=order.budget if isinstance(order.budget, int) and not order.just_in_time else None,
        lease_minutes=order.lease_minutes,
        skip_save=(),
        saved=(),
        reason=order.reason or PROGRAM,
        guarded=order.mode == "guarded",
        to=order.to,
        raise_if_needed=order.budget == "auto" and not order.just_in_time,
        just_in_time=order.just_in_time,
        hold_alone=order.budget == "none",
    )


def _refuse(*messages: Message) -> None:
    if messages:
        raise Refused(*messages)


def target_of(order: Order, config: Config, move: Move) -> MigrationTarget:
    """Where to, as the source host knows it. Raises Refused."""
    entry = config.find_host(move.target)
    if order.postcopy and entry.kind != "libvirt":
        text = f"{move.target} is of kind {entry.kind}: it knows no post-copy"
        raise Refused(
            Message("NO_POSTCOPY", text, host=move.target, next_command="the same without --postcopy")
        )
    if entry.kind == "libvirt":
        if order.password_file:
            text = f"{move.target} is of kind libvirt: the hosts log in to each other by keys or certificates"
            raise Refused(Message("NO_PASSWORD", text, host=move.target,
                                  next_command="the same without --target-password-file"))  # fmt: skip
        remote = entry.uri if fields.is_remote(entry.uri) else ""
        return MigrationTarget(entry.address, user=entry.login or None, uri=remote, postcopy=order.postcopy)
    if not order.password_file:
        return MigrationTarget(entry.address)
    password = secret_store.from_file(order.password_file)
    return MigrationTarget(entry.address, order.target_user or entry.login or None, password)


async def memory_bytes(survey: Survey, move: Move) -> int | None:
    """What the source tells of the guest's memory; None: not known, which no prediction minds."""
    with contextlib.suppress(HostError):
        return await survey.hosts[move.source].memory_bytes(move.guest)
    return None


async def _tried(survey: Survey, move: Move, target: MigrationTarget) -> list[Message]:
    """The dry run at the source host."""
    try:
        await survey.hosts[move.source].check_migration(move.guest, target, CHECK_LIMIT_SECONDS)
    except HostError as error:
        return [not_possible(move, error)]
    return []


def not_possible(move: Move, error: HostError) -> Message:
    """Why a host would not migrate."""
    if isinstance(error, MovedByHand):
        return Message("MOVED_BY_HAND", str(error), host=error.host, next_command=error.to_do)
    if isinstance(error, HostUnreachable):
        text = f"{error.host} does not answer: {error.what}"
        return Message("HOST_SILENT", text, host=error.host, next_command=f"see the way to {error.host}")
    text = f"{move.guest} cannot be migrated from {move.source} to {move.target}: {error.what}"
    hint = f"mend that on {move.source} or {move.target}, or choose another host"
    if isinstance(error, HostBug):
        hint = f"see the entry of {error.host} in clovmmigrate.conf"
    return Message("MIGRATION_REFUSED", text, node=move.node, host=error.host, next_command=hint)
