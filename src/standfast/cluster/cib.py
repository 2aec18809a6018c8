"""Pacemaker's CIB: read the local copy, change it by one patch that is applied whole or not at all.

Compare-and-set: the phase nvpair of the record has a new id with each write of the record. Every patch
begins with a `modify` of the id that was read. Where that id is gone Pacemaker refuses the whole patch
("Application of update diff failed", nothing is changed), so of two writers exactly one wins, a late copy
of an old patch is refused, and nothing depends on the CIB's own version numbers (with them a CIB that is
written all the time starves a writer).

The guard is needed because a patch is lenient elsewhere: a `delete` of something absent is accepted in
silence (lib/common/patchset.c of Pacemaker 2.1).
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from standfast.cluster.run import EngineError, Result, run

WINDOW_SET = "standfast-window"
PHASE = "standfast-phase"

# crm_exit_t of Pacemaker 2.1 (include/crm/common/results.h)
_ERROR = 1
_DISCONNECTED = 102
_OLD = 103
_NOT_THERE = 105
_EXISTS = 108
_TIMEOUT = 124
_DIFF_FAILED = "Application of update diff failed"
_BEFORE_SENDING = (
    "Init failed",
    "Could not connect to the CIB",
    "Signon to CIB failed",
    "Could not establish",
)


class CibError(EngineError):
    """The call failed and nothing has been changed; the text says why."""


class CibConflict(CibError):
    """Refused whole: somebody else wrote first. Nothing is changed; read again."""


class CibUnknown(CibError):
    """No answer at the limit, or the connection broke: it may have been carried out, or be later.

    Only a later `barrier` from this node, and reading again, tells.
    """


def query(limit_seconds: float = 5.0) -> ElementTree.Element:
    """The whole local copy of the CIB; answers while the ring is stalled too. Raises CibError."""
    result = run(["cibadmin", "--query", "--local"], limit_seconds=limit_seconds)
    if not result.ok:
        raise CibError.of("the CIB cannot be read", result)
    try:
        return ElementTree.fromstring(result.stdout)
    except ElementTree.ParseError as error:
        raise CibError(f"the CIB cannot be read: {error}") from None


def stored(path: str) -> ElementTree.Element:
    """The configuration as Pacemaker keeps it on disk, without the status section. Costs no process.

    Pacemaker moves the file into place as a whole, some 30 ms after each change: it is never newer than what
    `query` gives, and may be older (`version` tells). Raises CibError.
    """
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise CibError(f"the CIB cannot be read: {error}") from None


def version(tree: ElementTree.Element) -> tuple[int, int]:
    """What grows with each change of the configuration: admin_epoch and epoch; 0 where there is none."""
    admin_epoch, epoch = (tree.get(name, "") for name in ("admin_epoch", "epoch"))
    return int(admin_epoch) if admin_epoch.isdecimal() else 0, int(epoch) if epoch.isdecimal() else 0


def apply(original: ElementTree.Element, wanted: ElementTree.Element, limit_seconds: float = 20.0) -> None:
    """Change the configuration from `original` (as `query` gave it) to `wanted` by ONE patch.

    Refused whole when the phase nvpair of `original` is no longer there under its id; where `wanted` has
    the phase under another id, the patch moves it. The status section, the CIB's version numbers and the
    order of siblings are never touched. Raises CibConflict (nothing changed), CibUnknown (may land
    later), CibError.
    """
    patch = make_patch(original, wanted)
    if patch is not None:
        send_patch(patch, limit_seconds)


def send_patch(patch: str, limit_seconds: float = 20.0) -> None:
    """Send what `make_patch` made. Raises as `apply` does."""
    _write("the patch", ["--patch"], patch, limit_seconds)


def create_set(property_set: ElementTree.Element, limit_seconds: float = 20.0) -> None:
    """Add a property set to crm_config. Raises CibConflict where one with this id exists."""
    text = ElementTree.tostring(property_set, encoding="unicode")
    _write("the property set", ["--create", "--scope", "crm_config"], text, limit_seconds)


def barrier(limit_seconds: float = 20.0) -> None:
    """Return when every write that this node sent before has been carried out.

    A write that changes nothing goes around the ring behind them (a write of another node may still be
    under way). Raises CibUnknown while the ring is stalled, CibError.
    """
    _write("the barrier", ["--modify", "--scope", "crm_config"], "<crm_config/>", limit_seconds)


def make_patch(
    original: ElementTree.Element, wanted: ElementTree.Element, limit_seconds: float = 10.0
) -> str | None:
    """The patch that `apply` sends, None where nothing differs. Raises CibError."""
    before, after = _bare(original), _bare(wanted, original)
    _check_ids(after)
    old, new = _phase(before), _phase(after)
    guard = None
    if old is not None:
        guard = _guard(old, old if new is None else new)
        if new is not None:
            old.attrib.clear()
            old.attrib.update(new.attrib)
    patch = _diff(before, after, limit_seconds)
    moved = guard is not None and guard.moves
    if patch is None and not moved:
        return None
    if patch is None:
        patch = ElementTree.Element("diff", {"format": "2"})
    if guard is not None:
        # First: the changes are carried out in order, and those that follow name the new id.
        patch.insert(0, guard.change)
    return ElementTree.tostring(patch, encoding="unicode")


class _Guard:
    """A `modify` on the path of the old phase nvpair, refused where that is gone."""

    def __init__(self, change: ElementTree.Element, moves: bool) -> None:
        self.change = change
        self.moves = moves


def _guard(old: ElementTree.Element, new: ElementTree.Element) -> _Guard:
    record = f"/cib/configuration/crm_config/cluster_property_set[@id='{WINDOW_SET}']"
    path = f"{record}/nvpair[@id='{old.get('id')}']"
    change = ElementTree.Element("change", {"operation": "modify", "path": path})
    changed = ElementTree.SubElement(change, "change-list")
    for name, value in new.attrib.items():
        if old.get(name) != value:
            ElementTree.SubElement(changed, "change-attr", {"name": name, "operation": "set", "value": value})
    result = ElementTree.SubElement(change, "change-result")
    ElementTree.SubElement(result, "nvpair", dict(new.attrib))
    return _Guard(change, len(changed) > 0)


def _bare(cib: ElementTree.Element, versions: ElementTree.Element | None = None) -> ElementTree.Element:
    """A copy without the status section, with the version attributes of `versions`."""
    bare = ElementTree.Element("cib", dict((cib if versions is None else versions).attrib))
    bare.extend(copy.deepcopy(child) for child in cib if child.tag != "status")
    return bare


def _check_ids(cib: ElementTree.Element) -> None:
    """A patch names elements by tag and id; Pacemaker would refuse an ambiguous one as if it had lost."""
    for parent in cib.iter():
        seen: set[tuple[str, str]] = set()
        for child in parent:
            name = (child.tag, child.get("id", ""))
            if name[1] and name in seen:
                raise CibError(f"no patch could be made: {child.tag} {name[1]} would be there twice")
            seen.add(name)


def _phase(cib: ElementTree.Element) -> ElementTree.Element | None:
    return cib.find(
        f"configuration/crm_config/cluster_property_set[@id='{WINDOW_SET}']/nvpair[@name='{PHASE}']"
    )


def _diff(
    before: ElementTree.Element, after: ElementTree.Element, limit_seconds: float
) -> ElementTree.Element | None:
    with _in_memory(before) as first, _in_memory(after) as second:
        argv = ["crm_diff", "--no-version", "--original", first, "--new", second]
        result = run(argv, limit_seconds=limit_seconds)
    if result.returncode == 0:
        return None
    if result.returncode != 1 or result.timed_out:
        raise CibError(f"no patch could be made: {result.complaint()}")
    try:
        patch = ElementTree.fromstring(result.stdout)
    except ElementTree.ParseError as error:
        raise CibError(f"no patch could be made: {error}") from None
    if patch.get("format") != "2":
        # Format 1 has no refusal: it is what crm_diff makes for a CIB without a feature set.
        raise CibError("no patch could be made: crm_diff did not answer in format 2")
    for change in list(patch):
        # A `move` is refused where a sibling has come or gone meanwhile (or is a comment, which we do not
        # see), and the order of siblings is not ours to change.
        if change.tag == "version" or change.get("operation") == "move":
            patch.remove(change)
    return patch if len(patch) else None


@contextmanager
def _in_memory(cib: ElementTree.Element) -> Iterator[str]:
    """A path that holds this XML. The CIB may carry passwords of the user's devices: never on disk."""
    descriptor = os.memfd_create("cib")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(ElementTree.tostring(cib))
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _write(what: str, options: list[str], xml: str, limit_seconds: float) -> None:
    # cibadmin's own limit (30 s by default) must not come first.
    own_limit = str(math.ceil(limit_seconds) + 5)
    argv = ["cibadmin", *options, "--xml-pipe", "--timeout", own_limit]
    result = run(argv, limit_seconds=limit_seconds, input=xml)
    if not result.ok:
        raise _error(what, result)


def _error(what: str, result: Result) -> CibError:
    said = f"{result.stderr}\n{result.stdout}"
    why = result.complaint()
    if result.timed_out:
        return CibUnknown(f"{what} was not answered in time: it may be carried out later")
    if result.returncode == _ERROR and _DIFF_FAILED in said:
        return CibConflict(f"{what} was refused, somebody else wrote first: {why}")
    if result.returncode in (_OLD, _NOT_THERE, _EXISTS):
        return CibConflict(f"{what} was refused: {why}")
    if any(text in said for text in _BEFORE_SENDING):
        return CibError(f"{what} was not sent: {why}")
    if result.returncode in (_DISCONNECTED, _TIMEOUT) or result.returncode > 128:
        return CibUnknown(f"{what} may have been carried out: {why}")
    return CibError(f"{what} was refused: {why}")
