"""A driven migration that raises the heartbeat just in time, in one command that may be killed at any step.

`Driven` plays commands/migrate_run.py and migrate_raise.py around the production planner: open, raise the
others, come nearer, follow, let go, lower, close. When it is killed the copy goes on by itself, perhaps
slowly, and switches over some day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from standfast.core import heartbeat, holding, raising
from standfast.core.record import Mode, Phase
from standfast.core.steps import CloseGoal, Done, LowerGoal, OpenGoal, RaiseGoal
from standfast.sim.command import Command
from standfast.sim.guarded_story import GuardedStory
from standfast.sim.kernel import Steps
from standfast.sim.site import Guest

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.ring import Ring
    from standfast.sim.store import Cib
    from standfast.sim.story import Story

BUDGETS_S = (20, 33, 60, 120)
LEASES_S = (300, 900, 1800)
SWITCH_LIMIT_MS = 60_000
COMMAND_LIMIT_MS = 600_000
SLOWLY_MS = (2_000, 120_000)
"""What is held and has no command any more switches over after that."""
DIES_BETWEEN = 0.2
"""Share of the commands that die at no step, but between two goals."""
EARLY = 0.5
"""Share of the raises that begin long before the copy is near its end. (The others: as it is held there.)"""
LOOK_MS = 500
NEARER_LIMIT_S = holding.NEARER_LIMIT_SECONDS
PACED_MS = (0, round(holding.PACED_LIMIT_SECONDS * 1000))
STOOD_STILL_MS = round(holding.STOOD_STILL_SECONDS * 1000)
OVER_MS = (200, 12_000)
"""So long after its command meant to follow, the first pass is over, whoever looks."""
LONG = 0.2
"""Share of the blackouts that outlast the budget."""
OUTCOMES = ("moved",) * 6 + ("failed",)
MARGIN_S = 3.0
"""So much shorter than the budget a blackout is that must drop nobody."""
QUIET_MS = 30_000
"""So long nobody has interfered."""
LEFT_LIMIT_S = 75.0
"""Five seconds, 15 for the node before it, and a command with a lost race or two."""


class Driven(Command):
    """``standfast migrate --raise just-in-time``."""

    def __init__(self, story: Story, node: Node, guest: Guest, target: str) -> None:
        super().__init__(story.world, node, "migrate", lambda cib: None)
        rng = story.kernel.rng
        self.story, self.guest, self.target = story, guest, target
        self.budget, self.lease = rng.choice(BUDGETS_S), rng.choice(LEASES_S)
        self.outcome = rng.choice(OUTCOMES)
        self.interrupted = story.kernel.chance(0.1)
        """The operator wants it cancelled while it is held."""
        self.dies_after = ""
        """It is killed once it has done that."""
        self.let_go = False

    def run(self) -> Steps:
        """From the opening to the closing. None: it was killed."""
        yield self.kernel.between(100, 300)
        outcome = yield from self.toward(self._opening(self.node.cib))
        if not isinstance(outcome, Done):
            return outcome
        opened = self.memory.record
        window = opened.window if opened is not None else 0
        moved = self._begin()
        if moved is not None:
            raised = yield from self._raised(window)
            if raised:
                raised = yield from self._come_nearer()
            if raised is None:
                return None
            if raised:
                before = self.node.runtime
                self._fuse(heartbeat.timeout_ms(before))
                yield from self._own(raising.own_timers(self.budget))
                if self.dies_after == "raise":
                    return None
                if (yield from self._in_force(window)):
                    yield from self._switch_over()
                else:
                    self._cancel()
                if self.dies_after == "switch-over":
                    return None
                yield from self._own({name: before[name] for name in heartbeat.TIMERS})
            else:
                self._cancel()
            outcome = yield from self.toward(LowerGoal(window, self._epoch()))
            if outcome is None:
                return None
            yield moved
        yield self.kernel.between(500, 2_000)
        return (yield from self.toward(self._closing()))

    def _opening(self, cib: Cib) -> OpenGoal:
        return OpenGoal(
            self.guest.node, 0, self.lease, False, "", cib.record.epoch, Mode.GUARDED, self.target,
            just_in_time=True,
        )  # fmt: skip

    def _closing(self) -> CloseGoal:
        guest = self.guest
        return CloseGoal(guest.node, guest.name, guest.host, since_epoch=self._epoch())

    def _epoch(self) -> int:
        return self.node.cib.record.epoch

    # -- at the hosts -------------------------------------------------------------------------------------

    def _begin(self) -> Any:
        """The order to migrate, held near the end of its copy; None: it has nothing to move."""
        guest, kernel = self.guest, self.kernel
        if not guest.os_alive or guest.moving_to or guest.host == self.target:
            return None
        guest.held = True
        budget_ms = self.budget * 1000
        longest = 2 * budget_ms if kernel.chance(LONG) else budget_ms - int(MARGIN_S * 1000)
        blackout_ms = kernel.between(100, longest)
        world = self.world
        return world.move(guest, self.target, self.outcome, announced=True, blackout_ms=blackout_ms)

    def _raised(self, window: int) -> Steps:
        """Whether every member runs the raised timeout, and it is to be let go. None: killed."""
        early = self.world.fuse.random() < EARLY
        while self.guest.moving_to and not (early or self.guest.at_its_end):
            yield 200
        goal = RaiseGoal(self.guest.node, window, self.budget, self._epoch())
        outcome = yield from self.toward(goal)
        if outcome is None:
            return None
        return isinstance(outcome, Done) and not self.interrupted and bool(self.guest.moving_to)

    def _come_nearer(self) -> Steps:
        """Whether the guest is on its way still, and this node has not stood still. None: killed."""
        guest, kernel = self.guest, self.kernel
        seen_ms = kernel.now_ms
        until_ms = seen_ms + round(1000 * (NEARER_LIMIT_S + self.budget))
        paced_ms = self.world.fuse.randint(*PACED_MS)
        self._pass_goes_on(paced_ms + self.world.fuse.randint(*OVER_MS))
        if self.dies_after == "nearer":
            return None
        ends_ms = None
        while guest.moving_to and guest.held and kernel.now_ms < until_ms:
            if ends_ms is None and guest.at_its_end:
                ends_ms = kernel.now_ms + paced_ms
            if ends_ms is not None and kernel.now_ms >= ends_ms:
                break
            yield LOOK_MS
            # By the clock of the source, which does not stop with this node.
            if kernel.now_ms - seen_ms > STOOD_STILL_MS:
                return False
            seen_ms = kernel.now_ms
        return bool(guest.moving_to)

    def _pass_goes_on(self, rest_ms: int) -> None:
        """The copy is at its hosts: it comes to its end whether this node looks or not. What nobody watches
        takes all of its blackout (a real one only what QEMU allows, 0.3 s)."""
        guest, move = self.guest, self.guest.moves

        def over() -> None:
            if guest.moves == move and guest.held and not self.let_go:
                self.kernel.say(guest.name, "is through its pass before it was let go")
                guest.held = False

        def look() -> None:
            if guest.moves == move and guest.moving_to and not guest.at_its_end:
                self.kernel.at(LOOK_MS, look)
            else:
                self.kernel.at(rest_ms, over)

        look()

    def _fuse(self, timeout_ms: int) -> None:
        check = self.world.check
        check.now_ms = self.kernel.now_ms
        check.held_with_its_fuse(self.node.name, timeout_ms, self.budget * 1000)

    def _own(self, timers: Mapping[str, int]) -> Steps:
        """This node's own corosync, through its map: no other node's, and no file."""
        yield self.world.fuse.randint(1, 20)
        self.node.runtime = {**self.node.runtime, **timers}
        shown = heartbeat.timeout_ms(self.node.runtime)
        self.kernel.say(self.node.name, "its own heartbeat timeout is %d ms now", shown)

    def _in_force(self, window: int) -> Steps:
        """Whether all others run it still, by this node's copy."""
        snapshot, _ = yield from self._take(False, False)
        goal = RaiseGoal(self.guest.node, window, self.budget, self._epoch())
        if why := raising.still_raised(snapshot, goal):
            self.kernel.say(self.node.name, "is not in force any more: %s", why)
        return not why

    def _switch_over(self) -> Steps:
        """The rate is given back. It ends as the guest runs on, or at its limit."""
        guest, world, record = self.guest, self.world, self.memory.record
        number = record.window if record is not None else 0
        if not guest.in_blackout:  # else it is told as not raised
            world.let_go(guest, number, self.budget * 1000)
        guest.held, self.let_go = False, True
        until_ms = self.kernel.now_ms + SWITCH_LIMIT_MS + self.budget * 1000
        while guest.moving_to and self.kernel.now_ms < until_ms:
            yield 100
        self._cancel()

    def _cancel(self) -> None:
        self.guest.held = False
        if self.guest.moving_to:
            self.world.site.cancel(self.guest.host, self.guest.name)


class RaiseStory:
    """The people of one driven move."""

    def __init__(self, story: Story) -> None:
        self.story, self.world, self.kernel = story, story.world, story.kernel

    def window(self, guest: Guest, target: str) -> Steps:
        """One command, and what is typed after it."""
        story, kernel = self.story, self.kernel
        able = [node for node in self.world.nodes.values() if node.running and node.joined]
        nodes = [node for node in able if node.name != guest.node]
        if not nodes:
            return
        driven = Driven(story, kernel.rng.choice(nodes), guest, target)
        if kernel.chance(0.5):
            # Half of them around the raise.
            driven.dies_at = kernel.rng.randint(1, 28) if kernel.chance(0.5) else kernel.rng.randint(4, 7)
        elif self.world.fuse.random() < DIES_BETWEEN:
            driven.dies_after = self.world.fuse.choice(("nearer", "raise", "switch-over"))
        ended: list[Any] = []
        process = story.begin(driven, ended.append)
        if process is None:
            return
        self._someone_dies(guest)
        began_ms = self.kernel.now_ms
        # A node that dies takes its command with it; one that hangs keeps it for ever.
        while process.alive and not ended and driven.node.commanding is process:
            yield 500
            if self.kernel.now_ms - began_ms > COMMAND_LIMIT_MS:
                break
        if guest.held and guest.moving_to:
            yield from self._left(guest)
        elif not driven.let_go and guest.held:
            guest.held = False
        while guest.moving_to:
            yield 1_000
        killed = ended == [None]
        yield kernel.between(100, 150_000 if killed else 20_000)
        for _ in range(kernel.rng.choice((1, 1, 2, 3))):
            outcome = yield from story.command("-u", story.close(guest))
            if isinstance(outcome, Done):
                break
            yield kernel.between(1_000, 30_000)

    def _left(self, guest: Guest) -> Steps:
        """Its command is gone: the copy goes on at the smallest rate."""
        yield self.kernel.between(*SLOWLY_MS)
        guest.held = False

    def _someone_dies(self, guest: Guest) -> None:
        if not self.kernel.chance(0.15):
            return
        how = self.kernel.rng.choice(("hangs", "stopped", "source off"))
        guarded = GuardedStory(self.story)

        def now() -> None:
            if guest.os_alive and not guest.hung and not self.story.faults.mended:
                self.story.faults.happened.append(f"the mover {how}")
                self.story.faults.touched()
                guarded.die(guest, how)

        self.kernel.at(self.kernel.between(3_000, 60_000), now)


class Watch:
    """Judges what is raised just in time, from outside."""

    def __init__(self, story: Story) -> None:
        self.story, self.world, self.kernel = story, story.world, story.kernel
        runs = heartbeat.expected_runtime(self.world.base, len(self.world.nodes))
        self._timeout_ms = heartbeat.timeout_ms(runs)

    def _up(self, ring: Ring) -> bool:
        """Whether, in an open window, a member that can follow runs a longer timeout than its own."""
        nodes = [self.world.nodes[name] for name in ring.members]
        long = [node for node in nodes if heartbeat.timeout_ms(node.runtime) > self._timeout_ms]
        able = [node for node in long if not node.deaf and not node.file_trouble]
        return ring.cib.record.phase is Phase.OPEN and bool(able)

    def steps(self) -> Steps:
        """Until the end of the run: how long it stands raised with nobody who drives it, while somebody is
        there to lower it. A ring that stands still lets nobody."""
        left_s = 0.0
        while not self.story.over:
            yield 1_000
            ring = self.world.main_ring()
            if ring is None or ring.cib.damage or not self._up(ring):
                left_s = 0.0
                continue
            owner = self.world.nodes[ring.cib.record.owner]
            driven = owner.commanding is not None and owner.commanding.alive
            able = all(self.world.daemons[name].alive for name in ring.members)
            quiet_ms = self.kernel.now_ms - self.world.clean_since_ms
            troubled = quiet_ms < QUIET_MS or self.world.edited
            if driven or troubled:
                left_s = 0.0
            elif able and not ring.stalled:
                left_s += 1.0
            self.world.check.now_ms = self.kernel.now_ms
            self.world.check.left_raised(left_s, LEFT_LIMIT_S)
