"""`standfast lab`: start, look at, disturb and remove real clusters on this machine."""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from typing import Any, Literal

import click

from standfast.commands import lab_report, lab_vm
from standfast.lab.cluster import Lab, known_ids
from standfast.lab.errors import LabError
from standfast.lab.layout import MAX_NODES, check_id, labs_root
from standfast.lab.removal import remove

_which = click.option("--lab", "lab_id", metavar="ID", help="The lab; not needed while there is only one.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


class LabGroup(click.Group):
    """Turns what goes wrong in a lab into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException("\n  ".join([str(error), *getattr(error, "__notes__", [])])) from error


@click.group(cls=LabGroup)
def lab() -> None:
    """Real corosync and pacemaker nodes in namespaces of this machine, or in real guests (`up --vm`).

    Everything of a lab lies below $STANDFAST_LAB_ROOT (/run/standfast-lab); nothing else is touched.
    """


def _the_lab(lab_id: str | None) -> Lab:
    return Lab.load(lab_id or _only_id())


def _only_id() -> str:
    ids = known_ids()
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise LabError(f"there is no lab below {labs_root()}; `standfast lab up` starts one")
    raise LabError(f"which lab? There are {', '.join(ids)}")


@lab.command()
@click.option("--id", "lab_id", metavar="ID", help="Name of the lab; random unless given.")
@click.option("--nodes", type=click.IntRange(2, MAX_NODES), default=2, show_default=True, help="Nodes.")
@click.option(
    "--heartbeat-timeout", "timeout_seconds", type=float, default=10.0, show_default=True, metavar="SECONDS"
)
@click.option("--freezer", type=click.Choice(["auto", "v1", "v2"]), default="auto", show_default=True)
@click.option(
    "--fencing",
    type=click.Choice(["plain", "none"]),
    help="plain (without --vm the default): a power switch for each node. none: no devices, and fencing left "
    "off. With --vm the default is fence_virsh behind its gate, as `standfast node add` makes it.",
)
@click.option("--hosts", is_flag=True, help="Also a network with the addresses of hosts and XSCFs.")
@click.option("--standfast", is_flag=True, help="Also emulated hosts, and Standfast set up on every node.")
@click.option("--vm", is_flag=True, help="Real guests on libvirt hosts; at most 4 nodes.")
@click.option("--memory", "memory_mib", type=int, metavar="MIB", help="Of a real guest; 512 unless given.")
@_as_json
def up(
    lab_id: str | None,
    nodes: int,
    timeout_seconds: float,
    freezer: Literal["auto", "v1", "v2"],
    fencing: Literal["plain", "none"] | None,
    hosts: bool,
    standfast: bool,
    vm: bool,
    memory_mib: int | None,
    as_json: bool,
) -> None:
    """Start a lab; returns once its cluster is settled.

    With --vm the nodes are guests under QEMU: cfguest1 in guest1 on host1 and so on, each with standfastd,
    and one more host to move to. fence_virsh is the fence agent. The image is built once, in a minute.

    With --standfast it is the manual's figure 14.1 (or the same with more nodes): guest1 on ctrl1, guest2 on
    ctrl2 and so on, and one more control domain to move to. `standfast lab migrate` moves a guest.
    """
    # A terminated `up` removes what it has begun, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - begun:5.1f} s] {text}", err=True)

    if vm:
        if hosts or standfast or freezer != "auto":
            raise LabError(
                "--vm has hosts and standfastd of its own: leave --hosts, --standfast, --freezer out"
            )
        lab_vm.up(lab_id, nodes, timeout_seconds, fencing or "standfast", memory_mib, say, as_json)
        return
    if memory_mib is not None:
        raise LabError("--memory is for real guests: give --vm too")
    if standfast:
        from standfast.lab.scene import Scene

        made = Scene.up(nodes, lab_id=lab_id, heartbeat_timeout_seconds=timeout_seconds, say=say).lab
    else:
        made = Lab.up(lab_id, nodes, timeout_seconds, freezer, fencing or "plain", hosts, say)
    seconds = round(time.monotonic() - begun, 1)
    if as_json:
        click.echo(
            json.dumps({"id": made.id, "root": str(made.root), "nodes": made.nodes, "seconds": seconds})
        )
        return
    click.echo(
        f"lab {made.id} is up after {seconds} s: {', '.join(made.nodes)} ({made.spec.freezer} freezer)"
    )
    click.echo(f"  standfast lab exec --lab {made.id} {made.nodes[0]} crm_mon -1")
    click.echo(f"  standfast lab down {made.id}")


@lab.command()
def image() -> None:
    """Build what real guests boot from, where it is not in the cache, and show where it is."""
    lab_vm.image()


@lab.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All labs below the labs' root.")
def down(ids: tuple[str, ...], everything: bool) -> None:
    """Remove labs whole: processes, cgroups, namespaces, mounts, files. Also broken ones."""
    chosen = known_ids() if everything else list(ids) or [_only_id()]
    for lab_id in chosen:
        root = labs_root() / check_id(lab_id)
        if not root.exists():
            raise LabError(f"there is no lab {lab_id!r} below {labs_root()}")
        remove(root)
        click.echo(f"lab {lab_id} is gone")
    if not chosen:
        click.echo("there is no lab")


@lab.command()
@click.argument("lab_id", required=False, metavar="[ID]")
@_as_json
def status(lab_id: str | None, as_json: bool) -> None:
    """Show the labs, their nodes, and how the cluster sees them."""
    reports = [lab_report.report(one) for one in ([lab_id] if lab_id else known_ids())]
    if as_json:
        click.echo(json.dumps(reports, indent=1))
        return
    for report in reports:
        click.echo(f"lab {report['id']}: {report['state']}")
        for host in report.get("hosts", []):
            there = ", ".join(f"{guest} {state}" for guest, state in host["guests"].items()) or "-"
            click.echo(f"  {host['name']:12} {host['power']:7} {there}")
        for node in report.get("nodes", []):
            place = ", ".join(node["services"]) or "-"
            click.echo(f"  {node['name']:12} {node['power']:7} {node['cluster']:8} {place}")
    if not reports:
        click.echo("there is no lab")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_which
@click.option("--limit", "limit_seconds", type=float, default=60.0, show_default=True, metavar="SECONDS")
@click.option("-i", "--stdin", "with_input", is_flag=True, help="Pass our standard input on to COMMAND.")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(
    lab_id: str | None, limit_seconds: float, with_input: bool, node: str, command: tuple[str, ...]
) -> None:
    """Run COMMAND in NODE, or on a host of real guests. Its exit code is ours; 124 at the limit."""
    if command[0] == "--" and len(command) > 1:
        command = command[1:]
    piped = sys.stdin.read() if with_input else None
    one = lab_vm.find(lab_id or _only_id()) or _the_lab(lab_id)
    result = one.exec(node, command, limit_seconds, input=piped)
    click.echo(result.stdout, nl=False)
    click.echo(result.stderr, nl=False, err=True)
    if result.timed_out:
        click.echo(f"standfast lab: cut off after {limit_seconds:g} s", err=True)
    sys.exit(result.returncode)


@lab.command()
@_which
@click.argument("node")
@click.argument("seconds", type=click.FloatRange(min=0.0, max=3600.0))
@_as_json
def blackout(lab_id: str | None, node: str, seconds: float, as_json: bool) -> None:
    """Let NODE stand still for SECONDS where it is, as the last moments of a live migration do."""
    one = lab_vm.find(lab_id or _only_id()) or _the_lab(lab_id)
    done = one.blackout(node, seconds)
    if as_json:
        click.echo(json.dumps({**asdict(done), "seconds": done.seconds}))
    else:
        click.echo(f"{node} stood still for {done.seconds:.3f} s")


@lab.command()
@_which
@click.argument("guest")
@click.argument("host")
@click.option(
    "--blackout",
    "blackout_seconds",
    type=click.FloatRange(0.0, 3600.0),
    metavar="SECONDS",
    help="How long the guest stands still: 1, or of a real guest as short as it comes.",
)
@click.option(
    "--duration",
    "duration_seconds",
    type=click.FloatRange(0.0, 3600.0),
    default=4.0,
    show_default=True,
    metavar="SECONDS",
    help="Of the copying; a real guest takes its time.",
)
@click.option(
    "--keep-definition",
    is_flag=True,
    help="Of a real guest: the source keeps a definition, and calls it shut off.",
)
def migrate(
    lab_id: str | None,
    guest: str,
    host: str,
    blackout_seconds: float | None,
    duration_seconds: float,
    keep_definition: bool,
) -> None:
    """Live-migrate GUEST to HOST, in a lab made with --standfast (control domains) or --vm."""
    if vm := lab_vm.find(lab_id or _only_id()):
        moved = vm.migrate(
            guest, host, blackout_seconds=blackout_seconds or 0.0, undefine_source=not keep_definition
        )
        click.echo(
            f"{moved.guest} went from {moved.source} to {moved.target} in {moved.seconds:.1f} s, "
            f"blackout {moved.blackout.seconds:.3f} s"
        )
        return
    if keep_definition:
        raise LabError("--keep-definition is for real guests (--vm); nothing was migrated")
    blackout_seconds = 1.0 if blackout_seconds is None else blackout_seconds
    from standfast.lab.emulators.control import Control, ControlError
    from standfast.lab.scene import control_socket

    try:
        with Control(control_socket(_the_lab(lab_id).root), limit_seconds=5.0) as control:
            source = control.migrate(
                guest, host, duration_seconds=duration_seconds, blackout_seconds=blackout_seconds
            )
            click.echo(f"{guest} goes from {source} to {host}, blackout {blackout_seconds:g} s", err=True)
            limit_seconds = duration_seconds + blackout_seconds + 30.0
            outcome = control.wait_migration(guest, limit_seconds=limit_seconds)
    except ControlError as error:
        raise LabError(str(error)) from None
    click.echo(f"{guest}: {outcome['phase']} {outcome['reason']}".rstrip())
    sys.exit(0 if outcome["phase"] == "done" else 1)


@lab.command()
@_which
@click.argument("node")
@click.argument("what", type=click.Choice(["off", "on", "panic"]))
def power(lab_id: str | None, node: str, what: Literal["off", "on", "panic"]) -> None:
    """Switch NODE off or on, or let it panic (all its processes die at once).

    Of real guests: a guest (panic is its kernel's), or a host, which takes its guests along.
    """
    if vm := lab_vm.find(lab_id or _only_id()):
        vm.power(node, what)
        click.echo(f"{node} is {'on' if vm.is_on(node) else 'off'}")
        return
    one = _the_lab(lab_id)
    one.power(node, what)
    click.echo(f"{node} is {'on' if one.alive(node) else 'off'}")
