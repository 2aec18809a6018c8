"""Does this node's running fencer have what the configuration says? Asked when that can have changed.

The question costs a process (40 ms of a processor); a window makes a dozen changes of the configuration, most
of them of the record alone. So it is asked where the fencing part of the configuration is another than at the
last answer that agreed, again while it disagrees, and with each test of the agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from xml.etree import ElementTree as ET

from standfast.cluster import fencer
from standfast.cluster.run import EngineError
from standfast.core import running
from standfast.core.running import RunningDevice
from standfast.core.topology import Device

LIMIT_SECONDS = 5.0
AGAIN_SECONDS = 0.5
"""A fencer hears of a change a moment after this daemon."""
SOON_TRIES = 20
"""So often it is asked again after `AGAIN_SECONDS`; then with each look of the daemon."""


class FencerDuty:
    """Asked at each look of the daemon."""

    def __init__(
        self,
        again: Callable[[float], None],
        ask: Callable[[float], Mapping[str, RunningDevice]] = fencer.running,
    ) -> None:
        """`again`: have the daemon look once more after so many seconds."""
        self.differs: Mapping[str, str] = {}
        """Node and device -> what is different; as of the last look."""
        self.error = ""
        """Why the fencer could not be asked at the last look."""
        self._again, self._ask = again, ask
        self._agreed: Mapping[str, Device] | None = None
        self._tries = 0
        self._prove = 0

    def forget(self) -> None:
        """Ask at the next look, whatever has changed or not."""
        self._agreed, self._tries = None, 0

    def alarms(self) -> list[str]:
        """What differs and does not come right by itself."""
        if not self.differs or self._tries <= SOON_TRIES:
            return []
        name, why = next(iter(sorted(self.differs.items())))
        more = f", and {len(self.differs) - 1} more" if len(self.differs) > 1 else ""
        device = name.partition(" ")[2]
        return [
            f"what this node's fencer would do is not what is configured: {device}: {why}{more}; look with "
            "standfast verify, and start Pacemaker of this node again"
        ]

    async def look(self, tree: ET.Element, node: str, prove: int = 0) -> None:
        """Ask, where something can have changed, or a proof is asked for (`prove`: the record's) that was not
        before. Never raises for what the fencer does."""
        if prove > self._prove:
            self._prove = prove
            self.forget()
        wanted = running.expected(tree, node)
        if self._agreed == wanted:
            return
        try:
            found = await asyncio.to_thread(self._ask, LIMIT_SECONDS) if wanted else {}
        except EngineError as error:
            # Not known is neither agreement nor difference; a fencer that is starting is asked again.
            self.differs, self.error = {}, str(error)
        else:
            self.differs, self.error = running.differences(wanted, found), ""
        if not self.differs and not self.error:
            self._agreed, self._tries = wanted, 0
            return
        self._agreed = None
        self._tries += 1
        if self._tries <= SOON_TRIES:
            self._again(AGAIN_SECONDS)
