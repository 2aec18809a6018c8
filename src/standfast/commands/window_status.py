"""``standfast window status``: all that a program or a person needs to know, from one look."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from standfast.commands import window_run
from standfast.commands.daemon_client import DaemonError, ask
from standfast.commands.window_run import EXIT_DONE, EXIT_UNFINISHED, Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from standfast.core.evidence import HostAnswer
    from standfast.core.record import Record
    from standfast.core.steps import Snapshot
    from standfast.survey import Survey

POLL_SECONDS = 1.0
PROGRAM = "standfast window"


async def show(screen: Screen, wait_seconds: int | None) -> int:
    """Print it; with `wait_seconds`, once the window is closed or the time is over. Raises Refused."""
    window_run.require_root(PROGRAM)
    loaded = window_run.load_config()
    async with window_run.looking(loaded, await window_run.own_node()) as survey:
        deadline = time.monotonic() + (wait_seconds or 0)
        shown = ""
        while True:
            found = await facts(survey)
            if wait_seconds is None or not found["open"] or time.monotonic() >= deadline:
                break
            line = f"{found['phase']}, lease left {found['lease_left_seconds']} s"
            if line.partition(",")[0] != shown:
                screen.say(line)
                shown = line.partition(",")[0]
            await asyncio.sleep(POLL_SECONDS)
    code = EXIT_UNFINISHED if wait_seconds is not None and found["open"] else EXIT_DONE
    if screen.as_json:
        return screen.end(code, "", **found)
    for line in lines(found):
        click.echo(line)
    return code


async def facts(survey: Survey) -> dict[str, object]:
    """What is, as plain values."""
    from standfast.core import by_kind
    from standfast.sightings import Sightings

    snapshot, _ = await window_run.look(survey)
    record = snapshot.record
    if record is None:
        return {
            "open": False,
            "phase": "none",
            "text": snapshot.record_error or "no node's shutdown agents are registered",
            "next_command": by_kind.listing(snapshot.hosts),
        }
    aim = snapshot.aims.get(record.mover)
    guest = aim.guest if aim is not None else ""
    seen = await asyncio.to_thread(Sightings().see, record)
    answers = (await survey.ask([guest])).get(guest, ()) if guest and record.open else ()
    alive = await asyncio.to_thread(_alive, record, answers)
    away = sorted(set(record.old) - snapshot.members) if record.open else []
    alarms, moved = await _told()
    from standfast.core.record import Totem

    return {
        "open": record.open,
        "phase": record.phase.value,
        "mode": record.mode.value,
        "armed": record.armed.value,
        "proven": record.proven,
        "left": record.left,
        "epoch": record.epoch,
        "window": record.window,
        "mover": record.mover,
        "guest": guest,
        "source": record.source,
        "target": record.target,
        "reason": record.why,
        "budget_seconds": record.budget_seconds,
        "just_in_time": record.just_in_time,
        "raised": record.totem is Totem.RAISED,
        "open_for_seconds": round(seen.window_seconds) if record.open else 0,
        "lease_seconds": record.lease_seconds,
        "lease_left_seconds": round(record.lease_seconds - seen.window_seconds) if record.open else 0,
        "owner": record.owner,
        "command_alive_on": sorted(
            node for node in snapshot.members if (r := snapshot.reports.get(node)) and r.commanding
        ),
        "members": sorted(snapshot.members),
        "away": away,
        "places": {answer.host: answer.state.value for answer in answers},
        "saved": dict(record.saved),
        "confirmed_dead": {host: why for host, why in record.confirmed.items() if host not in alive},
        "confirmed_dead_overtaken": {**record.overtaken, **alive},
        "killing_gate_on": sorted(
            node for node in snapshot.members if (r := snapshot.reports.get(node)) and r.killing
        ),
        "fencing_changed": sorted(snapshot.guarded),
        "owed": sorted(record.owed),
        **_clocks(snapshot, record),
        "alarms": alarms,
        "unannounced": moved,
        "next_command": _next(snapshot, guest) or next((str(row["next_command"]) for row in moved), ""),
    }


def _clocks(snapshot: Snapshot, record: Record) -> dict[str, object]:
    """What the members say of one another's clocks."""
    from standfast.core import clock_gate

    told = {node: snapshot.reports[node] for node in sorted(snapshot.members) if node in snapshot.reports}
    found = clock_gate.trouble(snapshot, record, 0)
    return {
        "clocks_agree": found is None,
        "clocks": "" if found is None else found.text,
        "clock_offsets_seconds": {node: dict(report.clocks) for node, report in told.items()},
        "clocks_out_of_sync": {node: list(r.clocks_out) for node, r in told.items() if r.clocks_out},
        "clocks_not_measured": {node: r.clock_error for node, r in told.items() if r.clock_error},
        "clocks_set": {node: r.clock_step for node, r in told.items() if r.clock_step},
    }


def _alive(record: Record, answers: Sequence[HostAnswer]) -> dict[str, str]:
    """Hosts that a person has called dead, and that have answered since, in this look or before: why."""
    from standfast.core import confirmed
    from standfast.sightings import Sightings

    now, sightings = confirmed.heard(record, answers), Sightings()
    return {
        host: why
        for host, why in record.confirmed.items()
        if host in now or sightings.is_overtaken(host, record.confirmed_at.get(host, 0))
    }


async def _told() -> tuple[list[str], list[dict[str, object]]]:
    """This node's alarms, and a row for each guest that was moved without a window."""
    try:
        answer = await asyncio.to_thread(ask, {"op": "status"}, 3.0)
    except DaemonError as error:
        return [f"standfastd does not answer on this node: {error}"], []
    alarms, moved = answer.get("alarms", []), answer.get("unannounced", [])
    return (
        [str(text) for text in alarms] if isinstance(alarms, list) else [],
        [row for row in moved if isinstance(row, dict)] if isinstance(moved, list) else [],
    )


def _next(snapshot: Snapshot, guest: str) -> str:
    record = snapshot.record
    if record is None or not record.open:
        repair = snapshot.guarded or any(not aim.host for aim in snapshot.aims.values())
        return "standfast window repair" if repair else ""
    if record.abort:
        return "clovmmigrate -p again, or clovmmigrate -u source-ldom target-host"
    return f"standfast window close{f' {guest}' if guest else ' GUEST'}"


def lines(found: dict[str, object]) -> list[str]:
    """The same for people."""
    if not found["open"]:
        shown = [str(found.get("text") or "no window is open")]
    else:
        who = found["guest"] or "every node"
        shown = [
            f"a {found['mode']} window is {found['phase']} for {who}, for {found['open_for_seconds']} s now; "
            f"its lease ends in {found['lease_left_seconds']} s",
            f"reason: {found['reason'] or '-'}",
            f"source {found['source'] or '-'}, target {found['target'] or '-'}",
        ]
        if found["left"]:
            shown.append(f"{found['left']}; move nothing before it is closed")
        if found["armed"]:
            shown.append("opened as a frozen one; the nodes have armed it at the end of its lease")
        if found["budget_seconds"]:
            shown.append(_raised(found))
        places = found["places"]
        if isinstance(places, dict) and places:
            shown.append(
                f"{found['guest']}: " + ", ".join(f"{host} {state}" for host, state in places.items())
            )
        for key, text in (
            ("confirmed_dead", "called dead by a person, and silent: "),
            (
                "confirmed_dead_overtaken",
                "called dead by a person, but it has answered since: ",
            ),
        ):
            words = found.get(key)
            if isinstance(words, dict) and words:
                shown.append(text + ", ".join(f"{host} ({why})" for host, why in words.items()))
        for key, text in (
            ("away", "not in the membership: "),
            ("killing_gate_on", "fenced by its killing gate from: "),
            ("command_alive_on", "a command works on it on: "),
        ):
            values = found[key]
            if isinstance(values, list) and values:
                shown.append(text + ", ".join(map(str, values)))
    if "clocks_agree" in found:
        shown.append(f"clocks: {found['clocks'] or 'all members agree'}{_offsets(found)}")
    alarms = found.get("alarms", [])
    shown += [f"ALARM: {text}" for text in alarms] if isinstance(alarms, list) else []
    if found.get("next_command"):
        shown.append(f"next: {found['next_command']}")
    return shown


def _raised(found: dict[str, object]) -> str:
    if found["just_in_time"] and not found["raised"]:
        return (
            f"heartbeat timeout was raised to {found['budget_seconds']} s for the switch-over, and is not now"
        )
    until = ", until the guest runs on" if found["just_in_time"] else ""
    return f"heartbeat timeout raised to {found['budget_seconds']} s{until}"


def _offsets(found: dict[str, object]) -> str:
    """How far apart the clocks are, as the members have measured it."""
    told = found.get("clock_offsets_seconds")
    if not isinstance(told, dict):
        return ""
    each = [abs(offset) for offsets in told.values() for offset in offsets.values()]
    return f" (at most {max(each):.1f} s apart)" if each else ""
