"""What the command line says of prompts that the model cannot follow, and of scores that are missing."""

import json
import shutil

import pytest
from PIL import Image

from p2p_bench.bench import records
from p2p_bench.metrics.base import Undefined
from p2p_bench.models.vocabulary import write_vocabulary
from tests.app.command import PAIRS
from tests.app.test_run import rows_of
from tests.models.tiny import tiny_checkpoint

KNOWN = ["a", "red", "blue", "green", "circle", "star", "on", "in", "grass", "sand", "fog", "dog", "water"]
UNKNOWN = "model 'tiny' was never trained on 'cat'"
"""Of the pairs of `command.bench`."""


@pytest.fixture
def model(tmp_path):
    """Overrides for the tiny model with a list of words."""
    folder = shutil.copytree(tiny_checkpoint().path, tmp_path / "model")
    write_vocabulary(folder, KNOWN)
    return [f"model.path={folder}", "model.name=tiny"]


def test_a_run_says_once_what_its_model_never_saw_and_every_row_does(command, model, monkeypatch):
    scores = records.score

    def with_a_gap(metrics, views):
        found = scores(metrics, views)
        for (values, _), view in zip(found, views, strict=True):
            if view.target_prompt.endswith("fog"):
                values["mse"] = Undefined("a reason")
        return found

    monkeypatch.setattr(records, "score", with_a_gap)
    outcome = command.bench(*model, "metrics=pixel", "tau.self_attn=0.5", "run.dir=out")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(UNKNOWN) == 1
    assert "it knows 13 words: a, blue" in outcome.err
    out = command.folder / "out"
    rows = {(key[0], key[2]): row for key, row in rows_of(out).items()}
    assert {key: row["notes"] for key, row in rows.items() if row["notes"]} == {("own/ü", 0): UNKNOWN}
    assert {key: row["control"] for key, row in rows.items()} == {
        ("swap", 0): "replace",
        ("add", 0): "refine",
        ("add", 1): "refine",
        ("own/ü", 0): "replace",
    }
    outside = dict.fromkeys(("mse_outside", "psnr_outside"), "there is no mask")
    assert json.loads(rows["add", 1]["missing"]) == {"mse": "a reason", **outside}
    assert json.loads(rows["add", 0]["missing"]) == outside

    summary = json.loads((out / "summary.json").read_text())
    (variant,) = summary["variants"].values()
    assert variant["missing"]["mse"] == {"a reason": 1}
    assert (variant["metrics"]["mse"]["count"], variant["metrics"]["psnr"]["count"]) == (3, 4)
    assert summary["notes"] == {UNKNOWN: 1}
    page = (out / "report.html").read_text()
    assert "1 edit: no mse: a reason" in page
    assert "4 edits: no mse_outside, psnr_outside: there is no mask" in page
    assert "1 edit: model &#39;tiny&#39; was never trained on &#39;cat&#39;" in page


def test_an_edit_says_what_its_model_never_saw(command, model):
    outcome = command(
        "edit", "--source", "a cat", "--target", "a red cat", "model=local", *model,
        "model.record_fraction=0.5", "sampler.steps=1", "trainer.accelerator=cpu", "--out", "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(UNKNOWN) == 1
    assert "model=local model.path=DIR" in outcome.err


def test_a_pair_whose_edit_is_cut_off_is_an_error_row(command):
    head = "a red cat and a blue dog on the soft green grass and "
    pairs = [
        {"id": "lost", "source": head + "a cat a cat", "target": head + "a cat a star"},
        {"id": "kept", "source": head + "a cat a cat", "target": "the" + head[1:] + "a cat a cat"},
    ]
    outcome = command.bench("run.truncate=true", "tau.self_attn=0.5", "run.dir=out", pairs=pairs)
    assert outcome.code == 1
    rows = {key[0]: row for key, row in rows_of(command.folder / "out").items()}
    assert (rows["lost"]["status"], rows["kept"]["status"]) == ("error", "ok")
    assert "differ only where they were cut" in rows["lost"]["error"]
    assert rows["kept"]["notes"] == "source prompt cut after 'a'; target prompt cut after 'a'"


def test_a_row_says_that_its_control_was_over_before_its_first_step(command):
    Image.new("RGB", (16, 16), "red").save(command.folder / "real.png")
    settings = (
        "inversion=noising",
        "inversion.strength=0.5",
        "controller=replace",
        "metrics=none",
        "sampler.steps=4",
    )
    pairs = [{**PAIRS[0], "image": "real.png"}, PAIRS[0] | {"id": "noise"}]
    for tau, said in (
        (0.25, {"replace is over after step 1 of 4, and the edit begins with step 3"}),
        (0.75, set()),
    ):
        name = f"tau{tau}"
        done = command.bench(*settings, f"tau.cross={tau}", "tau.self_attn=0", f"run.dir={name}", pairs=pairs)
        assert done.code == 0, done.err
        notes = {key[0]: row["notes"] for key, row in rows_of(command.folder / name).items()}
        assert notes == {
            PAIRS[0]["id"]: "".join(f"nothing is controlled: {one}" for one in said), "noise": "",
        }  # fmt: skip
