"""Tables and W&B runs as functions of a finished run."""

import csv

import pytest
import wandb

from p2p_bench.bench import loggers
from p2p_bench.bench.loggers import CSVLogger, FinishedRun, WandbLogger
from tests.bench.test_summary import ROWS, make_summary
from tests.bench.wandb_records import read_offline_run


@pytest.fixture
def finished(tmp_path):
    """A finished run without pictures."""
    return FinishedRun(tmp_path, "id", "demo", "sweep", "seed=3", {"seed": 3}, make_summary(), ROWS)


def test_the_csv_table(finished):
    assert str(finished.dir / "metrics.csv") in CSVLogger().write(finished)
    table = list(csv.DictReader((finished.dir / "metrics.csv").read_text().splitlines()))
    assert [row["variant"] for row in table] == ["none", "r"]
    assert table[0]["psnr"] == "15.0"
    assert table[0]["psnr_count"] == "2"
    assert table[1]["psnr"] == ""


def test_an_offline_run_of_several_variants(finished):
    where = WandbLogger(project="mine").write(finished)
    (record,) = finished.dir.glob("wandb/offline-run-*/*.wandb")
    assert str(record.parent) in where
    assert wandb.run is None
    run = read_offline_run(record)
    assert (run.project, run.group, run.name, run.exit_code) == ("mine", "sweep", "demo seed=3", 0)
    steps = [item for item in run.history if "variant" in item]
    assert [(item["variant"], item.get("psnr")) for item in steps] == [("none", 15.0), ("r", None)]
    assert run.summary["none/psnr"] == 15.0
    assert run.summary["totals/failed"] == 1
    assert "r/psnr" not in run.summary  # undefined


def test_a_failing_connection_ends_offline(finished, monkeypatch):
    init = wandb.init

    def unreachable(**options):
        if options["mode"] == "online":
            raise wandb.errors.CommError("the server is away\nand more")
        return init(**options)

    monkeypatch.setattr(loggers.wandb, "init", unreachable)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    where = WandbLogger().write(finished)
    assert where.endswith("(offline: the server is away)")
    assert len(list(finished.dir.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_the_run_is_closed_when_logging_fails(finished, monkeypatch):
    def broken(self, run):
        raise OSError("the disk is full")

    monkeypatch.setattr(WandbLogger, "_table", broken)
    with pytest.raises(OSError, match="full"):
        WandbLogger().write(finished)
    assert wandb.run is None
