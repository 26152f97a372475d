from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import p2p_bench as p2p
from p2p_bench.editing.images import as_source_image
from tests.models.tiny import tiny_model


def gradient(mode: str, size: tuple[int, int] = (16, 16)) -> Image.Image:
    pixels = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_tensors_of_both_ranks_are_taken_as_they_are() -> None:
    image = torch.rand(3, 16, 16)
    assert torch.equal(as_source_image(image, (16, 16)), image)
    assert torch.equal(as_source_image(image[None], (16, 16)), image)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_files_and_pil_images_agree(mode: str, tmp_path: Path) -> None:
    image = gradient(mode)
    image.save(tmp_path / "image.png")
    opened = as_source_image(image, (16, 16))
    assert opened.shape == (3, 16, 16)
    assert torch.allclose(opened, as_source_image(tmp_path / "image.png", (16, 16)), atol=1e-6)
    assert torch.equal(opened, as_source_image(str(tmp_path / "image.png"), (16, 16)))


def test_transparent_pixels_are_white_and_grey_is_equal_in_all_channels() -> None:
    assert bool((as_source_image(Image.new("RGBA", (16, 16), (9, 9, 9, 0)), (16, 16)) == 1).all())
    grey = as_source_image(gradient("L"), (16, 16))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])


def test_other_sizes_are_cropped_to_the_centre_and_resized() -> None:
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (16, 0, 48, 32))
    image = as_source_image(wide, (16, 16))
    assert torch.allclose(image, torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 16, 16), atol=1e-6)


def test_a_picture_file_is_edited(tmp_path: Path) -> None:
    gradient("RGB", (40, 24)).save(tmp_path / "image.png")
    result = p2p.edit(tiny_model(), "a cat", "a dog", p2p.Replace(), image=tmp_path / "image.png", steps=2)
    assert result.images.shape == (2, 3, 16, 16)
    assert result.inversion_rows == 2
