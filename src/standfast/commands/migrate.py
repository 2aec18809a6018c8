"""``standfast migrate``: the whole of a live migration, from the preflight to the proof.

Exit status: 0 the guest has moved and the window is closed, 1 refused or not moved (no window is open), 2
usage, 3 not finished (a window is still open; the next command is printed).
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import click

from standfast.commands.migrate_show import Show
from standfast.commands.window import BUDGET_HELP, NONE, budget_option
from standfast.commands.window_run import EXIT_REFUSED, EXIT_UNFINISHED
from standfast.core import holding
from standfast.core.messages import Refused

WHOLE_WINDOW, JUST_IN_TIME = "whole-window", "just-in-time"


@dataclass(frozen=True)
class Order:
    """The command line, parsed."""

    guest: str
    to: str
    mode: str = "guarded"
    budget: int | str | None = None
    raises: str = WHOLE_WINDOW
    lease_minutes: int | None = None
    postcopy: bool = False
    cold: bool = False
    force: bool = False
    target_user: str = ""
    password_file: str = ""
    reason: str = ""
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False

    @property
    def just_in_time(self) -> bool:
        """Whether the heartbeat is raised around the switch-over only."""
        return self.raises == JUST_IN_TIME


@click.command()
@click.argument("guest")
@click.option("--to", "to", required=True, metavar="HOST", help="Host that the guest is to move to.")
@click.option(
    "--mode",
    type=click.Choice(["guarded", "frozen"]),
    default="guarded",
    show_default=True,
    help="Who is held while the window is open: see standfast window open.",
)
@click.option("--budget", callback=budget_option, metavar="SECONDS|auto|none", help=BUDGET_HELP)
@click.option(
    "--raise",
    "raises",
    type=click.Choice([WHOLE_WINDOW, JUST_IN_TIME]),
    default=WHOLE_WINDOW,
    show_default=True,
    help="When --budget raises the timeout. just-in-time (libvirt only): around the switch-over, to --budget "
    f"SECONDS, at least {holding.LEAST_BUDGET_SECONDS}, or (auto, the default here) to "
    f"{holding.AUTO_FACTOR:g} times the predicted blackout, {holding.LEAST_BUDGET_SECONDS} to "
    f"{holding.AUTO_MOST_SECONDS} s. While the copy is made all other nodes are raised; this one follows "
    "when little is left, and is lowered as the guest runs on. Where they are late the copy is held, and "
    "where too late the migration is cancelled.",
)
@click.option("--lease", "lease_minutes", type=click.IntRange(1, 10080), metavar="MINUTES",
              help="How long the window may stay open. The migration is cancelled 5 minutes before its end. "
              "By default twice the time that the guest's memory may take, 15 min to 24 h.")  # fmt: skip
@click.option(
    "--postcopy",
    is_flag=True,
    help="libvirt only: after one pass over its memory GUEST runs on at HOST, and the rest is fetched while "
    "it runs. It stands still for some 0.1 s, however much it writes. RISK: if the source or the network "
    "dies in this second phase, GUEST is lost: its memory is on two hosts, and it can only be started anew.",
)
@click.option(
    "--cold", is_flag=True, help="Move a guest that is stopped. No window is needed, none is opened."
)
@click.option("--force", is_flag=True, help="Also where another node of this cluster lives on HOST.")
@click.option("--target-user", default="", metavar="USER",
              help="Control domains: log in to HOST as USER, with --target-password-file (default: the login "
              "of clovmmigrate.conf).")  # fmt: skip
@click.option("--target-password-file", "password_file", default="", metavar="FILE",
              help="Control domains: the password for HOST, in the first line of a file. Without it the "
              "control domains have to trust each other's certificates (ldm migrate-domain -c).")  # fmt: skip
@click.option("--reason", default="", metavar="TEXT", help="Why; recorded.")
@click.option(
    "-n", "--dry-run", is_flag=True, help="Preflight only: show what would be done; change nothing."
)
@click.option("--yes", is_flag=True, help="Do not ask, neither before the start nor at Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Events, one JSON object a line. Asks nothing.")
def migrate(**given: object) -> None:
    """Migrate GUEST, the name of a guest domain that is a node of this cluster, to HOST.

    Preflight, a window, the migration with its progress, the proof of fencing at the new host, and a page
    that says how long it stood still. Run it on another node than the one that moves. Ctrl-C cancels, and
    puts all back.
    """
    order = Order(**given)  # type: ignore[arg-type]
    if order.mode == "frozen" and order.budget == NONE:
        raise click.UsageError("--budget none is for --mode guarded: a frozen window raises the timeout")
    if order.postcopy and (order.just_in_time or order.cold):
        other = "--cold" if order.cold else "--raise just-in-time"
        raise click.UsageError(f"--postcopy goes without {other}: nothing has to be held for it")
    if order.just_in_time:
        _check_just_in_time(order)
    if order.target_user and not order.password_file:
        raise click.UsageError("--target-user goes with --target-password-file")
    if order.cold and (order.budget is not None or order.lease_minutes):
        raise click.UsageError("--cold opens no window: it goes without --budget and --lease")
    show = Show(order.as_json, sys.stderr.isatty())
    sys.exit(_run(order, show))


def _check_just_in_time(order: Order) -> None:
    """Raises UsageError."""
    if order.mode == "frozen":
        raise click.UsageError("--raise just-in-time is for --mode guarded: a frozen window raises at once")
    if order.budget == NONE:
        raise click.UsageError("--raise just-in-time goes with --budget auto or SECONDS, not with none")
    least = holding.LEAST_BUDGET_SECONDS
    if isinstance(order.budget, int) and order.budget < least:
        raise click.UsageError(f"--raise just-in-time goes with --budget auto or at least {least}")
    if isinstance(order.budget, int) and order.budget > holding.MOST_BUDGET_SECONDS:
        most = holding.MOST_BUDGET_SECONDS
        text = f"--raise just-in-time raises to {most} s at most: a real death is seen no sooner"
        raise click.UsageError(text)
    if order.cold:
        raise click.UsageError("--cold moves a guest that does not run: it goes without --raise just-in-time")


def _run(order: Order, show: Show) -> int:
    from standfast.commands import migrate_run

    try:
        return asyncio.run(migrate_run.work(order, show))
    except Refused as refused:
        for message in refused.messages:
            show.tell(message)
        return show.end(EXIT_REFUSED, "")
    except KeyboardInterrupt:
        if show.phase == "preflight":
            return show.end(EXIT_REFUSED, "interrupted: nothing was changed")
        text = (
            "interrupted: a window may be open, and the guest on its way; look with: standfast window status"
        )
        return show.end(EXIT_UNFINISHED, text)
