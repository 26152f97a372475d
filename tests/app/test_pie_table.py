"""`experiment=pie_table`: the methods of the published table, each with its own settings, on fake data."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import OmegaConf

from p2p_bench.app.compose import compose
from p2p_bench.report.protocols import INVERSIONS, PROTOCOLS, is_instructed, is_setting
from p2p_bench.report.published import FIGURES, protocol_of, published_rows
from tests.app.command import Command
from tests.app.test_run import rows_of
from tests.data.fake.pie_bench import make as make_pie
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint
from tests.models.tiny_clip import tiny_clip

METHODS = ("ddim", "null_text", "negative_prompt", "direct")


OTHERS = {
    "pie_table_masactrl": ("DDIM + MasaCtrl", "Direct + MasaCtrl"),
    "pie_table_pnp": ("DDIM + PnP", "Direct + PnP"),
    "pie_table_p2p_zero": ("DDIM + P2P-Zero", "Direct + P2P-Zero"),
}


@pytest.mark.parametrize("experiment", OTHERS)
def test_the_rows_of_other_controllers_are_run_with_their_protocols(
    command: Command, experiment: str
) -> None:
    done = command(
        "-m", f"experiment={experiment}", f"dataset.path={make_pie(command.folder / 'pie')}", "model=local",
        f"model.path={tiny_checkpoint().path}", "model.record_fraction=0.5", "sampler.steps=5",
        "metrics=pie_parity", "~metrics.pie_structure", "~metrics.pie_lpips", "~metrics.pie_clip",
        "logger=csv", "trainer.accelerator=cpu", "run.dir=table", "run.truncate=true",
    )  # fmt: skip
    jobs = sorted(path for path in (command.folder / "table").iterdir() if path.name.isdecimal())
    assert len(jobs) == len(OTHERS[experiment]), done.err
    for job, method in zip(jobs, OTHERS[experiment], strict=True):
        summary = json.loads((job / "summary.json").read_text(encoding="utf-8"))
        settings, protocol = summary["settings"], PROTOCOLS[method]
        for key, wanted in (("inversion", protocol.inversion), ("controller", protocol.controller)):
            assert {name: value for name, value in settings[key].items() if name != "_target_"} == wanted
        rows = pq.read_table(job / "results.parquet").to_pylist()
        assert {row["status"] for row in rows} == {"ok"}, [row["error"] for row in rows]
        told = {(row["tau_cross"], row["tau_self"]) for row in rows}
        assert told == {(protocol.tau_cross, protocol.tau_self)}
    config = compose([f"experiment={experiment}"], keep_hydra=True)
    swept = config.hydra.sweeper.params
    points = [f"{key}={value}" for key in swept for value in str(swept[key]).split(",")]
    for point, method in zip(points, OTHERS[experiment], strict=True):
        asked = OmegaConf.to_container(compose([f"experiment={experiment}", point]))
        assert isinstance(asked, dict)
        assert is_setting(asked, PROTOCOLS[method]), method
    assert (config.model.name, config.model.dtype, config.seed) == (protocol.model, "float32", 1234)
    assert (config.sampler.steps, config.sampler.guidance) == (50, 7.5)


def test_every_method_of_the_table_that_is_here_is_run(command: Command) -> None:
    pie = make_pie(command.folder / "pie")
    done = command(
        "-m", "experiment=pie_table", f"dataset.path={pie}", "model=local",
        f"model.path={tiny_checkpoint().path}",
        "model.record_fraction=0.5", "sampler.steps=2", "metrics=pie_parity", "~metrics.pie_structure",
        "~metrics.pie_lpips", "~metrics.pie_clip", "logger=csv", "trainer.accelerator=cpu", "run.dir=table",
    )  # fmt: skip
    assert (command.folder / "table" / "0" / "summary.json").is_file(), done.err
    jobs = sorted(path for path in (command.folder / "table").iterdir() if path.name.isdecimal())
    settings = [json.loads((job / "summary.json").read_text(encoding="utf-8"))["settings"] for job in jobs]
    found = [(one["inversion"], one["seed"], one["dataset"]["as_released"]) for one in settings]
    plain = [
        ({key: value for key, value in node.items() if key != "_target_"}, *rest) for node, *rest in found
    ]
    assert plain == [(INVERSIONS[method], 1234, True) for method in METHODS]
    report = command("report", "table")
    assert report.code == 0, report.err
    page = (command.folder / "table" / "report" / "data" / "summary.js").read_text(encoding="utf-8")
    # A tiny model is no Stable Diffusion: nothing is taken for a rerun.
    assert page.count('"not run"') == sum(bool(row.controller) for row in published_rows())


def test_the_row_of_style_diffusion_is_run_with_its_protocol(command: Command) -> None:
    told = ("experiment=pie_table_stylediffusion", f"dataset.path={make_pie(command.folder / 'pie')}")
    tiny = (
        "model=local", f"model.path={tiny_checkpoint().path}", "model.record_fraction=0.5", "sampler.steps=3",
        "metrics=pie_parity", "~metrics.pie_structure", "~metrics.pie_lpips", "~metrics.pie_clip",
        "logger=csv", "trainer.accelerator=cpu", "run.truncate=true", "run.dir=styled",
    )  # fmt: skip
    # The published encoder is not at hand, and is not as wide as the tiny model's text.
    refused = command(*told, *tiny)
    assert refused.code in (2, 3)
    assert "ViT-B-16" in refused.err
    encoder = ("inversion.encoder=null", f"inversion.encoder_weights={tiny_clip()}")
    done = command(*told, *tiny, *encoder, "inversion.inner_steps=2")
    assert done.code == 0, done.err
    summary = json.loads((command.folder / "styled" / "summary.json").read_text(encoding="utf-8"))
    settings, protocol = summary["settings"], PROTOCOLS["StyleDiffusion + P2P"]
    assert len(summary["checksums"]["inversion"]) == 64
    assert {key: value for key, value in settings["controller"].items() if key != "_target_"} == (
        protocol.controller
    )
    own = {"encoder": None, "encoder_weights": tiny_clip(), "inner_steps": 2}
    found = {key: value for key, value in settings["inversion"].items() if key != "_target_"}
    assert found == {**protocol.inversion, **own}
    rows = rows_of(command.folder / "styled")
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert {(row["tau_cross"], row["tau_self"]) for row in rows.values()} == {("0.6", "0.6")}
    assert all(row["unet_rows_backward"] > 0 for row in rows.values())
    config = compose([told[0]])
    assert {key: config.inversion[key] for key in config.inversion if key != "_target_"} == protocol.inversion
    assert (config.model.name, config.model.dtype, config.seed) == ("sd14", "float32", 1234)
    assert (config.sampler.steps, config.sampler.guidance) == (50, 7.5)
    assert (config.dataset.blend_words, config.dataset.border) == (False, True)


def test_images_are_edited_by_their_instructions(command: Command) -> None:
    pie = make_pie(command.folder / "pie")
    done = command(
        "experiment=pie_table_instruct", f"dataset.path={pie}", "model=local",
        f"model.path={small_ip2p().path}",
        "sampler.steps=2", "metrics=pie_parity", "~metrics.pie_structure", "~metrics.pie_lpips",
        "~metrics.pie_clip", "logger=csv", "trainer.accelerator=cpu", "run.dir=told",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_of(command.folder / "told")
    assert len(rows) == 3
    assert {row["control"] for row in rows.values()} == {"told 'make the circle blue', image guidance 1.5"}
    assert all(row["pie_psnr"] > 0 for key, row in rows.items() if not key[0].startswith("9"))
    composed = compose(["experiment=pie_table_instruct"])
    plain = OmegaConf.to_container(composed)
    assert isinstance(plain, dict)
    model, sampler = composed.model, composed.sampler
    asked = {
        "dataset": "pie_bench", "model": model.name, "controller": "instruct", "steps": sampler.steps,
        "guidance": sampler.guidance,
    }  # fmt: skip
    assert is_instructed(plain, [asked])


def test_the_experiment_has_the_settings_that_a_rerun_is_known_by() -> None:
    config = compose(["experiment=pie_table"], keep_hydra=True)
    assert (config.model.name, config.model.dtype, config.seed) == ("sd14", "float32", 1234)
    assert (config.sampler.steps, config.sampler.guidance) == (50, 7.5)
    assert (config.controller.cross, config.controller.self_attn) == (0.4, 0.6)
    assert config.hydra.sweeper.params.inversion.split(",") == list(METHODS)
    own = [row for row in published_rows() if row.controller == "pie"]
    assert {row.inversion for row in own} == set(METHODS)
    assert all(protocol_of(row).inversion == INVERSIONS[row.inversion] for row in own)
    assert {row.method for row in published_rows() if row.controller} - {row.method for row in own} == {
        "InstructPix2Pix",
        "StyleDiffusion + P2P",
        *(method for methods in OTHERS.values() for method in methods),
    }
    for row in own:
        asked = OmegaConf.to_container(compose(["experiment=pie_table", f"inversion={row.inversion}"]))
        assert isinstance(asked, dict)
        assert is_setting(asked, protocol_of(row)), row.method
    for method in METHODS:
        node = compose([f"inversion={method}"]).inversion
        assert {key: node[key] for key in node if key != "_target_"} == INVERSIONS[method]
    columns = {figure.column for figure in FIGURES}
    text = (Path(__file__).parents[2] / "conf" / "metrics" / "pie_parity.yaml").read_text(encoding="utf-8")
    assert {f"pie_{name}" for name in ("structure", "pixel", "lpips", "clip")} == set(yaml.safe_load(text))
    assert len(columns) == 7
