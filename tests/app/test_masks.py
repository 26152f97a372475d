"""Masks that divide nothing, and pairs that are no pairs, in a run."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.app.command import PAIRS
from tests.app.test_run import rows_of

SWAP = PAIRS[0]


@pytest.fixture
def pairs(command):
    """An image three times as wide as the model's, with masks on its left, its middle, nowhere and in LAB."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 48, 3), dtype=np.uint8)).save(command.folder / "wide.png")
    for name, columns in (
        ("left", slice(0, 8)),
        ("middle", slice(20, 30)),
        ("none", slice(0, 0)),
        ("all", slice(48)),
    ):
        mask = np.zeros((16, 48), np.uint8)
        mask[:, columns] = 255
        Image.fromarray(mask).save(command.folder / f"{name}.png")
    grey = Image.open(command.folder / "middle.png")
    Image.merge("LAB", (grey, *[Image.new("L", grey.size, 128)] * 2)).save(command.folder / "lab.tiff")
    files = {
        "left": "left.png",
        "middle": "middle.png",
        "none": "none.png",
        "all": "all.png",
        "lab": "lab.tiff",
    }
    return [{**SWAP, "id": name, "image": "wide.png", "mask": file} for name, file in files.items()]


STATES = {"left": "lost", "middle": "part", "none": "empty", "all": "full", "lab": "part"}


def test_a_lost_mask_scores_nothing_and_is_counted(command, pairs):
    outcome = command.bench("metrics=pixel", "run.dir=out", "run.images=0", pairs=[*pairs, SWAP])
    assert outcome.code == 0, outcome.err
    rows = {key[0]: row for key, row in rows_of(command.folder / "out").items()}
    assert {name: row["mask"] for name, row in rows.items()} == {**STATES, "swap": ""}
    for name, row in rows.items():
        assert np.isfinite(row["psnr"])
        assert np.isfinite(row["psnr_outside"]) == (row["mask"] == "part"), name
    assert rows["lab"]["psnr_outside"] == rows["middle"]["psnr_outside"]
    summary = json.loads((command.folder / "out" / "summary.json").read_text())["variants"]["auto"]
    assert summary["masks"] == {"lost": 1, "part": 2, "empty": 1, "full": 1}
    assert summary["metrics"]["psnr_outside"]["count"] == 2
    assert "1 of 6 pairs, 'left' the first: its mask lies outside the part of the image" in outcome.err
    assert "pair 'none': its mask is empty" in (command.folder / "out" / "run.log").read_text()


def test_a_repair_by_a_lost_mask_is_an_error_of_its_pair(command, pairs):
    outcome = command.bench("metrics=pixel", "run.dir=out", "run.images=0", "run.repair=mask", pairs=pairs)
    assert outcome.code == 1, outcome.err
    rows = {key[0]: row for key, row in rows_of(command.folder / "out").items()}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"middle", "all", "lab"}
    assert {row["mask_from"] for row in rows.values() if row["status"] == "ok"} == {"given"}
    for name in ("left", "none"):
        assert "the repair would undo the edit" in rows[name]["error"]
        assert np.isnan(rows[name]["psnr"])


def test_one_bad_pair_is_one_row(command, pairs):
    deep = np.zeros((16, 48), np.uint16)
    Image.fromarray(deep).save(command.folder / "deep.png")
    bad = [
        {**SWAP, "id": "long", "image": "x" * 5000 + ".png"},
        {**SWAP, "id": "deep", "image": "wide.png", "mask": "deep.png"},
        {**SWAP, "id": "a folder", "image": "."},
        {**SWAP, "id": "odd\nname", "image": "odd\nname.png"},
    ]
    outcome = command.bench("run.dir=out", pairs=[SWAP, *bad])
    assert outcome.code == 1
    assert "unexpected" not in outcome.err
    rows = {key[0]: row for key, row in rows_of(command.folder / "out").items()}
    assert [row["status"] for row in rows.values()] == ["ok"] + ["error"] * 4
    assert "needs 8 bits" in rows["deep"]["error"]
    assert len(rows["long"]["error"]) < 400


def test_scenes_and_weights_out_of_range_stop_before_the_run(command):
    scene = {"objects": [{"shape": "circle", "size": None}], "background": "grass"}
    outcome = command.bench(
        pairs=[{**SWAP, "scene": scene}, {**SWAP, "id": "b", "word_weights": {"blue": 10**400}}]
    )
    assert outcome.code == 2
    assert "2 faults" in outcome.err
    assert "unexpected" not in outcome.err
    assert not command.ran


def test_a_run_records_attention_for_its_metric(command):
    Image.new("RGB", (64, 64), "red").save(command.folder / "image.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(command.folder / "mask.png")
    pairs = [{**PAIRS[0], "image": "image.png", "mask": "mask.png"}, PAIRS[1]]
    done = command.bench(
        "run.dir=out", "metrics=attention", "run.images=0", "run.heatmaps=false", pairs=pairs
    )
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "out")
    assert 0 < rows["swap", "auto", 0]["attention_iou"] <= 1
    assert json.loads(rows["add", "auto", 0]["missing"])["attention_iou"] == "there is no mask"
