"""Every text that an emulated session prints, read from TOML: a site corrects the file, not the code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path


class Dialect:
    """Texts by dotted name, such as `reset.question`."""

    def __init__(self, texts: Mapping[str, object], name: str) -> None:
        self._texts = texts
        self.name = name

    def find(self, key: str, **fields: object) -> str | None:
        """The text of a name with its fields filled in; None where the file has no such text."""
        here: object = self._texts
        for part in key.split("."):
            if not isinstance(here, Mapping) or part not in here:
                return None
            here = here[part]
        return str(here).format(**fields) if fields else str(here)

    def text(self, key: str, **fields: object) -> str:
        """As `find`, but raises KeyError for a text that the file lacks."""
        found = self.find(key, **fields)
        if found is None:
            raise KeyError(f"dialect {self.name} has no text {key}")
        return found


def load(name: str, path: Path | None = None) -> Dialect:
    """The packaged dialect `name`, or the one in a file of the site."""
    if path is not None:
        return Dialect(tomllib.loads(path.read_text("utf-8")), str(path))
    packaged = resources.files("standfast.lab.emulators") / "dialects" / f"{name}.toml"
    return Dialect(tomllib.loads(packaged.read_text("utf-8")), name)
