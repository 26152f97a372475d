"""GEdit-Bench (`stepfun-ai/GEdit-Bench`): Arrow files with pictures and instructions; see datasets/gedit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import Faults, fitted_pixels, text_of
from p2p_bench.data.tables import (
    check_columns,
    files_like,
    find_row,
    read_bytes,
    read_columns,
    read_picture,
)
from p2p_bench.errors import DataError
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

Language = Literal["en", "cn"]
_COLUMNS = ("key", "task_type", "instruction", "instruction_language")


@dataclass(frozen=True)
class GEdit(CaptionedSet):
    """The edits of GEdit-Bench in one language; the id is the key, the category the type of task.

    Attributes:
        path: Folder that holds `*.arrow`, or one of these a split.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`.
        captioned_only: See `CaptionedSet`.
        language: Of the instructions.
        image: Column of the picture that is edited.
    """

    language: Language = "en"
    image: Literal["input_image", "input_image_raw"] = "input_image"

    NAME: ClassVar[str] = "gedit"
    LACKS: ClassVar[str] = "has instructions only"

    def pairs(self) -> list[EditPair]:
        """The pairs in the order of the files; no picture is read.

        Raises:
            DataError: The folder or a file cannot be used, or prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        faults = Faults(folder, "folder")
        for path in files_like(folder, ("*.arrow", "train/*.arrow", "data/*.arrow"), "pictures"):
            check_columns(path, (*_COLUMNS, self.image))
            for number, row in enumerate(read_columns(path, _COLUMNS)):
                with faults.of(f"row {number}", path):
                    if _language(row) == self.language:
                        instruction = text_of(row, "instruction")
                        category = text_of(row, "task_type")
                        faults.add(
                            EditPair(
                                text_of(row, "key"), "", (), category, image=path, instruction=instruction
                            )
                        )
        return self.captioned(faults.settled(None, f" in language {self.language!r}"))

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`."""
        assert pair.image is not None
        return [read_bytes(pair.image, self._row(pair.image, pair.id), self.image)]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the picture of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be used.
        """
        assert pair.image is not None
        picture = read_picture(pair.image, self._row(pair.image, pair.id), self.image)
        return fitted_pixels(torch.from_numpy(raster.rgb(picture)), None, size, self.fit)

    def _row(self, path: Path, wanted: str) -> int:
        """Number of the row of a key in this language: another language may have the key too."""

        def key(row: dict[str, Any]) -> str | None:
            return row["key"] if row["instruction_language"] == self.language else None

        return find_row(path, _COLUMNS, key, wanted)[0]


def _language(row: Mapping[str, Any]) -> str:
    """Of a row's instruction: another name for it would leave the row out without a word."""
    language, known = text_of(row, "instruction_language"), get_args(Language)
    if language not in known:
        raise DataError(
            f"instruction_language: expected {' or '.join(map(repr, known))}, got {shortened(language)!r}"
        )
    return language
