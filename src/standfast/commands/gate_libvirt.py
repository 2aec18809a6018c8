"""The gate's questions and orders to hosts with libvirt; imported only where there are such hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from standfast.commands.gate_children import Child
from standfast.core import libvirt
from standfast.core.evidence import HostAnswer
from standfast.core.jobs import NotUnderstood


def question(uri: str, guests: Sequence[str], limit_seconds: float) -> str:
    """The command line that asks for these guests."""
    return libvirt.command_line(uri, [libvirt.question(guests)], limit_seconds=limit_seconds)


def order(uri: str, guest: str, identity: str, limit_seconds: float, *, kill: bool) -> str:
    """The command line that stops the guest, or aborts its migration.

    By its UUID where the host has told that: another guest may have got its name meanwhile.
    """
    word = "destroy" if kill else "domjobabort"
    whom = identity if libvirt.is_identity(identity) else guest
    return libvirt.command_line(uri, [word, whom], change=True, limit_seconds=limit_seconds)


def listing(name: str, child: Child) -> Callable[[str], HostAnswer] | str:
    """What the host said, as a function of the guest; or why it said nothing."""
    if child.error:
        return trouble(child)
    try:
        domains = libvirt.parse_answer(child.output)
    except NotUnderstood as error:
        return str(error)
    return lambda guest: libvirt.answer_for(name, guest, domains)


def trouble(child: Child) -> str:
    """What went wrong, in virsh's words where it has some; empty: nothing did."""
    return child.error and (libvirt.trouble(child.output)[:200] or child.error)
