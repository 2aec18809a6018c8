"""How a demonstration tells what it does: chapters, a timeline, a closing table that decides its outcome."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import click

from standfast.lab.cluster import Lab


@dataclass(frozen=True, order=True)
class Happening:
    """Something that happened in a lab: CLOCK_MONOTONIC seconds and a sentence."""

    monotonic: float
    text: str


def happenings(lab: Lab, since: float = 0.0) -> list[Happening]:
    """Starts, stops and kills in a lab since a CLOCK_MONOTONIC instant, in order."""
    verbs = {"start": "starts on", "stop": "stops on", "monitor": "is seen running on"}
    found = [
        Happening(event.monotonic, f"service {event.resource} {verbs[event.action]} {event.node}")
        for event in lab.events()
    ]
    found += [
        Happening(call.ended, f"{call.caller} has {call.node} killed ({call.action}: {call.answer})")
        for call in lab.power_calls()
    ]
    return sorted(one for one in found if one.monotonic >= since)


@dataclass(frozen=True)
class Finding:
    """A row of the closing table: what had to happen, whether it did, and the measured figure."""

    what: str
    happened: bool
    measured: str


@dataclass
class Story:
    """Prints a demonstration as it goes and collects its findings."""

    begun: float = field(default_factory=time.monotonic)
    findings: list[Finding] = field(default_factory=list)

    def chapter(self, title: str, about: str) -> None:
        """Begin a chapter: its title and what the reader is about to see."""
        click.secho(f"\n{title}", bold=True)
        click.echo(click.wrap_text(about, width=100, initial_indent="  ", subsequent_indent="  "))

    def say(self, text: str) -> None:
        """One step, with the time since the demonstration began."""
        click.echo(f"  [{time.monotonic() - self.begun:6.1f} s] {text}")

    def tell(self, zero: float, many: Iterable[Happening]) -> None:
        """Lines of a timeline; times count from `zero`, a CLOCK_MONOTONIC instant."""
        for one in many:
            click.echo(f"    {one.monotonic - zero:+8.2f} s  {one.text}")

    def require(self, what: str, happened: bool, measured: str) -> None:
        """Note something that has to happen; the demonstration fails if it did not."""
        self.findings.append(Finding(what, happened, measured))
        click.secho(
            f"  {'yes' if happened else 'NO '}  {what}: {measured}", fg="green" if happened else "red"
        )

    def close(self) -> int:
        """Print the closing table; the exit code is 0 only if everything happened."""
        click.secho("\nWhat was measured", bold=True)
        width = max((len(finding.what) for finding in self.findings), default=0)
        for finding in self.findings:
            mark = "  ok  " if finding.happened else "FAILED"
            click.echo(f"  {mark}  {finding.what:{width}}  {finding.measured}")
        missing = [finding for finding in self.findings if not finding.happened]
        complete = bool(self.findings) and not missing
        outcome = "everything happened as told" if complete else f"{len(missing)} of it did not happen"
        click.echo(f"\n  {outcome}; {time.monotonic() - self.begun:.0f} s")
        return 0 if complete else 1


def service_of(node: str) -> str:
    """The Recorder resource whose home is this node."""
    return f"r-{node}"
