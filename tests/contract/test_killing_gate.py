"""The built killing gate, run by the system's Python as the fencer runs it, control domains behind ssh."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gate_world import IDLE, Called, World
from gate_world import cib as cib_text

from standfast.commands import build_gate
from standfast.core import guarded, heartbeat
from standfast.core.record import Mode, OldHeartbeat, Phase
from standfast.sightings import Sightings, boottime_seconds

RUNNING = "DOMAIN|name=guest2|state=active|flags=-n----|cons=5000|ncpu=8"
SENDING = "DOMAIN|name=guest2|state=active|flags=-n---s|cons=5000|ncpu=8"
ARRIVING = "DOMAIN|name=guest2|state=bound|flags=-----t|cons=5000|ncpu=8"
SUSPENDED = "DOMAIN|name=guest2|state=suspended|flags=-n---s|cons=5000|ncpu=8"
STOPPED = "DOMAIN|name=guest2|state=bound|flags=------|cons=5000|ncpu=8"
ADDRESSES = {"ctrl1": "10.20.50.71", "ctrl2": "10.20.50.72", "ctrl3": "10.20.50.73"}
RUNTIME = heartbeat.expected_runtime({"token": "4545", "consensus": "5455"}, 2)
WINDOW = replace(
    IDLE,
    epoch=4,
    phase=Phase.OPEN,
    mode=Mode.GUARDED,
    window=3,
    lease_seconds=1000,
    mover="cfguest2",
    source="ctrl2",
    target="ctrl3",
    old={"cfguest1": OldHeartbeat({}, RUNTIME, "s"), "cfguest2": OldHeartbeat({}, RUNTIME, "s")},
)
MORE = ("kill=1", "guest=guest2", "pcmk_host_list=cfguest2")
SSH = """for word in "$@"; do case "$word" in 10.*) host=$word;; ldm*) command=$word;; esac; done
echo "$host $command" >> {folder}/orders
row={folder}/rows/$host
test -e {folder}/silent/$host && sleep 60
case "$command" in
"ldm list-domain -p")
  printf 'VERSION 1.19\\nDOMAIN|name=primary|state=active|flags=-n-cv-|cons=UART\\n'; cat "$row";;
"ldm stop-domain -f guest2") test -e {folder}/deaf || : > "$row";;
"ldm cancel-operation migration guest2") echo '{running}' > "$row"; : > {folder}/rows/10.20.50.73;;
esac"""


class Site:
    """The node cfguest1, which is asked to fence the mover, and three control domains."""

    def __init__(self, folder: Path, program: Path) -> None:
        self.world = World(folder, program)
        self.folder = folder
        (folder / "rows").mkdir()
        (folder / "silent").mkdir()
        self.world.tool("ssh", SSH.format(folder=folder, running=RUNNING))
        self.record(WINDOW)
        self.rows({})
        path = str(self.world.root / "run/standfast/sightings.json")
        self.sightings = lambda ago: Sightings(path, clock=lambda: boottime_seconds() - ago)

    def record(self, found: object) -> None:
        tree = ET.fromstring(cib_text(found, {}))  # type: ignore[arg-type]
        self.world.cib(None, text=ET.tostring(guarded.guard(tree, "cfguest2"), encoding="unicode"))

    def rows(self, guests: Mapping[str, str]) -> None:
        for host, address in ADDRESSES.items():
            row = guests.get(host, "")
            (self.folder / "rows" / address).write_text(f"{row}\n" if row else "")

    def seen_plain(self, host: str, seconds: float) -> None:
        """This node's daemon has seen the guest run there, each second, for so long."""
        for ago in range(int(seconds), -1, -1):
            self.sightings(float(ago)).plain("guest2", host)

    def dropped(self, seconds: float) -> None:
        for ago in range(int(seconds), -1, -1):
            self.sightings(float(ago)).dropped("cfguest2")

    def call(self) -> Called:
        return self.world.gate("reboot", more=MORE)

    @property
    def orders(self) -> list[str]:
        path = self.folder / "orders"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if "list-domain" not in line]

    @property
    def questions(self) -> list[str]:
        lines = (self.folder / "orders").read_text().splitlines()
        return [line.split()[0] for line in lines if "list-domain" in line]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "fence_standfast"
    build_gate.build(path)
    return path


@pytest.fixture
def site(tmp_path: Path, program: Path) -> Site:
    return Site(tmp_path, program)


def test_a_guest_that_is_nowhere_is_gone_after_two_rounds(site: Site) -> None:
    called = site.call()
    assert (called.code, called.rule) == (0, "kill")
    assert site.questions == [ADDRESSES[host] for host in ("ctrl2", "ctrl3", "ctrl1")] * 2
    assert site.orders == []
    assert called.seconds < 4.0


def test_a_stopped_guest_is_gone_too(site: Site) -> None:
    site.rows({"ctrl2": STOPPED})
    assert site.call().code == 0
    assert site.orders == []


COME_BACK = {
    "running": {"ctrl2": RUNNING},
    "suspended": {"ctrl2": SUSPENDED},
    "migrating": {"ctrl2": SENDING, "ctrl3": ARRIVING},
    "arriving": {"ctrl3": ARRIVING},
}
NO_WINDOW = {
    "never one": IDLE,
    "closed": replace(WINDOW, phase=Phase.IDLE),
    "frozen": replace(WINDOW, mode=Mode.FROZEN),
    "of another node": replace(WINDOW, mover="cfguest1"),
}
POWER = {"true": 0, "false": 1, "null": 1}
"""What its service processor says of "off" -> exit code."""


Polled = dict[str, tuple[Site, Called, list[dict[str, object]]]]


def _asked(site: Site, case: str) -> tuple[Called, list[dict[str, object]]]:
    with contextlib.ExitStack() as stack:
        requests: list[dict[str, object]] = []
        if case in COME_BACK:
            site.rows(COME_BACK[case])
        elif case in NO_WINDOW:
            site.record(NO_WINDOW[case])
        else:
            (site.folder / "silent" / ADDRESSES["ctrl2"]).touch()
            answer = f'{{"ok": true, "off": {case}, "said": "Powered Off"}}\n'
            requests = stack.enter_context(site.world.daemon(raw=answer.encode()))
        return site.call(), requests


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Polled:
    """One call for each of these cases, a few at a time: most of each is waiting."""
    sites = {case: Site(tmp_path_factory.mktemp("s"), program) for case in (*COME_BACK, *NO_WINDOW, *POWER)}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = {case: pool.submit(_asked, site, case) for case, site in sites.items()}
        return {case: (sites[case], *call.result()) for case, call in calls.items()}


@pytest.mark.parametrize("case", COME_BACK)
def test_a_guest_that_may_come_back_is_held_and_left_alone(polled: Polled, case: str) -> None:
    site, called, _ = polled[case]
    assert called.code == 1
    assert "may come back" in called.said
    assert site.orders == []
    assert called.seconds > 4.0  # polled, or the fencer would call 25 times a second


def test_a_guest_that_never_stood_still_is_killed_at_once_and_proven(site: Site) -> None:
    site.rows({"ctrl2": RUNNING})
    site.dropped(1.0)
    site.seen_plain("ctrl2", 20.0)
    called = site.call()
    assert called.code == 0, called.said
    assert site.orders == [f"{ADDRESSES['ctrl2']} ldm stop-domain -f guest2"]
    assert "stop guest2 on ctrl2" in called.log
    assert called.seconds < 6.0


def test_one_that_was_not_seen_long_enough_is_not(site: Site) -> None:
    site.rows({"ctrl2": RUNNING})
    site.dropped(1.0)
    site.seen_plain("ctrl2", 12.0)
    assert site.call().code == 1
    assert site.orders == []


def test_what_was_seen_on_another_host_does_not_count(site: Site) -> None:
    site.rows({"ctrl3": RUNNING})
    site.dropped(1.0)
    site.seen_plain("ctrl2", 20.0)
    assert site.call().code == 1
    assert site.orders == []


def test_after_the_hold_limit_the_job_is_cancelled_then_the_copy_killed(site: Site) -> None:
    site.record(replace(WINDOW, hold_limit_seconds=2))
    site.rows({"ctrl2": SENDING, "ctrl3": ARRIVING})
    site.dropped(5.0)
    called = site.call()
    assert called.code == 0, called.said
    assert site.orders == [
        f"{ADDRESSES['ctrl2']} ldm cancel-operation migration guest2",
        f"{ADDRESSES['ctrl2']} ldm stop-domain -f guest2",
    ]


def test_an_order_that_does_nothing_is_no_kill(site: Site) -> None:
    (site.folder / "deaf").touch()
    site.rows({"ctrl2": RUNNING})
    site.dropped(1.0)
    site.seen_plain("ctrl2", 20.0)
    called = site.call()
    assert called.code == 1
    assert "after 2 kills" in called.said
    assert len(site.orders) == 2


def test_a_silent_host_proves_nothing_and_nothing_is_killed(site: Site) -> None:
    (site.folder / "silent" / ADDRESSES["ctrl1"]).touch()
    site.rows({"ctrl2": RUNNING})
    site.dropped(1.0)
    site.seen_plain("ctrl2", 20.0)
    called = site.call()
    assert called.code == 1
    assert "confirm-dead guest2 --host ctrl1" in called.said
    assert site.orders == []


@pytest.mark.parametrize("off", POWER)
def test_a_silent_host_is_dead_when_its_service_processor_says_that_its_machine_is_off(
    polled: Polled, off: str
) -> None:
    _, called, requests = polled[off]
    assert called.code == POWER[off], called.said
    assert {request["op"] for request in requests} == {"power"}
    assert {request["host"] for request in requests} == {"ctrl2"}
    assert "power of ctrl2: Powered Off" in called.log


def test_a_person_s_word_counts_while_that_host_is_silent(site: Site) -> None:
    (site.folder / "silent" / ADDRESSES["ctrl1"]).touch()
    site.record(replace(WINDOW, confirmed={"ctrl1": "burnt"}))
    assert site.call().code == 0


def test_a_target_that_is_back_is_refused_at_once(site: Site) -> None:
    site.world.members("cfguest1", "cfguest2")
    called = site.call()
    assert called.code == 1
    assert "is in the membership" in called.said
    assert called.seconds < 3.0


def test_a_target_that_comes_back_during_the_call_is_not_killed(site: Site) -> None:
    site.rows({"ctrl2": SENDING, "ctrl3": ARRIVING})
    timer = threading.Timer(2.0, lambda: site.world.members("cfguest1", "cfguest2"))
    timer.start()
    began = time.monotonic()
    called = site.call()
    timer.join()
    assert called.code == 1
    assert "is in the membership" in called.said
    assert time.monotonic() - began < 4.9
    assert site.orders == []


@pytest.mark.parametrize("case", NO_WINDOW)
def test_without_a_guarded_window_of_this_node_it_does_nothing(polled: Polled, case: str) -> None:
    site, called, _ = polled[case]
    assert called.code == 1
    assert site.orders == []


def test_devices_that_name_another_guest_than_the_gate_are_not_believed(site: Site) -> None:
    called = site.world.gate("reboot", more=("kill=1", "guest=guest9", "pcmk_host_list=cfguest2"))
    assert called.code == 1
    assert site.orders == []


def test_its_monitor_is_dry(site: Site) -> None:
    site.rows({"ctrl2": RUNNING})
    called = site.world.gate("monitor", more=MORE)
    assert called.code == 0
    assert site.orders == []
