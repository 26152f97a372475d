"""Pictures for fake data."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(side: int = 64, seed: int = 0) -> Image.Image:
    """Coarse coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save(path: Path, side: int = 64, seed: int = 0) -> Path:
    """A picture on disk, in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(side, seed).save(path)
    return path


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()
