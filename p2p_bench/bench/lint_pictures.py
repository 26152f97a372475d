"""What is wrong, or odd, with images and masks of a data set: from their headers, or from their pixels."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from p2p_bench import raster
from p2p_bench.data.base import PairDataset, load_pair
from p2p_bench.errors import DataError
from p2p_bench.hashing import sha256_file
from p2p_bench.types import MASK_NOTES, EditPair

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Endings of files that hold one picture; others, such as tables, hold many."""

BORDER = "its mask holds the outermost pixels alone, as an empty mask of PIE-Bench does"

Finding = tuple[str, str]
"""Id of a pair, and what there is to say of it."""


@dataclass
class PictureLint:
    """What was found.

    Attributes:
        errors: What a run could not read.
        warnings: What may be a slip.
        sizes: How many images have which width and height.
        masks: How many masks divide their image, are empty, full or lost; of those that were decoded.
        areas: Shares of the image that masks cover, of those that were decoded.
    """

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    areas: list[float] = field(default_factory=list)


def holds_one_picture(path: Path | None) -> bool:
    """Whether a source image is a file of its own (or there is none), and not one of many in a table."""
    return path is None or path.suffix.lower() in _PICTURES


def lint_headers(pairs: Sequence[EditPair]) -> PictureLint:
    """Looks at the headers of images and masks that are files of their own, each once; decodes nothing.

    Files that are missing are left out: `lint_pairs` names them.

    Args:
        pairs: The pairs of the data set.
    """
    found = PictureLint()
    owners: dict[Path, str] = {}
    for pair in pairs:
        size = None
        for path in (pair.image, pair.mask):
            if path is None or not holds_one_picture(path) or not raster.is_file(path):
                continue
            try:
                other = raster.size_of(path)
            except DataError as error:
                found.errors.append((pair.id, str(error)))
                continue
            if path == pair.image:
                size = other
                if path not in owners:
                    owners[path] = pair.id
                    found.sizes[f"{size[1]} x {size[0]}"] += 1
            elif size is not None and other != size:
                found.errors.append((pair.id, _sizes_differ(path, other, size)))
    found.warnings += _equal_files(owners)
    return found


def lint_pixels(dataset: PairDataset, pairs: Sequence[EditPair], size: tuple[int, int]) -> PictureLint:
    """Decodes every image and mask, at the size of a model.

    Args:
        dataset: The data set.
        pairs: Its pairs.
        size: Height and width of the model.
    """
    found = PictureLint()
    for pair in pairs:
        loaded = load_pair(dataset, pair, size)
        if loaded.error is not None:
            found.errors.append((pair.id, loaded.error))
        if loaded.mask is None:
            continue
        found.masks[loaded.mask_state] += 1
        found.areas.append(float((loaded.mask >= 0.5).float().mean()))
        if loaded.mask_state in MASK_NOTES:
            found.warnings.append((pair.id, MASK_NOTES[loaded.mask_state]))
        elif _is_border(loaded.mask):
            found.warnings.append((pair.id, BORDER))
    return found


def area_summary(areas: Sequence[float]) -> dict[str, float]:
    """Least, median and largest share of the image that masks cover; empty without masks."""
    if not areas:
        return {}
    low, middle, high = np.quantile(areas, (0, 0.5, 1)).tolist()
    return {"min": low, "median": middle, "max": high}


def _is_border(mask: Float[Tensor, "h w"]) -> bool:
    return min(mask.shape) > 2 and not bool((mask[1:-1, 1:-1] >= 0.5).any())


def _sizes_differ(path: Path, mask: tuple[int, int], image: tuple[int, int]) -> str:
    return (
        f"{raster.shortened(str(path))}: the mask is {mask[1]} x {mask[0]} pixels, its image "
        f"{image[1]} x {image[0]}; they must be equal"
    )


def _equal_files(owners: dict[Path, str]) -> Iterator[Finding]:
    """Images that are another's bytes under another name; only files of one length are compared."""
    by_length: dict[int, list[Path]] = defaultdict(list)
    for path in owners:
        by_length[path.stat().st_size].append(path)
    for paths in by_length.values():
        first: dict[str, Path] = {}
        for path in paths if len(paths) > 1 else ():
            known = first.setdefault(sha256_file(path), path)
            if known is not path:
                yield owners[path], f"its image is the same file as that of pair {owners[known]!r}"
