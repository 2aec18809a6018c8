"""The dialect of an XSCF shell: prompts, the question, and commands, as data a site can correct."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
SITE_FILE = "/etc/standfast/xscf-dialect.toml"
_PACKAGED = Path(__file__).with_name("xscf-dialect.toml")
_COMMANDS = frozenset({"domain_status", "domains", "ppar_status", "panic", "sir", "logout"})
_TEXTS = frozenset({"prompt", "question", "yes", "unknown_question", "no", "newline"})


class DialectError(Exception):
    """A dialect file that cannot be used; the text names file and key."""


@dataclass(frozen=True)
class Dialect:
    """One way an XSCF talks. The expressions are matched at the end of what has arrived."""

    prompt: re.Pattern[str]
    question: re.Pattern[str]
    question_names: tuple[str, ...]
    unknown_question: re.Pattern[str]
    yes: str
    no: str
    newline: str
    commands: Mapping[str, str]

    def command(self, name: str, ppar_id: int, domain: str = "") -> str:
        """The command line for one of our uses of the shell."""
        return self.commands[name].format(ppar_id=ppar_id, domain=domain)

    def names(self, text: str, ppar_id: int, domain: str) -> bool:
        """Whether the text above a question speaks of this very domain."""
        wanted = (
            expression.replace("{ppar_id}", str(ppar_id)).replace("{domain}", re.escape(domain))
            for expression in self.question_names
        )
        return all(re.search(expression, text) for expression in wanted)


def load(site_file: str = SITE_FILE) -> Dialect:
    """The packaged dialect, with the keys of the site's file over it if there is one.

    Raises DialectError for a file that cannot be read, an unknown key, or a bad expression.
    """
    table = _read(_PACKAGED)
    site = Path(site_file)
    if site.exists():
        own = _read(site)
        _check(own, site_file, whole=False)
        commands = {**_commands(table), **_commands(own)}
        table = {**table, **own, "commands": commands}
    return _build(table, site_file)


def _commands(table: Mapping[str, object]) -> dict[str, object]:
    commands = table.get("commands", {})
    return dict(commands) if isinstance(commands, dict) else {}


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DialectError(f"{path}: {error}") from None


def _check(table: Mapping[str, object], file: str, whole: bool) -> None:
    if table.get("format") != FORMAT:
        raise DialectError(f"{file}: format must be {FORMAT}")
    unknown = set(table) - _TEXTS - {"format", "question_names", "commands"}
    commands = table.get("commands", {})
    if not isinstance(commands, dict):
        raise DialectError(f"{file}: commands must be a table")
    unknown |= {f"commands.{name}" for name in set(commands) - _COMMANDS}
    if unknown:
        raise DialectError(f"{file}: unknown key {sorted(unknown)[0]}")
    texts = {**{key: table[key] for key in _TEXTS & set(table)}, **commands}
    for key, value in texts.items():
        if not isinstance(value, str) or not value:
            raise DialectError(f"{file}: {key} must be a text that is not empty")
    names = table.get("question_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DialectError(f"{file}: question_names must be a list of texts")
    missing = (_TEXTS - set(table)) | (_COMMANDS - set(commands))
    if whole and missing:
        raise DialectError(f"{file}: {sorted(missing)[0]} is missing")


def _build(table: dict[str, object], file: str) -> Dialect:
    _check(table, file, whole=True)
    names = table["question_names"]
    assert isinstance(names, list)  # _check has seen it; this is for the type checker
    try:
        expressions = {key: re.compile(str(table[key])) for key in ("prompt", "question", "unknown_question")}
        for name in names:
            re.compile(name.replace("{ppar_id}", "0").replace("{domain}", "d"))
        for command in _commands(table).values():
            str(command).format(ppar_id=0, domain="d")
    except (re.error, KeyError, IndexError, ValueError) as error:
        raise DialectError(f"{file}: {error}") from None
    return Dialect(
        **expressions,
        question_names=tuple(names),
        yes=str(table["yes"]),
        no=str(table["no"]),
        newline=str(table["newline"]),
        commands={name: str(command) for name, command in _commands(table).items()},
    )
