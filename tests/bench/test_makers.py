"""Rows that others made than those who go on: seen, said, and told apart in the summary."""

import copy
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from p2p_bench.bench import makers as module
from p2p_bench.bench import open_run
from p2p_bench.bench.makers import maker_of, makers
from tests.app.command import PAIRS, Command
from tests.app.test_run import rows_of
from tests.models.border import task
from tests.models.tiny import tiny_checkpoint

SETTINGS = ("metrics=pixel", "logger=none", "run.images=0", "run.batch_size=1", "run.dir=out")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


@pytest.fixture
def half(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A run that lacks its last pair, and an update of a library since."""
    assert command.bench(*SETTINGS).code == 0
    max((command.folder / "out" / "rows").iterdir()).unlink()
    versions = module.package_versions()
    monkeypatch.setattr(module, "package_versions", lambda: {**versions, "torch": "9.9"})
    return command


def summary(command: Command) -> dict:
    return json.loads((command.folder / "out" / "summary.json").read_text())


def test_a_run_that_goes_on_after_an_update_says_so(half: Command) -> None:
    assert "made_by" not in summary(half)
    out = half.folder / "out"
    (before,) = makers(out)
    outcome = half.bench(*SETTINGS)
    assert outcome.code == 0, outcome.err
    assert f"were made with torch {before['torch']}, now 9.9, which the summary says" in outcome.err
    assert summary(half)["made_by"] == {"0": before, "1": {**before, "torch": "9.9"}}
    assert "Rows made by" in (out / "report.html").read_text()
    parts = len(list((out / "rows").iterdir()))
    assert half.bench(*SETTINGS).code == 0  # there is nothing left to make, and it is said again
    assert (len(makers(out)), len(list((out / "rows").iterdir()))) == (2, parts)
    assert "made_by" in summary(half)


def test_force_makes_all_anew(half: Command) -> None:
    outcome = half.bench(*SETTINGS, "run.resume=force")
    assert outcome.code == 0, outcome.err
    out = half.folder / "out"
    assert [one["torch"] for one in makers(out)] == ["9.9"]
    assert "made_by" not in summary(half)
    assert len(list((out / "rows").iterdir())) == 3
    assert (out / "replaced" / "1" / "made_by.json").is_file()
    assert half.bench(*SETTINGS, "run.resume=force").code == 0
    assert not (out / "replaced" / "2").exists()


def test_who_made_older_rows_is_not_known(half: Command) -> None:
    (half.folder / "out" / "made_by.json").unlink()
    assert "were made with other code" in half.bench(*SETTINGS).err
    assert [one["code"] == "not known" for one in makers(half.folder / "out")] == [True, False]


def test_columns_that_mean_something_else_are_not_mixed(
    half: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = open_run._own_columns

    def raised(metrics):
        return tuple(replace(column, version=column.version + 1) for column in real(metrics))

    monkeypatch.setattr(open_run, "_own_columns", raised)
    outcome = half.bench(*SETTINGS)
    assert outcome.code == 2
    assert "holds rows of a run with other settings" in outcome.err
    assert rows_of(half.folder / "out")


def test_the_code_of_a_component_of_ones_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task("metrics=pixel")
    before = maker_of(one)
    assert maker_of(task("metrics=none")) == before
    file = tmp_path / "mine.py"
    file.write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    own = copy.copy(one)
    object.__setattr__(own, "metrics", {"mine": mine.Mine()})
    first = maker_of(own)
    file.write_text("class Mine:\n    another = True\n")
    assert len({before["code"], first["code"], maker_of(own)["code"]}) == 3


def test_rows_of_another_spacing_are_not_gone_on_with(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file and no setting says one, it was "leading" for every sampler before."""
    folder = shutil.copytree(tiny_checkpoint().path, tmp_path / "unsaid")
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({key: one for key, one in config.items() if key != "timestep_spacing"}))
    typed = (*SETTINGS[:-1], f"model.path={folder}", "sampler=euler")
    others = ("sampler=ddim", "sampler.spacing=leading")
    with monkeypatch.context() as earlier:
        earlier.setattr(open_run, "_moved_spacing", lambda task, spec: None)
        assert command.bench(*typed, "run.dir=out").code == 0
        for place, other in enumerate(others):
            assert command.bench(*typed, other, f"run.dir=out-{place}", pairs=PAIRS[:1]).code == 0
    outcome = command.bench(*typed, "run.dir=out")
    assert outcome.code == 2
    assert "the timesteps of its sampler" in outcome.err
    for place, other in enumerate(others):
        assert command.bench(*typed, other, f"run.dir=out-{place}", pairs=PAIRS[:1]).code == 0
