"""fence_standfast: the gate in front of every real fence device, as a ClusterLabs fence agent.

Options come as ``key=value`` lines on the standard input (that is how Pacemaker's fencer calls it) or as
arguments. ``off`` and ``reboot`` exit 0 when the device behind the gate may be used, 1 with one sentence when
not. Rules of this file:

* 0 is only ever returned for a decision that was made, on a view that is fresh. Everything else is 1.
* A hold is looked at again for HOLD_POLL_SECONDS before it is answered, unless waiting cannot change it; a
  failure of the gate itself too: the fencer would otherwise call it 25 times a second.
* Nothing lasts longer than HARD_LIMIT_SECONDS, whatever hangs.
* The standard library, `standfast.core` and `standfast.sightings` only; the engine's tools are started before
  anything heavy is imported (the imports here inside functions), and run meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from standfast.commands.gate_options import METADATA, Options, OptionsError, read_options

TYPE_CHECKING = False  # not from typing: that costs 3 ms of each call
if TYPE_CHECKING:
    from standfast.commands.gate_run import Verdict

ALLOW, HOLD = 0, 1
LAST_LOOK_SECONDS = 12.0
"""No tool of the engine is waited for beyond this point of a call."""
HARD_LIMIT_SECONDS = 14.0
"""Below the 15 s that the fencer is told; the rest is for the end of the process."""
MONITOR_LAST_LOOK_SECONDS = 20.0
MONITOR_HARD_LIMIT_SECONDS = 25.0
"""Below the 60 s of a start (`core.device_objects.START_LIMIT_SECONDS`)."""
KILL_LAST_LOOK_SECONDS = 100.0
KILL_HARD_LIMIT_SECONDS = 110.0
"""Below the 120 s that the fencer is told of the killing gate (`core.guarded.KILL_LIMIT_SECONDS`)."""


def main(argv: list[str] | None = None) -> int:
    """The agent. Exit code 0: done, or fencing is allowed. 1: held, or failed."""
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, HARD_LIMIT_SECONDS)
    try:
        options = read_options(sys.argv[1:] if argv is None else argv)
        return _act(options, began)
    except OptionsError as error:
        print(f"fence_standfast: {error}", file=sys.stderr)
        return HOLD
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _act(options: Options, began: float) -> int:
    action = options.action
    if action == "metadata":
        print(METADATA)
        return 0
    if action == "list":
        print("".join(f"{target},\n" for target in options.targets), end="")
        return 0
    if action in ("on", "validate-all"):
        return 0
    from standfast.commands.gate_tools import MONITOR_TOOL_LIMIT_SECONDS, Tools

    if options.kills and action in ("off", "reboot"):
        return _kill(options, began)
    if action in ("monitor", "status"):
        signal.setitimer(signal.ITIMER_REAL, MONITOR_HARD_LIMIT_SECONDS)
        tools = Tools(options.root, began + MONITOR_LAST_LOOK_SECONDS, MONITOR_TOOL_LIMIT_SECONDS)
    else:
        tools = Tools(options.root, began + LAST_LOOK_SECONDS)
    # Everything heavy from here on, while the tools run.
    from standfast.commands.gate_run import Gate

    gate = Gate(options, tools)
    if action in ("monitor", "status"):
        checked = gate.check()
        return _say(checked.allow, f"monitor: {checked.reason}")
    verdict = gate.answer(began)
    _log(options, verdict, time.monotonic() - began)
    return _say(verdict.allow, f"held: {verdict.reason}")


def _kill(options: Options, began: float) -> int:
    """The killing gate asks and stops for longer, and the fencer is told so (`core.guarded`)."""
    from standfast.commands.gate_tools import Tools

    signal.setitimer(signal.ITIMER_REAL, KILL_HARD_LIMIT_SECONDS)
    tools = Tools(options.root, began + KILL_LAST_LOOK_SECONDS)
    from standfast.commands.gate_kill import KillingGate

    verdict = KillingGate(options, tools).answer()
    _log(options, verdict, time.monotonic() - began)
    return _say(verdict.allow, f"held: {verdict.reason}")


def _log(options: Options, verdict: Verdict, seconds: float) -> None:
    from standfast.commands import gate_log

    word = "allow" if verdict.allow else "hold"
    why = verdict.reason + (f" [{'; '.join(verdict.notes)}]" if verdict.notes else "")
    what = f"target={options.target} action={options.action}" + (
        f" level={options.level}" if options.level else ""
    )
    text = gate_log.line(verdict.executor, what, word, verdict.rule, seconds, why)
    gate_log.write(options.root, text, verdict.allow)


def _say(allow: bool, why: str) -> int:
    if allow:
        return ALLOW
    print(f"fence_standfast: {why}", file=sys.stderr)
    return HOLD


def _too_long(*_: object) -> None:
    """Whatever hangs: say so and go, without cleaning up. Children end with their pipes."""
    os.write(2, b"fence_standfast: held: no decision within the limit of one call\n")
    os._exit(HOLD)


if __name__ == "__main__":
    sys.exit(main())
