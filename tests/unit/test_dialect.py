"""The dialogue of an XSCF is data: what the packaged file matches, and how a site corrects it."""

from pathlib import Path

import pytest

from standfast.processors import dialect
from standfast.processors.dialect import DialectError

QUESTION = "PPAR-ID :00\nDomain Name :guest1\nContinue? [y|n] :"


def site(folder: Path, text: str) -> str:
    path = folder / "xscf-dialect.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_packaged_dialect_knows_prompt_question_and_commands() -> None:
    known = dialect.load("/nonexistent")
    assert known.prompt.search("noise\nXSCF> ")
    assert known.prompt.search("XSCF>")
    assert not known.prompt.search("XSCF> showdomainstatus")
    assert known.question.search(QUESTION)
    assert not known.question.search(QUESTION[:-1])
    assert known.command("panic", 1, "guest2") == "reset -p 1 -g guest2 panic"


@pytest.mark.parametrize(
    "text", ["Really do it? [yes|no] :", "Password: ", "Sure (y/n)? ", "Enter a reason?"]
)
def test_a_question_with_other_wording_is_seen_as_one_that_is_not_known(text: str) -> None:
    known = dialect.load("/nonexistent")
    assert known.unknown_question.search(text)
    assert not known.question.search(text)


def test_a_question_names_only_the_domain_and_the_partition_that_it_prints() -> None:
    known = dialect.load("/nonexistent")
    assert known.names(QUESTION, 0, "guest1")
    assert not known.names(QUESTION, 0, "guest11")
    assert not known.names(QUESTION, 0, "guest")
    assert not known.names(QUESTION, 1, "guest1")
    assert known.names(QUESTION.replace(":00", ":10"), 10, "guest1")
    assert not known.names(QUESTION.replace(":00", ":10"), 0, "guest1")
    assert not known.names("reset -p 0 -g guest1 panic\nContinue? [y|n] :", 0, "guest1")


def test_a_site_corrects_single_keys_and_keeps_the_others(tmp_path: Path) -> None:
    text = 'format = 1\nyes = "yes"\n[commands]\nsir = "reset -p {ppar_id} -g {domain} por"\n'
    known = dialect.load(site(tmp_path, text))
    assert known.yes == "yes"
    assert known.command("sir", 0, "d") == "reset -p 0 -g d por"
    assert known.command("panic", 0, "d") == "reset -p 0 -g d panic"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("yes = 'y'\n", "format"),
        ("format = 1\nprompts = 'x'\n", "prompts"),
        ("format = 1\n[commands]\npoweroff = 'x'\n", "commands.poweroff"),
        ("format = 1\nprompt = '('\n", "unterminated|missing"),
        ("format = 1\nyes = ''\n", "yes"),
        ("format = 1\nquestion_names = 'x'\n", "question_names"),
        ("format = 1\ncommands = 'x'\n", "commands"),
        ("format = 1\n[commands]\npanic = 'reset {host}'\n", "host"),
        ("not toml", "xscf-dialect.toml"),
    ],
)
def test_a_slip_in_a_sites_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(DialectError, match=named):
        dialect.load(site(tmp_path, text))
