"""``standfast verify``: have every agent prove itself from every node, now, and show what is proven.

Exit status: 0 all proven, 1 something is not, or refused, 2 usage.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from standfast.commands import window_actions, window_run
from standfast.commands.window_run import EXIT_DONE, EXIT_REFUSED, Screen
from standfast.core.messages import Message, Refused

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

    from standfast.core.record import Record
    from standfast.core.steps import Snapshot
    from standfast.core.verify import GuestRow
    from standfast.survey import Survey

PROGRAM = "standfast verify"
PROOF_LIMIT_SECONDS = 90.0
"""Four agents of each node, four at once, each within its own limit."""
POLL_SECONDS = 0.25
SETTLED_SECONDS = 20.0
"""More than the settling time after a window: an epoch that is so old settles nobody any more."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def verify(as_json: bool) -> None:
    """Prove the fencing of every node, from every node, now.

    Every node tests every agent once more, asks its running fencer with which parameters it would really act,
    and compares these with the configuration; all hosts are asked where each guest is. Nothing is changed but
    the number in the record of the window by which the nodes hear of it.

    Exit status 0: all is proven. 1: something is not, and the rows say what.
    """
    screen = Screen(as_json, PROGRAM)
    try:
        code = asyncio.run(_verify(screen, as_json=as_json))
    except Refused as refused:
        for message in refused.messages:
            screen.tell(message)
        code = screen.end(EXIT_REFUSED, "")
    except KeyboardInterrupt:
        code = screen.end(EXIT_REFUSED, "interrupted: nothing was proven, nothing was changed")
    sys.exit(code)


async def _verify(screen: Screen, *, as_json: bool) -> int:
    from standfast.core import verify as proven

    began = time.monotonic()
    async with window_run.driving(PROGRAM) as (config, survey):
        snapshot, _ = await window_run.look(survey)
        _refuse(snapshot)
        epoch = (await _ask_all()).epoch
        screen.say(f"{len(snapshot.members)} nodes test the agents of {len(snapshot.aims)} guests")
        guests = [aim.guest for aim in snapshot.aims.values()]
        places, snapshot = await asyncio.gather(survey.ask(guests), _tested(survey, epoch))
        machines = all(entry.kind == "libvirt" for entry in config.control_domain)
        rows = proven.rows(replace(snapshot, places=places), epoch, machines=machines)
    seconds = time.monotonic() - began
    done = all(row.proven for row in rows)
    if as_json:
        click.echo(json.dumps(_document(rows, done=done, seconds=seconds), indent=2))
    else:
        for line in _lines(rows):
            click.echo(line)
        click.echo(_summary(rows, seconds))
    return EXIT_DONE if done else EXIT_REFUSED


def _refuse(snapshot: Snapshot) -> None:
    from standfast.core import by_kind

    record = snapshot.record
    if record is None or not snapshot.aims:
        why = snapshot.record_error or "no node is registered"
        raise Refused(Message("NOT_REGISTERED", why, next_command=by_kind.listing(snapshot.hosts)))
    if record.open:
        text = f"a window is {record.phase.value}: closing it has every agent of its guest prove itself"
        raise Refused(Message("WINDOW_OPEN", text, next_command="standfast window close"))


async def _ask_all() -> Record:
    """Have every daemon test: the record's proof counts from its new epoch on. Raises Refused."""
    from standfast.sightings import Sightings

    def ask(found: Record, _: ET.Element) -> Record:
        if found.open:
            raise Refused(Message("WINDOW_OPEN", "a window has just opened", next_command="the same again"))
        # Whoever settles does so after the epoch: without need it is not begun anew.
        old = Sightings().see(found).epoch_seconds >= SETTLED_SECONDS
        settle = () if old else found.settle
        # What a window has saved says nothing of now.
        return found.next(prove=found.epoch + 1, mover="", saved={}, window=0, settle=settle)

    return await window_actions.changed(ask, Message("NOT_REGISTERED", "no node is registered"), "crm_mon -1")


async def _tested(survey: Survey, epoch: int) -> Snapshot:
    """The first snapshot in which every member has told how its tests ended; the last one at the limit."""
    from standfast.core.verify import complete

    deadline = time.monotonic() + PROOF_LIMIT_SECONDS
    while True:
        found: tuple[Snapshot, ET.Element] = await window_run.look(survey)
        if complete(found[0], epoch) or time.monotonic() > deadline:
            return found[0]
        await asyncio.sleep(POLL_SECONDS)


def _lines(rows: Sequence[GuestRow]) -> Iterator[str]:
    for row in rows:
        where = ", ".join(str(answer) for answer in row.places if answer.state.is_present) or "nowhere"
        yield f"{row.guest} (node {row.node}): {where}; aim: {row.aim or 'unknown'}"
        for code, text in row.troubles:
            yield f"  [{code}] {text}"
        members = sorted({cell.seen_from for cell in row.cells})
        devices = list(dict.fromkeys(cell.device for cell in row.cells))
        table = {(cell.device, cell.seen_from): cell for cell in row.cells}
        width = max((len(device) for device in devices), default=0)
        columns = [max(len(member), 8) for member in members]
        if members:
            head = "  ".join(f"{name:<{size}}" for name, size in zip(members, columns, strict=True))
            yield f"  {'from':<{width}}  {head}".rstrip()
        for device in devices:
            words = [
                f"{'proven' if table[device, member].proven else 'NOT':<{size}}"
                for member, size in zip(members, columns, strict=True)
            ]
            yield f"  {device:<{width}}  {'  '.join(words)}".rstrip()
        for cell in row.cells:
            if not cell.proven:
                yield f"  not proven: {cell.device} from {cell.seen_from}: {cell.why}"


def _summary(rows: Sequence[GuestRow], seconds: float) -> str:
    cells = [cell for row in rows for cell in row.cells]
    good = sum(cell.proven for cell in cells)
    wrong = sum(len(row.troubles) for row in rows)
    text = f"{good} of {len(cells)} proven, {len(rows)} guests, in {seconds:.1f} s"
    return text + (f"; {wrong} more things are wrong" if wrong else "")


def _document(rows: Sequence[GuestRow], *, done: bool, seconds: float) -> dict[str, object]:
    return {
        "ok": done,
        "seconds": round(seconds, 2),
        "guests": [
            {
                "guest": row.guest,
                "node": row.node,
                "aim": row.aim,
                "proven": row.proven,
                "identity": row.identity,
                "places": {answer.host: answer.state.value for answer in row.places},
                "troubles": [{"code": code, "text": text} for code, text in row.troubles],
                "agents": [
                    {"device": cell.device, "from": cell.seen_from, "proven": cell.proven, "why": cell.why}
                    for cell in row.cells
                ],
            }
            for row in rows
        ],
    }
