"""Parts become one table, a block of rows at a time: of however many rows, few are in memory at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from p2p_bench.bench.rows import (
    KEY_COLUMNS,
    RESULTS,
    ROWS,
    Key,
    part_files,
    read_part,
    row_schema,
    write_atomically,
)

_BLOCK = 1 << 14
"""Rows of a row group of the table, which are in memory together."""

_GATHERED = 256
"""Parts after whose number what was taken from them is moved together; a small table holds mostly air."""

_SHOWN = 1024
"""Rows that are plain values at once."""


class StoredRows(Sequence[dict[str, Any]]):
    """The rows of a Parquet file, read when they are asked for.

    The file stays open, so that these are its rows also when another takes its place.

    Args:
        file: The file; None holds no row.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = None if file is None else pq.ParquetFile(file)
        sizes: list[int] = []
        if self._file is not None:
            about = self._file.metadata
            sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._file is not None:
            for batch in self._file.iter_batches(batch_size=_SHOWN, use_threads=False):
                yield from batch.to_pylist()

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        assert self._file is not None, "an index of no row is refused above"
        group = int(np.searchsorted(self._starts, place, side="right")) - 1
        rows: list[dict[str, Any]] = (
            self._file.read_row_group(group, use_threads=False)
            .slice(place - int(self._starts[group]), 1)
            .to_pylist()
        )
        return rows[0]


def compact(run_dir: Path, metric_columns: Sequence[str], order: Iterable[Key]) -> StoredRows:
    """Writes `results.parquet`: the rows of the parts, in the order of their keys.

    Args:
        run_dir: The run directory.
        metric_columns: Names of the metric columns.
        order: Keys of the rows that belong to the run, each once; other rows are left out.

    Returns:
        The rows that were written.

    Raises:
        DataError: A part cannot be read, is no rows of a run, or the parts do not share their columns.
    """
    places = {key: place for place, key in enumerate(order)}
    schema = row_schema(metric_columns)
    return merge(run_dir / ROWS, KEY_COLUMNS, places, schema, run_dir / RESULTS)


def merge(
    folder: Path,
    key_columns: Sequence[str],
    order: Mapping[tuple[Any, ...], int],
    schema: pa.Schema,
    file: Path,
    empty: bool = True,
) -> StoredRows:
    """Writes the latest row of each key in a folder of parts as one table, which appears whole or not at all.

    Args:
        folder: The folder.
        key_columns: Columns whose values, together, are the key of a row.
        order: Place of each key in the table, from 0; rows of other keys are left out.
        schema: Columns and types of the table. Columns that the parts lack are null, others are left out.
        file: The table.
        empty: Whether a table without a row is written.

    Returns:
        What was written.

    Raises:
        DataError: A part cannot be read, or the parts do not share their columns.
    """
    paths = part_files(folder)
    part, row = _latest(paths, key_columns, order)
    places = np.flatnonzero(part >= 0)
    if not len(places) and not empty:
        return StoredRows(None)

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for first in range(0, len(places), _BLOCK):
                block = places[first : first + _BLOCK]
                writer.write_table(_gathered(paths, part[block], row[block], schema))
            if not len(places):
                writer.write_table(schema.empty_table())

    write_atomically(file, write)
    return StoredRows(file)


def _latest(
    paths: Sequence[Path], key_columns: Sequence[str], order: Mapping[tuple[Any, ...], int]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """For each place of the table, the number of its part and its row there; -1 where there is none."""
    part = np.full(len(order), -1, dtype=np.int32)
    row = np.zeros(len(order), dtype=np.int32)
    columns: list[str] | None = None
    for number, path in enumerate(paths):
        table, columns = read_part(path, key_columns, columns)
        keys = zip(*(table.column(name).to_pylist() for name in key_columns), strict=True)
        for place, key in enumerate(keys):
            if (found := order.get(key)) is not None:
                part[found], row[found] = number, place
    return part, row


def _gathered(
    paths: Sequence[Path], part: Int[np.ndarray, " n"], row: Int[np.ndarray, " n"], schema: pa.Schema
) -> pa.Table:
    """Rows of several parts as one table, in the order they are given."""
    by_part = np.argsort(part, kind="stable")
    numbers, starts = np.unique(part[by_part], return_index=True)
    tables: list[pa.Table] = []
    for number, wanted in zip(numbers, np.split(by_part, starts[1:]), strict=True):
        table, _ = read_part(paths[number])
        tables.append(_conformed(_taken(table, row[wanted]), schema))
        if len(tables) > _GATHERED:
            tables = [pa.concat_tables(tables).combine_chunks()]
    return _taken(pa.concat_tables(tables).combine_chunks(), np.argsort(by_part))


def _taken(table: pa.Table, rows: Int[np.ndarray, " n"]) -> pa.Table:
    whole = len(rows) == len(table) and bool((rows == np.arange(len(table))).all())
    return table if whole else table.take(rows)


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    names = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type) if field.name in names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
