"""fence_xscf: kills a logical domain through its XSCF, and says "done" only of what it saw.

A fence agent after the ClusterLabs Fence Agent API: options as key=value lines on standard
input (or as arguments, except secrets), exit 0 done or on, 2 status off, 1 everything else.
This module has the contract alone and imports nothing heavy: Pacemaker asks for the metadata
often. The actions are in `fence_xscf_actions`.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from standfast.core.names import CONFIG_FILE, KNOWN_HOSTS_FILE, XSCF_AGENT

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_OFF = 2
INPUT_LIMIT_CHARACTERS = 65_536

DIALECT_FILE = "/etc/standfast/xscf-dialect.toml"
# Every action of the contract; the second word is the metadata's `automatic` of `on`.
ACTIONS = ("on", "off", "reboot", "status", "monitor", "list", "list-status", "validate-all", "metadata")


class UsageError(Exception):
    """The options cannot be used. One line, no secret in it."""


@dataclass(frozen=True)
class Option:
    """One option of the contract. Empty `default`: none."""

    name: str
    short: str
    text: str
    kind: str = "string"
    default: str = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    secret: bool = False


OPTIONS = (
    Option("action", "o", "Fencing action", default="reboot", required=True),
    Option("ip", "a", "Address of the XSCF on this LAN", required=True),
    Option("username", "l", "XSCF user", required=True),
    Option("password", "p", "XSCF password; on standard input only", secret=True),
    Option("password_file", "f", "File with the XSCF password on its first line, mode 0600"),
    Option("passwd_script", "S", "Program that prints the XSCF password"),
    Option("ppar_id", "P", "PPAR-ID of the physical partition", kind="integer", required=True),
    Option("domain", "n", "Name of the logical domain", required=True),
    Option("connection", "x", "How to reach the XSCF", default="ssh", choices=("ssh", "telnet")),
    Option("kill", "k", "What is ordered for off and reboot", default="panic", choices=("panic", "sir")),
    Option("ipport", "u", "TCP port of the XSCF's ssh", kind="integer", default="22"),
    Option("known_hosts", "K", "OpenSSH known_hosts file; always checked", default=KNOWN_HOSTS_FILE),
    Option("legacy_algorithms", "A", "Outdated ssh algorithms to allow, parted by commas"),
    Option("client", "c", "auto: the system's ssh if it can", default="auto", choices=("auto", "asyncssh")),
    Option("dialect", "D", "File that corrects the XSCF's dialogue", default=DIALECT_FILE),
    Option("conf", "C", "File that names the control domains to ask in doubt", default=CONFIG_FILE),
    Option("login_timeout", "L", "Seconds for the login", kind="second", default="10"),
    Option("shell_timeout", "T", "Seconds for one answer of the shell", kind="second", default="10"),
    Option("power_timeout", "W", "Seconds from the order to the proof", kind="second", default="30"),
    Option("verbose", "v", "Say more", kind="boolean"),
    Option("version", "V", "Print the version and exit", kind="boolean"),
    Option("help", "h", "Print the options and exit", kind="boolean"),
)
_BY_NAME = {option.name: option for option in OPTIONS}
# Names that older agents and people use. `port` is special: see _settle.
_ALIASES = {
    "ipaddr": "ip",
    "login": "username",
    "user": "username",
    "passwd": "password",
    "password_script": "passwd_script",
    "option": "action",
}
# What Pacemaker adds by itself, and does not expect an agent to know.
_FROM_PACEMAKER = frozenset({"nodename", "plug", "port", "crm_feature_set"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; the exit code of the contract. Never a traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = from_arguments(words) if words else from_input(sys.stdin, sys.stderr)
        if options.get("help") == "1":
            sys.stdout.write(usage())
            return EXIT_DONE
        if options.get("version") == "1":
            from standfast import __version__

            sys.stdout.write(f"{__version__}\n")
            return EXIT_DONE
        action = options["action"]
        if action == "metadata":
            sys.stdout.write(metadata())
            return EXIT_DONE
        if action not in ACTIONS:
            raise UsageError(f"unknown action {action!r}; nothing was done")
        from standfast.commands import fence_xscf_actions

        return fence_xscf_actions.run(action, options)
    except UsageError as error:
        sys.stderr.write(f"{XSCF_AGENT}: {error}\n")
        return EXIT_FAILED
    except BrokenPipeError:
        return EXIT_FAILED  # nobody reads the answer any more


def from_input(stream: TextIO, warnings: TextIO) -> dict[str, str]:
    """Read key=value lines up to the end; unknown keys are named on `warnings` and ignored."""
    text = stream.read(INPUT_LIMIT_CHARACTERS + 1)
    if len(text) > INPUT_LIMIT_CHARACTERS:
        raise UsageError(f"more than {INPUT_LIMIT_CHARACTERS} characters of options; nothing was done")
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key = key.strip().replace("-", "_")
        key = _ALIASES.get(key, key)
        if not equals:
            raise UsageError("a line of the options has no '='; nothing was done")
        if key in _BY_NAME or key in _FROM_PACEMAKER:
            found[key] = value if key == "password" else value.strip()
        elif not key.startswith("pcmk_"):
            warnings.write(f"{XSCF_AGENT}: unknown option {key!r} ignored\n")
    return _settle(found)


def from_arguments(words: Sequence[str]) -> dict[str, str]:
    """Read ``--name=value``, ``--name value``, ``-x value`` and ``-xvalue``."""
    shorts = {option.short: option for option in OPTIONS}
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            option = _BY_NAME.get(_ALIASES.get(name, name))
        else:
            option, value = shorts.get(word[1:2]) if word.startswith("-") else None, word[2:]
            equals = "=" if value else ""
        if option is None:
            raise UsageError(f"unknown argument {word.partition('=')[0]!r}; see --help")
        if option.secret:
            raise UsageError(
                f"{option.name} would be seen by every user of this machine as an argument: "
                "give it on standard input, or use password_file"
            )
        if option.kind == "boolean":
            value = "1"
        elif not equals:
            if not rest:
                raise UsageError(f"{word} needs a value")
            value = rest.pop(0)
        found[option.name] = value
    return _settle(found)


def _settle(found: dict[str, str]) -> dict[str, str]:
    """Defaults, and Pacemaker's own additions taken out.

    Pacemaker may add `plug` or `port` = the node's name, which is not the domain's: `domain`
    wins. A `port` that is a number was meant as the ssh port.
    """
    plug, port = found.pop("plug", ""), found.pop("port", "")
    found.pop("nodename", None)
    found.pop("crm_feature_set", None)
    if port.isdecimal():
        found.setdefault("ipport", port)
    if plug:
        found.setdefault("domain", plug)
    return {option.name: option.default for option in OPTIONS if option.default} | found


def metadata() -> str:
    """The metadata document of the contract."""
    parameters = "".join(_parameter(option) for option in OPTIONS)
    actions = "".join(
        f'    <action name="{action}"{" automatic=" + _quoted("0") if action == "on" else ""}/>\n'
        for action in ACTIONS
    )
    return (
        '<?xml version="1.0" ?>\n'
        f'<resource-agent name="{XSCF_AGENT}" shortdesc="Fence agent for logical domains behind an XSCF">\n'
        "  <longdesc>Panics or resets one logical domain of a SPARC M10 or M12 through the shell of its "
        "service processor. A kill is reported only if this very call saw the domain alive there, and then "
        "saw its status change into one that a running system cannot have.</longdesc>\n"
        f"  <parameters>\n{parameters}  </parameters>\n"
        f"  <actions>\n{actions}  </actions>\n"
        "</resource-agent>\n"
    )


def _parameter(option: Option) -> str:
    kind = "select" if option.choices else option.kind
    default = f" default={_quoted(option.default)}" if option.default else ""
    choices = "".join(f"<option value={_quoted(choice)}/>" for choice in option.choices)
    content = f"<content type={_quoted(kind)}{default}" + (f">{choices}</content>" if choices else "/>")
    getopt = f"-{option.short}, --{option.name}" + ("" if option.kind == "boolean" else "=[value]")
    return (
        f'    <parameter name="{option.name}" unique="0" required="{int(option.required)}">'
        f"<getopt mixed={_quoted(getopt)}/>{content}"
        f'<shortdesc lang="en">{_escaped(option.text)}</shortdesc></parameter>\n'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "&quot;") + '"'


def usage() -> str:
    """The help text."""
    lines = [
        f"  -{option.short}, --{option.name:<18} {option.text}"
        + (f" (default {option.default})" if option.default else "")
        for option in OPTIONS
        if not option.secret
    ]
    return (
        f"Usage: {XSCF_AGENT} [options]\nWithout arguments, options are read as key=value lines from "
        "standard input.\n" + "\n".join(lines) + "\n"
    )


def required(options: Mapping[str, str], *names: str) -> None:
    """Raise UsageError for the first option that is missing."""
    for name in names:
        if not options.get(name):
            raise UsageError(f"option {name} is missing; nothing was done")


if __name__ == "__main__":
    # As a script this module exists twice; errors must be those of the one that the actions import.
    from standfast.commands import fence_xscf

    sys.exit(fence_xscf.main())
