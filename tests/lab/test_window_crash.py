"""Commands and nodes that die in the middle of a window: whoever comes next finishes or undoes it."""

import itertools

import pytest
from window_kit import (
    BUDGET,
    GUEST,
    Killed,
    Picture,
    Running,
    closed,
    conf,
    eventually,
    home,
    killed_after,
    members,
    migrate_command,
    move,
    opened,
    power_on,
    restart_daemons,
    spare,
    unclean,
    window,
)

from standfast.core.record import Phase
from standfast.lab.scene import Scene

pytestmark = pytest.mark.timeout(300)
MOST_LINES = 30
DELAYS = (0.0, 0.02, 0.1, 0.3)


def killed_opening(scene: Scene, node: str, lines: int, delay_seconds: float = 0.0) -> Killed:
    return killed_after(scene, node, lines, "-p", GUEST, delay_seconds=delay_seconds)


def a_second_opening_finishes(scene: Scene, lines: int, delay_seconds: float = 0.0) -> bool:
    """Kill -p, open on another node, close on a third; True if the kill came in time."""
    before = Picture.of(scene)
    killed = killed_opening(scene, "cfguest1", lines, delay_seconds)
    opened(scene, "cfguest2", GUEST)
    assert {window(scene, node).phase for node in scene.lab.nodes} == {Phase.OPEN}
    closed(scene, "cfguest3", home(scene))
    assert before.differences(Picture.of(scene)) == [], killed.lines
    return killed.was_killed


def closing_puts_all_back(scene: Scene, lines: int, delay_seconds: float = 0.0) -> bool:
    """Kill -p, close at once on another node; True if the kill came in time."""
    before = Picture.of(scene)
    killed = killed_opening(scene, "cfguest1", lines, delay_seconds)
    closed(scene, "cfguest3", home(scene))
    assert before.differences(Picture.of(scene)) == [], killed.lines
    assert window(scene, "cfguest2").phase is Phase.IDLE
    return killed.was_killed


def closing_is_finished(scene: Scene, lines: int, delay_seconds: float = 0.0) -> bool:
    """Kill -u after a move, close on another node, and the same on the way back, without a kill."""
    before = Picture.of(scene)
    opened(scene, "cfguest1", GUEST)
    move(scene, spare(scene))
    killed = killed_after(scene, "cfguest1", lines, "-u", GUEST, spare(scene), delay_seconds=delay_seconds)
    closed(scene, "cfguest3", spare(scene))
    opened(scene, "cfguest2", GUEST)
    move(scene, home(scene))
    closed(scene, "cfguest1", home(scene))
    assert before.differences(Picture.of(scene)) == [], killed.lines
    return killed.was_killed


def test_whoever_is_killed_opening_or_closing_another_node_goes_on(scene: Scene) -> None:
    before = Picture.of(scene)
    assert killed_opening(scene, "cfguest1", 2, 0.05).was_killed
    assert killed_opening(scene, "cfguest3", 2).was_killed
    opened(scene, "cfguest2", GUEST)
    assert {window(scene, node).phase for node in scene.lab.nodes} == {Phase.OPEN}
    move(scene, spare(scene))
    for node, lines in (("cfguest1", 3), ("cfguest2", 4), ("cfguest3", 5)):
        killed = killed_after(scene, node, lines, "-u", GUEST, spare(scene), delay_seconds=0.05)
        assert killed.was_killed, killed.lines
    closed(scene, "cfguest1", spare(scene))
    # The same back again: then the devices too are as they were.
    opened(scene, "cfguest3", GUEST)
    move(scene, home(scene))
    closed(scene, "cfguest2", home(scene))
    assert before.differences(Picture.of(scene)) == []


def test_an_opening_that_was_killed_is_put_back_by_closing_on_another_node(scene: Scene) -> None:
    assert closing_puts_all_back(scene, 4)


@pytest.mark.full
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("what", [a_second_opening_finishes, closing_puts_all_back, closing_is_finished])
def test_a_command_may_be_killed_after_every_one_of_its_lines(scene: Scene, what) -> None:  # type: ignore[no-untyped-def]
    delays = itertools.cycle(DELAYS)
    for lines in range(1, MOST_LINES):
        if not what(scene, lines, next(delays)):
            assert lines > 4, "the command ended before it did anything"
            return
    pytest.fail(f"the command said more than {MOST_LINES} lines")


# -- a daemon dies ----------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("node", ["cfguest1", "cfguest3"])
@pytest.mark.parametrize("lines", [1, 3, 5])
def test_a_daemon_may_be_restarted_at_any_line_of_an_opening(scene: Scene, lines: int, node: str) -> None:
    before = Picture.of(scene)
    command = Running(scene, "cfguest1", ("-p", GUEST))
    command.wait_steps(lines)
    restart_daemons(scene, node)
    code, phase = command.end(), window(scene, "cfguest2").phase
    # Done; or refused before anything was changed, or put back: then nothing is left; or named what to type.
    assert (code, phase) in ((0, Phase.OPEN), (1, Phase.IDLE), (3, Phase.OPENING), (3, Phase.CLOSING)), (
        command.said()
    )
    closed(scene, "cfguest2", home(scene))
    assert before.differences(Picture.of(scene)) == [], command.said()


@pytest.mark.full
@pytest.mark.parametrize("node", ["cfguest1", "cfguest3"])
@pytest.mark.parametrize("lines", [1, 4, 8, 12, 15])
def test_a_daemon_may_be_restarted_at_any_line_of_a_closing(scene: Scene, lines: int, node: str) -> None:
    before = Picture.of(scene)
    opened(scene, "cfguest2", GUEST)
    command = Running(scene, "cfguest1", ("-u", GUEST, home(scene)))
    command.wait_steps(lines)
    restart_daemons(scene, node)
    code, phase = command.end(), window(scene, "cfguest2").phase
    assert (code, phase) in ((0, Phase.IDLE), (3, Phase.OPEN), (3, Phase.CLOSING)), command.said()
    closed(scene, "cfguest2", home(scene))
    assert before.differences(Picture.of(scene)) == [], command.said()


# -- a node dies ------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_node_that_dies_while_the_window_opens_has_it_rolled_back_or_left_to_closing(scene: Scene) -> None:
    node_dies_in_opening(scene, 3)


@pytest.mark.full
@pytest.mark.parametrize("lines", [1, 2, 4, 5, 6])
def test_a_node_may_die_at_every_step_of_an_opening(scene: Scene, lines: int) -> None:
    node_dies_in_opening(scene, lines)


def node_dies_in_opening(scene: Scene, lines: int) -> None:
    before = Picture.of(scene)
    command = Running(scene, "cfguest1", ("-p", GUEST, *BUDGET))
    assert command.wait_steps(lines), command.said()
    scene.control.call("stop", host="ctrl3", name="guest3")
    code = command.end()
    phase = window(scene, "cfguest1").phase
    if code == 1:
        assert phase is Phase.IDLE, command.said()
    else:
        # Open, or half-way back: closing goes on from there, on another node, once the ring is whole again.
        assert (code, phase) in ((0, Phase.OPEN), (3, Phase.CLOSING), (3, Phase.OPENING)), command.said()
        assert code == 0 or "next: clovmmigrate -u " in command.said()
        assert eventually(lambda: members(scene, "cfguest2") == {"cfguest1", "cfguest2"}, 60)
        closed(scene, "cfguest2", home(scene))
    for node in ("cfguest1", "cfguest2"):
        assert conf(scene, node) == before.nodes[node].conf, node
        assert scene.heartbeat(node) == before.nodes[node].totem, node
    # Its fencing was held by the window; a node that came back before that is done would be killed.
    assert eventually(lambda: not unclean(scene, "cfguest1"), 60)
    power_on(scene, "cfguest3", "guest3")
    assert eventually(lambda: as_before(scene, before, "cfguest3"), 60), scene.heartbeat("cfguest3")


def as_before(scene: Scene, before: Picture, node: str) -> bool:
    """A node's file and running values are those of the picture."""
    old = before.nodes[node]
    return (conf(scene, node), scene.heartbeat(node)) == (old.conf, old.totem)


@pytest.mark.full
def test_a_node_that_was_off_when_the_window_closed_puts_its_own_values_back(scene: Scene) -> None:
    before = Picture.of(scene)
    opened(scene, "cfguest1", GUEST, *BUDGET)
    raised = conf(scene, "cfguest3")
    assert raised != before.nodes["cfguest3"].conf
    scene.control.call("stop", host="ctrl3", name="guest3")
    assert eventually(lambda: members(scene, "cfguest1") == {"cfguest1", "cfguest2"}, 60)
    done = migrate_command(scene, "cfguest1", "-u", GUEST, home(scene))
    assert done.returncode == 0, done.stderr
    assert conf(scene, "cfguest3") == raised
    # Its fencing was held by the window; a node that came back before that is done would be killed.
    assert eventually(lambda: not unclean(scene, "cfguest1"), 60)
    power_on(scene, "cfguest3", "guest3")
    assert eventually(lambda: as_before(scene, before, "cfguest3"), 60), scene.heartbeat("cfguest3")
    for node in ("cfguest1", "cfguest2"):
        assert scene.heartbeat(node) == before.nodes[node].totem
