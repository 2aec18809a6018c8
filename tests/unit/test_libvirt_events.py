"""The lines of `virsh event`, as events."""

from standfast.core.libvirt_events import COMMAND, LISTENING, HostEvent, Reader

AT = "2026-11-26 21:50:12.123+0000"


def told(*lines: str) -> list[HostEvent]:
    reader = Reader()
    return [event for line in lines for event in reader.feed(line)]


def test_the_first_event_says_that_we_listen() -> None:
    assert "standfast:listening\n" in COMMAND
    assert told("standfast:listening") == [HostEvent(LISTENING)]


def test_a_lifecycle_event_is_told_at_once() -> None:
    (event,) = told(f"{AT}: event 'lifecycle' for domain 'guest1': Suspended Migrated")
    assert event == HostEvent("lifecycle", "guest1", "Suspended Migrated", AT)


def test_an_iteration_is_told_with_its_number() -> None:
    (event,) = told(f"{AT}: event 'migration-iteration' for domain 'guest1': iteration: '2'")
    assert (event.kind, event.what) == ("migration-iteration", "iteration: '2'")


def test_figures_below_an_event_belong_to_it_and_it_is_told_once_they_end() -> None:
    lines = [f"{AT}: event 'job-completed' for domain 'guest1':", "\toperation: 5", "\tdowntime: 84"]
    reader = Reader()
    assert [event for line in lines for event in reader.feed(line)] == []
    (event,) = reader.flush()
    assert event.figures == {"operation": "5", "downtime": "84"}
    assert list(reader.flush()) == []
    both = told(*lines, f"{AT}: event 'lifecycle' for domain 'guest1': Stopped Migrated")
    assert [event.kind for event in both] == ["job-completed", "lifecycle"]


def test_errors_are_kept_as_the_reason_and_other_lines_are_skipped() -> None:
    reader = Reader()
    for line in ("error: Disconnected from qemu:///system", "events received: 0", "", "\tno event: 1"):
        assert list(reader.feed(line)) == []
    assert reader.trouble == "Disconnected from qemu:///system"
