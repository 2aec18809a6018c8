"""The documents say what the code does: codes of messages, rules of the gate, commands, options, links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from standfast.commands import (
    clovmmigrate,
    fence_xscf,
    gate_kill,
    gate_options,
    sdtool,
    setup_options,
    standfastd,
)
from standfast.commands.standfast import SUBCOMMANDS
from standfast.commands.standfast import main as standfast_group
from standfast.config import Config, ControlDomain
from standfast.core.gate import Rule
from standfast.core.record import Record, to_values

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "standfast"
MAN = ROOT / "docs" / "man"
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
MANUAL_PAGES = sorted(MAN.glob("*.[1-8]"))
SYSTEM_PROGRAMS = {
    "apt-get", "chmod", "chronyc", "cibadmin", "corosync-cmapctl", "corosync-cfgtool", "cp", "crm_attribute",
    "crm_mon", "crm_node", "crm_resource", "crm_verify", "date", "git", "install", "journalctl", "ldm", "pip",
    "python3", "sed", "ssh-keyscan", "stonith_admin", "systemctl", "tail",
}  # fmt: skip
"""What a reader has without Standfast."""


# -- codes and rules -----------------------------------------------------------------------------------------

PARTS = (
    "clovmmigrate",
    "standfast window",
    "standfast migrate",
    "clsnmpsetup",
    "standfastd: guests that somebody moves",
)
"""Sections of messages.md whose tables begin with codes."""
_MAKERS = {"Message", "_warn", "_refused"}


def codes_in_source() -> set[str]:
    """First argument of every message made outside the lab, whose emulators have words of their own."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if "lab" in path.relative_to(SOURCE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKERS:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.add(first.value)
    return found


def rows(text: str, after: str) -> set[str]:
    """Words in the first column of the tables of the section with this heading."""
    section = re.split(r"^## ", text, flags=re.M)
    body = next(part for part in section if part.startswith(after))
    return set(re.findall(r"^\| `([^`]+)` \|", body, flags=re.M))


def documented_codes() -> set[str]:
    text = (ROOT / "docs" / "messages.md").read_text()
    return {
        code
        for part in re.split(r"^## ", text, flags=re.M)
        if part.startswith(PARTS)
        for code in re.findall(r"^\| `([^`]+)` \|", part, flags=re.M)
    }


def test_every_message_of_the_source_is_explained() -> None:
    assert codes_in_source() - documented_codes() == set()


def test_no_message_is_explained_that_the_source_does_not_have() -> None:
    assert documented_codes() - codes_in_source() == set()


def test_the_search_for_codes_finds_those_of_every_part() -> None:
    assert {"PROOF", "STALLED", "SHORT_MONITORS", "NOT_ROOT", "setup.secret-unwritable"} <= codes_in_source()


def test_the_gate_s_rules_are_explained() -> None:
    documented = rows((ROOT / "docs" / "messages.md").read_text(), "fence_standfast")
    assert documented == {rule.value for rule in Rule} | {"stale", "error", gate_kill.RULE}


def test_the_design_names_every_rule_of_the_gate_in_its_order() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    table = re.findall(r"^\| \d+ \| `([a-z-]+)` \|", text, flags=re.M)
    assert table == [rule.value for rule in Rule]


def test_the_design_names_every_field_of_the_record() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    table = set(re.findall(r"^\| `standfast-([a-z-]+)` \|", text, flags=re.M))
    assert table == {name.removeprefix("standfast-") for name in to_values(Record.fresh())}


def test_the_runbook_only_names_codes_that_exist() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert set(re.findall(r"\[([A-Z_]{4,})\]", text)) - codes_in_source() == set()


# -- links ---------------------------------------------------------------------------------------------------


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[str]:
    text = prose(path)
    yield from re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    yield from re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_path_of_the_source_that_a_document_names_exists(path: Path) -> None:
    named = set(re.findall(r"`((?:src|tests|docs|packaging)/[\w./-]+)`", path.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()


# -- commands ------------------------------------------------------------------------------------------------


def click_options(command: click.Command) -> set[str]:
    own = {word for parameter in command.params for word in parameter.opts if word.startswith("-")}
    return own | {"-h", "--help"}


def parser_options(parser: ArgumentParser) -> set[str]:
    return {word for action in parser._actions for word in action.option_strings}


def options_of(words: list[str]) -> set[str]:
    """Every option of one of our commands, named as in a document."""
    parsers = {"sdtool": sdtool._parser, "clsnmpsetup": setup_options.parser}
    commands: dict[str, click.Command] = {"clovmmigrate": clovmmigrate.main, "standfastd": standfastd.main}
    if words[0] in parsers:
        return parser_options(parsers[words[0]]())
    if words[0] in commands:
        return click_options(commands[words[0]])
    command: click.Command | None = standfast_group
    for word in words[1:]:
        if isinstance(command, click.Group) and not word.startswith("-"):
            command = command.get_command(click.Context(command), word)
            assert command is not None, f"standfast has no {word}: {' '.join(words)}"
    assert command is not None
    return click_options(command)


def fenced(path: Path) -> Iterator[list[str]]:
    """The commands in the fenced blocks marked as shell, prompts and comments taken off."""
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def ours() -> set[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return set(scripts) - {"fence_xscf"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_has_typed_exists(path: Path) -> None:
    verbs = set(re.findall(r"^ +(?:usage: )?\./run (\w+)|^usage: \./run (\w+)", run_usage(), flags=re.M))
    known = {word for pair in verbs for word in pair if word}
    for words in fenced(path):
        program = Path(words[0]).name
        if words[0] == "./run":
            assert words[1] in known, words
        elif program in ours():
            unknown = {word for word in words[1:] if re.fullmatch(r"--?[A-Za-z][\w-]*", word)}
            assert unknown - options_of([program, *words[1:]]) == set(), words
        else:
            assert program in SYSTEM_PROGRAMS, words


def run_usage() -> str:
    return subprocess.run(
        ["bash", str(ROOT / "run"), "--help"], capture_output=True, text=True, timeout=20, check=True
    ).stdout


def test_the_readme_names_the_two_commands() -> None:
    typed = [" ".join(words) for words in fenced(ROOT / "README.md")]
    assert {"./run demo", "./run test"} <= set(typed)


# -- manual pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", MANUAL_PAGES, ids=lambda page: page.name)
def test_a_manual_page_is_set_without_a_warning(page: Path) -> None:
    argv = ["groff", "-mandoc", "-Tutf8", "-ww", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def explained(page: str) -> set[str]:
    """Options that a page explains at the head of an item."""
    text = (MAN / page).read_text()
    items = " ".join(re.findall(r"^\.It (.*)$", text, flags=re.M))
    return {f"-{word}".replace("-Fl ", "--") for word in re.findall(r"Fl ((?:Fl )?[\w-]+)", items)}


EXPLAINED = {
    "clovmmigrate.8": click_options(clovmmigrate.main) - {"-h"},
    "standfastd.8": click_options(standfastd.main) - {"-h"},
    "fence_xscf.8": {
        word for option in fence_xscf.OPTIONS for word in (f"-{option.short}", f"--{option.name}")
    },
}


@pytest.mark.parametrize("page", EXPLAINED)
def test_a_manual_page_explains_exactly_the_options_of_its_command(page: str) -> None:
    assert explained(page) == EXPLAINED[page]


def test_the_gate_s_manual_page_explains_its_parameters_and_actions() -> None:
    text = (MAN / "fence_standfast.8").read_text()
    parameters = set(re.findall(r'<parameter name="([a-z]+)"', gate_options.METADATA))
    items = set(re.findall(r"^\.It Cm ([a-z-]+)", text, flags=re.M))
    assert items == parameters | set(gate_options.ACTIONS)


def test_the_manual_page_of_the_program_standfast_has_every_subcommand() -> None:
    text = (MAN / "standfast.1").read_text()
    assert set(re.findall(r"^\.It Cm (\w+)", text, flags=re.M)) >= set(SUBCOMMANDS)


def test_the_manual_page_of_the_configuration_has_every_field() -> None:
    text = (MAN / "clovmmigrate.conf.5").read_text()
    fields = set(re.findall(r"^\.It Li (\w+)", text, flags=re.M))
    assert fields == (set(Config.model_fields) | set(ControlDomain.model_fields)) - {"control_domain"}
