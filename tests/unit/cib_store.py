"""One CIB for several daemons in one process: writes are compare-and-set on the id of the record's phase, as
Pacemaker's patches are (tests/unit/test_cib_patch.py), and the membership is what the test says."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from standfast.cluster import cib, ring
from standfast.core import record
from standfast.core.names import RECORD_SET_ID
from standfast.core.record import Record


class Store:
    """`before_write` is called before each write lands, with the number of the write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: tuple[str, ...], found: Record | None) -> None:
        self.tree = ET.fromstring(
            "<cib><configuration><crm_config/><nodes>"
            + "".join(f"<node id='{number}' uname='{node}'/>" for number, node in enumerate(nodes, 1))
            + "</nodes><resources/><constraints/></configuration><status/></cib>"
        )
        if found is not None:
            record.write(self.tree, found)
        self.members = frozenset(nodes)
        self.writes = 0
        self.before_write: Callable[[int], None] = lambda number: None
        self.after_query: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        monkeypatch.setattr(cib, "query", self.query)
        monkeypatch.setattr(cib, "apply", self.apply)
        monkeypatch.setattr(ring, "look", lambda limit_seconds=3.0: ring.Ring("", self.members))

    @property
    def record(self) -> Record:
        found = record.read(self.tree)
        assert found is not None
        return found

    def query(self, limit_seconds: float = 5.0) -> ET.Element:
        with self._lock:
            tree = copy.deepcopy(self.tree)
        self.after_query()
        return tree

    def apply(self, original: ET.Element, wanted: ET.Element, limit_seconds: float = 20.0) -> None:
        self.before_write(self.writes + 1)
        self.land(original, wanted)

    def land(self, original: ET.Element, wanted: ET.Element) -> None:
        with self._lock:
            if _phase_id(original) != _phase_id(self.tree):
                raise cib.CibConflict("somebody else wrote first")
            self.writes += 1
            self.tree = copy.deepcopy(wanted)


def _phase_id(tree: ET.Element) -> str | None:
    pair = tree.find(f".//cluster_property_set[@id='{RECORD_SET_ID}']/nvpair[@name='standfast-phase']")
    return None if pair is None else pair.get("id")
