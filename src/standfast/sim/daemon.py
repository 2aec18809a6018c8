"""standfastd as its node lives it: follow the record, keep the file, test the agents, report, alarm.

Mirrors daemon/main.py, daemon/heartbeat_duty.py and daemon/board.py, which do their work with files and
sockets; what the file must hold is decided by the production functions (core.members, core.owed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from standfast.core import confirmed, evidence, heartbeat, members, owed, xscf
from standfast.core.evidence import GuestState
from standfast.core.gate import plainly_on
from standfast.core.owed import Debt
from standfast.core.record import Phase, Record
from standfast.core.report import Report, proof
from standfast.sim.clocks import Measuring
from standfast.sim.kernel import Steps
from standfast.sim.lease import Lease
from standfast.sim.raised import Raised
from standfast.sim.store import Cib, kill_levels, written
from standfast.sim.strays import TURN_MS, Strays

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

TICK_WINDOW_MS = 1_000
TICK_IDLE_MS = 10_000
AWAY_MS = 1_000
ALARM_MS = 60_000
TEST_PERIOD_MS = 600_000


@dataclass
class Row:
    """One agent as tested from this node."""

    fingerprint: str
    state: str = "Unknown"
    proof: str = ""
    test: int = 0


class Daemon:
    """One node's standfastd."""

    def __init__(self, world: World, node: Node) -> None:
        self.world = world
        self.node = node
        self.kernel = world.kernel
        self.alive = True
        self.run = 0
        self.known: frozenset[str] = frozenset()
        self.rows: dict[str, Row] = {}
        self.hosts: dict[str, str] = {}
        self.proven_since = 0
        self._looking = self._taking = self._writing = False
        self._aims: object = None
        self._last: Report | None = None
        self.lease: Lease
        self.raised: Raised
        self.strays = Strays(world, node)
        self.measuring = Measuring(world, node)
        for aim in node.cib.aims.values():
            for device, fingerprint in aim.proofs.items():
                self.rows[device] = Row(fingerprint, "TestWorked", proof(fingerprint, node.cib.record.epoch))
        self._aims = node.cib.aims
        self._begin(first_ms=self.kernel.between(1_000, TEST_PERIOD_MS))

    # -- life ----------------------------------------------------------------------------------------------

    def _begin(self, first_ms: int) -> None:
        self.run += 1
        run = self.run

        def forever(period_ms: int, do: str) -> Steps:
            while self.alive and self.run == run:
                getattr(self, do)()
                yield period_ms

        def tests() -> Steps:
            yield first_ms
            while self.alive and self.run == run:
                record = self.node.cib.readable
                if record is not None and (not record.open or record.waits_for_clocks):
                    self.retest()
                    yield TEST_PERIOD_MS
                else:
                    yield 1_000 if self.world.short_ticks else 5_000

        self.node.spawn(forever(ALARM_MS, "alarm"))
        self.node.spawn(forever(AWAY_MS, "away"))
        self.strays = Strays(self.world, self.node)
        boot = self.node.boot
        self.kernel.at(0, lambda: self._look_for_strays(run, boot))
        if self.world.kills:
            self.node.spawn(self._watch(run))
            self.lease = Lease(self.world, self.node)
            self.raised = Raised(self.world, self.node)
            self.node.spawn(forever(AWAY_MS, "keep_lease"))
        if self.world.clocks.lag:
            self.measuring = Measuring(self.world, self.node)
            self.node.spawn(self.measuring.forever(run))
        self.node.spawn(tests())
        self.node.later(0, self.look)

    def die(self) -> None:
        """Killed. Its last report stays with the attribute manager."""
        if self.alive:
            self.alive = False
            self.kernel.say(self.node.name, "its standfastd is killed")

    def started(self) -> None:
        """Begun (anew), also with the node's boot: it knows nothing."""
        self.alive = True
        self.known, self.rows, self._aims, self._last = frozenset(), {}, None, None
        self.proven_since, self._looking, self._taking, self.hosts = 0, False, False, {}
        self._writing = False
        self.node.later(1_000, lambda: self._begin(first_ms=500))

    # -- looking -------------------------------------------------------------------------------------------

    def poke(self, delay_ms: int) -> None:
        """The store has changed: look soon."""
        if self.alive and not self._looking:
            self._looking = True
            self.node.later(delay_ms, self.look)

    def away(self) -> None:
        """A guest on its way while its node is away is noted for this node's gate (daemon/away.py)."""
        node = self.node
        self._see_members()
        for name, aim in node.cib.aims.items():
            if self.alive and name != node.name and name not in node.ring.members:
                site = self.world.site
                answers = [site.ask(host, aim.guest) for host in site.hosts if not site.silent(host)]
                if evidence.on_its_way(answers, aim.host) is not None:
                    node.sightings.held(name)

    def _look_for_strays(self, run: int, boot: int) -> None:
        """Guests that somebody moves without a window (daemon/stray_duty.py). Beside the run: what waits
        on a node that stands still is carried out in an order of chance."""
        node = self.node
        if self.alive and self.run == run and node.up and node.boot == boot:
            if not node.still:
                self.strays.turn()
            self.kernel.at(TURN_MS, lambda: self._look_for_strays(run, boot))

    def keep_lease(self) -> None:
        """Past its lease a window is closed, armed or alarmed (daemon/lease_duty.py); what was left raised
        is lowered."""
        self.raised.step()
        self.lease.step()

    def _mover(self) -> str:
        """The mover of a guarded window, as a node sees it that is not the mover (daemon/guard_duty.py)."""
        return self._mover_of(self.node.cib.readable)

    def _mover_of(self, record: Record | None) -> str:
        mover = record.guarded_mover if record is not None else ""
        return mover if mover != self.node.name else ""

    def _watch(self, run: int) -> Steps:
        """In a guarded window, each second: where does the mover's guest run, and is it away?"""
        followed = confirmed.Followed()
        while self.alive and self.run == run:
            node, site = self.node, self.world.site
            record = node.cib.readable
            mover = self._mover_of(followed.of(record, damaged=bool(node.cib.damage)))
            aim = node.cib.aims.get(mover)
            if aim is not None:
                if mover not in node.ring.members:
                    node.sightings.dropped(mover, quorate=self.world.fencer.quorate(node.ring))
                answers = site.ask_all(aim.guest)
                silent = any(answer.state is GuestState.SILENT for answer in answers)
                yield 2_000 if silent else 30 + int(self.world.extra.random() * 120)
                if words := followed.heard(answers):
                    self._overtake(words)
                if where := plainly_on(answers):
                    node.sightings.plain(aim.guest, where)
            yield AWAY_MS

    def _overtake(self, words: Mapping[str, int]) -> None:
        """Hosts answer that a person has called dead: noted here, and in the record for all."""
        for host, epoch in words.items():
            self.node.sightings.overtaken(host, epoch)

        def change(now: Cib) -> Cib:
            record = None if now.damage else confirmed.overtake(now.record, words)
            return now if record is None else written(now.record.epoch, record)(now)

        if not self._writing:
            self._writing = True
            what = "somebody that was called dead has answered"
            self.world.network.write(self.node, change, what, 10_000)(lambda answer: self._written())

    def _written(self) -> None:
        self._writing = False

    def _killing(self) -> str:
        mover = self._mover()
        devices = self.node.fencing
        whole = mover in devices.guarded and devices.levels[mover] == kill_levels(mover)
        return mover if mover and whole else ""

    def tick(self) -> None:
        """The membership has changed, or something that is looked at on each tick only."""
        self.node.later(self.kernel.between(150, 500), self.away)
        record = self.node.cib.readable
        period = TICK_WINDOW_MS if record is not None and record.open else TICK_IDLE_MS
        if self.alive:
            self.node.later(self.kernel.between(0, period), self.look)

    def values(self) -> None:
        """The running values have changed; in a window they are watched closely."""
        record = self.node.cib.readable
        if record is not None and record.open:
            if self.alive:
                self.node.later(self.kernel.between(10, 40), self.look)
        else:
            self.tick()

    def look(self) -> None:
        """One round: membership, record, file, tests, report."""
        self._looking = False
        if not self.alive:
            return
        node = self.node
        self._see_members()
        record = node.cib.readable
        if record is not None:
            node.sightings.see(record)
        if self.world.clocks.lag and self.measuring.ask(record):
            node.spawn(self.measuring.quick(self.run))
        self._keep_file(record)
        self._follow()
        self.report()

    def _see_members(self) -> None:
        """A change of the ring wakes the daemon (`_ring_moved`): who came back is noted at once."""
        present = self.node.ring.members
        if self.alive:
            self.node.sightings.met(self.node.ring.number, present)
        if self.alive and present != self.known:
            for name in sorted(present - self.known):
                if self.known:
                    self.node.sightings.returned(name)
            self.known = present

    def _keep_file(self, record: Record | None) -> None:
        node = self.node
        fresh = members.comparable(heartbeat.expected_runtime(node.keys, len(self.world.guests)))
        entry = owed.entry_of(record, node.name)
        debt = owed.debt(entry, node.keys, node.runtime, fresh)
        asked = owed.keys_to_write(entry, debt, node.keys)
        if record is not None and record.open:
            asked = members.wanted_keys(record, node.name, node.keys, node.ring.members)
        if dict(asked) != node.keys and not node.file_trouble:
            node.keys = dict(asked)
            self.kernel.say(node.name, "writes corosync.conf: token %s", node.keys.get("token", "default"))
            debt = Debt.RELOAD if entry is not None else Debt.NONE
        if debt in (Debt.RELOAD, Debt.PAID) and record is not None and not self._taking:
            self._taking = True
            node.spawn(self._take_back(record, debt), lambda _: self._taken())

    def _take_back(self, record: Record, debt: Debt) -> Steps:
        """This node was away when a window closed: the next step back to its own values."""
        node, network = self.node, self.world.network
        self.kernel.say(node.name, "was away when a window closed; %s", debt.value)
        if debt is Debt.RELOAD:
            yield network.reload(node, 10_000)
        else:
            change = written(record.epoch, owed.without(record, node.name, owner=node.name))
            yield network.write(node, change, "nothing is owed any more", 10_000)
        yield 2_000

    def _taken(self) -> None:
        self._taking = False
        self.poke(20)

    def report(self) -> None:
        """Publish what is new."""
        node = self.node
        if not self.alive or not node.up:
            return
        record = node.cib.readable
        offsets, out, asked = self._clocks(record)
        text = Report(
            node=node.name,
            epoch=record.epoch if record is not None else 0,
            file_keys=dict(node.keys),
            file_error=node.file_trouble,
            structure=node.structure,
            runtime=dict(node.runtime),
            members=tuple(sorted(self.known)),
            config="same",
            agents={device: row.state for device, row in self.rows.items()},
            proofs={device: row.proof for device, row in self.rows.items() if row.proof},
            hosts=dict(self.hosts),
            facility=node.facility,
            killing=self._killing() if self.world.kills else "",
            clocks=offsets,
            clocks_out=out,
            clocks_at=asked,
            commanding=node.commanding is not None and node.commanding.alive,
            just_in_time=True,
        )
        if text != self._last or node.published is None:
            self._last = text
            self.world.network.publish(node, text)

    def _clocks(self, record: Record | None) -> tuple[dict[str, float], tuple[str, ...], int]:
        """What it tells of the others' clocks. In most runs all agree, and are measured at once."""
        if self.world.clocks.lag:
            return dict(self.measuring.offsets), self.measuring.out, self.measuring.asked
        asked = record.prove if record is not None and record.phase is Phase.CLOSING else 0
        return dict.fromkeys(sorted(self.known - {self.node.name}), 0.0), (), asked

    # -- tests ---------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        node = self.node
        due = []
        if node.cib.aims is not self._aims:
            self._aims = node.cib.aims
            for aim in node.cib.aims.values():
                for device, fingerprint in aim.proofs.items():
                    row = self.rows.get(device)
                    if row is None or row.fingerprint != fingerprint:
                        self.rows[device] = Row(fingerprint, test=row.test if row else 0)
                        due.append(device)
        record = node.cib.readable
        if node.facility != "running":
            return
        if record is not None and record.prove > self.proven_since and record.mover:
            self.proven_since = record.prove
            due += [device for device in self._of(record.mover) if device not in due]
        self.test(due, record.epoch if record is not None else 0)

    def _of(self, owner: str) -> list[str]:
        aim = self.node.cib.aims.get(owner)
        return list(aim.proofs) if aim is not None else []

    def retest(self) -> None:
        """Every agent, and every host."""
        record = self.node.cib.readable
        site = self.world.site
        self.hosts = {name: "no answer" if site.silent(name) else "" for name in site.hosts}
        self.test(list(self.rows), record.epoch if record is not None else 0)

    def test(self, devices: list[str], epoch: int) -> None:
        """Begin tests: the agent's `status` must see this guest running there."""
        for device in devices:
            row = self.rows[device]
            row.test += 1
            row.state = "Testing"
            self.node.later(
                self.kernel.between(200, 1500),
                lambda device=device, test=row.test: self._tested(device, test, epoch),  # type: ignore[misc]
            )
        if devices:
            self.report()

    def _tested(self, device: str, test: int, epoch: int) -> None:
        row = self.rows.get(device)
        if not self.alive or row is None or row.test != test:
            return
        aim = next((aim for aim in self.node.cib.aims.values() if device in aim.proofs), None)
        site = self.world.site
        worked = (
            aim is not None and not site.silent(aim.host) and xscf.is_live(site.status(aim.host, aim.guest))
        )
        row.state = "TestWorked" if worked else "TestFailed"
        row.proof = proof(row.fingerprint, epoch) if worked else ""
        if not worked and aim is not None:
            self.world.noticed(aim.node)
        self.report()

    # -- alarms --------------------------------------------------------------------------------------------

    def alarm(self) -> None:
        """Said each minute where a window is past its lease, or the record cannot be read."""
        node = self.node
        record = node.cib.readable
        if record is None or (
            record.open and node.sightings.see(record).window_seconds > record.lease_seconds
        ):
            self.world.alarmed(node.name)
