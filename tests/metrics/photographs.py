"""Photographs, damaged copies of them, and masks, for comparisons with other implementations."""

import skimage.data
import torch
from torch.nn.functional import avg_pool2d

from p2p_bench.metrics import EditView


def photograph(name: str, height: int = 192, width: int = 208) -> torch.Tensor:
    """A crop of one of skimage's photographs at half its size, (3, h, w) in 8-bit steps of [0, 1]."""
    pixels = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1).double()
    half = avg_pool2d(pixels[None], 2)[0] if name == "astronaut" else pixels
    return (half[:, :height, :width].round() / 255).float()


def damaged(image: torch.Tensor, seed: int, strength: float = 0.1) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + strength * noise).clamp(0, 1)


def blocks(height: int, width: int, seed: int, side: int = 32) -> torch.Tensor:
    """A random mask of blocks, neither empty nor full."""
    generator = torch.Generator().manual_seed(seed)
    coarse = (torch.rand(-(-height // side), -(-width // side), generator=generator) < 0.4).float()
    coarse[0, 0], coarse[-1, -1] = 1, 0
    return coarse.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width].contiguous()


def photo_views(height: int = 192, width: int = 208) -> list[EditView]:
    """Three photographs with edits of growing damage and random masks."""
    views = []
    for seed, name in enumerate(("astronaut", "coffee", "chelsea")):
        source = photograph(name, height, width)
        edited = damaged(source, seed, 0.03 * 3**seed)
        views.append(EditView(source, edited, "a photo", "a drawing", mask=blocks(height, width, seed)))
    return views
