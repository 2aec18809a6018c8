"""The gate's questions and orders to hosts with libvirt; imported only where there are such hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from standfast.commands.gate_children import Child
from standfast.core import libvirt
from standfast.core.evidence import HostAnswer
from standfast.core.hostlist import ControlDomain
from standfast.core.jobs import NotUnderstood


def question(host: ControlDomain, guests: Sequence[str], limit_seconds: float) -> str:
    """The command line that asks for these guests."""
    return _line(host, [libvirt.question(guests)], limit_seconds)


def order(host: ControlDomain, guest: str, identity: str, limit_seconds: float, *, kill: bool) -> str:
    """The command line that stops the guest, or aborts its migration.

    By its UUID where the host has told that: another guest may have got its name meanwhile.
    """
    word = "destroy" if kill else "domjobabort"
    whom = identity if libvirt.is_identity(identity) else guest
    return _line(host, [word, whom], limit_seconds, change=True)


def _line(host: ControlDomain, words: Sequence[str], limit_seconds: float, *, change: bool = False) -> str:
    # On the host nobody else ends what we give up; here we do so ourselves.
    limit = limit_seconds if host.login else None
    return libvirt.command_line(host.uri, words, change=change, limit_seconds=limit)


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
