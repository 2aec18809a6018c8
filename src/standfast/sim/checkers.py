"""What must never happen, and what must happen in the end: judged by the truth alone.

Nothing of the core is imported here, and no opinion of the system is believed: the checkers are told what was
really killed, started, written, run and announced. S1 to S9 and L1 to L4 are those of docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_SLACK_SECONDS = 20.0
DEAD_FOR_SECONDS = 33.0
"""A member is held for 30 s after it came back, window or not, and may have died right after its return."""
QUIET_SECONDS = 20.0
AFTER_WINDOW_MS = 20_000
"""So long after a window a hold is still because of it: 15 s of settling, and one call that was under way."""
ALARM_SECONDS = 75.0
BACK_SECONDS = 33.0
"""A healthy guest was a member again after at most so long (measured)."""
HOLD_MARGIN_SECONDS = 15.0
"""An order that was given late, and slow, is not counted to the second."""
RECOVERY_SLACK_MS = 20_000
"""Two seconds of the invariant, the look of the simulated device, and one hold that was under way."""


@dataclass(frozen=True)
class Violation:
    """One invariant that was broken."""

    code: str
    at_ms: int
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.code} at {self.at_ms / 1000:.3f} s: {self.text}"


@dataclass(frozen=True)
class Killed:
    """One guest that was hit by a device, and what was true of it at that instant."""

    victim: str
    wanted: str
    alive: bool
    hung: bool
    loss: str
    """Why its node was lost the last time: blackout, freeze, hang, partition, death, or empty."""
    move_began_ms: int
    call_began_ms: int
    answers_good: bool
    """No host was silent or wrong while this was decided."""
    levels_whole: bool
    came_back: bool
    """It runs and is a member again, and this fencing was held by a gate because of a window, until now."""
    guarded: bool = False
    """The window of this run is guarded: only its mover is held."""
    untroubled: bool = False
    """Nothing but a blackout has kept it from being a good member for a long while."""
    lost_call: bool = False
    """A call of its fencing was lost with its executor, another one followed at its limit: as without us."""
    by_astray: str = ""
    """Of two nodes, well, it is hit by this one, which has just come out of a blackout elsewhere than its own
    devices aim, and sees nobody."""


@dataclass(frozen=True)
class Stopped:
    """One guest that a killing gate's order is about to stop, and what is true of it at that instant."""

    node: str
    alive: bool
    """It neither hangs nor is dead."""
    loss: str
    in_blackout: bool
    blackout_after_drop_s: float
    """For how long after the drop the present or last blackout lasts, left alone."""
    resumed_s: float | None
    """Since it ran again after a blackout; None: it had none."""
    seen_running: bool
    """Its host was asked between the end of its blackout and the order."""
    member_when_given: bool
    """It was a good member before the order was given, and is one."""
    untroubled: bool


@dataclass(frozen=True)
class Held:
    """One refusal of the gate, and what was true when it last looked."""

    target: str
    executor: str
    dead_for_s: float
    """Since the target's guest is off on all hosts; negative: it is not."""
    knows_for_s: float
    """By the executor's clock, since its copy of the store has this window in this boot; 0: it has none."""
    quiet_s: float
    """Since a host was last silent or wrong, and everything else is as it should be."""
    rule: str


@dataclass
class Window:
    """The window as it was announced to an operator."""

    number: int
    began_ms: int
    lease_s: int
    mover: str


@dataclass
class Checkers:
    """All checkers of one run."""

    now_ms: int = 0
    found: list[Violation] = field(default_factory=list)
    window: Window | None = None
    open_number: int = 0
    """Number of the window in the store, whatever its phase; 0: none."""
    store_epoch: int = 0
    store_lease_s: int = 0
    store_since_ms: int = 0
    closed_ms: int = -100_000
    """When the store last had no window any more that holds."""
    proven: bool = False
    """The window in the store is said to be proven: it holds nobody, and only its heartbeat is left."""
    alarmed_ms: int = -1
    hold_limit_s: float = 300.0
    spoiled: bool = False
    """An operator has written something of the window's by hand: what follows from that is not ours."""

    def fail(self, code: str, text: str) -> None:
        """Note a violation; the same words once."""
        if all((one.code, one.text) != (code, text) for one in self.found):
            self.found.append(Violation(code, self.now_ms, text))

    # -- killing and starting ------------------------------------------------------------------------------

    def killed(self, hit: Killed) -> None:
        """S8, at each reset."""
        if hit.victim != hit.wanted:
            if 0 <= hit.move_began_ms <= hit.call_began_ms and hit.answers_good:
                self.fail("S8", f"{hit.victim} was hit in place of {hit.wanted}, which was being moved")
            return
        if not hit.alive or hit.hung:
            return
        if hit.by_astray and hit.untroubled and hit.answers_good:
            self.fail("S8", f"{hit.victim}, which is well, was killed by {hit.by_astray}, which was moved")
        elif hit.guarded and self.window is not None and not self.proven:
            mover = hit.loss == "blackout" and hit.victim == hit.wanted
            if hit.untroubled and (mover or hit.loss != "blackout"):
                self.fail("S8", f"{hit.victim}, which is well, was killed in a guarded window")
        elif self.window is not None and not self.proven and self.lease_left_s() > 0:
            self.fail("S8", f"{hit.victim} was killed alive in an open window")
        elif hit.lost_call:
            return
        elif hit.loss == "blackout" and hit.answers_good and hit.move_began_ms <= hit.call_began_ms:
            self.fail("S8", f"{hit.victim} was killed because it was moved")
        elif hit.came_back:
            self.fail("S8", f"{hit.victim} was killed after it had come back, by a fencing held for a window")

    def stopped(self, hit: Stopped) -> None:
        """S8, at each order of a killing gate that is carried out on a copy."""
        if not hit.alive:
            return
        if hit.member_when_given and hit.untroubled:
            self.fail("S8", f"{hit.node} was stopped, which is a member")
            return
        if hit.loss != "blackout" or not hit.untroubled:
            return
        in_time = hit.blackout_after_drop_s < self.hold_limit_s - HOLD_MARGIN_SECONDS
        if hit.in_blackout:
            if in_time:
                self.fail("S8", f"{hit.node} was stopped in a blackout that ends in time")
        elif hit.resumed_s is not None and hit.resumed_s < BACK_SECONDS and (in_time or hit.seen_running):
            # However long it was: who was seen to run again, maybe because of our own cancel, has its time.
            self.fail("S8", f"{hit.node} was stopped {hit.resumed_s:.1f} s after its blackout")

    def cancelled(self, node: str, dropped_s: float) -> None:
        """S8, at each order of a killing gate that cancels a migration: for how long its node has been
        missing from the membership that may act."""
        if dropped_s < self.hold_limit_s - HOLD_MARGIN_SECONDS:
            self.fail("S8", f"the migration of {node} was cancelled {dropped_s:.0f} s after its drop")

    def proven_gone(self, node: str, executor: str, *, power: bool, on_its_way: bool) -> None:
        """S2, where a killing gate says done."""
        if power or on_its_way:
            what = "runs" if power else "can come alive"
            self.fail("S2", f"the killing gate of {node} on {executor} says done, and a copy {what}")

    def came_alive(self, guest: str, host: str) -> None:
        """S1, where an order of ours let another copy come alive."""
        self.fail("S1", f"stopping {guest} on {host} let its other copy come alive")

    def told_guarded(self, mover: str, fencers: Mapping[str, bool]) -> None:
        """S8, when an operator is told that a guarded window is open: whose own fencer would still use the
        mover's own devices."""
        for name, kills in fencers.items():
            if not kills:
                self.fail("S8", f"a window was called open, and the fencer of {name} does not hold {mover}")

    def armed(
        self, target: str, executor: str, *, member: bool, quorate: bool, moving: str, off: bool
    ) -> None:
        """S8, when a node arms a forgotten window. `moving`: guests that are on their way, and every host
        says so. `off`: the target is plainly off, so that its own agents do."""
        if target == executor:
            self.fail("S8", f"{executor} arms the window for itself")
        if member:
            self.fail("S8", f"{executor} arms the window for {target}, which is a member")
        if not quorate:
            self.fail("S8", f"{executor} arms the window without quorum")
        if moving:
            self.fail("S8", f"{executor} arms the window while {moving} is being moved")
        if off:
            self.fail("L3", f"{executor} arms the window for {target}, which is off already")

    def recovered_guarded(self, how: str, after_s: float | None, limit_s: float) -> None:
        """L3, for a mover that has really died in a guarded window."""
        if after_s is None or after_s > limit_s:
            shown = "never" if after_s is None else f"after {after_s:.1f} s"
            self.fail(
                "L3", f"the death of the mover ({how}) was recovered {shown}, not within {limit_s:.0f} s"
            )

    def recovered_proven(self, node: str, after_s: float | None, limit_s: float) -> None:
        """L3, for one that has really died while only clocks were in the way of a close."""
        if after_s is None or after_s > limit_s:
            shown = "never" if after_s is None else f"after {after_s:.1f} s"
            self.fail(
                "L3", f"{node} died while clocks were waited for: recovered {shown}, limit {limit_s:.0f} s"
            )

    def because_of_a_window(self) -> bool:
        """Whether a hold of this moment is."""
        holds = bool(self.open_number) and not self.proven
        return holds or self.now_ms - self.closed_ms < AFTER_WINDOW_MS

    def fenced(self, target: str, *, lost_incarnation: int, incarnation: int, alive: bool) -> None:
        """S2, at each "done" of the fencer."""
        if alive and lost_incarnation == incarnation:
            self.fail("S2", f"fencing of {target} was answered done while its guest is alive")

    def started(
        self, node: str, *, lost_incarnation: int, incarnation: int, alive: bool, serves: bool
    ) -> None:
        """S1, when the services of `node` start elsewhere."""
        if alive and serves and lost_incarnation == incarnation:
            self.fail("S1", f"the services of {node} run twice: its guest is alive")

    def copies(self, guest: str, running: int) -> None:
        """S1, for copies of one guest."""
        if running > 1:
            self.fail("S1", f"two copies of {guest} run")

    def held(self, hold: Held) -> None:
        """S3, at each refusal: none of a node that is plainly dead after the lease."""
        over_s = (self.now_ms - self.store_since_ms) / 1000 - self.store_lease_s - LEASE_SLACK_SECONDS
        if (
            self.open_number
            and not self.proven
            and over_s > 0
            and hold.knows_for_s > self.store_lease_s + LEASE_SLACK_SECONDS
            and hold.dead_for_s > DEAD_FOR_SECONDS
            and hold.quiet_s > QUIET_SECONDS
        ):
            self.fail(
                "S3", f"{hold.executor} holds {hold.target}, which is dead, past the lease ({hold.rule})"
            )

    def lease_left_s(self) -> float:
        """Of the announced window."""
        if self.window is None:
            return 0.0
        # The lease runs from the record, which is older than the word of it; the nodes saw it a moment later.
        return self.window.lease_s - (self.now_ms - self.store_since_ms) / 1000

    # -- the record ----------------------------------------------------------------------------------------

    def written(
        self,
        *,
        base: int,
        epoch: int,
        phase: str,
        number: int,
        lease_s: int,
        writer: str,
        standing: int,
        proven: bool = False,
    ) -> None:
        """S7, at each write of the record that was carried out. `standing`: the epoch that it replaced."""
        if base != standing:
            self.fail("S7", f"{writer} wrote epoch {epoch} over {standing}, having read {base}")
        if self.open_number and phase != "idle" and number != self.open_number:
            self.fail("S7", f"window {number} of {writer} took the place of window {self.open_number}")
        if (phase == "idle" and self.open_number) or (proven and not self.proven):
            self.closed_ms = self.now_ms
        self.proven = proven
        if phase == "idle":
            self.open_number, self.window = 0, None
        elif number != self.open_number:
            self.open_number, self.store_since_ms = number, self.now_ms
        self.store_lease_s = lease_s
        self.store_epoch = epoch

    def overruled(self, *, epoch: int, phase: str, number: int, lease_s: int, proven: bool = False) -> None:
        """Two halves have met, and the store of one was given up: a window that only that one had is gone,
        and no later one takes its place. One that was announced stays judged as what an operator was told."""
        self.proven = proven
        if self.window is not None or number == self.open_number:
            return
        if phase == "idle":
            if self.open_number:
                self.closed_ms = self.now_ms
            self.open_number = 0
        else:
            self.open_number, self.store_since_ms = number, self.now_ms
        self.store_epoch, self.store_lease_s = epoch, lease_s

    def announced(
        self,
        number: int,
        mover: str,
        lease_s: int,
        budget_ms: int,
        timeouts_ms: Mapping[str, int],
        *,
        in_store: int,
    ) -> None:
        """S4 and S7, when an operator is told that the window is open."""
        if self.window is not None and self.window.number != number:
            self.fail("S7", f"window {number} was announced while window {self.window.number} is open")
        if in_store != number:
            self.fail("S7", f"window {number} was announced, but the store has {in_store or 'none'}")
        if self.window is None:
            self.window = Window(number, self.now_ms, lease_s, mover)
        for node, timeout_ms in timeouts_ms.items():
            if timeout_ms < budget_ms and not self.spoiled:
                self.fail("S4", f"{node} runs {timeout_ms} ms in a window of {budget_ms} ms")

    def ran(self, node: str, *, timeout_ms: int, promised_ms: int, phase: str) -> None:
        """S4, at each change of a member's values while the window is open."""
        if phase == "open" and timeout_ms < promised_ms and not self.spoiled:
            self.fail("S4", f"{node} runs {timeout_ms} ms while {promised_ms} ms are promised")

    def lowered(
        self,
        node: str,
        mover: str,
        *,
        reachable: bool,
        moved_again: bool,
        alive: bool,
        aborted: bool,
        held: bool = False,
    ) -> None:
        """S5, when a heartbeat timeout goes down in a window: the devices must reach the guest.

        `held`: it was raised just in time, and the window holds the mover still.
        """
        if alive and not (reachable or moved_again or aborted or held):
            self.fail("S5", f"{node} lowers its timeout, but the devices of {mover} do not reach its guest")

    def let_go(self, mover: str, timeouts_ms: Mapping[str, int], budget_ms: int) -> None:
        """S4, when a guest is let go for which the heartbeat was raised just in time."""
        for node, timeout_ms in timeouts_ms.items():
            if timeout_ms < budget_ms and not self.spoiled:
                self.fail("S4", f"{mover} is let go, and {node} runs {timeout_ms} ms, not {budget_ms} ms")

    def held_with_its_fuse(self, node: str, timeout_ms: int, budget_ms: int) -> None:
        """L6, when all others are raised and the guest is still held: by whose timeout a death is seen."""
        if timeout_ms >= budget_ms:
            self.fail("L6", f"{node} is raised to {timeout_ms} ms while the guest is still held")

    def unbroken(self, mover: str, *, dropped: bool, still_s: float) -> None:
        """S10, when a guest runs on after a blackout that the raise was for."""
        if dropped and not self.spoiled:
            self.fail(
                "S10", f"{mover} was dropped in a blackout of {still_s:.1f} s, below what was raised to"
            )

    def left_raised(self, seconds: float, limit_seconds: float) -> None:
        """L5: raised just in time, with nobody who drives it, and somebody who could lower it."""
        if seconds > limit_seconds:
            self.fail("L5", f"the heartbeat is left raised for {limit_seconds:.0f} s by a command that ended")

    def armed_again(self, unreached: list[str]) -> None:
        """S5, when a closing says that all is proven, so that fencing is armed: whose guests moved in the
        window and are not reached by their devices."""
        if unreached:
            self.fail("S5", f"fencing is armed, and the devices of {' and '.join(unreached)} reach no guest")

    def lowers(self, apart: list[str], *, overruled: bool) -> None:
        """S5, when the heartbeat begins to come down: whose clocks have lagged for long enough to be seen."""
        if apart and not (overruled or self.spoiled):
            self.fail("S5", f"the heartbeat comes down while the clock of {' and '.join(apart)} lags")

    # -- in the end ----------------------------------------------------------------------------------------

    def told_nothing_left(self, phase: str, command: str) -> None:
        """L2, when a command said that no window is left and none other was at work."""
        if phase != "idle":
            self.fail("L2", f"{command} said that nothing is left, but the window is {phase}")

    def refused(self, command: str, codes: str, *, unfinished: bool, next_commands: bool) -> None:
        """L2, at each refusal that leaves something: it names what to type next."""
        if unfinished and not next_commands:
            self.fail("L2", f"{command} was refused ({codes}) and names no next command")

    def alarm(self) -> None:
        """An alarm was raised."""
        self.alarmed_ms = self.now_ms

    def past_lease(self, over_s: float, *, somebody_lives: bool) -> None:
        """L1: a window past its lease alarms each minute. `over_s`: for who has known it longest."""
        silent_s = (self.now_ms - self.alarmed_ms) / 1000 if self.alarmed_ms >= 0 else over_s
        if somebody_lives and over_s > ALARM_SECONDS and silent_s > ALARM_SECONDS:
            self.fail("L1", f"no alarm for {silent_s:.0f} s of a window that is past its lease")

    def ended(self, phase: str, last: str) -> None:
        """L2: everything is well again, and closing was tried again and again."""
        if phase != "idle":
            self.fail("L2", f"the window is still {phase} with everything well: {last}")

    def reached(self, guest: str, *, by_its_devices: bool, last: str) -> None:
        """L2: everything is well again, and `-u` was typed for whoever is not reached, again and again."""
        if not by_its_devices:
            self.fail("L2", f"the devices of {guest} do not reach it with everything well: {last}")

    def as_before(
        self, node: str, *, keys: Mapping[str, str], was: Mapping[str, str], ran: object, runs: object
    ) -> None:
        """S6: this node's file and values after the window are those before it."""
        if dict(keys) != dict(was):
            self.fail("S6", f"the file of {node} has {dict(keys)}, it had {dict(was)}")
        if ran != runs:
            self.fail("S6", f"{node} runs {runs}, it ran {ran}")

    def leftovers(self, what: list[str]) -> None:
        """S9: nothing of a window is left."""
        for one in what:
            self.fail("S9", f"left with no window: {one}")

    def recovery(self, node: str, after_ms: int | None, limit_ms: int) -> None:
        """L3, as far as one mode has it: a death with no window is recovered as without us."""
        if after_ms is None or after_ms > limit_ms + RECOVERY_SLACK_MS:
            shown = "never" if after_ms is None else f"after {after_ms} ms"
            self.fail("L3", f"the death of {node} with no window was recovered {shown}")

    def noticed(self, node: str, after_s: float | None, limit_s: float) -> None:
        """L4: a guest that was moved by somebody else."""
        if after_s is None or after_s > limit_s:
            shown = "never" if after_s is None else f"after {after_s:.0f} s"
            self.fail("L4", f"that {node} was moved without a word was noticed {shown}")
