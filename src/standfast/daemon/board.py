"""The states of the shutdown agents as ``sdtool -s`` shows them, and the tests behind them.

Every agent is tested from this node on start, on demand, when its parameters change, when a closing window
asks for proof, and every 10 minutes (PRIMECLUSTER Cluster Foundation guide, 7.1). A test runs the agent's
``status`` with the parameters of the CIB and needs the guest seen running there, not just a login.
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast.core import aims, devices, host_fencing, record, topology
from standfast.core.report import FAILED, proof
from standfast.core.topology import Device
from standfast.processors import agents
from standfast.processors.agents import Outcome

TEST_PERIOD_SECONDS = 600.0
TEST_LIMIT_SECONDS = 50.0
TESTS_AT_ONCE = 4


@dataclass(frozen=True)
class Row:
    """One agent of one node, in sdtool's words."""

    host: str
    agent: str
    device: Device
    sa_state: str = "Idle"
    shut_state: str = "Unknown"
    test_state: str = "Unknown"
    init_state: str = "Unknown"
    said: str = ""
    """What the agent said when it last failed."""
    proof: str = ""
    failed: str = ""
    """The same of a test that failed (`core.report.FAILED`)."""
    tested: float | None = None
    """When the last test ended (monotonic); None: none has."""
    late: bool = False
    """The last test had no answer in time."""

    @property
    def tested_seconds_ago(self) -> int | None:
        """Age of what `test_state` says; None before the first test."""
        return None if self.tested is None else int(time.monotonic() - self.tested)


class Board:
    """All rows, in the order in which the nodes were registered. `changed` is called after each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.rows: dict[str, Row] = {}
        self._changed = changed
        self._slots = asyncio.Semaphore(TESTS_AT_ONCE)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._window: tuple[int, bool] | None = None
        """Number of the last window that was seen, and whether it was open."""

    def follow(self, cib: ET.Element) -> list[str]:
        """Take over the devices of a CIB; the ids of those that are new or have other parameters."""
        known = topology.devices(cib)
        fresh: dict[str, Row] = {}
        altered = []
        for entry in devices.registered(cib):
            for agent in entry.agents:
                identifier = agent.device_id(entry.node)
                device = known.get(identifier, Device(identifier, "", {}))
                row = self.rows.get(identifier)
                if row is None or row.device != device:
                    altered.append(identifier)
                    row = Row(entry.node, agent.shown, device)
                fresh[identifier] = row
        for gone in set(self.rows) - set(fresh):
            self._cancel(gone)
        if list(fresh) != list(self.rows) or altered:
            self.rows = fresh
            self._changed()
        self._see_window(cib)
        return altered

    def test(self, identifiers: list[str], epoch: int) -> list[asyncio.Task[None]]:
        """Begin tests; one that is under way for the same agent is dropped for the new one."""
        tasks = []
        for identifier in identifiers:
            if identifier in self.rows:
                self._cancel(identifier)
                task = asyncio.create_task(self._test(identifier, epoch))
                self._running[identifier] = task
                tasks.append(task)
        return tasks

    def mended(self) -> list[str]:
        """Agents that could not begin and now could: somebody stored the secret, or installed the program."""
        return [
            identifier
            for identifier, row in self.rows.items()
            if row.init_state == "InitFailed" and not _init_trouble(row.device)
        ]

    def late(self) -> list[str]:
        """Agents whose last test had no answer in time."""
        return [identifier for identifier, row in self.rows.items() if row.late]

    def of(self, node: str) -> list[str]:
        """The agents of one node."""
        return [identifier for identifier, row in self.rows.items() if row.host == node]

    def stop(self) -> None:
        """``sdtool -e``: no test any more."""
        for identifier in list(self.rows):
            self._cancel(identifier)
            self._set(
                identifier,
                sa_state="Idle",
                test_state="Unknown",
                init_state="UnInitWorked",
                proof="",
                failed="",
                tested=None,
                late=False,
            )

    def shut(self, node: str, state: str) -> None:
        """Note how a kill of `node` ended, as the fencer's history tells."""
        for identifier in self.of(node):
            if self.rows[identifier].shut_state != state:
                self._set(identifier, shut_state=state, sa_state="Killing" if state == "Killing" else "Idle")

    def start_anew(self) -> None:
        """The facility starts (``sdtool -b``, the end of a window): how old kills ended is shown no more."""
        for identifier, row in self.rows.items():
            if row.shut_state in ("KillWorked", "KillFailed"):
                self._set(identifier, shut_state="Unknown")

    def _see_window(self, cib: ET.Element) -> None:
        found, _ = record.read_or_why(cib)
        if found is None:
            return
        before, self._window = self._window, (found.window, found.open)
        if before is None or found.open:
            return
        # Another number: a whole window went by while this node did not look. (0: a -u without a window.)
        if before[1] or (found.window and before[0] != found.window):
            self.start_anew()

    async def _test(self, identifier: str, epoch: int) -> None:
        async with self._slots:
            self._set(identifier, sa_state="Init-ing", init_state="Init-ing", late=False)
            device = self.rows[identifier].device
            trouble = _init_trouble(device)
            if trouble:
                self._set(
                    identifier,
                    sa_state="Idle",
                    init_state="InitFailed",
                    test_state="Unknown",
                    said=trouble,
                    proof="",
                    failed=proof(FAILED, epoch),
                    tested=None,
                )
                return
            self._set(identifier, sa_state="Testing", init_state="InitWorked", test_state="Testing")
            options = {k: v for k, v in device.parameters.items() if not k.startswith("pcmk_")}
            result = await agents.run(device.agent, "status", options, TEST_LIMIT_SECONDS)
            worked = result.outcome is Outcome.DONE
            said = "" if worked else result.said or f"{device.agent} status: {result.outcome.value}"
            shown = proof(aims.fingerprint(device.parameters), epoch) if worked else ""
            state = "TestWorked" if worked else "TestFailed"
            self._set(
                identifier,
                sa_state="Idle",
                test_state=state,
                said=said,
                proof=shown,
                failed="" if worked else proof(FAILED, epoch),
                tested=time.monotonic(),
                late=result.outcome is Outcome.TIMED_OUT,
            )

    def _set(self, identifier: str, **changes: str | float | None) -> None:
        row = self.rows.get(identifier)
        if row is not None:
            self.rows[identifier] = replace(row, **changes)  # type: ignore[arg-type]
            self._changed()

    def _cancel(self, identifier: str) -> None:
        task = self._running.pop(identifier, None)
        if task is not None and not task.done():
            task.cancel()


def _init_trouble(device: Device) -> str:
    """Why an agent cannot even begin: no such device, no program, no secret on this node."""
    if not device.agent:
        return f"the CIB has no device {device.id}"
    if not Path(agents.AGENT_DIR, device.agent).exists():
        return f"{agents.AGENT_DIR}/{device.agent} is not installed"
    secret = device.parameters.get("password_file")
    if secret and not Path(secret).is_file():
        return f"{secret} is missing on this node: repeat clsnmpsetup -a here"
    return _file_trouble(device) if device.ordinary else ""


def _file_trouble(device: Device) -> str:
    """What is wrong with a file that an ordinary agent reads its secret from."""
    for path in host_fencing.files_named(device.parameters):
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            return f"{path} on this node: {error.strerror}; {device.agent} needs it (clovmmigrate.conf)"
        if not stat.S_ISREG(mode):
            return f"{path} on this node is no file; {device.agent} needs it (clovmmigrate.conf)"
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            return f"{path} on this node may be used by others than its owner: chmod go= {path}"
    return ""
