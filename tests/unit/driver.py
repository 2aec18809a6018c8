"""Plays a command against a FakeCluster: asks the planner, does its step, asks again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fake_cluster import OPEN, FakeCluster, LostRaceError

from standfast.core.record import Phase
from standfast.core.steps import Barrier, Decision, Done, Goal, OpenGoal, Reload, Stop, Wait
from standfast.core.window import MAX_STEPS, decide


class Command:
    """One clovmmigrate on node `me`, as `standfast.execute` runs it. Waits run out at the second look."""

    def __init__(self, cluster: FakeCluster, goal: Goal, me: str) -> None:
        self.cluster, self.me = cluster, me
        self.goal = replace(goal, since_epoch=cluster.record.epoch)
        self._epoch, self._reloads, self._barriers, self._aborted = -1, 0, 0, False
        self._waited: frozenset[str] = frozenset()
        self._expired: frozenset[str] = frozenset()
        self.alive(True)

    def alive(self, yes: bool) -> None:
        """The daemon sees the command begin, and sees it end, in whatever way."""
        self.cluster.nodes[self.me].commanding = yes
        self.cluster.sync()

    def look(self) -> Decision:
        """What the planner says now."""
        if self.cluster.record.epoch != self._epoch:
            self._epoch, self._reloads, self._barriers = self.cluster.record.epoch, 0, 0
            self._waited = self._expired = frozenset()
        if self._aborted and self.cluster.record.phase is Phase.IDLE:
            return Stop((), unfinished=False)
        seen = self.cluster.snapshot(self.me, self._reloads, self._expired)
        return decide(replace(seen, barriers=self._barriers), self.goal)

    def act(self, step: Decision) -> None:
        """Do it. A race that is lost changes nothing: the next look sees the other's record."""
        if isinstance(step, Wait):
            self._expired |= {step.key} & self._waited
            self._waited |= {step.key}
        self._reloads += isinstance(step, Reload)
        self._barriers += isinstance(step, Barrier)
        abort = getattr(getattr(step, "record", None), "abort", False)
        self._aborted = self._aborted or (isinstance(self.goal, OpenGoal) and abort)
        try:
            self.cluster.do(step, self._epoch)
        except LostRaceError:
            self.cluster.log.append("lost the race")


def drive(
    cluster: FakeCluster,
    goal: Goal,
    me: str = "n1",
    limit: int = MAX_STEPS,
    disturb: Callable[[FakeCluster, int], None] = lambda cluster, step: None,
) -> Decision | None:
    """Ask and do until an end or for `limit` steps (None: killed there)."""
    command = Command(cluster, goal, me)
    try:
        for number in range(limit):
            disturb(cluster, number)
            cluster.sync()
            step = command.look()
            if isinstance(step, Done | Stop):
                return step
            command.act(step)
        return None
    finally:
        command.alive(False)


def codes(decision: Decision | None) -> list[str]:
    """The codes of a refusal."""
    assert isinstance(decision, Stop), decision
    return [message.code for message in decision.messages]


def opened(count: int = 2, goal: OpenGoal = OPEN) -> FakeCluster:
    """A cluster in which this window is open."""
    cluster = FakeCluster(count)
    assert isinstance(drive(cluster, goal), Done)
    return cluster
