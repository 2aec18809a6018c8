"""What ``standfast node`` does. What it shares with clsnmpsetup: `setup_change`, `setup_outside`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from standfast.commands.setup_change import change, checked_name, refusing, start_again, way_out, without
from standfast.commands.setup_outside import Outside
from standfast.commands.window_run import EXIT_DONE, EXIT_REFUSED, Screen, host_name, load_config
from standfast.core import aims, devices
from standfast.core.devices import Agent, HostNode, Registered, XscfNode
from standfast.core.host_fencing import PLUG
from standfast.core.hostlist import ControlDomain
from standfast.core.messages import Message, Refused, Severity

LISTING = "standfast node list"
MAX_CHECKS_AT_ONCE = 4


@dataclass(frozen=True)
class Wanted:
    """What the command line says; empty or None: not given."""

    node: str
    guest: str
    host: str
    weight: int | None


class NodeSetup:
    """One call of the command."""

    def __init__(self, outside: Outside, screen: Screen) -> None:
        """Raises Refused."""
        self.outside, self.screen = outside, screen
        if not outside.is_root():
            raise Refused(Message("setup.not-root", "this must be run as root; nothing was changed"))
        # Before anything is changed: the controller, which knows the name, does not answer for seconds while
        # it reads the metadata of agents that are new to it.
        self.own = outside.own_node()

    def add(self, wanted: Wanted, *, dry_run: bool) -> int:
        """Register a node; the same data again changes nothing."""
        checked_name(wanted.node)
        host = self._host(wanted.host)
        weight = host.weight if wanted.weight is None else wanted.weight
        entry = HostNode(wanted.node, wanted.guest, host.fence_agent, host.fence_parameters, weight).checked()
        self._refuse_unknown_parameters(entry)
        return self._register(entry, host.name, dry_run=dry_run, may=self._may_add)

    def change(self, wanted: Wanted, *, dry_run: bool) -> int:
        """Change what is given, and make anew what is missing."""
        checked_name(wanted.node)
        existing = self._existing(self.outside.query(), wanted.node)
        entry = existing
        if wanted.host:
            host = self._host(wanted.host)
            entry = replace(entry, agent=host.fence_agent, reach=host.fence_parameters, weight=host.weight)
        if wanted.guest:
            entry = replace(entry, guest=wanted.guest)
        if wanted.weight is not None:
            entry = replace(entry, weight=wanted.weight)
        entry = entry.checked()
        if wanted.host:
            self._refuse_unknown_parameters(entry)
        where = aims.host_of(self._hosts(), entry)
        return self._register(entry, where, dry_run=dry_run, may=self._may_change)

    def remove(self, name: str, *, yes: bool, dry_run: bool) -> int:
        """Take a node's devices away."""
        checked_name(name)
        before = self.outside.query()
        if isinstance(devices.find(before, name), XscfNode):
            text = f"{name} has shutdown agents of an XSCF; nothing was changed"
            raise Refused(Message("setup.other-kind", text, node=name, next_command=f"clsnmpsetup -d {name}"))
        try:
            refusing(devices.without_node, before, name)
        except devices.NotRegisteredError:
            known = [entry.get("uname") for entry in before.iterfind("./configuration/nodes/node")]
            if name not in known:
                text = f"{name} is no node of this cluster, and nothing is registered for it"
                message = Message("setup.not-registered", text, node=name, next_command=LISTING)
                raise Refused(message) from None
            return self.screen.end(EXIT_DONE, f"Nothing is registered for {name}.", changed=False)
        if dry_run:
            text = f"Would remove {name}. Nothing was changed."
            return self.screen.end(EXIT_DONE, text, changed=False)
        question = f"Remove {name}? The cluster can then not kill it through its host."
        if not yes and not self.outside.confirm(question):
            raise Refused(Message("setup.declined", "nothing was changed", severity=Severity.INFO))
        change(self.outside, lambda cib: without(cib, name), LISTING)
        return self.screen.end(EXIT_DONE, f"Removed: {name}.", changed=True)

    def show(self) -> int:
        """Every registered node."""
        cib = self.outside.query()
        hosts = self._hosts(quietly=True)
        shown = [_as_json(cib, entry, hosts) for entry in devices.registered(cib)]
        for line in _table(shown) if not self.screen.as_json else ():
            print(line)
        return self.screen.end(EXIT_DONE, "", nodes=shown)

    def check(self, name: str) -> int:
        """Run `status` of every agent's way from this node."""
        cib = self.outside.query()
        entries = [entry for entry in devices.registered(cib) if name in ("", entry.node)]
        if not entries:
            text = f"nothing is registered for {name or 'any node'}"
            raise Refused(Message("setup.not-registered", text, node=name, next_command=LISTING))
        usable = True
        found = []
        with ThreadPoolExecutor(max_workers=MAX_CHECKS_AT_ONCE) as pool:
            for entry, (lines, good) in zip(
                entries, pool.map(lambda entry: self._check_node(cib, entry), entries), strict=True
            ):
                usable = usable and good
                found.append({"node": entry.node, "usable": good, "said": lines})
                for line in lines if not self.screen.as_json else ():
                    print(f"{entry.node}: {line}")
        return self.screen.end(EXIT_DONE if usable else EXIT_REFUSED, "", nodes=found)

    # -- registering --------------------------------------------------------------------------------------

    def _register(
        self, entry: HostNode, host: str, *, dry_run: bool, may: Callable[[ET.Element, HostNode], bool]
    ) -> int:
        before = self.outside.query()
        new = may(before, entry)
        said = _in_words(entry, host)
        if dry_run or not new:
            text = f"Would register: {said}. Nothing was changed." if new else f"Registered already: {said}."
            return self.screen.end(EXIT_DONE, text, changed=False)
        made = change(
            self.outside, lambda cib: devices.with_node(cib, entry) if may(cib, entry) else None, LISTING
        )
        start_again(self.outside, self.own, entry.node)
        if not self.screen.as_json:
            way_out(self.outside, self.screen.program)
        text = f"Registered: {said}. Each node tests it now: sdtool -s"
        return self.screen.end(EXIT_DONE, text, changed=made)

    def _may_add(self, cib: ET.Element, entry: HostNode) -> bool:
        existing = devices.find(cib, entry.node)
        if existing == entry and not devices.faults(cib, entry):
            return False
        if existing is not None and existing != entry and isinstance(existing, HostNode):
            text = f"{entry.node} is registered already with other data ({_differ(existing, entry)})"
            hint = f"standfast node change {entry.node} ..."
            raise Refused(
                Message(
                    "setup.registered", f"{text}; nothing was changed", node=entry.node, next_command=hint
                )
            )
        self._refuse_taken(cib, entry)
        refusing(devices.with_node, cib, entry)
        return True

    def _may_change(self, cib: ET.Element, entry: HostNode) -> bool:
        existing = self._existing(cib, entry.node)
        if existing == entry and not devices.faults(cib, entry):
            return False
        self._refuse_taken(cib, entry)
        refusing(devices.with_node, cib, entry)
        return True

    def _refuse_taken(self, cib: ET.Element, entry: HostNode) -> None:
        """One guest is one node: a kill of the one would be a kill of the other."""
        for other in devices.registered(cib):
            if other.guest == entry.guest and other.node != entry.node:
                text = f"guest {entry.guest} is registered for {other.node} already; nothing was changed"
                raise Refused(Message("setup.guest-taken", text, node=other.node, next_command=LISTING))

    def _existing(self, cib: ET.Element, name: str) -> HostNode:
        existing = devices.find(cib, name)
        if isinstance(existing, HostNode):
            return existing
        if existing is not None:
            text = f"{name} has shutdown agents of an XSCF; nothing was changed"
            hint = f"clsnmpsetup -m {name} ..."
            raise Refused(Message("setup.other-kind", text, node=name, next_command=hint))
        text = f"nothing is registered for {name}; nothing was changed"
        hint = f"standfast node add {name} --guest GUEST --host HOST"
        raise Refused(Message("setup.not-registered", text, node=name, next_command=hint))

    def _refuse_unknown_parameters(self, entry: HostNode) -> None:
        unknown = self.outside.unknown_to(entry.agent, {**dict(entry.reach), PLUG: entry.guest})
        if unknown:
            text = (
                f"{entry.agent} does not know {', '.join(unknown)} and would ignore it; nothing was changed"
            )
            hint = f"{entry.agent} -o metadata"
            raise Refused(Message("setup.unknown-parameter", text, next_command=hint))

    # -- hosts --------------------------------------------------------------------------------------------

    def _hosts(self, *, quietly: bool = False) -> tuple[ControlDomain, ...]:
        """The hosts of clovmmigrate.conf. Raises Refused, unless `quietly`: then there are none."""
        try:
            return load_config().config.hosts.hosts
        except Refused:
            if quietly:
                return ()
            raise

    def _host(self, given: str) -> ControlDomain:
        """The host that is meant, which must be one for an ordinary fence agent. Raises Refused."""
        config = load_config().config
        found = config.find_host(host_name(config, given))
        if found.kind == "ldm":
            text = f"{found.name} is of kind ldm and killed through its XSCF; nothing was changed"
            hint = "clsnmpsetup -a NODE ..."
            raise Refused(Message("setup.other-kind", text, host=found.name, next_command=hint))
        if not found.fence_agent:
            text = f"{found.name} has no fence_agent in clovmmigrate.conf; nothing was changed"
            hint = "put fence_agent and [control_domain.fence_parameters] into it, on every node"
            raise Refused(Message("setup.no-agent", text, host=found.name, next_command=hint))
        return found

    # -- checking -----------------------------------------------------------------------------------------

    def _check_node(self, cib: ET.Element, entry: Registered) -> tuple[list[str], bool]:
        lines = [f"registered data: {fault}" for fault in devices.faults(cib, entry)]
        usable = not lines
        for label, agent in _ways(entry):
            said = self.outside.probe(
                devices.parameters_of(cib, agent.device_id(entry.node)), program=agent.program
            )
            lines.append(f"{label}: {said.text}")
            usable = usable and said.ok
        return [*lines, "usable from this node" if usable else "not usable from this node"], usable


def _ways(entry: Registered) -> Iterator[tuple[str, Agent]]:
    """Each way to the node's killer once: the two LANs of an XSCF serve two agents each."""
    if isinstance(entry, XscfNode):
        for agent, address in zip(entry.agents, (entry.lan0, entry.lan1), strict=False):
            yield f"LAN#{agent.lan} {address}", agent
    else:
        yield f"{entry.agent} {dict(entry.reach).get('ip', '')}".strip(), entry.agents[0]


def _differ(there: HostNode, wanted: HostNode) -> str:
    """The fields that differ, with what is there."""
    shown = {
        "guest": there.guest,
        "agent": there.agent,
        "reach": ", ".join(f"{name}={value}" for name, value in there.reach),
        "weight": str(there.weight),
    }
    return "; ".join(
        f"{'host' if name == 'reach' else name} is {text}"
        for name, text in shown.items()
        if getattr(there, name) != getattr(wanted, name)
    )


def _in_words(entry: HostNode, host: str) -> str:
    return (
        f"{entry.node}, guest {entry.guest}, {entry.agent} at {host or 'no host of clovmmigrate.conf'}, "
        f"weight {entry.weight}"
    )


def _as_json(cib: ET.Element, entry: Registered, hosts: tuple[ControlDomain, ...]) -> dict[str, object]:
    return {
        "node": entry.node,
        "guest": entry.guest,
        "host": aims.host_of(hosts, entry),
        "agents": [agent.name for agent in entry.agents],
        "weight": entry.weight,
        "faults": list(devices.faults(cib, entry)),
    }


def _table(shown: list[dict[str, object]]) -> Iterator[str]:
    rows = [("NODE", "GUEST", "HOST", "AGENT", "WEIGHT")]
    for entry in shown:
        agents = entry["agents"]
        first = agents[0] if isinstance(agents, list) and len(agents) == 1 else "XSCF"
        values = (entry["node"], entry["guest"], entry["host"] or "?", first, entry["weight"])
        rows.append(tuple(map(str, values)))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for entry in shown:
        faults = entry["faults"]
        for fault in faults if isinstance(faults, list) else ():
            yield f"{entry['node']}: {fault}; put it right: {_mend(entry)}"


def _mend(entry: dict[str, object]) -> str:
    agents = entry["agents"]
    alone = isinstance(agents, list) and len(agents) == 1
    return f"standfast node change {entry['node']}" if alone else f"clsnmpsetup -m {entry['node']} ..."
