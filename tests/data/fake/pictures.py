"""Pictures for fake data."""

import io
import zlib
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


def png(values: np.ndarray, depth: int, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG file by hand: grey (h, w) of fewer than 8 bits a pixel, or RGB (h, w, 3) of 16.

    Args:
        values: Integers of so many bits; rows of whole bytes.
        depth: Bits a channel.
        clear: The colour that is transparent.
    """
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
        rows = [np.packbits(row).tobytes() for row in bits]
    height, width = values.shape[:2]
    kind_of_colour = 2 * (values.ndim - 2)
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, kind_of_colour, 0, 0, 0])
    told = b"".join(value.to_bytes(2, "big") for value in clear)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", head), *([(b"tRNS", told)] if told else []), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )
