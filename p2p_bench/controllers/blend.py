"""What local blend asks of the sampling loop, as data."""

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class FixedMask:
    """A mask that is given; equal masks compare equal. Make it with `FixedMask.of`.

    Attributes:
        height: Rows.
        width: Columns.
        data: One byte per position, row after row: 1 where the picture may change.
    """

    height: int
    width: int
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, mask: Bool[Tensor, "h w"]) -> "FixedMask":
        """The mask of a tensor that is true where the picture may change."""
        height, width = mask.shape
        return cls(height, width, mask.cpu().contiguous().to(torch.uint8).numpy().tobytes())

    def tensor(self) -> Bool[Tensor, "h w"]:
        """The mask as a tensor."""
        flat = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        return flat.view(self.height, self.width).bool()


def fixed_masks(value: Any) -> list[FixedMask]:
    """The given masks in a controller and in those it holds, in the order of their fields."""
    if isinstance(value, FixedMask):
        return [value]
    if isinstance(value, list | tuple):
        return [mask for item in value for mask in fixed_masks(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return [mask for one in fields(value) for mask in fixed_masks(getattr(value, one.name))]
    return []


USER, ATTENTION, GIVEN = "user", "attention", "given"
"""Where a mask that confines an edit comes from: a user's file, attention to words, or the data set."""


@dataclass(frozen=True)
class BoundBlend:
    """Local blend of one target: outside a mask its latents are taken from the source after each step.

    The mask is either given, or the union of where the source attends to `source` and where the target
    attends to `target`, less the union of the same for `subtract_source` and `subtract_target`.

    Attributes:
        start: First step after which latents are blended.
        source: Text columns of the source's words.
        target: Text columns of the target's words.
        subtract_source: Text columns of the source's words whose place is kept.
        subtract_target: Likewise of the target.
        fraction: Side of the maps as a fraction of the latent side; None: the model's `record_fraction`.
        pool: Side of the max-pooling of maps before the threshold; 1 pools nothing.
        threshold: Share of a map's maximum above which a position belongs to the mask.
        subtract_threshold: The same for subtracted words.
        mask: A given mask, in place of words.
    """

    start: int
    source: tuple[int, ...] = ()
    target: tuple[int, ...] = ()
    subtract_source: tuple[int, ...] = ()
    subtract_target: tuple[int, ...] = ()
    fraction: float | None = None
    pool: int = 3
    threshold: float = 0.3
    subtract_threshold: float = 0.3
    mask: FixedMask | None = None

    @property
    def mask_from(self) -> str:
        """Where its mask comes from, `USER` or `ATTENTION`."""
        return ATTENTION if self.mask is None else USER

    @property
    def records(self) -> bool:
        """Whether attention is recorded, from the first step on."""
        return self.mask is None

    @property
    def source_columns(self) -> tuple[int, ...]:
        """Columns of the source's maps that are needed."""
        return tuple(sorted({*self.source, *self.subtract_source}))

    @property
    def target_columns(self) -> tuple[int, ...]:
        """Columns of the target's maps that are needed."""
        return tuple(sorted({*self.target, *self.subtract_target}))

    def signature(self, step: int) -> Hashable:
        """Equal where two blends do the same to the latents after this step, given equal records."""
        if step < self.start:
            return None
        words = (self.source, self.target, self.subtract_source, self.subtract_target)
        return words, self.fraction, self.pool, self.threshold, self.subtract_threshold, self.mask
