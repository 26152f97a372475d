"""Whether the directory of a finished run holds every row that the run promised."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench.bench.rows import KEY_COLUMNS, RESULTS, Key, key_of, read_rows
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
        parts = {key_of(row) for row in read_rows(run_dir)}
        results = {key_of(row) for row in _keys(run_dir / RESULTS)}
    except (DataError, KeyError) as error:
        return str(error)
    for place, found in (("rows", parts), (RESULTS, results)):
        if lacking := len(promised - found):
            return f"{lacking} of {len(promised)} edits are not in {run_dir / place}"
    return ""


def _keys(file: Path) -> list[dict[str, str | int]]:
    try:
        table = pq.read_table(file, columns=list(KEY_COLUMNS), partitioning=None)
        keys: list[dict[str, str | int]] = table.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable table of rows ({error})") from error
    return keys
