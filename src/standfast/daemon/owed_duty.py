"""Taking back what the record owes this node: how often it is tried, and the end of it in the record."""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

from standfast.cluster import cib
from standfast.core import owed, record

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
SETTLE_LIMIT_SECONDS = 10.0


class Backoff:
    """When the next try is due: at once, then after 2 s, 4 s ... up to 5 minutes, for as long as it takes."""

    def __init__(self) -> None:
        self.wait_seconds = FIRST_WAIT_SECONDS
        self._next = 0.0

    def due(self, now: float, *, afresh: bool = False) -> bool:
        """Whether to try now (monotonic seconds); a yes moves the next on. `afresh`: a step has worked."""
        if afresh:
            self.reset()
        if now < self._next:
            return False
        if self._next:
            self.wait_seconds = min(2 * self.wait_seconds, LONGEST_WAIT_SECONDS)
        self._next = now + self.wait_seconds
        return True

    def reset(self) -> None:
        """Nothing to try: the next time begins at once."""
        self.wait_seconds, self._next = FIRST_WAIT_SECONDS, 0.0


def settle(tree: ET.Element, node: str) -> None:
    """Take the entry of `node` out of the record of `tree`, by compare-and-set: refused whole where somebody
    has moved the record meanwhile, and it cannot be carried out twice. Raises CibError, RecordError."""
    found = record.read(tree)
    if owed.entry_of(found, node) is None or found is None:
        return
    wanted = copy.deepcopy(tree)
    record.write(wanted, owed.without(found, node, owner=node))
    cib.apply(tree, wanted, SETTLE_LIMIT_SECONDS)
