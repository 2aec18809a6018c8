"""Debian's own fence_virsh, called for a registered node, against a real libvirtd."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts_kit import LibvirtSite, libvirtd

from standfast.commands import setup_outside
from standfast.core import device_objects, host_fencing
from standfast.core.messages import Refused
from standfast.core.registered import HostNode
from standfast.processors import agents
from standfast.processors.agents import AgentResult, Outcome

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="libvirtd is started as root"),
    pytest.mark.skipif(shutil.which("fence_virsh") is None, reason="fence-agents are not installed"),
]
LIMIT_SECONDS = 60.0
# The shell on a host, as the agent's ssh opens it.
SSH = """#!/bin/sh
export VIRSH_DEFAULT_CONNECT_URI='{uri}' PS1='[EXPECT]# '
exec /bin/bash --noprofile --norc
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with libvirtd(tmp_path_factory.mktemp("libvirt") / "d") as address:
        yield address


class Agent:
    """fence_virsh with the parameters of a registered node's device."""

    def __init__(self, folder: Path, site: LibvirtSite) -> None:
        self.site = site
        ssh, key = folder / "ssh", folder / "key"
        ssh.write_text(SSH.format(uri=site.uri))
        ssh.chmod(0o755)
        key.write_text("none is needed by this ssh\n")
        key.chmod(0o600)
        self.reach = {
            "identity_file": str(key),
            "ip": "10.88.0.202",
            "ssh_path": str(ssh),
            "username": "root",
        }

    def node(self, guest: str) -> HostNode:
        return HostNode("n2", guest, "fence_virsh", tuple(self.reach.items())).checked()

    async def run(self, action: str, guest: str) -> AgentResult:
        entry = self.node(guest)
        device = device_objects.parameters(device_objects.device(entry, entry.agents[0]))
        options = {name: value for name, value in device.items() if not name.startswith("pcmk_")}
        return await agents.run("fence_virsh", action, options, LIMIT_SECONDS)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory, daemon: Path) -> Agent:
    return Agent(tmp_path_factory.mktemp("a"), LibvirtSite(daemon, tmp_path_factory.mktemp("s"), None))


async def test_its_status_is_a_proof_only_of_a_guest_that_is_on_there(agent: Agent) -> None:
    found = {guest: (await agent.run("status", guest)).outcome for guest in ("guest2", "passing", "app72")}
    assert found == {"guest2": Outcome.DONE, "passing": Outcome.DONE, "app72": Outcome.OFF}
    assert (await agent.run("status", "guest1")).outcome is Outcome.FAILED
    assert (await agent.run("monitor", "guest1")).outcome is Outcome.DONE


async def test_it_kills_and_starts_the_guest_and_calls_one_off_that_only_its_host_calls_so(
    agent: Agent,
) -> None:
    assert (await agent.run("off", "guest2")).outcome is Outcome.DONE
    assert agent.site.virsh("domstate", "guest2").strip() == "shut off"
    stale = await agent.run("off", "app72")
    assert (stale.outcome, "Success: Already OFF" in stale.output) == (Outcome.DONE, True)
    assert (await agent.run("on", "guest2")).outcome is Outcome.DONE
    assert agent.site.virsh("domstate", "guest2").strip() == "running"


def test_it_says_which_parameters_it_does_not_know(agent: Agent) -> None:
    known = {**agent.reach, host_fencing.PLUG: "guest2"}
    assert setup_outside.unknown_to("fence_virsh", known) == ()
    assert setup_outside.unknown_to("fence_virsh", {**known, "usernam": "x"}) == ("usernam",)
    assert setup_outside.unknown_to("fence_virsh", host_fencing.LIMITS) == ()
    with pytest.raises(Refused, match="cannot be used on this node"):
        setup_outside.unknown_to("fence_that_is_not_there", known)
