"""Pictures that exist already, handed out as edits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench import raster
from p2p_bench.data.images import Fit, fit_image
from p2p_bench.editing import EditRequest, EditResult
from p2p_bench.editing.run import Progress
from p2p_bench.errors import DataError, P2PError
from p2p_bench.hashing import sha256_file

Key = tuple[str, str, int]
"""Sample, variant and target."""

LOSSES = "which does not keep every pixel"
"""End of the note on an edited image that was read from a file compressed with losses."""

ROUNDING = 1 / 510
"""Largest difference between a value in [0, 1] and the nearest of 8 bits."""


@dataclass(frozen=True)
class Found:
    """The files of one edit.

    Attributes:
        edited: The edited image, or the strip that holds it.
        source: What the source became, such as its reconstruction; None where that is not kept.
        vae: The source through the VAE alone; None where that is not kept.
        known: What else is known of the edit, by column of its row.
    """

    edited: Path
    source: Path | None = None
    vae: Path | None = None
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Whether the edited image was compressed with losses, in this file or in one that it comes from."""
        return raster.kind_of(self.edited) in raster.LOSSY or LOSSES in (self.known.get("notes") or "")


@dataclass(frozen=True)
class Panels:
    """Pictures side by side in a file.

    Attributes:
        count: How many.
        edited: Which is the edited one, from 1; None is the last.
        reconstruction: Which is the reconstructed source, from 1; None where there is none.
    """

    count: int = 1
    edited: int | None = None
    reconstruction: int | None = None

    def cut(self, image: Float[Tensor, "3 h w"], place: int | None) -> Float[Tensor, "3 h x"]:
        """One of the pictures; None is the last.

        Raises:
            DataError: The width is no multiple of their number.
        """
        width = image.shape[-1]
        if width % self.count:
            raise DataError(f"{width} pixels of width do not divide into {self.count} pictures")
        step = width // self.count
        start = ((self.count if place is None else place) - 1) * step
        return image[..., start : start + step]


def common_size(found: Mapping[Key, Found | str], panels: int) -> Counter[tuple[int, int]]:
    """How often each height and width of a panel occurs; files that cannot be read are left out."""
    sizes: Counter[tuple[int, int]] = Counter()
    for path in dict.fromkeys(one.edited for one in found.values() if isinstance(one, Found)):
        try:
            height, width = raster.size_of(path)
        except DataError:
            continue
        if width % panels == 0:
            sizes[height, width // panels] += 1
    return sizes


def most_common_size(sizes: Mapping[tuple[int, int], int]) -> tuple[int, int]:
    """The height and width that occur most often; of several the largest."""
    return max(sizes, key=lambda size: (sizes[size], size[0] * size[1], size))


def content_of(found: Mapping[Key, Found | str]) -> dict[str, str]:
    """Checksum of each picture, by sample, variant and target."""
    return {
        "\0".join(map(str, key)): sha256_file(one.edited)
        for key, one in sorted(found.items())
        if isinstance(one, Found) and raster.is_file(one.edited)
    }


def facts_of(found: Mapping[Key, Found | str]) -> dict[str, Any]:
    """What a reader of the numbers should know of the pictures that they are of."""
    files = {one.edited: one for one in found.values() if isinstance(one, Found)}
    kinds = Counter(raster.kind_of(path) for path in files)
    lossy = sum(one.lossy for one in files.values())
    note = (
        f"metrics are of pictures with 8 bits a channel: a value is up to {ROUNDING:.5f} (1/510) from the "
        "one that was rounded, twice that where it was cut off, and so is the root of the MSE"
    )
    if lossy:
        note += f"; {lossy} of {len(files)} are compressed with losses, whose errors have no such bound"
    return {
        "edits": len(found),
        "found": sum(isinstance(one, Found) for one in found.values()),
        "formats": dict(sorted(kinds.items())),
        "lossy": lossy,
        "note": note,
    }


@dataclass(frozen=True, eq=False)
class PictureEditor:
    """Hands out pictures that were found, each checked when it is read.

    Attributes:
        found: The files by sample, variant and target, or why there is none.
        size: Height and width that is expected.
        panels: How a file is divided.
        fit: What is done with a picture of another size.
    """

    found: Mapping[Key, Found | str]
    size: tuple[int, int]
    panels: Panels = Panels()
    fit: Fit = "error"

    def edit(self, requests: Sequence[EditRequest], progress: Progress | None = None) -> list[EditResult]:
        """See `Editor.edit`; the source is the request's image, or the one that was kept with the edit."""
        return [self._result(request) for request in requests]

    def _result(self, request: EditRequest) -> EditResult:
        keys = [(request.id, target.variant, target.index) for target in request.targets]
        found = [self.found.get(key, "no picture is known of it") for key in keys]
        images: list[Tensor] = [torch.full((3, *self.size), torch.nan)] * (1 + len(found))
        errors: list[P2PError | None] = [None] * len(images)
        again: list[Tensor | None] = [None] * len(found)
        for place, one in enumerate(found):
            try:
                if isinstance(one, str):
                    raise DataError(one)
                images[1 + place], again[place] = self._read(one)
            except P2PError as error:
                errors[1 + place] = error
        known = [one for one in found if isinstance(one, Found)]
        has_source = True
        try:
            source = self._source(request, known)
            has_source = source is not None
            images[0] = images[0] if source is None else source
            vae = _first(one.vae for one in known)
            restored = None if vae is None or request.image is None else self._fitted(vae)
        except P2PError as error:
            errors[0], restored = error, None
        return EditResult.found(
            request.id,
            torch.stack(images),
            errors,
            reconstructions=again if request.image is not None else [None] * len(found),
            vae_reconstruction=restored,
            lossy=[isinstance(one, Found) and one.lossy for one in found],
            known=[one.known if isinstance(one, Found) else {} for one in found],
            has_source=has_source,
        )

    def _source(self, request: EditRequest, known: Sequence[Found]) -> Float[Tensor, "3 h w"] | None:
        """The source image; None where neither the data set nor the edit brings one."""
        if request.image is not None:
            return request.image
        kept = _first(one.source for one in known)
        return None if kept is None else self._fitted(kept)

    def _read(self, one: Found) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"] | None]:
        """An edited image, and what its source became where that is known."""
        picture = _pixels(one.edited)
        edited = self._sized(one.edited, picture, self.panels.edited)
        if self.panels.reconstruction is not None:
            return edited, self._sized(one.edited, picture, self.panels.reconstruction)
        return edited, None if one.source is None else self._fitted(one.source)

    def _fitted(self, path: Path) -> Float[Tensor, "3 h w"]:
        return _checked(path, _pixels(path), self.size, self.fit)

    def _sized(
        self, path: Path, picture: Float[Tensor, "3 h w"], place: int | None
    ) -> Float[Tensor, "3 y x"]:
        try:
            panel = self.panels.cut(picture, place)
        except DataError as error:
            raise DataError(f"{raster.shortened(str(path))}: {error}; see score.panels") from error
        return _checked(path, panel, self.size, self.fit)


def _checked(
    path: Path, picture: Float[Tensor, "3 h w"], size: tuple[int, int], fit: Fit
) -> Float[Tensor, "3 y x"]:
    height, width = picture.shape[-2:]
    if fit == "error" and (height, width) != tuple(size):
        raise DataError(
            f"{raster.shortened(str(path))}: the picture is {width} x {height} pixels, expected {size[1]} x "
            f"{size[0]}; save it in that size, or set score.fit to crop, pad or resize"
        )
    return fit_image(picture, size, fit)


def _pixels(path: Path) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(raster.rgb(raster.read_picture(path)))


def _first(paths: Iterable[Path | None]) -> Path | None:
    return next((path for path in paths if path is not None), None)
