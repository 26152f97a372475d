"""Published means: as they were published, and a rerun is told from what is none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from p2p_bench.report import write_folder_report
from p2p_bench.report.published import FIGURES, published_rows
from tests.report.fake_run import fake_run
from tests.report.pie_run import SETTINGS, pie_run
from tests.report.test_folder import payload

DIRECT = next(row for row in published_rows() if row.method == "Direct + P2P")
CANARY = {"pie_clip_source": 26.07}
FEW = 7
"""Images of what is no rerun: were it taken for one, it would be "partly run"."""


def found(tmp_path: Path, *runs: Path) -> Any:
    """What the page is given of published tables."""
    report = write_folder_report(runs, tmp_path / "report")
    return payload(report.page.parent / "data" / "summary.js")["published"]


def row_of(published: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    (row,) = [row for row in published["rows"] if row["method"] == method and "verdict" in row]
    return row


def test_figures_are_in_the_units_of_columns() -> None:
    values = (0.01165, 27.22, 0.05455, 0.003286, 0.8476, 25.02, 22.10)
    columns = [figure.column for figure in FIGURES]
    assert DIRECT.values == pytest.approx(dict(zip(columns, values, strict=True)))
    rows = published_rows()
    assert len({(row.method, row.table) for row in rows}) == len(rows)
    assert {row.certainty for row in rows} == {"published", "transcribed", "unverified"}
    assert all(row.table and row.values for row in rows)
    assert [row.method for row in rows if row.masks] == [
        "DirectEdit with masks by MLLM and SAM (FLUX)", "DirectEdit with masks (SD 3.5)",
    ]  # fmt: skip


def test_a_rerun_is_reproduced_within_the_tolerance(tmp_path: Path) -> None:
    inside = {**DIRECT.values, "pie_psnr": 27.22 - 0.29, "pie_mse": 0.003286 * 1.06, **CANARY}
    published = found(tmp_path, pie_run(tmp_path / "run", inside))
    row = row_of(published, "Direct + P2P")
    assert (row["verdict"], row["run"], row["edits"], row["why"]) == ("reproduced", 0, 700, "")
    assert row["means"]["pie_psnr"] == [pytest.approx(26.93), 700]
    assert published["canary"][0]["verdict"] == "agrees"
    assert row_of(published, "DDIM + P2P")["why"] == "no run here has its settings"


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_what_is_beyond_the_tolerance_is_told(tmp_path: Path, figure: Any) -> None:
    value = DIRECT.values[figure.column]
    step = figure.tolerance * (value if figure.relative else 1 / figure.factor)
    published = found(
        tmp_path, pie_run(tmp_path / "run", {**DIRECT.values, figure.column: value + 1.1 * step})
    )
    verdict = row_of(published, "Direct + P2P")["verdict"]
    assert verdict == f"off by {1.1 * step * figure.factor:+.3g} in {figure.key}"


@pytest.mark.parametrize(
    "other",
    [
        {"every": {"tau_cross": "0.8"}},
        {"every": {"model": "sd15"}},
        {"every": {"inversion": "ddim"}},
        {"every": {"dataset": "mine"}},
        {"every": {"controller": "refine"}},
        {"settings": {**SETTINGS, "seed": 0}},
        {"settings": {**SETTINGS, "model": {"dtype": "float16"}}},
        {"settings": {**SETTINGS, "inversion": {"guidance": 3.0}}},
        {"settings": {**SETTINGS, "inversion": {"guidance": 1.0, "scale": 0.5}}},
        {"settings": {**SETTINGS, "dataset": {"border": False}}},
        {"settings": {**SETTINGS, "metrics": {"pie_pixel": {"jpeg": False}}}},
        {"every": {"dataset": "pie_bench_pp"}},
        {"settings": {**SETTINGS, "dataset": {"as_released": False}}},
        {"settings": {**SETTINGS, "dataset": {"blend_words": False}}},
        {"settings": {**SETTINGS, "controller": {"cross": 0.4, "self_attn": 0.6, "weights": {"cat": 5.0}}}},
        {"settings": {**SETTINGS, "controller": {"blend_words": [["cat"], ["dog"]]}}},
        {"settings": {**SETTINGS, "sampler": {"_target_": "x.EulerSampler"}}},
        {"settings": {**SETTINGS, "sampler": {"_target_": "x.DDIMSampler", "eta": 1.0}}},
        {"settings": {**SETTINGS, "sampler": {"_target_": "x.DDIMSampler", "spacing": "trailing"}}},
        {"settings": {**SETTINGS, "model": {"lora": ["style.safetensors", 1.0]}}},
        {"settings": {**SETTINGS, "model": {"embeddings": "word.safetensors"}}},
        {"settings": {**SETTINGS, "model": {"size": [256, 256]}}},
        {"settings": {**SETTINGS, "model": {"record_fraction": 0.5}}},
        {"settings": {**SETTINGS, "run": {"repair": "mask"}}},
        {"settings": {**SETTINGS, "metrics": {"pie_clip": {"backbone": "mine"}}}},
    ],
    ids=str,
)
def test_other_settings_are_no_rerun(tmp_path: Path, other: Mapping[str, Any]) -> None:
    published = found(tmp_path, pie_run(tmp_path / "run", DIRECT.values, images=FEW, **other))
    assert row_of(published, "Direct + P2P")["verdict"] == "not run"


MASACTRL = {
    "inversion": {"_target_": "x.DDIM", "guidance": 1.0, "inverted_with": "empty"},
    "controller": {"_target_": "x.Masa", "start_step": 4, "layers": 10, "unprompted": True},
}
PNP = {
    "inversion": {
        "_target_": "x.Direct", "guidance": 1.0, "replayed_with": "empty", "pivot": "ddim",
        "negative_prompt": "ugly, blurry, black, low res, unrealistic",
    },
    "controller": {"_target_": "x.Pnp", "self_attn": 0.5, "features": 0.8, "layers": 0.5},
}  # fmt: skip
ZERO = {
    "inversion": {
        "_target_": "x.Zero", "guidance": 1.0, "lambda_ac": 20.0, "lambda_kl": 20.0, "num_reg_steps": 5,
        "num_ac_rolls": 5, "as_released": True, "shift_seed": 1234, "direct": True,
    },
    "controller": {"_target_": "x.Zero", "guidance_amount": 0.1},
}  # fmt: skip
ZERO_ALONE = {**ZERO, "inversion": {**ZERO["inversion"], "direct": False}}
ZERO_ROWS = {"controller": "pix2pix_zero", "inversion": "pix2pix_zero", "tau_cross": "", "tau_self": ""}
STYLE = {
    "inversion": {
        "_target_": "x.Style", "inner_steps": 100, "learning_rate": 0.01, "tolerance": 1e-5,
        "attention_weight": 1.0, "tau_v": 0.5, "encoder": "ViT-B-16-quickgelu", "encoder_weights": "openai",
        "network_seed": 1234,
    },
    "controller": {"_target_": "x.notebook", "cross": 0.6, "self_attn": 0.6, "edit": "by_length"},
}  # fmt: skip
STYLE_ROWS = {"controller": "notebook", "inversion": "style_diffusion", "tau_cross": "0.6", "tau_self": "0.6"}
AHEAD = {**PNP, "inversion": {**PNP["inversion"], "pivot": "reconstruction_ahead"}}
MASA_ROWS = {"controller": "masactrl", "inversion": "ddim", "tau_cross": "", "tau_self": ""}
PNP_ROWS = {"controller": "plug_and_play", "model": "sd15", "tau_cross": "", "tau_self": "0.5"}


@pytest.mark.parametrize(
    ("method", "settings", "every"),
    [
        ("DDIM + MasaCtrl", MASACTRL, MASA_ROWS),
        ("Direct + MasaCtrl", MASACTRL, {**MASA_ROWS, "inversion": "direct"}),
        ("Direct + PnP", PNP, PNP_ROWS),
        ("DDIM + PnP", AHEAD, PNP_ROWS),
        ("Direct + P2P-Zero", ZERO, ZERO_ROWS),
        ("DDIM + P2P-Zero", ZERO_ALONE, ZERO_ROWS),
        ("StyleDiffusion + P2P", STYLE, STYLE_ROWS),
    ],
)
def test_other_controllers_have_protocols_of_their_own(
    tmp_path: Path, method: str, settings: Mapping[str, Any], every: Mapping[str, Any]
) -> None:
    row = next(row for row in published_rows() if row.method == method)
    run = pie_run(tmp_path / "run", row.values, every=every, settings={**SETTINGS, **settings})
    verdicts = {one["method"]: one["verdict"] for one in found(tmp_path, run)["rows"] if "verdict" in one}
    assert {name for name, verdict in verdicts.items() if verdict != "not run"} == {method}
    assert verdicts[method] == "reproduced"
    # A setting more or less is another run.
    for part in ("inversion", "controller"):
        for key in settings[part].keys() - {"_target_"}:
            other = {**settings[part], key: "another"}
            changed = {**SETTINGS, **settings, part: other}
            place = tmp_path / f"{part}-{key}"
            again = pie_run(place, row.values, images=FEW, every=every, settings=changed)
            assert row_of(found(tmp_path, again), method)["verdict"] == "not run", key


INSTRUCTED = next(row for row in published_rows() if row.method == "InstructPix2Pix")
INSTRUCT_ROW = {
    "controller": "instruct", "inversion": "none", "model": "instruct_pix2pix",
    "tau_cross": "", "tau_self": "",
}  # fmt: skip
INSTRUCT_SETTINGS = {
    **{key: value for key, value in SETTINGS.items() if key != "inversion"},
    "editor": {"_target_": "x.InstructionEditing", "image_guidance": 1.5},
    "sampler": {"_target_": "x.EulerSampler", "ancestral": True, "spacing": None},
}


def instructed(tmp_path: Path, row: Mapping[str, Any], settings: Mapping[str, Any], images: int = 700) -> Any:
    """What the page says of the row of a run by instructions."""
    run = pie_run(
        tmp_path / "run", INSTRUCTED.values, images=images, every={**INSTRUCT_ROW, **row},
        settings={**INSTRUCT_SETTINGS, **settings},
    )  # fmt: skip
    published = found(tmp_path, run)
    others = [one for one in published["rows"] if one.get("verdict", "not run") != "not run"]
    assert [one["method"] for one in others] in ([], ["InstructPix2Pix"])
    return row_of(published, "InstructPix2Pix")


def test_a_rerun_by_instructions_is_told_from_others(tmp_path: Path) -> None:
    assert instructed(tmp_path, {}, {})["verdict"] == "reproduced"
    assert instructed(tmp_path / "few", {}, {}, FEW)["verdict"] == "partly run"


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"model": "mine"}, {}),
        ({"steps": 100}, {}),
        ({"guidance": 3.0}, {}),
        ({"dataset": "mine"}, {}),
        ({"controller": "pie"}, {}),
        ({}, {"editor": {"image_guidance": 2.0}}),
        ({}, {"sampler": {"ancestral": False, "spacing": None}}),
        ({}, {"sampler": {"ancestral": True, "spacing": "trailing"}}),
        ({}, {"sampler": {"ancestral": True, "guidance_interval": [0.2, 1.0]}}),
        ({}, {"seed": 0}),
        ({}, {"model": {"dtype": "float16"}}),
        ({}, {"dataset": {"border": False}}),
        ({"dataset": "pie_bench_pp"}, {}),
        ({}, {"model": {"lora": ["style.safetensors", 1.0]}}),
        ({}, {"run": {"repair": "words"}}),
        ({}, {"metrics": {"pie_clip": {"backbone": "mine"}}}),
    ],
    ids=str,
)
def test_other_instructions_are_no_rerun(
    tmp_path: Path, row: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    assert instructed(tmp_path, row, settings, FEW)["verdict"] == "not run"


def test_part_of_the_images_is_no_verdict(tmp_path: Path) -> None:
    published = found(tmp_path, pie_run(tmp_path / "run", {**DIRECT.values, **CANARY}, images=699))
    row = row_of(published, "Direct + P2P")
    assert (row["verdict"], row["why"]) == ("partly run", "699 of 700 images, so there is no verdict")
    assert published["canary"][0]["verdict"] == "no verdict"


def test_the_whole_run_is_judged_where_a_part_is_there_too(tmp_path: Path) -> None:
    part = pie_run(tmp_path / "a", DIRECT.values, images=5)
    row = row_of(found(tmp_path, part, pie_run(tmp_path / "b", DIRECT.values)), "Direct + P2P")
    assert (row["verdict"], row["run"]) == ("reproduced", 1)


def test_absent_columns_are_no_verdict(tmp_path: Path) -> None:
    means = {key: value for key, value in DIRECT.values.items() if key != "pie_lpips"}
    row = row_of(found(tmp_path, pie_run(tmp_path / "run", means)), "Direct + P2P")
    assert (row["verdict"], row["why"]) == ("partly run", "no value of pie_lpips")


def test_other_runs_see_nothing_of_it(tmp_path: Path) -> None:
    assert found(tmp_path, fake_run(tmp_path / "a"), fake_run(tmp_path / "b", seed=1)) is None
