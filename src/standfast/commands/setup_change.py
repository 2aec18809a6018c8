"""A change of what is registered: read, change, write, and what is said when that cannot be.

`clsnmpsetup` and `standfast node` share it, so that they refuse alike.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from xml.etree import ElementTree as ET

from standfast.cluster.cib import CibConflict, CibError, CibUnknown
from standfast.commands.setup_outside import Outside
from standfast.core import devices, fields, owed, rescue
from standfast.core.messages import Message, Refused

MAX_TRIES = 8
"""How often a change is made anew when somebody else has written to the CIB meanwhile."""


def change(
    outside: Outside, make: Callable[[ET.Element], ET.Element | None], listing: str = "clsnmpsetup -l"
) -> bool:
    """Read, change, write; anew when somebody else wrote meanwhile. False: nothing was left to change.

    `listing`: the command that shows what is registered. Raises Refused.
    """
    for _ in range(MAX_TRIES):
        before = outside.query()
        wanted = refusing(make, before)
        if wanted is None:
            return False
        try:
            outside.apply(before, wanted)
        except CibConflict:
            continue
        except CibUnknown as error:
            text = f"{error}: whether the change was made is not known yet"
            raise Refused(Message("setup.unknown", text, next_command=listing)) from None
        except CibError as error:
            raise Refused(Message("setup.cib", f"{error}; nothing was changed")) from None
        return True
    text = f"the CIB was changed by somebody else {MAX_TRIES} times in a row; nothing was changed"
    raise Refused(Message("setup.busy", text, next_command="try again"))


def refusing(make: Callable[..., ET.Element | None], *arguments: object) -> ET.Element | None:
    """Run a change of the pure core; what it refuses becomes a message (not: that nothing is registered)."""
    try:
        return make(*arguments)
    except devices.NotRegisteredError:
        raise
    except devices.WindowOpenError as error:
        text = f"{error}; set-up waits until it is closed. Nothing was changed"
        next_command = "clovmmigrate -u source-ldom target-host"
        raise Refused(Message("setup.window-open", text, next_command=next_command)) from None
    except devices.UnknownNodeError as error:
        text = f"{error}. Nothing was changed"
        raise Refused(Message("setup.unknown-node", text, next_command="crm_node -l")) from None
    except devices.ForeignError as error:
        text = f"{error}. Nothing was changed"
        raise Refused(
            Message("setup.foreign", text, next_command="cibadmin -Q --scope fencing-topology")
        ) from None
    except owed.OwedError as error:
        text = f"{error}. Nothing was changed"
        raise Refused(
            Message("setup.owed", text, node=error.node, next_command=owed.way_out(error.node))
        ) from None
    except owed.NotOwedError as error:
        raise Refused(Message("setup.not-owed", f"{error}. Nothing was changed")) from None
    except devices.DeviceError as error:
        raise Refused(Message("setup.cib-content", f"{error}. Nothing was changed")) from None


def without(cib: ET.Element, name: str) -> ET.Element | None:
    """None where somebody else has deleted it meanwhile."""
    try:
        return devices.without_node(cib, name)
    except devices.NotRegisteredError:
        return None


def checked_name(name: str) -> None:
    """Raises fields.FieldError where no node can be called so."""
    try:
        fields.name(name)
    except fields.FieldError as error:
        raise fields.FieldError(f"node {name!r}: {error}") from None


def start_again(outside: Outside, own: str, name: str) -> None:
    """Devices of `name` that failed to start on this node (`own`): a secret or a program was missing."""
    if not own:
        return
    for device in devices.failed_starts(outside.query(), own, name):
        outside.cleanup(device, own)


def way_out(outside: Outside, program: str) -> None:
    """Keep and print the line that takes the gates out of fencing when no Standfast program works."""
    trouble = outside.keep_rescue(outside.query())
    if trouble:
        print(f"{program}: warning: {trouble}", file=sys.stderr)
    print(f"Should Standfast itself ever be broken, this takes its gates out of fencing: {rescue.COMMAND}")
