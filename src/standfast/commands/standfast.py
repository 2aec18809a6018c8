"""The program `standfast`: one group, its subcommands loaded only when they are called.

A new subcommand is one line in SUBCOMMANDS: its name, where its click command lives, its line in the help.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Subcommand:
    """Where a subcommand lives ("module:attribute"), and its line in the help of the group."""

    target: str
    summary: str


SUBCOMMANDS: dict[str, Subcommand] = {
    "compat": Subcommand("standfast.commands.install:compat", "The manuals' paths, as links."),
    "install": Subcommand("standfast.commands.install:install", "Put programs, gate and unit on this node."),
    "uninstall": Subcommand("standfast.commands.install:uninstall", "Take them away again."),
    "node": Subcommand("standfast.commands.node:node", "Which host kills which node."),
    "window": Subcommand("standfast.commands.window:window", "The window of a guest that is live-migrated."),
    "migrate": Subcommand("standfast.commands.migrate:migrate", "Migrate a guest live, with all around it."),
    "verify": Subcommand("standfast.commands.verify:verify", "Prove all fencing, from every node, now."),
    "sim": Subcommand("standfast.commands.sim:sim", "Play the decisions against a simulated cluster."),
    "lab": Subcommand("standfast.commands.lab:lab", "Real clusters on this machine, to try things out."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module when the subcommand is called, not before.

    Help of the group is written from the table alone, so `standfast --help` imports nothing either.
    """

    def __init__(self, *, table: dict[str, Subcommand], **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all subcommands."""
        return sorted({*self._table, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now; None for an unknown name."""
        entry = self._table.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.target} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of subcommands in the help."""
        rows = [(name, entry.summary) for name, entry in sorted(self._table.items())]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, table=SUBCOMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="standfast", message="standfast %(version)s")
def main() -> None:
    """Takes a cluster of virtual machines safely through the live migration of one of them."""


if __name__ == "__main__":
    main()
