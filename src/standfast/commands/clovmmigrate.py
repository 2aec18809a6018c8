"""The program clovmmigrate: ``-p`` before a live migration, ``-u source-ldom target-host`` after it.

Exit status: 0 done, 1 refused or guest stopped, 2 usage, 3 not finished (a window is still open; the next
command is printed).
"""

from __future__ import annotations

import asyncio
import sys

import click

from standfast.commands.window_run import EXIT_REFUSED, EXIT_UNFINISHED, Screen, Wish, work
from standfast.core.messages import Refused


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-p", "prepare", is_flag=True, help="Before a live migration: open the window on all nodes.")
@click.option("-u", "update", is_flag=True, help="After it, moved or not: close the window on all nodes.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@click.option("--budget", "budget_seconds", type=click.IntRange(11, 3600), metavar="SECONDS",
              help="Heartbeat timeout while the window is open (default: clovmmigrate.conf).")  # fmt: skip
@click.option("--lease", "lease_minutes", type=click.IntRange(1, 10080), metavar="MINUTES",
              help="How long the window may stay open before every node alarms.")  # fmt: skip
@click.option("--skip-save", multiple=True, metavar="HOST",
              help="Do not save the domain configuration on this control domain (it is dead).")  # fmt: skip
@click.option("--saved", multiple=True, metavar="HOST",
              help="You have saved the domain configuration on this control domain yourself.")  # fmt: skip
@click.option("--ignore-clocks", is_flag=True,
              help="Lower the heartbeat timeout although the nodes' clocks do not agree.")  # fmt: skip
@click.option("--reason", default="", metavar="TEXT",
              help="Why; recorded. Needed with --skip-save and --ignore-clocks.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.argument("operands", nargs=-1)
@click.version_option(package_name="standfast", message="clovmmigrate (Standfast) %(version)s")
def main(
    prepare: bool,
    update: bool,
    dry_run: bool,
    budget_seconds: int | None,
    lease_minutes: int | None,
    skip_save: tuple[str, ...],
    saved: tuple[str, ...],
    ignore_clocks: bool,
    reason: str,
    yes: bool,
    as_json: bool,
    operands: tuple[str, ...],
) -> None:
    """Take the cluster through the live migration of a guest domain that is one of its nodes.

    \b
    clovmmigrate -p [source-ldom]            on one node, before the migration
    clovmmigrate -u source-ldom target-host  on one node, after it

    -p raises the heartbeat timeout on all nodes and holds all fencing. -u finds the guest, saves the domain
    configuration on both control domains, aims the shutdown facility at the control domain where the guest is
    (give the source if it did not move), proves it from every node, waits until the nodes' clocks agree, and
    puts the heartbeat timeout back.
    After -p, -u is needed in any case, also when the migration was cancelled or has failed.
    """
    if prepare == update:
        raise click.UsageError("give -p before the migration or -u after it")
    if prepare and len(operands) > 1:
        raise click.UsageError("-p takes at most one operand: source-ldom")
    if update and len(operands) != 2:
        raise click.UsageError("-u takes two operands: source-ldom target-host")
    if prepare and (saved or skip_save or ignore_clocks):
        raise click.UsageError("--saved, --skip-save and --ignore-clocks belong to -u")
    if (skip_save or ignore_clocks) and not reason.strip():
        option = "--skip-save" if skip_save else "--ignore-clocks"
        raise click.UsageError(f"{option} needs --reason TEXT: it is recorded")
    if skip_save and not yes and sys.stdin.isatty():
        click.confirm(f"Leave the configuration on {', '.join(skip_save)} unsaved?", abort=True)
    screen = Screen(as_json)
    wish = Wish(
        prepare,
        operands,
        dry_run,
        budget_seconds,
        lease_minutes,
        skip_save,
        saved,
        reason,
        ignore_clocks=ignore_clocks,
    )
    try:
        code = asyncio.run(work(wish, screen))
    except Refused as refused:
        for message in refused.messages:
            screen.tell(message)
        code = screen.end(EXIT_REFUSED, "")
    except KeyboardInterrupt:
        text = (
            "interrupted: a window may be open; finish with the same command again, or with clovmmigrate -u"
        )
        code = screen.end(EXIT_UNFINISHED, text)
    sys.exit(code)


if __name__ == "__main__":
    main()
