from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import p2p_bench as p2p
from p2p_bench.data.images import fit_image
from p2p_bench.editing.images import as_source_image
from p2p_bench.errors import DataError
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


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_the_fit_is_the_callers(fit: str, tmp_path: Path) -> None:
    wide = torch.rand(3, 12, 24, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((wide.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    exact = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    picture.save(tmp_path / "image.png")
    expected = fit_image(exact, (16, 16), fit)
    for image in (exact, picture, tmp_path / "image.png"):
        assert torch.allclose(as_source_image(image, (16, 16), fit), expected, atol=1e-6)
    result = p2p.edit(tiny_model(), "a cat", "a dog", image=exact, fit=fit, steps=1)
    assert torch.allclose(
        result.vae_reconstruction,
        p2p.edit(tiny_model(), "a cat", "a dog", image=expected, steps=1).vae_reconstruction,
        atol=1e-6,
    )


def test_other_sizes_can_be_refused() -> None:
    with pytest.raises(
        DataError, match=r"24 x 12 pixels, the model works at 16 x 16; .* crop, pad or resize"
    ):
        as_source_image(Image.new("RGB", (24, 12)), (16, 16), "error")
    with pytest.raises(DataError, match="24 x 12 pixels"):
        as_source_image(torch.zeros(3, 12, 24), (16, 16))


def test_a_picture_file_is_edited(tmp_path: Path) -> None:
    gradient("RGB", (40, 24)).save(tmp_path / "image.png")
    result = p2p.edit(tiny_model(), "a cat", "a dog", p2p.Replace(), image=tmp_path / "image.png", steps=2)
    assert result.images.shape == (2, 3, 16, 16)
    assert result.inversion_rows == 2
