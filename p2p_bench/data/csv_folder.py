"""A folder of images beside a CSV file that says what becomes of them; see datasets/csv_folder."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from p2p_bench.data.base import PairImages
from p2p_bench.data.images import load_image, load_masked_image
from p2p_bench.data.pairs import KEYS, read_line
from p2p_bench.data.places import needed_file, set_folder
from p2p_bench.data.records import (
    Faults,
    FolderSet,
    check_written,
    fitted_pixels,
    parse_json,
    read_text,
)
from p2p_bench.errors import DataError, nearest
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

COLUMNS = ("source", "target", *(key for key in KEYS if key not in ("scene", "edit", "real")))
"""Columns a CSV may have: the keys of a JSONL line, without those of the world."""

_AS_JSON = ("target_prompts", "blend_words", "word_weights", "seed")
"""Columns whose cells are JSON."""


@dataclass(frozen=True)
class CsvFolder(FolderSet):
    """The pairs of a CSV file, each with an image of the same folder.

    Attributes:
        path: The folder.
        limit: See `FolderSet`.
        fit: See `FolderSet`.
        name: Name in results; the folder's where not given.
        file: Name of the CSV file; None takes the only one there is.
    """

    file: str | None = None

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        super().__post_init__()
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).name or "csv_folder")

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order; no image is opened.

        Raises:
            DataError: The folder or the file cannot be used.
            ErrorList: Several lines cannot.
        """
        folder = set_folder(self.path)
        path = needed_file(folder, self._file(folder), "prompts and names of images")
        faults = Faults(path)
        for number, cells in _rows(path):
            told: list[str] = []
            with faults.of(f"line {number}"):
                line = json.dumps(_record(cells)).encode()
                pair, told = read_line(line, number, folder)
                if pair is not None:
                    faults.add(pair)
            for fault in told:
                with faults.of(f"line {number}"):
                    raise DataError(fault)
        return faults.settled(self.limit)

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image and the mask of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: A file is missing or cannot be used.
        """
        assert pair.image is not None
        if pair.mask is None:
            return fitted_pixels(load_image(pair.image), None, size, self.fit)
        return fitted_pixels(*load_masked_image(pair.image, pair.mask), size, self.fit)

    def _file(self, folder: Path) -> str:
        if self.file is not None:
            return self.file
        found = sorted(path.name for path in folder.glob("*") if path.suffix.lower() == ".csv")
        if len(found) == 1:
            return found[0]
        there = f"there are {shortened(', '.join(found))}" if found else "there is none"
        raise DataError(f"{folder}: expected one CSV file, {there}; set dataset.file to its name")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of the last line and cells of every row that is not blank.

    Raises:
        DataError: The file is no CSV, or its header is none.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, cells)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(header)} "
                    "columns; text that holds commas is put in double quotation marks"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no CSV ({error})") from error


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    for place, column in enumerate(header):
        if column not in COLUMNS:
            for name, separator in (("tabs", "\t"), ("semicolons", ";")):
                if separator in column and len(header) == 1:
                    raise DataError(f"{path}, line 1: columns stand between {name}; save it with commas")
            known = f"{nearest(column[:100], COLUMNS)} Known columns: {', '.join(COLUMNS)}"
            raise DataError(f"{path}, line 1: {shortened(column)!r}: unknown column.{known}")
        if column in header[:place]:
            raise DataError(f"{path}, line 1: column {column!r} is given more than once")
    return header


def _record(cells: dict[str, str]) -> dict[str, Any]:
    """A row as a line of a JSONL file; a blank cell says nothing."""
    record: dict[str, Any] = {key: cell for key, cell in cells.items() if cell.strip()}
    for key, cell in record.items():
        check_written(key, cell)
    if "image" not in record:
        raise DataError("image: missing; every row needs one")
    for key in _AS_JSON:
        if key in record:
            try:
                record[key] = parse_json(record[key])
            except DataError as error:
                raise DataError(f"{key}: {error}") from error
    return record
