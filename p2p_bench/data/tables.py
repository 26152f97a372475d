"""Tables of published data sets: Parquet and Arrow files whose pictures are read one at a time."""

import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from p2p_bench import raster
from p2p_bench.data.places import inside
from p2p_bench.data.records import kind_of, stamp_of
from p2p_bench.errors import DataError, nearest
from p2p_bench.raster import shortened

log = logging.getLogger(__name__)


def files_like(
    folder: Path, patterns: Sequence[str | tuple[str, ...]], holds: str, counted: bool = True
) -> list[Path]:
    """The files of a data set that match a pattern, sorted.

    Args:
        folder: Folder of the data set, links resolved.
        patterns: Patterns below the folder, or several that belong together; the first that any file matches
            decides.
        holds: What they hold, for the message.
        counted: Whether they are all wanted, so that none that their names count may lack.

    Raises:
        DataError: There is none; one leads out of the folder; or their names count more of them than there
            are, as after a broken download, or are those of several editions.
    """
    kinds = [(pattern,) if isinstance(pattern, str) else pattern for pattern in patterns]
    for together in kinds:
        try:
            found = sorted({path for one in together for path in folder.glob(one) if path.is_file()})
        except (ValueError, NotImplementedError) as error:
            named = shortened(" or ".join(together))
            raise DataError(f"{folder}: {named!r} is no pattern of files in it ({error})") from error
        if found:
            if counted:
                _check_counted(folder, found, together)
                _tell_gaps(folder, found, together)
            return [inside(folder, os.path.relpath(path, folder)) for path in found]
    named = " or ".join(pattern for together in kinds for pattern in together)
    raise DataError(f"{folder}: no file {named} in it; there lie {holds} of the data set")


_COUNTED = re.compile(r"(?P<stem>.*[-_])(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<rest>.*)")
"""Name of one of several files that hold a table together, such as `test-00000-of-00003.parquet`."""


def _check_counted(folder: Path, found: Sequence[Path], patterns: Sequence[str]) -> None:
    """Sees that files whose names count them are all there, but for those that no pattern asks for.

    Raises:
        DataError: One is not, or they are of several such sets.
    """
    totals: dict[tuple[Path, str], dict[str, list[str]]] = {}
    for path in found:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and (name := _COUNTED.fullmatch(path.name)):
            kind = (path.parent, name["stem"])
            totals.setdefault(kind, {}).setdefault(name["total"], []).append(path.name)
    for (parent, _), editions in totals.items():
        if len(editions) > 1:
            mixed = ", ".join(names[0] for names in editions.values())
            raise DataError(
                f"{parent}: files of several editions of one table, such as {shortened(mixed)}; leave those "
                "of one there"
            )
        for total, names in editions.items():
            lacking = [name for name in _names_lacking(names, int(total)) if _asked(parent / name, patterns)]
            if lacking:
                raise DataError(
                    f"{folder}: {len(lacking)} of {int(total)} files of one table are not there, the first "
                    f"is {shortened((parent / lacking[0]).relative_to(folder).as_posix())}; fetch them, as "
                    "their rows would be left out"
                )


_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d{2,6})(?P<rest>\.\D+)")
"""Name of one of several files that are counted from the first on, such as `train-00000.tar`."""


def _tell_gaps(folder: Path, found: Sequence[Path], patterns: Sequence[str]) -> None:
    """Warns of numbers that lack before or between those of files, but for those that no pattern asks for.

    Names without a total may have been chosen, so that is no error. Some count from 0 and some from 1.
    """
    kinds: dict[tuple[Path, str, int, str], set[int]] = {}
    for path in found:
        if name := _NUMBERED.fullmatch(path.name):
            kind = (path.parent, name["stem"], len(name["number"]), name["rest"])
            kinds.setdefault(kind, set()).add(int(name["number"]))
    for (parent, stem, width, rest), there in kinds.items():
        if min(there) >= 10 ** (width - 1):  # no leading zero, so perhaps years or sizes
            continue
        numbers = range(min(1, min(there)), max(there))
        before = (parent / f"{stem}{number:0{width}d}{rest}" for number in numbers)
        lacking = [path for path in before if path not in found and _asked(path, patterns)]
        if lacking:
            log.warning(
                "%s: files are not there whose numbers lie before those of others: %d, the first is %s; "
                "what they hold is left out",
                *(folder, len(lacking), shortened(lacking[0].relative_to(folder).as_posix())),
            )


def _names_lacking(names: Sequence[str], total: int) -> list[str]:
    """What the files that lack would be called, by the name of one that is there."""
    known = [_COUNTED.fullmatch(name) for name in names]
    there = {int(one["number"]) for one in known if one}
    first = known[0]
    assert first is not None
    width = len(first["number"])
    tail = f"-of-{first['total']}{first['rest']}"
    return [f"{first['stem']}{number:0{width}d}{tail}" for number in range(total) if number not in there]


def _asked(path: Path, patterns: Sequence[str]) -> bool:
    return any(path.match(pattern.replace("**/", "")) for pattern in patterns)


def read_columns(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some columns of a table, row by row; no picture is read unless its column is asked for.

    Args:
        path: A Parquet file, or an Arrow file or stream where the name ends in `.arrow`.
        columns: Their names.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    yield from _rows(path, stamp_of(path), tuple(columns))


@functools.lru_cache(maxsize=4)
def _rows(path: Path, stamp: tuple[str, int, int], columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of some columns, kept, since every picture is looked for among them."""
    check_columns(path, columns)
    try:
        table = _opened(stamp)
        part = table.read(columns=list(columns)) if isinstance(table, pq.ParquetFile) else table
        rows: list[dict[str, Any]] = part.select(list(columns)).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return rows


def find_row(
    path: Path, columns: Sequence[str], id_of: Callable[[dict[str, Any]], str | None], wanted: str
) -> tuple[int, dict[str, Any]]:
    """Number and columns of the row that is a pair's.

    Args:
        path: See `read_columns`.
        columns: Names of the columns that are read.
        id_of: The pair's id from these.
        wanted: The id.

    Raises:
        DataError: The file cannot be read, or the row is gone.
    """
    for number, row in enumerate(read_columns(path, columns)):
        if id_of(row) == wanted:
            return number, row
    raise DataError(f"{path}: row {wanted!r} is no longer there")


def read_picture(path: Path, row: int, column: str) -> raster.Picture:
    """The picture in one cell of a table, see `read_bytes`.

    Args:
        path: See `read_columns`.
        row: From 0.
        column: Its name.

    Raises:
        DataError: The cell cannot be read, or holds no picture.
    """
    return raster.read_encoded(read_bytes(path, row, column), f"{path}, row {row}, {column}")


def read_bytes(path: Path, row: int, column: str) -> bytes:
    """The bytes of an image file in one cell of a table, plain or in a structure with `bytes`.

    Args:
        path: See `read_columns`.
        row: From 0.
        column: Its name.

    Raises:
        DataError: The cell cannot be read, or holds no bytes.
    """
    content = read_cell(path, row, column)
    if not isinstance(content, bytes):
        raise DataError(f"{path}, row {row}, {column}: expected the bytes of an image, found none")
    return content


def read_cell(path: Path, row: int, column: str) -> bytes | str | None:
    """What one cell of a table holds of a picture: the bytes of its file, else the file's path, else None.

    Args:
        path: See `read_columns`.
        row: From 0.
        column: Its name; cells are bytes, text, or a structure with `bytes` and `path`.

    Raises:
        DataError: The cell cannot be read, or holds something else.
    """
    try:
        cell = _cell(stamp_of(path), row, column)
    except (pa.ArrowException, OSError, IndexError, KeyError) as error:
        raise _unreadable(path, error) from error
    content = cell
    if isinstance(cell, dict):
        if not {"bytes", "path"} & set(cell):
            raise DataError(
                f"{path}, row {row}, {column}: expected a structure with bytes or path, got one with "
                f"{shortened(', '.join(cell)) or 'nothing'}"
            )
        content = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    if content is not None and not isinstance(content, bytes | str):
        raise DataError(f"{path}, row {row}, {column}: expected an image, got {kind_of(content)}")
    return content


def count_rows(path: Path) -> int:
    """Number of rows of a table.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        table = _opened(stamp_of(path))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    rows: int = table.metadata.num_rows if isinstance(table, pq.ParquetFile) else table.num_rows
    return rows


def check_columns(path: Path, columns: Iterable[str]) -> None:
    """Sees that a table has some columns.

    Raises:
        DataError: The file cannot be read, or lacks one.
    """
    try:
        table = _opened(stamp_of(path))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    known = table.schema_arrow.names if isinstance(table, pq.ParquetFile) else table.schema.names
    for column in columns:
        if known.count(column) != 1:
            what = (
                f"no column {column!r}.{nearest(column, known)}"
                if column not in known
                else (f"{known.count(column)} columns {column!r}, so which is meant is not known.")
            )
            raise DataError(f"{path}: {what} Its columns: {shortened(', '.join(known))}")


def _cell(stamp: tuple[str, int, int], row: int, column: str) -> Any:
    table = _opened(stamp)
    if isinstance(table, pa.Table):
        return table.column(column)[row].as_py()
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row < rows:
            return _group(stamp, group, column)[row].as_py()
        row -= rows
    raise IndexError("the table has no such row")


@functools.lru_cache(maxsize=2)
def _group(stamp: tuple[str, int, int], group: int, column: str) -> pa.ChunkedArray:
    """A column of a row group, kept: its neighbours are asked for next, and groups are read whole."""
    table = _opened(stamp)
    assert isinstance(table, pq.ParquetFile)
    return table.read_row_group(group, columns=[column]).column(column)


@functools.lru_cache(maxsize=8)
def _opened(stamp: tuple[str, int, int]) -> pq.ParquetFile | pa.Table:
    """A Parquet file, or an Arrow table that stays on the disk until its cells are read."""
    path = stamp[0]
    if not path.endswith(".arrow"):
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    source = pa.memory_map(path)
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:  # written as a stream, which has no footer
        source.seek(0)
        table = pa.ipc.open_stream(source).read_all()
    # The reader takes the end of the file for that of the stream, also where it is cut off between batches.
    source.seek(max(0, stamp[2] - len(_END)))
    if source.read() != _END:
        raise pa.ArrowInvalid("the stream is cut off: its end mark is not there")
    return table


_END = b"\xff\xff\xff\xff\0\0\0\0"
"""What a stream of Arrow ends with."""


_POINTER = b"version https://git-lfs.github.com/"
"""Start of what a clone without Git LFS holds in the place of a large file."""


def _unreadable(path: Path, error: Exception) -> DataError:
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return DataError(f"{path}: a pointer of Git LFS lies here and not the file; run git lfs pull")
    return DataError(f"{path}: not a whole table that can be read ({shortened(str(error))})")
