"""Source images as a user has them."""

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench import raster
from p2p_bench.data.images import Fit, fit_image, load_image
from p2p_bench.errors import DataError

ImageLike = Tensor | np.ndarray | Image.Image | PathLike[str] | str


def as_source_image(
    image: ImageLike, size: tuple[int, int], fit: Fit | None = None
) -> Float[Tensor, "3 h w"]:
    """A source image as RGB in [0, 1].

    The same picture is the same image to the bit, whichever way it is given. `p2p_bench.raster` says how
    each kind is read.

    Args:
        image: A path; a PIL image; an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); or a tensor (h, w),
            (1, h, w) or (3, h, w). Where there are channels, a leading axis of one may be added. Arrays and
            tensors are uint8 in [0, 255] or float in [0, 1].
        size: Height and width of the model's images.
        fit: What is done with an image of another size, see `fit_image`; None is "error" for a tensor and
            "crop" for the others.

    Raises:
        DataError: The image cannot be used.
        ConfigError: `fit` is not one of those.
    """
    if isinstance(image, Tensor):
        return fit_image(_of_tensor(image), size, fit or "error")
    if isinstance(image, np.ndarray):
        pixels = torch.from_numpy(raster.array_rgb(image, "image"))
    elif isinstance(image, Image.Image):
        pixels = torch.from_numpy(raster.rgb(raster.as_picture(image, "image")))
    elif isinstance(image, str | PathLike):
        pixels = load_image(Path(image))
    else:
        raise DataError(
            f"image: expected a path, a PIL image, a NumPy array or a tensor, got {type(image).__name__}"
        )
    return fit_image(pixels, size, fit or "crop")


def _of_tensor(image: Tensor) -> Float[Tensor, "3 h w"]:
    if image.layout != torch.strided or image.is_meta or image.is_quantized:
        raise DataError(f"image: expected a dense tensor with values, got layout {image.layout}")
    image = image.detach().cpu()
    pixels = (image.float() if image.is_floating_point() else image).numpy()
    return torch.from_numpy(raster.array_rgb(pixels, "image", channels_first=True))
