"""Pairs that InstructPix2Pix generates (arXiv 2211.09800), as its script leaves them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from p2p_bench.data.base import PairImages
from p2p_bench.data.images import load_image
from p2p_bench.data.places import inside, set_folder
from p2p_bench.data.records import (
    Faults,
    FolderSet,
    fitted_pixels,
    optional_text,
    parse_json,
    read_text,
    record_of,
    text_of,
)
from p2p_bench.data.tables import files_like
from p2p_bench.errors import DataError
from p2p_bench.types import EditPair

_SOURCE = "_0.jpg"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class InstructPix2Pix(FolderSet):
    """A pair for every kept source picture `<number>/<seed>_0.jpg`, with the prompts of its folder.

    The picture that was generated as the edit, `<seed>_1.jpg`, is one possible result and no exact answer, so
    it is not compared with.

    Attributes:
        path: Folder of the numbered folders, or of shards of them.
        limit: See `FolderSet`.
        fit: See `FolderSet`.
        name: See `FolderSet`.
    """

    NAME: ClassVar[str] = "instruct_pix2pix"

    def pairs(self) -> list[EditPair]:
        """The pairs by folder and seed; a prompt of which no picture was kept has none.

        Raises:
            DataError: The folder or a file cannot be used.
            ErrorList: Several cannot.
        """
        root = set_folder(self.path)
        faults = Faults(root, "folder")
        for file in files_like(root, (("*/prompt.json", "*/*/prompt.json"),), "prompts"):
            with faults.of("prompts", file):
                for pair in _pairs(root, file):
                    faults.add(pair)
        return faults.settled(self.limit)

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the source picture of a pair.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: It cannot be read.
        """
        assert pair.image is not None
        return fitted_pixels(load_image(pair.image), None, size, self.fit)


def _pairs(root: Path, file: Path) -> Iterator[EditPair]:
    record = record_of(parse_json(read_text(file)))
    source, target = text_of(record, "input"), text_of(record, "output")
    instruction = optional_text(record, "edit")
    seeds = [path.name.removesuffix(_SOURCE) for path in file.parent.glob(f"*{_SOURCE}")]
    others = (path for path in sorted(file.parent.glob("[0-9]*_0.*")) if not path.name.endswith(_SOURCE))
    lost = next((path.name for path in others if path.suffix.lower() in _PICTURES), None)
    if lost is not None:
        raise DataError(f"{lost}: pictures of a source end with {_SOURCE}; name it so, or remove it")
    unknown = [seed for seed in seeds if not (seed.isascii() and seed.isdecimal())]
    if unknown:
        raise DataError(f"{unknown[0]}{_SOURCE}: expected the number of a seed before {_SOURCE}")
    folder = file.parent.relative_to(root).as_posix()
    for seed in sorted(seeds, key=lambda seed: (int(seed), seed)):
        yield EditPair(
            id=f"{folder}/{seed}",
            source_prompt=source,
            target_prompts=(target,),
            image=inside(root, f"{folder}/{seed}{_SOURCE}"),
            instruction=instruction,
        )
