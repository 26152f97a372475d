"""Reads images and masks from disk and fits them to a model's size."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate, pad

from p2p_bench.errors import ConfigError, DataError, nearest

Fit = Literal["crop", "pad", "resize", "error"]
FITS: tuple[str, ...] = get_args(Fit)

MAX_PIXELS = 64 * 2**20
"""Images above this are refused before they are decoded."""
# Readers of plain pixels only: others start programs (EPS) or have no use here.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What PIL's readers raise on damaged files.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def load_image(path: Path) -> Float[Tensor, "3 h w"]:
    """Reads an image as RGB in [0, 1].

    Greyscale becomes three equal channels, transparent pixels are laid over white, the EXIF
    orientation is applied, 16-bit greyscale keeps its precision. Colour profiles are ignored.

    Raises:
        DataError: The file is missing, is no readable image, is damaged or has more than
            `MAX_PIXELS` pixels.
    """
    image = _decode(path)
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        grey = np.asarray(image).astype(np.float32)
        if grey.max(initial=0) > 65535 or grey.min(initial=0) < 0:
            raise DataError(f"{path}: 32-bit integer pixels have no known range; save it with 8 or 16 bits")
        return torch.from_numpy(grey / 65535).expand(3, -1, -1).contiguous()
    if image.mode == "F":
        raise DataError(f"{path}: floating-point pixels have no known range; save it with 8 or 16 bits")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    pixels = np.asarray(image.convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def load_mask(path: Path, size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Reads a mask: 1 (white) where an edit may change the image, 0 elsewhere; split at half grey.

    Args:
        path: Greyscale, black-and-white or colour image.
        size: Height and width of the image it belongs to, before any fitting.

    Raises:
        DataError: The file cannot be read, is of another size than its image, or holds the values
            0 and 1 where 0 and 255 are meant.
    """
    image = _decode(path)
    if image.mode in ("I", "F", "I;16", "I;16L", "I;16B", "I;16N"):
        raise DataError(f"{path}: a mask needs 8 bits or 1 bit a pixel, this has mode {image.mode}")
    grey = np.array(image.convert("L"))
    if grey.shape != tuple(size):
        raise DataError(
            f"{path}: the mask is {grey.shape[1]} x {grey.shape[0]} pixels, its image {size[1]} x {size[0]}; "
            "they must be equal"
        )
    if grey.max(initial=0) == 1:
        raise DataError(f"{path}: the mask holds 0 and 1, but white is 255; multiply it by 255")
    return torch.from_numpy((grey > 127).astype(np.float32))


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
    covered = (interpolate(part[None], size=inner, mode="bilinear", antialias=True)[0] > 1e-3).float()
    return pad(covered, _margins(inner, size))[0]


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


def _decode(path: Path) -> Image.Image:
    """Opens and decodes an image file, upright."""
    if not path.is_file():
        raise DataError(f"{path}: no such image file")
    try:
        with warnings.catch_warnings():
            # PIL has a limit of its own above ours and only warns there.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width} x {height} pixels")
                image.load()
                return ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many pixels") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not an image, or damaged at its start; readable formats are {', '.join(_FORMATS)}"
        ) from error
    except DataError:
        raise
    except _DECODE_ERRORS as error:
        raise DataError(f"{path}: the image is damaged and cannot be decoded ({error})") from error


def _too_large(path: Path, found: str) -> DataError:
    limit = MAX_PIXELS // 2**20
    return DataError(f"{path}: the image has {found}, the limit is {limit} megapixels; make it smaller")
