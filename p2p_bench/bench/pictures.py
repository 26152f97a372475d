"""Pictures of edits, as PNG files."""

import hashlib
import re
from io import BytesIO
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.bench.rows import write_atomically
from p2p_bench.editing.pictures import colours, to_uint8
from p2p_bench.marks import marked

_HASHED = re.compile(r"(^|-)[0-9a-f]{8}$")
"""Ends like a name with a hash: left alone, it could be the file of another text."""

_DIFFERENCE_GAIN = 2.0
"""A difference of half the range is shown in full; the same for every picture, so that they compare."""


def difference_image(a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Mean absolute difference over channels, twice its size, on a ramp from dark to light."""
    return colours((_DIFFERENCE_GAIN * (a.float() - b.float()).abs().mean(0)).clamp(0, 1).cpu())


def save_png(
    path: Path, image: Float[Tensor, "3 h w"], palette: bool = False, mark: str | None = None
) -> None:
    """Writes an image in [0, 1]; the file appears whole or not at all.

    Args:
        path: The file.
        image: The image.
        palette: Its 256 main colours are enough: a third of the file, a fifth of the time.
        mark: What it is marked as, see `p2p_bench.marks`; None: it is not.
    """
    picture = Image.fromarray(to_uint8(image))
    if palette:
        picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = buffer.getvalue() if mark is None else marked(buffer.getvalue(), mark)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def file_stem(name: str) -> str:
    """A file name for any text: itself if harmless everywhere, else cleaned and made unique by a hash."""
    clean = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip(".-")[:80]
    if clean and clean == name and not _HASHED.search(clean):
        return clean
    return f"{clean}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".lstrip("-")
