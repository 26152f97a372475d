"""What PIE-Bench and PIE-Bench++ have in common: kinds of edit, masks as runs, blend words.

A mask is a list of runs, `start, length, start, length, ...`, of pixels that may change, counted from 0 row
by row over 512 x 512 pixels. As in the released evaluator, a run that ends behind the last pixel is clipped,
and the outermost rows and columns count as editable.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from p2p_bench import raster
from p2p_bench.data.base import PairImages
from p2p_bench.data.images import Fit
from p2p_bench.data.records import fitted_pixels, kind_of, text_of
from p2p_bench.errors import DataError
from p2p_bench.prompts.words import split_words
from p2p_bench.raster import shortened
from p2p_bench.types import EditPair

log = logging.getLogger(__name__)

CATEGORIES = (
    "random",
    "change_object",
    "add_object",
    "delete_object",
    "change_content",
    "change_pose",
    "change_colour",
    "change_material",
    "change_background",
    "change_style",
)
"""Kinds of edit; the place is the set's `editing_type_id`."""

SIDE = 512
"""Height and width that masks are written for."""

BlendWords = tuple[tuple[str, ...], tuple[str, ...]]


def without_brackets(prompt: str) -> str:
    """A prompt without the brackets that mark what changes."""
    return prompt.replace("[", "").replace("]", "")


def prompt_of(record: Mapping[str, Any], key: str) -> str:
    """The prompt of a record under a key, without brackets.

    Raises:
        DataError: It is missing or no text, or nothing is left of it.
    """
    prompt = without_brackets(text_of(record, key))
    if not prompt.strip():
        raise DataError(f"{key}: is empty but for its brackets")
    return prompt


_ID, _FOLDER = re.compile(r"(?P<digit>[0-9])[0-9]{11}$"), re.compile(r"(?P<digit>[0-9])_[^/]*/")


def tell_kinds(path: Path, pairs: Iterable[EditPair], said_by: str, images: Path | None = None) -> None:
    """Warns where an id, or the folder of an image, says another kind of edit than the pair's category.

    Ids of the published sets have 12 digits, of which the first is the kind, as is that of the folder.

    Args:
        path: The file or folder of the data set, for the message.
        pairs: The pairs.
        said_by: What the category was taken from.
        images: Folder below which images lie in folders by kind; None: they do not.
    """
    found = []
    for pair in pairs:
        assert pair.image is not None
        below = "" if images is None else pair.image.relative_to(images).as_posix()
        kinds = [_ID.match(pair.id), _FOLDER.match(below)]
        if any(kind and CATEGORIES[int(kind["digit"])] != pair.category for kind in kinds):
            found.append((pair.id, pair.category, below))
    if found:
        id, category, below = found[0]
        where = f" ({below})" if below else ""
        log.warning(
            "%s: the kind of edit by %s is another than by id or folder, of %d pairs; the first is id %r%s, "
            "here %s",
            *(path, said_by, len(found), shortened(id), shortened(where), category),
        )


def parse_runs(value: Any) -> tuple[int, ...]:
    """The numbers of a mask, from a list of integers or from a text of them.

    Raises:
        DataError: It is something else.
    """
    if isinstance(value, str):
        pieces = value.split()
        wrong = next(
            (piece for piece in pieces if not piece.lstrip("-").isascii() or not _whole(piece)), None
        )
        if wrong is not None:
            raise DataError(f"mask: expected integers, got '{shortened(wrong)}'")
        return tuple(map(int, pieces))
    if not isinstance(value, list):
        raise DataError(f"mask: expected [start, length, ...], got {kind_of(value)}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int):
            shown = repr(number) if isinstance(number, float) else kind_of(number)
            raise DataError(f"mask: expected integers, got {shown}")
    return tuple(value)


def _whole(piece: str) -> bool:
    digits = piece.removeprefix("-")
    return digits.isdecimal() and len(digits) < 20


def decode_runs(runs: Sequence[int], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The mask that runs describe.

    Args:
        runs: `start, length, ...`, in any order; a run that ends behind the last pixel is clipped.
        height: Rows.
        width: Columns.

    Returns:
        True in the runs, row by row.

    Raises:
        DataError: A length is missing, a number is negative, runs overlap, or they describe another image:
            one begins behind the last pixel, or they hold more pixels than there are.
    """
    if len(runs) % 2:
        raise DataError(f"mask: expected pairs of start and length, got {len(runs)} numbers")
    total = height * width
    flat = np.zeros(total, bool)
    end = 0
    for start, length in sorted(zip(runs[::2], runs[1::2], strict=True)):
        run = f"mask: the run of {length} pixels from {start}"
        if start < 0 or length < 0:
            raise DataError(f"{run} has a negative number")
        if start < end:
            raise DataError(f"{run} overlaps the one that ends before {end}")
        if start >= total:
            raise DataError(f"{run} begins behind the last of {width} x {height} pixels")
        if length > total:
            raise DataError(f"{run} is longer than the image of {width} x {height} pixels")
        flat[start : start + length] = True
        end = start + length
    if sum(runs[1::2]) > total:
        raise DataError(f"mask: its runs hold more than {width} x {height} pixels")
    return flat.reshape(height, width)


def with_border(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """A mask whose outermost rows and columns are true."""
    bordered = mask.copy()
    bordered[[0, -1], :] = True
    bordered[:, [0, -1]] = True
    return bordered


def masked_pixels(
    picture: raster.Picture, runs: Sequence[int], size: tuple[int, int], fit: Fit, border: bool
) -> PairImages:
    """An image and its mask at a model's size.

    Args:
        picture: The image, of 512 x 512 pixels.
        runs: See `decode_runs`.
        size: Height and width of the model.
        fit: See `p2p_bench.data.images.fit_image`.
        border: Whether the outermost pixels count as editable.

    Raises:
        DataError: The image has another size than masks are written for, or is turned by EXIF, which a mask
            of that size does not show; or the runs are no mask.
    """
    image = torch.from_numpy(raster.rgb(picture))
    height, width = image.shape[-2:]
    if (height, width) != (SIDE, SIDE):
        raise DataError(
            f"the image is {width} x {height} pixels, but its mask is written for {SIDE} x {SIDE}; "
            "take the image as it was published"
        )
    if picture.orientation != 1:
        raise DataError(
            f"the image is turned by EXIF orientation {picture.orientation}, its mask is not, so where the "
            "mask lies is not known; take the image as it was published"
        )
    mask = decode_runs(runs, SIDE, SIDE)
    white = with_border(mask) if border else mask
    return fitted_pixels(image, torch.from_numpy(white.astype(np.float32)), size, fit)


def released_blend_words(words: BlendWords | None, source: str, target: str) -> BlendWords | None:
    """The blend words that the released code finds: those that equal a piece between two spaces.

    Where it finds neither, they stay: what it does then is no edit, and `check_blend_words` says so.
    """
    if words is None:
        return None
    prompts = (source.split(" "), target.split(" "))
    old, new = (tuple(one for one in side if one in at) for side, at in zip(words, prompts, strict=True))
    return (old, new) if old or new else words


def check_blend_words(pair: EditPair, as_released: bool) -> None:
    """Sees that a pair's blend words are in its prompts.

    Raises:
        DataError: One is not; names it, the prompt and what can be done.
    """
    prompts = (pair.source_prompt, pair.target_prompts[0])
    for role, words, prompt in zip(("source", "target"), pair.blend_words or ((), ()), prompts, strict=True):
        for word in words:
            if _has(prompt, word):
                continue
            cure = (
                "the released code finds neither blend word and hands the source back, which is no edit"
                if as_released
                else "correct it, or set dataset.as_released=true, which ignores it as the released code does"
            )
            raise DataError(f"blend word {word!r} is not in the {role} prompt {prompt!r}; {cure}")


def _has(prompt: str, phrase: str) -> bool:
    bare = [word.bare for word in split_words(prompt)]
    wanted = [word.bare for word in split_words(phrase)]
    return any(bare[start : start + len(wanted)] == wanted for start in range(len(bare)))
