"""`p2p-bench score RUN`: a run's pictures by other metrics; nothing is generated again."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import p2p_bench.editors.controlled as controlled
from p2p_bench.editors.finished import FinishedRunImages
from p2p_bench.editors.found import Found
from p2p_bench.errors import ConfigError
from tests.app.command import Command
from tests.app.test_score import QUIET, rows_of, scored, summary_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are kept."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def run(command: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs on rendered and on generated sources, a copy each, after which nothing can be sampled."""
    for name in ("world_real", "world_pairs"):
        if (made / name).exists():
            shutil.copytree(made / name, command.folder / name)
            continue
        done = command(
            "run", f"dataset={name}", "dataset.limit=2", "metrics=pixel", "sampler.steps=2", "logger=none",
            "trainer.accelerator=cpu", f"run.dir={name}", "run.images=1", "run.baseline=true", "seed=4",
        )  # fmt: skip
        assert done.code == 0, done.err
        shutil.copytree(command.folder / name, made / name)
    monkeypatch.setattr(controlled.ControlledSampling, "ready", None)
    return command.folder


@pytest.mark.parametrize("name", ["world_real", "world_pairs"])
def test_a_run_is_scored_afterwards_by_other_metrics(command: Command, run: Path, name: str) -> None:
    before = rows_of(run / name)
    untouched = (run / name / "results.parquet").read_bytes()
    done = scored(command, name, metrics="metrics=[pixel,region]")
    assert done.code == 1, done.err
    after = rows_of(run / "scored")
    assert after.keys() == before.keys()
    kept = {key for key, row in before.items() if row["image_target"]}
    assert 0 < len(kept) < len(before)
    for key, row in after.items():
        if key not in kept:
            assert row["status"] == "error"
            assert "run.images=null" in row["error"]
            continue
        same = ("controller", "tau_cross", "inversion", "steps", "guidance", "seed", "unet_rows", "model")
        assert {name: row[name] for name in same} == {name: before[key][name] for name in same}
        # Metrics are of 8 bits: the root of the error moves by the rounding of edit and source at most.
        moved = abs(np.sqrt(row["mse"]) - np.sqrt(before[key]["mse"]))
        assert 0 < moved <= 2 / 510
        recon = row["recon_psnr"], before[key]["recon_psnr"]
        assert np.isnan(recon).all() or recon[0] == pytest.approx(recon[1], abs=0.1)
    again = command("score", "scored", "metrics=pixel", *QUIET[:-1], "run.dir=again")
    assert again.code == 1, again.err
    for key in kept:
        found, first = rows_of(run / "again")[key], after[key]
        assert (found["recon_psnr"], found["mse"]) == pytest.approx(
            (first["recon_psnr"], first["mse"]), nan_ok=True
        )
    pictures = summary_of(run / "scored")["pictures"]
    assert pictures["from"] == "run"
    assert pictures["run_id"] == next(iter(before.values()))["run_id"]
    assert pictures["checksums"]["model"]
    assert (run / name / "results.parquet").read_bytes() == untouched


def test_a_run_and_its_pictures_copied_score_alike(command: Command, run: Path) -> None:
    assert scored(command, "world_real").code == 1
    of_run = rows_of(run / "scored")
    shutil.rmtree(run / "scored")
    for key, row in of_run.items():
        if row["status"] == "ok":
            file = run / "copied" / key[1] / f"{key[0]}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            before = rows_of(run / "world_real")[key]
            shutil.copy(run / "world_real" / before["image_target"], file)
    typed = ("dataset=world_real", "dataset.limit=2", "score.pattern={variant}/{id}.png")
    assert scored(command, "copied", *typed).code == 1
    of_folder = rows_of(run / "scored")
    scores = {key: row["mse"] for key, row in of_run.items() if row["status"] == "ok"}
    assert {key: of_folder[key]["mse"] for key in scores} == scores
    # A generated source is in no folder but the run's.
    shutil.copytree(run / "copied", run / "again")
    lost = scored(
        command, "again", "dataset=world_pairs", "dataset.limit=2", "score.pattern={variant}/{id}.png"
    )
    assert lost.code != 0


def test_runs_that_cannot_be_scored(command: Command, run: Path) -> None:
    assert "with metrics=..." in command("score", "world_real").err
    for setting in ("dataset.limit=1", "score.panels=2"):
        told = scored(command, "world_real", setting).err
        assert f"{setting[:-2]}: pairs and pictures are those of the run" in told
    for file in (run / "world_real" / "images").rglob("*.png"):
        file.unlink()
    gone = scored(command, "world_real")
    assert gone.code == 2
    assert "run.images=null" in gone.err


def test_a_picture_that_was_put_in_the_place_of_another_is_not_scored(command: Command, run: Path) -> None:
    folder = run / "world_real"
    rows = {key: row for key, row in rows_of(folder).items() if row["image_target"]}
    (key, one), (_, other) = list(rows.items())[:2]
    assert one["image_vae"] == other["image_vae"]
    # The original comes from the data set, whose own pictures are looked at.
    for swapped in (one["image_target"], one["image_original"]):
        shutil.copy(folder / other["image_target"], folder / swapped)
    assert scored(command, "world_real").code == 1
    after = rows_of(run / "scored")
    assert [name for name in rows if after[name]["status"] != "ok"] == [key]
    assert f"its picture {one['image_target']} is another file than the run" in after[key]["error"]
    with Image.open(folder / one["image_target"]) as picture:  # what an editor of pictures writes has no mark
        picture.save(folder / one["image_vae"])
    refused = scored(command, "world_real")
    assert refused.code == 2
    assert "is another file than the run wrote there" in refused.err


def test_a_picture_that_several_rows_name_is_no_edits(run: Path) -> None:
    file = run / "world_real" / "results.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    one, other = (row for row in rows if row["image_target"])
    pq.write_table(pa.Table.from_pylist([*rows, one], schema=table.schema), file)
    found = FinishedRunImages(file.parent).places()
    told, fine = (found[row["sample_id"], row["variant"], row["target_index"]] for row in (one, other))
    assert "the table of the run gives its picture to several edits" in str(told)
    assert isinstance(fine, Found)
    one["image_target"] = other["image_target"]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    with pytest.raises(ConfigError, match="the table of the run gives its picture to several edits"):
        FinishedRunImages(file.parent).places()


def test_pictures_of_a_run_that_marked_none_are_scored_and_counted(command: Command, run: Path) -> None:
    for file in (run / "world_real" / "images").rglob("*.png"):
        with Image.open(file) as picture:
            pixels = np.array(picture)
        Image.fromarray(pixels).save(file)
    assert scored(command, "world_real").code == 1
    pictures = summary_of(run / "scored")["pictures"]
    assert pictures["unchecked"] == pictures["found"] > 0
