"""Running programs: limits, groups, bounds."""

import signal
import sys
import time
from pathlib import Path

import pytest

from standfast.cluster import run as module
from standfast.cluster.run import run


def _gone(pid: int, limit_seconds: float = 5.0) -> bool:
    """True once the process has ended (a zombie that nobody has reaped yet counts)."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_output_and_exit_code_are_handed_back() -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; exit 3"], limit_seconds=10)
    assert (result.returncode, result.stdout, result.stderr, result.timed_out) == (3, "out\n", "err\n", False)
    assert not result.ok
    assert result.complaint() == "err"


def test_the_limit_kills_the_whole_group_and_is_reported_as_unknown() -> None:
    began = time.monotonic()
    result = run(["sh", "-c", "sleep 300 & echo $!; wait"], limit_seconds=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert (result.returncode, result.timed_out) == (124, True)
    assert _gone(int(result.stdout))


def test_a_child_left_behind_neither_delays_the_answer_nor_survives_it() -> None:
    began = time.monotonic()
    result = run(["sh", "-c", "sleep 300 & echo $!"], limit_seconds=60)
    assert time.monotonic() - began < 30
    assert result.returncode == 0
    assert _gone(int(result.stdout))


def test_without_input_stdin_is_empty() -> None:
    assert run(["cat"], limit_seconds=10).stdout == ""


def test_input_larger_than_a_pipe_goes_in_while_output_comes_out() -> None:
    text = "0123456789abcdef" * 65536
    assert run(["cat"], limit_seconds=60, input=text).stdout == text


def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert run(["true"], limit_seconds=10, input="x" * 1_000_000).ok


def test_output_has_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", 100_000)
    result = run([sys.executable, "-c", "print('x' * 300000)"], limit_seconds=30)
    assert len(result.stdout) == 100_000
    assert result.truncated
    assert result.returncode == 0


def test_a_missing_program_is_a_result_and_not_an_exception() -> None:
    result = run(["/nonexistent/program"], limit_seconds=10)
    assert result.returncode == 127
    assert result.complaint() == "/nonexistent/program: No such file or directory"


def test_a_signal_shows_in_the_exit_code() -> None:
    assert run(["sh", "-c", "kill -TERM $$"], limit_seconds=10).returncode == 128 + signal.SIGTERM


def test_added_environment_does_not_replace_the_rest() -> None:
    result = run(["sh", "-c", "echo $EXTRA $LC_ALL; command -v sh"], limit_seconds=10, env={"EXTRA": "yes"})
    assert result.stdout.splitlines()[0] == "yes C"
    assert result.ok


def test_nothing_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for argv in (["true"], ["sh", "-c", "sleep 300"], ["/nonexistent"]):
        run(argv, limit_seconds=0.2, input="x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
