"""What one node's daemon knows at this instant; everything in here can be read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from standfast import config
from standfast.core import aims
from standfast.core.record import Record
from standfast.core.steps import NodeAim
from standfast.daemon.heartbeat_duty import FileState
from standfast.daemon.probe import Probed

RETRY_SECONDS = 1.0
"""A task of the daemon that cannot go on looks again after that."""
DMI_FILE = "/sys/class/dmi/id/product_uuid"
"""Of a guest of libvirt this is the UUID of its domain (libvirt, formatdomain: `sysinfo` and `uuid`)."""


def own_identity(path: str = DMI_FILE) -> str:
    """The UUID that this machine's firmware tells, in libvirt's spelling; empty where there is none."""
    try:
        return Path(path).read_text().strip().lower()
    except OSError:
        return ""


@dataclass
class Known:
    """The last look."""

    node: str = ""
    identity: str = field(default_factory=own_identity)
    """UUID of this machine; empty: not known."""
    tree: ET.Element | None = None
    record: Record | None = None
    record_error: str = ""
    file: FileState = field(default_factory=lambda: FileState({}, ""))
    runtime: Mapping[str, int] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    config: config.Loaded | None = None
    config_error: str = ""
    probed: Probed = field(default_factory=Probed)
    engine: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)
    """All nodes' reports at the last tick."""
    _aims: tuple[ET.Element, object, dict[str, NodeAim]] | None = None
    """What `aims` last told, and of which CIB and file."""

    @property
    def window(self) -> bool:
        """Whether a window is open, opening or closing."""
        return self.record is not None and self.record.open

    @property
    def on_the_move(self) -> bool:
        """Whether a window is open in which guests may move, or one is about to close. One that waits for
        clocks may do so for hours, in which agents are tested as at any other time."""
        return self.window and not (self.record is not None and self.record.waits_for_clocks)

    def aims(self) -> dict[str, NodeAim]:
        """Where the devices of every registered node aim; empty while the CIB or the hosts are not known."""
        if self.tree is None or self.config is None:
            return {}
        # Many duties ask between two looks.
        if self._aims is None or self._aims[0] is not self.tree or self._aims[1] is not self.config:
            found = aims.aims(self.tree, self.config.config.hosts.hosts)
            self._aims = (self.tree, self.config, found)
        return dict(self._aims[2])
