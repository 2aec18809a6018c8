"""When a live migration is held, when it is let go, and how long the heartbeat has to bear: pure.

The copy is held by its RATE, in its first pass over the memory, at the smallest rate that libvirt knows, 1
MiB/s (`migrate-setspeed`; libvirt 9.0.0). What is left to copy then bounds the hold in seconds. Never by a
tiny downtime limit: three guests died right after a switch-over that followed one, or after a hold that had
slipped into the second pass with some KiB left (measured, emulated processors). What is empty goes at once
at any rate, so a hold may be much shorter than that (60 of the last 77 MiB of a guest in 6 s; measured).
So the raise begins long before, while the copy goes on: it is held only where the raise is late, and one
that slips before every member runs the raised timeout is given up: the migration is cancelled.

After that the command's own node alone keeps a death from being seen late, and it follows as late as it can:
when little is left of the first pass, or, where the guest writes more than the link carries, when its third
pass begins. What the source tells of the time is a clock that does not stop with the node that looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from standfast.core.jobs import MigrationJob
from standfast.core.messages import Message

MIB = 1024 * 1024
HOLD_RATE_MIB_PER_SECOND = 1
FULL_RATE_MIB_PER_SECOND = 8796093022207
"""No limit: the largest that libvirt takes (QEMU_DOMAIN_MIG_BANDWIDTH_MAX, 9.0.0), and its default."""
HOLD_SECONDS = 75.0
"""The raise has to be read back from every member within that. 0.9 s by a script of our own with emulated
processors; with the daemons of busy emulated nodes more than 45 s (measured). The hold itself may be much
shorter: empty pages cost no time, and of the last 110 MiB of a guest 60 were that (measured)."""
MARGIN_SECONDS = 2.0
LEAD_SECONDS = 1.0
"""Beside what looking and ordering take: the copy may be faster than at the last look. QEMU also lets go as
soon as what is left takes no longer than its downtime limit, 0.3 s."""
LOOKS_OF_LEAD = 3
"""The look that sees it, the order to slow down, and the look before that was too early."""
RAISE_LEAD_SECONDS = HOLD_SECONDS
"""So long before the end of the first pass the raise begins, by the speed of the link. One of busy emulated
nodes took 12 to 45 s, and half of a lead of 40 s were empty pages, which go at once: a hold slipped before
the raise was read back (measured). It costs little, since a death is seen as early as ever meanwhile."""
TOLD_BYTES = 32 * MIB
"""What was sent before the speed of the link is believed: where the memory is empty it shows nothing, and
some MiB are in buffers."""
FIRST_PASS_SECONDS = 30.0
LEAST_FIRST_RATE_MIB_PER_SECOND = 16
"""A small guest on a fast link is through its first pass before anybody has looked: it is sent no faster than
its memory in FIRST_PASS_SECONDS until it is held. Large ones are not made slower by that."""
SLIPPED_BYTES = 2 * MIB
"""Less is left than two seconds of the hold: the pass is about to end."""
NEAR_LEAD_SECONDS = 0.2
"""As LEAD_SECONDS. By then the speed of the link is known, and for as long as what is left takes, a death is
seen late."""
NEAR_MIB = 6
"""The last of it is paced, by so much in the time of three looks. Faster, a pass was over between two looks
(48 MiB/s; measured)."""
PACED_BYTES = 4 * NEAR_MIB * MIB
PACED_LIMIT_SECONDS = 8.0
NEARER_LIMIT_SECONDS = RAISE_LEAD_SECONDS + 30.0
"""From the raise on, and the budget: a second pass may take as long as the blackouts that it allows. Then
this node follows wherever the copy is."""
STOOD_STILL_SECONDS = 8.0
"""With the last look of the raise, of 10 s at most, less than LEAST_BUDGET_SECONDS: nobody has missed this
node and lowered it meanwhile."""
LEAST_BUDGET_SECONDS = 20
MOST_BUDGET_SECONDS = 600
"""A real death is seen no sooner meanwhile."""
HELD_LOOK_LEAST_SECONDS = 0.5
HELD_LOOK_MOST_SECONDS = 3.0
HELD_LOOKS = 10
"""So often at least it is looked at before a hold is over; each look costs the node that the raise needs."""
SWITCH_LIMIT_SECONDS = 60.0
"""So long, and the budget, this node may be raised, too, before the guest has switched over. Then the
migration is cancelled: it is no ordinary guarded one, since who asks for this raise has resources that do not
take back a dropped node."""
AUTO_MOST_SECONDS = 120
"""Bounds of `--budget auto`. It is also the longest delay of a real death while it is raised."""
BLACKOUT_SHARE = 0.35
"""Of the budget, the longest blackout that QEMU may expect. It takes up to a fifth more (9.5 s where 8 were
allowed; measured), and the token is 0.45 of the budget: a blackout beyond that has the ring form anew, of the
same members (measured twice)."""
AUTO_FACTOR = 4
"""With BLACKOUT_SHARE 1.4 times the predicted blackout is allowed. (With 3 it was 1.05 times, and this node
was raised for 23.2 s around a blackout of 7.8 s, since QEMU expected a little more; measured.)"""
LEAST_DOWNTIME_SECONDS = 0.3
"""libvirt's own downtime limit."""
DOWNTIME_FACTOR = 1.25
"""QEMU's own estimate of the blackout is behind a busy guest."""
WIDEN_SECONDS = 0.3
"""Between two looks at a copy that was let go: what a pass leaves is the blackout that it would take, so that
much is allowed. (By doubling alone the heartbeat was raised for 28.9 s around 3.4 s; measured.)"""
SETTLED_PASS = 3
"""The second pass copies what was written in the whole first one, which on a slow link is much more than the
guest writes again and again: to switch over with that took blackouts of 7 to 11 s (measured)."""
CALM_SECONDS = 1.0
"""Of sending. QEMU lets a guest go that needs 0.3 s."""
LONGER_SECONDS = 5.0
"""After so long without a switch-over twice as long a blackout is allowed, up to that share: a guest of
which nothing can be told leaves all the same."""
STAYS_FACTOR = 4.0
"""What stays of a guest that does not converge, in terms of what it writes in a second: 2 to 3 times that was
left at the switch-over (16 and 24 MiB with 8 MiB/s; measured), and this much is allowed for."""
CONVERGES_BELOW = 0.5
"""A guest that writes less than this share of what the link carries may leave at the end of its first pass
already. One that writes more has more left there than goes in libvirt's 0.3 s: what it writes in a second
alone takes 0.5 s. (With 0.7 one that wrote 0.85 of it was taken for it now and then, by the coarse measure of
what it writes, and a death was seen late for 7.6 s more than the blackout; measured once.)"""
AS_TOLD_SHARE = 0.7
"""A copy that reaches this share of the speed that it was let is not slowed down by its link."""


@dataclass(frozen=True)
class Look:
    """One look at the job. Times in seconds by one clock."""

    job: MigrationJob
    at: float
    took: float
    """How long this look took."""

    @property
    def remaining(self) -> int | None:
        """Bytes that are left in this pass."""
        return self.job.remaining_bytes


def rate(look: Look, before: Look | None) -> float:
    """Bytes a second by which what is left falls: as told, or as seen, if that is more (empty pages cost
    nothing)."""
    told = float(look.job.rate_bytes_per_second or 0)
    if before is None or look.remaining is None or before.remaining is None or look.at <= before.at:
        return told
    return max(told, (before.remaining - look.remaining) / (look.at - before.at))


def carried(look: Look) -> float:
    """Bytes a second that the link carries, by all that was sent so far; 0: too little was. What is told of a
    moment is a burst into buffers as often, or next to nothing where the memory is empty."""
    sent, elapsed_ms = look.job.copied_bytes, look.job.elapsed_ms
    if sent is None or not elapsed_ms:
        return float(look.job.rate_bytes_per_second or 0)
    return 1000 * sent / elapsed_ms if sent >= TOLD_BYTES else 0.0


def first_rate(full_mib_per_second: int, memory_bytes: int | None) -> int:
    """MiB/s with which the copy begins; `memory_bytes` None: not known."""
    if memory_bytes is None:
        return full_mib_per_second
    slow = ceil(memory_bytes / MIB / FIRST_PASS_SECONDS)
    return min(full_mib_per_second, max(slow, LEAST_FIRST_RATE_MIB_PER_SECOND))


def must_hold(look: Look, before: Look | None) -> bool:
    """Whether the copy is to be slowed down now: at the next look it might be too late."""
    return look.remaining is not None and little_left(look, rate(look, before))


def little_left(look: Look, bytes_per_second: float) -> bool:
    """Whether no more is left than what a hold has to last, and what goes until it begins."""
    lead = LEAD_SECONDS + LOOKS_OF_LEAD * look.took
    return (look.remaining or 0) <= _floor_bytes() + bytes_per_second * lead


def _floor_bytes() -> float:
    return (HOLD_SECONDS + MARGIN_SECONDS) * HOLD_RATE_MIB_PER_SECOND * MIB


def must_raise(look: Look, before: Look | None, carried_bytes_per_second: float) -> bool:
    """Whether the raise begins now. By what the link carries: after a stretch of empty memory, which goes at
    once, there may be hours of copying left."""
    if look.remaining is None:
        return False
    return look.remaining <= carried_bytes_per_second * RAISE_LEAD_SECONDS or must_hold(look, before)


def watch_pause_seconds(look: Look | None, before: Look | None) -> float:
    """How long to wait after this look at a copy that goes on while it is raised."""
    if look is None or look.remaining is None or not (falls := rate(look, before)):
        return HELD_LOOK_LEAST_SECONDS
    left = (look.remaining - _floor_bytes()) / falls - LEAD_SECONDS
    return max(HELD_LOOK_LEAST_SECONDS, min(left / HELD_LOOKS, HELD_LOOK_MOST_SECONDS))


def slipped(look: Look) -> bool:
    """Whether the first pass is over, or about to be: the guest may switch over at any moment."""
    if (look.job.iteration or 1) > 1:
        return True
    return look.remaining is not None and look.remaining < SLIPPED_BYTES


def held_pause_seconds(look: Look | None) -> float:
    """How long to wait after this look at a copy that is held. None: it told nothing."""
    if look is None or look.remaining is None:
        return HELD_LOOK_LEAST_SECONDS
    left = look.remaining / MIB / HOLD_RATE_MIB_PER_SECOND - MARGIN_SECONDS
    return max(HELD_LOOK_LEAST_SECONDS, min(left / HELD_LOOKS, HELD_LOOK_MOST_SECONDS))


def stood_still(look: Look, before: Look | None) -> bool:
    """Whether more time has passed at the source between two looks than by this node's clock, which stops
    where the node does: the others may have given it up."""
    if before is None or look.job.elapsed_ms is None or before.job.elapsed_ms is None:
        return False
    by_source = (look.job.elapsed_ms - before.job.elapsed_ms) / 1000
    return by_source - (look.at - before.at) > STOOD_STILL_SECONDS


def on_its_way(look: Look) -> bool:
    """Whether the guest had not switched over at that look. In the blackout the source answers only after
    it."""
    return not look.job.done and bool(look.remaining)


def must_pace(look: Look, before: Look | None, carried_bytes_per_second: float) -> bool:
    """Whether the last part of the copy begins, which is paced."""
    if look.remaining is None:
        return False
    falls = max(rate(look, before), carried_bytes_per_second)
    return look.remaining <= PACED_BYTES + falls * _near_lead_seconds(look)


def ends_within(seconds: float, look: Look, carried_bytes_per_second: float) -> bool:
    """Whether this pass does."""
    return (look.remaining or 0) <= seconds * carried_bytes_per_second


def near_rate(look: Look, full_mib_per_second: int) -> int:
    """MiB/s with which the last part comes nearer."""
    return min(full_mib_per_second, max(round(NEAR_MIB / _near_lead_seconds(look)), HOLD_RATE_MIB_PER_SECOND))


def near(look: Look, before: Look | None, least_rate: float = 0.0) -> bool:
    """Whether this node follows now: at the next look the pass might be over. `least_rate`: bytes a second
    that the copy may reach, whatever is told and seen."""
    if look.remaining is None:
        return True
    lead = _near_lead_seconds(look)
    return look.remaining <= SLIPPED_BYTES + max(least_rate, rate(look, before)) * lead


def settled(look: Look) -> bool:
    """Whether what is left is what a guest writes again and again."""
    return (look.job.iteration or 1) >= SETTLED_PASS


def calmed(look: Look, carried_bytes_per_second: float) -> bool:
    """Whether a guest that was not to converge has left so little for its second pass that it may leave."""
    second = (look.job.iteration or 1) > 1
    return second and (look.remaining or 0) <= CALM_SECONDS * carried_bytes_per_second


def may_wait_unseen(seconds: float, last: Look | None) -> bool:
    """Whether a copy that was not seen for so long has more than half of the way left, by its last look."""
    told = 0 if last is None else last.job.rate_bytes_per_second or 0
    if last is None or last.remaining is None or not told:
        return False
    return seconds < last.remaining / told / 2


def _near_lead_seconds(look: Look) -> float:
    return NEAR_LEAD_SECONDS + LOOKS_OF_LEAD * look.took


# -- how long it has to be raised to ------------------------------------------------------------------------


def converges(bytes_per_second: float, dirty_bytes_per_second: float | None) -> bool:
    """Whether the guest may switch over at the end of its first pass already. Not known: it may."""
    if bytes_per_second <= 0 or dirty_bytes_per_second is None:
        return True
    return dirty_bytes_per_second < CONVERGES_BELOW * bytes_per_second


def sent_as_told(bytes_per_second: float, first_mib_per_second: int) -> bool:
    """Whether the copy was as fast as it was let: then the link may carry much more."""
    return bytes_per_second >= AS_TOLD_SHARE * first_mib_per_second * MIB


def predicted_seconds(bytes_per_second: float, dirty_bytes_per_second: float | None) -> float | None:
    """How long the guest will stand still; None: it cannot be told.

    A guest that writes clearly less than the link carries is copied down to libvirt's downtime limit. Of
    another one what it writes again and again stays: some times what it has written in a second, as measured
    before the migration.
    """
    if bytes_per_second <= 0 or dirty_bytes_per_second is None:
        return None
    if converges(bytes_per_second, dirty_bytes_per_second):
        return LEAST_DOWNTIME_SECONDS
    return max(LEAST_DOWNTIME_SECONDS, STAYS_FACTOR * dirty_bytes_per_second / bytes_per_second)


AUTO_LONGEST_SECONDS = AUTO_MOST_SECONDS / AUTO_FACTOR
"""The longest blackout that auto takes."""


@dataclass(frozen=True)
class Budget:
    """What is asked for."""

    seconds: int
    why: str

    def first_downtime_ms(self, bytes_per_second: float, dirty_bytes_per_second: float | None) -> int:
        """How long a blackout the guest is let go with: a second's writing, where it does not converge.

        QEMU switches over as soon as it expects no longer one, so more would only make it longer.
        """
        wanted = LEAST_DOWNTIME_SECONDS
        if dirty_bytes_per_second is not None and not converges(bytes_per_second, dirty_bytes_per_second):
            wanted = DOWNTIME_FACTOR * dirty_bytes_per_second / bytes_per_second
        return self._within(1000 * wanted)

    def wider_downtime_ms(self, now_ms: int, needed: float, *, late: bool) -> int:
        """What is allowed next. `needed`: in seconds, by what passes have left. `late`: for LONGER_SECONDS
        there was neither a switch-over nor a wider limit."""
        wanted = 2.0 * now_ms if late else float(now_ms)
        return self._within(max(wanted, 1000 * needed))

    def allows(self, seconds: float) -> bool:
        """Whether a blackout of that length is allowed."""
        return seconds <= BLACKOUT_SHARE * self.seconds

    def _within(self, wanted_ms: float) -> int:
        return round(max(1000 * LEAST_DOWNTIME_SECONDS, min(wanted_ms, 1000 * BLACKOUT_SHARE * self.seconds)))


def needed_seconds(look: Look | None, carried_bytes_per_second: float) -> float:
    """The blackout that a guest needs by what its pass has left, and by what was sent of that before anybody
    looked; 0: that is not told yet."""
    if look is None or not settled(look) or not carried_bytes_per_second:
        return 0.0
    return DOWNTIME_FACTOR * ((look.remaining or 0) / carried_bytes_per_second + look.took)


def budget(asked_seconds: int | None, predicted: float | None, timeout_seconds: float) -> Budget | Message:
    """The heartbeat timeout to raise to, or why none is enough. `asked_seconds`: None means auto.
    `timeout_seconds`: the longest that is in force."""
    least = max(int(timeout_seconds) + 1, LEAST_BUDGET_SECONDS)
    if asked_seconds is not None:
        if asked_seconds < least:
            return _refused(
                f"a heartbeat timeout of {asked_seconds} s is too short: {timeout_seconds:.0f} s are in "
                f"force, and a raise just in time takes at least {LEAST_BUDGET_SECONDS} s",
                f"--budget with at least {least}",
            )
        return Budget(asked_seconds, "as asked for")
    if predicted is None:
        seconds, why = (
            max(AUTO_MOST_SECONDS, least),
            "no blackout can be predicted: the most that auto takes",
        )
    else:
        wanted = ceil(AUTO_FACTOR * predicted)
        if wanted > AUTO_MOST_SECONDS:
            return _refused(
                f"a blackout of {predicted:.0f} s is predicted, and --budget auto takes at most "
                f"{AUTO_MOST_SECONDS} s",
                _asking(wanted),
            )
        seconds = max(wanted, least)
        why = f"a blackout of up to {predicted:.1f} s is predicted"
    return Budget(seconds, why)


def _refused(text: str, hint: str) -> Message:
    return Message("NOT_RAISED", text, next_command=f"the same with {hint}")


# -- while it is raised -------------------------------------------------------------------------------------


def not_switched(guest: str, seconds: float, budget: Budget, needed: float) -> Message:
    """It was raised for as long as it may be. `needed`: the blackout, in seconds, for what passes left."""
    told = given_up(f"{guest} had not switched over {seconds:.0f} s after this node was raised, too")
    if budget.allows(needed):
        return told
    return replace(
        told,
        text=f"{told.text}; by its last passes it needs a blackout of {needed:.0f} s",
        next_command=f"the same with {_asking(ceil(needed / BLACKOUT_SHARE))}",
    )


def _asking(seconds: int) -> str:
    return f"--budget {seconds}, or --postcopy" if seconds <= MOST_BUDGET_SECONDS else "--postcopy"


def given_up(why: str) -> Message:
    """The migration is cancelled since the heartbeat could not be raised in time, or for too long."""
    return Message(
        "NOT_RAISED",
        f"{why}: the migration is cancelled before the guest stands still",
        next_command="the same again, or without --raise just-in-time and with --budget SECONDS: raised for "
        "the whole window",
    )
