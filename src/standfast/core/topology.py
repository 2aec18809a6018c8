"""Fencing topology as the gate reads it: which devices stand in which level of which node.

A gate that says yes with no real device behind it IS a fencing success for Pacemaker, with the node alive
(double start after 3.7 s, measured). So the shape of the levels is part of every decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from standfast.core.host_fencing import NOT_REAL_AGENTS, PLUG, node_of
from standfast.core.names import GATE_AGENT


def quorate(cib: ET.Element | None) -> bool:
    """Whether the membership that wrote this copy has quorum, by the controller's own mark on it. Of a node
    that is cut off that is its own half. Not marked: not known, and counted as no."""
    return cib is not None and cib.get("have-quorum") == "1"


@dataclass(frozen=True)
class Device:
    """A fence device as configured. `agent` is empty if the CIB has no such primitive."""

    id: str
    agent: str
    parameters: Mapping[str, str]

    @property
    def real(self) -> bool:
        """Whether its success is a kill."""
        return bool(self.agent) and self.agent not in NOT_REAL_AGENTS

    @property
    def ordinary(self) -> bool:
        """Whether set-up made it with an ordinary fence agent, which trusts the words of its host."""
        return bool(node_of(self.id, self.agent))

    @property
    def guest(self) -> str:
        """The guest that it kills; empty where it names none. What somebody else's plug is, is not known."""
        return self.parameters.get(PLUG if self.ordinary else "domain", "")


@dataclass(frozen=True)
class Level:
    """One level of one target: all its devices must succeed, in order."""

    index: int
    devices: tuple[Device, ...]

    @property
    def guarded(self) -> bool:
        """Whether it is ``[gate, real, ...]``: one gate first, then nothing but real devices."""
        return (
            len(self.devices) >= 2
            and self.devices[0].agent == GATE_AGENT
            and all(device.real for device in self.devices[1:])
        )


def devices(cib: ET.Element) -> dict[str, Device]:
    """Every fence device of a CIB by id, wherever it stands (groups and clones too)."""
    found: dict[str, Device] = {}
    for primitive in cib.iterfind("./configuration/resources//primitive"):
        if primitive.get("class") != "stonith":
            continue
        parameters = {
            pair.get("name", ""): pair.get("value", "")
            for pair in primitive.iterfind("./instance_attributes/nvpair")
        }
        identifier = primitive.get("id", "")
        found[identifier] = Device(identifier, primitive.get("type", ""), parameters)
    return found


def levels_for(cib: ET.Element, target: str, known: Mapping[str, Device] | None = None) -> tuple[Level, ...]:
    """All levels that name `target`: by name, by pattern and by node attribute, lowest index first.

    `known`: `devices` of this CIB, where the caller has them.
    """
    known = devices(cib) if known is None else known
    attributes = _node_attributes(cib, target)
    levels = []
    for level in cib.iterfind("./configuration/fencing-topology/fencing-level"):
        if not _names(level, target, attributes):
            continue
        ids = [part.strip() for part in level.get("devices", "").split(",") if part.strip()]
        levels.append(
            Level(int(level.get("index", "0")), tuple(known.get(i, Device(i, "", {})) for i in ids))
        )
    return tuple(sorted(levels, key=lambda item: item.index))


def _names(level: ET.Element, target: str, attributes: Mapping[str, str]) -> bool:
    if (exact := level.get("target")) is not None:
        # Pacemaker compares node names without regard to case.
        return exact.casefold() == target.casefold()
    if (pattern := level.get("target-pattern")) is not None:
        try:
            return re.search(pattern, target) is not None
        except re.error:
            # A pattern that we cannot read may still match for Pacemaker (POSIX): count it as naming us.
            return True
    if (name := level.get("target-attribute")) is not None:
        return attributes.get(name) == level.get("target-value", "")
    return False


def _node_attributes(cib: ET.Element, target: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in cib.iterfind("./configuration/nodes/node"):
        if node.get("uname", "").casefold() == target.casefold():
            for pair in node.iterfind("./instance_attributes/nvpair"):
                found[pair.get("name", "")] = pair.get("value", "")
    return found
