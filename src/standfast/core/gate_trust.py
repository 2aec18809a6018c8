"""The gate's rule for fence agents that trust their host's words: positive evidence, window or not."""

from __future__ import annotations

from standfast.core.evidence import GuestState, HostAnswer, off_on
from standfast.core.gate_view import Answer, GateView, Rule, gone, hold

_TO_KILL = frozenset({GuestState.RUNNING, GuestState.PAUSED, GuestState.CRASHED})
"""States in which an order to the host kills; one that is on its way was held before."""
_CALLED_OFF = ("pmsuspended", "in shutdown")
"""Words of libvirt (how a host's detail begins) for a guest that is not off and that fence_virsh calls off
without an order (fence_virsh 4.12.1, get_power_status): one may wake up, the other may still write."""


def trusting(view: GateView) -> Answer | None:
    """An ordinary agent calls a guest off because its host says so: a host that the guest has left says it of
    one that runs elsewhere (fence_virsh: "Success: Already OFF", 3 of 3 measured). So it is used only where
    there is something for it to kill, or nothing anywhere."""
    if not view.trusts_words:
        return None
    if gone(view):
        return hold(Rule.NO_EVIDENCE, _not_all_are_listed(view), hosts_matter=True) if view.unlisted else None
    here = _aimed(view)
    if here is not None and here.state in _TO_KILL and not here.detail.startswith(_CALLED_OFF):
        return None
    return hold(Rule.NO_EVIDENCE, _no_evidence(view, here), hosts_matter=True)


def _aimed(view: GateView) -> HostAnswer | None:
    """The word of the host at which the target's devices aim; None: it could not be asked."""
    return next((answer for answer in view.hosts if answer.host == view.aim), None)


def _by_hand(view: GateView) -> str:
    return f"if {view.target} is off for certain, type: stonith_admin --confirm={view.target}"


def _not_all_are_listed(view: GateView) -> str:
    guest = view.hosts[0].guest
    return (
        f"no host of clovmmigrate.conf runs {guest}, and none did while {view.target} was alive: it runs on "
        f"one that is not listed, or not shown; {_by_hand(view)}"
    )


def may_fail(view: GateView) -> str:
    """What goes with a yes where the device may fail all the same (fence_virsh 4.12.1 does, at a host that
    does not know the guest), and what helps; else empty."""
    here = _aimed(view)
    if not view.trusts_words or here is None or here.state is not GuestState.ABSENT or not gone(view):
        return ""
    if known := off_on(view.hosts):
        helps = f"{known} does: if its device fails, type: standfast window repair {here.guest}"
    else:
        helps = f"its device may fail: {_by_hand(view)}"
    return f"; {view.aim} does not know {here.guest}, and {helps}"


def _no_evidence(view: GateView, here: HostAnswer | None) -> str:
    """One sentence: which host, and what to type."""
    node = view.target
    if not view.aim:
        return (
            f"the device of {node} aims at no host of clovmmigrate.conf as this node reads it; look where "
            "its guest is, then type: clovmmigrate -u GUEST HOST"
        )
    by_hand = _by_hand(view)
    if here is None:
        return f"{view.aim}, at which the device of {node} aims, could not be asked; {by_hand}"
    if here.detail.startswith(_CALLED_OFF):
        return (
            f"{here.guest} is not off ({here}), and the device of {node} would call it off without killing "
            f"it; type: virsh destroy {here.guest} (on {view.aim})"
        )
    if not here.state.proves_not_here:
        return (
            f"{view.aim}, at which the device of {node} aims, does not show {here.guest} ({here}); {by_hand}"
        )
    open_to_doubt = [answer for answer in view.hosts if not answer.state.proves_not_here]
    shows = f"{view.aim} shows {here.guest} {here.state.value}"
    if not open_to_doubt:
        return f"{shows}, and every other host too, but not yet in two rounds"
    return (
        f"{shows}, so that its device would call it off, but it may be on {open_to_doubt[0].host} "
        f"({open_to_doubt[0]}); {by_hand}"
    )
