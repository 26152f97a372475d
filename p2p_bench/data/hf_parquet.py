"""Any data set in Parquet or Arrow files, as Hugging Face keeps them; see datasets/hf_parquet."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.images import masked_image
from p2p_bench.data.places import inside, set_folder
from p2p_bench.data.records import Faults, fitted_pixels, kind_of, optional_text, text_of
from p2p_bench.data.tables import check_columns, count_rows, files_like, find_row, read_cell, read_columns
from p2p_bench.errors import DataError
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

_ALL = (("**/*.parquet", "**/*.arrow"),)
"""Patterns of the files that are taken where none is given."""

_SHARD = re.compile(r"(^|(?<=/)|[-_.])\d+(-of-\d+)?(?=\.(parquet|arrow)$)")
"""What the files of one split differ in: a number of its own, and not the end of a word, as in `test2`."""


@dataclass(frozen=True)
class HfParquet(CaptionedSet):
    """The rows of Parquet or Arrow files; which column holds what is named.

    Attributes:
        path: Folder of the data set.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`; its lines may replace prompts.
        captioned_only: See `CaptionedSet`.
        files: Pattern of the files below the folder; None takes all where they are of one split.
        id: Column of ids, texts or integers; None numbers the rows over all files, from "0".
        source: Column of source prompts; None where the side file has them.
        target: Column of target prompts, each a text or a list of texts; None as of `source`.
        image: Column of source images: the bytes of an image file, plain or in a structure, or the path of a
            file below the folder. None: sources are sampled from noise.
        mask: Column of masks, likewise, white where the image may change; a cell without one says none.
        category: Column of kinds of edit.
        instruction: Column of instructions.
    """

    files: str | None = None
    id: str | None = None
    source: str | None = "source_prompt"
    target: str | None = "target_prompt"
    image: str | None = "image"
    mask: str | None = None
    category: str | None = None
    instruction: str | None = None

    NAME: ClassVar[str] = "hf_parquet"
    REPLACES: ClassVar[bool] = True
    LACKS: ClassVar[str] = (
        "has rows without prompts, or no column of prompts that dataset.source and .target name"
    )

    def pairs(self) -> list[EditPair]:
        """The rows in the order of the files; no picture is read.

        Raises:
            DataError: The folder or a file cannot be used, or prompts are missing.
            ErrorList: Several rows cannot be used.
        """
        folder = set_folder(self.path)
        faults, start = Faults(folder, "folder"), 0
        for path in self._paths(folder):
            check_columns(path, [column for column in (self.image, self.mask) if column is not None])
            rows = read_columns(path, self._columns) if self._columns else [{}] * count_rows(path)
            for number, row in enumerate(rows):
                with faults.of(f"row {number}", path):
                    faults.add(self._pair(row, path, str(start + number)))
            start += count_rows(path)
        return self.captioned(faults.settled(None))

    def content(self, pair: EditPair) -> Sequence[Path | bytes]:
        """See `HasContent`."""
        if pair.image is None:
            return []
        found = [self._cell(pair, column) for column in (self.image, self.mask)]
        return [one for one in found if one is not None]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image and the mask of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: One cannot be used.
        """
        if pair.image is None:
            return PairImages()
        image, mask = (self._picture(pair, column) for column in (self.image, self.mask))
        if image is None:
            raise DataError(f"{pair.image}, id {pair.id!r}: {self.image}: there is no image in it")
        if mask is None:
            return fitted_pixels(torch.from_numpy(raster.rgb(image)), None, size, self.fit)
        return fitted_pixels(*masked_image(image, mask), size, self.fit)

    @property
    def _columns(self) -> tuple[str, ...]:
        """Columns that are read for all rows at once."""
        named = (self.id, self.source, self.target, self.category, self.instruction)
        return tuple(dict.fromkeys(column for column in named if column is not None))

    def _paths(self, folder: Path) -> list[Path]:
        """The files, of one split.

        Raises:
            DataError: There is none; or they are of several, and which is meant is not said.
        """
        if self.files is not None:
            return files_like(folder, (self.files,), "rows")
        found = [
            path
            for path in files_like(folder, _ALL, "rows", counted=False)
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        splits = sorted({_SHARD.sub("", path.relative_to(folder).as_posix()) for path in found})
        if len(splits) != 1:
            named = ", ".join(splits) if splits else "none that is not hidden"
            raise DataError(
                f"{folder}: expected the files of one split, there are {shortened(named)}; set dataset.files "
                'to a pattern, such as "data/test-*.parquet"'
            )
        files_like(folder, _ALL, "rows")  # sees that none lacks, once they are known to be of one split
        return found

    def _pair(self, row: Mapping[str, Any], path: Path, number: str) -> EditPair:
        return EditPair(
            id=number if self.id is None else _id(row, self.id),
            source_prompt=self._text(row, self.source) or "",
            target_prompts=() if self.target is None else _targets(row, self.target),
            category=self._text(row, self.category) or "",
            image=None if self.image is None else path,
            mask=None if self.image is None or self.mask is None else path,
            instruction=self._text(row, self.instruction),
        )

    def _text(self, row: Mapping[str, Any], column: str | None) -> str | None:
        return None if column is None else optional_text(row, column)

    def _cell(self, pair: EditPair, column: str | None) -> bytes | Path | None:
        """The bytes of a picture, or its file; None for an empty cell."""
        assert pair.image is not None
        if column is None:
            return None
        path, folder = pair.image, set_folder(self.path)
        try:
            cell = read_cell(path, self._row(pair.id, path, folder), column)
            return inside(folder, cell) if isinstance(cell, str) else cell
        except DataError as error:
            raise DataError(f"{path}, id {pair.id!r}, {column}: {error}") from error

    def _picture(self, pair: EditPair, column: str | None) -> raster.Picture | None:
        cell = self._cell(pair, column)
        if isinstance(cell, bytes):
            return raster.read_encoded(cell, f"{pair.image}, id {pair.id!r}, {column}")
        return None if cell is None else raster.read_picture(cell)

    def _row(self, wanted: str, path: Path, folder: Path) -> int:
        """Number of a pair's row in its file."""
        if self.id is not None:
            column = self.id
            return find_row(path, self._columns, lambda row: _id(row, column), wanted)[0]
        paths = self._paths(folder)
        return int(wanted) - sum(map(count_rows, paths[: paths.index(path)]))


def _id(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{column}: expected text or an integer, got {kind_of(value)}")
    return text_of(row, column)


def _targets(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = row[column]
    if isinstance(value, list):
        if not value:
            raise DataError(f"{column}: the list is empty")
        return tuple(text_of({column: item}, column) for item in value)
    text = optional_text(row, column)
    return () if text is None else (text,)
