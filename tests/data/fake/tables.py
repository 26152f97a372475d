"""Fake MagicBrush, TEdBench and Emu Edit: Parquet files under `data/`, pictures as columns hold them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.data.fake.pictures import encoded, picture

Rows = Sequence[Mapping[str, Any]]


def cell(seed: int) -> dict[str, Any]:
    """A picture as a column holds it."""
    return {"bytes": encoded(picture(64, seed)), "path": f"{seed}.png"}


def white_left() -> dict[str, Any]:
    """A mask, white on the left half."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = 255
    return {"bytes": encoded(Image.fromarray(pixels)), "path": "mask.png"}


def brush(img_id: str, turn: int, **changes: Any) -> dict[str, Any]:
    """A row of MagicBrush."""
    return {
        "img_id": img_id, "turn_index": turn, "source_img": cell(turn), "mask_img": white_left(),
        "instruction": "make it blue", "target_img": cell(turn + 10), **changes,
    }  # fmt: skip


def ted(caption: str, **changes: Any) -> dict[str, Any]:
    """A row of TEdBench."""
    return {"original_image": cell(1), "caption": caption, "edited_image": cell(2), **changes}


def emu(idx: int, **changes: Any) -> dict[str, Any]:
    """A row of Emu Edit's set."""
    return {
        "instruction": "make it blue", "image": cell(idx), "task": "color", "split": "validation", "idx": idx,
        "hash": f"h{idx}", "input_caption": "a red circle on grass",
        "output_caption": "a blue circle on grass", **changes,
    }  # fmt: skip


def make(folder: Path, name: str, *parts: Rows) -> Path:
    """Writes a data set whose split `name` has some parts; returns its folder."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(parts):
        file = folder / "data" / f"{name}-{number:05d}-of-{len(parts):05d}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file)
    return folder


def captions(path: Path, *lines: Mapping[str, Any]) -> Path:
    """A side file of prompts."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
