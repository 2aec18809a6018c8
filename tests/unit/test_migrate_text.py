"""What a person sees of a migration: the bar, the lines of a log, the page at the end."""

from __future__ import annotations

import pytest

from standfast.commands import migrate_text
from standfast.commands.migrate_show import Show
from standfast.commands.migrate_text import Summary
from standfast.core.jobs import MigrationJob

GIB = 1 << 30
LDM = MigrationJob("guest2", 50, False, "ctrl3", True)
QEMU = MigrationJob(
    "guest2", 45, False, "", True, 3 * GIB, GIB + GIB // 2, 4 * GIB, 112 << 20, 2, 42_000, 310
)


def test_the_bar_shows_what_the_host_tells_and_nothing_else() -> None:
    assert migrate_text.live(LDM, 12, 100) == "[############............] 50 %  0:12"
    assert migrate_text.live(QEMU, 42, 140) == (
        "[##########..............] 45 %, 3.0 GiB copied, 1.5 GiB left, 112 MiB/s, pass 2, "
        "blackout 310 ms expected  0:42"
    )


def test_the_bar_is_never_wider_than_the_terminal() -> None:
    assert len(migrate_text.live(QEMU, 42, 60)) == 59


def test_without_a_figure_the_bar_only_shows_that_time_goes_on() -> None:
    silent = MigrationJob("guest2", None, False, "", True)
    assert migrate_text.live(None, 0, 80) == "[#.......................] begins  0:00"
    assert migrate_text.live(silent, 2, 80) == "[..#.....................] under way  0:02"


def test_a_line_of_a_log_has_the_same_figures() -> None:
    assert migrate_text.plain(LDM, 3700) == "1:01:40  50 %"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (9 << 50, "9216 TiB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert migrate_text.size(count) == text


def page() -> Summary:
    return Summary(
        "guest2", "cfguest2", "ctrl2", "ctrl3", "ctrl3", "moved", 14.2, QEMU, 312,
        "cfguest2 was never dropped", 0.0, 10.0, False, 19.6, 0.9, 4.2, True, ("n1", "n3"), True,
    )  # fmt: skip


def test_the_page_tells_both_measures_of_the_blackout() -> None:
    assert list(page().lines()) == [
        "guest2 (cfguest2): ctrl2 to ctrl3: moved",
        "  is on      ctrl3",
        "  migration  14.2 s, 3.0 GiB copied, 2 passes",
        "  blackout   by the hypervisor: 312 ms",
        "             by the cluster: cfguest2 was never dropped",
        "  heartbeat  timeout 10 s, not raised",
        "  window     open for 19.6 s, opened in 0.9 s, closed in 4.2 s",
        "  fencing    aims at ctrl3, proven from n1, n3",
    ]


def test_what_is_not_known_is_said_so() -> None:
    summary = page()
    summary.hypervisor_ms, summary.closed = None, False
    lines = list(summary.lines())
    assert "  blackout   by the hypervisor: not told by this kind of host" in lines
    assert lines[-1].startswith("  window     STILL OPEN (open for 19.6 s")


def test_a_page_without_a_migration_claims_no_blackout() -> None:
    summary = page()
    summary.begun, summary.migration_seconds = False, None
    assert not any("blackout" in line or "migration" in line for line in summary.lines())


def test_a_log_gets_a_line_each_ten_per_cent_and_a_terminal_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    show.migrating()
    for percent in range(31):
        show.progress(MigrationJob("guest2", percent, False, "", True))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["0", "10", "20", "30"]
    show = Show(terminal=True)
    show.migrating()
    show.progress(LDM)
    show.say("a line")
    told = capsys.readouterr().err
    assert told.startswith("\r[#")
    assert told.endswith("\r  a line\n")


def test_nothing_is_drawn_over_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show(terminal=True)
    show.migrating()
    show.ask("Cancel? ")
    show.progress(LDM)
    assert capsys.readouterr().err.endswith("Cancel? ")
    show.asked()
    show.tick()
    assert "50 %" in capsys.readouterr().err
