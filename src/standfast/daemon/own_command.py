"""The operator's own commands, started by the daemon: they have their lock, their limits and their words.

A daemon that dies takes nothing half-done with it but what the next command understands.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

KILL_LIMIT_SECONDS = 5.0
MAX_SAID_CHARS = 300


@dataclass(frozen=True)
class Ended:
    """How a command ended. `refusal`: empty where it has done what it was told; else why not, and what to
    type. `codes`: of its messages."""

    refusal: str = ""
    codes: tuple[str, ...] = ()

    @property
    def busy(self) -> bool:
        """Another command was at work: nothing was tried."""
        return "BUSY" in self.codes


async def run(argv: tuple[str, ...], limit_seconds: float) -> Ended:
    """Run a command that has ``--json`` among its words."""
    program = argv[0]
    code, output, errors = await start(argv, limit_seconds)
    if code == 0:
        return Ended()
    words = " ".join(word for word in argv if not word.startswith("-") or word == "-u")
    if code is None:
        return Ended(f"{words} did not end within {limit_seconds:.0f} s, or could not be started")
    try:
        messages = json.loads(output)["messages"]
        said = "; ".join(
            message["text"] + (f" (next: {message['next']})" if message["next"] else "")
            for message in messages
        )
        codes = tuple(str(message.get("code", "")) for message in messages)
    except (ValueError, KeyError, TypeError, AttributeError):
        said, codes = " ".join((errors or output).split())[-MAX_SAID_CHARS:], ()
    return Ended(said or f"{program} ended with exit code {code}", codes)


async def start(argv: tuple[str, ...], limit_seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: not started, or killed at the limit), standard output, standard error."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError:
        return None, "", ""
    try:
        async with asyncio.timeout(limit_seconds):
            output, errors = await process.communicate()
    except TimeoutError:
        return None, "", ""
    finally:
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_LIMIT_SECONDS):
                    await process.wait()
    return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
