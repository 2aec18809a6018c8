"""Everything outside that `clsnmpsetup` touches, in one place, so that tests can stand in for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast.cluster import cib, rescue_file
from standfast.cluster.run import run
from standfast.commands import secret_store
from standfast.commands.secret_store import SecretStore
from standfast.core import hostlist
from standfast.core.messages import Message, Refused
from standfast.core.names import CONFIG_FILE, XSCF_AGENT

CLEANUP_LIMIT_SECONDS = 30.0
OWN_NODE_LIMIT_SECONDS = 5.0
PROBE_LIMIT_SECONDS = 60.0
METADATA_LIMIT_SECONDS = 20.0
START_CLUSTER = "systemctl start corosync pacemaker"


@dataclass(frozen=True)
class Probe:
    """What an agent said about its node: it logged in and saw a live state, or why not."""

    ok: bool
    text: str


def query() -> ET.Element:
    """The local CIB. Raises Refused where the cluster does not run here."""
    try:
        return cib.query()
    except cib.CibError as error:
        text = f"the cluster is not running on this node ({error}); nothing was changed"
        raise Refused(Message("setup.cluster-not-running", text, next_command=START_CLUSTER)) from None


def own_node() -> str:
    """This node's name in the cluster; empty where that cannot be told."""
    result = run(["crm_node", "-n"], limit_seconds=OWN_NODE_LIMIT_SECONDS)
    return result.stdout.strip() if result.ok else ""


def cleanup(device: str, node: str) -> None:
    """Let the cluster try again to start a device here. What fails is shown by sdtool -s."""
    run(
        ["crm_resource", "--cleanup", "--resource", device, "--node", node],
        limit_seconds=CLEANUP_LIMIT_SECONDS,
    )


def probe(parameters: Mapping[str, str], program: str = XSCF_AGENT) -> Probe:
    """Run an agent's `status` with a device's own parameters."""
    # asyncio is a twentieth of a second: only where an agent is really run.
    import asyncio

    from standfast.processors import agents

    options = {name: value for name, value in parameters.items() if not name.startswith("pcmk_")}
    result = asyncio.run(agents.run(program, "status", options, PROBE_LIMIT_SECONDS))
    what = "domain" if program == XSCF_AGENT else "guest"
    if result.outcome is agents.Outcome.DONE:
        return Probe(True, f"login works, the {what} is running")
    if result.outcome is agents.Outcome.OFF:
        return Probe(False, f"login works, but the {what} is not running there")
    return Probe(False, result.said)


def unknown_to(program: str, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Parameters that this fence agent does not know, and would silently ignore. Raises Refused where it
    cannot be asked."""
    import asyncio

    from standfast.processors import agents

    try:
        known = asyncio.run(agents.metadata(program, METADATA_LIMIT_SECONDS))
    except agents.MetadataError as error:
        text = f"the fence agent cannot be used on this node ({error}); nothing was changed"
        hint = f"install {program} (on every node)"
        raise Refused(Message("setup.agent", text, next_command=hint)) from None
    return agents.unknown_options(known, parameters)


def kinds() -> frozenset[str]:
    """The kinds of the hosts in clovmmigrate.conf; none where the file cannot be used."""
    try:
        text = Path(CONFIG_FILE).read_text()
        return frozenset(host.kind for host in hostlist.from_text(text).hosts)
    except (OSError, UnicodeDecodeError, hostlist.HostListError):
        return frozenset()


def confirm(question: str) -> bool:
    """Ask a person. Raises Refused without a terminal."""
    if not sys.stdin.isatty():
        text = "there is no terminal to ask; nothing was changed"
        raise Refused(Message("setup.no-terminal", text, next_command="use --yes"))
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@dataclass(frozen=True)
class Outside:
    """The adapters; the defaults are the real ones."""

    query: Callable[[], ET.Element] = query
    apply: Callable[[ET.Element, ET.Element], None] = cib.apply
    own_node: Callable[[], str] = own_node
    cleanup: Callable[[str, str], None] = cleanup
    probe: Callable[..., Probe] = probe
    unknown_to: Callable[[str, Mapping[str, str]], tuple[str, ...]] = unknown_to
    kinds: Callable[[], frozenset[str]] = kinds
    confirm: Callable[[str], bool] = confirm
    ask_password: Callable[[], str] = secret_store.from_terminal
    keep_rescue: Callable[[ET.Element], str] = rescue_file.keep
    is_root: Callable[[], bool] = field(default=lambda: os.geteuid() == 0)
    secrets: SecretStore = field(default_factory=SecretStore)
