"""References: what the untouched source and the VAE alone score, beside the rows and never among them.

They depend on no variant, so each (sample, target) is scored once, where its first edit is.

| column | value |
|---|---|
| `sample_id`, `target_index`, `reference` | together the key of a row |
| `category` | of the pair |
| metric columns | float64, NaN where undefined: the picture in the place of the edit |

| reference | picture |
|---|---|
| `no_edit` | the source: the real image where there is one, else the generated one |
| `vae` | the real image through the model's VAE and back; no row without a real image |
"""

import copy
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.merging import StoredRows, merge
from p2p_bench.bench.rows import PartWriter, part_files, read_parts
from p2p_bench.errors import DataError

REFERENCES = "references.parquet"

NO_EDIT, VAE = "no_edit", "vae"
KINDS = (NO_EDIT, VAE)

Place = tuple[str, int]
"""Sample and target."""

_FOLDER = "references"
_KEY = ("sample_id", "target_index", "reference")
_RUN = b"run_id"
"""Key in the metadata of a part: the run that it is of, as each row says it of itself."""


def reference_schema(metric_columns: Sequence[str]) -> pa.Schema:
    """Columns and types of the references of a run with these metric columns."""
    head = (("sample_id", pa.string()), ("target_index", pa.int64()), ("reference", pa.string()))
    scores = ((name, pa.float64()) for name in metric_columns)
    return pa.schema([*head, ("category", pa.string()), *scores])


class ReferenceWriter:
    """Appends references to `references/part-*.parquet` of a run directory.

    Args:
        run_dir: The run directory; the caller holds its lock.
        metric_columns: Names of the metric columns.
        there: Samples and targets whose references are there.
        wanted: Whether the run has references at all.
        run_id: Of the run.
    """

    def __init__(
        self,
        run_dir: Path,
        metric_columns: Sequence[str],
        there: Iterable[Place] = (),
        wanted: bool = True,
        run_id: str = "",
    ) -> None:
        schema = reference_schema(metric_columns).with_metadata({_RUN: run_id.encode()})
        self._parts = PartWriter(run_dir / _FOLDER, schema)
        self._there = set(there)
        self.wanted = wanted

    def lacks(self, places: Iterable[Place]) -> set[Place]:
        """Those of some samples and targets that have no references yet and should."""
        return set(places) - self._there if self.wanted else set()

    def append(self, references: Sequence[Mapping[str, Any]]) -> None:
        """Writes references as one new part; they are on the disk when this returns."""
        self._parts.append(references)
        self._there |= {place_of(row) for row in references}

    def of_process(self, process: int) -> "ReferenceWriter":
        """A writer of the same references for another process."""
        other = copy.copy(self)
        other._parts = self._parts.of_process(process)
        other._there = set(self._there)
        return other


def open_references(
    run_dir: Path, metric_columns: Sequence[str], finished: Collection[Place], run_id: str = ""
) -> ReferenceWriter:
    """What writes the references of a run.

    References go to the disk before the rows of their batch, so a run with finished edits and without any
    was made before there were references: half of them would be no mean of the run. Those of a run without
    finished edits may belong to other settings and are removed, and those of a place without any are made
    again, as its picture may be another by now.

    Args:
        run_dir: The run directory; the caller holds its lock and knows that its rows are of these settings.
        metric_columns: Names of the metric columns.
        finished: Samples and targets of which an edit is finished.
        run_id: Of the run.

    Raises:
        DataError: A part cannot be read, or is of another run.
    """
    if not finished:
        shutil.rmtree(run_dir / _FOLDER, ignore_errors=True)
    there = [place_of(row) for row in read_parts(run_dir / _FOLDER, _KEY)]
    for path in part_files(run_dir / _FOLDER):
        told = (pq.read_schema(path).metadata or {}).get(_RUN)
        if told not in (None, run_id.encode()):  # None: of an older version, which did not say it
            raise DataError(
                f"{path}: holds the references of another run ({told.decode()}, this one is {run_id}); "
                f"remove {path.parent} and run again, which then has none"
            )
    finished_there = [place for place in there if place in finished]
    wanted = bool(metric_columns) and (bool(there) or not finished)
    return ReferenceWriter(run_dir, metric_columns, finished_there, wanted, run_id)


def compact_references(run_dir: Path, metric_columns: Sequence[str], order: Iterable[Place]) -> StoredRows:
    """Writes `references.parquet`: the references of the parts, in the order of their samples and targets.

    Args:
        run_dir: The run directory.
        metric_columns: Names of the metric columns.
        order: Samples and targets of the run.

    Returns:
        What was written; where there is nothing, no file is.
    """
    places = dict.fromkeys(order)
    keys = ((*place, kind) for place in places for kind in KINDS)
    numbers = {key: number for number, key in enumerate(keys)}
    return merge(
        run_dir / _FOLDER, _KEY, numbers, reference_schema(metric_columns), run_dir / REFERENCES, empty=False
    )


def place_of(row: Mapping[str, Any]) -> Place:
    """Sample and target of a row."""
    return row["sample_id"], row["target_index"]
