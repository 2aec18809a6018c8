"""One call of the gate, and one of the device behind it, on one node.

Mirrors commands/gate_run.py and commands/fence_xscf_actions.py, which wait and ask; what they decide is
decided by the production functions (core.gate.decide, core.xscf.Proof, core.evidence.gone_everywhere).
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from standfast.core import evidence, xscf
from standfast.core import gate as core_gate
from standfast.core.evidence import HostAnswer
from standfast.core.gate import GateView, Rule
from standfast.core.topology import Level
from standfast.core.xscf import Proof, Verdict
from standfast.sim.kernel import Steps

if TYPE_CHECKING:
    from standfast.sim.node import Node
    from standfast.sim.world import World

HOLD_POLL_MS = 5_000
POLL_MS = 500
"""The gate looks four times a second; twice is what a run can afford."""
STALE_MS = 6_500
RECENT_ALLOW_SECONDS = 5.0
REPEAT_WAIT_MS = 2_000
POWER_LIMIT_MS = 30_000

_FIELDS = frozenset(field.name for field in fields(GateView))


def view(
    world: World,
    node: Node,
    target: str,
    hosts: tuple[HostAnswer, ...] = (),
    before: tuple[HostAnswer, ...] = (),
    of_mover: tuple[HostAnswer, ...] = (),
    of_own: tuple[HostAnswer, ...] = (),
    members: frozenset[str] | None = None,
    met: float | None = None,
) -> GateView:
    """What the gate sees on this node, from its own copies only."""
    cib = node.cib
    record = cib.readable
    seen = node.sightings.see(record) if record is not None else None
    aim = cib.aims.get(target)
    where = core_gate.plainly_on(of_mover) if _mover(node) == node.name else ""
    known = {
        "target": target,
        "executor": node.name,
        "controller_state": "S_NOT_DC" if node.joined else "S_PENDING",
        "record": record,
        "record_error": cib.damage,
        "levels": cib.levels.get(target, ()),
        "membership": node.ring.members if members is None else members,
        "seconds_since_epoch_seen": seen.epoch_seconds if seen else 0.0,
        "seconds_since_window_seen": seen.window_seconds if seen else 0.0,
        "seconds_since_return": node.sightings.seconds_since_return(target),
        "seconds_since_met": met,
        "seconds_since_held": node.sightings.seconds_since_held(target),
        "facility_stopped": node.facility != "running",
        "aim": aim.host if aim is not None else "",
        "hosts": hosts,
        "hosts_before": before,
        "mover_hosts": of_mover,
        "own_hosts": of_own,
        "own_aim": own.host if (own := cib.aims.get(node.name)) is not None else "",
    }
    made = GateView(**{name: value for name, value in known.items() if name in _FIELDS})  # type: ignore[arg-type]
    where = where or core_gate.astray(made)
    held = node.sightings.held_as_mover(target, where) if where else None
    return replace(made, seconds_held_as_mover=held)


def call(world: World, node: Node, target: str, level: Level) -> Steps:
    """The gate's answer: True allows."""
    kernel = world.kernel
    began = kernel.now_ms
    world.gate_called(node.name, target)
    waited = False
    before: tuple[HostAnswer, ...] = ()
    name = f"{level.index}"
    aim = node.cib.aims.get(target)
    while True:
        looked = kernel.now_ms
        yield kernel.between(30, 60)
        # One look, one membership: the hosts are asked after it.
        members = frozenset(node.ring.members)
        back = target in members
        note = node.sightings.back if back else node.sightings.away
        note(target)
        met = node.sightings.met(node.ring.number, members)
        answer = core_gate.decide(view(world, node, target, members=members, met=met))
        if (answer.allow or answer.hosts_matter) and aim is not None:
            hosts = yield from ask(world, node, aim.guest)
            of_mover: tuple[HostAnswer, ...] = ()
            if mover := _mover(node):
                of_mover = yield from ask(world, node, world.guests[mover])
            seen = view(world, node, target, hosts, before, of_mover, members=members, met=met)
            answer = core_gate.decide(seen)
            if answer.allow and not mover and seen.alone:
                of_own = yield from ask(world, node, world.guests[node.name])
                own = view(world, node, target, hosts, before, (), of_own, members, met)
                answer = core_gate.decide(own)
            before = hosts
        if answer.rule in (Rule.UNSAVED, Rule.ELSEWHERE):
            node.sightings.held(target)
        allow = answer.allow and kernel.now_ms - looked <= STALE_MS
        if allow and not waited:
            since = node.sightings.seconds_since_allowed(target, name)
            if back or (since is not None and since < RECENT_ALLOW_SECONDS):
                waited = True
                yield REPEAT_WAIT_MS
                continue
        over = kernel.now_ms - began >= HOLD_POLL_MS
        if allow or answer.final or over:
            if allow:
                node.sightings.allowed(target, name)
            kernel.say(
                node.name,
                "gate %s of %s: %s (%s)",
                name,
                target,
                "ALLOW" if allow else "hold",
                answer.rule.value,
            )
            world.gate_answered(node.name, target, allow, answer.rule.value, looked)
            return allow
        yield POLL_MS


def _mover(node: Node) -> str:
    """The mover of a guarded window, as this node's copy has it."""
    record = node.cib.readable
    return record.guarded_mover if record is not None else ""


def ask(world: World, node: Node, guest: str) -> Steps:
    """Every host's answer, through the daemon within a second; half of them later than the others."""
    kernel, site = world.kernel, world.site
    names = list(site.hosts)
    quiet = any(site.silent(name) for name in names)
    first = {name: site.ask(name, guest) for name in names[::2]}
    yield kernel.between(700, 1000) if quiet else kernel.between(10, 150)
    rest = {name: site.ask(name, guest) for name in names[1::2]}
    del node
    return tuple((first | rest)[name] for name in names)


def asked_in_turn(world: World, guest: str) -> Steps:
    """One round, each question begun after the answer before it."""
    answers = []
    for name in world.site.hosts:
        yield world.kernel.between(20, 200)
        answers.append(world.site.ask(name, guest))
    return tuple(answers)


def kill(world: World, node: Node, target: str) -> Steps:
    """One call of fence_xscf: True is "done"."""
    kernel, site = world.kernel, world.site
    aim = node.cib.aims.get(target)
    if aim is None or not aim.host:
        return False
    yield kernel.between(200, 1200)
    if site.silent(aim.host):
        yield 5_000
        return False
    proof = Proof().seen(site.status(aim.host, aim.guest))
    if proof.verdict is Verdict.ORDER:
        yield kernel.between(50, 300)
        world.acting = node
        victim = site.reset(aim.host, aim.guest)
        world.acting = None
        proof = proof.ordered()
        end = kernel.now_ms + POWER_LIMIT_MS
        while kernel.now_ms < end and proof.verdict is Verdict.WAIT:
            yield 1_000
            if not site.silent(aim.host):
                # Its map names the one that was hit.
                shown = victim.name if victim is not None else aim.guest
                proof = proof.seen(site.status(aim.host, shown))
    done = proof.verdict is Verdict.PROVEN
    if not done and not xscf.is_live(proof.statuses[-1]):
        first = yield from asked_in_turn(world, aim.guest)
        again = yield from asked_in_turn(world, aim.guest)
        done = evidence.gone_everywhere(list(site.hosts), [first, again])
    kernel.say(
        node.name, "device of %s at %s: %s (%s)", target, aim.host, "DONE" if done else "failed", proof.story
    )
    return done
