"""Files, links and folders put on a node so that exactly these can be taken away again.

All is checked before anything is changed; what is there and not ours is never written over. What was made is
kept in one manifest (path and hash), written before the first change: an interrupted run is known too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARK = "made by standfast install"
"""Stands in every wrapper: by this a file of ours is known even where the manifest is lost."""


class InstallError(Exception):
    """Nothing was changed; the text says what is in the way and what to do."""


@dataclass(frozen=True)
class Item:
    """One thing to be there: a file with `content`, a link to `link`, or a folder (neither)."""

    path: str
    content: bytes | None = None
    link: str | None = None
    mode: int = 0o755

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.content is None and self.link is None

    @property
    def digest(self) -> str:
        """What the manifest knows it by."""
        if self.link is not None:
            return "link:" + self.link
        return "folder" if self.content is None else _hash(self.content)


@dataclass
class Tree:
    """The things of one manifest below `root`. `ours`: knows a file of ours without the manifest."""

    root: Path
    manifest: str
    ours: Callable[[Path], bool] = lambda path: False
    made: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the manifest. Raises InstallError if it is damaged."""
        path = self._at(self.manifest)
        try:
            found = json.loads(path.read_text("utf-8"))
            self.made = {str(name): str(digest) for name, digest in found.items()}
        except FileNotFoundError:
            self.made = {}
        except (OSError, ValueError, AttributeError) as error:
            raise InstallError(f"{path} cannot be read ({error}); nothing was changed") from None

    def put(self, items: Sequence[Item]) -> list[str]:
        """Make everything as wanted; what was changed, for people. Raises InstallError before any change."""
        blocked = [str(self._at(item.path)) for item in items if self._foreign(item)]
        if blocked:
            raise InstallError(
                f"{', '.join(blocked)}: there already, and not made by Standfast; nothing was changed. "
                "Move it away, then try again"
            )
        changed = [item for item in items if not self._is_there(item)]
        wanted = {**self.made, **self._new_folders(changed)}
        # A thing that was there before us, as we want it, is not ours to take away.
        wanted |= {item.path: item.digest for item in items if self._becomes_ours(item)}
        if wanted != self.made:
            self.made = wanted
            self._save()
        for item in changed:
            self._make(item)
        return [item.path for item in changed]

    def take_away(self) -> tuple[list[str], list[str]]:
        """Remove what was made and is still as made: removed, and left (changed since, or not empty)."""
        removed, left = [], []
        things = [name for name in sorted(self.made, reverse=True) if self._lexists(name)]
        for name in things:
            path = self._at(name)
            if self.made[name] == "folder":
                continue
            if self._digest(path) == self.made[name] or self._known(path):
                path.unlink()
                removed.append(name)
            else:
                left.append(name)
        # The manifest may be all that keeps its folder: it goes before the folders do.
        _target(self._at(self.manifest)).unlink(missing_ok=True)
        for name in (name for name in things if self.made[name] == "folder"):
            try:
                self._at(name).rmdir()
                removed.append(name)
            except OSError:
                left.append(name)
        return removed, left

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _lexists(self, name: str) -> bool:
        return os.path.lexists(self._at(name))

    def _becomes_ours(self, item: Item) -> bool:
        if item.is_folder:
            return not self._lexists(item.path)
        path = self._at(item.path)
        return not self._is_there(item) or self._known(path)

    def _is_there(self, item: Item) -> bool:
        path = self._at(item.path)
        if item.is_folder:
            return path.is_dir() and path.stat().st_mode & 0o777 == item.mode
        if item.link is None and (path.is_symlink() or not path.is_file()):
            return False
        if item.content is not None and path.stat().st_mode & 0o777 != item.mode:
            return False
        return self._digest(path) == item.digest

    def _foreign(self, item: Item) -> bool:
        path = self._at(item.path)
        if not self._lexists(item.path) or self._is_there(item):
            return False
        if item.is_folder:
            return not path.is_dir()
        known = self.made.get(item.path)
        return not (known == self._digest(path) or self._known(path))

    def _known(self, path: Path) -> bool:
        """Whether this is a file of ours by its content. A link is somebody's choice."""
        return not path.is_symlink() and path.is_file() and self.ours(path)

    def _digest(self, path: Path) -> str:
        if path.is_symlink():
            return f"link:{path.readlink()}"
        return _hash(path.read_bytes()) if path.is_file() else "folder"

    def _new_folders(self, items: Sequence[Item]) -> dict[str, str]:
        """Folders above `items` that are not there yet."""
        found = {}
        for item in (*items, Item(self.manifest, b"")):
            for parent in Path(item.path).parents:
                if str(parent) != "/" and not self._at(str(parent)).exists():
                    found[str(parent)] = "folder"
        return found

    def _make(self, item: Item) -> None:
        path = self._at(item.path)
        if item.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(item.mode)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if item.link is not None:
                new.symlink_to(item.link)
            else:
                new.write_bytes(item.content or b"")
                new.chmod(item.mode)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    def _save(self) -> None:
        path = _target(self._at(self.manifest))
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(json.dumps(self.made, indent=1, sort_keys=True) + "\n", "utf-8")
        new.replace(path)


def _target(path: Path) -> Path:
    """Where a link leads: a file that somebody keeps elsewhere is replaced there, and the link stays."""
    return Path(os.path.realpath(path))


def _hash(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
