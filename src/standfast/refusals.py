"""After a window: the fencers forget what were only refusals of our own gates.

A node that was dropped in a long blackout and held leaves failed fencings in the history of all fencers, and
`crm_mon` shows them until somebody clears them: an alarm of something that went well. They are copied to this
node's journal first. A history in which anything else stands, a kill, a device that failed, a fencing under
way, an order that was given, is left whole.

The fencer of Pacemaker 2.1.5 keeps no reason of a failure, also not in ``stonith_admin --history --verbose``
(measured), so each node's daemon reports what the gates of its node have answered (`answers`), and a failed
fencing counts as refused only where the node that carried it out says that its gate held at that time.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from standfast.cluster import fencer
from standfast.cluster.fencer import FencingEvent
from standfast.cluster.run import EngineError
from standfast.core.names import ORDERED
from standfast.journal import Journal

HOLD, OTHER = "hold", "other"
TAIL_BYTES = 256 * 1024
MAX_ANSWERS = 64
EARLIER_SECONDS, LATER_SECONDS = 8.0, 3.0
"""How much earlier or later than the end of a fencing its gate has answered: a level with a gate may have
come before the last one, and two nodes' clocks may differ a little. What fits worse stays in the history."""

_LINE = re.compile(
    r"(?P<at>\S+) node=\S* target=(?P<target>\S+) action=\S+ (?:level=\S+ )?(?P<word>hold|allow) "
)


@dataclass(frozen=True)
class Answer:
    """What a gate answered about one node. `at_seconds`: of that node's own wall clock."""

    target: str
    at_seconds: int
    word: str
    """`hold`; or `other`: it allowed, or it gave an order to a host."""


def answers(path: str, target: str, since_seconds: float) -> tuple[str, ...]:
    """What the gates of this node have answered about `target` since then, as texts for the report.

    Empty where the log cannot be read. Longer than MAX_ANSWERS: the texts say so, and nothing is forgotten.
    """
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ()
    found = []
    for line in text.splitlines():
        answer = _read(line)
        if answer is not None and answer.target == target and answer.at_seconds >= since_seconds:
            found.append(f"{answer.target} {answer.at_seconds} {answer.word}")
    return tuple(found) if len(found) <= MAX_ANSWERS else (f"{target} 0 {OTHER}",)


def _read(line: str) -> Answer | None:
    match = _LINE.match(line)
    if match is None:
        return None
    try:
        at = datetime.fromisoformat(match["at"]).timestamp()
    except ValueError:
        return None
    ordered = ORDERED in line
    return Answer(match["target"], int(at), HOLD if match["word"] == "hold" and not ordered else OTHER)


def told(texts: Sequence[str]) -> tuple[Answer, ...]:
    """The reverse of `answers`; what cannot be read is left out."""
    found = []
    for text in texts:
        target, _, rest = text.partition(" ")
        at, _, word = rest.partition(" ")
        if at.isdecimal() and word:
            found.append(Answer(target, int(at), word))
    return tuple(found)


def ours(events: Sequence[FencingEvent], said: Mapping[str, Sequence[Answer]]) -> bool:
    """Whether there is a history, and nothing in it but fencings that our gates have refused.

    `said`: node -> what its gates answered. Any answer of any node that was no plain hold: nothing is ours.
    """
    if not events or any(answer.word != HOLD for found in said.values() for answer in found):
        return False
    return all(event.status == "failed" and _held(event, said.get(event.delegate, ())) for event in events)


def _held(event: FencingEvent, said: Sequence[Answer]) -> bool:
    try:
        ended = datetime.fromisoformat(event.completed).timestamp()
    except ValueError:
        return False
    return any(
        answer.target == event.target
        and ended - EARLIER_SECONDS <= answer.at_seconds <= ended + LATER_SECONDS
        for answer in said
    )


def forget(
    node: str, epoch: int, said: Mapping[str, Sequence[Answer]], journal: Journal | None = None
) -> int:
    """Copy and clear the history of `node`, where it is ours alone; how many entries that were.

    Never raises: the window is closed, and this is only tidying up.
    """
    with contextlib.suppress(EngineError):
        events = fencer.history(node)
        about = {name: [answer for answer in found if answer.target == node] for name, found in said.items()}
        if not ours(events, about):
            return 0
        kept = journal or Journal()
        for event in reversed(events):
            text = (
                f"{event.action} of {node} by {event.delegate or '-'} was refused at {event.completed or '-'}"
            )
            if kept.add("refused", text, epoch=epoch, client=event.client, node=node):
                return 0  # what was not copied is not cleared
        fencer.cleanup_history(node)
        return len(events)
    return 0
