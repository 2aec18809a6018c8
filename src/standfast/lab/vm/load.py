"""The memory load of a guest (`memory_load`), from outside: start it, and have it compare its memory."""

from __future__ import annotations

import json
from dataclasses import dataclass

from standfast.lab.errors import LabError
from standfast.lab.vm import channel
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.environment import PREFIX
from standfast.lab.vm.memory_load import STATUS_FILE

START_LIMIT_SECONDS = 60.0
COMPARE_LIMIT_SECONDS = 60.0
CALL_LIMIT_SECONDS = 20.0
_START = f"""kill $(sed -n 's/.*"pid": \\([0-9]*\\).*/\\1/p' {STATUS_FILE}) 2>/dev/null
rm -f {STATUS_FILE}
setsid --fork {PREFIX}/bin/python3 -m standfast.lab.vm.memory_load --mib "$1" --mib-per-second "$2" \\
  </dev/null >/run/lab/memory-load.log 2>&1
tries=0
until [ -e {STATUS_FILE} ] || [ $tries -ge 200 ]; do tries=$((tries + 1)); sleep 0.2; done
cat {STATUS_FILE}"""
"""The command ends once the program writes: what a command leaves behind before it is a session is killed."""


@dataclass(frozen=True)
class Compared:
    """How the memory was found: so many comparisons, wrong pages in all of them, and pages written."""

    pid: int
    compared: int
    wrong: int
    writes: int


class MemoryLoad:
    """The program in one guest, one at a time; it ends with the guest's boot."""

    def __init__(self, lab: VmLab, node: str, mib: int, mib_per_second: float) -> None:
        """Start it, and return once it writes. Raises LabError."""
        self._lab, self._node = lab, node
        self.mib, self.mib_per_second = mib, mib_per_second
        argv = ["/bin/sh", "-c", _START, "start", str(mib), str(mib_per_second)]
        done = lab.exec(node, argv, START_LIMIT_SECONDS)
        if not done.ok:
            raise LabError(f"the memory load of {node} does not start: {done.complaint()}")

    def _status(self) -> Compared | None:
        try:
            done = self._lab.exec(self._node, ["cat", STATUS_FILE], CALL_LIMIT_SECONDS)
        except channel.Unreachable:
            return None
        return Compared(**json.loads(done.stdout)) if done.ok else None

    def compare(self) -> Compared:
        """Have it compare every page now. Raises LabError: it has ended, or does not answer."""
        before = self._status()
        if before is None:
            raise LabError(f"the memory load of {self._node} is gone")
        done = self._lab.exec(self._node, ["kill", "-USR1", str(before.pid)], CALL_LIMIT_SECONDS)
        if not done.ok:
            raise LabError(f"the memory load of {self._node} has ended: {done.complaint()}")

        def told() -> bool:
            now = self._status()
            return now is not None and now.compared > before.compared

        self._lab.wait(told, COMPARE_LIMIT_SECONDS, f"the memory of {self._node} to be compared")
        after = self._status()
        assert after is not None
        return after
