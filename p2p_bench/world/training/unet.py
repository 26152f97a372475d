"""Trains the text encoder and the U-Net together, from captions and encoded scenes."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, Int
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from p2p_bench.world.scenes import Scene, caption, render
from p2p_bench.world.training.images import TRAIN_SEEDS, random_rows, training_scenes
from p2p_bench.world.training.muon import MuonAdamW, muon_groups
from p2p_bench.world.training.runner import Average, fit, warm_cosine

log = logging.getLogger(__name__)

LATENT_SIDE = 16
_UNET_SEEDS = TRAIN_SEEDS + 1_000_000


@dataclasses.dataclass(frozen=True)
class UNetRecipe:
    """How text encoder and U-Net are built and trained.

    Attributes:
        channels: width at 16, 8 and 4 latent pixels; cross-attention at 16, 8 and the middle.
        text_width: width of the text encoder.
        text_layers: its depth.
        steps: optimiser steps.
        batch: rows a step.
        learning_rate: peak of the schedule.
        num_images: rendered training images, encoded once.
        empty: share of empty captions.
        max_snr: the loss on v is weighted by min(1, max_snr / SNR).
        object_weight: how much more an object's latents weigh than the background's, where the
            noise is so low that x_t tells where the object is.
        focus: part of the noise schedule, as fractions of it, where layout and shapes are decided.
        focus_share: share of the rows whose timestep lies in that part.
        two_objects: share of the rows that show two objects, at the start and at the end.
        ema: decay of the weight average.
        compiled: whether to compile the loss.
    """

    channels: tuple[int, ...] = (64, 128, 192)
    text_width: int = 128
    text_layers: int = 2
    steps: int = 6500
    batch: int = 32
    learning_rate: float = 1.2e-3
    num_images: int = 40_000
    empty: float = 0.1
    max_snr: float = 5.0
    object_weight: float = 2.0
    focus: tuple[float, float] = (0.4, 0.92)
    focus_share: float = 0.7
    two_objects: tuple[float, float] = (0.2, 0.6)
    ema: float = 0.998
    compiled: bool = True


def build_unet(channels: tuple[int, ...], text_width: int) -> UNet2DConditionModel:
    """A U-Net with heads of 32 channels, cross-attention everywhere but at the lowest level's blocks."""
    inner = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * inner + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * inner,
        cross_attention_dim=text_width,
        attention_head_dim=tuple(width // 32 for width in channels),
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextModel:
    """A CLIP text model of the tokenizer's vocabulary and length."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )


class DenoisingBatch(NamedTuple):
    """What one training step needs; all tensors have the rows first."""

    latents: Float[Tensor, "n 4 hl wl"]
    objects: Float[Tensor, "n 1 hl wl"]
    noise: Float[Tensor, "n 4 hl wl"]
    timesteps: Int[Tensor, " n"]
    token_ids: Int[Tensor, "n w"]


class UNetModule(lightning.LightningModule):
    """Denoising loss on v (Salimans and Ho 2022) with clipped SNR weight; averages its weights."""

    def __init__(self, recipe: UNetRecipe, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.recipe = recipe
        text = (tokenizer, recipe.text_width, recipe.text_layers)
        self.unet = build_unet(recipe.channels, recipe.text_width)
        self.text = build_text_encoder(*text)
        self.averaged_unet = build_unet(recipe.channels, recipe.text_width)
        self.averaged_text = build_text_encoder(*text)
        self.averaged_unet.load_state_dict(self.unet.state_dict())
        self.averaged_text.load_state_dict(self.text.state_dict())
        for module in (self.unet, self.averaged_unet):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
        self._averages = (
            Average(self.unet, self.averaged_unet, recipe.ema),
            Average(self.text, self.averaged_text, recipe.ema),
        )
        self.register_buffer("alphas_cumprod", build_scheduler().alphas_cumprod, persistent=False)
        self._loss = torch.compile(self.loss) if recipe.compiled else self.loss

    def loss(
        self, latents: Tensor, objects: Tensor, noise: Tensor, timesteps: Tensor, token_ids: Tensor
    ) -> Tensor:
        """Mean weighted loss of a `DenoisingBatch`, given by its fields."""
        # x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps
        # v   = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0
        alpha_bar = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)  # type: ignore[index]  # a buffer, typed Tensor | Module
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        x_t = signal * latents + spread * noise
        v = signal * noise - spread * latents
        with torch.autocast(latents.device.type, torch.bfloat16):
            context = self.text(token_ids).last_hidden_state
            predicted = self.unet(x_t, timesteps, context).sample
        snr = alpha_bar / (1 - alpha_bar)
        by_noise = (self.recipe.max_snr / snr).clamp(max=1.0)
        by_place = 1 + self.recipe.object_weight * objects * snr.clamp(max=1.0)
        return (by_noise * by_place * (predicted.float() - v).square()).mean()

    def training_step(self, batch: DenoisingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        return self._loss(
            batch.latents.contiguous(memory_format=torch.channels_last),
            batch.objects,
            batch.noise,
            batch.timesteps,
            batch.token_ids,
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the averaged weights."""
        for average in self._averages:
            average.update(self.global_step)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        steps = self.recipe.steps
        optimizer = MuonAdamW(muon_groups([self.unet, self.text]), lr=self.recipe.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, min(200, steps // 4 + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def unet_scenes(count: int) -> list[Scene]:
    """Mostly one plain-style object, so that words bind early; the rest carries the other words."""
    return training_scenes(count, _UNET_SEEDS, two_objects=0.25, styled=0.15, weathered=0.15)


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, scenes: Sequence[Scene], chunk: int = 64) -> dict[str, Tensor]:
    """Posterior means (unscaled, half precision) and the objects' share of each latent pixel."""
    latents, objects = [], []
    vae = vae.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
    for start in range(0, len(scenes), chunk):
        rendered = render(scenes[start : start + chunk])
        images = (rendered.images * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(vae.encode(images).latent_dist.mean.half().contiguous())
        cover = rendered.object_masks.any(1, keepdim=True).half()
        objects.append(torch.nn.functional.avg_pool2d(cover.float(), images.shape[-1] // LATENT_SIDE).half())
        if start // chunk % 100 == 0:
            log.info("encoded %d of %d scenes", start, len(scenes))
    return {"latents": torch.cat(latents), "objects": torch.cat(objects)}


def tokenise(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Int[Tensor, "n w"]:
    """Token ids, padded to the model's length."""
    settings = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    return tokenizer(list(captions), return_tensors="pt", **settings).input_ids


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
    alone: Int[Tensor, " a"], together: Int[Tensor, " b"], recipe: UNetRecipe, seed: int, step: int
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


def _prepare(
    recipe: UNetRecipe, vae: AutoencoderKL, tokenizer: CLIPTokenizer, cached: Path, seed: int
) -> Callable[[int], DenoisingBatch]:
    """Encodes the scenes, unless they are cached, and returns the batch of a step."""
    scenes = unet_scenes(recipe.num_images)
    if not cached.exists():
        save_file(encode_scenes(vae, scenes), cached)
    data = load_file(cached)
    counts = torch.tensor([len(scene.objects) for scene in scenes])
    alone, together = (counts == 1).nonzero()[:, 0], (counts == 2).nonzero()[:, 0]

    def make_batch(step: int) -> DenoisingBatch:
        rows = draw_rows(alone, together, recipe, seed, step)
        rng = np.random.default_rng([seed, step])
        texts = [caption(scenes[i], rng) if rng.random() >= recipe.empty else "" for i in rows.tolist()]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        latents = data["latents"][rows].float() * vae.config.scaling_factor  # type: ignore[attr-defined]  # diffusers adds config at run time
        timesteps = draw_timesteps(recipe.batch, recipe.focus, recipe.focus_share, generator)
        return DenoisingBatch(
            latents=latents,
            objects=data["objects"][rows].float(),
            noise=torch.randn(latents.shape, generator=generator),
            timesteps=timesteps,
            token_ids=tokenise(tokenizer, texts),
        )

    return make_batch


def train_unet(
    recipe: UNetRecipe,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    out_dir: Path,
    device: str = "cpu",
    seed: int = 0,
    observers: tuple[Callback, ...] = (),
) -> UNetModule:
    """Trains, or resumes, or just loads; the caller takes the averaged networks.

    Encoded scenes are kept in `out_dir`/latents.safetensors. `vae.config.scaling_factor` must be set.
    """
    lightning.seed_everything(seed, verbose=False)
    out_dir.mkdir(parents=True, exist_ok=True)
    module = UNetModule(recipe, tokenizer)
    fit(
        module,
        lambda: _prepare(recipe, vae, tokenizer, out_dir / "latents.safetensors", seed),
        name="unet",
        steps=recipe.steps,
        out_dir=out_dir,
        device=device,
        observers=observers,
    )
    return module
