"""MagicBrush (`osunlp/MagicBrush`): pictures, masks and instructions in Parquet files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.images import masked_image
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import Faults, fitted_pixels, integer_of, text_of
from p2p_bench.data.tables import check_columns, files_like, find_row, read_bytes, read_columns, read_picture
from p2p_bench.types import EditPair

_COLUMNS = ("img_id", "turn_index", "instruction")
_PICTURES = ("source_img", "mask_img")


@dataclass(frozen=True)
class MagicBrush(CaptionedSet):
    """The turns of MagicBrush, each an edit of what the turn before it left; ids are `img_id-turn`.

    Attributes:
        path: Folder that holds `data/dev-*.parquet` and `data/train-*.parquet`.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`.
        captioned_only: See `CaptionedSet`.
        split: Which of the two.
    """

    split: Literal["dev", "train"] = "dev"

    NAME: ClassVar[str] = "magicbrush"
    LACKS: ClassVar[str] = "has instructions only"

    def pairs(self) -> list[EditPair]:
        """The pairs in the order of the files; no picture is read.

        Raises:
            DataError: The folder or a file cannot be used, or prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        faults = Faults(folder, "folder")
        patterns = (f"data/{self.split}-*.parquet", f"{self.split}-*.parquet")
        for path in files_like(folder, patterns, "pictures and instructions"):
            check_columns(path, (*_COLUMNS, *_PICTURES))
            for number, row in enumerate(read_columns(path, _COLUMNS)):
                with faults.of(f"row {number}", path):
                    text_of(row, "img_id")
                    integer_of(row, "turn_index")
                    instruction = text_of(row, "instruction")
                    faults.add(EditPair(_id(row), "", (), image=path, mask=path, instruction=instruction))
        return self.captioned(faults.settled(None))

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`."""
        assert pair.image is not None
        number, _ = find_row(pair.image, _COLUMNS, _id, pair.id)
        return [read_bytes(pair.image, number, column) for column in _PICTURES]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the source picture of a turn and its mask.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: One cannot be used.
        """
        assert pair.image is not None
        number, _ = find_row(pair.image, _COLUMNS, _id, pair.id)
        image, mask = (read_picture(pair.image, number, column) for column in _PICTURES)
        return fitted_pixels(*masked_image(image, mask), size, self.fit)


def _id(row: Mapping[str, Any]) -> str:
    return f"{row['img_id']}-{row['turn_index']}"
