"""A path starts where the command was started; `~` is the home folder."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from p2p_bench.app.paths import folder_fault, place_paths, placed
from tests.app.command import PAIRS, tiny_overrides, write_pairs
from tests.app.test_run import rows_of
from tests.models.tiny import tiny_checkpoint


def relative(command, *overrides: str) -> list[str]:
    """Settings of a run all of whose paths are relative."""
    data = command.folder / "data"
    data.mkdir()
    Image.fromarray((np.indices((16, 16, 3)).sum(0) * 5).astype(np.uint8)).save(data / "real.png")
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(command.folder / "mask.png")
    (command.folder / "model").symlink_to(tiny_checkpoint().path)
    write_pairs(data / "pairs.jsonl", [{**PAIRS[0], "image": "real.png"}, PAIRS[2]])
    return [
        *(text for text in tiny_overrides(Path("data/pairs.jsonl")) if not text.startswith("model.path")),
        "model.path=model", "dataset.root=data", "controller=local_blend", "controller.mask=mask.png",
        "run.cache=kept", "logger=none", "run.images=0", "run.dir=out", *overrides,
    ]  # fmt: skip


@pytest.mark.parametrize("launcher", ["", "shared", "shared_basic", "basic"])
def test_paths_start_where_the_command_was_started(command, launcher):
    sweep = ["-m", "seed=0,1", f"hydra/launcher={launcher}"] if launcher else []
    outcome = command(*relative(command, "hydra.job.chdir=true"), *sweep)
    assert outcome.code == 0, outcome.err
    assert "cannot share" not in outcome.err
    jobs = [command.folder / "out" / number for number in "01"] if launcher else [command.folder / "out"]
    for job in jobs:
        assert len(rows_of(job)) == 2
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert config["started"]["cwd"] == str(command.folder)
        assert config["dataset"]["path"] == "data/pairs.jsonl"  # as typed: a moved project keeps its runs
    assert list((command.folder / "kept").glob("*.entry"))


def test_the_home_folder(command, monkeypatch):
    home = command.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    write_pairs(home / "pairs.jsonl")
    outcome = command.bench("dataset.path=~/pairs.jsonl", "run.dir=~/out", "run.cache=~/kept", "logger=none")
    assert outcome.code == 0, outcome.err
    assert (home / "out" / "results.parquet").is_file()
    assert not (command.folder / "~").exists()


TEXTS = st.text(st.sampled_from("ab/.~ é$,={"), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(name=TEXTS)
def test_what_exists_is_found_from_any_folder_and_a_name_stays_a_name(tmp_path_factory, name):
    start = tmp_path_factory.mktemp("start")
    there = placed(name, start)
    if Path(there).is_absolute():
        return
    assert there == name
    (start / name).parent.mkdir(parents=True, exist_ok=True)
    (start / name).touch()
    assert Path(placed(name, start)).samefile(start / name)


def test_paths_inside_components_are_found_by_their_annotation(tmp_path):
    (tmp_path / "mask.png").touch()
    (tmp_path / "auto").touch()
    node = OmegaConf.create(
        {
            "_target_": "p2p_bench.controllers.LocalBlend",
            "mask": "mask.png",
            "inner": {"_target_": "p2p_bench.controllers.ByEdit", "cross": "auto"},
        }
    )
    place_paths(node, tmp_path)
    assert node.mask == str(tmp_path / "mask.png")
    assert node.inner.cross == "auto"


IMPOSSIBLE = {
    "a file in the way": "pairs.jsonl/out",
    "a file": "pairs.jsonl",
    "a name too long": "x" * 300,
    "a path too long": "/".join(["x" * 200] * 30),
    "a NUL": "a\0b",
}


@pytest.mark.parametrize("folder", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("key", ["run.dir", "run.cache"])
def test_folders_that_cannot_be_made_are_refused_before_anything_runs(command, folder, key):
    outcome = command.bench(f"{key}={folder}")
    assert outcome.code == 2, outcome.err
    assert key in outcome.err
    assert outcome.err.count("error:") == 1
    assert "unexpected" not in outcome.err
    assert "loading" not in outcome.err


def test_a_folder_that_the_system_does_not_make_is_refused(command):
    outcome = command.bench("run.dir=/proc/out")
    assert outcome.code == 2, outcome.err
    assert "choose another with run.dir=DIR" in outcome.err


def test_a_folder_fault_makes_nothing(tmp_path):
    assert folder_fault(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []
