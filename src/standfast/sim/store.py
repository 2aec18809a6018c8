"""The cluster's configuration as one value: the record, where devices aim, levels, the options we use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from standfast.core.guarded import kill_id
from standfast.core.names import GATE_AGENT
from standfast.core.record import Record
from standfast.core.steps import HostEntry, NodeAim
from standfast.core.topology import Device, Level

LEVELS = 2


class Conflict(Exception):
    """Refused whole: somebody else wrote first."""


@dataclass(frozen=True)
class Cib:
    """One version of the configuration. Versions are compared where two halves of a cluster merge."""

    version: int
    record: Record
    aims: Mapping[str, NodeAim]
    levels: Mapping[str, tuple[Level, ...]]
    maintenance: str = ""
    damage: str = ""
    """Why the record cannot be read; empty: it can."""
    guarded: frozenset[str] = field(default=frozenset())
    """Nodes whose own agents are stopped for a guarded window (core/guarded.py): they have the killing gate,
    and the bans that go with it."""

    @property
    def readable(self) -> Record | None:
        """The record as a reader gets it."""
        return None if self.damage else self.record

    @property
    def guard_whole(self) -> frozenset[str]:
        """Those of them whose one level is the killing gate."""
        return frozenset(node for node in self.guarded if self.levels[node] == kill_levels(node))


Change = Callable[[Cib], Cib]


@lru_cache(maxsize=4096)
def aim(node: str, guest: str, host: str, weight: int) -> NodeAim:
    """A node's aim, with one device a level and a fingerprint for each."""
    proofs = {f"SA-{level}-{node}": f"{host}/{weight}/{level}" for level in range(1, LEVELS + 1)}
    return NodeAim(node, guest, host, weight, proofs)


@lru_cache(maxsize=256)
def levels(node: str) -> tuple[Level, ...]:
    """``[gate, real]`` for each level."""
    return tuple(
        Level(
            index,
            (
                Device(f"gate-{index}-{node}", "fence_standfast", {}),
                Device(f"SA-{index}-{node}", "fence_xscf", {}),
            ),
        )
        for index in range(1, LEVELS + 1)
    )


@lru_cache(maxsize=256)
def kill_levels(node: str) -> tuple[Level, ...]:
    """The one level of a guarded window's mover."""
    return (Level(1, (Device(kill_id(node), GATE_AGENT, {"kill": "1"}),)),)


def written(
    expected_epoch: int,
    record: Record,
    *,
    compare: bool = True,
    reaim: tuple[str, HostEntry] | None = None,
    maintenance: str | None = None,
    guard: str = "",
    unguard: tuple[str, ...] = (),
) -> Change:
    """The patch that the executor sends: refused whole where the phase's id is no longer the one it names."""

    def change(now: Cib) -> Cib:
        if compare and (now.damage or now.record.epoch != expected_epoch):
            raise Conflict
        aims = now.aims
        if reaim is not None:
            node, host = reaim
            aims = {**aims, node: aim(node, aims[node].guest, host.name, host.weight)}
        guarded = (now.guarded | ({guard} - {""})) - set(unguard)
        changed = {node: kill_levels(node) for node in {guard} - {""}}
        changed |= {node: levels(node) for node in unguard}
        return replace(
            now,
            version=now.version + 1,
            record=record,
            aims=aims,
            guarded=guarded,
            levels={**now.levels, **changed},
            maintenance=now.maintenance if maintenance is None else maintenance,
        )

    return change
