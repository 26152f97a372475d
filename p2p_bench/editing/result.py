"""What an edit leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from p2p_bench.attention.recorder import Detail
from p2p_bench.editing import arguments
from p2p_bench.editing.attention import AttentionMaps
from p2p_bench.editing.pictures import heatmap_image, save_pictures, strip, to_uint8, whole_factor
from p2p_bench.errors import P2PError, PromptError, nearest
from p2p_bench.precision import wide
from p2p_bench.prompts.words import TokenizedPrompt, columns_of
from p2p_bench.raster import shortened


@dataclass(frozen=True, eq=False, repr=False)
class EditResult:
    """Images of one source and its targets, and what they cost. All tensors are on the CPU.

    A notebook shows it as a strip of its images.

    Attributes:
        id: Of the request.
        images: Source first, float32 in [0, 1]; NaN where the row has an error.
        latents: Final latents, same order; those before the upscaler, where there is one.
        inversion_rows: UNet rows that inverting the source image takes.
        source_rows: UNet rows of the source.
        target_rows: UNet rows of each target, and of passes of the source that are made for its edit. A
            target alone would cost this, the source and the inversion.
        target_rows_spent: Its share of what was spent: targets that are edited alike so far share a row.
        errors: Error of each image, or None; source first.
        inversion_rows_backward: Rows that went backward through the network; in no other count.
        target_rows_backward: The same of each target while it was sampled; empty: none.
        source_passes: How often the source was sampled: once per part of the targets that fits the budget.
        inversion_recalled: The inversion came from a cache, so none of its rows were spent.
        vae_reconstruction: A real source image through the VAE and back: what no edit can exceed; None also
            where an upscaler makes the images.
        prompts: Tokenized prompts, source first; empty if the request could not be read.
        attention: Recorded maps, cross-attention before self-attention.
        controls: What was done to the attention of each target, in a few words; "" where it has an error.
        repair_masks: By image, where a repaired image is the edit (1) and where it is the source (0).
        reconstructions: By target, what the source image became, None where that is not known; None as a
            whole: `images[0]` for all.
        lossy: By target, whether the image was read from a file compressed with losses; empty: none was.
        known: By target, what is known of the edit from elsewhere, by column of its row; empty: nothing.
        mask_from: By target, where the mask of its local blend comes from, "" without one; empty: not known.
        has_source: Whether `images[0]` is an image; edits that were made elsewhere may come without.
        source_told: Whether the source was told its prompt while it was sampled; else it attends to no word.
        notes: By target, what a reader should know of how it was made, "" for nothing; empty: nothing.
    """

    id: str
    images: Float[Tensor, "n 3 h w"]
    latents: Float[Tensor, "n c k l"]
    inversion_rows: int
    source_rows: int
    target_rows: tuple[int, ...]
    target_rows_spent: tuple[float, ...]
    errors: tuple[P2PError | None, ...]
    inversion_rows_backward: int = 0
    target_rows_backward: tuple[int, ...] = ()
    source_passes: int = 1
    inversion_recalled: bool = False
    vae_reconstruction: Float[Tensor, "3 h w"] | None = None
    prompts: tuple[TokenizedPrompt, ...] = ()
    controls: tuple[str, ...] = ()
    attention: tuple[AttentionMaps, ...] = field(default=(), repr=False)
    repair_masks: Mapping[int, Float[Tensor, "h w"]] = field(default_factory=dict, repr=False)
    reconstructions: Sequence[Float[Tensor, "3 h w"] | None] | None = None
    lossy: Sequence[bool] = ()
    known: Sequence[Mapping[str, Any]] = ()
    mask_from: Sequence[str] = ()
    has_source: bool = True
    source_told: bool = True
    notes: Sequence[str] = ()

    @classmethod
    def made(
        cls, id: str, images: Float[Tensor, "n 3 h w"], errors: Sequence[P2PError | None]
    ) -> "EditResult":
        """The result of an editor that samples nothing here: images and errors, no cost and no attention.

        Args:
            id: Of the request.
            images: Source first, in [0, 1]; what has an error is not looked at.
            errors: Error of each image, or None.
        """
        count = len(images)
        return cls(
            id=id,
            images=images.float().cpu(),
            latents=torch.empty(count, 0, 1, 1),
            inversion_rows=0,
            source_rows=0,
            target_rows=(0,) * (count - 1),
            target_rows_spent=(0.0,) * (count - 1),
            errors=tuple(errors),
        )

    @classmethod
    def found(
        cls,
        id: str,
        images: Float[Tensor, "n 3 h w"],
        errors: Sequence[P2PError | None],
        *,
        reconstructions: Sequence[Float[Tensor, "3 h w"] | None],
        vae_reconstruction: Float[Tensor, "3 h w"] | None,
        lossy: Sequence[bool],
        known: Sequence[Mapping[str, Any]],
        has_source: bool = True,
    ) -> "EditResult":
        """The result of an editor that makes nothing and looks its images up; see the attributes."""
        made = cls.made(id, images, errors)
        return replace(
            made,
            reconstructions=reconstructions,
            vae_reconstruction=vae_reconstruction,
            lossy=tuple(lossy),
            known=tuple(known),
            has_source=has_source,
        )

    @property
    def unet_rows(self) -> int:
        """UNet rows that all of it takes, wherever the inversion came from."""
        source = self.source_rows * self.source_passes
        return self.inversion_rows + source + round(sum(self.target_rows_spent))

    @property
    def unet_rows_spent(self) -> int:
        """UNet rows that went through the network for it."""
        return self.unet_rows - (self.inversion_rows if self.inversion_recalled else 0)

    @property
    def error(self) -> P2PError | None:
        """The first error, or None."""
        return next((error for error in self.errors if error is not None), None)

    def __repr__(self) -> str:
        """One line: what was edited into what, and what it cost."""
        failed = sum(error is not None for error in self.errors)
        if not self.prompts and failed == len(self.errors):
            return f"EditResult({self.id!r}: {shortened(str(self.error))})"
        source, *targets = [repr(shortened(prompt.text, most=60)) for prompt in self.prompts] or [
            repr(self.id)
        ]
        what = f"{source} -> {', '.join(targets)}" if targets else source
        height, width = self.images.shape[-2:]
        return (
            f"EditResult({what}; {len(self.images)} images of {width} x {height}, "
            f"{self.unet_rows} UNet rows{f', {failed} failed' if failed else ''})"
        )

    def _repr_png_(self) -> bytes | None:
        """The images side by side, as notebooks show it; None where there is none."""
        names = self._names()
        shown = {
            name.replace("_", " "): image
            for name, image, error in zip(names, self.images, self.errors, strict=True)
            if error is None
        }
        if not shown:
            return None
        buffer = BytesIO()
        Image.fromarray(to_uint8(strip(shown))).save(buffer, format="PNG")
        return buffer.getvalue()

    def pil(self) -> list[Image.Image]:
        """The images as PIL images, the source first.

        Raises:
            P2PError: One of them could not be made.
        """
        if self.error is not None:
            raise self.error
        return [Image.fromarray(to_uint8(image)) for image in self.images]

    def save(self, directory: Path | str) -> list[Path]:
        """Writes the images and the strip of them as `source.png`, `target_1.png`, ..., `strip.png`.

        Args:
            directory: Made if need be; files of these names in it are replaced.

        Returns:
            The files.

        Raises:
            P2PError: One of the images could not be made, or the directory cannot be written.
        """
        pictures = dict(zip(self._names(), self.pil(), strict=True))
        titled = {name.replace("_", " "): image for name, image in zip(pictures, self.images, strict=True)}
        pictures["strip"] = Image.fromarray(to_uint8(strip(titled)))
        return save_pictures(directory, pictures)

    def heatmap_image(
        self, word: str, index: int | None = None, fraction: float | None = None, side: int = 192
    ) -> Image.Image:
        """Where an image attends to a word, lit up over the image; see `heatmap`.

        Args:
            word: A word or phrase of a prompt.
            index: Image, 0 is the source; None takes the first image whose prompt has the word.
            fraction: Side of the maps as a fraction of the latent side; None takes the first recorded.
            side: Small images are enlarged by a whole factor to about this height.

        Raises:
            PromptError: No prompt has the word.
            P2PError: No such maps were recorded, or there is no such image.
        """
        index = self._image_with(arguments.text("word", word)) if index is None else index
        heat = self.heatmap(word, index, fraction)
        lit = heatmap_image(self.images[index], heat)
        factor = whole_factor(lit.shape[-2], side)
        return Image.fromarray(to_uint8(lit.repeat_interleave(factor, -2).repeat_interleave(factor, -1)))

    def _names(self) -> list[str]:
        return ["source", *(f"target_{index}" for index in range(1, len(self.images)))]

    @property
    def maps(self) -> Mapping[int, Float[Tensor, "columns s t"]]:
        """Cross-attention maps by image: mean over heads, layers and steps, one per text column.

        Of the first recorded size; empty if none was recorded. In joint attention padding has none.
        """
        cross = [kept for kept in self.attention if kept.kind == "cross"]
        return {image: maps.mean((0, 1, 2)) for image, maps in cross[0].maps.items()} if cross else {}

    def heatmap(
        self, word: str, index: int | None = None, fraction: float | None = None
    ) -> Float[Tensor, "s t"]:
        """Where an image attends to a word: float32, the maximum is 1.

        The mean over heads, layers, steps and the word's tokens of the maps after the edit, as Hertz et al.
        (2022) show them. It is a cue, not a segmentation.

        Args:
            word: A word or phrase of a prompt.
            index: Image, 0 is the source; None takes the first image whose prompt has the word.
            fraction: Side of the maps as a fraction of the latent side; None takes the first recorded.

        Raises:
            PromptError: No prompt has the word.
            P2PError: No such maps were recorded, or there is no such image.
        """
        return self.heatmaps(word, index, None, fraction)[0]

    def heatmaps(
        self,
        word: str,
        index: int | None = None,
        over: Detail | None = None,
        fraction: float | None = None,
    ) -> Float[Tensor, "n s t"]:
        """Where an image attends to a word over the steps, or in each layer or head, on one scale.

        Args:
            word: A word or phrase of a prompt.
            index: Image, 0 is the source; None takes the first image whose prompt has the word.
            over: What the maps are told apart by; it must have been kept apart, as in
                `edit(..., record=Record(apart=("steps",)))`. None gives a single map.
            fraction: Side of the maps as a fraction of the latent side; None takes the first recorded.

        Returns:
            float32, not negative unless a word is weighted below 0; the maximum of them all is 1.

        Raises:
            PromptError: No prompt has the word.
            P2PError: No such maps were recorded, or there is no such image.
        """
        word = arguments.text("word", word)
        if index is None:
            index = self._image_with(word)
        kept = self._kept("cross", index, fraction)
        if over is not None and over not in kept.apart:
            apart = [name for name in get_args(Detail) if name in (over, *kept.apart)]
            raise P2PError(f"heatmaps: {over} were not kept apart; edit with record=Record(apart={apart})")
        others = [axis for axis, name in enumerate(get_args(Detail)) if name != over]
        maps = kept.maps[index].mean(others, keepdim=True).flatten(0, 2)
        heat = maps[:, list(columns_of(self.prompts[index], word))].mean(1)
        peak = heat.max()
        return heat / peak if peak > 0 else torch.zeros_like(heat)

    def self_components(self, index: int = 0, count: int = 3) -> Float[Tensor, "count s t"]:
        """Principal components of an image's self-attention: parts of the picture that belong together.

        The leading right singular vectors of the map with each position's mean subtracted, as in the released
        code of Prompt-to-Prompt; the largest entry of each is positive.

        Args:
            index: Image, 0 is the source.
            count: Number of components.

        Returns:
            float32; each runs from 0 to 1.

        Raises:
            P2PError: The image's self-attention was not recorded, or `count` is out of range.
        """
        map_ = self._kept("self", index, None).maps[index].mean((0, 1, 2))
        columns, height, width = map_.shape
        if not 1 <= count <= columns:
            raise P2PError(f"self_components: expected 1 to {columns} components, got {count}")
        # A row per query: what a position attends to.
        attention = wide(map_.flatten(1).T)
        components = torch.linalg.svd(attention - attention.mean(1, keepdim=True))[2][:count]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        low, high = components.amin(1, keepdim=True), components.amax(1, keepdim=True)
        return torch.unflatten(((components - low) / (high - low)).float(), 1, (height, width))

    def _kept(self, kind: str, index: int, fraction: float | None) -> AttentionMaps:
        """Recorded maps of a kind and size, which an image has."""
        kept = [one for one in self.attention if one.kind == kind]
        if not kept:
            remedy = "record=True" if kind == "cross" else f"record=Record(self_images=[{index}])"
            raise P2PError(f"no {kind}-attention was recorded; edit with {remedy}")
        sizes = [one.fraction for one in kept]
        if fraction is not None and fraction not in sizes:
            raise P2PError(
                f"fraction: maps were recorded at {', '.join(map(str, sizes))} of the latent side, not at "
                f"{fraction}; edit with record=Record(fractions=[{fraction}])"
            )
        if index == 0 and kind == "cross" and not self.source_told:
            raise P2PError(
                "heatmap: the source was told no prompt while it was sampled again (inversion.inverted_with "
                "or replayed_with=empty), so it attends to no word; ask for an edited image"
            )
        found = kept[0 if fraction is None else sizes.index(fraction)]
        if index not in found.maps:
            images = ", ".join(map(str, found.maps))
            raise P2PError(
                f"index: {kind}-attention was recorded of image {images}, not of {index}; "
                f"images go from 0 to {len(self.prompts) - 1}"
            )
        return found

    def _image_with(self, word: str) -> int:
        for index, prompt in enumerate(self.prompts):
            try:
                columns_of(prompt, word)
            except PromptError:
                continue
            return index
        words = [span.bare for prompt in self.prompts for span in prompt.words]
        quoted = " or ".join(repr(prompt.text) for prompt in self.prompts)
        raise PromptError(f"heatmap: word {word!r} is not in {quoted}.{nearest(word.lower(), words)}")
