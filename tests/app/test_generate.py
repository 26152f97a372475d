"""Pictures of prompts and of the sources of a data set, from the command line and from Python."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import p2p_bench as p2p
from p2p_bench.app.api import named
from p2p_bench.data.pairs import read_pairs
from p2p_bench.editors.controlled import ControlledEditor
from p2p_bench.hashing import noise_seed
from tests.app.command import Command, Outcome, write_pairs
from tests.models.small_ip2p import small_ip2p
from tests.models.tiny import tiny_checkpoint, tiny_model

RED, BLUE = "a red circle on grass", "a blue circle on grass"
PAIRS: tuple[dict[str, Any], ...] = (
    {
        "id": "all/ü", "source": RED, "target_prompts": [BLUE, "a red star on grass"], "category": "colour",
        "blend_words": [["circle"], ["circle", "star"]], "word_weights": {"red": 2.0}, "instruction": "blue",
    },
    {"id": "own", "source": "a cat", "target": "a dog", "seed": 5},
    {"id": "real", "source": "a cat", "target": "a dog", "image": "real.png", "mask": "mask.png"},
)  # fmt: skip
MODEL = (
    "model=local", f"model.path={tiny_checkpoint().path}", "model.record_fraction=0.5", "sampler.steps=2",
    "trainer.accelerator=cpu",
)  # fmt: skip


def generate(command: Command, *arguments: str) -> Outcome:
    return command("generate", *MODEL, *arguments)


def of_pairs(command: Command, *arguments: str, pairs: Any = PAIRS) -> Outcome:
    for name in ("real.png", "mask.png"):
        Image.fromarray((np.indices((16, 16)).sum(0) > 15).astype(np.uint8) * 255).save(command.folder / name)
    path = write_pairs(command.folder / "own.jsonl", pairs)
    return generate(command, "dataset=jsonl", f"dataset.path={path}", "--out", "out", *arguments)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=int)


def levels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().permute(1, 2, 0).numpy().astype(int)


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pictures.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("sampler", ["ddim", "euler_ancestral"])
def test_a_picture_is_the_source_of_the_edit(command: Command, sampler: str) -> None:
    settings = (f"sampler={sampler}", "sampler.guidance=3.0")
    made = generate(
        command, "--prompt", BLUE, "--prompt", RED, "--count", "2", "seed=3", "--out", "g", *settings
    )
    assert made.code == 0, made.err
    assert "4 made; 16 UNet rows" in made.out
    edit = ("edit", *MODEL, *settings, "--source", RED, "--target", BLUE, "controller=replace", "seed=4")
    assert command(*edit, "--out", "e").code == 0
    files = {(line["prompt"], line["seed"]): line["file"] for line in journal(command.folder / "g")}
    assert {seed for _, seed in files} == {3, 4}
    there = pixels(command.folder / "g" / files[RED, 4])
    assert np.abs(there - pixels(command.folder / "e/source.png")).max() <= 1
    assert np.abs(there - pixels(command.folder / "g" / files[RED, 3])).max() > 1


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m_sde"])
def test_from_python(sampler: str) -> None:
    model = tiny_model()
    steps: list[tuple[int, int]] = []
    made = p2p.generate(
        model, [RED, BLUE], count=2, seed=7, steps=3, sampler=replace(named("sampler", sampler), max_rows=3),
        progress=lambda step, number: steps.append((step, number)),
    )  # fmt: skip
    assert (made.prompts, made.seeds, made.unet_rows) == ((RED, RED, BLUE, BLUE), (7, 8, 7, 8), 24)
    assert steps[-1] == (12, 12)
    again = p2p.edit(model, BLUE, RED, p2p.Refine(), seed=8, steps=3, sampler=sampler)
    assert (made.images[3] - again.images[0]).abs().max() < 1e-5
    assert (made.latents[3] - again.latents[0]).abs().max() < 1e-9
    assert (made.images[3] - made.images[2]).abs().max() > 1e-2


def test_pictures_show_and_save_themselves(tmp_path: Path) -> None:
    made = p2p.generate(tiny_model(), [RED, BLUE], steps=1)
    assert repr(made) == f"Generated({RED!r} and 1 more; 2 images of 16 x 16, 4 UNet rows)"
    assert made._repr_png_().startswith(b"\x89PNG")
    saved = made.save(tmp_path / "new")
    assert [path.name for path in saved] == ["picture_1.png", "picture_2.png", "strip.png"]
    assert np.abs(pixels(saved[1]) - levels(made.images[1])).max() <= 1
    with pytest.raises(p2p.P2PError, match="save: the pictures cannot be written"):
        made.save(saved[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "prompts: expected at least one"),
        ({"prompts": [RED, ""]}, "expected some words, got an empty prompt"),
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"count": True}, "count: expected an integer"),
        ({"seed": 2**64 - 1, "count": 2}, "seed: expected an integer in"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"guidance": 0.0}, "guidance: 0 leaves the prompts out"),
        ({"sampler": "dim"}, "Did you mean 'ddim'?"),
        ({"sampler": "euler", "eta": 0.5}, "eta: it is DDIM's"),
    ],
)
def test_arguments_in_python(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(p2p.P2PError, match=message):
        p2p.generate(tiny_model(), **{"prompts": RED, "steps": 1, **arguments})


def test_a_model_that_is_told_what_to_change_generates_nothing() -> None:
    with pytest.raises(p2p.P2PError, match="edits an image by an instruction"):
        p2p.generate(small_ip2p().load(), RED, steps=1)


def test_a_source_alone_has_no_targets() -> None:
    request = p2p.EditRequest("a", RED, (p2p.Target(BLUE),), alone=True)
    (result,) = p2p.run_edits(tiny_model(), [request], steps=1)
    assert "a source that is wanted alone has none" in str(result.error)


def test_sources_of_a_data_set_become_real_images(command: Command) -> None:
    made = of_pairs(command)
    assert made.code == 0, made.err
    assert "1 of 3 pairs bring their own image and are left out; --all takes them too" in made.err
    assert "pairs: dataset=jsonl dataset.path=out/pairs.jsonl" in made.out
    out = command.folder / "out"
    there, before = read_pairs(out / "pairs.jsonl"), read_pairs(command.folder / "own.jsonl")[:2]
    for pair, own in zip(there, before, strict=True):
        assert pair.image is not None
        assert {**vars(pair), "image": None} == vars(own)
    # The picture of a pair is the source that a run makes of it, by its id or its own seed.
    for pair, seed in zip(there, (noise_seed(0, "all/ü"), 5), strict=True):
        again = p2p.generate(tiny_model(torch.float32), pair.source_prompt, seed=seed, steps=2)
        assert np.abs(pixels(pair.image) - levels(again.images[0])).max() <= 1
    run = ("dataset=jsonl", "dataset.path=out/pairs.jsonl", "metrics=none", "logger=none", "inversion=ddim")
    ran = command("run", *MODEL, *run, "controller=refine", "run.dir=run")
    assert ran.code == 0, ran.err
    told = json.loads((out / "generated.json").read_text("utf-8"))
    assert told["settings"]["sampler"]["steps"] == 2
    assert len(told["checksums"]["model"]) == 64
    assert told["made_by"][0]["torch"] == torch.__version__.partition("+")[0]


def test_all_takes_the_place_of_images_too_and_drops_their_masks(command: Command) -> None:
    made = of_pairs(command, "--all")
    assert made.code == 0, made.err
    assert "masks and exact answers of 1 pairs are of their own images" in made.err
    (pair,) = read_pairs(command.folder / "out/pairs.jsonl")[2:]
    assert (pair.id, pair.mask, pair.image) == ("real", None, command.folder / "out/images/real.png")
    none = of_pairs(command, pairs=PAIRS[2:])
    assert none.code == 2
    assert "all of its 1 pairs bring their own image; add --all" in none.err


def test_rendered_scenes_keep_what_is_asked_of_them(command: Command) -> None:
    made = generate(command, "dataset=world_real", "dataset.limit=1", "--all", "--out", "out")
    assert made.code == 0, made.err
    (pair,) = read_pairs(command.folder / "out/pairs.jsonl")
    assert not pair.rendered
    assert pair.image is not None
    assert pair.scene is not None
    assert pair.scene_edit is not None


def test_started_again_it_makes_what_is_missing(command: Command) -> None:
    assert of_pairs(command, "dataset.limit=1").code == 0
    out = command.folder / "out"
    more = of_pairs(command)
    assert "1 made, 1 were there" in more.out
    done = of_pairs(command)
    assert "0 made, 2 were there; 0 UNet rows" in done.out
    assert "loading" not in done.err
    first, second = read_pairs(out / "pairs.jsonl")
    assert first.image is not None
    assert second.image is not None
    kept = pixels(first.image)
    first.image.unlink()
    Image.new("RGB", (16, 16)).save(second.image)  # another picture under its name
    assert "2 made;" in of_pairs(command).out
    assert np.array_equal(pixels(first.image), kept)
    # A line that the machine's end tore, and a prompt that was corrected, are made again.
    lines = (out / "pictures.jsonl").read_text("utf-8").splitlines()
    (out / "pictures.jsonl").write_text(lines[0] + "\n" + lines[1][:20], "utf-8")
    assert "1 made, 1 were there" in of_pairs(command).out
    other = ({**PAIRS[0], "source": "a green circle on grass"}, PAIRS[1])
    assert "1 made, 1 were there" in of_pairs(command, pairs=other).out
    assert read_pairs(out / "pairs.jsonl")[0].source_prompt == "a green circle on grass"


def test_a_folder_of_other_settings_or_other_things_is_refused(command: Command) -> None:
    assert of_pairs(command).code == 0
    before = (command.folder / "out/pairs.jsonl").read_bytes()
    for settings, difference in (
        ("sampler.steps=3", "settings.sampler.steps: 2 there, 3 here"),
        ("seed=1", "settings.seed: 0 there, 1 here"),
        ("dataset.fit=pad", "settings.dataset.fit: 'crop' there, 'pad' here"),
    ):
        refused = of_pairs(command, settings)
        assert refused.code == 2
        assert difference in refused.err
    refused = generate(command, "--prompt", RED, "--out", "out")
    assert "settings.of: 'pairs' there, 'prompts' here" in refused.err
    assert (command.folder / "out/pairs.jsonl").read_bytes() == before
    # Nobody's own pairs are written over.
    refused = generate(command, "--prompt", RED, "--out", ".")
    assert refused.code == 2
    assert ". holds other files, such as 'mask.png'; choose a new or an empty folder" in refused.err


def test_one_that_fails_leaves_the_others(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = ControlledEditor.edit

    def broken(self: Any, requests: Any, progress: Any = None) -> Any:
        made = edit(self, requests, progress)
        for result in made:
            if result.id == "own":
                result.images.fill_(torch.nan)
        return made

    long = {"id": "long", "source": "a cat " * 30, "target": "a dog"}
    with monkeypatch.context() as patched:
        patched.setattr(ControlledEditor, "edit", broken)
        made = of_pairs(command, pairs=(*PAIRS[:2], long))
    assert made.code == 1
    assert (
        "error: 'own': ControlledEditor.edit made an image of the source with values that are not" in made.err
    )
    assert "error: 'long': source prompt" in made.err
    assert "1 made, 2 failed" in made.out
    out = command.folder / "out"
    assert [pair.id for pair in read_pairs(out / "pairs.jsonl")] == ["all/ü"]
    assert {line["id"] for line in journal(out) if "error" in line} == {"own", "long"}
    again = of_pairs(command, pairs=(*PAIRS[:2], long))
    assert "1 made, 1 were there, 1 failed" in again.out
    few = of_pairs(command, pairs=(long,))
    assert few.code == 2
    assert "loading" not in few.err


def test_an_interrupt_keeps_what_is_finished(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = ControlledEditor.edit

    def interrupted(self: Any, requests: Any, progress: Any = None) -> Any:
        if requests[0].id == "own":
            raise KeyboardInterrupt
        return edit(self, requests, progress)

    with monkeypatch.context() as patched:
        patched.setattr(ControlledEditor, "edit", interrupted)
        stopped = of_pairs(command, "run.batch_size=1")
    assert stopped.code == 75
    assert [pair.id for pair in read_pairs(command.folder / "out/pairs.jsonl")] == ["all/ü"]
    assert "1 made, 1 were there" in of_pairs(command).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", RED, "dataset=world_pairs"], "--prompt takes the place of dataset="),
        (["--prompt", RED, "--all"], "--all is for a data set"),
        (["--prompt", RED, "--prompt", RED], "is given twice"),
        (["--prompt", RED, "--count", "0"], "--count: expected at least 1, got 0"),
        (["--count", "2"], "--count goes with --prompt"),
        (["--prompt", RED, "--nonsense"], "unknown option --nonsense"),
        (["--prompt", RED, "controller=replace"], "generate makes no edits and no scores"),
        (["--prompt", RED, "trainer.devices=2"], "generate makes no edits and no scores"),
        (["--prompt", RED, "trainer.accelerator=abacus"], "expected auto, cpu, cuda or mps"),
        (["--prompt", RED, "sampler.stps=2"], "Did you mean 'steps'"),
        (["--prompt", RED, "sampler.guidance=0.0"], "guidance: 0 leaves the prompts out"),
        (["--prompt", RED, "--out", "taken/file"], "cannot be written"),
        (["--prompt", " "], "source prompt: expected some words"),
        (["dataset=jsonl", "dataset.path=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["model.path=nowhere", "--prompt", RED], "nowhere"),
    ],
)
def test_bad_arguments_are_told_before_weights_are_read(
    command: Command, arguments: list[str], message: str
) -> None:
    (command.folder / "taken").write_text("a file")
    outcome = generate(command, *arguments)
    assert outcome.code in (2, 3)
    assert message in outcome.err
    assert "loading" not in outcome.err
    assert not (command.folder / "outputs").exists()
