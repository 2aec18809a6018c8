"""What the first registered node brings to the cluster, and what goes with the last.

The record of the window, and the option that keeps the controller from giving up after ten quick refusals.
What was there before is remembered in the record's own set, so that removal leaves the CIB as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from standfast.core import record
from standfast.core.device_objects import (
    DeviceError,
    ForeignError,
    by_id,
    section,
)
from standfast.core.names import RECORD_SET_ID
from standfast.core.owed import OwedError

MAX_ATTEMPTS = "stonith-max-attempts"
MAX_ATTEMPTS_NAMES = (MAX_ATTEMPTS, "fencing-max-attempts")
"""Old and new name of the option. Ten quick refusals would make the controller give up on a node for good."""
USER_SET_ID = "cib-bootstrap-options"
"""The set that crm_attribute writes to when it is not told another."""
MADE_ID = f"{RECORD_SET_ID}-made"
MADE_NAME = f"{record.PREFIX}made"
"""What set-up had to make that an empty CIB lacks: its removal takes exactly that away again."""


def topology_section(cib: ET.Element) -> ET.Element:
    """The topology section; the schema wants it after the constraints and before everything else optional."""
    found = cib.find("./configuration/fencing-topology")
    if found is None:
        configuration = cib.find("./configuration")
        if configuration is None:
            raise DeviceError("the CIB has no configuration")
        found = ET.Element("fencing-topology")
        before = [child.tag for child in configuration]
        place = before.index("constraints") + 1 if "constraints" in before else len(before)
        configuration.insert(place, found)
        _remember(cib, "fencing-topology")
    return found


def _max_attempts(cib: ET.Element) -> list[ET.Element]:
    return list(_user_pairs(cib, MAX_ATTEMPTS_NAMES))


def _user_pairs(cib: ET.Element, wanted: tuple[str, ...]) -> Iterator[ET.Element]:
    for options in cib.iterfind("./configuration/crm_config/cluster_property_set"):
        if options.get("id") != RECORD_SET_ID:
            yield from (pair for pair in options.iterfind("nvpair") if pair.get("name") in wanted)


def set_up(cib: ET.Element) -> None:
    """Before the first node: the record, and the option in the user's own set, where it is honoured."""
    pairs = _max_attempts(cib)
    if len(pairs) > 1:
        ids = ", ".join(pair.get("id", "") for pair in pairs)
        raise ForeignError(f"{MAX_ATTEMPTS} is set more than once ({ids}); leave one")
    record.write(cib, record.Record.fresh(pairs[0].get("value", "") if pairs else "", _first_epoch(cib)))
    own = record.find_set(cib)
    if own is not None:
        ET.SubElement(own, "nvpair", {"id": MADE_ID, "name": MADE_NAME, "value": ""})
    if pairs:
        pairs[0].set("value", "INFINITY")
        return
    options = by_id(cib, USER_SET_ID)
    if options is None:
        options = ET.Element("cluster_property_set", {"id": USER_SET_ID})
        section(cib, "crm_config").insert(0, options)
        _remember(cib, USER_SET_ID)
    pair = {"id": f"{USER_SET_ID}-{MAX_ATTEMPTS}", "name": MAX_ATTEMPTS, "value": "INFINITY"}
    ET.SubElement(options, "nvpair", pair)


def _first_epoch(cib: ET.Element) -> int:
    """An epoch never used before on this cluster, though set-up may have been taken away and made anew.

    Each epoch of ours is one change of the configuration at least, so the CIB's own epoch is never behind it:
    a patch that was made before and lands late finds no such id.
    """
    text = cib.get("epoch", "")
    return int(text) + 1 if text.isdigit() else 1


def tear_down(cib: ET.Element) -> None:
    """After the last node: back to what was there before the first. Raises OwedError."""
    current, own = record.read(cib), record.find_set(cib)
    if current is None or own is None:
        return
    for node in current.owed:
        # The record is the only place that knows these values.
        raise OwedError(node)
    made = (_parameters_of_set(own).get(MADE_NAME) or "").split()
    crm_config = section(cib, "crm_config")
    for pair in _max_attempts(cib):
        # A value that is no longer ours is the user's, written since.
        if pair.get("value") == "INFINITY":
            if current.stonith_max_attempts:
                pair.set("value", current.stonith_max_attempts)
            else:
                _remove(crm_config, pair)
    crm_config.remove(own)
    for parent, identifier in ((crm_config, USER_SET_ID), (cib.find("./configuration"), "fencing-topology")):
        for child in list(parent) if parent is not None else []:
            if identifier in made and identifier in (child.get("id"), child.tag) and len(child) == 0:
                _remove(cib, child)


def _remember(cib: ET.Element, what: str) -> None:
    own = record.find_set(cib)
    pairs = [] if own is None else [pair for pair in own if pair.get("name") == MADE_NAME]
    for pair in pairs:
        pair.set("value", " ".join(sorted({*pair.get("value", "").split(), what})))


def _parameters_of_set(options: ET.Element) -> dict[str, str]:
    return {pair.get("name", ""): pair.get("value", "") for pair in options.iterfind("nvpair")}


def _remove(root: ET.Element, wanted: ET.Element) -> None:
    for parent in root.iter():
        if wanted in list(parent):
            parent.remove(wanted)
            return
