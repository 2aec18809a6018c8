"""What is registered for one cluster node: its guest, its shutdown agents, and at whom they aim.

A node whose guest lives on control domains has four agents in a fixed order (PRIMECLUSTER Cluster Foundation
guide 4.5, 7.3.3): panic over LAN#0, panic over LAN#1, reset over LAN#0, reset over LAN#1. A node on any other
host has one, an ordinary fence agent (`host_fencing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from standfast.core import fields, host_fencing
from standfast.core.names import XSCF_AGENT, secret_file

MAX_HEAD_START_SECONDS = 10


@dataclass(frozen=True)
class Agent:
    """One shutdown agent of a node. `level` is its place in the order, from 1."""

    level: int
    name: str
    lan: int = 0
    kill: str = ""
    program: str = XSCF_AGENT

    @property
    def shown(self) -> str:
        """The name in listings: that of an XSCF's agent as the manual prints it."""
        return f"{self.name}.so" if self.program == XSCF_AGENT else self.name

    def device_id(self, node: str) -> str:
        """Id of the fence device in the CIB."""
        return f"{self.name}-{node}"

    def gate_id(self, node: str) -> str:
        """Id of the gate in front of it."""
        return f"gate-{node}-{self.level}"

    def level_id(self, node: str) -> str:
        """Id of the topology level."""
        return f"fl-{node}-{self.level}"


AGENTS = (
    Agent(1, "SA_xscfsnmpg0p", 0, "panic"),
    Agent(2, "SA_xscfsnmpg1p", 1, "panic"),
    Agent(3, "SA_xscfsnmpg0r", 0, "sir"),
    Agent(4, "SA_xscfsnmpg1r", 1, "sir"),
)


@dataclass(frozen=True)
class XscfNode:
    """What is registered for a cluster node: its logical domain, the XSCF in charge of it, the weight."""

    node: str
    domain: str
    ppar_id: int
    lan0: str
    lan1: str
    user: str
    connection: str
    weight: int = 1

    limits: ClassVar[dict[str, str]] = {
        # One dead way must not use up the time of the next: one try a level, and limits whose worst sum
        # (login, two answers, proof, the doubtful case) ends before Pacemaker's own.
        "pcmk_off_retries": "1",
        "pcmk_reboot_retries": "1",
        "pcmk_off_timeout": f"{host_fencing.DEVICE_LIMIT_SECONDS}s",
        "pcmk_reboot_timeout": f"{host_fencing.DEVICE_LIMIT_SECONDS}s",
        "login_timeout": "10",
        "shell_timeout": "5",
        "power_timeout": "30",
    }

    @property
    def guest(self) -> str:
        """The guest that is this node."""
        return self.domain

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Its shutdown agents in their order."""
        return AGENTS

    def parameters(self, agent: Agent) -> dict[str, str]:
        """What one of its agents is told. Its password stays in a file on each node."""
        return {
            "ip": self.lan1 if agent.lan else self.lan0,
            "username": self.user,
            "ppar_id": str(self.ppar_id),
            "domain": self.domain,
            "connection": self.connection,
            "kill": agent.kill,
            "password_file": secret_file(self.node),
        }

    def checked(self) -> XscfNode:
        """The same, every field checked and in its kept form. Raises fields.FieldError naming the field."""
        checks = {
            "node": fields.name,
            "domain": fields.domain,
            "ppar_id": fields.ppar_id,
            "lan0": fields.address,
            "lan1": fields.address,
            "user": fields.user,
            "connection": lambda text: fields.one_of(text, fields.CONNECTIONS),
            "weight": fields.weight,
        }
        values = {}
        for field, check in checks.items():
            value = getattr(self, field)
            try:
                values[field] = check(value)  # type: ignore[operator]
            except fields.FieldError as error:
                raise fields.FieldError(f"{field} {value!r}: {error}") from None
        if values["lan0"] == values["lan1"]:
            raise fields.FieldError(f"lan1 {self.lan1!r}: must differ from lan0, it is the second way")
        return XscfNode(**values)


@dataclass(frozen=True)
class HostNode:
    """What is registered for a cluster node on a host of kind libvirt or manual."""

    node: str
    guest: str
    agent: str
    """The fence agent's name."""
    reach: tuple[tuple[str, str], ...]
    """What the agent needs to reach the host at which it aims, in the order of the names."""
    weight: int = 1

    limits: ClassVar[dict[str, str]] = host_fencing.LIMITS

    @property
    def agents(self) -> tuple[Agent, ...]:
        """Its one shutdown agent."""
        return (agent_of(self.agent),)

    def parameters(self, agent: Agent) -> dict[str, str]:
        """What its agent is told."""
        return {**dict(self.reach), host_fencing.PLUG: self.guest}

    def checked(self) -> HostNode:
        """The same, every field checked and in its kept form. Raises fields.FieldError naming the field."""
        try:
            field = "node"
            fields.name(self.node)
            field = "guest"
            fields.domain(self.guest)
            field = "agent"
            host_fencing.agent(self.agent)
            field = "weight"
            fields.weight(self.weight)
        except fields.FieldError as error:
            raise fields.FieldError(f"{field} {getattr(self, field)!r}: {error}") from None
        reach = tuple(host_fencing.parameters(dict(self.reach)).items())
        return HostNode(self.node, self.guest, self.agent, reach, self.weight)


Registered = XscfNode | HostNode


def agent_of(program: str) -> Agent:
    """The one shutdown agent of a node that an ordinary fence agent kills."""
    return Agent(1, host_fencing.sa_name(program), program=program)


def head_start_seconds(weight: int) -> int:
    """How much later a node of this weight is killed in a split: one second a point above 1, at most 10."""
    return min(weight - 1, MAX_HEAD_START_SECONDS)
