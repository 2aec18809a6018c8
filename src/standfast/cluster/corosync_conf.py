"""corosync.conf: our keys in and out, every other byte kept.

The grammar is that of parse_section() in exec/coroparse.c of corosync 3.1.7: one statement a line; a line
with `{` opens a section, else a line with `:` is a key and its value, else a line with `}` closes. `#`
starts a comment only as the first character. Later keys override earlier ones, sections may repeat.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from standfast.core.heartbeat import KEYS, RETRANSMITS_BEFORE_LOSS

PATH = Path("/etc/corosync/corosync.conf")
MAX_LINE_BYTES = 510
MAX_FILE_BYTES = 1024 * 1024
_MARK = "# made by standfast, goes away with its values"
_INTERFACE = "interface.0."
_BLANK = " \t"
_Said = tuple[tuple[str, ...], str, str]
REST_DIGITS = 16
"""Enough to tell an edit, and short: a value of the record has a limit, and a place for every node."""


class CorosyncConfError(Exception):
    """The file is not a corosync.conf, or cannot take our keys. The text names the line."""


@dataclass(frozen=True)
class _Section:
    """`first` and `last` are the indexes of its opening and closing line; `last` of the file is its end."""

    path: tuple[str, ...]
    first: int
    last: int
    keys: tuple[tuple[str, str, int], ...]
    children: tuple[_Section, ...]

    def walk(self) -> Iterator[_Section]:
        yield self
        for child in self.children:
            yield from child.walk()

    def value(self, name: str) -> str | None:
        """The effective value of a key of this section (the last one counts)."""
        return next((value for key, value, _ in reversed(self.keys) if key == name), None)


def read_file(path: Path = PATH) -> str:
    """The text of the file; bytes that are not UTF-8 survive `install`. Raises OSError, CorosyncConfError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise CorosyncConfError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")


def read_keys(text: str) -> dict[str, str]:
    """Those of KEYS that the file sets, as written there. Raises CorosyncConfError."""
    found = _occurrences(_parse(_lines(text)))
    return {key: found[key][-1][0] for key in KEYS if key in found}


def write_keys(text: str, wanted: Mapping[str, str | None]) -> str:
    """The text with our keys as wanted (None = absent; a key that is not named stays as it is).

    Everything else keeps every byte. Writing other values and then the old ones (None where a key was
    absent) gives the old text again. Raises CorosyncConfError for a malformed file, ValueError for a key
    that is not ours or a value that is not a number.
    """
    for key, value in wanted.items():
        if key not in KEYS:
            raise ValueError(f"not a heartbeat key: {key}")
        if value is not None and not re.fullmatch(r"[0-9]+", value):
            raise ValueError(f"{key}: not a number of milliseconds: {value!r}")
    lines = _lines(text)
    for key in KEYS:
        if key in wanted:
            lines = _set(lines, key, wanted[key])
    return "".join(_without_empty_block(lines))


def structure(text: str) -> str:
    """Fingerprint of all that the file says except our keys; comments and blanks do not count."""
    return _fingerprint(_not_ours(text))


def rest(text: str) -> str:
    """The same without the node list, shorter: it is kept in the record once for each node."""
    return _fingerprint(said for said in _not_ours(text) if said[0][:1] != ("nodelist",))[:REST_DIGITS]


def nodes(text: str) -> tuple[str, ...]:
    """The node list, a text for each node: its name (or first address), then all its statements, sorted."""
    found = []
    for section in _parse(_lines(text)).walk():
        if section.path == ("nodelist", "node"):
            values = {key: value for key, value, _ in section.keys}
            name = values.get("name") or values.get("ring0_addr", "?")
            found.append(" ".join((name, *(f"{key}={value}" for key, value in sorted(values.items())))))
    return tuple(found)


def _not_ours(text: str) -> tuple[_Said, ...]:
    return settings(write_keys(text, dict.fromkeys(KEYS)))


def _fingerprint(said: Iterable[_Said]) -> str:
    lines = [" ".join(("/".join(path), key, value)) for path, key, value in said]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def settings(text: str) -> tuple[_Said, ...]:
    """All that the file says, in its order: (section path, key, value); a section opens as (path, "", "")."""
    said: list[tuple[int, tuple[tuple[str, ...], str, str]]] = []
    for section in _parse(_lines(text)).walk():
        if section.path:
            said.append((section.first, (section.path, "", "")))
        said.extend((index, (section.path, key, value)) for key, value, index in section.keys)
    return tuple(entry for _, entry in sorted(said))


def links(text: str) -> tuple[int, ...]:
    """The link numbers in use: ringN_addr of the nodelist and interface blocks of their own."""
    root = _parse(_lines(text))
    used: set[int] = set()
    for section in root.walk():
        if section.path == ("nodelist", "node"):
            names = [re.fullmatch(r"ring([0-9]+)_addr", key) for key, _, _ in section.keys]
            used.update(int(match[1]) for match in names if match)
        elif section.path == ("totem", "interface"):
            used.add(_link_number(section))
    return tuple(sorted(used))


def retransmits_before_loss(text: str) -> int:
    """token_retransmits_before_loss_const of the totem section (4 where absent), which token_retransmit and
    hold are derived from. Raises CorosyncConfError."""
    name = "token_retransmits_before_loss_const"
    values = [section.value(name) for section in _homes(_parse(_lines(text)), "token")]
    value = next((value for value in reversed(values) if value is not None), str(RETRANSMITS_BEFORE_LOSS))
    if not re.fullmatch(r"[0-9]+", value):
        raise CorosyncConfError(f"corosync.conf: {name}: {value!r} is not a number")
    # A zero counts as absent.
    return int(value) or RETRANSMITS_BEFORE_LOSS


def node_count(text: str) -> int:
    """The number of nodes in the nodelist (the token grows with it unless token_coefficient is 0)."""
    return sum(section.path == ("nodelist", "node") for section in _parse(_lines(text)).walk())


def install(path: Path, text: str) -> None:
    """Put the text in place at once or not at all: write, fsync, rename, fsync the folder.

    Mode and owner stay those of the file that was there. Raises OSError; the old file is then unchanged.
    """
    old = path.stat()
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            file.flush()
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), old.st_mode & 0o7777)
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lines(text: str) -> list[str]:
    # Not splitlines(): corosync ends a line at \n only.
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _parse(lines: list[str]) -> _Section:
    open_sections: list[tuple[tuple[str, ...], int, list[tuple[str, str, int]], list[_Section]]] = [
        ((), -1, [], [])
    ]

    def fail(index: int, what: str) -> CorosyncConfError:
        return CorosyncConfError(f"corosync.conf line {index + 1}: {what}")

    for index, raw in enumerate(lines):
        if len(raw.encode("utf-8", "surrogateescape")) > MAX_LINE_BYTES:
            raise fail(index, "line too long")
        line = raw.removesuffix("\n").removesuffix("\r").strip(_BLANK)
        if not line or line.startswith("#"):
            continue
        path, _, keys, _ = open_sections[-1]
        if "{" in line:
            name, after = line.split("{", 1)
            if not name.strip(_BLANK) or after.strip(_BLANK):
                raise fail(index, "a section opens with NAME { and nothing else on the line")
            open_sections.append(((*path, name.strip(_BLANK)), index, [], []))
        elif ":" in line:
            key, value = line.split(":", 1)
            keys.append((key.strip(_BLANK), value.strip(_BLANK), index))
        elif line == "}":
            if len(open_sections) == 1:
                raise fail(index, "closing brace without a section")
            closed = _close(open_sections.pop(), index)
            open_sections[-1][3].append(closed)
        else:
            raise fail(index, "neither a section, nor its end, nor key: value")
    if len(open_sections) > 1:
        path, first, _, _ = open_sections[-1]
        raise fail(first, f"section {'.'.join(path)} is never closed")
    return _close(open_sections[0], len(lines))


def _close(
    section: tuple[tuple[str, ...], int, list[tuple[str, str, int]], list[_Section]], last: int
) -> _Section:
    path, first, keys, children = section
    return _Section(path, first, last, tuple(keys), tuple(children))


def _link_number(interface: _Section) -> int:
    number = interface.value("linknumber") or "0"
    if not number.isdecimal():
        raise CorosyncConfError(
            f"corosync.conf line {interface.first + 1}: linknumber {number!r} is no number"
        )
    return int(number)


def _homes(root: _Section, key: str) -> list[_Section]:
    """The sections that can hold this key, in the order of the file."""
    if not key.startswith(_INTERFACE):
        return [section for section in root.walk() if section.path == ("totem",)]
    return [
        section
        for section in root.walk()
        if section.path == ("totem", "interface") and _link_number(section) == 0
    ]


def _occurrences(root: _Section) -> dict[str, list[tuple[str, int]]]:
    """Our keys -> every (value, line index) in the order of the file."""
    found: dict[str, list[tuple[str, int]]] = {}
    for key in KEYS:
        name = key.removeprefix(_INTERFACE)
        for home in _homes(root, key):
            found.setdefault(key, []).extend((value, index) for k, value, index in home.keys if k == name)
        for value, index in found.get(key, []):
            if not re.fullmatch(r"[0-9]+", value):
                raise CorosyncConfError(f"corosync.conf line {index + 1}: {name}: {value!r} is not a number")
    return {key: places for key, places in found.items() if places}


def _set(lines: list[str], key: str, value: str | None) -> list[str]:
    root = _parse(lines)
    places = _occurrences(root).get(key, [])
    if value is None:
        gone = {index for _, index in places}
        return [line for index, line in enumerate(lines) if index not in gone]
    if places:
        # Only the last one counts for corosync, so only the last one changes.
        old, index = places[-1]
        return [*lines[:index], _with_value(lines[index], old, value), *lines[index + 1 :]]
    homes = _homes(root, key)
    if not homes and key.startswith(_INTERFACE):
        lines = _insert_block(lines, root)
        homes = _homes(_parse(lines), key)
    if not homes:
        raise CorosyncConfError("corosync.conf has no totem section")
    return _insert(lines, homes[-1], f"{key.removeprefix(_INTERFACE)}: {value}")


def _with_value(line: str, old: str, new: str) -> str:
    start = line.index(old, line.index(":"))
    return line[:start] + new + line[start + len(old) :]


def _indent(lines: list[str], section: _Section) -> str:
    """How deep the section's own statements stand."""
    inner = [index for _, _, index in section.keys] + [child.first for child in section.children]
    sample = lines[max(inner)] if inner else ""
    if sample:
        return sample[: len(sample) - len(sample.lstrip(_BLANK))]
    opening = lines[section.first]
    outer = opening[: len(opening) - len(opening.lstrip(_BLANK))]
    return outer + ("\t" if "\t" in outer or not outer else "  ")


def _insert(lines: list[str], section: _Section, *statements: str) -> list[str]:
    end = "\r\n" if lines[section.first].endswith("\r\n") else "\n"
    indent = _indent(lines, section)
    new = [f"{indent}{statement}{end}" for statement in statements]
    return [*lines[: section.last], *new, *lines[section.last :]]


def _insert_block(lines: list[str], root: _Section) -> list[str]:
    """Make the interface block of link 0, marked so that it can be taken away again."""
    totem = _homes(root, "token")
    if not totem:
        raise CorosyncConfError("corosync.conf has no totem section")
    step = "\t" if "\t" in _indent(lines, totem[-1]) else "  "
    return _insert(lines, totem[-1], "interface {", f"{step}{_MARK}", f"{step}linknumber: 0", "}")


def _without_empty_block(lines: list[str]) -> list[str]:
    """Take away blocks that we made once they hold nothing but their link number."""
    for section in _parse(lines).walk():
        if section.path != ("totem", "interface") or section.children:
            continue
        inner = lines[section.first + 1 : section.last]
        if len(inner) == 2 and inner[0].strip() == _MARK and inner[1].split() == ["linknumber:", "0"]:
            return _without_empty_block([*lines[: section.first], *lines[section.last + 1 :]])
    return lines
