"""What corosync would make of its file, as keys of its map, against what stands in the map now.

A reload makes the whole file live, not our keys alone. How statements become keys is that of
main_config_parser_cb() in exec/coroparse.c of corosync 3.1.7, seen on a running one; what a reload takes over
and takes away is in exec/cfg.c (remove_deleted_entries and the copy of the whole map).

Not compared, since the map does not tell: uidgid (names there, numbers here), bindnetaddr (corosync writes
its own address there at its start, and takes it away at a reload), logging_daemon, system (read at the start
only), resources (corosync writes there itself), udp members, and sections that corosync does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from standfast.cluster import corosync_conf
from standfast.core.heartbeat import KEYS

PREFIXES = ("totem.", "nodelist.", "quorum.", "nozzle.", "logging.")
"""What is compared, and what `cmap.configuration` must give."""
MAX_NAMED = 20
OURS = frozenset(f"totem.{key}" for key in KEYS)
"""Compared by their values in force (core/preflight.py)."""
_NEVER = re.compile(r"totem\.interface\.([0-9]+\.(bindnetaddr|member\..*))|logging\.logging_daemon\..*")
_MADE = re.compile(
    r"nodelist\.(local_node_pos|node\.[0-9]+\.nodeid)|totem\.interface\.[0-9]+\.mcast(addr|port)"
    r"|quorum\.cancel_wait_for_all"
)
"""Keys that corosync makes where the file has none (exec/totemconfig.c, exec/votequorum.c)."""
_LINK_KEYS = re.compile(r"mcastaddr|mcastport|broadcast|ttl|knet_[a-z_]+")
_NODE_KEY = re.compile(r"nodelist\.node\.([0-9]+)\.")

Value = int | str


def expected(text: str) -> dict[str, str]:
    """Key of the map -> value as the file has it, for all that is compared. Raises CorosyncConfError."""
    return {key: value for key, value in _statements(text) if _compared(key)}


def unloaded(text: str, running: Mapping[str, Value]) -> tuple[str, ...]:
    """Keys that a reload would add, change or take away, sorted, MAX_NAMED at most; the heartbeat's are not
    among them. Raises CorosyncConfError."""
    wanted = expected(text)
    differs = {key for key, value in wanted.items() if key not in running or not _same(value, running[key])}
    listed = {match[1] for key in wanted if (match := _NODE_KEY.match(key))}
    for key in set(running) - set(wanted):
        node = _NODE_KEY.match(key)
        made = _MADE.fullmatch(key) and (node is None or node[1] in listed)
        if _compared(key) and not made:
            differs.add(key)
    return tuple(sorted(differs))[:MAX_NAMED]


def _compared(key: str) -> bool:
    return key.startswith(PREFIXES) and key not in OURS and not _NEVER.fullmatch(key)


def _same(written: str, runs: Value) -> bool:
    if isinstance(runs, str):
        return written == runs
    return re.fullmatch(r"[+-]?[0-9]+", written) is not None and int(written) == runs


def _statements(text: str) -> Iterator[tuple[str, str]]:
    """Each key of the map and its value, in the order in which corosync sets them: the last one counts."""
    node = -1
    for path, block in _blocks(text):
        if path == ("nodelist",):
            node = -1
        elif path == ("nodelist", "node"):
            node += 1
        name = ".".join(path)
        values = dict(block)
        if path == ("totem", "interface"):
            link = values.pop("linknumber", "0")
            for key, value in values.items():
                own = key == "bindnetaddr" or _LINK_KEYS.fullmatch(key)
                yield (f"{name}.{_number(link)}.{key}" if own else f"{name}.{key}"), value
        elif path == ("totem", "interface", "member"):
            continue
        elif path == ("logging", "logger_subsys"):
            for key, value in values.items():
                yield f"{name}.{values.get('subsys', '')}.{key}", value
        elif path == ("nodelist", "node"):
            yield from ((f"{name}.{node}.{key}", value) for key, value in block)
        else:
            yield from ((f"{name}.{key}", value) for key, value in block)


def _blocks(text: str) -> list[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Every section in the order in which it opens, with the statements that stand in it itself."""
    opened: list[tuple[tuple[str, ...], list[tuple[str, str]]]] = []
    for path, key, value in corosync_conf.settings(text):
        if not key:
            opened.append((path, []))
        elif path:
            next(block for name, block in reversed(opened) if name == path).append((key, value))
    return opened


def _number(link: str) -> str:
    return str(int(link)) if link.isdecimal() else link
