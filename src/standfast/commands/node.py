"""``standfast node``: which fence agent, at which host, kills which cluster node.

For hosts of kind libvirt and manual; nodes behind an XSCF are registered by clsnmpsetup, and listed here too.
The data goes to the cluster's CIB, the same for all nodes; there is no secret in it.

Exit status: 0 done, 1 refused (nothing changed) or a check failed, 2 usage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from standfast.commands.node_setup import NodeSetup, Wanted
from standfast.commands.setup_outside import Outside
from standfast.commands.window_run import EXIT_REFUSED, EXIT_USAGE, Screen
from standfast.core import fields
from standfast.core.messages import Message, Refused

PROGRAM = "standfast node"

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
dry_option = click.option("-n", "--dry-run", is_flag=True, help="Say what would be changed; change nothing.")
weight_option = click.option(
    "--weight", type=click.IntRange(fields.MIN_WEIGHT, fields.MAX_WEIGHT), metavar="N",
    help="Which side of a split is killed later: 1 to 100 (default: the host's, in clovmmigrate.conf).",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def node(context: click.Context) -> None:
    """Register cluster nodes whose guests live on hosts of kind libvirt or manual.

    How a host is reached stands in clovmmigrate.conf: fence_agent and fence_parameters. Nodes on control
    domains (kind ldm) are registered by clsnmpsetup.
    """
    context.ensure_object(Outside)


@node.command()
@click.argument("name", metavar="NODE")
@click.option(
    "--guest", required=True, metavar="GUEST", help="The guest that is this node, as its host calls it."
)
@click.option("--host", required=True, metavar="HOST", help="Host on which the guest is now.")
@weight_option
@dry_option
@json_option
@click.pass_obj
def add(
    outside: Outside, name: str, guest: str, host: str, weight: int | None, dry_run: bool, as_json: bool
) -> None:
    """Register NODE. Once, on one node; again with the same data nothing is changed."""
    _end(outside, as_json, lambda setup: setup.add(Wanted(name, guest, host, weight), dry_run=dry_run))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--guest", default="", metavar="GUEST", help="Another name of its guest.")
@click.option("--host", default="", metavar="HOST", help="Aim at this host.")
@weight_option
@dry_option
@json_option
@click.pass_obj
def change(
    outside: Outside, name: str, guest: str, host: str, weight: int | None, dry_run: bool, as_json: bool
) -> None:
    """Change what is registered for NODE. Without an option: put right what is missing of it.

    After a migration use standfast window close or repair instead: they look where the guest is, and prove.
    """
    _end(outside, as_json, lambda setup: setup.change(Wanted(name, guest, host, weight), dry_run=dry_run))


@node.command()
@click.argument("name", metavar="NODE")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_option
@json_option
@click.pass_obj
def remove(outside: Outside, name: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Take the fence device of NODE away, with its gate. With the last node all is as before the first."""
    _end(outside, as_json, lambda setup: setup.remove(name, yes=yes, dry_run=dry_run))


@node.command("list")
@json_option
@click.pass_obj
def list_nodes(outside: Outside, as_json: bool) -> None:
    """List all registered nodes, those with an XSCF too, with the host at which each aims."""
    _end(outside, as_json, lambda setup: setup.show())


@node.command()
@click.argument("name", metavar="[NODE]", default="")
@json_option
@click.pass_obj
def check(outside: Outside, name: str, as_json: bool) -> None:
    """See from this node, with every registered agent or those of NODE, whether the guest runs there."""
    _end(outside, as_json, lambda setup: setup.check(name))


def _end(outside: Outside, as_json: bool, what: Callable[[NodeSetup], int]) -> None:
    """Do it, say what was refused, and leave with the exit status."""
    screen = Screen(as_json, PROGRAM)
    try:
        code = what(NodeSetup(outside, screen))
    except fields.FieldError as error:
        screen.tell(Message("setup.field", f"{error}; nothing was changed"))
        code = screen.end(EXIT_USAGE, "")
    except Refused as refused:
        for message in refused.messages:
            screen.tell(message)
        code = screen.end(EXIT_REFUSED, "")
    sys.exit(code)
