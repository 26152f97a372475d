"""A folder of images with a CSV file."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.fake.pictures import save

LINES = (
    "id,image,mask,source,target,category,seed,blend_words",
    'one,in/a.png,m.png,a red circle on grass,"a blue, round circle",colour,7,"[[""red""],[""blue""]]"',
    "",
    '"two",b.jpg,,a green star,a green star in fog,,,',
)


def make(folder: Path, lines: tuple[str, ...] = LINES, name: str = "edits.csv") -> Path:
    """Writes a data set; returns its folder."""
    save(folder / "in" / "a.png", seed=1)
    save(folder / "b.jpg", seed=2)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(folder / "m.png")
    (folder / name).write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    return folder
