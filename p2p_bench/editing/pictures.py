"""Edits to look at: heatmaps over their images, and strips of pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from p2p_bench.errors import P2PError

_TITLE = 20
"""Height of the titles of a strip, in pixels."""

_RAMP = torch.tensor([[0.0, 0.0, 0.1], [0.35, 0.07, 0.43], [0.87, 0.32, 0.23], [0.99, 0.9, 0.55]])
"""Dark violet to light yellow, rising in lightness."""


def heatmap_image(
    image: Float[Tensor, "3 h w"], heat: Float[Tensor, "k l"], peak: float | None = None
) -> Float[Tensor, "3 h w"]:
    """A heatmap, enlarged smoothly, over a grey version of its image, which is dark where the map is low.

    Args:
        image: The picture that the map belongs to.
        heat: Map of any size; what is negative counts as 0.
        peak: Value that is shown at full strength; None: the map's own maximum.
    """
    heat = heat.float().cpu()
    peak = float(heat.max()) if peak is None else peak
    smooth = functional.interpolate(heat[None, None], size=image.shape[-2:], mode="bicubic")[0, 0]
    smooth = (smooth / max(peak, torch.finfo(torch.float32).tiny)).clamp(0, 1)
    grey = image.float().cpu().mean(0, keepdim=True).expand(3, -1, -1)
    return 0.35 * grey + 0.65 * colours(smooth)


def whole_factor(height: int, side: int) -> int:
    """The whole number of times that a picture is enlarged to reach about `side`; 1 for a large one."""
    return max(1, round(side / height))


def strip(
    pictures: Mapping[str, Float[Tensor, "3 h w"]], side: int = 192, gap: int = 8
) -> Float[Tensor, "3 k l"]:
    """Pictures of one size side by side, each under its title; small ones are enlarged by a whole factor.

    Args:
        pictures: Picture by title.
        side: Height that enlarged pictures reach about.
        gap: White pixels around each picture.
    """
    height, width = next(iter(pictures.values())).shape[-2:]
    factor = whole_factor(height, side)
    tops = _TITLE + gap
    sheet = Image.new(
        "RGB", (gap + (width * factor + gap) * len(pictures), tops + height * factor + gap), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (title, picture) in enumerate(pictures.items()):
        left = gap + index * (width * factor + gap)
        enlarged = picture.float().cpu().repeat_interleave(factor, -2).repeat_interleave(factor, -1)
        sheet.paste(Image.fromarray(to_uint8(enlarged)), (left, tops))
        draw.text((left, gap // 2), title, "black", font)
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1) / 255


def to_uint8(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image in [0, 1] as 8-bit RGB, rounded."""
    return (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def colours(values: Float[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """Values in [0, 1] on a ramp from dark violet to light yellow."""
    place = values * (len(_RAMP) - 1)
    low = place.floor().long().clamp(max=len(_RAMP) - 2)
    part = (place - low)[..., None]
    return (_RAMP[low] * (1 - part) + _RAMP[low + 1] * part).permute(2, 0, 1)


def save_pictures(directory: Path | str, pictures: Mapping[str, Image.Image]) -> list[Path]:
    """Writes pictures as PNG files.

    Args:
        directory: Made if need be; files of these names in it are replaced.
        pictures: By name, without an ending.

    Returns:
        The files.

    Raises:
        P2PError: The directory cannot be written.
    """
    try:
        folder = Path(directory).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        paths = {folder / f"{name}.png": picture for name, picture in pictures.items()}
        for path, picture in paths.items():
            picture.save(path)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise P2PError(f"save: the pictures cannot be written to {directory!r} ({error})") from error
    return list(paths)
