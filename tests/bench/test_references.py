"""References: what the untouched source and the VAE alone score, once per sample and beside the rows."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import p2p_bench.bench.callbacks as callbacks
from p2p_bench.bench.references import (
    REFERENCES,
    ReferenceWriter,
    compact_references,
    open_references,
    reference_schema,
)
from p2p_bench.bench.rows import RowWriter, read_rows
from p2p_bench.errors import DataError
from tests.app.command import PAIRS, Command
from tests.app.test_run import assert_same_rows

COLUMNS = ["psnr", "lpips"]
SETTINGS = ("metrics=pixel", "logger=none", "run.images=0", "inversion=ddim", "run.batch_size=1")
KEYS = [
    ("swap", 0, "no_edit"), ("swap", 0, "vae"), ("add", 0, "no_edit"), ("add", 1, "no_edit"),
]  # fmt: skip
"""References of a real image with one target and of a generated one with two."""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Command(tmp_path, capsys)


def bench(command, *overrides):
    """Edits a real image with a mask and a generated one; what was said if it failed."""
    Image.fromarray((np.indices((16, 16, 3)).sum(0) * 5).astype(np.uint8)).save(command.folder / "real.png")
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(command.folder / "mask.png")
    pairs = [{**PAIRS[0], "image": "real.png", "mask": "mask.png"}, PAIRS[1]]
    return command.bench(*SETTINGS, *overrides, pairs=pairs)


def references_of(folder):
    """References of a run by key."""
    rows = pq.read_table(folder / REFERENCES).to_pylist()
    return {(row["sample_id"], row["target_index"], row["reference"]): row for row in rows}


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_each_sample_and_target_is_scored_once_whatever_its_variants(command):
    assert bench(command, "tau=sweep3", "run.baseline=true", "run.dir=out").code == 0
    out = command.folder / "out"
    found = references_of(out)
    assert list(found) == KEYS
    copy, vae, generated = found[KEYS[0]], found[KEYS[1]], found[KEYS[2]]
    assert (copy["mse"], copy["mse_outside"], copy["psnr"], copy["ssim"]) == (0, 0, 100, pytest.approx(1))
    assert math.isnan(copy["recon_psnr"]), "nothing was reconstructed"
    assert (generated["mse"], generated["category"], copy["category"]) == (0, "", "colour")
    assert math.isnan(generated["psnr_outside"]), "no mask"

    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 3 * 4
    (bound,) = {row["vae_psnr"] for row in rows if row["sample_id"] == "swap"}
    assert vae["psnr"] == vae["vae_psnr"] == vae["recon_psnr"] == bound
    assert 0 < vae["mse_outside"] != vae["mse"]

    summary = summary_of(out)
    assert "no_edit" not in summary["variants"]
    assert (summary["totals"]["edits"], summary["totals"]["samples"]) == (len(rows), 2)
    assert {kind: part["count"] for kind, part in summary["references"].items()} == {"no_edit": 3, "vae": 1}
    assert summary["references"]["no_edit"]["metrics"]["psnr_outside"]["count"] == 1
    assert summary["references"]["vae"]["metrics"]["psnr"]["mean"] == pytest.approx(bound)


def test_jobs_of_a_shared_sweep_score_together_what_they_would_score_alone(command, monkeypatch):
    sweep = ("-m", "tau.cross=0.2,0.8", "run.cache=false")
    score_references, scored = callbacks.score_references, []

    def counting(*args):
        found = score_references(*args)
        scored.append(len(found))
        return found

    monkeypatch.setattr(callbacks, "score_references", counting)
    for launcher, count in (("basic", 2 * len(KEYS)), ("shared", len(KEYS))):
        scored.clear()
        outcome = bench(command, *sweep, f"hydra/launcher={launcher}", f"run.dir={launcher}")
        assert outcome.code == 0, outcome.err
        assert sum(scored) == count
    for job in ("0", "1"):
        alone, shared = (command.folder / launcher / job for launcher in ("basic", "shared"))
        assert_same_rows(references_of(alone), references_of(shared))
        means = [summary_of(folder)["references"]["no_edit"]["metrics"] for folder in (alone, shared)]
        assert means[0]["ssim"] == pytest.approx(means[1]["ssim"], rel=1e-4)


def test_a_run_that_was_cut_off_ends_with_the_same_references(command, monkeypatch):
    assert bench(command, "run.dir=whole").code == 0
    append = RowWriter.append
    for batches in (0, 1):  # then cut off after the references of the next batch and before its rows
        left = iter(range(batches))

        def interrupted(self, rows, left=left):
            if rows and next(left, None) is None:
                raise KeyboardInterrupt
            append(self, rows)

        monkeypatch.setattr(RowWriter, "append", interrupted)
        assert bench(command, "run.dir=out").code == 75
        assert len(list((command.folder / "out" / "references").iterdir())) == batches + 1
    monkeypatch.setattr(RowWriter, "append", append)
    assert bench(command, "run.dir=out").code == 0
    whole, out = command.folder / "whole", command.folder / "out"
    assert_same_rows(references_of(whole), references_of(out))
    assert summary_of(whole)["references"].keys() == summary_of(out)["references"].keys()


def test_a_directory_from_before_there_were_references_has_none(command):
    out = command.folder / "out"
    assert bench(command, "run.dir=out").code == 0
    shutil.rmtree(out / "references")
    (out / REFERENCES).unlink()
    (out / "rows" / "part-000001.parquet").unlink()
    outcome = bench(command, "run.dir=out")
    assert outcome.code == 0
    assert "1 of 3 edits are there already" in outcome.err
    assert len(read_rows(out)) == 3
    assert not (out / "references").exists()
    assert not (out / REFERENCES).exists(), "the mean of a part of the samples is no reference"
    assert summary_of(out)["references"] == {}
    assert command("report", "out").code == 0


def test_without_metrics_there_is_nothing_to_refer_to(command):
    assert bench(command, "metrics=none", "run.dir=out").code == 0
    assert not (command.folder / "out" / REFERENCES).exists()


def reference(sample="a", index=0, kind="no_edit", **values):
    """A complete reference."""
    head = {"sample_id": sample, "target_index": index, "reference": kind, "category": "c"}
    return {**head, "psnr": 100.0, "lpips": math.nan, **values}


def test_references_come_back_in_the_order_of_the_run(tmp_path):
    writer = ReferenceWriter(tmp_path, COLUMNS)
    writer.append([reference("b"), reference("b", kind="vae", psnr=30.0)])
    writer.append([reference("a", 1)])
    writer.append([])
    found = compact_references(tmp_path, COLUMNS, [("a", 0), ("a", 1), ("b", 0), ("b", 0)])
    assert [(row["sample_id"], row["target_index"], row["reference"]) for row in found] == [
        ("a", 1, "no_edit"), ("b", 0, "no_edit"), ("b", 0, "vae"),
    ]  # fmt: skip
    assert pq.read_table(tmp_path / REFERENCES).schema.equals(reference_schema(COLUMNS))
    assert list(compact_references(tmp_path / "empty", COLUMNS, [("a", 0)])) == []
    assert not (tmp_path / "empty").exists()


def test_references_without_a_finished_edit_are_not_trusted(tmp_path):
    places = {("a", 0)}
    of_other_settings = {key: value for key, value in reference().items() if key != "lpips"}
    ReferenceWriter(tmp_path, ["psnr"]).append([of_other_settings])
    assert open_references(tmp_path, COLUMNS, []).lacks(places) == places
    assert not (tmp_path / "references").exists()
    assert not open_references(tmp_path, COLUMNS, places).lacks(places), "a directory from before"
    assert not open_references(tmp_path, [], []).lacks(places)


def test_what_is_there_is_not_scored_again(tmp_path):
    writer = ReferenceWriter(tmp_path, COLUMNS)
    writer.append([reference("a")])
    places = {("a", 0), ("a", 1)}
    assert writer.lacks(places) == open_references(tmp_path, COLUMNS, places).lacks(places) == {("a", 1)}


def test_references_of_another_run_are_refused(tmp_path):
    """They have the same keys and columns, and would stand for those of this one."""
    places = {("a", 0), ("b", 0)}
    ReferenceWriter(tmp_path, COLUMNS, run_id="one").append([reference("a")])
    assert open_references(tmp_path, COLUMNS, places, "one").lacks(places) == {("b", 0)}
    with pytest.raises(DataError, match=r"part-000000\.parquet: holds the references of another run \(one"):
        open_references(tmp_path, COLUMNS, places, "two")
    shutil.rmtree(tmp_path / "references")
    assert not open_references(tmp_path, COLUMNS, places, "two").lacks(places)
    ReferenceWriter(tmp_path, COLUMNS).append([reference("a")])  # as older versions did, without saying it
    part = tmp_path / "references" / "part-000000.parquet"
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    assert open_references(tmp_path, COLUMNS, places, "two").lacks(places) == {("b", 0)}
