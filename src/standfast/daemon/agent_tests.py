"""When this node tests its shutdown agents, and with them the ways to every host.

An agent is tested when its device has changed or its secret has come, when a close asks for proof, when a
person asks (``sdtool -r``), and once in a period. What did not answer in time is asked again sooner: a node
that has just booted, or a host that was away for a moment, must not forbid a migration for a whole period.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from standfast.daemon import probe
from standfast.daemon.board import TEST_PERIOD_SECONDS, Board
from standfast.daemon.known import RETRY_SECONDS, Known
from standfast.hosts.base import Host

AGAIN_SECONDS = 15.0
"""After that a host that was silent is asked again, then after twice as long, and so on."""


@dataclass(frozen=True)
class Around:
    """What the tests need of the daemon around them."""

    hosts: Callable[[], Mapping[str, Host]]
    running: Callable[[], bool]
    """Whether the facility of this node runs: a stopped one tests nothing."""
    changed: Callable[[], None]
    """Something is new that a report tells."""
    anew: Callable[[], None]
    """Look at the running fencer anew too."""
    spawn: Callable[[Coroutine[None, None, None]], None]


class AgentTests:
    """One node's tests."""

    def __init__(self, known: Known, board: Board, around: Around) -> None:
        self._known = known
        self._board = board
        self._around = around
        self._proven_since = 0
        """The request for proof that was last followed: an epoch of the record."""
        self._outside = asyncio.Lock()

    def follow(self, altered: Sequence[str]) -> None:
        """Test what has changed and, once for each request of the record, what is to be proven."""
        found = self._known.record
        if not self._around.running():
            return
        mended = [identifier for identifier in self._board.mended() if identifier not in altered]
        due = [*altered, *mended]
        changed = bool(due)
        if found is not None and found.prove > self._proven_since:
            self._proven_since = found.prove
            asked = self._board.of(found.mover) if found.mover else self._board.rows
            due += [identifier for identifier in asked if identifier not in due]
        tests = self._board.test(due, self._epoch) if due else []
        if changed:
            # With a device or a secret the way to hosts without login may have come or gone.
            self._around.spawn(self._look_outside(tests, logins=bool(mended)))

    async def test_all(self) -> None:
        """Test every agent, ask every host, log in everywhere; returns when all is done."""
        if not self._around.running():
            return
        self._around.anew()
        await self._look_outside(self._board.test(list(self._board.rows), self._epoch), logins=True)

    async def periodically(self) -> None:
        """Until cancelled."""
        known = self._known
        while True:
            if known.engine and known.tree is not None and not known.on_the_move:
                # In a window a guest on the move proves nothing about its agents; closing asks for proof.
                await self.test_all()
                await self._rest()
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _rest(self) -> None:
        """One period, in which what was missed is asked again: soon at first, then ever more rarely."""
        known, over, pause = self._known, time.monotonic() + TEST_PERIOD_SECONDS, AGAIN_SECONDS
        while (left := over - time.monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            if not self._missed():
                pause = AGAIN_SECONDS
            elif self._around.running() and known.engine and not known.on_the_move:
                await self._try_again()
                pause *= 2

    def _missed(self) -> bool:
        probed = self._known.probed
        return bool(probed.late or self._board.late() or any(probed.hosts.values()))

    async def _try_again(self) -> None:
        """Ask the silent hosts, and the agents that had no answer in time. Who was refused waits for the
        whole period: a service processor may lock an account that is tried too often with a wrong password.
        """
        known, hosts = self._known, self._around.hosts()
        async with self._outside:
            silent = {name: hosts[name] for name, why in known.probed.hosts.items() if why and name in hosts}
            if silent:
                said = {**known.probed.hosts, **await probe.ask_hosts(silent)}
                known.probed = replace(known.probed, hosts=said)
            await asyncio.gather(*self._board.test(self._board.late(), self._epoch), return_exceptions=True)
            if late := known.probed.late:
                told = {way: why for way, why in known.probed.logins.items() if way not in late}
                self._told(await self._log_in(told), told)
        self._around.changed()

    @property
    def _epoch(self) -> int:
        return self._known.record.epoch if self._known.record is not None else 0

    async def _look_outside(self, tests: Sequence[asyncio.Task[None]], *, logins: bool) -> None:
        """Ask every host and, where `logins`, log in everywhere, once the tests have told where that works.

        One after the other: what is found with a password that has just come must not be overwritten.
        """
        known = self._known
        async with self._outside:
            said = await probe.ask_hosts(self._around.hosts())
            known.probed = replace(known.probed, hosts=said)
            if logins:
                await asyncio.gather(*tests, return_exceptions=True)
                self._told(await self._log_in(), {})
        self._around.changed()

    def _told(self, trials: Mapping[str, probe.Trial], before: Mapping[str, str]) -> None:
        """Take over what trials of logins told; what was known `before` and not tried stays."""
        logins = {way: trial.said for way, trial in trials.items()} | dict(before)
        late = frozenset(way for way, trial in trials.items() if trial.late)
        self._known.probed = replace(self._known.probed, logins=logins, late=late)

    async def _log_in(self, untried: Iterable[str] = ()) -> dict[str, probe.Trial]:
        """`untried`: ways that are left out, as if they worked."""
        rows = list(self._board.rows.values())
        # The password of a device that cannot begin may not be on this node yet.
        able = next((row.device for row in rows if row.init_state == "InitWorked"), None)
        if self._known.config is None:
            return {}
        listed = self._known.config.config.hosts
        if able is not None and able.ordinary:
            aims = self._known.aims()
            there = [aims[row.host].host for row in rows if row.proof and row.host in aims]
            return await probe.reach_all(listed, able, [*there, *untried])
        good = [row.device.parameters.get("ip", "") for row in rows if row.proof]
        return await probe.log_in(listed, able.parameters if able is not None else None, [*good, *untried])
