"""Samplers, sizes and LoRA from the command line: a shared sweep equals solo runs, bad pairs stop early."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.app.command import Command, write_pairs
from tests.app.test_run import assert_same_rows, rows_of
from tests.models.test_lora import files
from tests.models.tiny import tiny_checkpoint

TAUS = ("0.2", "0.9")


def settings(command: Command) -> list[str]:
    picture = (np.indices((40, 30, 3)).sum(0) * 3).astype(np.uint8)
    Image.fromarray(picture).save(command.folder / "real.png")
    pair = {"source": "a red circle on grass", "target": "a blue circle on grass"}
    pairs = [{**pair, "id": "real", "image": "real.png"}, {**pair, "id": "noise"}]
    path = write_pairs(command.folder / "pairs.jsonl", pairs)
    files(command.folder, "kohya")
    return [
        "model=local", f"model.path={tiny_checkpoint().path}", "model.dtype=float64",
        "model.record_fraction=0.5", "model.size=[24,16]", "model.lora=[kohya.safetensors,0.5]",
        "dataset=jsonl", f"dataset.path={path}", "metrics=pixel", "sampler.steps=4", "controller=replace",
        "trainer.accelerator=cpu", "logger=none",
    ]  # fmt: skip


def test_a_shared_sweep_equals_solo_runs(command: Command) -> None:
    given = [*settings(command), "sampler=dpmpp_2m_sde", "inversion=noising"]
    swept = command("-m", *given, f"tau.cross={','.join(TAUS)}", "run.dir=sweep")
    assert swept.code == 0, swept.err
    alone = command(*given, f"tau.cross={TAUS[1]}", "run.dir=alone")
    assert alone.code == 0, alone.err
    ours, solo = (rows_of(command.folder / one) for one in ("sweep/1", "alone"))
    assert {row["status"] for row in solo.values()} == {"ok"}
    assert_same_rows(ours, solo, apart_from=("unet_rows_spent", "inversion_from"))
    (picture, *_) = sorted(Path(command.folder / "alone" / "images").rglob("*.png"))
    with Image.open(picture) as image:
        assert image.size == (16, 24)


def test_what_does_not_go_together_stops_before_weights_are_loaded(command: Command) -> None:
    given = settings(command)
    for changes, said in (
        (["sampler=dpmpp_2m", "inversion=ddim"], "DDIMInversion walks DDIM's steps"),
        (["sampler=ddim", "sampler.eta=0.5", "inversion=null_text"], "NullTextInversion walks DDIM's steps"),
        (["sampler=lcm", "model.lora=null", "inversion=none"], "not distilled for latent consistency"),
        (["model.size=[21,16]", "inversion=none"], "multiples of 2 pixels"),
        (["sampler.guidance_interval=[0.5,0.6]", "inversion=none"], "none of 4 steps lies in [0.5, 0.6]"),
        (["sampler.guidance_interval=[1,0.5]", "inversion=none"], "ends before it starts"),
        (["sampler.guidance_interval=[0.5,1]", "inversion=null_text"], "made for one guidance scale"),
        (["sampler=dpmpp_2m", "sampler.steps=76", "inversion=none"], "begin at timestep 913"),
    ):
        done = command(*given, *changes, "run.dir=refused")
        assert done.code == 2, (changes, done.err)
        assert said in " ".join(done.err.split()), (changes, done.err)
        assert "loading" not in done.err
