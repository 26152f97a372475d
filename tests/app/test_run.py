"""`p2p-bench run` from start to end, on a tiny model."""

import json
import math
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from p2p_bench.bench.rows import RowWriter
from tests.app.command import PAIRS, SWEEP
from tests.bench.wandb_records import read_offline_run

TARGETS = 4
"""Target prompts of `PAIRS`."""

VOLATILE = ("seconds", "peak_memory_mb", "inversion_from")


def rows_of(folder):
    """Rows of a run by key, without what differs between equal runs."""
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    return {
        (row["sample_id"], row["variant"], row["target_index"]): {
            k: v for k, v in row.items() if k not in VOLATILE
        }
        for row in rows
    }


def pixels(path):
    """An image file as floats."""
    with Image.open(path) as image:
        return np.asarray(image, dtype=float)


def assert_same_rows(a, b, apart_from=()):
    """Equal keys and values, numbers to rounding."""
    assert list(a) == list(b)
    for key, row in a.items():
        for name, value in row.items():
            other = b[key][name]
            if name in apart_from or (isinstance(value, float) and math.isnan(value) and math.isnan(other)):
                continue
            assert other == (
                pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value
            ), (
                key,
                name,
            )


def test_what_a_run_leaves(command):
    outcome = command.bench("metrics=pixel", SWEEP, "run.baseline=true", "run.dir=out")
    assert outcome.code == 0, outcome.err
    out = command.folder / "out"
    rows = rows_of(out)
    assert len(rows) == 4 * TARGETS
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len({row["run_id"] for row in rows.values()}) == 1

    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["variants"]) == ["none", "auto 0.2/0.1", "auto 0.5/0.25", "auto 0.8/0.4"]
    mean = summary["variants"]["auto 0.5/0.25"]["metrics"]["mse"]
    values = [row["mse"] for key, row in rows.items() if key[1] == "auto 0.5/0.25"]
    assert mean["mean"] == pytest.approx(np.mean(values))
    assert mean["count"] == TARGETS
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert summary["variants"]["none"]["metrics"]["mse_outside"] == {
        "mean": None,
        "median": None,
        "count": 0,
        "missing": TARGETS,
        "low": None,
        "high": None,
    }
    assert summary["metrics"]["mse"]["higher_is_better"] is False
    assert summary["versions"]["torch"]
    assert len(summary["checksums"]["model"]) == 64

    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["controller"]["cross"] == 0.8  # resolved
    assert config["run"]["baseline"] is True
    assert (out / "report.html").read_text().count("own/ü") > 0
    assert (out / "metrics.csv").read_text().startswith("variant,controller,tau_cross")
    assert (out / "run.log").is_file()
    assert str(out / "report.html") in outcome.out
    assert "auto 0.5/0.25" in outcome.out
    assert "pairs" in outcome.err  # progress, where there is no terminal


def test_costs_alone_and_shared(command):
    assert command.bench(SWEEP, "run.baseline=true", "run.dir=out").code == 0
    rows = rows_of(command.folder / "out")
    # Two steps, conditional and unconditional: an image costs 4 rows, an edit alone two images.
    assert {row["unet_rows"] for row in rows.values()} == {8.0}
    spent = sum(row["unet_rows_spent"] for row in rows.values())
    # None and 0.2 edit neither step, 0.5 the first, 0.8 both: two rows in the first, three in the second.
    assert spent == pytest.approx(4 * len(PAIRS) + 2 * (2 + 3) * TARGETS)
    totals = json.loads((command.folder / "out" / "summary.json").read_text())["totals"]
    assert totals["unet_rows_spent"] == pytest.approx(spent)


def test_pairs_say_what_local_blend_keeps_to(command):
    pairs = [{**pair, "blend_words": words} for pair, words in zip(PAIRS, BLEND_WORDS, strict=True)]
    pairs.append({**PAIRS[0], "id": "none"})
    runs = {}
    for name, options, code in (("auto", [], 0), ("local_blend", ["controller.threshold=0.9"], 1)):
        outcome = command.bench(f"controller={name}", f"run.dir={name}", *options, pairs=pairs)
        assert outcome.code == code, outcome.err
        runs[name] = rows_of(command.folder / name)
    blended = {key[::2]: row for key, row in runs["local_blend"].items()}
    # The second target of "add" lacks its blend word; a pair without words is edited without a blend.
    assert "'sand' is not in the prompt 'a green star in fog'" in blended["add", 1]["error"]
    origins = {key: row["mask_from"] for key, row in blended.items()}
    assert {origins.pop(("none", 0)), origins.pop(("add", 1))} == {""}
    assert set(origins.values()) == {"attention"}
    assert {row["mask_from"] for row in runs["auto"].values()} == {""}
    summary = json.loads((command.folder / "local_blend" / "summary.json").read_text())
    assert summary["variants"]["local_blend"]["mask_from"] == {"attention": len(origins)}
    for (sample, _, index), plain in runs["auto"].items():
        row = blended[sample, index]
        if (sample, index) != ("add", 1):
            pictures = [
                pixels(command.folder / name / one["image_target"])
                for name, one in (("auto", plain), ("local_blend", row))
            ]
            assert np.array_equal(*pictures) == (sample == "none"), sample


BLEND_WORDS = (["red", "blue"], ["star", ["star", "sand"]], ["cat", "dog"])
"""For `PAIRS`: words of the source, words of the target."""


def test_pictures_are_kept_for_the_pairs_asked_for(command):
    assert command.bench("run.images=2", "run.baseline=true", "run.dir=out").code == 0
    out = command.folder / "out"
    rows = rows_of(out)
    for (sample, _, _), row in rows.items():
        named = [row[name] for name in row if name.startswith(("image_", "heatmap_")) and row[name]]
        assert bool(named) == (sample != "own/ü")
        assert all((out / name).is_file() for name in named)
    swap = rows["swap", "auto", 0]
    assert swap["heatmap_source"]
    assert swap["heatmap_target"]
    assert pixels(out / swap["heatmap_tokens"]).shape[0] == 2 * (26 + 18 + 96 + 8) + 8  # two rows of pictures
    assert not rows["add", "auto", 0]["heatmap_source"]  # nothing of the source was removed
    source, target = pixels(out / swap["image_source"]), pixels(out / swap["image_target"])
    assert source.shape == (16, 16, 3)
    assert not np.array_equal(source, target)
    assert sum(path.is_file() for path in (out / "images").rglob("*")) == 2 + 2 * 2 * 3


def test_no_pictures(command):
    assert command.bench("run.images=0", "run.dir=out").code == 0
    assert not (command.folder / "out" / "images").exists()


def test_real_images_are_inverted_and_scored_against_the_image(command):
    gradient = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    Image.fromarray(gradient).save(command.folder / "real.png")
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(command.folder / "mask.png")
    pairs = [{**PAIRS[0], "image": "real.png", "mask": "mask.png"}, PAIRS[2]]
    assert command.bench("metrics=pixel", "inversion=ddim", "run.dir=out", pairs=pairs).code == 0
    rows = rows_of(command.folder / "out")
    real, generated = rows["swap", "auto", 0], rows["own/ü", "auto", 0]
    assert np.array_equal(pixels(command.folder / "out" / real["image_original"]), gradient)
    assert pixels(command.folder / "out" / real["image_vae"]).shape == (16, 16, 3)
    assert real["inversion"] == "ddim"
    assert real["unet_rows"] == 8 + 2  # guidance 1: one row per step of the inversion
    assert real["unet_rows_backward"] == 0
    assert all(math.isfinite(real[name]) for name in ("recon_psnr", "vae_psnr", "psnr_outside"))
    assert generated["inversion"] == generated["image_original"] == generated["image_vae"] == ""
    assert math.isnan(generated["recon_psnr"])


def test_edits_are_repaired_outside_the_mask(command):
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(command.folder / "real.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:10, 4:10] = 255
    Image.fromarray(mask).save(command.folder / "mask.png")
    pairs = [{**PAIRS[0], "image": "real.png", "mask": "mask.png"}, PAIRS[2]]
    settings = ("inversion=null_text", "inversion.inner_steps=1", "sampler.guidance=3.0", "run.repair=mask")
    # Null-text needs gradients, whatever mode the trainer runs in.
    outcome = command.bench(*settings, "trainer.inference_mode=true", "run.dir=out", pairs=pairs)
    assert outcome.code == 1, outcome.err
    rows = rows_of(command.folder / "out")
    real, unmasked = rows["swap", "auto", 0], rows["own/ü", "auto", 0]
    edited = pixels(command.folder / "out" / real["image_target"])
    assert np.all(edited[mask == 0] == 200)
    assert not np.all(edited[mask > 0] == 200)
    assert 0 < real["unet_rows_backward"] <= 2
    assert (unmasked["status"], "has no mask" in unmasked["error"]) == ("error", True)


def test_results_depend_on_neither_batches_nor_company(command):
    settings = ["metrics=pixel", "run.baseline=true"]
    assert command.bench(*settings, "run.dir=together").code == 0
    assert command.bench(*settings, "run.dir=apart", "run.batch_size=1", "sampler.max_rows=4").code == 0
    together, apart = rows_of(command.folder / "together"), rows_of(command.folder / "apart")
    assert_same_rows(together, apart, apart_from=("unet_rows_spent",))  # four rows hold no two variants
    assert together["own/ü", "auto", 0]["seed"] == 5
    assert len({row["seed"] for row in together.values()}) == len(PAIRS)


def test_an_interrupted_run_goes_on_where_it_was(command, monkeypatch):
    settings = ["metrics=pixel", "run.baseline=true", "run.batch_size=1"]
    assert command.bench(*settings, "run.dir=whole").code == 0
    append, calls = RowWriter.append, []

    def interrupted(self, rows):
        calls.append(len(rows))
        if sum(count > 0 for count in calls) > 1:
            raise KeyboardInterrupt
        append(self, rows)

    monkeypatch.setattr(RowWriter, "append", interrupted)
    outcome = command.bench(*settings, "run.dir=out")
    assert outcome.code == 75
    assert f"p2p-bench resume {command.folder / 'out'}" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.undo()
    monkeypatch.chdir(command.folder)

    outcome = command.bench(*settings, "run.dir=out")
    assert outcome.code == 0
    assert "2 of 8 edits are there already" in outcome.err
    assert "6 edits of 2 pairs to make" in outcome.err
    assert_same_rows(rows_of(command.folder / "whole"), rows_of(command.folder / "out"))
    outcome = command.bench(*settings, "run.dir=out")
    assert outcome.code == 0
    assert "loading" not in outcome.err


def test_a_mended_pair_is_tried_again(command):
    image = command.folder / "image.png"
    image.write_bytes(b"damaged")
    pairs = [{**PAIRS[0], "image": "image.png"}, PAIRS[2]]
    assert command.bench("run.dir=out", pairs=pairs).code == 1
    failed = rows_of(command.folder / "out")["swap", "auto", 0]
    assert failed["status"] == "error"
    assert "image.png" in failed["error"]
    Image.new("RGB", (16, 16), "red").save(image)
    outcome = command.bench("run.dir=out", pairs=pairs)
    assert outcome.code == 0
    assert "1 edits of 1 pairs to make" in outcome.err


def test_a_directory_takes_one_set_of_settings(command):
    assert command.bench("run.dir=out").code == 0
    outcome = command.bench("run.dir=out", "tau.cross=0.3", "run.batch_size=2")
    assert outcome.code == 2
    assert "tau.cross: 0.8 there, 0.3 here" in outcome.err
    assert "batch_size" not in outcome.err
    outcome = command.bench("run.dir=out", pairs=PAIRS[:2])
    assert outcome.code == 2
    assert "the data set" in outcome.err
    assert yaml.safe_load((command.folder / "out" / "config.yaml").read_text())["tau"]["cross"] == 0.8


def test_a_second_run_in_one_directory_refuses(command):
    (command.folder / "out").mkdir()
    with FileLock(command.folder / "out" / ".lock"):
        outcome = command.bench("run.dir=out")
    assert outcome.code == 2
    assert "another run is writing here" in outcome.err


def assert_table_has_pictures(run, job, rows):
    """The table of an offline run has a line per row, with the pictures that the run kept."""
    files = run.artifacts["run_table"]
    table = json.loads(files["edits.table.json"].read_text())
    assert len(table["data"]) == len(rows) == 2
    line = dict(zip(table["columns"], table["data"][0], strict=True))
    assert line["sample_id"] == "swap"
    row = rows["swap", "auto", 0]
    assert line["mse"] == pytest.approx(row["mse"])
    for name in ("image_original", "image_source", "image_target", "image_difference"):
        assert np.array_equal(pixels(files[line[name]["path"]]), pixels(job / row[name]))


def test_a_multirun_leaves_a_directory_and_an_offline_run_per_job(command):
    Image.new("RGB", (16, 16), "red").save(command.folder / "real.png")
    pairs = [{**PAIRS[0], "image": "real.png"}, PAIRS[2]]
    outcome = command.bench(
        "-m", "tau.cross=0.2,0.5,0.8", "inversion=none,ddim",
        "logger=wandb", "metrics=pixel", "run.name=grid",
        pairs=pairs,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (sweep,) = (command.folder / "outputs" / "grid").iterdir()
    assert sweep.name.startswith("sweep-")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert len(jobs) == 6
    seen = set()
    for job in jobs:
        config = yaml.safe_load((job / "config.yaml").read_text())
        cross, inversion = config["tau"]["cross"], config["inversion"]["_target_"]
        seen.add((cross, inversion))
        rows = rows_of(job)
        assert {row["tau_cross"] for row in rows.values()} == {f"{cross:g}"}
        summary = json.loads((job / "summary.json").read_text())
        assert (job / "report.html").is_file()

        (record,) = job.glob("wandb/offline-run-*/*.wandb")
        run = read_offline_run(record)
        assert run.exit_code == 0
        assert run.group == sweep.name
        assert f"tau.cross={cross}" in run.name
        own = {**config, "tau": {key: config["tau"][key] for key in ("cross", "self_attn")}}
        assert {key: run.config[key] for key in config} == own
        mse = summary["variants"]["auto"]["metrics"]["mse"]["mean"]
        assert run.summary["mse"] == pytest.approx(mse)
        assert any(item.get("mse") == pytest.approx(mse) for item in run.history)
        assert_table_has_pictures(run, job, rows)
    assert len(seen) == 6
    page = command("report", str(sweep))
    assert page.code == 0
    assert (sweep / "report" / "index.html").is_file()


def test_one_failing_job_does_not_lose_the_others(command):
    outcome = command.bench("-m", "controller=replace,refine", "run.dir=sweep", pairs=[PAIRS[1]])
    assert outcome.code == 1
    assert "job 0 (controller=replace): " in outcome.err
    assert not (command.folder / "sweep" / "0" / "summary.json").exists()
    assert (command.folder / "sweep" / "1" / "summary.json").exists()
    assert "1 of 2 jobs" in outcome.out


def test_the_process_leaves_with_the_exit_code(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "p2p_bench", "controller=replce"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.startswith("error: controller=replce: ")
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_model_with_every_metric(command):
    outcome = command("experiment=smoke", "run.dir=out", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    rows = rows_of(command.folder / "out")
    assert {key[1] for key in rows} == {"none", "auto"}
    assert {row["model"] for row in rows.values()} == {"world"}
    assert all(math.isfinite(row["clip_target"]) for row in rows.values())


def test_help(command):
    assert "train-world" in command("--help").out
    text = command("run", "--help").out
    assert "controller: auto, compose, image_qk, inject_words, local_blend, masactrl" in text
    assert "p2p-bench experiment=demo" in text
    for verb in ("edit", "report", "doctor", "train-world"):
        outcome = command(verb, "--help")
        assert outcome.code == 0
        assert outcome.out.startswith(f"usage: p2p-bench {verb}")
