"""Fake PIE-Bench++: a folder a kind of edit with `V1-00000-of-00001.parquet`, one column of images."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.fake.pictures import encoded, picture

NAME = "V1-00000-of-00001.parquet"


def row(id: str, side: int = 512, **changes: Any) -> dict[str, Any]:
    """One row."""
    return {
        "image": {"bytes": encoded(picture(side, len(id)), "JPEG"), "path": f"{id}.jpg"},
        "id": id,
        "source_prompt": "a [red] circle on grass",
        "target_prompt": "a [blue] circle on grass",
        "edit_action": '{"blue": {"position": 1}}',
        "aspect_mapping": "{}",
        "blended_words": '["red,blue"]',
        "mask": "0 512 1024 100",
        **changes,
    }


def folders() -> dict[str, list[dict[str, Any]]]:
    """Two folders: words of several pairs, as JSON and as Python prints them."""
    objects = row(
        "111000000000",
        source_prompt="a circle on sand",
        target_prompt="a square on snow",
        blended_words="['circle,square', 'sand,snow']",
    )
    return {
        "0_random_140": [row("000000000000"), row("000000000001", blended_words="[]", mask="")],
        "1_change_object_80": [objects],
    }


def make(folder: Path, content: dict[str, list[dict[str, Any]]] | None = None) -> Path:
    """Writes a data set; returns its folder."""
    for name, rows in (folders() if content is None else content).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / name / NAME, row_group_size=1)
    return folder
