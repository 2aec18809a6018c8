"""The pace of a migration by virsh: what is typed, and what is understood of the answers (libvirt 9.0.0)."""

from __future__ import annotations

import pytest

from standfast.core.holding import MIB
from standfast.hosts import libvirt_pace
from standfast.hosts.base import AnswerNotUnderstood, HostBug, PacesMigration
from standfast.hosts.libvirt import LibvirtAccess, LibvirtHost
from standfast.hosts.shell import Outcome


class Host(LibvirtHost):
    """Answers from a list, and notes what was typed."""

    def __init__(self, *answers: str) -> None:
        super().__init__(LibvirtAccess("host2", "test:///default"))
        self.answers, self.typed = list(answers), list[tuple[str, bool]]()

    async def _checked(self, words: list[str], limit_seconds: float, *, change: bool = False) -> Outcome:
        self.typed.append((" ".join(words), change))
        return Outcome(0, self.answers.pop(0) if self.answers else "", "")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_pace, "MEASURED_POLL_SECONDS", 0.001)


MEASURING = "Domain: 'guest2'\n  dirtyrate.calc_status=1\n  dirtyrate.calc_start_time=5\n"
MEASURED = """Domain: 'guest2'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time=348414
  dirtyrate.calc_period=1
  dirtyrate.calc_mode=page-sampling
  dirtyrate.megabytes_per_second=48

"""


async def test_what_is_typed() -> None:
    host = Host("8796093022207\n\n", "", "")
    assert isinstance(host, PacesMigration)
    assert await host.copy_rate("guest2") == 8796093022207
    await host.set_copy_rate("guest2", 1)
    await host.set_downtime_limit("guest2", 375)
    assert host.typed == [
        ("migrate-getspeed guest2", True),
        ("migrate-setspeed guest2 1", True),
        ("migrate-setmaxdowntime guest2 375", True),
    ]


async def test_what_the_guest_writes_is_waited_for_until_it_is_measured() -> None:
    host = Host("Start to calculate domain's memory dirty rate successfully.", MEASURING, MEASURED)
    assert await host.dirty_bytes_per_second("guest2") == 48 * MIB
    assert host.typed[0] == ("domdirtyrate-calc guest2 --seconds 1", True)
    assert host.typed[1:] == [("domstats guest2 --dirtyrate", False)] * 2


async def test_a_rate_that_is_never_measured_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt_pace, "MEASURED_LIMIT_SECONDS", 0.005)
    assert await Host().dirty_bytes_per_second("guest2") is None


async def test_an_answer_that_is_no_number_is_not_taken_for_one() -> None:
    with pytest.raises(AnswerNotUnderstood):
        await Host("unlimited").copy_rate("guest2")


async def test_a_name_that_is_none_is_refused_before_anything_is_typed() -> None:
    host = Host()
    with pytest.raises(HostBug):
        await host.set_copy_rate("-x", 1)
    assert not host.typed
