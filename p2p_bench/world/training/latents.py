"""What the denoiser is trained on: encoded scenes, captions, noise; each batch a function of its step."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float, Int, Shaped
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from p2p_bench.world.scenes import Scene, render
from p2p_bench.world.scenes.attributes import DEFAULT_STYLE, DEFAULT_WEATHER
from p2p_bench.world.scenes.captions import caption_words
from p2p_bench.world.training.grounding import token_owners
from p2p_bench.world.training.images import TRAIN_SEEDS, random_rows, training_scenes
from p2p_bench.world.training.runner import fit

log = logging.getLogger(__name__)

LATENT_SIDE = 16
_UNET_SEEDS = TRAIN_SEEDS + 1_000_000


@dataclasses.dataclass(frozen=True)
class DenoisingRecipe:
    """What the rows of a batch are.

    Attributes:
        steps: optimiser steps.
        batch: rows a step.
        num_images: rendered training images, encoded once.
        empty: share of empty captions.
        two_objects: share of the rows that show two objects, at the start and at the end.
        thin_copies: how often a scene in thin weather (strength below 0.4) is in the pool: guidance
            thickens weather, so that thin weather is otherwise never sampled.
        thick_copies: the same for thick weather (above 0.85).
        style_copies: the same for scenes with a style.
    """

    steps: int = 8000
    batch: int = 32
    num_images: int = 40_000
    empty: float = 0.1
    two_objects: tuple[float, float] = (0.2, 0.6)
    thin_copies: int = 3
    thick_copies: int = 2
    style_copies: int = 2

    def draw_levels(self, count: int, generator: torch.Generator) -> Shaped[Tensor, " n"]:
        """Noise levels of rows, in whatever the loss takes."""
        raise NotImplementedError


class DenoisingBatch(NamedTuple):
    """What one training step needs; all tensors have the rows first."""

    latents: Float[Tensor, "n 4 hl wl"]
    objects: Float[Tensor, "n 2 hl wl"]
    noise: Float[Tensor, "n 4 hl wl"]
    levels: Shaped[Tensor, " n"]
    token_ids: Int[Tensor, "n w"]
    owners: Int[Tensor, "n w"]


def unet_scenes(count: int) -> list[Scene]:
    """Mostly one plain-style object, so that words bind early; the rest carries the other words."""
    return training_scenes(count, _UNET_SEEDS, two_objects=0.25, styled=0.15, weathered=0.15)


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, scenes: Sequence[Scene], chunk: int = 64) -> dict[str, Tensor]:
    """Posterior means (unscaled, half precision) and each object's share of each latent pixel."""
    latents, objects = [], []
    vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
    for start in range(0, len(scenes), chunk):
        rendered = render(scenes[start : start + chunk])
        images = (rendered.images * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(vae.encode(images).latent_dist.mean.half().contiguous())
        cover = rendered.object_masks.float()
        objects.append(torch.nn.functional.avg_pool2d(cover, images.shape[-1] // LATENT_SIDE).half())
        if start // chunk % 100 == 0:
            log.info("encoded %d of %d scenes", start, len(scenes))
    return {"latents": torch.cat(latents), "objects": torch.cat(objects)}


def tokenise(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "n w"]:
    """Token ids, padded to the model's length."""
    settings = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    ids: Tensor = tokenizer(list(captions), return_tensors="pt", **settings).input_ids
    return ids


def draw_timesteps(
    count: int, focus: tuple[float, float], share: float, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """Timesteps in 0..999, one per stratum, with `share` of them in `focus` (fractions of the schedule)."""
    low, high = focus
    below = (1 - share) * low / (low + 1 - high)
    strata = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
    place = strata / count
    inner = low + (place - below) / share * (high - low)
    outer = torch.where(
        place < below, place / below * low, high + (place - below - share) / (1 - below - share) * (1 - high)
    )
    fraction = torch.where((place >= below) & (place < below + share), inner, outer)
    return (fraction * 1000).long().clamp(0, 999)


def draw_rows(
    alone: Int[Tensor, " a"], together: Int[Tensor, " b"], recipe: DenoisingRecipe, seed: int, step: int
) -> Int[Tensor, " n"]:
    """Rows of a step's batch from the scenes of one and of two objects, in the share of that step.

    One object first, so that words bind early; more and more of two, so that they bind to their own.
    """
    start, end = recipe.two_objects
    share = start + (end - start) * min(1.0, step / recipe.steps)
    count = round(recipe.batch * share)
    count = 0 if not len(together) else recipe.batch if not len(alone) else count
    chosen = ((alone, recipe.batch - count, 2 * step), (together, count, 2 * step + 1))
    parts = [pool[random_rows(len(pool), number, seed, draw)] for pool, number, draw in chosen if number]
    return torch.cat(parts)


def scene_pools(
    scenes: Sequence[Scene], recipe: DenoisingRecipe
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Indices of the scenes of one and of two objects, rare ones as often as the recipe says."""

    def copies(scene: Scene) -> int:
        count = recipe.style_copies if scene.style != DEFAULT_STYLE else 1
        if scene.weather != DEFAULT_WEATHER:
            count *= recipe.thin_copies if scene.weather_strength < 0.4 else 1
            count *= recipe.thick_copies if scene.weather_strength > 0.85 else 1
        return count

    def pool(objects: int) -> Int[Tensor, " n"]:
        rows = [[i] * copies(scene) for i, scene in enumerate(scenes) if len(scene.objects) == objects]
        return torch.tensor([i for row in rows for i in row], dtype=torch.int64)

    return pool(1), pool(2)


def denoising_batches(
    recipe: DenoisingRecipe, vae: AutoencoderKL, tokenizer: CLIPTokenizer, cached: Path, seed: int
) -> Callable[[int], DenoisingBatch]:
    """Encodes the scenes, unless they are in the file `cached`, and returns the batch of a step."""
    scenes = unet_scenes(recipe.num_images)
    if not cached.exists():
        save_file(encode_scenes(vae, scenes), cached)
    data = load_file(cached)
    alone, together = scene_pools(scenes, recipe)

    def make_batch(step: int) -> DenoisingBatch:
        rows = draw_rows(alone, together, recipe, seed, step)
        rng = np.random.default_rng([seed, step])
        texts = [caption_words(scenes[i], rng) if rng.random() >= recipe.empty else [] for i in rows.tolist()]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        latents = data["latents"][rows].float() * vae.config.scaling_factor  # type: ignore[attr-defined]  # diffusers adds config at run time
        levels = recipe.draw_levels(recipe.batch, generator)
        return DenoisingBatch(
            latents=latents,
            objects=data["objects"][rows].float(),
            noise=torch.randn(latents.shape, generator=generator),
            levels=levels,
            token_ids=tokenise(tokenizer, [" ".join(word for word, _ in words) for words in texts]),
            owners=token_owners(tokenizer, texts),
        )

    return make_batch


def fit_denoiser(
    module: lightning.LightningModule,
    recipe: DenoisingRecipe,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    name: str,
    out_dir: Path,
    device: str,
    seed: int,
    observers: tuple[Callback, ...],
) -> None:
    """Trains a module on `denoising_batches`, whose scenes are kept in `out_dir`; see `fit`."""
    out_dir.mkdir(parents=True, exist_ok=True)
    fit(
        module,
        lambda: denoising_batches(recipe, vae, tokenizer, out_dir / "latents.safetensors", seed),
        name=name,
        steps=recipe.steps,
        out_dir=out_dir,
        device=device,
        observers=observers,
    )
