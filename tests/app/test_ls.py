"""`p2p-bench ls` lists every option, each with a line of its own."""

import pytest

from p2p_bench.app.compose import config_dir, group_options
from p2p_bench.app.verbs.ls import GROUPS, first_line
from tests.app.command import Command


def test_every_group_of_options_is_listed() -> None:
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()} - {"world", "hydra"}
    assert folders == set(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_says_what_it_is_for(group: str) -> None:
    said = {option: first_line(group, option) for option in group_options(group)}
    assert all(len(line) > 10 for line in said.values()), said
    assert len(set(said.values())) == len(said)


def test_one_group_or_all(command: Command) -> None:
    models = command("ls", "models")
    assert models.code == 0
    for option in group_options("model"):
        assert f" {option} " in models.out
    assert "null_text" not in models.out
    everything = command("ls").out
    assert "null_text" in everything
    assert "metrics=[default,clip_openai]" in everything
    wrong = command("ls", "modles")
    assert wrong.code == 2
    assert "Did you mean 'model'" in wrong.err
