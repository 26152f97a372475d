"""Training images: rendered once, kept in memory as bytes."""

import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from p2p_bench.world.scenes import Scene, render, sample_scene

log = logging.getLogger(__name__)

DATA_VERSION = 1
_CHUNK = 256
# Scenes of different uses never share a seed.
TRAIN_SEEDS, JUDGE_SEEDS, VALIDATION_SEEDS = 1_000_000, 20_000_000, 40_000_000


def training_scenes(count: int, first_seed: int, **shares: float | bool) -> list[Scene]:
    """`count` scenes of consecutive seeds; `shares` go to `sample_scene`."""
    return [sample_scene(first_seed + i, **shares) for i in range(count)]  # type: ignore[arg-type]  # shares mixes floats and bools


def render_bytes(scenes: Sequence[Scene]) -> UInt8[Tensor, "n 3 h w"]:
    """Renders scenes as bytes, a chunk at a time."""
    log.info("rendering %d scenes", len(scenes))
    chunks = [render(scenes[i : i + _CHUNK]).images for i in range(0, len(scenes), _CHUNK)]
    return torch.cat([(chunk * 255).round().to(torch.uint8) for chunk in chunks])


def to_float(images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Bytes to [0, 1]."""
    return images.float() / 255


def random_rows(count: int, batch: int, seed: int, step: int) -> Tensor:
    """`batch` row indices below `count`, a function of seed and step."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return torch.randint(count, (batch,), generator=generator)
