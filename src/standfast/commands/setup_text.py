"""How `clsnmpsetup` shows what is registered: the manual's listing, JSON, a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from standfast.core.devices import XscfNode

_COLUMNS = (
    ("device-name", 12),
    ("cluster-host-name", 18),
    ("PPAR-ID", 8),
    ("domain-name", 15),
    ("IP-address1", 16),
    ("IP-address2", 16),
    ("user-name", 15),
    ("connection-type", 15),
)
DEVICE_NAME = "xscf"


def table(nodes: Sequence[XscfNode]) -> list[str]:
    """The lines of `-l`: header, rule of 115 dashes, one row a node. Longer values push the row."""
    lines = [_row([name for name, _ in _COLUMNS]), "-" * sum(width for _, width in _COLUMNS)]
    for node in nodes:
        place = [DEVICE_NAME, node.node, str(node.ppar_id), node.domain]
        lines.append(_row([*place, node.lan0, node.lan1, node.user, node.connection]))
    return lines


def _row(cells: Sequence[str]) -> str:
    padded = (
        cell.ljust(width) if len(cell) < width else f"{cell} "
        for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    )
    return "".join(padded).rstrip()


def as_json(node: XscfNode, faults: Sequence[str]) -> dict[str, object]:
    """One entry of `-l --json`; `faults` is what is missing or changed in the CIB."""
    return {"device": DEVICE_NAME, **dataclasses.asdict(node), "faults": list(faults)}


def in_words(node: XscfNode) -> str:
    """All that is registered for a node, in one line."""
    return (
        f"{node.node}, domain {node.domain}, PPAR-ID {node.ppar_id}, XSCF {node.lan0} and {node.lan1}, "
        f"user {node.user}, {node.connection}, weight {node.weight}"
    )
