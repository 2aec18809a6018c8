"""Any fence agent, called as Pacemaker calls it: our own programs, and those of Debian."""

import asyncio
import shutil
import stat
import time
from pathlib import Path

import pytest

from standfast.processors import agents
from standfast.processors.agents import MetadataError, Outcome

METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="x"><parameters>
<parameter name="ip" required="1"><content type="string"/></parameter>
<parameter name="ipaddr" required="0" deprecated="1"><content type="string"/></parameter>
<parameter name="{plug}" required="1"><content type="string"/></parameter>
</parameters><actions><action name="off"/><action name="status"/></actions></resource-agent>
"""


def program(folder: Path, body: str) -> str:
    path = folder / "fence_made_up"
    path.write_text("#!/bin/sh\n" + body, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("code", "action", "outcome"),
    [
        (0, "status", Outcome.DONE),
        (2, "status", Outcome.OFF),
        (2, "off", Outcome.FAILED),
        (1, "status", Outcome.FAILED),
        (127, "monitor", Outcome.FAILED),
    ],
)
async def test_exit_codes_become_outcomes(tmp_path: Path, code: int, action: str, outcome: Outcome) -> None:
    result = await agents.run(
        program(tmp_path, f"cat >/dev/null; echo why >&2; exit {code}\n"), action, {}, 5
    )
    assert (result.outcome, result.said) == (outcome, "why")


async def test_options_go_through_standard_input_and_never_through_arguments(tmp_path: Path) -> None:
    agent = program(tmp_path, 'echo "args:$#"; cat\n')
    result = await agents.run(agent, "status", {"password": "se cret=x", "ip": "10.0.0.1"}, 5)
    assert result.output.splitlines() == ["args:0", "password=se cret=x", "ip=10.0.0.1", "action=status"]


async def test_an_agent_that_reads_nothing_is_no_trouble(tmp_path: Path) -> None:
    agent = program(tmp_path, "exec </dev/null; echo done; exit 0\n")
    result = await agents.run(agent, "off", {"long": "x" * 300_000}, 5)
    assert result.outcome is Outcome.DONE


async def test_at_the_limit_the_agent_and_its_children_are_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    agent = program(tmp_path, f"sleep 60 & echo $! $$ > {pids}; wait\n")
    began = time.monotonic()
    result = await agents.run(agent, "off", {}, 0.5)
    assert result.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - began < 3
    left = [int(pid) for pid in pids.read_text(encoding="ascii").split()]
    while (left := [pid for pid in left if runs(pid)]) and time.monotonic() < began + 6:
        await asyncio.to_thread(time.sleep, 0.02)
    assert left == []


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_flood_of_output_is_drained_and_cut(tmp_path: Path) -> None:
    agent = program(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x; exit 0\n")
    result = await agents.run(agent, "list", {}, 5)
    assert result.outcome is Outcome.DONE
    assert len(result.output) == agents.OUTPUT_LIMIT_BYTES


async def test_a_missing_agent_and_one_that_cannot_be_started_are_named(tmp_path: Path) -> None:
    missing = await agents.run("fence_that_is_not_there", "status", {}, 5)
    assert missing.outcome is Outcome.MISSING
    assert "/usr/sbin/fence_that_is_not_there" in missing.said
    path = tmp_path / "fence_no_program"
    path.write_text("x", encoding="ascii")
    assert (await agents.run(str(path), "status", {}, 5)).outcome is Outcome.MISSING


async def test_an_option_with_a_line_end_could_smuggle_another_option_and_is_not_called(
    tmp_path: Path,
) -> None:
    called = tmp_path / "called"
    agent = program(tmp_path, f"touch {called}\n")
    result = await agents.run(agent, "status", {"ip": "x\naction=off"}, 5)
    assert result.outcome is Outcome.FAILED
    assert not called.exists()


def test_metadata_is_read_without_the_deprecated_names() -> None:
    known = agents.parse_metadata(METADATA.format(plug="plug"))
    assert known.parameters == {"ip", "plug"}
    assert known.required == {"ip", "plug"}
    assert known.actions == {"off", "status"}
    assert known.knows("ipaddr")
    assert agents.unknown_options(known, {"ipp": "1", "ip": "1", "ipaddr": "1", "pcmk_host_list": "x"}) == (
        "ipp",
    )


@pytest.mark.parametrize("text", ["", "<a/>", "no xml"])
def test_what_is_no_metadata_is_refused(text: str) -> None:
    with pytest.raises(MetadataError):
        agents.parse_metadata(text)


def test_options_are_those_that_pacemaker_would_give() -> None:
    plug = agents.parse_metadata(METADATA.format(plug="plug"))
    port = agents.parse_metadata(METADATA.format(plug="port"))
    none = agents.parse_metadata(METADATA.format(plug="domain"))
    device = {"ip": "1", "pcmk_host_list": "n1 n2", "pcmk_host_map": "n1:guest1;n2=guest2"}
    assert agents.options_for(plug, device, "n2") == {"ip": "1", "nodename": "n2", "plug": "guest2"}
    assert agents.options_for(port, device, "n3") == {"ip": "1", "nodename": "n3", "port": "n3"}
    assert agents.options_for(none, device, "n1") == {"ip": "1", "nodename": "n1"}
    fixed = {**device, "plug": "mine", "pcmk_host_argument": "plug"}
    assert agents.options_for(plug, fixed, "n1")["plug"] == "mine"
    other = {**device, "pcmk_host_argument": "uuid"}
    assert agents.options_for(plug, other, "n1")["uuid"] == "guest1"


@pytest.mark.skipif(shutil.which("fence_ldom") is None, reason="fence-agents are not installed")
async def test_an_agent_of_debian_is_called_the_same_way() -> None:
    known = await agents.metadata("fence_ldom", 20)
    assert {"status", "off", "monitor"} <= known.actions
    assert known.knows("ipaddr")
    assert "ipaddr" not in known.parameters
    result = await agents.run("fence_ldom", "status", {"ip": "127.0.0.1"}, 20)
    assert result.outcome is Outcome.FAILED
    assert result.said
