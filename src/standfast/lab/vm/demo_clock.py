"""Part (e) of the demonstration on real guests: a blackout leaves the guest's clock behind, the nodes tell of
it, and the heartbeat stays raised until somebody has set it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from standfast.cluster.run import Result
from standfast.core.names import CONFIG_FILE, LOG_DIR, SWITCHLOG_FILE
from standfast.lab.errors import LabError
from standfast.lab.story import Happening, Story
from standfast.lab.vm.cluster import VmLab
from standfast.lab.vm.rounds import GUEST, MAX_TRIES, MOVER
from standfast.lab.vm.stage import BUSY, FIRST, Stage
from standfast.lab.vm.witness import Witness, clock_offset, set_clock

BLACKOUT_SECONDS = 20.0
DAEMON_LOG_FILE = LOG_DIR + "/standfastd.log"
PERIOD_SECONDS = 15
"""Between two (WRP, 35); 60 s by default."""
AGREE_LIMIT_SECONDS = 180.0
TOLD_LIMIT_SECONDS = 120.0
CLOSE_LIMIT_SECONDS = 180.0
LOST, AGAIN = "(WRP, 34)", "is in time sync with local node again"
STILL = "(WRP, 35)"
WAITS = "waiting for the clocks to agree"
CLOCKS = "CLOCKS"
"""What a close says that has waited for a minute."""


def with_a_lagging_clock(story: Story) -> None:
    """One lab, one move."""
    story.chapter(
        "(e) A clock that lags",
        f"The same guests. clovmmigrate opens the window of {GUEST}, which raises the heartbeat timeout; its "
        f"move has a blackout of {BLACKOUT_SECONDS:g} s, in which its clock stands still. What the page "
        f"promises: {LOST} once, {STILL} as long as it lasts (here every {PERIOD_SECONDS} s), and an end.",
    )
    with Stage.made(story, "standfast") as stage:
        _play(stage)


def _play(stage: Stage) -> None:
    story, lab = stage.story, stage.lab
    for node in lab.nodes:
        _must(lab, node, ["sed", "-i", f"1a clock_period_seconds = {PERIOD_SECONDS}", CONFIG_FILE])
        _must(lab, node, ["sdtool", "-r"])
    set_clock(lab, MOVER, like=FIRST)
    stage.watch()
    agree = stage.until(lambda: _agree(lab) is not None, AGREE_LIMIT_SECONDS)
    figure = f"{_agree(lab)} s apart" if agree is not None else "not measured"
    story.require("the clocks agree before", agree is not None, figure)
    opened = stage.ours("clovmmigrate", "-p", GUEST)
    story.require("the window is open", opened.returncode == 0, f"exit code {opened.returncode}")
    logs, ring = Logs(stage), stage.witness.mark(FIRST)
    boot = stage.witness.boot(MOVER)
    stage.move_with("host3", BLACKOUT_SECONDS)
    with _closing(stage) as closing:
        lost = logs.until(SWITCHLOG_FILE, LOST, TOLD_LIMIT_SECONDS)
        story.require(f"{LOST} in the switchlog of {FIRST}", lost is not None, _after(lost))
        still = logs.until(DAEMON_LOG_FILE, STILL, TOLD_LIMIT_SECONDS, times=2)
        story.require(f"{STILL} in its log, again and again", still is not None, _after(still))
        raised = _token(lab)
        waits = not closing.done() or _waited_in_vain(closing)
        story.require("the close has not ended, the heartbeat stays up", waits, f"token {raised} ms")
        story.say(f"{MOVER}: its clock is set, as a time service would")
        set_clock(lab, MOVER, like=FIRST)
        again = logs.until(SWITCHLOG_FILE, AGAIN, TOLD_LIMIT_SECONDS)
        story.require("the end of it in the switchlog", again is not None, _after(again))
        done = _ended(stage, closing)
    story.require("the window is closed", done.returncode == 0, f"exit code {done.returncode}")
    lowered = _token(lab)
    story.require("and the heartbeat is down only now", 0 < lowered < raised, f"token {lowered} ms")
    logs.look()
    before = logs.count(DAEMON_LOG_FILE, STILL)
    quiet = time.monotonic() + 2 * PERIOD_SECONDS
    stage.until(lambda: time.monotonic() > quiet, 3 * PERIOD_SECONDS)
    after = logs.count(DAEMON_LOG_FILE, STILL)
    figure = f"{before} in all, none in {2 * PERIOD_SECONDS} s"
    story.require(f"no {STILL} comes any more", after == before, figure)
    unharmed = stage.witness.left(ring) == 0 and stage.witness.boot(MOVER) == boot
    story.require("no node left the membership, none was killed", unharmed, "the same boot")


def _agree(lab: VmLab) -> float | None:
    found = clock_offset(lab, FIRST, MOVER, "agrees")
    return None if found is None else abs(found)


def _token(lab: VmLab) -> int:
    return int(Witness(lab).token(FIRST) or 0)


def _after(seconds: float | None) -> str:
    return f"after {seconds:.1f} s" if seconds is not None else "not in time"


def _must(lab: VmLab, node: str, argv: list[str]) -> Result:
    done = lab.exec(node, argv, CLOSE_LIMIT_SECONDS)
    if not done.ok:
        raise LabError(f"{' '.join(argv)} on {node}: {done.stderr or done.stdout}")
    return done


@contextmanager
def _closing(stage: Stage) -> Iterator[Future[Result]]:
    """`clovmmigrate -u` beside what is told meanwhile."""
    stage.story.say(f"{FIRST} # clovmmigrate -u {GUEST} host3   (goes on beside)")
    with ThreadPoolExecutor(1) as aside:
        yield aside.submit(_close, stage.lab)


def _close(lab: VmLab) -> Result:
    """Typed again, as its message says, where the emulated node was too slow for one of its limits."""
    for _ in range(MAX_TRIES):
        done = lab.exec(FIRST, ["clovmmigrate", "-u", GUEST, "host3"], CLOSE_LIMIT_SECONDS)
        if done.ok or not any(code in done.stderr + done.stdout for code in BUSY):
            break
    return done


def _waited_in_vain(closing: Future[Result]) -> bool:
    """It has given up waiting, and has said why: the window stays as it is."""
    return closing.result().returncode != 0 and CLOCKS in closing.result().stderr


def _ended(stage: Stage, closing: Future[Result]) -> Result:
    done = closing.result()
    for line in (done.stderr + done.stdout).rstrip().splitlines():
        click.echo(f"      {line}")
    return stage.ours("clovmmigrate", "-u", GUEST, "host3") if _waited_in_vain(closing) else done


@dataclass
class Logs:
    """What is new in the logs of the node that stays, told as it is seen."""

    stage: Stage
    zero: float = field(default_factory=time.monotonic)
    _seen: dict[str, int] = field(default_factory=dict)
    _found: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (SWITCHLOG_FILE, DAEMON_LOG_FILE):
            self._seen[path] = len(self.stage.witness.read(FIRST, path))
            self._found[path] = []

    def look(self) -> None:
        """Tell what has come since the last look, of clocks only."""
        for path in self._seen:
            text = self.stage.witness.read(FIRST, path)
            new = text[self._seen[path] : text.rfind("\n") + 1]
            self._seen[path] += len(new)
            lines = [line for line in new.splitlines() if "(WRP" in line or "clock" in line]
            self._found[path] += lines
            now = time.monotonic()
            shown = [Happening(now, f"{path.rpartition('/')[2]}: {line}") for line in lines]
            self.stage.story.tell(self.zero, shown)

    def count(self, path: str, what: str) -> int:
        """How many of the lines seen have it."""
        return sum(what in line for line in self._found[path])

    def until(self, path: str, what: str, limit_seconds: float, times: int = 1) -> float | None:
        """Wait for so many lines with it; seconds since the first look, None: they did not come."""

        def there() -> bool:
            self.look()
            return self.count(path, what) >= times

        found = self.stage.until(there, limit_seconds)
        return time.monotonic() - self.zero if found is not None else None
