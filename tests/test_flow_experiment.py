"""The flow experiment on a tiny untrained checkpoint: methods and controls, resumption, tables."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from p2p_bench.resources import resource_path
from tests.models import small_sd3

FOLDER = resource_path("experiments", "flow")
PAIRS, STEPS = 3, 4


@pytest.fixture(scope="module")
def measure() -> Iterator[ModuleType]:
    names = ("measure", "tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module("measure")
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 3 without T5, with the world's tokenizer."""
    place = resource_path("p2p_bench", "world", "weights", "pipeline", "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(place)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {
            "vocab_size": len(tokenizer), "intermediate_size": 32, "num_hidden_layers": 2,
            "projection_dim": 16, "num_attention_heads": 2, "max_position_embeddings": 24,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
        encoders = [
            CLIPTextModelWithProjection(CLIPTextConfig(hidden_size=size, **config)).eval()
            for size in (16, 24)
        ]
        pipeline = StableDiffusion3Pipeline(
            transformer=small_sd3._transformer("without_t5"), vae=small_sd3._vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), text_encoder=encoders[0],
            tokenizer=tokenizer, text_encoder_2=encoders[1], tokenizer_2=tokenizer,
            text_encoder_3=None, tokenizer_3=None,
        )  # fmt: skip
    path = tmp_path_factory.mktemp("flow") / "checkpoint"
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture(scope="module")
def out(measure: ModuleType, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    run(measure, checkpoint, place, "flowedit", "uni_edit", "fireflow")
    return place


def run(measure: ModuleType, checkpoint: Path, out: Path, *only: str) -> None:
    given = ["--model", str(checkpoint), "--pairs", str(PAIRS), "--steps", str(STEPS), "--out", str(out)]
    measure.main([*given, *(["--only", *only] if only else [])])


def test_every_figure_is_there(out: Path) -> None:
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 3 * PAIRS
    assert len({(row["method"], row["control"], row["sample"]) for row in rows}) == len(rows)
    scores = {(row["method"], row["control"]): row["answer_psnr"] for row in rows[::PAIRS]}
    assert len(set(scores.values())) == len(scores)  # every control does something, late starts or not
    for row in rows:
        assert row["error"] is None
        assert row["rows"] > 0
        assert row["seconds"] > 0
        assert row["answer_psnr"] is not None
        # FlowEdit's source row is the image.
        assert row["method"] != "flowedit" or row["recon_psnr"] > 40
    by = {(row["method"], row["control"]): row["rows"] for row in rows}
    assert (
        by["fireflow", "none"] == 5 + 2 * 5 * 2
    )  # one more pass than steps; guided twice, source and target
    assert by["flowedit", "none"] == 2 * 3 * 2  # 3 of 6 steps
    assert by["uni_edit", "none"] == 4 + 3 * 3  # 3 of 6 steps, unguided; two rows a step for the target
    made = json.loads((out / "results.json").read_text())
    assert made["images"] == PAIRS
    assert [(line["method"], line["control"]) for line in made["lines"]] == [
        (name, control)
        for name in ("fireflow", "flowedit", "uni_edit")
        for control in ("none", "replace / refine", "image q-k")
    ]
    assert len(made["first_world"]) == 3
    text = (out / "results.md").read_text()
    for part in ("fireflow (4)", "uni_edit (6)", "first world: ", "Spearman"):
        assert part in text, part


def test_a_run_started_again_does_what_is_missing(measure: ModuleType, checkpoint: Path, out: Path) -> None:
    file = out / "rows.jsonl"
    before = file.read_text()
    run(measure, checkpoint, out, "flowedit", "uni_edit", "fireflow")
    assert file.read_text() == before
    lines = before.splitlines(keepends=True)
    file.write_text("".join(lines[:-4]) + lines[-4][:40])  # cut off in the middle of a line
    run(measure, checkpoint, out, "flowedit", "uni_edit", "fireflow")
    made = json.loads((out / "results.json").read_text())
    assert made["images"] == PAIRS
    again = {json.dumps(json.loads(line)["answer_psnr"]) for line in before.splitlines()}
    found = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    assert {json.dumps(row["answer_psnr"]) for row in found} == again


def test_other_settings_are_not_mixed_in(measure: ModuleType, checkpoint: Path, out: Path) -> None:
    known = (out / "rows.jsonl").read_text()
    given = ["--model", str(checkpoint), "--pairs", str(PAIRS), "--steps", "6", "--out", str(out), "--report"]
    measure.main([*given, "--only", "fireflow"])
    assert json.loads((out / "results.json").read_text())["images"] == 0
    assert (out / "rows.jsonl").read_text() == known
    with pytest.raises(SystemExit, match="expected any of ode, uni_inv"):
        measure.main([*given, "--only", "flow_edit"])


def test_the_page_takes_the_tables(measure: ModuleType) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    made = measure.with_tables(page, "a table\n")
    assert "a table\n<!-- end of flow -->" in made
    assert measure.with_tables(made, "a table\n") == made
    every = measure.methods(4.0)
    assert every["flowedit"].inversion.guidance == pytest.approx(4.0 * 13.5 / 7)
