"""PIE-Bench++ (`UB-CVML-Group/PIE_Bench_pp`): a Parquet file a kind of edit; see datasets/pie_bench_pp."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

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
from p2p_bench.data.places import set_folder
from p2p_bench.data.records import Faults, FolderSet, chosen, optional_text, parse_json, text_of
from p2p_bench.data.tables import check_columns, files_like, find_row, read_bytes, read_columns, read_picture
from p2p_bench.errors import DataError
from p2p_bench.fields import OneOf
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

COLUMNS = ("id", "source_prompt", "target_prompt", "blended_words", "mask")


@dataclass(frozen=True)
class PieBenchPP(FolderSet):
    """The pairs of PIE-Bench++. A pair whose mask or blend words cannot be used is an error alone.

    Attributes:
        path: Folder that holds a folder a kind of edit, each with a Parquet file; or one of these.
        limit: See `FolderSet`.
        fit: See `FolderSet`.
        name: See `FolderSet`.
        categories: Kinds of edit that are taken; None takes all.
        border: See `PieBench`.
        as_released: See `PieBench`.
    """

    categories: Annotated[str | Sequence[str] | None, OneOf(CATEGORIES)] = None
    border: bool = True
    as_released: bool = False

    NAME: ClassVar[str] = "pie_bench_pp"

    def pairs(self) -> list[EditPair]:
        """The pairs, folder by folder in the order of their names; no image is read, no mask decoded.

        Raises:
            DataError: The folder or a file cannot be used.
            ErrorList: Several records cannot.
        """
        folder, wanted = set_folder(self.path), chosen(self.categories)
        faults = Faults(folder, "folder")
        for path in files_like(folder, ("*/V1-*.parquet", "V1-*.parquet"), "images and prompts"):
            category = _category(path)
            if wanted is not None and category not in wanted:
                continue
            check_columns(path, (*COLUMNS, "image"))
            for number, row in enumerate(read_columns(path, COLUMNS)):
                with faults.of(f"row {number}", path):
                    faults.add(self._pair(row, path, category))
        pairs = faults.settled(self.limit, "" if wanted is None else f" of {', '.join(wanted)}")
        tell_kinds(folder, pairs, "the folder of its table")
        return pairs

    def content(self, pair: EditPair) -> Sequence[bytes]:
        """See `HasContent`: the picture, and the runs of the mask as they stand in the table."""
        assert pair.image is not None
        number, row = find_row(pair.image, COLUMNS, lambda row: row["id"], pair.id)
        return [read_bytes(pair.image, number, "image"), str(row["mask"]).encode()]

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """Reads the image of a pair and decodes its mask.

        Args:
            pair: One of `pairs()`.
            size: Height and width of the model.

        Raises:
            DataError: The image or the mask cannot be used, or a blend word is in no prompt.
        """
        assert pair.image is not None
        number, row = find_row(pair.image, COLUMNS, lambda row: row["id"], pair.id)
        picture = read_picture(pair.image, number, "image")
        try:
            blend_words(row)
            check_blend_words(pair, self.as_released)
            return masked_pixels(picture, parse_runs(row["mask"]), size, self.fit, self.border)
        except DataError as error:
            raise DataError(f"{pair.image}, id {pair.id!r}: {error}") from error

    def _pair(self, row: Mapping[str, Any], path: Path, category: str) -> EditPair:
        source, target = (prompt_of(row, key) for key in ("source_prompt", "target_prompt"))
        try:
            words = blend_words(row)
        except DataError:  # `load` tells it, so that the others are edited
            words = None
        return EditPair(
            id=text_of(row, "id"),
            source_prompt=source,
            target_prompts=(target,),
            category=category,
            image=path,
            mask=path,
            blend_words=released_blend_words(words, source, target) if self.as_released else words,
        )


def blend_words(row: Mapping[str, Any]) -> BlendWords | None:
    """The words of `blended_words`, a list of "source,target" in JSON or as Python prints it.

    Raises:
        DataError: It is something else.
    """
    text = optional_text(row, "blended_words")
    try:
        found = [] if text is None else _list(text)
    except (DataError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"blended_words: expected a list of texts, got '{shortened(str(text))}'") from error
    sides: tuple[list[str], list[str]] = ([], [])
    for pair in found:
        pieces = [piece.strip() for piece in pair.split(",")]
        if len(pieces) != 2:
            raise DataError(f"blended_words: expected 'source,target', got '{shortened(pair)}'")
        for side, piece in zip(sides, pieces, strict=True):
            if piece and piece not in side:
                side.append(piece)
    return (tuple(sides[0]), tuple(sides[1])) if any(sides) else None


def _list(text: str) -> list[str]:
    try:
        found = parse_json(text)
    except DataError:
        found = ast.literal_eval(text.strip())
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise TypeError(text)
    return found


def _category(path: Path) -> str:
    """The kind of edit that a folder's first digit says.

    Raises:
        DataError: Its name begins with none, or with a number of several digits.
    """
    digit, rest = path.parent.name[:1], path.parent.name[1:2]
    if digit not in tuple("0123456789") or rest.isdigit():
        raise DataError(f"{path}: its folder has to begin with the digit of a kind of edit, as 0_random_140")
    return CATEGORIES[int(digit)]
