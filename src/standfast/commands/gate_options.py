"""The gate's options and its metadata. No imports but `os` and `sys`: they stand before everything else."""

from __future__ import annotations

import os
import sys

ACTIONS = ("off", "reboot", "on", "monitor", "status", "list", "metadata", "validate-all")
MAX_INPUT_BYTES = 65536
TARGET_KEYS = ("nodename", "plug", "port")
"""`nodename` first: the fencer always gives it, and a host map may make the others something else."""

_SHORT = {"-o": "action", "-n": "plug"}


class OptionsError(Exception):
    """The call cannot be understood; the text says what to type."""


class Options:
    """One call. `root`: in front of every path, for tests; can only be given as an argument."""

    def __init__(self, values: dict[str, str], root: str = "") -> None:
        """Check the values. Raises OptionsError. Unknown names are left alone: the fencer sends many."""
        self.root = root
        self.action = values.get("action", values.get("option", "")).strip().lower()
        if self.action not in ACTIONS:
            given = f"unknown action {self.action!r}" if self.action else "no action given"
            raise OptionsError(f"{given}; use action=off, reboot, monitor or metadata")
        found = [values[key].strip() for key in TARGET_KEYS if values.get(key, "").strip()]
        self.target = found[0] if found else ""
        self.level = values.get("level", "").strip()
        self.kills = values.get("kill", "").strip() == "1"
        """Whether this device is the killing gate of a guarded window."""
        self.guest = values.get("guest", "").strip()
        listed = values.get("pcmk_host_list", "").replace(",", " ").replace(";", " ").split()
        self.targets = tuple(listed) or tuple(found[:1])
        if self.action in ("off", "reboot") and not self.target:
            raise OptionsError(f"action {self.action} without a target; use plug=NODE")
        if not self.target.isprintable() or not self.level.isprintable():
            raise OptionsError("target and level must be printable")


def read_options(arguments: list[str]) -> Options:
    """From the arguments, or, where these name no action, from the standard input. Raises OptionsError."""
    values, root = _from_arguments(arguments)
    if "action" not in values and "option" not in values:
        if os.isatty(0):
            raise OptionsError("no action given; use action=off, reboot, monitor or metadata")
        values = {**from_lines(_standard_input()), **values}
    return Options(values, root)


def from_lines(text: str) -> dict[str, str]:
    """``key=value`` lines; empty lines and comments are skipped, as ClusterLabs agents do."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key.strip()] = value
    return values


def _from_arguments(arguments: list[str]) -> tuple[dict[str, str], str]:
    values: dict[str, str] = {}
    root = ""
    words = iter(arguments)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if word in ("-h", "--help"):
            print("fence_standfast: options are read as key=value from arguments or standard input:")
            print("  action=off|reboot|on|monitor|status|list|metadata|validate-all  plug=NODE  level=N")
            raise OptionsError("nothing was done")
        if not equals:
            key = _SHORT.get(word, key)
            value = next(words, "")
        if not value and not equals:
            raise OptionsError(f"{word}: a value is missing, or this is no option; use key=value")
        if key == "root":
            root = value.rstrip("/")
        else:
            values[key] = value
    return values, root


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read(MAX_INPUT_BYTES).decode(errors="replace") if sys.stdin else ""
    except OSError as error:
        raise OptionsError(f"options cannot be read: {error.strerror}") from None


def _parameter(name: str, kind: str, text: str, more: str = "") -> str:
    return (
        f'\t<parameter name="{name}" unique="0" required="0"{more}>\n'
        f'\t\t<content type="{kind}"/>\n'
        f'\t\t<shortdesc lang="en">{text}</shortdesc>\n\t</parameter>'
    )


METADATA = "\n".join(
    [
        '<?xml version="1.0" ?>',
        '<resource-agent name="fence_standfast" shortdesc="Standfast: may the next device be used now?">',
        "<longdesc>Stands before the real fence device in every fencing level. It answers yes or no and "
        "never acts itself: no while a guest of the cluster is being migrated, or while the device would hit "
        "the wrong host. A level with this agent alone would count a yes as a kill; the agent refuses then."
        "</longdesc>",
        "<parameters>",
        _parameter("action", "string", "Fencing action"),
        _parameter("plug", "string", "Node that is to be fenced", ' obsoletes="port"'),
        _parameter("port", "string", "Node that is to be fenced", ' deprecated="1"'),
        _parameter("nodename", "string", "Node that is to be fenced, as the fencer says it"),
        _parameter("level", "string", "Fencing level in which this gate stands"),
        _parameter("kill", "integer", "1: the killing gate of a guarded window, alone in its level"),
        _parameter("guest", "string", "Guest domain of the node, for the killing gate"),
        _parameter("weight", "integer", "Weight of the node, for the record; the gate does not use it"),
        "</parameters>",
        "<actions>",
        '\t<action name="on" automatic="0"/>',
        *(f'\t<action name="{name}"/>' for name in ACTIONS if name != "on"),
        "</actions>",
        "</resource-agent>",
    ]
)
