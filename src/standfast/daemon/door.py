"""What the daemon answers: to sdtool, to the gate, and to the commands that drive a window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from standfast.cluster import fencer
from standfast.cluster.cib import CibUnknown
from standfast.cluster.record_change import NoRecordError
from standfast.cluster.run import EngineError
from standfast.core import devices
from standfast.core.facility import LastNodeError
from standfast.core.record import RecordError
from standfast.daemon.kills import Busy, Kills
from standfast.daemon.main import Daemon
from standfast.daemon.server import HOLD, Answer
from standfast.hosts import make, power
from standfast.hosts.asking import ask_everywhere

KILL_LIMIT_SECONDS = 300.0
MAX_EVIDENCE_MS = 10_000
MAX_POWER_MS = 10_000


class Door:
    """One method for each request."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._kills = Kills(_fence)
        self._table: dict[str, Callable[[Answer], Awaitable[Answer]]] = {
            "status": self._status,
            "evidence": self._evidence,
            "power": self._power,
            "facility": self._facility,
            "retest": self._retest,
            "reopen-logs": self._reopen_logs,
            "kill": self._kill,
            "command": self._command,
        }

    async def handle(self, request: Answer) -> Answer:
        """Answer one request; an unknown one is named."""
        method = self._table.get(str(request.get("op")))
        if method is None:
            return _no(f"standfastd does not know the request {request.get('op')!r}", "standfastd --version")
        return await method(request)

    def released(self) -> None:
        """The command that drove a window has ended, in whatever way."""
        self._daemon.commanding -= 1
        self._daemon.touched()

    async def _status(self, _: Answer) -> Answer:
        known = self._daemon.known
        record = known.record
        return {
            "ok": True,
            "node": known.node,
            "facility": self._daemon.facility,
            "engine": known.engine,
            "window": None
            if record is None
            else {
                "phase": record.phase.value,
                "epoch": record.epoch,
                "mode": record.mode.value,
                "proven": record.proven,
                "left": record.left,
                "mover": record.mover,
                "why": record.why,
            },
            "alarms": self._daemon.alarms(),
            "unannounced": self._daemon.strays.shown(),
            "clocks": {
                "error": self._daemon.clocks.told.error,
                "hosts": self._daemon.clocks.shown(),
            },
            "agents": [
                {
                    "host": row.host,
                    "agent": row.agent,
                    "sa_state": row.sa_state,
                    "shut_state": row.shut_state,
                    "test_state": row.test_state,
                    "init_state": row.init_state,
                    "said": row.said,
                    "tested_seconds_ago": row.tested_seconds_ago,
                }
                for row in self._daemon.board.rows.values()
            ],
        }

    async def _evidence(self, request: Answer) -> Answer:
        guest = str(request.get("guest", ""))
        limit = min(_number(request.get("limit_ms"), 900), MAX_EVIDENCE_MS) / 1000
        answers = (await ask_everywhere(self._daemon.hosts.values(), [guest], limit))[guest]
        return {
            "ok": True,
            "answers": [
                {
                    "host": a.host,
                    "state": a.state.value,
                    "detail": a.detail,
                    "identity": a.identity,
                    "job": a.job,
                }
                for a in answers
            ],
        }

    async def _power(self, request: Answer) -> Answer:
        """Is the whole machine of this control domain off? Asked of its service processor alone."""
        name, known = str(request.get("host", "")), self._daemon.known
        listed = known.config.config.hosts if known.config is not None else None
        entry = next((host for host in listed.hosts if host.name == name), None) if listed else None
        if listed is None or entry is None or known.tree is None:
            return _no(f"there is no control domain {name}", "see clovmmigrate.conf")
        if entry.kind != "ldm":
            return {"ok": True, "off": None, "said": f"{name} has no XSCF to ask"}
        access = make.access_of(entry, listed, devices.account(known.tree))
        limit = min(_number(request.get("limit_ms"), 3000), MAX_POWER_MS) / 1000
        off, said = await power.powered_off(access, limit)
        return {"ok": True, "off": off, "said": said}

    async def _facility(self, request: Answer) -> Answer:
        if not self._daemon.known.node:
            return _no("standfastd has not seen the cluster yet; nothing was changed", "crm_mon -1")
        if request.get("want") == "stop":
            trouble = await self._stop_facility()
        elif request.get("want") == "start":
            trouble = await self._start_facility()
        else:
            return _no("want must be start or stop", "")
        self._daemon.touched()
        return trouble or {"ok": True, "facility": self._daemon.facility}

    async def _stop_facility(self) -> Answer | None:
        not_stopped = "the shutdown facility was not stopped"
        try:
            if await self._daemon.switch.stop(self._daemon.known.node):
                self._daemon.facility_moved()
        except LastNodeError:
            return _no(
                "this is the last node whose shutdown facility runs: nobody could kill a lost node",
                "sdtool -b on another node first",
            )
        except NoRecordError as error:
            return _no(f"{error}; {not_stopped}", "clsnmpsetup -a, or standfast node add")
        except CibUnknown as error:
            return _no(f"{error}; whether the shutdown facility is stopped is not known yet", "sdtool -s")
        except RecordError as error:
            return _no(f"{error}; {not_stopped}", "cibadmin -Q -o crm_config")
        except EngineError as error:
            return _no(f"{error}; {not_stopped}", "crm_mon -1")
        return None

    async def _start_facility(self) -> Answer | None:
        later = "the shutdown facility starts as soon as the record can be written"
        try:
            await self._daemon.switch.start(self._daemon.known.node)
        except RecordError as error:
            return _no(f"{error}; {later}", "cibadmin -Q -o crm_config")
        except EngineError as error:
            return _no(f"{error}; {later}", "sdtool -s")
        self._daemon.facility_moved()
        self._daemon.kick()
        await self._daemon.tests.test_all()
        return None

    async def _retest(self, _: Answer) -> Answer:
        self._daemon.reread()
        self._daemon.kick()
        await self._daemon.tests.test_all()
        return {"ok": True}

    async def _reopen_logs(self, _: Answer) -> Answer:
        # Logs go to the journal; the gate opens its file for each line. Nothing is kept open.
        return {"ok": True}

    async def _kill(self, request: Answer) -> Answer:
        node = str(request.get("node", ""))
        if node not in {row.host for row in self._daemon.board.rows.values()}:
            return _no(f"{node or 'no node'} has no shutdown agents", "sdtool -s")
        if node == self._daemon.known.node:
            return _no("a node does not kill itself", "sdtool -k on another node")
        if self._daemon.facility != "running":
            return _no(f"the shutdown facility is stopped on this node; {node} was not killed", "sdtool -b")
        board = self._daemon.board
        try:
            ended = self._kills.begin(node)
        except Busy as error:
            return _no(str(error), "sdtool -s")
        board.shut(node, "Killing")
        try:
            await ended
        except fencer.FencingUnknown as error:
            board.shut(node, "Unknown")
            return _no(
                f"it is not known whether {node} was killed: {error}",
                f"crm_mon -1, then stonith_admin --history {node} --verbose",
            )
        except EngineError as error:
            board.shut(node, "KillFailed")
            return _no(f"{node} was not killed: {error}", "sdtool -s")
        except Exception:
            board.shut(node, "Unknown")
            raise
        board.shut(node, "KillWorked")
        return {"ok": True, "node": node}

    async def _command(self, _: Answer) -> Answer:
        self._daemon.commanding += 1
        self._daemon.touched()
        return {"ok": True, HOLD: True}


def _fence(node: str) -> None:
    fencer.fence(node, KILL_LIMIT_SECONDS)


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _no(error: str, hint: str) -> Answer:
    return {"ok": False, "error": error, "hint": hint}
