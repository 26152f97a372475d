"""Whether the directory of a finished run holds every row that the run promised."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.rows import KEY_COLUMNS, RESULTS, ROWS, Key, each_row, key_of
from p2p_bench.errors import DataError


def shortfall(run_dir: Path, expected: Iterable[Key]) -> str:
    """What a run directory lacks, in words; "" where it is whole.

    A directory may lose files while a run writes to it, or a trainer may leave batches out; neither shows in
    the rows that are left.

    Args:
        run_dir: Directory of a run that has ended.
        expected: Keys of the rows that it promised.
    """
    promised = set(expected)
    try:
        for place, found in ((ROWS, each_row(run_dir, KEY_COLUMNS)), (RESULTS, _keys(run_dir / RESULTS))):
            lacking = set(promised)
            for row in found:
                lacking.discard(key_of(row))
            if lacking:
                return f"{len(lacking)} of {len(promised)} edits are not in {run_dir / place}"
    except (DataError, KeyError) as error:
        return str(error)
    return ""


def _keys(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(columns=list(KEY_COLUMNS), use_threads=False):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable table of rows ({error})") from error
