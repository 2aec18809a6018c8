"""The one write that arms a window, its record and the mover's fencing topology, and who has followed it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from standfast.cluster import record_change, ring
from standfast.cluster.record_change import NoRecordError
from standfast.cluster.run import EngineError
from standfast.core import arming, guarded, topology
from standfast.core.arming import Arm
from standfast.core.device_objects import DeviceError
from standfast.core.record import Armed, Record, RecordError
from standfast.core.report import decode_all
from standfast.core.steps import NodeAim

WRITE_LIMIT_SECONDS = 20.0


async def run_arm(action: Arm, aims: Mapping[str, NodeAim]) -> str:
    """Empty: it is armed, or no longer the window that this was decided for; else why not."""

    def decide(found: Record, tree: ET.Element) -> Record | None:
        # A part of the cluster that has lost its quorum meanwhile decides about nobody; and while the hosts
        # were asked the node may have come back.
        if not topology.quorate(tree) or arming.came_back(action, ring.look().members):
            return None
        return arming.armed(found, action, aims)

    def shape(tree: ET.Element, _: Record) -> ET.Element:
        freed = guarded.unguard(tree, action.former) if action.former else tree
        return guarded.guard(freed, action.node)

    try:
        await asyncio.to_thread(record_change.change, decide, WRITE_LIMIT_SECONDS, shape=shape)
    except (EngineError, RecordError, NoRecordError, DeviceError) as error:
        return str(error)
    return ""


def not_killing(found: Record, members: frozenset[str], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Members of an armed window whose fencer has not reported that it would use the killing gate alone.

    `texts`: node -> its report as published.
    """
    if found.armed is Armed.NO:
        return ()
    return tuple(arming.not_yet(found, members, decode_all(texts)))
