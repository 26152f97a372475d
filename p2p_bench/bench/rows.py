"""Rows on disk: one per (sample, variant, target), written in parts that appear whole or not at all.

| column | value |
|---|---|
| `run_id` | start of the digest of the settings |
| `sample_id`, `variant`, `target_index` | together the key of a row |
| `category`, `source_prompt`, `target_prompt` | of the pair |
| `model`, `controller`, `tau_cross`, `tau_self` | settings of the variant |
| `control` | what was done to this pair, such as `refine` where `auto` chose it; "" on failure |
| `inversion`, `dataset`, `steps`, `guidance` | settings of the run; no inversion without an image |
| `inversion_from` | `network` where the inversion was computed here, `cache` where it was recalled, else "" |
| `seed` | seed of the sample's noise |
| `status`, `error` | `ok`, or `error` and its reason |
| `notes` | what a reader should know of an `ok` row too, such as words that the model never saw; else "" |
| `missing` | JSON: metric columns without a value and the reason, where a metric gives one; else "" |
| `mask` | at the model's size: `part` of the image, `empty`, `full`, `lost` by the crop, or "" without one |
| `mask_from` | of the masks that confined the edit: `given` by the data set, `attention`, `user`; "" none |
| `source_checksum` | start of the SHA-256 of what image and mask were decoded from; "" without an image |
| metric columns | float64, NaN where undefined |
| `seconds` | wall time of the batch, shared out by UNet rows; NaN, like all costs, of images made elsewhere |
| `unet_rows`, `unet_rows_spent` | what the edit costs alone, and its share here; an upscaler's rows too |
| `unet_rows_backward` | rows that it or its inversion sends backward through the network; in no other count |
| `peak_memory_mb` | of the accelerator, or of the process |
| `image_*`, `heatmap_*` | paths relative to the run directory, or `""` |
"""

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.errors import DataError

Key = tuple[str, str, int]
"""Sample, variant and target of a row."""

KEY_COLUMNS = ("sample_id", "variant", "target_index")

IMAGE_COLUMNS = (
    "image_source", "image_target", "image_difference", "image_original", "image_vae",
    "heatmap_source", "heatmap_target", "heatmap_tokens",
)  # fmt: skip
SCORED_IMAGES = ("image_source", "image_target", "image_vae")
"""Those of them that are read again when a finished run is scored, and are marked for that."""

RESULTS = "results.parquet"
ROWS = "rows"
"""Folder of the parts in a run directory."""

_PART = re.compile(r"part-\d+(-\d+)?")
"""Number of the part and, of all but the first process that writes, number of the process."""

_HEAD = (
    ("run_id", pa.string()),
    ("sample_id", pa.string()),
    ("variant", pa.string()),
    ("target_index", pa.int64()),
    ("category", pa.string()),
    ("source_prompt", pa.string()),
    ("target_prompt", pa.string()),
    ("model", pa.string()),
    ("controller", pa.string()),
    ("control", pa.string()),
    ("tau_cross", pa.string()),
    ("tau_self", pa.string()),
    ("inversion", pa.string()),
    ("inversion_from", pa.string()),
    ("dataset", pa.string()),
    ("steps", pa.int64()),
    ("guidance", pa.float64()),
    ("seed", pa.uint64()),
    ("status", pa.string()),
    ("error", pa.string()),
    ("notes", pa.string()),
    ("missing", pa.string()),
    ("mask", pa.string()),
    ("mask_from", pa.string()),
    ("source_checksum", pa.string()),
)
_TAIL = (
    ("seconds", pa.float64()),
    ("unet_rows", pa.float64()),
    ("unet_rows_spent", pa.float64()),
    ("unet_rows_backward", pa.float64()),
    ("peak_memory_mb", pa.float64()),
    *((name, pa.string()) for name in IMAGE_COLUMNS),
)


def row_schema(metric_columns: Sequence[str]) -> pa.Schema:
    """Columns and types of the rows of a run with these metric columns."""
    return pa.schema([*_HEAD, *((name, pa.float64()) for name in metric_columns), *_TAIL])


def key_of(row: Mapping[str, Any]) -> Key:
    """What a row is about; unique within a finished run."""
    return row["sample_id"], row["variant"], row["target_index"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Makes a file appear whole or not at all, also when the machine stops.

    Args:
        path: The file.
        write: Writes the content to the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)  # it may have been removed meanwhile
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # the rename itself must reach the disk; other systems cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class PartWriter:
    """Appends rows to a folder as `part-*.parquet`, each of which appears whole or not at all.

    Args:
        folder: The folder, made with its first part; the caller holds the lock of its run directory.
        schema: Columns and types of the rows.
        process: Number of the process among those that write here; it is in the names of the parts of all
            but the first, so that no two take the same.
    """

    def __init__(self, folder: Path, schema: pa.Schema, process: int = 0) -> None:
        self._folder = folder
        self._schema = schema
        self._suffix = f"-{process:04d}" if process else ""
        self._next = next_part(folder)

    def of_process(self, process: int) -> "PartWriter":
        """A writer of the same rows for another process."""
        return PartWriter(self._folder, self._schema, process)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows as one new part; they are on the disk when this returns.

        Raises:
            ValueError: A row lacks a column or has one too many.
        """
        if not rows:
            return
        names = set(self._schema.names)
        for row in rows:
            if set(row) != names:
                raise ValueError(
                    f"row of {row.get('sample_id')!r}: its columns differ from the schema by "
                    f"{sorted(names ^ set(row))}"
                )
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=self._schema)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"part-{self._next:06d}{self._suffix}.parquet"
        write_atomically(path, lambda temporary: pq.write_table(table, temporary))
        self._next += 1


class RowWriter:
    """Appends rows to `rows/part-*.parquet` of a run directory.

    Args:
        run_dir: The run directory; the caller holds its lock.
        metric_columns: Names of the metric columns.
        process: Number of the process among those that write here.
    """

    def __init__(self, run_dir: Path, metric_columns: Sequence[str], process: int = 0) -> None:
        self._parts = PartWriter(run_dir / ROWS, row_schema(metric_columns), process)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows as one new part; they are on the disk when this returns.

        Raises:
            ValueError: A row lacks a column or has one too many.
        """
        self._parts.append(rows)

    def of_process(self, process: int) -> "RowWriter":
        """A writer of the same rows for another process."""
        other = copy.copy(self)
        other._parts = self._parts.of_process(process)
        return other


def read_rows(run_dir: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a run from its parts, the latest of each key, in the order they were first written.

    Args:
        run_dir: The run directory.
        columns: Columns to read besides those of the key, as far as there are such; None reads all.

    Raises:
        DataError: A part cannot be read, is no rows of a run, or the parts do not share their columns.
    """
    found: dict[Key, dict[str, Any]] = {}
    wanted = None if columns is None else tuple(dict.fromkeys([*KEY_COLUMNS, *columns]))
    for row in each_row(run_dir, wanted):
        found[key_of(row)] = row
    return list(found.values())


def each_row(run_dir: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a run in the order they were written, a part at a time; a key may come more than once.

    Args:
        run_dir: The run directory.
        columns: Columns to read, as far as there are such; None reads all.

    Raises:
        DataError: A part cannot be read, is no rows of a run, or the parts do not share their columns.
    """
    before: list[str] | None = None
    for path in part_files(run_dir / ROWS):
        table, names = read_part(path, columns, before)
        if before is None and (lacking := {"run_id", "status", *KEY_COLUMNS} - set(names)):
            raise DataError(
                f"{run_dir / ROWS}: its parts are no rows of a run, they lack {', '.join(sorted(lacking))}; "
                "use a new run directory"
            )
        before = names
        yield from table.to_pylist()


def row_columns(run_dir: Path) -> list[str]:
    """Names of the columns that the rows of a run have; none where there are no rows.

    Raises:
        DataError: The first part cannot be read.
    """
    return next((read_part(path, ())[1] for path in part_files(run_dir / ROWS)), [])


def read_parts(folder: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a folder of parts, in the order they were written.

    Args:
        folder: The folder.
        columns: Columns to read, as far as there are such; None reads all.

    Raises:
        DataError: A part cannot be read, or the parts do not share their columns.
    """
    rows: list[dict[str, Any]] = []
    names: list[str] | None = None
    for path in part_files(folder):
        table, names = read_part(path, columns, names)
        rows += table.to_pylist()
    return rows


def read_part(
    path: Path, columns: Sequence[str] | None = None, before: list[str] | None = None
) -> tuple[pa.Table, list[str]]:
    """A part, and the names of all its columns.

    Args:
        path: The part.
        columns: Columns to read, as far as there are such; None reads all.
        before: Columns of the parts before; None where it is the first.

    Raises:
        DataError: It cannot be read, or has other columns than those before.
    """
    try:
        with pq.ParquetFile(path) as file:
            names: list[str] = file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in names]
            table = file.read(columns=wanted, use_threads=False)  # small: threads would cost more
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())  # Parquet's has lines
        raise DataError(f"{path}: not a readable part of rows ({reason}); remove it and run again") from error
    if before is not None and names != before:
        raise DataError(f"{path}: its columns differ from those of the parts before; use a new run directory")
    return table, names


def is_part(path: Path) -> bool:
    """Whether a file is called as a part."""
    return path.suffix == ".parquet" and _PART.fullmatch(path.stem) is not None


def part_files(folder: Path) -> list[Path]:
    """The parts in a folder, in the order they were written."""
    return sorted(path for path in folder.glob("part-*.parquet") if is_part(path))


def part_number(path: Path) -> int:
    """Number of a part, which rises with each that a process writes."""
    return int(path.stem.split("-")[1])


def next_part(folder: Path) -> int:
    """Number that the next part in a folder gets."""
    return 1 + max(map(part_number, part_files(folder)), default=-1)
