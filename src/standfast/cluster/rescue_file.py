"""Keeps /etc/standfast/rescue.xml true: the topology without gates, ready on this node."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from standfast.cluster import corosync_conf
from standfast.core import rescue
from standfast.core.names import RESCUE_FILE


def keep(cib: ET.Element, path: str = RESCUE_FILE) -> str:
    """Write the file where it is not as the topology asks. Returns why that failed, or an empty text.

    Without gates in the topology the file is left alone: it may be what somebody has just used.
    """
    text, file = rescue.document(cib), Path(path)
    try:
        if text and (not file.exists() or file.read_text() != text):
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            file.touch(0o644)
            corosync_conf.install(file, text)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
