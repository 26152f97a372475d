"""Prompt pairs from a JSONL file, with images and masks beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from p2p_bench.data.base import PairImages, take
from p2p_bench.data.images import Fit, load_image, load_masked_image
from p2p_bench.data.pairs import read_pairs
from p2p_bench.data.records import fitted_pixels
from p2p_bench.data.world import load_scene
from p2p_bench.errors import DataError
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.raster import is_file, shortened
from p2p_bench.types import EditPair


@dataclass(frozen=True)
class JsonlPairs:
    """The pairs of a JSONL file; `p2p_bench.data.pairs` describes its format.

    Attributes:
        path: The JSONL file.
        root: Folder that image paths are relative to; None takes the file's own folder.
        limit: Number of pairs from the start; None takes all.
        fit: How an image of another size is brought to the model's: "crop" (centred crop, resize), "pad",
            "resize" (stretch) or "error".
        name: Name in results; the file's name without its ending where not given.
    """

    path: str | Path
    root: str | Path | None = None
    limit: Annotated[int | None, AtLeast(1)] = None
    fit: Fit = "crop"
    name: str = ""

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "dataset.")
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order.

        Raises:
            DataError: The file cannot be read, or all of its images are missing. A single missing
                image is an error of its pair alone.
            ErrorList: The file has several faults.
        """
        root = None if self.root is None else Path(self.root).expanduser()
        pairs = take(read_pairs(Path(self.path).expanduser(), root), self.limit)
        images = [pair.image for pair in pairs if pair.image is not None]
        if images and not any(map(is_file, images)):
            raise DataError(
                f"{self.path}: none of its {len(images)} images exists, the first is "
                f"{shortened(str(images[0]))}; "
                "set dataset.root to the folder that image paths are relative to"
            )
        return pairs

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image and the mask of a pair, or renders its scene.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: A file is missing or cannot be used.
        """
        if pair.image is None:
            return load_scene(pair, size)
        if pair.mask is None:
            return fitted_pixels(load_image(pair.image), None, size, self.fit)
        return fitted_pixels(*load_masked_image(pair.image, pair.mask), size, self.fit)
