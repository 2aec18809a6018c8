"""Processes of the lab: every call has a time limit, also into a frozen node."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from standfast.cluster.run import TIMED_OUT, Result
from standfast.lab.errors import LabError

_REAP_SECONDS = 0.5


def run(
    argv: Sequence[str],
    *,
    limit_seconds: float,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run `argv` in a session of its own; at the limit its whole process group is killed.

    Never raises for an exit code. Unlike the product's `run` it does not insist on the end of what it
    killed: a process in a frozen cgroup v1 group cannot die before the thaw, and is left behind.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=None if env is None else dict(env),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(input, timeout=limit_seconds)
        return Result(tuple(argv), process.returncode, out, err)
    except subprocess.TimeoutExpired:
        return _cut_off(process, tuple(argv))
    except BaseException:
        _kill_group(process.pid)
        raise


def _cut_off(process: subprocess.Popen[str], argv: tuple[str, ...]) -> Result:
    _kill_group(process.pid)
    out = err = ""
    try:
        out, err = process.communicate(timeout=_REAP_SECONDS)
    except subprocess.TimeoutExpired:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
    return Result(argv, TIMED_OUT, out, err, timed_out=True)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def must(argv: Sequence[str], *, limit_seconds: float = 20.0, input: str | None = None) -> str:
    """Run a command that has no reason to fail and return its output. Raises LabError with its words."""
    result = run(argv, limit_seconds=limit_seconds, input=input)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip() or f"exit {result.returncode}"
        raise LabError(f"`{' '.join(argv)}` failed: {said}")
    return result.stdout


# The group is joined before anything else happens, so that no process of the lab is ever outside
# a group that `down` can find, not even for the moment between fork and exec. corosync locks its memory;
# where the machine does not let it, it says so in its log and goes on.
_JOIN = 'echo $$ > "$1" || exit 126; shift; ulimit -l unlimited 2>/dev/null; exec "$@"'


def joining(procs_file: Path, argv: Sequence[str]) -> list[str]:
    """`argv` so wrapped that it first moves itself into the cgroup that `procs_file` belongs to."""
    return ["/bin/sh", "-c", _JOIN, "join", str(procs_file), *argv]


def detach(argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
    """Start `argv` as a daemon: own session, adopted by the machine's init, output appended to `log`."""
    with log.open("ab") as sink:
        done = subprocess.run(
            ["setsid", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=None if env is None else dict(env),
            timeout=20,
            check=False,
        )
    if done.returncode != 0:
        raise LabError(f"cannot start `{' '.join(argv)}` (exit {done.returncode}), see {log}")
