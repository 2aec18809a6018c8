"""``clovmmigrate -u ... --saved HOST``: whose word it is, and for which hosts it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_cluster import CLOSE, HOSTS, FakeCluster

from standfast import config
from standfast.commands import clovmmigrate, migration_plan, window_run
from standfast.core.messages import Refused

SAMPLE = Path(__file__).parents[2] / "packaging" / "clovmmigrate.conf.sample"


def test_a_host_with_a_login_is_saved_by_standfast_and_by_no_word(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        window_run._without_login(config.load(str(SAMPLE)).config, "ctrl2")
    assert [message.code for message in caught.value.messages] == ["HAS_LOGIN"]
    bare = tmp_path / "clovmmigrate.conf"
    bare.write_text(SAMPLE.read_text().replace('\nlogin = "standfast"', ""))
    assert window_run._without_login(config.load(str(bare)).config, "ctrl2") == "ctrl2"


@pytest.mark.parametrize("words", [["--saved", "ctrl2"], ["--skip-save", "ctrl2", "--reason", "dead"]])
def test_before_a_migration_there_is_nothing_to_have_saved(words: list[str]) -> None:
    done = CliRunner().invoke(clovmmigrate.main, ["-p", "guest2", *words])
    assert done.exit_code == 2
    assert "belong to -u" in done.output


def test_the_plan_says_what_is_saved_what_is_verified_and_what_is_believed() -> None:
    hosts = {name: replace(entry, login=name == "ctrl1") for name, entry in HOSTS.items()}
    goal = replace(CLOSE, saved_by_hand=frozenset({"ctrl2"}))
    lines = list(migration_plan.lines(goal, FakeCluster(2, hosts=hosts).snapshot("n1")))
    assert "ctrl2: domain configuration saved by hand" in lines
    assert "ctrl3: no login; see by its XSCF whether the domain configuration is saved" in lines
