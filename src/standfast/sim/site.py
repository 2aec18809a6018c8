"""The truth about guests and hosts: where each copy runs, what ldm and the XSCF say of it, who is killed.

Sources: ldm(8) states during a migration; the XSCF's name map is stale between the start of a migration and
the saved configuration, and a per-domain reset may then hit another guest (SPARC M12/M10 notes C120-0105,
3.1.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from standfast.core.evidence import GuestState, HostAnswer
from standfast.sim.kernel import Kernel, Steps

HELD_LOOK_MS = 50
REBOOT_MS = (15_000, 60_000)
POWER_ANSWERS = 0.7
BOOT_AGAIN_MS = 1_000
"""After so long a boot that stands still in a blackout is looked at again."""


@dataclass
class Guest:
    """One guest domain. An incarnation is one life of its operating system."""

    name: str
    node: str
    host: str
    power: bool = True
    """The domain is active: firmware, kernel or services execute."""
    os_alive: bool = True
    """This incarnation's kernel is there (it may hang, or stand still in a blackout) and holds its data."""
    hung: bool = False
    half_moved: bool = False
    """Its migration broke off in the blackout: its copy here is neither alive nor gone."""
    incarnation: int = 1
    moving_to: str = ""
    in_blackout: bool = False
    move_began_ms: int = -1
    held: bool = False
    """Its command holds the switch-over: the copy goes on, the guest runs."""
    at_its_end: bool = False
    """The copy has come to where it is held."""
    moves: int = 0
    announced: bool = False
    """The present or last move was announced to the cluster."""
    off_since_ms: int = -1
    booted_ms: int = -1_000_000
    """When somebody last started it."""
    blackout_ends_ms: int = -1
    """When the present or last blackout ends by itself."""
    resumed_ms: int = -1
    """When it last ran again after a blackout."""
    fallen_until_ms: int = -1
    """Until then the XSCF shows it panicking or booting."""


@dataclass
class Host:
    """One control domain with its XSCF."""

    name: str
    stale: set[str] = field(default_factory=set)
    """Guests that have begun to move here or away since the configuration was saved."""
    listed: set[str] = field(default_factory=set)
    """Guests in the saved configuration."""
    silent_until_ms: int = -1
    lies: int = 0
    """So many of the next answers are wrong."""
    lie: GuestState = GuestState.ABSENT
    wrong_to_gate: bool = False
    """It tells the next killing gate that it does not know the guest. (Of `lies` the daemons, which ask each
    second, would hear it.)"""
    off_until_ms: int = -1
    """Until then the machine has no power."""
    power_answers: bool = True
    """Its service processor says whether it has."""


class Site:
    """All hosts and guests. The hooks tell the cluster side what happened to a guest."""

    def __init__(self, kernel: Kernel, hosts: tuple[str, ...], guests: dict[str, tuple[str, str]]) -> None:
        self.kernel = kernel
        self.hosts = {name: Host(name) for name in hosts}
        self.guests = {name: Guest(name, node, host) for name, (node, host) in guests.items()}
        for guest in self.guests.values():
            self.hosts[guest.host].listed.add(guest.name)
        self.unquiet_ms = -1
        """When a host was last silent or wrong."""
        self.died: Callable[[Guest, str], None] = lambda guest, why: None
        self.booted: Callable[[Guest], None] = lambda guest: None
        self.stands_still: Callable[[Guest, bool], None] = lambda guest, still: None
        self.killed: Callable[[Guest, str], None] = lambda victim, wanted: None

    # -- what is said --------------------------------------------------------------------------------------

    def silent(self, host: str) -> bool:
        """Whether a question to this host gets no answer now."""
        quiet = self.hosts[host].silent_until_ms > self.kernel.now_ms
        if quiet:
            self.unquiet_ms = self.kernel.now_ms
        return quiet

    def ask(self, host: str, name: str) -> HostAnswer:
        """What ldm of `host` says about a guest."""
        if self.silent(host):
            return HostAnswer(host, name, GuestState.SILENT, "no answer")
        entry = self.hosts[host]
        if entry.lies > 0:
            entry.lies -= 1
            self.unquiet_ms = self.kernel.now_ms
            self.kernel.say(host, "answers wrongly: %s is %s", name, entry.lie.value)
            return HostAnswer(host, name, entry.lie)
        return HostAnswer(host, name, self._state(host, self.guests[name]))

    def ask_for_gate(self, host: str, name: str) -> HostAnswer:
        """What ldm of `host` says to a killing gate."""
        entry = self.hosts[host]
        if not entry.wrong_to_gate or self.silent(host):
            return self.ask(host, name)
        entry.wrong_to_gate = False
        self.kernel.say(host, "answers wrongly, once: %s is absent", name)
        return HostAnswer(host, name, GuestState.ABSENT)

    def peek(self, host: str, name: str) -> HostAnswer:
        """The same as `ask`, beside the run: a wrong answer that is due stays due."""
        entry = self.hosts[host]
        if entry.silent_until_ms > self.kernel.now_ms:
            return HostAnswer(host, name, GuestState.SILENT, "no answer")
        return HostAnswer(host, name, entry.lie if entry.lies > 0 else self._state(host, self.guests[name]))

    def ask_all(self, name: str) -> tuple[HostAnswer, ...]:
        """One answer of every host."""
        return tuple(self.ask(host, name) for host in self.hosts)

    @staticmethod
    def _state(host: str, guest: Guest) -> GuestState:
        if guest.moving_to:
            if host == guest.host:
                return GuestState.MIGRATING_OUT
            return GuestState.INCOMING if host == guest.moving_to else GuestState.ABSENT
        if guest.host != host:
            return GuestState.ABSENT
        if guest.half_moved:
            return GuestState.ERROR
        return GuestState.RUNNING if guest.power else GuestState.STOPPED

    def status(self, host: str, name: str) -> str:
        """The guest's row in `showdomainstatus` of this host's XSCF."""
        entry, guest = self.hosts[host], self.guests[name]
        here = guest.host == host
        if name in entry.stale:
            if guest.moving_to and here:
                return (
                    "Solaris panicking" if self.kernel.now_ms < guest.fallen_until_ms else "Solaris running"
                )
            return "Unknown" if here or guest.moving_to == host else "Host stopped"
        if here and guest.power:
            return "Solaris booting" if self.kernel.now_ms < guest.fallen_until_ms else "Solaris running"
        if here or name in entry.listed:
            return "Host stopped"
        return "not listed"

    # -- what is done --------------------------------------------------------------------------------------

    def reset(self, host: str, name: str) -> Guest | None:
        """The XSCF resets whatever its map has under this name; the guest that was hit."""
        entry, victim = self.hosts[host], self.guests[name]
        if name in entry.stale:
            others = [g for g in self.guests.values() if g.host == host and g is not victim and g.power]
            if others and self.kernel.chance(0.5):
                victim = self.kernel.rng.choice(others)
        elif victim.host != host:
            return None
        if not victim.power:
            return None
        self.killed(victim, name)
        if victim.moving_to and victim.in_blackout and self.kernel.chance(0.5):
            # Only the source copy is hit; the other one comes alive.
            self.kernel.say(victim.name, "its copy on %s comes alive", victim.moving_to)
            victim.fallen_until_ms = self.kernel.now_ms + 5000
            return victim
        self.kill(victim, f"reset by the XSCF of {host}")
        self.reboot(victim)
        return victim

    def power_off(self, host: str) -> bool | None:
        """What the service processor says of the power of a machine; None: it gives no answer."""
        entry = self.hosts[host]
        return entry.off_until_ms > self.kernel.now_ms if entry.power_answers else None

    def stop(self, host: str, name: str, *, other_lives: bool) -> bool:
        """`ldm stop-domain -f` on this host: whether that lets another copy come alive. `other_lives`: it
        does, where the source is stopped in the blackout."""
        guest = self.guests[name]
        if guest.moving_to == host:
            self.kernel.say(name, "its incoming copy on %s is stopped", host)
            self._end_move(guest, arrived=False)
        elif guest.host == host and guest.in_blackout and other_lives:
            self.kernel.say(name, "its copy on %s comes alive", guest.moving_to)
            self._end_move(guest, arrived=True)
            return True
        elif guest.host == host and guest.power:
            self.kill(guest, f"stopped on {host}", power=False)
        return False

    def cancel(self, host: str, name: str) -> None:
        """`ldm cancel-operation migration`: it resumes on its source."""
        guest = self.guests[name]
        if guest.moving_to and guest.host == host:
            self.kernel.say(name, "its migration is cancelled")
            self._end_move(guest, arrived=False)

    def lose(self, host: str, until_ms: int) -> None:
        """The machine loses its power: with it all that runs there, and all that is on its way to it."""
        entry = self.hosts[host]
        entry.silent_until_ms = max(entry.silent_until_ms, until_ms)
        entry.off_until_ms = until_ms
        entry.power_answers = self.kernel.chance(POWER_ANSWERS)
        for guest in self.guests.values():
            if guest.moving_to == host:
                self._end_move(guest, arrived=False)
            if guest.host == host and guest.power:
                self.kill(guest, f"{host} is dead", power=False)

    def kill(self, guest: Guest, why: str, *, power: bool = True) -> None:
        """This guest's operating system ends here. `power`: the domain stays active, as after a panic."""
        self.kernel.say(guest.name, "dies: %s", why)
        was_alive = guest.os_alive
        if guest.moving_to:
            self._end_move(guest, arrived=False)
        guest.os_alive, guest.hung, guest.power, guest.half_moved = False, False, power, False
        guest.off_since_ms = self.kernel.now_ms
        guest.fallen_until_ms = self.kernel.now_ms + 10_000
        if was_alive:
            self.died(guest, why)

    def reboot(self, guest: Guest) -> None:
        """It boots by itself, as after a panic."""
        incarnation = guest.incarnation
        self.kernel.at(
            self.kernel.between(*REBOOT_MS),
            lambda: self.boot(guest) if guest.incarnation == incarnation and not guest.os_alive else None,
        )

    def boot(self, guest: Guest) -> None:
        """The guest starts anew."""
        if guest.os_alive:
            return
        if guest.in_blackout:
            # It is suspended on both hosts (ldm(8), bound/suspended): a boot goes on after that only.
            self.kernel.at(BOOT_AGAIN_MS, lambda: self.boot(guest) if guest.power else None)
            return
        guest.power = guest.os_alive = True
        guest.incarnation += 1
        guest.off_since_ms = -1
        guest.booted_ms = self.kernel.now_ms
        self.kernel.say(guest.name, "boots on %s", guest.host)
        self.booted(guest)

    def save(self, host: str) -> None:
        """`ldm add-spconfig`: the XSCF's map is what is there now."""
        entry = self.hosts[host]
        entry.stale = {name for name in entry.stale if self.guests[name].moving_to}
        entry.listed = {guest.name for guest in self.guests.values() if guest.host == host}

    def migrate(
        self, guest: Guest, target: str, copy_ms: int, blackout_ms: int, outcome: str, *, announced: bool
    ) -> Steps:
        """One live migration. `outcome`: moved, cancelled (in the copy), failed (in the blackout), half."""
        if guest.moving_to or guest.half_moved or not guest.power or target == guest.host:
            return False
        if self.hosts[target].off_until_ms > self.kernel.now_ms:
            return False
        guest.moves += 1
        move = guest.moves
        guest.moving_to, guest.announced = target, announced
        guest.move_began_ms, guest.at_its_end = self.kernel.now_ms, False
        for name in (guest.host, target):
            self.hosts[name].stale.add(guest.name)
        self.kernel.say(guest.name, "starts to move from %s to %s (%s)", guest.host, target, outcome)
        yield copy_ms
        guest.at_its_end = True
        while guest.held and guest.moves == move and guest.moving_to:
            yield HELD_LOOK_MS
        if guest.moves != move or not guest.moving_to:
            return False
        if outcome == "cancelled":
            self._end_move(guest, arrived=False)
            return False
        guest.in_blackout = True
        guest.blackout_ends_ms = self.kernel.now_ms + blackout_ms
        self.stands_still(guest, True)
        yield blackout_ms
        if guest.moves != move or not guest.moving_to:
            return False
        if outcome == "half":
            self.kernel.say(guest.name, "is half-moved: its copy on %s does not run on", guest.host)
            guest.half_moved, guest.moving_to, guest.in_blackout = True, "", False
            self.hosts[target].stale.discard(guest.name)
            return False
        self._end_move(guest, arrived=outcome == "moved")
        return outcome == "moved"

    def _end_move(self, guest: Guest, *, arrived: bool) -> None:
        target, blackout = guest.moving_to, guest.in_blackout
        if not arrived:
            for name in (guest.host, target):
                self.hosts[name].stale.discard(guest.name)
        guest.moving_to, guest.in_blackout, guest.held = "", False, False
        if arrived:
            guest.host = target
        self.kernel.say(guest.name, "%s %s", "has arrived on" if arrived else "stays on", guest.host)
        if blackout:
            guest.resumed_ms = self.kernel.now_ms
            self.stands_still(guest, False)
