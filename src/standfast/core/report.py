"""What each node's daemon reports to all others, as the value of one private attribute.

A dropped or restarted node has no report. A report is believed only for the epoch that it carries: exit 0 of
``attrd_updater`` proves nothing about delivery (docs/design.md, section 3).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

FORMAT = 1
FAILED = "-"
"""In the place of a fingerprint: the test failed."""
OLDER = "its daemon is older and does not ask it"
OLDER_CLOCKS = "its daemon is older and does not measure"


class ReportError(Exception):
    """A report cannot be read."""


@dataclass(frozen=True)
class Report:
    """One node's word about itself."""

    node: str
    epoch: int = 0
    """Epoch of the record in this node's LOCAL copy when it reported."""
    file_keys: Mapping[str, str] = field(default_factory=dict)
    """Our keys as they stand in this node's corosync.conf (a missing key is absent)."""
    file_error: str = ""
    """Why the file could not be read or brought to what the record asks; empty: it is as asked."""
    structure: str = ""
    """Fingerprint of everything in corosync.conf that is not ours."""
    rest: str = ""
    """Fingerprint of the same without the node list."""
    nodes: tuple[str, ...] = ()
    """The node list of that file: a text for each node that begins with its name, then all that is said."""
    unloaded: tuple[str, ...] = ()
    """Keys that are not ours in which that file differs from what this node's corosync has read of it."""
    runtime: Mapping[str, int] = field(default_factory=dict)
    """Heartbeat values in force, read from this node's corosync."""
    members: tuple[str, ...] = ()
    """The membership as this node sees it."""
    config: str = ""
    """Fingerprint of this node's clovmmigrate.conf; empty: missing or wrong (`config_error` says why)."""
    config_error: str = ""
    agents: Mapping[str, str] = field(default_factory=dict)
    """Device -> test state (a sdtool word), with ``: WHY`` after a failure."""
    proofs: Mapping[str, str] = field(default_factory=dict)
    """Device -> ``FINGERPRINT@EPOCH``: with which parameters, and at which epoch of the record, the last test
    from this node that worked began; ``-@EPOCH``: that test failed."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Control domain -> empty if this node can ask it, else why not."""
    logins: Mapping[str, str] = field(default_factory=dict)
    """Service-processor address -> empty if the registered user can log in from this node, else why not."""
    facility: str = "running"
    """running, or stopped (sdtool -e on this node)."""
    killing: str = ""
    """Node that this node's fencer would fence by its killing gate and by nothing else (guarded window)."""
    answered: tuple[str, ...] = ()
    """What this node's gates have answered about the mover since its window began (`refusals.answers`)."""
    fencer: Mapping[str, str] = field(default_factory=dict)
    """Node and device -> in what this node's running fencer differs from the configuration
    (core/running.py), at `epoch`. Those that agree are missing."""
    fencer_error: str = ""
    """Why the running fencer could not be asked; empty: it was."""
    identity: str = ""
    """UUID of the machine that this node is, as its own firmware tells; empty: not known."""
    clocks: Mapping[str, float] = field(default_factory=dict)
    """Other node -> its clock minus this node's, in seconds, where that was measured (`core.clocks`)."""
    clocks_out: tuple[str, ...] = ()
    """Which of them are out of sync with this node."""
    clocks_at: int = 0
    """All this was measured at this epoch of the record or later; 0: at any."""
    clock_error: str = ""
    """Why clocks cannot be measured from this node; empty: they are."""
    watches: bool = False
    """This node looks whether guests are where their devices aim, when that is its turn (core/strays.py)."""
    strays: Mapping[str, str] = field(default_factory=dict)
    """Node -> where its guest is, as `strays.Sight.word` tells it, where it was moved without a window."""
    clock_step: str = ""
    """What this node does, or has done in this window, to set its own clock (`core.clock_step`), to be read
    after its name; empty: nothing."""
    commanding: bool = False
    """A command that drives the window is alive on this node."""
    just_in_time: bool = False
    """Its daemon knows of a raise just in time (core/raising.py); older ones could not read that record."""


def proof(fingerprint: str, epoch: int) -> str:
    """The text of one proof."""
    return f"{fingerprint}@{epoch}"


def proves(text: str, fingerprint: str, since_epoch: int) -> bool:
    """Whether `text` is a proof of these parameters, begun at `since_epoch` or later."""
    shown, _, epoch = text.partition("@")
    return shown == fingerprint and epoch.isdigit() and int(epoch) >= since_epoch


def begun_since(text: str, since_epoch: int) -> bool:
    """Whether `text` tells of a test, however it ended, that was begun at `since_epoch` or later."""
    epoch = text.partition("@")[2]
    return epoch.isdigit() and int(epoch) >= since_epoch


def encode(report: Report) -> str:
    """The report as compact JSON."""
    body: dict[str, object] = {
        "v": FORMAT,
        "node": report.node,
        "epoch": report.epoch,
        "keys": dict(report.file_keys),
        "kerr": report.file_error,
        "struct": report.structure,
        "rest": report.rest,
        "nodes": list(report.nodes),
        "unl": list(report.unloaded),
        "run": dict(report.runtime),
        "mem": list(report.members),
        "conf": report.config,
        "cerr": report.config_error,
        "agents": dict(report.agents),
        "proofs": dict(report.proofs),
        "hosts": dict(report.hosts),
        "logins": dict(report.logins),
        "sf": report.facility,
        "cmd": report.commanding,
        "jit": report.just_in_time,
        "kill": report.killing,
        "ans": list(report.answered),
        "fdev": dict(report.fencer),
        "ferr": report.fencer_error,
        "uuid": report.identity,
        "clk": dict(report.clocks),
        "cout": list(report.clocks_out),
        "cat": report.clocks_at,
        "clkerr": report.clock_error,
        "wat": report.watches,
        "stray": dict(report.strays),
        "cstep": report.clock_step,
    }
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def decode(text: str) -> Report:
    """Parse a report. Raises ReportError for another format or damaged text."""
    try:
        body = json.loads(text)
        if body["v"] != FORMAT:
            raise ReportError(f"report format {body['v']!r} is not known to this version")
        return Report(
            node=str(body["node"]),
            epoch=int(body["epoch"]),
            file_keys=_texts(body["keys"]),
            file_error=str(body["kerr"]),
            structure=str(body["struct"]),
            # Daemons of before there were these names do not compare.
            rest=str(body.get("rest", "")),
            nodes=tuple(str(node) for node in body.get("nodes", ())),
            unloaded=tuple(str(key) for key in body.get("unl", ())),
            runtime={str(k): int(v) for k, v in body["run"].items()},
            members=tuple(str(name) for name in body["mem"]),
            config=str(body["conf"]),
            config_error=str(body["cerr"]),
            agents=_texts(body["agents"]),
            proofs=_texts(body["proofs"]),
            hosts=_texts(body["hosts"]),
            logins=_texts(body["logins"]),
            facility=str(body["sf"]),
            commanding=bool(body["cmd"]),
            just_in_time=bool(body.get("jit", False)),
            # Older daemons do not say it: then a guarded window is not confirmed.
            killing=str(body.get("kill", "")),
            answered=tuple(str(answer) for answer in body.get("ans", ())),
            fencer=_texts(body.get("fdev", {})),
            fencer_error=str(body.get("ferr", OLDER)),
            identity=str(body.get("uuid", "")),
            clocks={str(k): float(v) for k, v in body.get("clk", {}).items()},
            clocks_out=tuple(str(node) for node in body.get("cout", ())),
            clocks_at=int(body.get("cat", 0)),
            clock_error=str(body.get("clkerr", OLDER_CLOCKS)),
            watches=bool(body.get("wat", False)),
            strays=_texts(body.get("stray", {})),
            clock_step=str(body.get("cstep", "")),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ReportError(f"a report cannot be read: {error!r}") from None


def decode_all(texts: Mapping[str, str]) -> dict[str, Report]:
    """Node -> its report, from node -> text. Another version's report is as good as none."""
    found = {}
    for node, text in texts.items():
        with contextlib.suppress(ReportError):
            found[node] = decode(text)
    return found


def _texts(mapping: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in mapping.items()}
