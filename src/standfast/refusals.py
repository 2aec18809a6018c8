"""After a window: the fencers forget what were only refusals of our own gates.

A node that was dropped in a long blackout and held leaves failed fencings in the history of all fencers, and
`crm_mon` shows them until somebody clears them: an alarm of something that went well. They are copied to this
node's journal first. A history in which anything else stands, a kill, a device that failed, a fencing under
way, is left whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from standfast.cluster import fencer
from standfast.cluster.fencer import FencingEvent
from standfast.cluster.run import EngineError
from standfast.core.names import GATE_AGENT
from standfast.journal import Journal

HELD = f"{GATE_AGENT}: held:"
"""How a refusal of a gate begins, as the fencer keeps it."""


def ours(events: Sequence[FencingEvent]) -> bool:
    """Whether there is a history, and nothing in it but fencings that our gates have refused."""
    return bool(events) and all(event.status == "failed" and HELD in event.why for event in events)


def forget(node: str, epoch: int, journal: Journal | None = None) -> int:
    """Copy and clear the history of `node`, where it is ours alone; how many entries that were.

    Never raises: the window is closed, and this is only tidying up.
    """
    with contextlib.suppress(EngineError):
        events = fencer.history(node)
        if not ours(events):
            return 0
        kept = journal or Journal()
        for event in reversed(events):
            text = (
                f"{event.action} of {node} by {event.delegate or '-'} was refused at {event.completed or '-'}"
            )
            if kept.add("refused", text, epoch=epoch, why=event.why, client=event.client, node=node):
                return 0  # what was not copied is not cleared
        fencer.cleanup_history(node)
        return len(events)
    return 0
