"""Fake Parquet files of a data set of one's own: pictures as structures, bytes and paths."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.fake.tables import cell, white_left


def row(number: int, **changes: Any) -> dict[str, Any]:
    """One row."""
    return {
        "key": f"k{number}", "source_prompt": "a red circle on grass",
        "target_prompt": "a blue circle on grass", "image": cell(number), "region": white_left(),
        "kind": "colour", **changes,
    }  # fmt: skip


def make(folder: Path, *parts: list[dict[str, Any]], split: str = "test") -> Path:
    """Writes files of a split; returns their folder."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(parts or ([row(0), row(1)], [row(2)])):
        name = f"{split}-{number:05d}-of-{max(1, len(parts)):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / name, row_group_size=1)
    return folder
