"""Keeping what lies away from some words."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from p2p_bench import raster
from p2p_bench.attention.columns import as_matrix
from p2p_bench.attention.sites import ANY_CROSS, Site
from p2p_bench.attention.terms import SiteEdit, Unprompted
from p2p_bench.controllers.base import (
    BlendWords,
    BoundController,
    Controller,
    EditContext,
    check_controller,
)
from p2p_bench.controllers.blend import BoundBlend, FixedMask
from p2p_bench.errors import ConfigError, DataError, PromptError
from p2p_bench.fields import Between, Halving, Odd, Words, check_fields
from p2p_bench.prompts.words import TokenizedPrompt, columns_of

_SOME = Words("words, such as ['circle']")


@dataclass(frozen=True)
class LocalBlend(Controller):
    """Local blend (Hertz et al. 2022, section 4; details from the released code), around any controller.

    After each step, latents outside a mask are taken from the source: `x_t = x_s + mask (x_t - x_s)`. The
    mask is where the source attends to its words or the target to its own: maps after the edit, averaged
    over layers, heads and the steps so far, max-pooled, resized to the latents, divided by their maximum,
    above a threshold. Where the released code passes over a word that it does not find, this is an error.

    Args:
        inner: What is done to attention.
        words: Words or phrases of the source that mark the place of the edit; none (`()`) masks by the target
            alone; None takes the words of the pair, and where it has none the inner edit runs alone.
        target_words: The same of the target; None: the same words.
        subtract: Words of the source whose place is kept (their maps are not pooled).
        target_subtract: The same of the target; None: the same words.
        start: Share of the steps before blending begins; 0 in the first notebook, 0.2 in later code.
        threshold: Share of a map's maximum above which a position belongs to the mask; less than 1, since
            nothing is above that.
        subtract_threshold: The same for subtracted words.
        pool: Side of the max-pooling, odd; 1 pools nothing.
        fraction: Side of the maps as a fraction of the latent side; None: the model's `record_fraction`. All
            cross-attention of that size is used, which in Stable Diffusion at 1/4 is the released choice.
        mask: In place of words, a mask of the image: a tensor (h, w) or a picture file, true or white where
            the image may change. A latent position may change if any part of it may.

    Raises:
        ConfigError: A value is out of range, or there are words and a mask.
        DataError: The mask cannot be read, or is empty.
    """

    inner: Controller
    words: Annotated[str | Sequence[str] | None, _SOME] = None
    target_words: Annotated[str | Sequence[str] | None, _SOME] = None
    subtract: Annotated[str | Sequence[str], _SOME] = ()
    target_subtract: Annotated[str | Sequence[str] | None, _SOME] = None
    start: Annotated[float, Between(0, 1, "a share")] = 0.2
    threshold: Annotated[float, Between(0, 1, "a share", open_high=True)] = 0.3
    subtract_threshold: Annotated[float, Between(0, 1, "a share", open_high=True)] = 0.3
    pool: Annotated[int, Odd(1)] = 3
    fraction: Annotated[float | None, Halving(10)] = None
    mask: Tensor | FixedMask | Path | str | None = None

    def __post_init__(self) -> None:
        check_fields(self, "local_blend ")
        for name in ("words", "target_words", "subtract", "target_subtract"):
            object.__setattr__(self, name, _words(getattr(self, name)))
        object.__setattr__(self, "mask", _mask(self.mask))
        check_controller("local_blend inner", self.inner)
        given = (self.words, self.target_words, self.subtract or None, self.target_subtract)
        if self.mask is not None and any(words is not None for words in given):
            raise ConfigError("local_blend mask: a given mask goes without words; leave one of them out")
        if self.words is None and self.target_words is not None:
            raise ConfigError("local_blend words: say the source's words too, [] for none")
        if self.words is not None and not self.words and not self.target_words:
            raise ConfigError("local_blend words: expected a word of the source or of the target, got none")

    def bind(self, context: EditContext) -> "BoundLocalBlend":
        """See `Controller`.

        Raises:
            ConfigError: Neither words nor a mask are given.
            PromptError: A word is not in its prompt; or the edit leaves it no map that is positive.
        """
        if self.words is None and self.mask is None:
            raise ConfigError(
                "local_blend words: name the words that mark the place of the edit, such as "
                "controller.words=[circle], or use a data set whose pairs have blend_words"
            )
        inner = self.inner.bind(context)
        target_words = self.words if self.target_words is None else self.target_words
        subtracted = self.subtract if self.target_subtract is None else self.target_subtract
        blend = BoundBlend(
            start=int(self.start * context.steps),
            source=_columns(context.source, self.words),
            target=_columns(context.target, target_words),
            subtract_source=_columns(context.source, self.subtract),
            subtract_target=_columns(context.target, subtracted),
            fraction=self.fraction,
            pool=self.pool,
            threshold=float(self.threshold),
            subtract_threshold=float(self.subtract_threshold),
            mask=self.mask if isinstance(self.mask, FixedMask) else None,
        )
        return blended(inner, blend, context)

    def for_pair(
        self, word_weights: Mapping[str, float | int], blend_words: BlendWords | None = None
    ) -> Controller:
        """The same with the pair's words, unless it has its own; without any, the inner controller."""
        inner = self.inner.for_pair(word_weights, blend_words)
        if self.words is not None or self.mask is not None:
            return replace(self, inner=inner)
        if blend_words is None or not any(blend_words):
            return inner
        return replace(self, inner=inner, words=blend_words[0], target_words=blend_words[1])


@dataclass(frozen=True)
class BoundLocalBlend(BoundController):
    """A bound controller, and what is blended after its steps.

    Attributes:
        inner: What is done to attention.
        blending: What is done to the latents after each step.
    """

    inner: BoundController
    blending: BoundBlend

    @property
    def control(self) -> str:
        """That of the inner controller, and the blend."""
        return f"{self.inner.control}, local blend"

    @property
    def blend(self) -> BoundBlend:
        """See `BoundController`."""
        return self.blending

    def site_edit(self, step: int, site: Site) -> SiteEdit | None:
        """That of the inner controller."""
        return self.inner.site_edit(step, site)

    def unprompted(self, step: int) -> Unprompted:
        """That of the inner controller."""
        return self.inner.unprompted(step)

    def unprompted_edit(self, step: int, site: Site) -> SiteEdit | None:
        """That of the inner controller."""
        return self.inner.unprompted_edit(step, site)

    def features(self, step: int) -> bool:
        """That of the inner controller."""
        return self.inner.features(step)

    def map_guidance(self, step: int) -> float:
        """That of the inner controller."""
        return self.inner.map_guidance(step)

    def signature(self, step: int) -> Hashable:
        """That of the inner controller, joined by the blend's from its start on."""
        blend = self.blend.signature(step)
        return self.inner.signature(step) if blend is None else (self.inner.signature(step), blend)

    def __str__(self) -> str:
        """The inner edit, and the blend in a line."""
        place = "a given mask" if self.blend.mask is not None else "the mask of some words"
        return f"{self.inner}\n  local blend: from step {self.blend.start}, outside {place}"


def blended(inner: BoundController, blend: BoundBlend, context: EditContext) -> BoundLocalBlend:
    """A bound controller with a local blend around it.

    Raises:
        PromptError: A word of the target that the mask is made of has no positive map at some step: one that
            is weighted by 0 or less marks no place.
    """
    width, columns, seen = context.target.width, list(blend.target_columns), set()
    for step in range(context.steps):
        edit = inner.site_edit(step, ANY_CROSS)
        if edit is None or edit in seen or not columns:
            continue
        seen.add(edit)
        weight = torch.stack([as_matrix(term.columns, width) for term in edit]).sum((0, 1))
        lost = {column for column in columns if not weight[column] > 0}
        word = next((word.bare for word in context.target.words if lost.intersection(word.columns)), None)
        if word is not None:
            raise PromptError(
                f"local_blend: word {word!r} of the prompt {context.target.text!r} has no map to blend by, "
                f"since the edit weights it by 0 or less at step {step}; blend by another word, or by a mask"
            )
    return BoundLocalBlend(inner, blend)


def unblended(bound: BoundController) -> BoundController:
    """What a bound controller does to attention, without the local blends around it."""
    return unblended(bound.inner) if isinstance(bound, BoundLocalBlend) else bound


def _words(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _columns(prompt: TokenizedPrompt, words: Any) -> tuple[int, ...]:
    found = (columns_of(prompt, word) for word in words or ())
    return tuple(sorted({column for columns in found for column in columns}))


def _mask(value: Any) -> FixedMask | None:
    """A mask as given by a user."""
    if value is None or isinstance(value, FixedMask):
        return value
    if isinstance(value, Tensor):
        if value.ndim != 2 or not value.numel() or not bool(((value >= 0) & (value <= 1)).all()):
            raise DataError(
                f"local_blend mask: expected a tensor (h, w) of values in [0, 1], got {value.dtype} "
                f"{tuple(value.shape)}"
            )
        white = value > 0.5
    elif isinstance(value, str | Path):
        try:
            white = torch.from_numpy(raster.mask(raster.read_picture(Path(value))))
        except DataError as error:
            raise DataError(f"local_blend mask: {error}") from error
    else:
        raise ConfigError(
            f"local_blend mask: expected a picture file or a tensor, got {type(value).__name__}"
        )
    if not bool(white.any()):
        raise DataError("local_blend mask: the mask is empty, so the edit would change nothing")
    return FixedMask.of(white)
