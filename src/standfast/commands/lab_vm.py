"""`standfast lab` where the nodes are real guests: what of it needs more than a call.

Imports QEMU's side of the lab only when it is used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from standfast.lab.layout import check_id, kind_of, labs_root

if TYPE_CHECKING:
    from standfast.lab.vm.cluster import VmLab


def find(lab_id: str) -> VmLab | None:
    """The lab, if its nodes are real guests. Raises LabError when there is none."""
    chosen = check_id(lab_id)
    if kind_of(labs_root() / chosen) != "vm":
        return None
    from standfast.lab.vm.cluster import VmLab

    return VmLab.load(chosen)


def up(
    lab_id: str | None,
    nodes: int,
    timeout_seconds: float,
    fencing: Literal["standfast", "plain", "none"],
    memory_mib: int | None,
    say: Callable[[str], None],
    as_json: bool,
) -> None:
    """Start a lab of real guests, and say what can be done with it."""
    from standfast.lab.vm.cluster import MEMORY_MIB, VmLab

    begun = time.monotonic()
    made = VmLab.up(lab_id, nodes, timeout_seconds, fencing, memory_mib or MEMORY_MIB, say)
    seconds = round(time.monotonic() - begun, 1)
    if as_json:
        parts = {name: round(value, 1) for name, value in asdict(made.times).items()} if made.times else {}
        click.echo(
            json.dumps(
                {
                    "id": made.id,
                    "root": str(made.root),
                    "nodes": made.nodes,
                    "guests": made.spec.guests,
                    "hosts": made.spec.hosts,
                    "accelerator": made.spec.accelerator,
                    "seconds": seconds,
                    "parts": parts,
                }
            )
        )
        return
    click.echo(f"lab {made.id} is up after {seconds} s: {', '.join(made.nodes)} ({made.spec.accelerator})")
    click.echo(f"  standfast lab exec --lab {made.id} {made.nodes[0]} crm_mon -1")
    click.echo(f"  standfast lab migrate --lab {made.id} {made.spec.guests[-1]} {made.spec.hosts[-1]}")
    click.echo(f"  standfast lab down {made.id}")


def image() -> None:
    """Build the guests' image where it is not in the cache, and say where it is."""
    from standfast.lab.checks import check_vm_machine
    from standfast.lab.vm import accelerator, environment
    from standfast.lab.vm import image as images

    check_vm_machine()
    made = images.get()
    click.echo(f"image       {made.directory}")
    click.echo(f"packages    {environment.get()}")
    click.echo(f"accelerator {accelerator.choose(made)}")
