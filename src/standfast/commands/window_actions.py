"""What ``standfast window`` does beside opening and closing: find the guest, lengthen the lease, repair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from standfast.commands import window_run
from standfast.commands.window_run import EXIT_DONE, Screen
from standfast.core.messages import Message, Refused

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

    from standfast.core.record import Record
    from standfast.core.steps import NodeAim, Snapshot
    from standfast.survey import Survey

PROGRAM = "standfast window"

Change = Callable[["Record"], "Record"]

_NO_WINDOW = Message("NO_WINDOW", "no window is open", next_command="standfast window open GUEST")


async def place(guest: str, host: str) -> tuple[str, str]:
    """The guest that a window is to be closed for, and where it is, as far as the operator has not said it.

    Raises Refused.
    """
    if guest and host:
        return guest, host
    window_run.require_root(PROGRAM)
    loaded = window_run.load_config()
    async with window_run.looking(loaded, await window_run.own_node()) as survey:
        snapshot, _ = await window_run.look(survey)
        return await _placed(snapshot, survey, guest, host)


async def _placed(snapshot: Snapshot, survey: Survey, guest: str, host: str) -> tuple[str, str]:
    from standfast.core import by_kind

    found = snapshot.record
    if not guest:
        mover = found.mover if found is not None and found.open else ""
        if mover not in snapshot.aims:
            text = "no window is open" if found is None or not found.open else "the window is for every node"
            listing = by_kind.listing(snapshot.hosts)
            raise Refused(Message("NO_GUEST", f"{text}: name the guest", next_command=listing))
        guest = snapshot.aims[mover].guest
    if host:
        return guest, host
    from standfast.core.gate import plainly_on

    answers = (await survey.ask([guest])).get(guest, ())
    where = plainly_on(answers)
    if not where:
        shown = ", ".join(str(answer) for answer in answers) or "no host answered"
        text = f"the hosts do not plainly show where {guest} is ({shown})"
        hint = f"standfast window close {guest} --to HOST"
        raise Refused(Message("NO_PLACE", text, next_command=hint))
    return guest, where


async def extend(screen: Screen, minutes: int) -> int:
    """Lengthen the lease."""

    def longer(found: Record) -> Record:
        return found.next(lease_seconds=found.lease_seconds + 60 * minutes)

    async with window_run.driving(PROGRAM):
        record = await _change(longer)
    text = f"the lease is {record.lease_seconds // 60} min now, from the beginning of the window"
    return screen.end(EXIT_DONE, text, lease_seconds=record.lease_seconds)


async def _silent(survey: Survey, guest: str, host: str) -> None:
    """Ask all hosts for the guest. Raises Refused where `host` answers."""
    from standfast.core.evidence import GuestState

    answers = (await survey.ask([guest])).get(guest, ())
    told = [answer for answer in answers if answer.host == host]
    if not told or told[0].state is not GuestState.SILENT:
        text = f"{host} answers ({', '.join(map(str, told))}): what it says is believed, not what you say"
        raise Refused(Message("HOST_ANSWERS", text, host=host, next_command="standfast window status"))


async def confirm_dead(screen: Screen, guest: str, host: str, reason: str) -> int:
    """Note a person's word that a silent host is dead."""
    from standfast.core import confirmed

    loaded = window_run.load_config()
    name = window_run.host_name(loaded.config, host)

    async with window_run.driving(PROGRAM) as (_, survey):
        snapshot, _ = await window_run.look(survey)
        nodes = [aim.node for aim in snapshot.aims.values() if aim.guest == guest]
        if snapshot.record is None or not snapshot.record.open:
            raise Refused(_NO_WINDOW)
        _refuse_other(snapshot.record, guest, nodes)
        await _silent(survey, guest, name)

        def asking(found: Record) -> Record:
            _refuse_other(found, guest, nodes)
            return confirmed.asking(found, name)

        # Whoever hears that host from now on takes this note out again, and then the word is not written:
        # it might land much later, when the host has been back and is silent once more.
        noted = (await _change(asking)).confirmed_at[name]
        await _silent(survey, guest, name)

        def dead(found: Record) -> Record:
            _refuse_other(found, guest, nodes)
            if confirmed.asked(found).get(name) != noted:
                text = f"{name} was heard since it was asked, or somebody else has spoken of it"
                hint = "standfast window status; if it is dead: the same again"
                raise Refused(Message("MOVED_ON", text, host=name, next_command=hint))
            return confirmed.said(found, name, reason)

        record = await _change(dead)
    return screen.end(EXIT_DONE, f"{name} counts as dead in this window", confirmed=dict(record.confirmed))


def _refuse_other(found: Record, guest: str, nodes: list[str]) -> None:
    from standfast.core.record import Mode

    if found.mode is not Mode.GUARDED or found.mover not in nodes or found.proven:
        text = f"there is no guarded window of {guest}: only there a host's silence holds a kill"
        raise Refused(Message("NOT_GUARDED", text, next_command="standfast window status"))


async def repair(screen: Screen, only: str = "", lease_minutes: int | None = None) -> int:
    """Where no window is open: re-aim and prove every guest that is not plainly where its agents aim.

    `only`: the guest to look at; empty: all.
    """
    from standfast.core.evidence import off_on
    from standfast.core.gate import plainly_on
    from standfast.core.steps import CloseGoal, Stop
    from standfast.execute import Executor
    from standfast.sightings import Sightings

    seen_here = Sightings()
    async with window_run.driving(PROGRAM) as (config, survey):
        snapshot, _ = await window_run.look(survey)
        record = snapshot.record
        if record is not None and record.open:
            text = f"a window is {record.phase.value}: nothing is repaired beside it"
            raise Refused(Message("WINDOW_OPEN", text, next_command="standfast window close"))
        wanted = _wanted(snapshot, only)
        answers = await survey.ask([aim.guest for aim in wanted])
        places = {aim.guest: plainly_on(answers.get(aim.guest, ())) for aim in wanted}
        off = {
            aim.guest: where
            for aim in wanted
            if aim.node not in snapshot.members
            and (where := off_on(answers.get(aim.guest, ())))
            and not snapshot.hosts[where].saves
            and not seen_here.is_unlisted(aim.node)
        }
        places.update(off)
        repaired = []
        for aim in wanted:
            where = places[aim.guest]
            if not where or (aim.host == where and aim.node not in snapshot.guarded):
                continue
            screen.say(f"{aim.guest} is {'off, ' if aim.guest in off else ''}on {where}")
            seen, _ = await window_run.look(survey)
            epoch = seen.record.epoch if seen.record is not None else 0
            lease = 60 * (lease_minutes or config.lease_minutes)
            goal = CloseGoal(
                aim.node,
                aim.guest,
                where,
                lease_seconds=lease,
                since_epoch=epoch,
                off=aim.guest in off,
            )
            outcome = await Executor(survey, goal, screen.say).run()
            if isinstance(outcome, Stop):
                return window_run.stopped(outcome, screen)
            if aim.guest in off:
                screen.say(outcome.reason)
            repaired.append(aim.guest)
    alone = sorted(guest for guest, where in places.items() if not where)
    text = f"repaired: {', '.join(repaired)}" if repaired else "nothing was to be repaired"
    if alone:
        text += f"; not plainly in one place, left alone: {', '.join(alone)}"
    return screen.end(EXIT_DONE, text, repaired=repaired, left_alone=alone)


def _wanted(snapshot: Snapshot, only: str) -> list[NodeAim]:
    """Whose aim is to be looked at. Raises Refused."""
    from standfast.core import by_kind

    found = [aim for aim in snapshot.aims.values() if only in ("", aim.guest)]
    if only and not found:
        known = ", ".join(sorted(aim.guest for aim in snapshot.aims.values())) or "none"
        text = f"no cluster node is registered for guest domain {only!r} (known: {known})"
        raise Refused(Message("UNKNOWN_GUEST", text, next_command=by_kind.listing(snapshot.hosts)))
    return found


async def _change(change: Change) -> Record:
    """Change the record of an open window. Raises Refused."""

    def decide(found: Record, _: ET.Element) -> Record:
        if not found.open:
            raise Refused(_NO_WINDOW)
        return change(found)

    return await changed(decide, _NO_WINDOW, "standfast window status")


async def changed(decide: Callable[[Record, ET.Element], Record], missing: Message, look: str) -> Record:
    """The record after a change (`cluster.record_change`). `missing`: what to say where there is no record;
    `look`: what to type where it is not known or failed. Raises Refused."""
    from standfast.cluster import cib, record_change
    from standfast.cluster.run import EngineError
    from standfast.core.record import RecordError

    try:
        return await asyncio.to_thread(record_change.change, decide)
    except record_change.NoRecordError:
        raise Refused(missing) from None
    except record_change.ContendedError as error:
        raise Refused(Message("CONTENDED", str(error), next_command="the same again")) from None
    except cib.CibUnknown as error:
        text = f"it is not known whether this was written: {error}"
        raise Refused(Message("STALLED", text, next_command=look)) from None
    except (EngineError, RecordError) as error:
        raise Refused(Message("ENGINE", str(error), next_command=look)) from None
