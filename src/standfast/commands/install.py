"""`standfast install`, `standfast uninstall`, `standfast compat`: the programs on a node, and off it again.

Programs in /usr/sbin are two-line wrappers around this Python environment; only the gate, fence_standfast, is
a program of its own for the system's Python. `programs` writes just these, for a lab.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import click

from standfast.cluster.run import run
from standfast.commands import build_gate, fence_xscf
from standfast.commands.install_tree import MARK, InstallError, Item, Tree
from standfast.core import names

SBIN = "/usr/sbin"
COMMANDS = ("clovmmigrate", "clsnmpsetup", "sdtool")
"""The names of PRIMECLUSTER's own programs; these may need a prefix."""
COMPLETED = ("standfast", *COMMANDS)
WRAPPED = ("standfast", "standfastd", "fence_xscf", *COMMANDS)
PREFIX = "standfast-"
CIB_LIMIT_SECONDS = 5.0
MANIFEST = names.STATE_DIR + "/installed.json"
COMPAT_MANIFEST = names.STATE_DIR + "/compat.json"
UNIT = "/etc/systemd/system/standfastd.service"
LOGROTATE = "/etc/logrotate.d/standfast"
COMPLETION_DIR = "/usr/share/bash-completion/completions"
MAN_DIR = "/usr/share/man"
COMPAT_LINKS = {
    "/etc/opt/FJSVcluster/bin/clovmmigrate": "/usr/sbin/clovmmigrate",
    "/etc/opt/FJSVcluster/bin/clsnmpsetup": "/usr/sbin/clsnmpsetup",
    "/etc/opt/FJSVcluster/etc/clovmmigrate.conf": names.CONFIG_FILE,
    "/opt/SMAW/bin/sdtool": "/usr/sbin/sdtool",
}
"""The paths of the manuals (Installation and Administration Guide 4.3, 14.3; Cluster Foundation 7.5)."""

P = ParamSpec("P")


def wrapper(program: str, scripts: Path | None = None) -> bytes:
    """A program that starts `program` of this Python environment, or of the one whose scripts are there."""
    target = shlex.quote(str((scripts or Path(sysconfig.get_path("scripts"))) / program))
    if program == names.XSCF_AGENT:
        return _agent_wrapper(target)
    return f'#!/bin/sh\n# {MARK}\nexec {target} "$@"\n'.encode()


def _agent_wrapper(target: str) -> bytes:
    """A fence agent answers `metadata` to anybody: the controller asks as user hacluster, who may not be able
    to enter the Python environment, and then tries again for seconds at each start of each device."""
    return f"""#!/bin/sh
# {MARK}
[ "$(id -u)" = 0 ] && exec {target} "$@"
[ $# -gt 0 ] && asked="$*" || asked=$(cat)
case $asked in
*metadata*) cat <<'METADATA'
{fence_xscf.metadata().strip()}
METADATA
;;
*) echo "fence_xscf: this needs root" >&2; exit 1 ;;
esac
""".encode()


def programs(directory: Path, scripts: Path | None = None) -> None:
    """Write the wrappers and the gate into `directory`, over what is there. Raises BuildError, OSError.

    `scripts`: where the Python environment's own programs are; this environment's unless given.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for program in WRAPPED:
        path = directory / program
        path.write_bytes(wrapper(program, scripts))
        path.chmod(0o755)
    build_gate.build(directory / build_gate.PROGRAM)


def is_ours(path: Path) -> bool:
    """Whether a program was made by us, whatever the manifest says."""
    if path.name == build_gate.PROGRAM:
        return build_gate.is_ours(path)
    with path.open("rb") as file:
        return f"# {MARK}\n".encode() in file.read(200)


def packaging() -> Path:
    """Where unit, completion and man pages are: in the installed package, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "packaging"
    return inside if inside.is_dir() else package.parents[1] / "packaging"


def items(prefix: str) -> list[Item]:
    """Everything that belongs on a node. Raises InstallError, BuildError."""
    missing = [name for name in WRAPPED if not Path(sysconfig.get_path("scripts"), name).exists()]
    if missing:
        raise InstallError(
            f"this Python environment ({sys.prefix}) lacks {', '.join(missing)}; nothing was changed. "
            f"Install it whole: {sys.executable} -m pip install standfast"
        )
    found = [
        Item(names.CONFIG_DIR),
        Item(names.SECRETS_DIR, mode=0o700),
        Item(names.STATE_DIR),
        Item(names.LOG_DIR),
        Item(f"{SBIN}/{build_gate.PROGRAM}", build_gate.content()),
    ]
    for name in WRAPPED:
        shown = prefix + name if name in COMMANDS else name
        found.append(Item(f"{SBIN}/{shown}", wrapper(name)))
    return found + _extras(packaging())


def _extras(source: Path) -> list[Item]:
    """Unit, completion, man pages, log rotation: what of them is there."""
    places = {UNIT: source / "standfastd.service", LOGROTATE: source / "standfast.logrotate"}
    # bash loads a completion by the name of the command that is typed.
    places |= {f"{COMPLETION_DIR}/{name}": source / "completion" / "standfast.bash" for name in COMPLETED}
    pages = source / "man" if (source / "man").is_dir() else source.parent / "docs" / "man"
    places |= {f"{MAN_DIR}/man{file.suffix[1:]}/{file.name}": file for file in sorted(pages.glob("*.[1-8]"))}
    return [Item(place, file.read_bytes(), mode=0o644) for place, file in places.items() if file.is_file()]


def _operator(command: Callable[P, None]) -> Callable[P, None]:
    """Errors of the system as one line."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (InstallError, build_gate.BuildError) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            hint = " (this needs root)" if isinstance(error, PermissionError) and os.geteuid() else ""
            raise click.ClickException(
                f"{error.filename or 'file'}: {error.strerror}{hint}; type the same command again after that"
            ) from None

    return guarded


_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="The folder that is to be the root of the node.",
)


@click.command()
@_root
@click.option(
    "--prefix-programs",
    is_flag=True,
    help=f"Call clovmmigrate, clsnmpsetup and sdtool {PREFIX}..., where others have these names already.",
)
@_operator
def install(root: Path, prefix_programs: bool) -> None:
    """Put the programs, the gate, folders and the systemd unit on this node. Never over a file of others."""
    tree = Tree(root, MANIFEST, is_ours)
    changed = tree.put(items(PREFIX if prefix_programs else ""))
    for path in changed:
        click.echo(path)
    click.echo(f"{len(changed)} changed." if changed else "All is there already; nothing was changed.")
    if shutil.which("ssh") is None:
        click.echo(
            "Recommended: apt-get install openssh-client. Without ssh the gate cannot ask the hosts where "
            "the daemon does not answer, and every fence_xscf takes more time."
        )
    if root == Path("/") and Path("/run/systemd/system").is_dir():
        click.echo("Next: systemctl daemon-reload && systemctl enable --now standfastd")


def refuse_in_use() -> None:
    """Raises InstallError while this cluster's fencing still goes through the gate: it would fail."""
    found = run(
        ["cibadmin", "-Q", "-l", "--xpath", f"//primitive[@type='{names.GATE_AGENT}']"],
        limit_seconds=CIB_LIMIT_SECONDS,
    )
    if found.ok and names.GATE_AGENT in found.stdout:
        raise InstallError(
            "fencing of this cluster still goes through fence_standfast and would fail without it; nothing "
            "was changed. Take every node out first (clsnmpsetup -d NODE, or standfast node remove NODE), or "
            "use --force"
        )


@click.command()
@_root
@click.option("--force", is_flag=True, help="Even where fencing of this cluster goes through the gate.")
@_operator
def uninstall(root: Path, force: bool) -> None:
    """Take away exactly what `standfast install` put there. Configuration and secrets stay."""
    if root == Path("/") and not force:
        refuse_in_use()
    _take_away(Tree(root, MANIFEST, is_ours))


@click.group()
def compat() -> None:
    """The paths of the PRIMECLUSTER manuals, as links."""


@compat.command("install")
@_root
@_operator
def compat_install(root: Path) -> None:
    """Make the links. Never over a file that exists."""
    links = [Item(path, link=target) for path, target in COMPAT_LINKS.items()]
    changed = Tree(root, COMPAT_MANIFEST).put(links)
    for path in changed:
        click.echo(f"{path} -> {COMPAT_LINKS[path]}")
    if not changed:
        click.echo("All links are there already; nothing was changed.")


@compat.command("remove")
@_root
@_operator
def compat_remove(root: Path) -> None:
    """Take the links away."""
    _take_away(Tree(root, COMPAT_MANIFEST))


def _take_away(tree: Tree) -> None:
    removed, left = tree.take_away()
    for path in removed:
        click.echo(f"removed {path}")
    for path in left:
        click.echo(f"left {path}: not empty, or changed since", err=True)
    if not removed and not left:
        click.echo("Nothing of Standfast was there.")
