"""Manual pages and shell completion know what the commands know."""

from __future__ import annotations

import re
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import pytest

from standfast.commands import sdtool, setup_options

ROOT = Path(__file__).parents[2]
COMPLETION = ROOT / "packaging" / "completion" / "standfast.bash"
PAGES = sorted((ROOT / "docs" / "man").glob("*.8"))
PARSERS = {"sdtool": sdtool._parser(), "clsnmpsetup": setup_options.parser()}


def options(parser: ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def complete(*words: str, path: str = "/usr/bin:/bin") -> list[str]:
    """What bash offers for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    given = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}"
    script = f'. "$0"; {given}; _{words[0]}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    argv = ["bash", "-c", script, str(COMPLETION)]
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_manual_page_is_set_without_a_warning(page: Path) -> None:
    argv = ["groff", "-mandoc", "-Tutf8", "-ww", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PARSERS)
def test_a_manual_page_explains_every_option(name: str) -> None:
    text = (ROOT / "docs" / "man" / f"{name}.8").read_text()
    explained = {f"-{option}" for option in re.findall(r"Fl ((?:Fl )?[\w-]+)", text.replace(" | ", " Fl "))}
    explained = {option.replace("-Fl ", "--") for option in explained}
    missing = options(PARSERS[name]) - explained - {"-h", "--help"}
    assert missing == set()


@pytest.mark.parametrize("name", PARSERS)
def test_completion_offers_every_option(name: str) -> None:
    begun: tuple[tuple[str, ...], ...] = ((), ("-a", "node"), ("-d", "node"), ("-l",))
    offered = {word for words in begun for word in complete(name, *words, "")}
    assert options(PARSERS[name]) - offered - {"--help"} == set()


def test_completion_knows_registered_nodes_and_domains(tmp_path: Path) -> None:
    program = tmp_path / "clsnmpsetup"
    program.write_text("#!/bin/sh\necho heading\necho ----\necho xscf cfguest2 1 guest2 a b u ssh\n")
    program.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    assert complete("clsnmpsetup", "-m", "cf", path=path) == ["cfguest2"]
    assert complete("clovmmigrate", "-u", "gu", path=path) == ["guest2"]
    assert complete("clovmmigrate", "-u", "guest2", "--skip") == ["--skip-save"]
    assert complete("clsnmpsetup", "-a", "x", "--connection", "s") == ["ssh"]
