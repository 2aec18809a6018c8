"""clsnmpsetup: which service processor (XSCF) is in charge of which cluster node.

`-l` prints the listing of the PRIMECLUSTER manual (Installation and Administration Guide 4.3, 14.3.3). The
syntax of the other operations is ours; the manual pages that describe them were not to be had.

The data goes to the cluster's CIB, the same for all nodes. The password goes to a file on this node; the same
command on each other node stores it there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree as ET

from standfast.commands import secret_store
from standfast.commands.setup_change import change, checked_name, refusing, start_again, way_out, without
from standfast.commands.setup_options import FIELDS, check_usage, parser
from standfast.commands.setup_outside import Outside
from standfast.commands.setup_text import as_json, in_words, table
from standfast.core import devices, fields, owed
from standfast.core.devices import AGENTS, XscfNode
from standfast.core.messages import Message, Refused, Severity

DONE, REFUSED, USAGE, INTERRUPTED = 0, 1, 2, 130
MAX_CHECKS_AT_ONCE = 8


def main(argv: Sequence[str] | None = None, outside: Outside | None = None) -> int:
    """The command. Exit code 0 done, 1 refused, 2 usage."""
    made = parser()
    options = made.parse_args(argv)
    check_usage(made, options)
    try:
        return _Setup(options, outside or Outside()).run()
    except fields.FieldError as error:
        print(f"clsnmpsetup: {_as_option(str(error))}; nothing was changed", file=sys.stderr)
        return USAGE
    except Refused as refused:
        for message in refused.messages:
            print(f"clsnmpsetup: {message}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("\nclsnmpsetup: interrupted; nothing further is done", file=sys.stderr)
        return INTERRUPTED


class _Setup:
    """One call of the command."""

    def __init__(self, options: argparse.Namespace, outside: Outside) -> None:
        self.options = options
        self.outside = outside
        # Asked before anything is changed: the controller, which knows the name, does not answer for
        # seconds while it reads the metadata of agents that are new to it.
        self.own = outside.own_node() if outside.is_root() else ""

    def run(self) -> int:
        """Do what the options ask; the exit code."""
        if not self.outside.is_root():
            text = "this must be run as root; nothing was changed"
            raise Refused(Message("setup.not-root", text, next_command="sudo clsnmpsetup ..."))
        self._refuse_other_hosts()
        if self.options.add is not None:
            return self.add(self.options.add)
        if self.options.modify is not None:
            return self.modify(self.options.modify)
        if self.options.delete is not None:
            return self.delete(self.options.delete)
        if self.options.forget is not None:
            return self.forget(self.options.forget)
        return self.check(self.options.check) if self.options.check is not None else self.show()

    def show(self) -> int:
        """`-l`"""
        cib = self.outside.query()
        nodes = _registered(cib)
        if self.options.json:
            print(json.dumps([as_json(node, devices.faults(cib, node)) for node in nodes], indent=2))
            return DONE
        print("\n".join(table(nodes)))
        if len(nodes) < len(devices.registered(cib)):
            print("clsnmpsetup: nodes without an XSCF are shown by: standfast node list", file=sys.stderr)
        return DONE

    def add(self, name: str) -> int:
        """`-a`: register, or only store the password where the same data is registered already."""
        wanted = XscfNode(node=name, **self.given()).checked()
        before = self.outside.query()
        new = self._may_add(before, wanted)
        if self.options.dry_run:
            return self._plan(before, wanted if new else None)
        old = self._store(name, self._password())
        if new:
            try:
                new = change(
                    self.outside,
                    lambda cib: devices.with_node(cib, wanted) if self._may_add(cib, wanted) else None,
                )
            except Refused as refused:
                self._take_back(name, old, refused)
                raise
        if new:
            print(f"Registered: {in_words(wanted)}. The password is stored on this node.")
        else:
            print(f"{name} was registered already with the same data: the password is stored on this node.")
        start_again(self.outside, self.own, name)
        way_out(self.outside, "clsnmpsetup")
        self._other_nodes(before)
        return DONE

    def modify(self, name: str) -> int:
        """`-m`: change what is given; with a password option also the password on this node."""
        before = self.outside.query()
        wanted = self._changed(before, name)
        new = bool(self.given() and (wanted != _find(before, name) or devices.faults(before, wanted)))
        if new:
            refusing(devices.with_node, before, wanted)
        if self.options.dry_run:
            return self._plan(before, wanted if new else None)
        asked = self.options.password or self.options.password_file is not None
        old = self._store(name, self._password()) if asked else None
        if new:
            try:
                change(self.outside, lambda cib: devices.with_node(cib, self._changed(cib, name)))
            except Refused as refused:
                if asked:
                    self._take_back(name, old, refused)
                raise
            print(f"Changed: {in_words(wanted)}.")
        elif self.given():
            print(f"{name} is registered with the same data: nothing to change.")
        if asked:
            print("The password is stored on this node.")
            start_again(self.outside, self.own, name)
            self._other_nodes(before)
        return DONE

    def delete(self, name: str) -> int:
        """`-d`: take the node's devices away, and its password from this node."""
        before = self.outside.query()
        checked_name(name)
        try:
            refusing(devices.without_node, before, name)
        except devices.NotRegisteredError:
            return self._delete_secret(name)
        if self.options.dry_run:
            print(
                f"Would delete the XSCF data of {name}, and its password from this node. Nothing was changed."
            )
            return DONE
        if not self.options.yes and not self.outside.confirm(
            f"Delete the XSCF data of {name}? The cluster can then not kill it through the XSCF."
        ):
            raise Refused(Message("setup.declined", "nothing was changed", severity=Severity.INFO))
        change(self.outside, lambda cib: without(cib, name))
        self.outside.secrets.remove(name)
        print(f"Deleted: the XSCF data of {name}, and its password on this node.")
        self._other_nodes(before)
        return DONE

    def forget(self, name: str) -> int:
        """`--forget`: a node that was away when a window closed will not take its old values back."""
        checked_name(name)
        reason = self.options.reason
        if self.options.dry_run:
            refusing(owed.forget, self.outside.query(), name, reason)
            print(f"Would forget the heartbeat values owed to {name}. Nothing was changed.")
            return DONE
        change(self.outside, lambda cib: owed.forget(cib, name, reason))
        print(f"Forgotten: the heartbeat values owed to {name}. Its corosync.conf is yours to put right.")
        return DONE

    def check(self, name: str) -> int:
        """`--check`: log in over both LANs, from this node and with its stored password."""
        cib = self.outside.query()
        nodes = [node for node in _registered(cib) if name in ("", node.node)]
        if not nodes:
            who = name or "any node"
            text = f"no XSCF data is registered for {who}"
            raise Refused(Message("setup.not-registered", text, node=name, next_command="clsnmpsetup -l"))
        usable = True
        # Nodes at the same time, the two LANs of a node in turn: an XSCF has few logins to give.
        with ThreadPoolExecutor(max_workers=MAX_CHECKS_AT_ONCE) as pool:
            for lines, good in pool.map(lambda node: self._check_node(cib, node), nodes):
                print("\n".join(lines))
                usable = usable and good
        return DONE if usable else REFUSED

    def _refuse_other_hosts(self) -> None:
        """Nothing is registered here for hosts that have no XSCF; what is there can be shown and deleted."""
        new = self.options.add if self.options.add is not None else self.options.modify
        kinds = self.outside.kinds()
        if new is None or not kinds or "ldm" in kinds:
            return
        text = f"the hosts of clovmmigrate.conf are of kind {' and '.join(sorted(kinds))} and have no XSCF"
        typed = f"standfast node add {new} --guest GUEST --host HOST"
        raise Refused(Message("setup.other-kind", f"{text}; nothing was changed", next_command=typed))

    def given(self) -> dict[str, Any]:
        """The fields that the command line gives."""
        return {name: value for name in FIELDS if (value := getattr(self.options, name)) is not None}

    def _may_add(self, cib: ET.Element, wanted: XscfNode) -> bool:
        """Whether `wanted` is new. Refuses where it is registered otherwise, or must not be changed now."""
        existing = _find(cib, wanted.node)
        if existing is None:
            refusing(devices.with_node, cib, wanted)
            return True
        if existing == wanted:
            return False
        changed = ", ".join(
            f"{option} is {getattr(existing, name)}"
            for name, option in FIELDS.items()
            if getattr(existing, name) != getattr(wanted, name)
        )
        text = f"{wanted.node} is registered already with other data ({changed}); nothing was changed"
        next_command = f"clsnmpsetup -m {wanted.node} ..."
        raise Refused(Message("setup.registered", text, node=wanted.node, next_command=next_command))

    def _changed(self, cib: ET.Element, name: str) -> XscfNode:
        checked_name(name)
        existing = _find(cib, name)
        if existing is None:
            text = f"no XSCF data is registered for {name}; nothing was changed"
            raise Refused(
                Message("setup.not-registered", text, node=name, next_command=f"clsnmpsetup -a {name} ...")
            )
        return dataclasses.replace(existing, **self.given()).checked()

    def _delete_secret(self, name: str) -> int:
        """The node is not registered (any more): what is left is this node's password file."""
        if not self.outside.secrets.has(name):
            text = f"no XSCF data is registered for {name}; nothing was changed"
            raise Refused(Message("setup.not-registered", text, node=name, next_command="clsnmpsetup -l"))
        if self.options.dry_run:
            print(f"Would delete the password for {name} from this node. Nothing was changed.")
            return DONE
        self.outside.secrets.remove(name)
        print(f"{name} was deleted already: its password is deleted from this node too.")
        return DONE

    def _password(self) -> str:
        if self.options.password_file is not None:
            return secret_store.from_file(self.options.password_file)
        return self.outside.ask_password()

    def _store(self, name: str, password: str) -> str | None:
        """Keep the password; returns the one before. First the password, then the CIB: an agent that is
        started without its password stays stopped on this node."""
        old = self.outside.secrets.read(name)
        self.outside.secrets.write(name, password)
        return old

    def _take_back(self, name: str, old: str | None, refused: Refused) -> None:
        """The CIB refused: put the password back, unless the change may still land."""
        if any(message.code == "setup.unknown" for message in refused.messages):
            return
        if old is None:
            self.outside.secrets.remove(name)
        else:
            self.outside.secrets.write(name, old)

    def _check_node(self, cib: ET.Element, node: XscfNode) -> tuple[list[str], bool]:
        """What to say about one node, and whether this node could kill it now."""
        lines = [f"registered data: {fault}" for fault in devices.faults(cib, node)]
        usable = not lines
        if self.outside.secrets.has(node.node):
            for agent, address in zip(AGENTS, (node.lan0, node.lan1), strict=False):
                said = self.outside.probe(devices.parameters_of(cib, agent.device_id(node.node)))
                lines.append(f"LAN#{agent.lan} {address}: {said.text}")
                usable = usable and said.ok
        else:
            store = f"clsnmpsetup -m {node.node} --password"
            lines.append(f"no password for {node.node} on this node; store it: {store}")
            usable = False
        lines.append("usable from this node" if usable else "not usable from this node")
        return [f"{node.node}: {line}" for line in lines], usable

    def _plan(self, before: ET.Element, wanted: XscfNode | None) -> int:
        if wanted is None:
            print("The same data is registered already. Nothing was changed.")
            return DONE
        existing = _find(before, wanted.node)
        print(f"Would register: {in_words(wanted)}.")
        for name, option in FIELDS.items() if existing is not None else ():
            old, new = getattr(existing, name), getattr(wanted, name)
            if old != new:
                print(f"  {option}: {old} -> {new}")
        print("Nothing was changed.")
        return DONE

    def _other_nodes(self, cib: ET.Element) -> None:
        nodes = [node.get("uname", "") for node in cib.iterfind("./configuration/nodes/node")]
        others = ", ".join(name for name in nodes if name != self.own)
        if others:
            print(f"Now the same command on each other node, for its password file: {others}.")


def _registered(cib: ET.Element) -> tuple[XscfNode, ...]:
    """The nodes that have agents of an XSCF; the others are for `standfast node`."""
    return tuple(entry for entry in devices.registered(cib) if isinstance(entry, XscfNode))


def _find(cib: ET.Element, node: str) -> XscfNode | None:
    return next((entry for entry in _registered(cib) if entry.node == node), None)


def _as_option(text: str) -> str:
    """Field names of the core as the operator typed them."""
    name, _, rest = text.partition(" ")
    return f"--{FIELDS[name]} {rest}" if name in FIELDS else text


if __name__ == "__main__":
    sys.exit(main())
