"""Reads images and masks from disk and fits them to a model's size."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate, pad

from p2p_bench import raster
from p2p_bench.errors import ConfigError, DataError, nearest

Fit = Literal["crop", "pad", "resize", "error"]
FITS: tuple[str, ...] = get_args(Fit)


def load_image(path: Path) -> Float[Tensor, "3 h w"]:
    """Reads an image as RGB in [0, 1]; `p2p_bench.raster` says how each kind is read.

    Raises:
        DataError: The file is missing, is no readable image, is damaged or too large.
    """
    return torch.from_numpy(raster.rgb(raster.read_picture(path)))


def load_mask(path: Path, size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Reads a mask: 1 (white) where an edit may change the image, 0 elsewhere; split at half grey.

    Args:
        path: A picture in black and white; see `p2p_bench.raster.mask`.
        size: Height and width of the image it belongs to, before any fitting.

    Raises:
        DataError: The file cannot be read, is no mask, or is of another size than its image.
    """
    return _mask_of(raster.read_picture(path), size)


def load_masked_image(path: Path, mask: Path) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
    """Reads an image and its mask, which must lie on the image as it is shown.

    Raises:
        DataError: As of `load_image` and `load_mask`; or the image is turned by its EXIF orientation, the
            mask is not, and the mask's size does not tell which way up it was drawn.
    """
    return masked_image(raster.read_picture(path), raster.read_picture(mask))


def masked_image(
    picture: raster.Picture, picture_mask: raster.Picture
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
    """The same of decoded pictures.

    Raises:
        DataError: As of `load_masked_image`.
    """
    image = torch.from_numpy(raster.rgb(picture))
    height, width = image.shape[-2:]
    keeps_its_size = picture.orientation <= raster.LAST_UNTURNED or height == width
    if picture.orientation not in (1, picture_mask.orientation) and keeps_its_size:
        raise DataError(
            f"{picture_mask.name}: its image is turned by EXIF orientation {picture.orientation}, the mask "
            "is not, so where the mask lies is not known; save the image upright, without that tag"
        )
    return image, _mask_of(picture_mask, (height, width))


def _mask_of(picture: raster.Picture, size: tuple[int, int]) -> Float[Tensor, "h w"]:
    white = raster.mask(picture)
    if white.shape != tuple(size):
        raise DataError(
            f"{picture.name}: the mask is {white.shape[1]} x {white.shape[0]} pixels, its image "
            f"{size[1]} x {size[0]}; they must be equal"
        )
    return torch.from_numpy(white.astype(np.float32))


def fit_image(
    image: Float[Tensor, "3 h w"], size: tuple[int, int], fit: Fit = "crop"
) -> Float[Tensor, "3 y x"]:
    """Brings an image to a model's size.

    Args:
        image: RGB in [0, 1].
        size: Height and width to reach.
        fit: What is done with another size. "crop" cuts the largest centred part of the right shape and
            resizes it (bicubic, antialiased); "pad" resizes the whole to fit inside and repeats its edge
            pixels around it; "resize" stretches the whole; "error" accepts the exact size only.

    Raises:
        DataError: `fit` is "error" and the size differs.
        ConfigError: `fit` is something else.
    """
    part = _part(image, size, fit)
    if part.shape[-2:] == tuple(size):
        return part.contiguous()
    inner = _inner(part, size, fit)
    fitted = interpolate(part[None], size=inner, mode="bicubic", antialias=True).clamp(0, 1)
    return pad(fitted, _margins(inner, size), mode="replicate")[0]


def fit_mask(mask: Float[Tensor, "h w"], size: tuple[int, int], fit: Fit = "crop") -> Float[Tensor, "y x"]:
    """Brings a mask to a model's size as `fit_image` does its image.

    A pixel that is partly covered counts as 1, so what is 0 afterwards was to be kept entirely. Padding is 0.

    Raises:
        DataError: `fit` is "error" and the size differs.
        ConfigError: `fit` is something else.
    """
    part = _part(mask[None], size, fit)
    if part.shape[-2:] == tuple(size):
        return part[0].contiguous()
    inner = _inner(part, size, fit)
    near = interpolate(part[None], size=inner, mode="bilinear", antialias=True)[0] > 1e-3
    # However small the share of a pixel: a thin mask must not vanish from a large picture.
    covered = near | (adaptive_max_pool2d(part, inner) > 0.5)
    return pad(covered.float(), _margins(inner, size))[0]


def _part(image: Tensor, size: tuple[int, int], fit: str) -> Tensor:
    """The part of `image` that is kept: with "crop" the centred one that has the proportions of `size`."""
    if fit not in FITS:
        raise ConfigError(f"fit: expected one of {', '.join(FITS)}, got {fit!r}.{nearest(str(fit), FITS)}")
    height, width = image.shape[-2:]
    if (height, width) == tuple(size) or fit in ("pad", "resize"):
        return image
    if fit == "error":
        raise DataError(
            f"the image is {width} x {height} pixels, the model works at {size[1]} x {size[0]}; "
            "resize it, or set fit (dataset.fit in a run) to crop, pad or resize"
        )
    scale = min(height / size[0], width / size[1])
    part_height = min(height, max(1, round(size[0] * scale)))
    part_width = min(width, max(1, round(size[1] * scale)))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return image[..., top : top + part_height, left : left + part_width]


def _inner(image: Tensor, size: tuple[int, int], fit: str) -> tuple[int, int]:
    """Height and width of the image within `size`: less than that only where it is padded."""
    if fit != "pad":
        return size
    height, width = image.shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    return min(size[0], max(1, round(height * scale))), min(size[1], max(1, round(width * scale)))


def _margins(inner: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels to the left, right, top and bottom."""
    height, width = size[0] - inner[0], size[1] - inner[1]
    return width // 2, width - width // 2, height // 2, height - height // 2
