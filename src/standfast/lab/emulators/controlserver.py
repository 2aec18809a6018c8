"""The control socket: JSON lines in, JSON lines out. See `control` for the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from standfast.lab.emulators import migration, spconfig
from standfast.lab.emulators.faults import FaultError
from standfast.lab.emulators.model import Migration, Phase, WorldError
from standfast.lab.emulators.servers import Endpoint
from standfast.lab.emulators.site import Site
from standfast.lab.emulators.worldfile import WorldFile, known_hosts_lines, world_of
from standfast.lab.emulators.xscf import status_texts

MAX_LINE_BYTES = 1 << 20


class ControlServer:
    """Steers a site. Each command is a method `do_NAME`; its result must be JSON."""

    def __init__(self, site: Site, file: WorldFile, endpoints: list[Endpoint]) -> None:
        self._site, self._file, self._endpoints = site, file, endpoints
        self._server: asyncio.Server | None = None
        self.stop = asyncio.Event()

    async def listen(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._client, path=str(path), limit=MAX_LINE_BYTES)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            name = str(request.pop("do"))
            act: Callable[..., Awaitable[Any]] | None = getattr(self, f"do_{name}", None)
            if act is None:
                return {"ok": False, "error": f"no command {name!r}"}
            self._site.fresh()
            result = await act(**request)
            self._site.changed()
            for endpoint in self._endpoints:
                await endpoint.apply()
            return {"ok": True, "result": result}
        except TimeoutError:
            return {"ok": False, "error": "what was waited for did not come in time"}
        except (WorldError, FaultError, TypeError, ValueError, KeyError, AttributeError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    # --- looking -----------------------------------------------------------------------------

    async def do_state(self) -> dict[str, object]:
        """Everything, as it really is."""
        world = self._site.world
        names = sorted({d.name for h in world.hosts.values() for d in h.domains if not d.control})
        return {
            "hosts": {name: self._host(name) for name in world.hosts},
            "running": {name: world.running_on(name) for name in names},
            "migrations": [self._migration(m) for m in world.migrations],
            "doubles": list(world.doubles),
        }

    def _host(self, name: str) -> dict[str, object]:
        host = self._site.world.hosts[name]
        return {
            "ppar_id": host.ppar_id,
            "power": host.power.value,
            "current": host.current,
            "next_poweron": host.next_poweron,
            "configs": {c.name: c.names for c in host.configs.values()},
            "xscf": status_texts(self._site, host),
            "domains": {
                d.name: {
                    "state": d.state.value,
                    "flags": d.flags(),
                    "status": self._site.xscf_dialect.text(f"status.{d.status.value}"),
                    "machine": d.machine,
                    "hung": d.hung,
                }
                for d in host.domains
            },
        }

    def _migration(self, current: Migration) -> dict[str, object]:
        return {
            "name": current.name,
            "source": current.source,
            "target": current.target,
            "phase": current.phase.value,
            "progress": current.progress(self._site.fresh()),
            "reason": current.reason,
        }

    async def do_endpoints(self) -> dict[str, dict[str, list[object]]]:
        found: dict[str, dict[str, list[object]]] = {}
        for endpoint in self._endpoints:
            found.setdefault(endpoint.host.name, {})[endpoint.name] = [endpoint.address, endpoint.port]
        return found

    async def do_known_hosts(self) -> str:
        ports = {(e.host.name, e.name): e.port for e in self._endpoints}
        return "".join(known_hosts_lines(self._file, lambda host, name: ports[host, name]))

    async def do_log(self, since: int = 0, **wanted: object) -> list[dict[str, object]]:
        return self._site.log.query(since, **wanted)

    async def do_mark(self) -> int:
        return self._site.log.last

    # --- faults ------------------------------------------------------------------------------

    async def do_inject(
        self, kind: str, host: str, endpoint: str = "*", times: int | None = None, **params: object
    ) -> int:
        if kind == "status_frozen" and "texts" not in params:
            params["texts"] = status_texts(self._site, self._site.world.host(host))
        if host != "*":
            self._site.world.host(host)
        return self._site.faults.inject(kind, host, endpoint, times, params).number

    async def do_clear(self, **which: Any) -> int:
        return self._site.faults.clear(**which)

    async def do_faults(self) -> list[dict[str, object]]:
        return [fault.as_json() for fault in self._site.faults.all()]

    # --- the world ---------------------------------------------------------------------------

    async def do_migrate(self, name: str, target: str, source: str | None = None, **options: Any) -> str:
        """Begins a migration; answers its source."""
        where = source or next(iter(self._site.world.running_on(name)), "")
        migration.start(self._site.world, name, where, target, self._site.fresh(), **options)
        return where

    async def do_abort(self, name: str) -> None:
        current = self._site.world.migration_of(name)
        if current is None:
            raise WorldError("no-migration", name=name)
        migration.cancel(self._site.world, current.source, name, self._site.fresh())

    async def do_stall(self, name: str, stalled: bool = True) -> None:
        migration.stall(self._site.world, name, self._site.fresh(), stalled)

    async def do_lose_network(self, name: str, runs_on_target: bool) -> None:
        migration.lose_network(self._site.world, name, self._site.fresh(), runs_on_target)

    async def do_wait_migration(self, name: str, limit_seconds: float = 60.0) -> dict[str, object]:
        """Returns when the domain's last migration has ended, in whatever way."""
        last = [m for m in self._site.world.migrations if m.name == name]
        if not last:
            raise WorldError("no-migration", name=name)
        async with asyncio.timeout(limit_seconds):
            await self._site.until(lambda: last[-1].phase in (Phase.DONE, Phase.FAILED, Phase.LOST))
        return self._migration(last[-1])

    async def do_timing(self, **seconds: float) -> None:
        """Changes durations, such as migration_seconds, from now on."""
        known = vars(self._site.world.timing)
        self._site.world.timing = type(self._site.world.timing)(**{**known, **seconds})

    async def do_act(self, host: str, name: str, action: Any) -> bool:
        return self._site.world.act(host, name, action, self._site.fresh())

    async def do_hang(self, name: str, hung: bool = True) -> str:
        where = self._site.world.running_on(name)
        if not where:
            raise WorldError("not-active", name=name)
        self._site.world.hang(where[0], name, hung)
        return where[0]

    async def do_boot(self, host: str, name: str, policy: Any) -> None:
        self._site.world.domain(host, name).boot = policy

    async def do_stop(self, host: str, name: str, force: bool = True) -> None:
        self._site.world.stop(host, name, self._site.fresh(), force)

    async def do_start(self, host: str, name: str) -> None:
        self._site.world.start(host, name, self._site.fresh())

    async def do_save(self, host: str, name: str) -> None:
        spconfig.save(self._site.world.host(host), name, self._site.fresh())

    async def do_save_property(self, host: str, on: bool) -> None:
        self._site.world.host(host).save_after_migration = on

    async def do_degraded(self, host: str, degraded: bool = True) -> None:
        """The machine came up with less than its configuration wants."""
        self._site.world.host(host).degraded = degraded

    async def do_power_off(self, host: str, crashed: bool = False) -> None:
        self._site.world.power_off(host, self._site.fresh(), crashed)

    async def do_power_on(self, host: str) -> None:
        self._site.world.power_on(host, self._site.fresh())

    async def do_reset(self) -> None:
        """The world of the file again, no faults, an empty record (the log file keeps everything)."""
        fresh, world = world_of(self._file, self._site.fresh()), self._site.world
        for name, host in world.hosts.items():
            vars(host).update(vars(fresh.hosts[name]))
        world.timing = fresh.timing
        world.migrations.clear()
        world.doubles.clear()
        self._site.faults.clear()
        self._site.files.clear()
        self._site.log.forget()

    async def do_shutdown(self) -> None:
        self.stop.set()
