"""What must never happen, and what must happen in the end: judged by the truth alone.

Nothing of the core is imported here, and no opinion of the system is believed: the checkers are told what was
really killed, started, written, run and announced. S1 to S9 and L1 to L4 are those of docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_SLACK_SECONDS = 20.0
DEAD_FOR_SECONDS = 20.0
QUIET_SECONDS = 20.0
AFTER_WINDOW_MS = 20_000
"""So long after a window a hold is still because of it: 15 s of settling, and one call that was under way."""
ALARM_SECONDS = 75.0
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
    """When the store last had no window any more."""
    alarmed_ms: int = -1
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
        if self.window is not None and self.lease_left_s() > 0:
            self.fail("S8", f"{hit.victim} was killed alive in an open window")
        elif hit.loss == "blackout" and hit.answers_good and hit.move_began_ms <= hit.call_began_ms:
            self.fail("S8", f"{hit.victim} was killed because it was moved")
        elif hit.came_back:
            self.fail("S8", f"{hit.victim} was killed after it had come back, by a fencing held for a window")

    def because_of_a_window(self) -> bool:
        """Whether a hold of this moment is."""
        return bool(self.open_number) or self.now_ms - self.closed_ms < AFTER_WINDOW_MS

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
        self, *, base: int, epoch: int, phase: str, number: int, lease_s: int, writer: str, standing: int
    ) -> None:
        """S7, at each write of the record that was carried out. `standing`: the epoch that it replaced."""
        if base != standing:
            self.fail("S7", f"{writer} wrote epoch {epoch} over {standing}, having read {base}")
        if self.open_number and phase != "idle" and number != self.open_number:
            self.fail("S7", f"window {number} of {writer} took the place of window {self.open_number}")
        if phase == "idle":
            if self.open_number:
                self.closed_ms = self.now_ms
            self.open_number, self.window = 0, None
        elif number != self.open_number:
            self.open_number, self.store_since_ms = number, self.now_ms
            self.store_lease_s = lease_s
        self.store_epoch = epoch

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
        self, node: str, mover: str, *, reachable: bool, moved_again: bool, alive: bool, aborted: bool
    ) -> None:
        """S5, when a heartbeat timeout goes down in a window: the devices must reach the guest."""
        if alive and not (reachable or moved_again or aborted):
            self.fail("S5", f"{node} lowers its timeout, but the devices of {mover} do not reach its guest")

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
