"""Source images as a user has them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.data.images import fit_image, load_image
from p2p_bench.errors import DataError

ImageLike = Tensor | Image.Image | Path | str


def as_source_image(image: ImageLike, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """A source image as RGB in [0, 1].

    Args:
        image: A tensor (3, h, w) or (1, 3, h, w) in [0, 1], which must have the exact size; or a PIL image
            or a path, of which the largest centred part of the right shape is resized. Greyscale becomes
            three equal channels, transparent pixels are laid over white.
        size: Height and width of the model's images.

    Raises:
        DataError: The image cannot be used.
    """
    if isinstance(image, Tensor):
        return _checked(image[0] if image.ndim == 4 and len(image) == 1 else image, size)
    if isinstance(image, Image.Image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        pixels = np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        return fit_image(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, size)
    return fit_image(load_image(Path(image)), size)


def _checked(image: Tensor, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        raise DataError(
            "image: expected a float tensor (3, h, w) or (1, 3, h, w), "
            f"got {image.dtype} {tuple(image.shape)}"
        )
    if tuple(image.shape[-2:]) != size:
        raise DataError(
            f"image: the tensor has {image.shape[-1]} x {image.shape[-2]} pixels, the model works at "
            f"{size[1]} x {size[0]}; resize it, or give a PIL image or a path, which are cropped and resized"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"image: expected finite values in [0, 1], got {low:g} to {high:g}")
    return image
