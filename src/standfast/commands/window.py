"""``standfast window``: open, close, look at, extend and repair the window of a moving guest.

Exit status: 0 done, 1 refused or guest stopped, 2 usage, 3 not finished (a window is still open; the next
command is printed).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import click

from standfast.commands.window_run import EXIT_REFUSED, EXIT_UNFINISHED, Screen, Wish, work
from standfast.core.messages import Refused

PROGRAM = "standfast window"
REASON_MAX_CHARS = 200

AUTO, NONE = "auto", "none"
BUDGET_SECONDS = click.IntRange(11, 3600)


BUDGET_HELP = (
    "Raise the heartbeat timeout to this. auto: to the value of clovmmigrate.conf, if a resource of the "
    "cluster needs the membership unbroken (DLM, GFS2, OCFS2, lvmlockd). none: not, whatever there is. By "
    "default a guarded window raises nothing, and is refused where a resource needs it."
)


def budget_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A heartbeat timeout in seconds, or the word that says when to raise it."""
    if value is None or value in (AUTO, NONE):
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of seconds nor {AUTO} or {NONE}", ctx, param)
    return int(BUDGET_SECONDS.convert(int(value), param, ctx))


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def window() -> None:
    """The time in which a guest that is a cluster node is live-migrated.

    Open a window before the migration, close it after it, also when the migration was cancelled or failed.
    """


@window.command("open")
@click.argument("guest", required=False, default="")
@click.option("--to", "to", default="", metavar="HOST", help="Control domain that the guest is to move to.")
@click.option(
    "--mode",
    type=click.Choice(["guarded", "frozen"]),
    default="guarded",
    show_default=True,
    help="guarded: only this guest's node is held, the others are fenced as always, and it is fenced itself "
    "when the hosts show it dead. frozen: nobody is fenced, as clovmmigrate -p.",
)
@click.option("--budget", callback=budget_option, metavar="SECONDS|auto|none", help=BUDGET_HELP)
@click.option("--lease", "lease_minutes", type=click.IntRange(1, 10080), metavar="MINUTES",
              help="How long the window may stay open; then the nodes close it.")  # fmt: skip
@click.option("--reason", default="", metavar="TEXT", help="Why; recorded.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@json_option
def open_window(
    guest: str,
    to: str,
    mode: str,
    budget: int | str | None,
    lease_minutes: int | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Open a window for GUEST, the name of a guest domain (--mode frozen: all, without GUEST)."""
    if mode == "guarded" and not guest:
        raise click.UsageError("name the guest that moves (or --mode frozen for all)")
    if mode == "frozen" and budget == NONE:
        raise click.UsageError("--budget none is for --mode guarded: a frozen window raises the timeout")
    operands = (guest,) if guest else ()
    wish = Wish(
        True,
        operands,
        dry_run,
        budget if isinstance(budget, int) else None,
        lease_minutes,
        (),
        (),
        reason,
        guarded=mode == "guarded",
        to=to,
        raise_if_needed=budget == AUTO,
        hold_alone=budget == NONE,
    )
    _end(Screen(as_json, PROGRAM), lambda screen: work(wish, screen))


@window.command("close")
@click.argument("guest", required=False, default="")
@click.option("--to", "to", default="", metavar="HOST", help="Control domain where the guest is now "
              "(default: the one that shows it running).")  # fmt: skip
@click.option("--skip-save", multiple=True, metavar="HOST",
              help="Do not save the domain configuration on this control domain (it is dead).")  # fmt: skip
@click.option("--saved", multiple=True, metavar="HOST",
              help="You have saved the domain configuration on this control domain yourself.")  # fmt: skip
@click.option("--ignore-clocks", is_flag=True,
              help="Lower the heartbeat timeout although the nodes' clocks do not agree.")  # fmt: skip
@click.option("--reason", default="", metavar="TEXT",
              help="Why; recorded. Needed with --skip-save and --ignore-clocks.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@yes_option
@json_option
def close_window(
    guest: str,
    to: str,
    skip_save: tuple[str, ...],
    saved: tuple[str, ...],
    ignore_clocks: bool,
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Close the window: aim fencing at the host where GUEST is now, prove it, arm it.

    GUEST: by default the one that the window is for. Needed in any case after open.
    """
    if (skip_save or ignore_clocks) and not reason.strip():
        option = "--skip-save" if skip_save else "--ignore-clocks"
        raise click.UsageError(f"{option} needs --reason TEXT: it is recorded")
    if skip_save and not yes and sys.stdin.isatty():
        click.confirm(f"Leave the configuration on {', '.join(skip_save)} unsaved?", abort=True)

    async def close(screen: Screen) -> int:
        from standfast.commands import window_actions

        found, where = await window_actions.place(guest, to)
        wish = Wish(
            False,
            (found, where),
            dry_run,
            None,
            None,
            skip_save,
            saved,
            reason,
            ignore_clocks=ignore_clocks,
        )
        return await work(wish, screen)

    _end(Screen(as_json, PROGRAM), close)


@window.command("status")
@click.option("--wait", "wait_seconds", type=click.IntRange(1, 86400), metavar="SECONDS",
              help="Wait for the end of the window, so long at most; exit status 3: still open.")  # fmt: skip
@json_option
def status(wait_seconds: int | None, as_json: bool) -> None:
    """Show whether a window is open, for whom, for how long, and what is to be done."""
    from standfast.commands import window_status

    _end(Screen(as_json, PROGRAM), lambda screen: window_status.show(screen, wait_seconds))


@window.command("extend")
@click.argument("minutes", type=click.IntRange(1, 10080))
@json_option
def extend(minutes: int, as_json: bool) -> None:
    """Lengthen the lease of the open window by MINUTES."""

    from standfast.commands import window_actions

    _end(Screen(as_json, PROGRAM), lambda screen: window_actions.extend(screen, minutes))


@window.command("lower")
@click.option("--overdue", is_flag=True, help="Also where a command is called alive that has it raised.")
@json_option
def lower(overdue: bool, as_json: bool) -> None:
    """Lower a heartbeat timeout that was raised just in time, and that its command has left raised.

    The window stays open, and its node held. The nodes do this by themselves within a minute; closing the
    window does it too.
    """
    from standfast.commands import window_lower

    _end(Screen(as_json, PROGRAM), lambda screen: window_lower.lower(screen, overdue=overdue))


@window.command("confirm-dead")
@click.argument("guest")
@click.option("--host", required=True, metavar="HOST", help="Control domain that is dead.")
@click.option("--reason", required=True, metavar="TEXT", help="How you know; recorded.")
@yes_option
@json_option
def confirm_dead(guest: str, host: str, reason: str, yes: bool, as_json: bool) -> None:
    """Say that HOST, which does not answer, is dead, so that GUEST may be called gone.

    Only in a guarded window of GUEST, and only while HOST is silent: if it runs on unseen, GUEST may run
    there, and its services would run twice. Look at the machine, or switch it off, before you say this.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "this cannot be taken back: give --yes, or answer the question at a terminal"
            )
        click.confirm(
            f"Is {host} without power, or have you seen that {guest} does not run there?", abort=True
        )
    if not reason.strip() or len(reason) > REASON_MAX_CHARS or not reason.isprintable():
        raise click.UsageError(
            f"--reason must be one printable line of at most {REASON_MAX_CHARS} characters"
        )

    from standfast.commands import window_actions

    _end(
        Screen(as_json, PROGRAM),
        lambda screen: window_actions.confirm_dead(screen, guest, host, reason.strip()),
    )


@window.command("repair")
@click.argument("guest", required=False, default="")
@click.option("--lease", "lease_minutes", type=click.IntRange(1, 10080), metavar="MINUTES",
              help="How long a repair that is not finished may hold; then the nodes close it.")  # fmt: skip
@json_option
def repair(guest: str, lease_minutes: int | None, as_json: bool) -> None:
    """Without an open window: aim fencing at the hosts where the guests are now, and prove it.

    GUEST: this one alone.
    """
    from standfast.commands import window_actions

    _end(Screen(as_json, PROGRAM), lambda screen: window_actions.repair(screen, guest, lease_minutes))


def _end(screen: Screen, what: Callable[[Screen], Awaitable[int]]) -> None:
    """Run it, say what was refused, and leave with its exit status."""

    async def run() -> int:
        return await what(screen)

    try:
        code = asyncio.run(run())
    except Refused as refused:
        for message in refused.messages:
            screen.tell(message)
        code = screen.end(EXIT_REFUSED, "")
    except KeyboardInterrupt:
        text = "interrupted: a window may be open; look with: standfast window status"
        code = screen.end(EXIT_UNFINISHED, text)
    sys.exit(code)
