"""Trains an oracle's reading of two objects on scenes as the generator draws them: through its autoencoder.

Nothing here sees a picture of the generator's. Renders are encoded and decoded, some with disturbed
latents, so that outlines are as soft and small things as smeared as in generated pictures.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from p2p_bench.metrics.oracle import AttributeOracle, PairReader
from p2p_bench.world.scenes import Scene, render
from p2p_bench.world.training.images import JUDGE_SEEDS, random_rows, render_bytes, to_float, training_scenes
from p2p_bench.world.training.judges import labels_of, roughen
from p2p_bench.world.training.runner import adamw, fit

log = logging.getLogger(__name__)

DRAWN = "drawn.safetensors"
SHARES = {"two_objects": 0.9, "styled": 0.25, "weathered": 0.25, "allow_held_out": True}


@dataclasses.dataclass(frozen=True)
class PairRecipe:
    """How the reading of pairs is trained, from the weights of the oracle's first training on.

    Attributes:
        steps: optimiser steps.
        batch: images a step.
        learning_rate: peak of the schedule.
        num_images: scenes, each rendered and passed through the autoencoder once.
        first_seed: offset of the scenes' seeds, another one for each oracle.
        crowded: share of the scenes whose objects are smaller, or touch.
        disturbed: largest noise added to latents, in units of their deviation.
        drawn: share of a batch that has passed through the autoencoder; the rest is as rendered.
    """

    steps: int = 1300
    batch: int = 64
    learning_rate: float = 1.5e-3
    num_images: int = 8000
    first_seed: int = 5_000_000
    crowded: float = 0.5
    disturbed: float = 0.3
    drawn: float = 0.8


def crowd(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with smaller objects; two of them moved together until they touch or nearly do."""
    scale = float(rng.uniform(0.72, 1.0))
    items = [dataclasses.replace(item, size=item.size * scale) for item in scene.objects]
    if len(items) == 2 and rng.random() < 0.6:
        first, second = items
        across, down = second.x - first.x, second.y - first.y
        distance = max(math.hypot(across, down), 1e-3)
        wanted = min(distance, (first.size + second.size) / 2 * float(rng.uniform(0.85, 1.1)))
        pull = 0.5 * (1 - wanted / distance)
        items = [
            dataclasses.replace(first, x=first.x + pull * across, y=first.y + pull * down),
            dataclasses.replace(second, x=second.x - pull * across, y=second.y - pull * down),
        ]
    return dataclasses.replace(scene, objects=tuple(items))


def pair_scenes(recipe: PairRecipe) -> list[Scene]:
    """The training scenes, mostly of two objects."""
    scenes = training_scenes(recipe.num_images, JUDGE_SEEDS + recipe.first_seed, **SHARES)
    rng = np.random.default_rng([recipe.first_seed, 3])
    return [crowd(scene, rng) if rng.random() < recipe.crowded else scene for scene in scenes]


@torch.no_grad()
def through_vae(
    vae: AutoencoderKL,
    images: Float[Tensor, "n 3 h w"],
    disturbed: float = 0.0,
    generator: torch.Generator | None = None,
    batch: int = 32,
) -> Float[Tensor, "n 3 h w"]:
    """Images in [0, 1], encoded and decoded.

    Args:
        vae: the autoencoder.
        images: what to pass through it.
        disturbed: largest noise added to latents, in units of their deviation; its amount is drawn
            for each image.
        generator: of the noise.
        batch: images at a time.
    """
    vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
    parts = []
    for chunk in torch.split(images, batch):
        signed = (chunk * 2 - 1).contiguous(memory_format=torch.channels_last)
        latents = vae.encode(signed).latent_dist.mean
        if disturbed:
            amount = disturbed * torch.rand(len(chunk), 1, 1, 1, generator=generator)
            latents = latents + latents.std() * amount * torch.randn(latents.shape, generator=generator)
        parts.append((vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).contiguous())
    return torch.cat(parts)


def _draw_bytes(
    vae: AutoencoderKL, scenes: Sequence[Scene], disturbed: float, seed: int, chunk: int = 256
) -> UInt8[Tensor, "n 3 h w"]:
    parts, generator = [], torch.Generator().manual_seed(seed)
    for start in range(0, len(scenes), chunk):
        images = render(scenes[start : start + chunk]).images
        drawn = through_vae(vae, images, disturbed, generator)
        parts.append((drawn * 255).round().to(torch.uint8))
        log.info("passed %d of %d scenes through the autoencoder", start + len(images), len(scenes))
    return torch.cat(parts)


def move(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Each image shifted by up to three pixels and scaled by up to a tenth; labels stay."""
    count = len(images)
    scale = 1 + 0.2 * (torch.rand(count, generator=generator) - 0.5)
    shift = 6 / images.shape[-1] * (2 * torch.rand(count, 2, generator=generator) - 1)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = shift
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


class PairModule(lightning.LightningModule):
    """Which pairs are in an image; the oracle's other readings have no part in it."""

    def __init__(self, network: PairReader, recipe: PairRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network.to(memory_format=torch.channels_last), recipe

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch of images and the pairs in them."""
        images, present = batch
        logits = self.network((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        loss = functional.binary_cross_entropy_with_logits(logits, present, reduction="sum")
        return loss / len(images)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        steps = self.recipe.steps
        return adamw(
            self.network, self.recipe.learning_rate, steps, min(100, steps // 4 + 1), weight_decay=0.02
        )


def train_pairs(
    oracle: AttributeOracle,
    vae: AutoencoderKL,
    recipe: PairRecipe,
    name: str,
    out_dir: Path,
    device: str = "cpu",
    seed: int = 0,
) -> AttributeOracle:
    """Trains, or resumes, or just loads a reader of pairs.

    It starts as the oracle's first training left the levels and the head.

    Args:
        oracle: after its first training; its other readings do not change.
        vae: the generator's autoencoder.
        recipe: how.
        name: for the log.
        out_dir: holds the checkpoint and the pictures passed through the autoencoder.
        device: "cpu", "cuda" or "mps".
        seed: of the training.
    """
    lightning.seed_everything(seed, verbose=False)
    trained = AttributeOracle(dataclasses.replace(oracle.config, own_pairs=True))
    trained.load_state_dict(oracle.state_dict(), strict=False)
    reader = trained.pair_reader
    assert reader is not None
    reader.levels.load_state_dict(oracle.levels.state_dict())
    reader.head.load_state_dict(oracle.pairs.state_dict())

    def prepare() -> Callable[[int], tuple[Tensor, Tensor]]:
        scenes = pair_scenes(recipe)
        cached = out_dir / DRAWN
        if not cached.exists():
            save_file({"images": _draw_bytes(vae, scenes, recipe.disturbed, seed)}, cached)
        drawn, plain, present = load_file(cached)["images"], render_bytes(scenes), labels_of(scenes).pairs

        def make_batch(step: int) -> tuple[Tensor, Tensor]:
            rows = random_rows(len(scenes), recipe.batch, seed, step)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            passed = torch.rand(len(rows), 1, 1, 1, generator=generator) < recipe.drawn
            images = to_float(torch.where(passed, drawn[rows], plain[rows]))
            return roughen(move(images, generator), generator), present[rows]

        return make_batch

    out_dir.mkdir(parents=True, exist_ok=True)
    fit(PairModule(reader, recipe), prepare, name=name, steps=recipe.steps, out_dir=out_dir, device=device)
    return trained.to(memory_format=torch.contiguous_format).cpu().eval()
