"""Fake GEdit-Bench: an Arrow file, as a stream (as the `datasets` package writes it) or with a footer."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.data.fake.tables import cell


def row(key: str, **changes: Any) -> dict[str, Any]:
    """One row."""
    return {
        "key": key, "task_type": "color_alter", "instruction": "make it blue", "instruction_language": "en",
        "input_image": cell(len(key)), "input_image_raw": cell(9), "Intersection_exist": True, **changes,
    }  # fmt: skip


def make(folder: Path, rows: list[dict[str, Any]], footer: bool = False) -> Path:
    """Writes a set, two batches where it has more than a row; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    new = pa.ipc.new_file if footer else pa.ipc.new_stream
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        new(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=1)
    return folder
