"""Local blend as in the released code of Prompt-to-Prompt, on maps that are written out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

Words = Sequence[Sequence[int]]
"""Text columns, one list per prompt."""


@dataclass
class PublishedBlend:
    """Called after each step with all rows, source first, that share one blend.

    Attributes:
        maps: Edited maps of the step by site name, (rows, heads, pixels, columns); the last rows are ours.
        sites: Names of the layers that are averaged.
        words: Columns that mark the place.
        subtract: Columns whose place is kept.
        start: First step that is blended.
        threshold: For the words, and for the subtracted ones.
        k: Positions to each side in the max-pooling.
        masks: The masks of all blended steps.
    """

    maps: dict[str, Tensor]
    sites: Sequence[str]
    words: Words
    subtract: Words | None = None
    start: int = 0
    threshold: tuple[float, float] = (0.3, 0.3)
    k: int = 1
    masks: list[Tensor] = field(default_factory=list)
    store: Tensor | None = None

    def __call__(self, step: int, x: Tensor) -> Tensor:
        rows = len(x)
        side = int(self.maps[self.sites[0]].shape[2] ** 0.5)
        layers = [self.maps[name][-rows:].unflatten(2, (side, side)) for name in self.sites]
        stacked = torch.cat(layers, 1)  # rows, layers x heads, side, side, columns
        self.store = stacked if self.store is None else self.store + stacked
        if step < self.start:
            return x
        mask = self.mask(self.store, self.words, True, x)
        if self.subtract is not None:
            mask = mask * ~self.mask(self.store, self.subtract, False, x)
        self.masks.append(mask)
        return x[:1] + mask.to(x) * (x - x[:1])

    def mask(self, maps: Tensor, words: Words, pool: bool, x: Tensor) -> Tensor:
        alpha = torch.zeros(len(x), 1, 1, 1, maps.shape[-1], dtype=maps.dtype)
        for row, columns in enumerate(words):
            alpha[row, ..., list(columns)] = 1
        maps = (maps * alpha).sum(-1).mean(1, keepdim=True)
        if pool:
            maps = functional.max_pool2d(maps, 2 * self.k + 1, stride=1, padding=self.k)
        mask = functional.interpolate(maps, size=x.shape[2:])
        mask = mask / mask.amax((2, 3), keepdim=True)
        mask = mask.gt(self.threshold[0 if pool else 1])
        return mask[:1] + mask
