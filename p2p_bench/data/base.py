"""What a data set is to the benchmark: cheap pairs first, pixels only when asked for."""

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from p2p_bench.errors import DataError, P2PError
from p2p_bench.hashing import sha256_file
from p2p_bench.pinned import with_pinned_settings
from p2p_bench.types import MASK_NOTES, EditPair, MaskState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairImages:
    """The pixels of a pair, all of the size that was asked for.

    Attributes:
        image: Source image, RGB in [0, 1]; None where the source is sampled from noise.
        mask: 1 where the edit may change the image, 0 elsewhere; None where unknown.
        answer: The exact result of the edit, RGB in [0, 1]; None where unknown.
        mask_lost: The mask is empty because the image was brought to this size, and was not before.
    """

    image: Float[Tensor, "3 h w"] | None = None
    mask: Float[Tensor, "h w"] | None = None
    answer: Float[Tensor, "3 h w"] | None = None
    mask_lost: bool = False


@dataclass(frozen=True)
class LoadedPair:
    """A pair with its pixels, or with the reason why it has none.

    Attributes:
        pair: The pair.
        image: As in `PairImages`.
        mask: As in `PairImages`.
        answer: As in `PairImages`.
        mask_lost: As in `PairImages`.
        checksum: Of the bytes that its pixels were decoded from, by `content_checksum`.
        error: Why the pair could not be loaded; None if it could.
    """

    pair: EditPair
    image: Float[Tensor, "3 h w"] | None = None
    mask: Float[Tensor, "h w"] | None = None
    answer: Float[Tensor, "3 h w"] | None = None
    mask_lost: bool = False
    checksum: str = ""
    error: str | None = None

    @property
    def mask_state(self) -> MaskState:
        """Whether the mask divides the image."""
        if self.mask is None:
            return ""
        if not bool((self.mask >= _HALF).any()):
            return "lost" if self.mask_lost else "empty"
        return "full" if bool((self.mask >= _HALF).all()) else "part"


_HALF = 0.5


@runtime_checkable
class PairDataset(Protocol):
    """A source of pairs. An instance holds settings only; nothing is read before `pairs` is called."""

    @property
    def name(self) -> str:
        """Short name that appears in results."""
        ...

    def pairs(self) -> list[EditPair]:
        """All pairs in a fixed order, without touching a pixel.

        Raises:
            P2PError: The data set cannot be read; every fault is listed.
        """
        ...

    def load(self, pair: EditPair, size: tuple[int, int]) -> PairImages:
        """The pixels of one of its pairs.

        Args:
            pair: One of `pairs()`.
            size: Height and width that the model works at.

        Raises:
            DataError: An image or a mask cannot be used.
        """
        ...


@runtime_checkable
class HasContent(Protocol):
    """A data set whose pixels come from elsewhere than a file of their own for each image and mask."""

    def content(self, pair: EditPair) -> Sequence[Path | bytes]:
        """What the pixels of a pair are decoded from: files, or the bytes themselves; nothing is decoded.

        Raises:
            DataError: It cannot be read.
        """
        ...


def content_checksum(dataset: PairDataset, pair: EditPair) -> str:
    """Start of the SHA-256 of what a pair's pixels are decoded from; "" where there is nothing to decode.

    Names say nothing of what a file holds: a picture that was replaced under its name changes this.

    Args:
        dataset: The data set; without `HasContent` it is taken to read the files `image` and `mask`.
        pair: One of its pairs.

    Raises:
        DataError: A file cannot be read.
    """
    files = [path for path in (pair.image, pair.mask) if path is not None]
    parts: Sequence[Path | bytes] = dataset.content(pair) if isinstance(dataset, HasContent) else files
    sums: list[str] = []
    for part in parts:
        try:
            sums.append(_file_sum(part) if isinstance(part, Path) else hashlib.sha256(part).hexdigest())
        except OSError as error:
            raise DataError(f"{part!s}: the file cannot be read ({error.strerror or error})") from error
    return hashlib.sha256(" ".join(sums).encode()).hexdigest()[:_DIGITS] if sums else ""


_DIGITS = 16


def _file_sum(path: Path) -> str:
    stat = path.stat()
    return _stamped_sum(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=16)
def _stamped_sum(path: Path, time: int, size: int) -> str:
    """Of a file as it was at a time: one that holds many pictures is read once."""
    return sha256_file(path)


def all_pairs(dataset: PairDataset) -> list[EditPair]:
    """The pairs of a data set, which is anybody's, once they can be told apart.

    Raises:
        DataError: They are no list of pairs, more than its `limit`, or two have one id.
        P2PError: See `PairDataset.pairs`.
    """
    pairs, kind = dataset.pairs(), type(dataset).__name__
    if not isinstance(pairs, Sequence) or not all(isinstance(pair, EditPair) for pair in pairs):
        odd = next((one for one in pairs if not isinstance(one, EditPair)), pairs) if pairs else pairs
        raise DataError(f"dataset: {kind}.pairs() gave a {type(odd).__name__}; expected a list of EditPair")
    limit = getattr(dataset, "limit", None)
    if limit is not None and len(pairs) > limit:
        raise DataError(
            f"dataset: {kind}.pairs() gave {len(pairs)} pairs in spite of dataset.limit={limit}; end it with "
            "`return take(pairs, self.limit)`"
        )
    counts = Counter(pair.id for pair in pairs)
    twice = [f"{id!r} ({count} times)" for id, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"dataset: {kind} calls several pairs alike: {', '.join(twice[:_SHOWN])}"
            f"{', ...' if len(twice) > _SHOWN else ''}; a pair's id has to be its own"
        )
    bare = next((pair.id for pair in pairs if not pair.target_prompts), None)
    if bare is not None:
        raise DataError(f"dataset: {kind}: pair {bare!r} has no target prompt; expected at least one")
    return list(pairs)


_SHOWN = 5
"""Ids that a message lists."""


@with_pinned_settings
def load_pair(dataset: PairDataset, pair: EditPair, size: tuple[int, int]) -> LoadedPair:
    """Loads a pair; unusable pixels become its `error`, so that one bad file does not stop a run.

    A mask that does not divide its image is logged.
    """
    try:
        pixels = dataset.load(pair, size)
        fault = _pixel_fault(pixels, pair, size)
        checksum = "" if fault else _known_content(dataset, pair)
    except P2PError as error:
        return LoadedPair(pair, error=str(error))
    except Exception as error:  # whatever the pixels of one pair do, the others are edited
        log.exception("pair %r cannot be loaded", pair.id)
        return LoadedPair(pair, error=f"the pair cannot be loaded ({type(error).__name__}: {error})")
    if fault:
        return LoadedPair(pair, error=f"the pair cannot be used: {type(dataset).__name__}.load gave {fault}")
    loaded = LoadedPair(pair, pixels.image, pixels.mask, pixels.answer, pixels.mask_lost, checksum)
    if loaded.mask_state in MASK_NOTES:
        log.warning("pair %r: %s", pair.id, MASK_NOTES[loaded.mask_state])
    return loaded


def _known_content(dataset: PairDataset, pair: EditPair) -> str:
    """`content_checksum`; "" for a data set whose images are no files and that does not say what they are."""
    files = [path for path in (pair.image, pair.mask) if path is not None]
    unknown = not isinstance(dataset, HasContent) and not all(path.exists() for path in files)
    return "" if unknown else content_checksum(dataset, pair)


def _pixel_fault(pixels: object, pair: EditPair, size: tuple[int, int]) -> str:
    """What a data set has given in the place of a pair's pixels, in words; "" if they are these."""
    if not isinstance(pixels, PairImages):
        return f"a {type(pixels).__name__}; expected PairImages"
    if pair.has_image != (pixels.image is not None):
        return "no image for a pair that has one" if pair.has_image else "an image for a pair that has none"
    for name, shape in (("image", (3, *size)), ("mask", size), ("answer", (3, *size))):
        picture = getattr(pixels, name)
        if picture is None:
            continue
        if not isinstance(picture, Tensor) or not picture.is_floating_point():
            got = str(picture.dtype) if isinstance(picture, Tensor) else f"a {type(picture).__name__}"
            return f"{got} for the {name}; expected a tensor of floats in [0, 1]"
        if tuple(picture.shape) != shape:
            return f"the {name} in the shape {tuple(picture.shape)}; expected {shape}"
        if not bool(((picture >= -_ROUNDING) & (picture <= 1 + _ROUNDING)).all()):
            low, high = float(picture.min()), float(picture.max())
            return f"values from {low:g} to {high:g} in the {name}; expected [0, 1]"
    return ""


_ROUNDING = 1e-3


def take(pairs: Sequence[EditPair], limit: int | None) -> list[EditPair]:
    """The first `limit` pairs, at least 1; all of them if `limit` is None."""
    return list(pairs[:limit])
