"""When a live migration is held, when it is let go, and how long the heartbeat has to bear: pure.

The copy is held by its RATE, in its first pass over the memory, at the smallest rate that libvirt knows, 1
MiB/s (`migrate-setspeed`; libvirt 9.0.0). What is left to copy then bounds the hold in seconds. Never by a
tiny downtime limit: three guests died right after a switch-over that followed one, or after a hold that had
slipped into the second pass with some KiB left (measured, emulated processors). So the hold begins while
enough is left, and one that slips before every member runs the raised timeout is given up: the migration is
cancelled.

What bounds a slow raise, some tens of MiB, would itself take seconds of a slow link once it is let go, and
for so long a death would be seen late. So between the raise and the fuse the copy comes nearer, paced. What
is left is a clock, too, that does not stop with the node that looks at it: one that stood still for as long
as the others need to miss it finds the pass over.
"""

from __future__ import annotations

from dataclasses import dataclass
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
FIRST_PASS_SECONDS = 20.0
LEAST_FIRST_RATE_MIB_PER_SECOND = 16
"""A small guest on a fast link is through its first pass before anybody has looked: it is sent no faster than
its memory in FIRST_PASS_SECONDS until it is held. Large ones are not made slower by that."""
SLIPPED_BYTES = 2 * MIB
"""Less is left than two seconds of the hold: the pass is about to end."""
NEAR_LEAD_SECONDS = 0.2
"""As LEAD_SECONDS. By then the speed of the link is known, and for as long as what is left takes, a death is
seen late."""
NEAR_MIB = 6
"""Coming nearer is paced, by so much in the time of three looks, however much is left: what is empty goes at
once. Faster where more was left, a pass was over between two looks (48 MiB/s; measured)."""
NEAR_LIMIT_SECONDS = 8.0
LEAST_NEAR_BUDGET_SECONDS = 20
"""It ends then wherever it is. With the look before it, of 10 s at most, that is less than what is raised to:
nobody has missed this node and lowered it meanwhile. With a smaller budget it stays where it is held."""
HELD_LOOK_LEAST_SECONDS = 0.5
HELD_LOOK_MOST_SECONDS = 3.0
HELD_LOOKS = 10
"""So often at least it is looked at before a hold is over; each look costs the node that the raise needs."""
SWITCH_LIMIT_SECONDS = 60.0
"""So long it may be raised before the guest has switched over. Then the migration is cancelled: it is no
ordinary guarded one, since who asks for this raise has resources that do not take back a dropped node."""
AUTO_LEAST_SECONDS = 20
AUTO_MOST_SECONDS = 120
"""Bounds of `--budget auto`. It is also the longest delay of a real death while it is raised."""
BLACKOUT_SHARE = 0.4
"""Of the budget, the longest blackout that is allowed. The token is 0.45 of it: a blackout beyond that had
the ring form anew, of the same members (measured: 10.8 s of 20)."""
AUTO_FACTOR = 1 / BLACKOUT_SHARE
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
LONGER_SECONDS = 5.0
"""After so long without a switch-over twice as long a blackout is allowed, up to that share: a guest of
which nothing can be told leaves all the same."""
CONVERGES_BELOW = 0.7
"""A guest that writes less than this share of what the link carries is copied to its end by passes that get
shorter and shorter."""


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


def first_rate(full_mib_per_second: int, memory_bytes: int | None) -> int:
    """MiB/s with which the copy begins; `memory_bytes` None: not known."""
    if memory_bytes is None:
        return full_mib_per_second
    slow = ceil(memory_bytes / MIB / FIRST_PASS_SECONDS)
    return min(full_mib_per_second, max(slow, LEAST_FIRST_RATE_MIB_PER_SECOND))


def must_hold(look: Look, before: Look | None) -> bool:
    """Whether the copy is to be slowed down now: at the next look it might be too late."""
    if look.remaining is None:
        return False
    floor = (HOLD_SECONDS + MARGIN_SECONDS) * HOLD_RATE_MIB_PER_SECOND * MIB
    lead = LEAD_SECONDS + LOOKS_OF_LEAD * look.took
    return look.remaining <= floor + rate(look, before) * lead


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


def near_rate(look: Look, full_mib_per_second: int) -> int:
    """MiB/s with which a copy that is held comes nearer."""
    return min(full_mib_per_second, max(round(NEAR_MIB / _near_lead_seconds(look)), HOLD_RATE_MIB_PER_SECOND))


def near(look: Look, before: Look | None, least_rate: float) -> bool:
    """Whether the fuse goes in now: at the next look the pass might be over. `least_rate`: bytes a second
    that the copy may reach, whatever is told and seen."""
    if look.remaining is None:
        return True
    lead = _near_lead_seconds(look)
    return look.remaining <= SLIPPED_BYTES + max(least_rate, rate(look, before)) * lead


def _near_lead_seconds(look: Look) -> float:
    return NEAR_LEAD_SECONDS + LOOKS_OF_LEAD * look.took


# -- how long it has to be raised to ------------------------------------------------------------------------


def predicted_seconds(
    remaining_bytes: int | None, bytes_per_second: float, dirty_bytes_per_second: float | None
) -> float | None:
    """How long the guest will stand still; None: it cannot be told.

    A guest that writes clearly less than the link carries is copied down to libvirt's downtime limit. Of
    another one what it writes again and again stays: what it has written in a second, as measured before the
    migration, or what is left now where that is more.
    """
    if bytes_per_second <= 0 or dirty_bytes_per_second is None:
        return None
    if dirty_bytes_per_second < CONVERGES_BELOW * bytes_per_second:
        return LEAST_DOWNTIME_SECONDS
    stays = max(float(remaining_bytes or 0), dirty_bytes_per_second)
    return max(LEAST_DOWNTIME_SECONDS, stays / bytes_per_second)


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
        if bytes_per_second > 0 and dirty_bytes_per_second is not None:
            share = dirty_bytes_per_second / bytes_per_second
            wanted = DOWNTIME_FACTOR * share if share >= CONVERGES_BELOW else wanted
        return self._within(1000 * wanted)

    def wider_downtime_ms(self, now_ms: int, look: Look | None, *, late: bool) -> int:
        """What is allowed next. `look`: at the copy now; None: nothing was told. `late`: for LONGER_SECONDS
        there was neither a switch-over nor a wider limit."""
        wanted = 2.0 * now_ms if late else float(now_ms)
        if look is not None and (look.job.iteration or 1) >= SETTLED_PASS and (told := rate(look, None)):
            wanted = max(wanted, 1000 * DOWNTIME_FACTOR * (look.remaining or 0) / told)
        return self._within(wanted)

    def _within(self, wanted_ms: float) -> int:
        return round(max(1000 * LEAST_DOWNTIME_SECONDS, min(wanted_ms, 1000 * BLACKOUT_SHARE * self.seconds)))


def budget(asked_seconds: int | None, predicted: float | None, timeout_seconds: float) -> Budget | Message:
    """The heartbeat timeout to raise to, or why none is enough. `asked_seconds`: None means auto.
    `timeout_seconds`: the longest that is in force."""
    least = int(timeout_seconds) + 1
    if asked_seconds is not None:
        if asked_seconds < least:
            return _refused(
                f"a heartbeat timeout of {asked_seconds} s is no raise: {timeout_seconds:.0f} s are in force",
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
                f"--budget {wanted}, or --postcopy",
            )
        seconds = max(wanted, AUTO_LEAST_SECONDS, least)
        why = f"a blackout of up to {predicted:.1f} s is predicted"
    return Budget(seconds, why)


def _refused(text: str, hint: str) -> Message:
    return Message("NOT_RAISED", text, next_command=f"the same with {hint}")


# -- while it is raised -------------------------------------------------------------------------------------


def given_up(why: str) -> Message:
    """The migration is cancelled since the heartbeat could not be raised in time, or for too long."""
    return Message(
        "NOT_RAISED",
        f"{why}: the migration is cancelled before the guest stands still",
        next_command="the same again, or without --raise just-in-time and with --budget SECONDS: raised for "
        "the whole window",
    )
