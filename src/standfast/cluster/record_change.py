"""One way to change the record from what it is: read it, decide, write by compare-and-set, and again where
somebody else was first. For whoever has no plan of more steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from xml.etree import ElementTree as ET

from standfast.cluster import cib
from standfast.cluster.run import EngineError
from standfast.core import record
from standfast.core.record import Record

MAX_TRIES = 20
WRITE_LIMIT_SECONDS = 20.0

Decide = Callable[[Record, ET.Element], Record | None]
"""From the record, and the CIB that it stands in, to the next record; None: it is as wanted."""
Shape = Callable[[ET.Element, Record], ET.Element]
"""From the CIB, and the record that is to be written, to the CIB as it is to be beside that, as a copy."""


class NoRecordError(Exception):
    """Nothing is set up: there is no record to write to."""


class ContendedError(EngineError):
    """Somebody else was first, each time."""


def _as_it_is(tree: ET.Element, _: Record) -> ET.Element:
    return copy.deepcopy(tree)


def change(
    decide: Decide,
    limit_seconds: float = WRITE_LIMIT_SECONDS,
    max_tries: int = MAX_TRIES,
    shape: Shape = _as_it_is,
) -> Record:
    """The record as it then stands. `decide` is asked anew after each lost race; what it and `shape` raise
    goes through. What `shape` changes is part of the same patch. `limit_seconds`: for one write.

    Raises NoRecordError, RecordError, CibUnknown (it may be carried out later), ContendedError, EngineError.
    """
    for _ in range(max_tries):
        tree = cib.query()
        found = record.read(tree)
        if found is None:
            raise NoRecordError("no node's service processor is registered")
        new = decide(found, tree)
        if new is None:
            return found
        wanted = shape(tree, new)
        record.write(wanted, new)
        try:
            cib.apply(tree, wanted, limit_seconds)
        except cib.CibConflict:
            continue
        return new
    raise ContendedError(f"the record was changed by somebody else {max_tries} times in a row")
