"""PIE-Bench (arXiv 2310.01506): `mapping_file.json` beside `annotation_images/`; see datasets/pie_bench."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.pie_format import (
    CATEGORIES,
    BlendWords,
    check_blend_words,
    masked_pixels,
    parse_runs,
    prompt_of,
    released_blend_words,
    tell_kinds,
)
from p2p_bench.data.places import inside, needed_file, set_folder
from p2p_bench.data.records import (
    Faults,
    FolderSet,
    chosen,
    optional_text,
    read_json_object,
    record_of,
    stamp_of,
    text_of,
)
from p2p_bench.errors import DataError, nearest
from p2p_bench.fields import OneOf
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

MAPPING, IMAGES = "mapping_file.json", "annotation_images"


@dataclass(frozen=True)
class PieBench(FolderSet):
    """The pairs of PIE-Bench, with masks. A pair whose mask or blend words cannot be used is an error alone.

    Attributes:
        path: Folder that holds `mapping_file.json` and `annotation_images`.
        limit: See `FolderSet`.
        fit: See `FolderSet`.
        name: See `FolderSet`.
        categories: Kinds of edit that are taken; None takes all.
        border: Whether the outermost pixels of a mask count as editable, as the released evaluator has it.
        as_released: Leave out a blend word that is not exactly a piece of its prompt between two spaces, as
            the released code does, instead of an error.
        blend_words: Whether pairs have their blend words; without them none that no prompt has is an error,
            which suits methods that read none.
    """

    categories: Annotated[str | Sequence[str] | None, OneOf(CATEGORIES)] = None
    border: bool = True
    as_released: bool = False
    blend_words: bool = True

    NAME: ClassVar[str] = "pie_bench"

    def pairs(self) -> list[EditPair]:
        """The pairs in the file's order; no image is opened and no mask is decoded.

        Raises:
            DataError: The folder or the mapping file cannot be used.
            ErrorList: Several records cannot.
        """
        folder = set_folder(self.path)
        mapping = needed_file(folder, MAPPING, "prompts and masks")
        faults, wanted = Faults(mapping), chosen(self.categories)
        for key, value in read_json_object(mapping).items():
            with faults.of(f"id {shortened(key)!r}"):
                pair = self._pair(key, record_of(value), folder)
                if wanted is None or pair.category in wanted:
                    faults.add(pair)
        pairs = faults.settled(self.limit, "" if wanted is None else f" of {', '.join(wanted)}")
        tell_kinds(mapping, pairs, "editing_type_id", folder / IMAGES)
        return pairs

    def content(self, pair: EditPair) -> Sequence[Path | bytes]:
        """See `HasContent`: the image, and the runs of the mask as they stand in the mapping file."""
        assert pair.image is not None
        return [pair.image, json.dumps(self._runs(pair)).encode()]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image of a pair and decodes its mask.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: The image or the mask cannot be used, or a blend word is in no prompt.
        """
        assert pair.image is not None
        picture = raster.read_picture(pair.image)
        try:
            check_blend_words(pair, self.as_released)
            runs = parse_runs(self._runs(pair))
            return masked_pixels(picture, runs, size, self.fit, self.border)
        except DataError as error:
            raise DataError(f"{pair.mask}, id {pair.id!r}: {error}") from error

    def _runs(self, pair: EditPair) -> Any:
        assert pair.mask is not None
        return _records(stamp_of(pair.mask))[pair.id]["mask"]

    def _pair(self, key: str, record: Mapping[str, Any], folder: Path) -> EditPair:
        if not key.strip():
            raise DataError("the id is empty")
        if record.get("mask") is None:
            raise DataError("mask: missing")
        source, target = (prompt_of(record, name) for name in ("original_prompt", "editing_prompt"))
        words = _blend_words(record, self.as_released) if self.blend_words else None
        return EditPair(
            id=key,
            source_prompt=source,
            target_prompts=(target,),
            category=category_of(text_of(record, "editing_type_id")),
            image=inside(folder / IMAGES, text_of(record, "image_path")),
            mask=folder / MAPPING,
            blend_words=released_blend_words(words, source, target) if self.as_released else words,
            instruction=optional_text(record, "editing_instruction"),
        )


def category_of(digit: str) -> str:
    """The kind of edit of an `editing_type_id`.

    Raises:
        DataError: There is none.
    """
    if digit not in map(str, range(len(CATEGORIES))):
        raise DataError(f"editing_type_id: expected '0' to '9', got '{shortened(digit)}'")
    return CATEGORIES[int(digit)]


def _blend_words(record: Mapping[str, Any], as_released: bool) -> BlendWords | None:
    """The first two pieces of `blended_word`: a word of the source and one of the target.

    The released code cuts at every space, so that there is nothing between two of them.
    """
    if "blended_word" not in record and (hint := nearest("blended_word", record)):
        raise DataError(f"blended_word: missing.{hint.replace('Did you mean', 'Is it')}")
    text = optional_text(record, "blended_word") or ""
    pieces = text.split(" ") if as_released and text else text.split()
    if len(pieces) == 1:
        raise DataError(f"blended_word: expected 'source target', got '{shortened(pieces[0])}' alone")
    return ((pieces[0],), (pieces[1],)) if pieces else None


@functools.lru_cache(maxsize=2)
def _records(stamp: tuple[str, int, int]) -> dict[str, Any]:
    """The mapping file, read once for all of its masks."""
    return read_json_object(Path(stamp[0]))
