"""`p2p-bench edit`: one edit, as pictures."""

import numpy as np
import pytest
from PIL import Image

from tests.models.tiny import tiny_checkpoint

RED, BLUE = "a red circle on grass", "a blue circle on grass"


@pytest.fixture
def edit(command):
    """`p2p-bench edit` on the tiny model with two steps."""
    model = ["model=local", f"model.path={tiny_checkpoint().path}", "model.record_fraction=0.5"]

    def run(*arguments):
        return command("edit", *model, "sampler.steps=2", "trainer.accelerator=cpu", *arguments)

    run.folder = command.folder
    return run


def size(path):
    """Width and height of a picture."""
    with Image.open(path) as image:
        return image.size


def test_pictures_of_an_edit(edit):
    outcome = edit("--source", RED, "--target", BLUE, "--target", "a red star on grass", "--out", "out")
    assert outcome.code == 0, outcome.err
    out = edit.folder / "out"
    names = {path.stem for path in out.iterdir()}
    assert {"source", "target_1", "target_2", "difference_1", "difference_2", "strip"} < names
    assert {"heatmap_0_red", "heatmap_1_blue", "heatmap_0_circle", "heatmap_2_star"} < names
    assert str(out.relative_to(edit.folder) / "strip.png") in outcome.out
    assert size(out / "target_1.png") == (16, 16)
    assert size(out / "strip.png") == (8 + 9 * (12 * 16 + 8), 20 + 8 + 12 * 16 + 8)


def test_pictures_of_attention_on_demand(edit):
    two = ["--target", BLUE, "--target", "a red star in fog"]
    names = {"tokens.png", "self_components.png", "steps_1.png", "steps_1.gif", "steps_2.png", "steps_2.gif"}
    outcome = edit("--source", RED, *two, "--out", "out", "--heatmaps", "controller=auto")
    assert outcome.code == 0, outcome.err
    assert "attention: out/heatmaps" in outcome.out
    assert {path.name for path in (edit.folder / "out/heatmaps").iterdir()} == names
    with Image.open(edit.folder / "out/heatmaps/steps_1.gif") as animation:
        assert animation.n_frames == 2
    outcome = edit("--source", RED, *two, "--out", "out", "--heatmaps", "elsewhere", "sampler.steps=1")
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (edit.folder / "elsewhere").iterdir()} == names


def test_local_blend_by_words_and_by_a_mask(edit):
    def difference(*arguments):
        outcome = edit(
            "--source", RED, "--target", BLUE, "--out", "out", "controller=local_blend", *arguments
        )
        assert outcome.code == 0, outcome.err
        pictures = []
        for name in ("source", "target_1"):
            with Image.open(edit.folder / "out" / f"{name}.png") as image:
                pictures.append(np.asarray(image, dtype=int))
        return np.abs(pictures[0] - pictures[1]).sum()

    Image.new("L", (16, 16), 0).save(edit.folder / "nothing.png")
    empty = edit("--source", RED, "--target", BLUE, "controller=local_blend", "controller.mask=nothing.png")
    assert empty.code == 2
    assert "the mask is empty" in empty.err
    Image.new("L", (16, 16), 255).save(edit.folder / "all.png")
    everything = difference("controller.mask=all.png")
    assert everything > 0
    assert difference("controller.words=[circle]", "controller.threshold=0.9") != everything


def test_settings_change_the_edit(edit):
    def picture(folder, *settings):
        assert edit("--source", RED, "--target", BLUE, "--out", folder, *settings).code == 0
        with Image.open(edit.folder / folder / "target_1.png") as image:
            return np.asarray(image, dtype=int)

    plain = picture("a", "controller=none")
    assert np.array_equal(picture("b", "controller=replace", "tau.cross=0.0", "tau.self_attn=0.0"), plain)
    assert not np.array_equal(picture("c", "controller=replace", "tau.cross=1.0", "tau.self_attn=1.0"), plain)
    assert not np.array_equal(picture("d", "controller=none", "seed=1"), plain)


def test_a_given_image_is_inverted(edit):
    Image.new("L", (40, 24), 90).save(edit.folder / "grey.png")
    outcome = edit("--source", RED, "--target", BLUE, "--image", "grey.png", "--out", "out")
    assert outcome.code == 0, outcome.err
    assert "10 UNet rows" in outcome.out  # 2 x 2 x 2 for source and target, 2 for the inversion
    assert "image: grey.png (40 x 24 pixels, its middle brought to 16 x 16)\n" in outcome.out
    out = edit.folder / "out"
    strip = {"image", "vae_reconstruction", "source_inverted", "target_1"}
    assert strip < {path.stem for path in out.iterdir()}
    refused = edit(
        "--source", RED, "--target", BLUE, "--image", "grey.png", "--out", "plain", "inversion=none"
    )
    assert refused.code == 2
    assert "--image: inversion=none would draw another picture from noise" in refused.err
    assert not (edit.folder / "plain").exists()


@pytest.mark.parametrize("option", ["--out", "--heatmaps"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(edit, option):
    (edit.folder / "taken").write_text("a file where a folder would have to be")
    outcome = edit("--source", RED, "--target", BLUE, option, "taken/file")
    assert outcome.code == 2
    assert "taken is a file)" in outcome.err
    assert "loading model" not in outcome.err
    assert {path.name for path in edit.folder.iterdir()} == {"taken"}


def test_without_out_a_new_folder_is_made(edit):
    assert edit("--source", RED, "--target", BLUE).code == 0
    assert len(list(edit.folder.glob("outputs/edit/*/strip.png"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "a blue circle", "controller=replace"], "equally many words"),
        (["--target", " "], "empty prompt"),
        (["--target", BLUE, "--image", "nowhere.png"], "nowhere.png: no such image file"),
        (["--target", BLUE, "tau=sweep3"], "tau.sweep: `edit` makes one variant"),
        (["--target", BLUE, "tau.cross=3"], "tau.cross: expected values in [0, 1]"),
        (
            ["--target", BLUE, "trainer.accelerator=abacus"],
            "trainer.accelerator: expected auto, cpu, cuda or mps",
        ),
        (["--target", BLUE, "--out", "taken/file"], "cannot be written"),
        (["--target", BLUE, "--heatmaps", "taken/file"], "pictures of attention cannot be written"),
        (["--target", BLUE, "controller=local_blend"], "local_blend words: name the words"),
        (
            ["--target", BLUE, "controller=local_blend", "controller.words=[red]"],
            "word 'red' is not in the prompt 'a blue circle on grass'",
        ),
        (
            ["--target", BLUE, "controller=local_blend", "controller.mask=none.png"],
            "none.png: no such image file",
        ),
    ],
)
def test_bad_input_is_one_message(edit, arguments, message):
    (edit.folder / "taken").write_text("a file where a folder would have to be")
    outcome = edit("--source", RED, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("error:") == 1
