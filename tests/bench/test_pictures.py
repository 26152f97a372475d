"""Pictures: fixed scales, safe names."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from p2p_bench.bench.pictures import difference_image, file_stem, save_png
from p2p_bench.editing.pictures import colours, heatmap_image, strip, to_uint8


def test_the_difference_has_a_fixed_scale():
    black, grey, white = (torch.full((3, 4, 5), value) for value in (0.0, 0.25, 1.0))
    none, half, all_of_it = (difference_image(black, other) for other in (black, grey, white))
    assert (none == none[:, :1, :1]).all()
    lightness = [float(image.mean()) for image in (none, half, all_of_it)]
    assert lightness == sorted(lightness)
    assert torch.equal(difference_image(black, torch.full((3, 4, 5), 0.5)), all_of_it)
    assert torch.equal(difference_image(grey, black), half)


def test_a_heatmap_lights_up_its_place():
    heat = torch.zeros(4, 4)
    heat[0, 0] = 0.01
    picture = heatmap_image(torch.full((3, 16, 16), 0.5), heat)
    assert picture.shape == (3, 16, 16)
    assert picture[:, :3, :3].mean() > 2 * picture[:, 8:, 8:].mean()
    assert 0 <= picture.min() <= picture.max() <= 1
    assert torch.isfinite(heatmap_image(torch.zeros(3, 16, 16), torch.zeros(4, 4))).all()


def test_strip():
    black, white = torch.zeros(3, 4, 5), torch.ones(3, 4, 5)
    row = strip({"source": black, "target 1": white}, side=12, gap=8)
    assert row.shape == (3, 20 + 8 + 3 * 4 + 8, 8 + 2 * (3 * 5 + 8))
    assert (row[:, 28:40, 8:23] == 0).all()
    assert (row[:, 28:40, 31:46] == 1).all()
    assert row[:, :20, 8:].min() < 0.5  # the titles


def test_saved_pictures_are_rounded_and_clipped(tmp_path):
    image = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0]).expand(3, 2, 5)
    save_png(tmp_path / "new" / "x.png", image)
    with Image.open(tmp_path / "new" / "x.png") as file:
        back = np.asarray(file)
    assert back.shape == (2, 5, 3)
    assert back[0, :, 0].tolist() == [0, 128, 255, 255, 0]
    assert np.array_equal(back, to_uint8(image))


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_file_stems_are_safe_and_distinct(names):
    stems = [file_stem(name) for name in names]
    assert stems[0].lower() != stems[1].lower()  # some file systems ignore case
    for stem in stems:
        assert stem == stem.lower()
        assert not set(stem) & set('/\\:*?"<>| \0')
        assert stem.strip(".")
        assert len(stem) < 100


def test_harmless_names_stay():
    assert file_stem("swap_colour-003") == "swap_colour-003"
    assert file_stem("../x").startswith("x-")


def test_a_palette_keeps_the_picture_in_a_smaller_file(tmp_path):
    ramp = colours(torch.linspace(0, 1, 64).expand(64, 64) * torch.linspace(0.2, 1, 64)[:, None])
    for name, palette in (("all", False), ("main", True)):
        save_png(tmp_path / f"{name}.png", ramp, palette=palette)
    with Image.open(tmp_path / "all.png") as exact, Image.open(tmp_path / "main.png") as main:
        difference = np.abs(np.asarray(exact, float) - np.asarray(main.convert("RGB"), float))
    assert difference.mean() < 4
    assert difference.max() < 48
    assert (tmp_path / "main.png").stat().st_size < 0.75 * (tmp_path / "all.png").stat().st_size
