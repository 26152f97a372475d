"""Source images as a user has them."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.data.images import Fit, fit_image, load_image
from p2p_bench.errors import DataError

ImageLike = Tensor | Image.Image | Path | str


def as_source_image(
    image: ImageLike, size: tuple[int, int], fit: Fit | None = None
) -> Float[Tensor, "3 h w"]:
    """A source image as RGB in [0, 1].

    Args:
        image: A tensor (3, h, w) or (1, 3, h, w) in [0, 1], a PIL image or a path. Greyscale becomes three
            equal channels, transparent pixels are laid over white.
        size: Height and width of the model's images.
        fit: What is done with an image of another size, see `fit_image`; None is "error" for a tensor and
            "crop" for the others.

    Raises:
        DataError: The image cannot be used.
        ConfigError: `fit` is not one of those.
    """
    if isinstance(image, Tensor):
        checked = _checked(image[0] if image.ndim == 4 and len(image) == 1 else image)
        return fit_image(checked, size, fit or "error")
    if isinstance(image, Image.Image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        pixels = np.array(Image.alpha_composite(white, rgba).convert("RGB"))
        return fit_image(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, size, fit or "crop")
    return fit_image(load_image(Path(image)), size, fit or "crop")


def _checked(image: Tensor) -> Float[Tensor, "3 h w"]:
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        raise DataError(
            "image: expected a float tensor (3, h, w) or (1, 3, h, w), "
            f"got {image.dtype} {tuple(image.shape)}"
        )
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"image: expected finite values in [0, 1], got {low:g} to {high:g}")
    return image
