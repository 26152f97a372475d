"""TEdBench (`bahjat-kawar/tedbench`): pictures and target captions in a Parquet file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.captions import CaptionedSet
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import Faults, fitted_pixels, text_of
from p2p_bench.data.tables import check_columns, files_like, read_bytes, read_columns, read_picture
from p2p_bench.errors import DataError
from p2p_bench.types import EditPair

_PICTURE = "original_image"


@dataclass(frozen=True)
class TEdBench(CaptionedSet):
    """The edits of TEdBench; the id is the number of the row, from "0".

    `edited_image` is one method's result and no exact answer, so it is not compared with.

    Attributes:
        path: Folder that holds `data/val-*.parquet`.
        limit: See `CaptionedSet`.
        fit: See `CaptionedSet`.
        name: See `CaptionedSet`.
        captions: See `CaptionedSet`; its lines give `source` alone.
        captioned_only: See `CaptionedSet`.
    """

    NAME: ClassVar[str] = "tedbench"
    LACKS: ClassVar[str] = "has captions of the target only"

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order; no picture is read.

        Raises:
            DataError: The folder or a file cannot be used, or prompts are missing.
            ErrorList: Several records cannot be used.
        """
        folder = set_folder(self.path)
        faults = Faults(folder, "folder")
        (path, *more) = files_like(folder, ("data/val-*.parquet", "val-*.parquet"), "pictures and captions")
        check_columns(path, ("caption", _PICTURE))
        for number, row in enumerate(read_columns(path, ("caption",))):
            with faults.of(f"row {number}", path):
                faults.add(EditPair(str(number), "", (text_of(row, "caption"),), image=path))
        if more:
            with faults.of("files"):
                raise DataError(f"expected one file, there are {len(more) + 1}, so ids are not known")
        return self.captioned(faults.settled(None))

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`."""
        assert pair.image is not None
        return [read_bytes(pair.image, int(pair.id), _PICTURE)]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the original picture of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be used.
        """
        assert pair.image is not None
        picture = read_picture(pair.image, int(pair.id), _PICTURE)
        return fitted_pixels(torch.from_numpy(raster.rgb(picture)), None, size, self.fit)
