"""Reading a finished run from its directory: rows and summary, nothing else."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.references import REFERENCES
from p2p_bench.bench.rows import RESULTS, read_rows
from p2p_bench.errors import DataError
from p2p_bench.report.shape import check_references, check_rows, check_summary, check_together

Row = Mapping[str, Any]

NO_CONTROL = "none"
"""Controller of plain generation from the target prompt."""

_NO_INVERSION = ("", "none")

_BLOCK = 1024
"""Rows that are decoded together."""


@dataclass(frozen=True)
class Run:
    """One run directory as a report reads it.

    Attributes:
        path: The run directory.
        summary: `summary.json`.
        rows: All rows, one mapping each.
        references: What the untouched source and the VAE alone score; runs of older versions have none.
    """

    path: Path
    summary: Mapping[str, Any]
    rows: tuple[Row, ...]
    references: tuple[Row, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants, in the order of the summary."""
        return tuple(dict.fromkeys([*self.summary["variants"], *(row["variant"] for row in self.rows)]))

    @property
    def name(self) -> str:
        """What was run: the experiment, or the directory where it has no name."""
        return str(self.summary.get("experiment") or self.path.resolve().name)


def plain_generation(rows: Iterable[Row]) -> str:
    """What a variant without control is to readers; "" for one with control.

    From a noise of its own it ignores the source; what starts from an inverted image does not.
    """
    inversions = {row["inversion"] for row in rows if row["controller"] == NO_CONTROL}
    if not inversions:
        return ""
    return "ignores the source" if inversions <= set(_NO_INVERSION) else "no control"


def has_rows(path: Path) -> bool:
    """True if `path` is a run directory with at least one file of rows."""
    return (path / RESULTS).is_file() or any(path.glob("rows/part-*.parquet"))


def read_run(path: Path) -> Run:
    """Read the rows and the summary of a run.

    Raises:
        DataError: The directory has no rows, no summary, one of them cannot be read, or the summary is of
            other rows.
    """
    if not has_rows(path):
        raise DataError(
            f"{path}: no rows here, expected results.parquet or rows/part-*.parquet; "
            "give the directory of a run (the one with config.yaml)"
        )
    rows = tuple(_read_table(path / RESULTS) if (path / RESULTS).is_file() else read_rows(path))
    if not rows:
        raise DataError(
            f"{path}: its tables hold no row; finish the run by starting it again in the same directory"
        )
    found = _read_table(path / REFERENCES) if (path / REFERENCES).is_file() else []
    summary = _read_summary(path)
    check_rows(rows, summary["metrics"], path / RESULTS)
    check_references(found, summary["metrics"], path / REFERENCES)
    check_together(rows, found, summary, path)
    return Run(path=path, summary=summary, rows=rows, references=tuple(found))


class TableRow(Mapping[str, Any]):
    """A row of a table; all its rows share the places of the columns, and texts that are equal.

    Args:
        places: Where the value of each column stands.
        values: The values.
    """

    __slots__ = ("_places", "_values")

    def __init__(self, places: Mapping[str, int], values: tuple[Any, ...]) -> None:
        self._places = places
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[self._places[name]]

    def get(self, name: str, default: Any = None) -> Any:
        """See `Mapping`."""
        place = self._places.get(name)
        return default if place is None else self._values[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _read_table(file: Path) -> list[Row]:
    """The rows of a table, a block at a time: texts are made once, however many rows hold them."""
    rows: list[Row] = []
    texts: dict[str, str] = {}
    try:
        with pq.ParquetFile(file) as table:
            places = {name: place for place, name in enumerate(table.schema_arrow.names)}
            for block in table.iter_batches(_BLOCK, use_threads=False):
                columns = (_shared(column.to_pylist(), texts) for column in block.columns)
                rows += [TableRow(places, values) for values in zip(*columns, strict=True)]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: not a readable table of rows ({error}); remove it and run again") from error
    return rows


def _shared(values: list[Any], texts: dict[str, str]) -> list[Any]:
    return [texts.setdefault(value, value) if isinstance(value, str) else value for value in values]


def _read_summary(path: Path) -> Mapping[str, Any]:
    file = path / "summary.json"
    try:
        summary: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: missing, so the run is not finished; start it again in the same directory"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise DataError(
            f"{file}: not valid JSON ({error}); start the run again in the same directory"
        ) from error
    check_summary(summary, file)
    return summary


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value) pairs; lists stay values."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def text_of(value: Any) -> str:
    """A setting as short text; nothing set is "–"."""
    if value is None or value == "" or value == {} or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(text_of(item) for item in value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
