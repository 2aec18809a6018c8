"""Ordinary fence agents (ClusterLabs Fence Agent API), which kill a guest through its host: `fence_virsh`.

clovmmigrate.conf says for each host of kind libvirt or manual which parameters the agent needs to reach THAT
host; the guest (`plug`) and the limits are ours. So a device's parameters tell at which host it aims: what is
not ours of them is one host's. The standard library only: the gate imports this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from standfast.core import fields
from standfast.core.names import GATE_AGENT, XSCF_AGENT

T = TypeVar("T")

PLUG = "plug"
"""The parameter that names the guest."""
DEVICE_LIMIT_SECONDS = 75
LIMITS = {
    # One try: the gate in front of it is asked again before the next. The limits of the agent's own steps
    # (fencing library: login, each answer, the wait for the power state) end before Pacemaker's.
    "pcmk_off_retries": "1",
    "pcmk_reboot_retries": "1",
    "pcmk_off_timeout": f"{DEVICE_LIMIT_SECONDS}s",
    "pcmk_reboot_timeout": f"{DEVICE_LIMIT_SECONDS}s",
    # Two devices in a level make a reboot off, off, on, on. What `on` comes to, Pacemaker only logs; but
    # until it has ended, nothing of the node is recovered elsewhere.
    "pcmk_on_retries": "1",
    "pcmk_on_timeout": "30s",
    "login_timeout": "10",
    "shell_timeout": "10",
    "power_timeout": "30",
}
MAX_PARAMETERS = 30
MAX_VALUE_CHARS = 256

NOT_REAL_AGENTS = frozenset(
    {GATE_AGENT, "watchdog", "fence_watchdog", "fence_dummy", "fence_heuristics_ping", "fence_kdump"}
)
"""Agents whose success does not mean that the node was killed by this very call."""

_AGENT = re.compile(r"fence_[a-z0-9_]+")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_OURS = frozenset({PLUG, *LIMITS})
_NEVER = _OURS | {"port", "uuid", "action", "option", "nodename", "delay", "missing_as_off"}
"""The guest's name under other names, what the fencer says, and what makes an absent guest a killed one."""
_SECRET = re.compile(r"pass(w|ph)|secret|token|api_?key|community|private_key|credential")
_KEPT_IN_A_FILE = ("_file", "_script", "_path")
_USER_AND_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_PATHS = frozenset({"identity_file", "password_script", "passwd_script"})


def agent(text: str) -> str:
    """The name of a fence agent whose success is a kill, and which names the guest by its plug."""
    if len(text) > fields.MAX_NAME_CHARS or not _AGENT.fullmatch(text):
        raise fields.FieldError("must be the name of a fence agent, such as fence_virsh")
    if text in NOT_REAL_AGENTS:
        raise fields.FieldError(f"must be an agent that kills; {text} alone kills nobody")
    if text == XSCF_AGENT:
        raise fields.FieldError(f"must not be {XSCF_AGENT}: that is for kind ldm, with clsnmpsetup")
    return text


def parameters(given: Mapping[str, object]) -> dict[str, str]:
    """What the agent needs to reach one host, each value as text. Raises fields.FieldError naming the one."""
    if not given or len(given) > MAX_PARAMETERS:
        raise fields.FieldError(f"must have 1 to {MAX_PARAMETERS} parameters, such as ip and username")
    return {name: _parameter(name, given[name]) for name in sorted(given)}


def _parameter(name: str, value: object) -> str:
    if len(name) > fields.MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise fields.FieldError(f"{name!r} is no parameter's name (lower-case letters, digits, '_')")
    if name in _NEVER or name.startswith("pcmk_"):
        raise fields.FieldError(f"{name} is set by Standfast, not here; give what reaches the host")
    if not isinstance(value, str):
        raise fields.FieldError(f'{name} must be text in quotes, such as "1"')
    if _is_secret(name, value):
        # The value is not shown.
        raise fields.FieldError(
            f"{name} is a secret, which is never kept here: use identity_file or password_script"
        )
    if not value or len(value) > MAX_VALUE_CHARS or not value.isprintable():
        raise fields.FieldError(f"{name} must be printable text of 1 to {MAX_VALUE_CHARS} characters")
    if name in _PATHS:
        try:
            fields.absolute_path(value)
        except fields.FieldError as error:
            raise fields.FieldError(f"{name} {error}") from None
    return value


def _is_secret(name: str, value: str) -> bool:
    by_name = _SECRET.search(name) is not None and not name.endswith(_KEPT_IN_A_FILE)
    return by_name or _USER_AND_PASSWORD.search(value) is not None or "PRIVATE KEY" in value


def unfitting(kind: str, given: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Fields of an entry about its agent that its kind cannot have, or of which one is missing."""
    both = ("fence_agent", "fence_parameters")
    for field, other in (both, both[::-1]):
        if field in given and kind == "ldm":
            yield field, "is only for kind libvirt or manual"
        elif field not in given and other in given:
            yield field, f"is missing: {other} needs it"


def disagreeing(hosts: Iterable[tuple[str, str, Mapping[str, str]]]) -> Iterator[tuple[str, str]]:
    """What is wrong between the entries of one file. `hosts`: name, agent (may be empty), parameters."""
    listed = list(hosts)
    if len({used for _, used, _ in listed}) > 1:
        shown = ", ".join(f"{name} {used or 'none'}" for name, used, _ in listed)
        yield "fence_agent", f"must be the same for all hosts ({shown})"
    for number, (name, used, own) in enumerate(listed):
        for other, _, others in listed[:number]:
            if used and own == others:
                yield "fence_parameters", f"of {other} and {name} are the same: the two cannot be told apart"


def sa_name(agent_name: str) -> str:
    """The shutdown agent's name: ``fence_virsh`` is SA_virsh."""
    return "SA_" + agent_name.removeprefix("fence_")


def node_of(identifier: str, agent_name: str) -> str:
    """The node that set-up made this device for; empty where set-up did not make it."""
    prefix = f"{sa_name(agent_name)}-"
    ordinary = _AGENT.fullmatch(agent_name) and agent_name != XSCF_AGENT and agent_name not in NOT_REAL_AGENTS
    return identifier.removeprefix(prefix) if ordinary and identifier.startswith(prefix) else ""


def of_host(device: Mapping[str, T]) -> dict[str, T]:
    """What of a device's parameters is its host's: all that is neither Pacemaker's nor ours."""
    return {
        name: value for name, value in device.items() if name not in _OURS and not name.startswith("pcmk_")
    }


def files_named(device: Mapping[str, str]) -> tuple[str, ...]:
    """Files on each node that the agent reads a secret from."""
    return tuple(device[name] for name in sorted(_PATHS) if device.get(name))
