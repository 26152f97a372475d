"""Configurations are composed once; files of a user's own are read each time."""

from pathlib import Path

from p2p_bench.app.compose import compose, composed
from p2p_bench.app.loader import load


def test_what_is_changed_in_a_copy_stays_there() -> None:
    first = load("config", ["seed=3"])
    first.seed = 4
    assert load("config", ["seed=3"]).seed == 3


def test_a_users_own_files_may_change_between_two_calls(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    file = tmp_path / "dataset" / "mine.yaml"
    overrides = (f"hydra.searchpath=[file://{tmp_path}]", "dataset=mine")
    for path in ("a.jsonl", "b.jsonl"):
        file.write_text(f"_target_: p2p_bench.data.JsonlPairs\npath: {path}\nlimit: null\n")
        assert compose(overrides).dataset.path == path
        assert composed(overrides).dataset.path == path
