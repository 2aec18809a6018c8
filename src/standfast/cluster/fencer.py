"""The fencer: what it knows, what it has done, and a fencing by hand (stonith_admin of Pacemaker 2.1)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from standfast.cluster import fencer_query
from standfast.cluster.run import EngineError, run, xml_of
from standfast.core.running import RunningDevice

_NO_SUCH_DEVICE = 105


class FencingFailed(EngineError):
    """No device reported success; the node may or may not be alive."""


class FencingUnknown(EngineError):
    """No answer at the limit: the fencing may still be going on."""


@dataclass(frozen=True)
class FencingEvent:
    """One operation of the fencer's history. `status`: success, failed or pending."""

    target: str
    action: str
    status: str
    delegate: str = ""
    client: str = ""
    origin: str = ""
    completed: str = ""
    why: str = ""


def running(limit_seconds: float = 5.0) -> dict[str, RunningDevice]:
    """Every device of this node's running fencer by its id, with the parameters that the agent would get.

    Raises EngineError, also where the libraries of this Pacemaker cannot be asked (tried: 2.1.5).
    """
    argv = [sys.executable, "-I", "-S", str(Path(fencer_query.__file__)), str(round(limit_seconds * 1000))]
    result = run(argv, limit_seconds=limit_seconds)
    if not result.ok:
        raise EngineError(f"the running fencer cannot be asked for its devices: {result.complaint()}")
    try:
        root = ElementTree.fromstring(result.stdout)
    except ElementTree.ParseError as error:
        raise EngineError(f"the running fencer's answer cannot be read: {error}") from None
    found = {}
    for device in root.iterfind("./st_calldata/stonith_query_capable_device_cb/st_device_id"):
        attributes = device.find("attributes")
        parameters = dict(attributes.attrib) if attributes is not None else {}
        found[device.get("id", "")] = RunningDevice(device.get("agent", ""), parameters)
    return found


def history(node: str = "*", limit_seconds: float = 5.0) -> tuple[FencingEvent, ...]:
    """What this node's fencer remembers about `node` (`*`: all), newest first. Raises EngineError."""
    root = _ask(["--history", node, "--verbose"], limit_seconds)
    return tuple(_event(event) for event in root.iter("fence_event"))


def history_pending(limit_seconds: float = 5.0) -> tuple[FencingEvent, ...]:
    """The operations that are under way anywhere, as far as this node's fencer knows. Raises EngineError."""
    return tuple(event for event in history("*", limit_seconds) if event.status == "pending")


def devices_for(node: str, limit_seconds: float = 5.0) -> tuple[str, ...]:
    """The devices of THIS node's fencer that can fence `node` (not those banned from here)."""
    return _items(["--list", node], limit_seconds)


def registered(limit_seconds: float = 5.0) -> tuple[str, ...]:
    """The devices that this node's fencer has. Raises EngineError."""
    return _items(["--list-registered"], limit_seconds)


def fence(node: str, limit_seconds: float, action: str = "reboot") -> None:
    """Fence `node` through its topology and wait for the end. `action`: reboot or off.

    Raises FencingFailed, FencingUnknown at the limit (in a stall the answer comes only with the next ring,
    the agent is started all the same), EngineError where there is no fencer, ValueError for another action.
    """
    option = {"reboot": "--reboot", "off": "--fence"}.get(action)
    if option is None:
        raise ValueError(f"not an action that fences: {action}")
    # Without a fencer stonith_admin would wait for one until its limit.
    registered(min(limit_seconds, 5.0))
    argv = ["stonith_admin", option, node, "--timeout", str(math.ceil(limit_seconds))]
    result = run(argv, limit_seconds=limit_seconds)
    if result.timed_out:
        raise FencingUnknown(f"fencing of {node} was not finished within {limit_seconds:g} s")
    if not result.ok:
        raise FencingFailed(f"{node} could not be fenced: {result.complaint()}")


def cleanup_history(node: str, limit_seconds: float = 10.0) -> None:
    """Forget what the fencers remember about `node`, on all nodes. Raises EngineError."""
    _ask(["--history", node, "--cleanup"], limit_seconds)


def _items(options: Sequence[str], limit_seconds: float) -> tuple[str, ...]:
    root = _ask(options, limit_seconds)
    return tuple(item.text or "" for item in root.iter("item") if item.get("name") == "device")


def _ask(options: Sequence[str], limit_seconds: float) -> ElementTree.Element:
    result = run(["stonith_admin", *options, "--output-as=xml"], limit_seconds=limit_seconds)
    root = xml_of(result)
    if root is not None and (result.ok or result.returncode == _NO_SUCH_DEVICE):
        return root
    raise EngineError(f"the fencer did not answer: {result.complaint()}")


def _event(event: ElementTree.Element) -> FencingEvent:
    return FencingEvent(
        target=event.get("target", ""),
        action=event.get("action", ""),
        status=event.get("status", ""),
        delegate=event.get("delegate", ""),
        client=event.get("client", ""),
        origin=event.get("origin", ""),
        completed=event.get("completed", ""),
        why=event.get("exit-reason", ""),
    )
