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
    outcome = edit(
        "--source", RED, "--target", BLUE, "--image", "grey.png", "--out", "plain", "inversion=none"
    )
    assert "8 UNet rows" in outcome.out


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
    ],
)
def test_bad_input_is_one_message(edit, arguments, message):
    (edit.folder / "taken").write_text("a file where a folder would have to be")
    outcome = edit("--source", RED, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("error:") == 1
