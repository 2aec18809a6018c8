"""Runs any fence agent as Pacemaker's fencer does: options on standard input, a limit, a verdict.

Contract: ClusterLabs Fence Agent API. Exit 0 = done (status: on), 2 = status: off, anything else
is a failure. Options that an agent does not know are ignored by it, so `unknown_options` looks.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree

AGENT_DIR = "/usr/sbin"
OUTPUT_LIMIT_BYTES = 100_000
REAP_LIMIT_SECONDS = 2.0


class Outcome(Enum):
    """What one call of an agent came to."""

    DONE = "done"  # exit 0; of status: the plug is on
    OFF = "off"  # exit 2 of status: the plug is off
    FAILED = "failed"
    TIMED_OUT = "timed out"
    MISSING = "missing"  # there is no such program here, or it cannot be started


@dataclass(frozen=True)
class AgentResult:
    """One call: its outcome, what the agent said on one line, and how long it took."""

    outcome: Outcome
    said: str
    seconds: float
    output: str = ""


@dataclass(frozen=True)
class AgentMetadata:
    """What an agent says of itself. Deprecated parameters are left out of `parameters`."""

    name: str
    parameters: frozenset[str]
    required: frozenset[str]
    actions: frozenset[str]
    deprecated: frozenset[str] = frozenset()

    def knows(self, option: str) -> bool:
        """Whether the agent takes this option, under a current or an old name."""
        return option in self.parameters or option in self.deprecated


class MetadataError(ValueError):
    """An agent's metadata that is no `<resource-agent>` document."""


def parse_metadata(text: str) -> AgentMetadata:
    """Read the output of `metadata`. Raises MetadataError."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise MetadataError(f"agent metadata is not XML: {error}") from None
    if root.tag != "resource-agent":
        raise MetadataError(f"agent metadata begins with <{root.tag}>")
    parameters = root.findall("./parameters/parameter")
    old = {p.get("name", "") for p in parameters if p.get("deprecated") == "1"}
    return AgentMetadata(
        name=root.get("name", ""),
        parameters=frozenset({p.get("name", "") for p in parameters} - old),
        required=frozenset(p.get("name", "") for p in parameters if p.get("required") == "1"),
        actions=frozenset(a.get("name", "") for a in root.findall("./actions/action")),
        deprecated=frozenset(old),
    )


def options_for(metadata: AgentMetadata, parameters: Mapping[str, str], target: str) -> dict[str, str]:
    """The options that Pacemaker gives an agent for one target, from a device's CIB parameters.

    As pacemaker-fenced(7): `pcmk_*` stays with Pacemaker; the plug is the target's name, through
    `pcmk_host_map`, in `pcmk_host_argument` (by default `plug` or `port`, where the agent has it)
    unless the device sets it itself.
    """
    options = {key: value for key, value in parameters.items() if not key.startswith("pcmk_")}
    options.pop("crm_feature_set", None)
    options["nodename"] = target
    default = next((name for name in ("plug", "port") if metadata.knows(name)), "none")
    argument = parameters.get("pcmk_host_argument", default)
    if argument != "none" and options.get(argument, "dynamic") == "dynamic":
        options[argument] = host_map(parameters.get("pcmk_host_map", "")).get(target, target)
    return options


def host_map(text: str) -> dict[str, str]:
    """Read a `pcmk_host_map`: ``node1:plug1;node2=plug2``, parted by semicolons or blanks."""
    pairs = (word.replace("=", ":", 1).partition(":") for word in text.replace(";", " ").split())
    return {node: plug for node, colon, plug in pairs if colon}


def unknown_options(metadata: AgentMetadata, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Parameters that the agent would silently ignore: most often a typing error."""
    return tuple(sorted(key for key in parameters if not key.startswith("pcmk_") and not metadata.knows(key)))


async def metadata(agent: str, limit_seconds: float = 10.0) -> AgentMetadata:
    """Ask an agent for its metadata. Raises MetadataError."""
    result = await run(agent, "metadata", {}, limit_seconds)
    if result.outcome is not Outcome.DONE:
        raise MetadataError(f"{agent}: no metadata ({result.outcome.value}): {result.said}")
    return parse_metadata(result.output)


async def run(agent: str, action: str, options: Mapping[str, str], limit_seconds: float) -> AgentResult:
    """Call one agent (a name in /usr/sbin, or a path) within the limit.

    The agent has a process group of its own, killed whole at the limit and on cancellation:
    children of an agent outlive it. Options go through standard input, never through argv.
    """
    began = time.monotonic()
    path = agent if "/" in agent else f"{AGENT_DIR}/{agent}"
    lines = {**options, "action": action}
    if any("\n" in key or "\n" in value for key, value in lines.items()):
        return AgentResult(Outcome.FAILED, f"{agent}: an option has a line end in it; not called", 0.0)
    text = "".join(f"{key}={value}\n" for key, value in lines.items())
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return AgentResult(Outcome.MISSING, f"{path}: {error.strerror or error}", time.monotonic() - began)
    try:
        async with asyncio.timeout(limit_seconds):
            output, errors = await _talk(process, text.encode())
    except TimeoutError:
        said = f"{Path(path).name} {action}: no result within {limit_seconds:g} s; killed"
        return AgentResult(Outcome.TIMED_OUT, said, time.monotonic() - began)
    finally:
        await _end(process)
    return _result(process.returncode, action, output, errors, time.monotonic() - began)


def _result(code: int | None, action: str, output: bytes, errors: bytes, seconds: float) -> AgentResult:
    shown = output.decode("utf-8", "replace")
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    outcome = Outcome.FAILED
    if code == 0:
        outcome = Outcome.DONE
    elif code == 2 and action == "status":
        outcome = Outcome.OFF
    if not lines:
        lines = [line.strip() for line in shown.splitlines() if line.strip()] or [f"exit {code}"]
    return AgentResult(outcome, lines[-1][:500], seconds, shown)


async def _talk(process: asyncio.subprocess.Process, text: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors, _ = await asyncio.gather(
        _drain(process.stdout), _drain(process.stderr), _write(process.stdin, text)
    )
    await process.wait()
    return output, errors


async def _write(stream: asyncio.StreamWriter, text: bytes) -> None:
    try:
        stream.write(text)
        await stream.drain()
        stream.close()
    except (BrokenPipeError, ConnectionResetError):
        return  # an agent need not read its options to the end


async def _drain(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, keeping the first part: an agent must not block on a full pipe."""
    kept = b""
    while chunk := await stream.read(65536):
        kept += chunk[: max(0, OUTPUT_LIMIT_BYTES - len(kept))]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # start_new_session: its group has its id
    try:
        async with asyncio.timeout(REAP_LIMIT_SECONDS):
            await process.wait()
    except TimeoutError:
        return  # in uninterruptible sleep: the kernel ends it later
