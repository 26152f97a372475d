"""Emu Edit's test set (`facebook/emu_edit_test_set`): Parquet files with captions; see datasets/emu_edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import Faults, fitted_pixels, kind_of, optional_text, text_of
from p2p_bench.data.tables import check_columns, files_like, find_row, read_bytes, read_columns, read_picture
from p2p_bench.errors import DataError
from p2p_bench.types import EditPair

_COLUMNS = ("idx", "hash", "task", "instruction", "input_caption", "output_caption")


@dataclass(frozen=True)
class EmuEdit(CaptionedSet):
    """The edits of Emu Edit's set; ids are `idx-hash`, the category is the task.

    Its captions are taken, but for those that a line of `captions` replaces. An edit whose captions are equal
    is an error of its own, as there is nothing to edit.

    Attributes:
        path: Folder that holds `data/validation-*.parquet` and `data/test-*.parquet`.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`; lines for some edits suffice.
        captioned_only: Leave out edits of which a caption is blank, instead of an error.
        split: Which of the two.
    """

    split: Literal["validation", "test"] = "validation"

    NAME: ClassVar[str] = "emu_edit"
    REPLACES: ClassVar[bool] = True
    LACKS: ClassVar[str] = "has blank captions there"

    def pairs(self) -> list[EditPair]:
        """The pairs in the order of the files; no picture is read.

        Raises:
            DataError: The folder or a file cannot be used, or prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        faults = Faults(folder, "folder")
        patterns = (f"data/{self.split}-*.parquet", f"{self.split}-*.parquet")
        for path in files_like(folder, patterns, "pictures and captions"):
            check_columns(path, (*_COLUMNS, "image"))
            for number, row in enumerate(read_columns(path, _COLUMNS)):
                with faults.of(f"row {number}", path):
                    text_of(row, "hash")
                    if not isinstance(row["idx"], int | str) or isinstance(row["idx"], bool):
                        raise DataError(f"idx: expected a number or text, got {kind_of(row['idx'])}")
                    target = optional_text(row, "output_caption")
                    faults.add(
                        EditPair(
                            id=_id(row),
                            source_prompt=optional_text(row, "input_caption") or "",
                            target_prompts=() if target is None else (target,),
                            category=optional_text(row, "task") or "",
                            image=path,
                            instruction=optional_text(row, "instruction"),
                        )
                    )
        return self.captioned(faults.settled(None))

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`."""
        assert pair.image is not None
        number, _ = find_row(pair.image, _COLUMNS[:2], _id, pair.id)
        return [read_bytes(pair.image, number, "image")]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the picture of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be used.
        """
        assert pair.image is not None
        number, _ = find_row(pair.image, _COLUMNS[:2], _id, pair.id)
        picture = read_picture(pair.image, number, "image")
        return fitted_pixels(torch.from_numpy(raster.rgb(picture)), None, size, self.fit)


def _id(row: Mapping[str, Any]) -> str:
    return f"{row['idx']}-{row['hash']}"
