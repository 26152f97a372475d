"""Tables, TensorBoard and W&B runs as functions of a finished run."""

import csv
import json
import os
import re
import socket
import weakref
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import pytest
import wandb
from PIL import Image

from p2p_bench.bench import loggers, wandb_logger
from p2p_bench.bench.finished import FinishedRun, figures_of
from p2p_bench.bench.loggers import CSVLogger, TensorBoardLogger, hyperparameters
from p2p_bench.bench.wandb_logger import WandbLogger, wandb_key_present
from p2p_bench.errors import ConfigError
from tests.bench.test_rows import make_row
from tests.bench.test_summary import NAN, ROWS, make_summary
from tests.bench.wandb_records import offline_runs

KEY = "x" * 40
ELSEWHERE = ("NETRC", "HTTPS_PROXY", "https_proxy")
"""What decides, besides wandb's own variables, whether a server is asked."""


NO_FIGURES = ("variant", "edits", "_wandb", "_step", "_runtime", "_timestamp")
"""What a summary holds besides figures."""


@pytest.fixture
def finished(tmp_path):
    """A finished run of two variants without pictures."""
    return FinishedRun(tmp_path, "id", "demo", "sweep", "seed=3", {"seed": 3}, make_summary(), ROWS)


@pytest.fixture
def single(finished):
    """The same run with its first variant alone, a picture and a report."""
    Image.new("RGB", (4, 4), "red").save(finished.dir / "target.png")
    (finished.dir / "report.html").write_text("<p>report</p>")
    summary = {**finished.summary, "variants": {"none": finished.summary["variants"]["none"]}}
    first = make_row("a", "none", psnr=10.0, category="colour", image_target="target.png")
    return FinishedRun(finished.dir, "id", "demo", "", "", {"seed": 3}, summary, [first, *ROWS[1:3]])


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    """A machine without a key or a proxy."""
    for name in (*filter(re.compile("WANDB_[^_]").match, os.environ), *ELSEWHERE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class Passing(Sequence):
    """Rows that are made when they are looked at, and how many of them were there at once."""

    class Row(dict):
        """One that can be watched."""

        __hash__ = object.__hash__

    def __init__(self, number: int) -> None:
        self.number, self.most, self.there = number, 0, weakref.WeakSet()

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index):
        row = self.Row(make_row(f"s{index}", "none", psnr=float(index), category=("a", "b")[index % 2]))
        self.there.add(row)
        self.most = max(self.most, len(self.there))
        return row

    def __iter__(self):
        return map(self.__getitem__, range(self.number))


def test_figures_and_tables_need_few_rows_at_once(finished):
    rows = Passing(50)
    run = replace(finished, rows=rows)
    figures = figures_of(run, "none")
    assert (figures["category/a/psnr"], figures["category/b/psnr/count"]) == (24.0, 25)
    assert figures["totals/edits"] == 50
    WandbLogger().write(run)
    assert rows.most <= 3


def test_the_csv_table(finished):
    assert str(finished.dir / "metrics.csv") in CSVLogger().write(finished)
    table = list(csv.DictReader((finished.dir / "metrics.csv").read_text().splitlines()))
    assert [row["variant"] for row in table] == ["none", "r"]
    assert table[0]["psnr"] == "15.0"
    assert table[0]["psnr_count"] == "2"
    assert table[1]["psnr"] == ""


def test_an_offline_run_per_variant(finished):
    where = WandbLogger(project="mine").write(finished)
    assert "offline-run-" in where
    assert where.endswith(" and 1 more")
    assert wandb.run is None
    none, edited = sorted(offline_runs(finished.dir), key=lambda run: run.name)
    assert (none.project, none.group, none.name, none.exit_code) == ("mine", "sweep", "demo seed=3 none", 0)
    assert (edited.group, edited.name) == ("sweep", "demo seed=3 r")
    assert edited.config["seed"] == 3
    assert edited.config["variant"] == {
        "name": "r", "controller": "replace", "tau_cross": 0.8, "tau_self": 0.4,
    }  # fmt: skip
    (step,) = (item for item in edited.history if "variant" in item)
    assert (step["variant"], step["tau_cross"], step["unet_rows"]) == ("r", 0.8, 8.0)
    assert "psnr" not in step, "undefined"
    assert none.summary["psnr"] == 15.0
    assert none.summary["psnr/count"] == 2
    assert (none.summary["psnr/missing"], none.summary["lpips/missing"]) == (0, 1)
    assert (edited.summary["psnr/count"], edited.summary["psnr/missing"]) == (0, 1)
    assert (none.summary["totals/edits"], none.summary["totals/failed"]) == (3, 1)
    assert (edited.summary["totals/edits"], edited.summary["totals/unet_rows"]) == (1, 8.0)
    assert edited.summary["run_totals/edits"] == none.summary["run_totals/edits"] == 4
    assert none.config["variant"]["tau_cross"] is None


def test_a_run_written_again_replaces_what_was_not_synced(finished):
    for _ in range(2):
        WandbLogger(project="mine").write(finished)
        assert len(offline_runs(finished.dir)) == 2
    folder = next((finished.dir / "wandb").glob("offline-run-*"))
    record = next(folder.glob("*.wandb"))
    record.with_name(record.name + ".synced").touch()
    WandbLogger(project="mine").write(finished)
    assert len(offline_runs(finished.dir)) == 3
    assert folder.is_dir()


def test_directions_are_told_by_what_the_summary_keeps(finished):
    WandbLogger().write(finished)
    for run in offline_runs(finished.dir):
        assert run.metrics["psnr"] == {"max"}
        assert run.metrics["lpips"] == {"min"}
        assert run.metrics["seconds"] == {"last"}


def test_a_run_of_one_variant_has_its_config_table_categories_and_report(single):
    where = WandbLogger().write(single)
    assert "more" not in where
    (run,) = offline_runs(single.dir)
    assert run.config["seed"] == 3
    assert run.config["checksums"] == {"model": "ab"}
    assert run.config["versions"] == single.summary["versions"]
    assert run.config["git"] == single.summary["git"]
    assert (run.name, run.group) == ("demo", "")
    assert run.summary["category/colour/psnr"] == 10.0
    assert set(run.artifacts) == {"run_table", "report"}
    (page,) = run.artifacts["report"].values()
    assert page.read_text() == "<p>report</p>"
    table = json.loads(run.artifacts["run_table"]["edits.table.json"].read_text())
    assert [line[0] for line in table["data"]] == ["a"], "only edits with pictures"
    assert dict(zip(table["columns"], table["data"][0], strict=True))["image_target"]["width"] == 4


def test_an_absent_server_costs_no_time(finished, monkeypatch):
    def away(address, timeout):
        assert address == ("here.invalid", 8080)
        raise TimeoutError("timed out")

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://here.invalid:8080")
    monkeypatch.setattr(socket, "create_connection", away)
    where = WandbLogger().write(finished)
    assert where.endswith("(offline: here.invalid does not answer: timed out)")
    assert len(offline_runs(finished.dir)) == 2


def test_a_refused_key_ends_offline_and_is_never_shown(finished, monkeypatch):
    init, modes = wandb.init, []

    def refused(**options):
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise wandb.errors.AuthenticationError(f"the key {KEY} is unknown\nand more")
        return init(**options)

    monkeypatch.setattr(wandb_logger.wandb, "init", refused)
    monkeypatch.setattr(wandb_logger, "_mode", lambda: ("online", ""))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    where = WandbLogger().write(finished)
    assert where.endswith("(offline: the key … is unknown)")
    assert modes == ["online", "offline", "offline"], "the other variants do not try again"
    assert len(offline_runs(finished.dir)) == 2


def test_the_run_is_closed_when_logging_fails(finished, monkeypatch):
    def broken(self, run, rows):
        raise OSError("the disk is full")

    monkeypatch.setattr(WandbLogger, "_table", broken)
    with pytest.raises(OSError, match="full"):
        WandbLogger().write(finished)
    assert wandb.run is None


def test_a_key_is_found_where_wandb_looks(monkeypatch, tmp_path):
    assert not wandb_key_present()
    monkeypatch.setenv("WANDB_BASE_URL", "https://mine.invalid")
    (tmp_path / "netrc").write_text(f"machine mine.invalid login user password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_key_present()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.invalid")
    assert not wandb_key_present()


ENVIRONMENT = {
    "WANDB_RUN_ID": "abc", "WANDB_RUN_GROUP": "mine", "WANDB_TAGS": "night, long",
    "WANDB_PROJECT": "other", "WANDB_ENTITY": "team", "WANDB_NAME": "called",
}  # fmt: skip


@pytest.mark.parametrize("several", [True, False])
def test_the_environment_is_honoured(finished, single, monkeypatch, tmp_path, several):
    for name, value in {**ENVIRONMENT, "WANDB_DIR": str(tmp_path / "elsewhere")}.items():
        monkeypatch.setenv(name, value)
    other = tmp_path / "elsewhere" / "wandb" / "offline-run-20260101_000000-my-abc"
    other.mkdir(parents=True)
    run = replace(finished if several else single, choices={"model": "world", "inversion": "ddim"})
    job = run.dir.name
    for _ in range(2):
        WandbLogger(tags=["own"]).write(run)
        found = offline_runs(tmp_path / "elsewhere")
        assert [one.run_id for one in found] == ([f"abc-{job}-0", f"abc-{job}-1"] if several else ["abc"])
    assert other.is_dir(), "the run of another id"
    assert not offline_runs(run.dir)
    for one in found:
        assert (one.project, one.entity, one.group) == ("other", "team", "mine")
        assert set(one.tags) == {"world", "ddim", one.config["variant"]["controller"], "own", "night", "long"}
        assert one.name == (f"called seed=3 {one.config['variant']['name']}" if several else "called")


def test_a_disabled_wandb_writes_nothing_and_a_named_project_wins(finished, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert "disabled" in WandbLogger().write(finished)
    assert not (finished.dir / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "other")
    WandbLogger(project="mine").write(finished)
    assert {run.project for run in offline_runs(finished.dir)} == {"mine"}


def test_a_variant_has_its_own_settings_and_undefined_numbers_are_no_texts(finished):
    own = {"r": {"tau": {"cross": 0.8, "self_attn": [0.1, 0.4]}, "controller": {"cross": 0.8}}}
    config = {"tau": {"cross": 0.3, "sweep": [1]}, "long": list(range(12_000)), "limit": NAN, "seed": 3}
    run = replace(
        finished, config=config, variant_settings=own, choices={"controller": "auto", "hydra/job": "x"}
    )
    WandbLogger().write(run)
    for one in offline_runs(run.dir):
        settings = {"r": own["r"]["tau"]}.get(one.config["variant"]["name"], config["tau"])
        assert one.config["tau"] == settings
        assert one.config["long"] == config["long"], "a record of several blocks"
        assert one.config["limit"] is None
        assert one.config["choice/controller"] == one.config["variant"]["controller"]
        assert "choice/hydra/job" not in one.config
        figures = {key: value for key, value in one.summary.items() if key.split("/")[0] not in NO_FIGURES}
        assert all(isinstance(value, int | float) for value in figures.values()), figures


def test_tensorboard_has_the_same_settings_and_figures(finished):
    own = {"r": {"tau": {"cross": 0.8, "self_attn": [0.1, 0.4]}}}
    run = replace(finished, variant_settings=own, choices={"model": "world"})
    settings, scalars = hyperparameters(run, "r")
    assert (settings["tau.cross"], settings["tau.self_attn"]) == (0.8, "[0.1, 0.4]")
    assert (settings["choice/model"], settings["variant.tau_cross"], settings["seed"]) == ("world", 0.8, 3)
    assert settings["checksums.model"] == "ab"
    assert (scalars["cost/unet_rows"], scalars["totals/edits"], scalars["run_totals/edits"]) == (8.0, 1, 4)
    assert (scalars["psnr/count"], scalars["psnr/missing"]) == (0, 1)
    assert "psnr" not in scalars, "undefined"


def test_tensorboard_scalars_come_back(finished):
    if find_spec("tensorboard") is None:
        pytest.skip("needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert str(finished.dir / "tensorboard") in TensorBoardLogger().write(finished)
    found = []
    for folder in (finished.dir / "tensorboard").iterdir():
        events = EventAccumulator(str(folder)).Reload()
        found.append({tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]})
    none, replace_ = sorted(found, key=lambda scalars: -scalars["cost/count"])
    assert none["psnr"] == 15.0
    assert none["cost/count"] == 2
    assert "psnr" not in replace_, "undefined"
    assert replace_["cost/unet_rows"] == 8.0


def test_tensorboard_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed; add the extra p2p_bench\[tensorboard\]"):
        TensorBoardLogger()
