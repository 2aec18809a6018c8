"""The real nodes behind emulated domains."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Protocol


class Machines(Protocol):
    """What the world does to real nodes. A call returns when it is done; errors are any Exception."""

    async def freeze(self, name: str) -> None: ...

    async def thaw(self, name: str) -> None: ...

    async def power_off(self, name: str) -> None: ...

    async def power_on(self, name: str) -> None: ...

    async def alive(self, name: str) -> bool: ...


class NoMachines:
    """Domains without anything behind them: all calls succeed."""

    async def freeze(self, name: str) -> None:
        pass

    async def thaw(self, name: str) -> None:
        pass

    async def power_off(self, name: str) -> None:
        pass

    async def power_on(self, name: str) -> None:
        pass

    async def alive(self, name: str) -> bool:
        return True


class LabMachines:
    """Nodes of a lab of this machine; machine names are node names."""

    def __init__(self, lab_id: str) -> None:
        self._lab: Any = importlib.import_module("standfast.lab.cluster").Lab.load(lab_id)

    async def freeze(self, name: str) -> None:
        await asyncio.to_thread(self._lab.freeze, name)

    async def thaw(self, name: str) -> None:
        await asyncio.to_thread(self._lab.thaw, name)

    async def power_off(self, name: str) -> None:
        await asyncio.to_thread(self._lab.power, name, "off")

    async def power_on(self, name: str) -> None:
        await asyncio.to_thread(self._lab.power, name, "on")

    async def alive(self, name: str) -> bool:
        return bool(await asyncio.to_thread(self._lab.alive, name))
