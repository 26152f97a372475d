"""Trains the text encoder and the U-Net together, from captions and encoded scenes."""

import dataclasses
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Int
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from p2p_bench.world.training.grounding import KeepingAttnProcessor, grounding_loss, place_masks
from p2p_bench.world.training.latents import (
    LATENT_SIDE,
    DenoisingBatch,
    DenoisingRecipe,
    draw_timesteps,
    fit_denoiser,
)
from p2p_bench.world.training.muon import muon_adamw, muon_groups
from p2p_bench.world.training.runner import Average


@dataclasses.dataclass(frozen=True)
class UNetRecipe(DenoisingRecipe):
    """How text encoder and U-Net are built and trained; what the rows are is in `DenoisingRecipe`.

    Attributes:
        focus: part of the noise schedule, as fractions of it, where layout, shapes and weather are decided.
        focus_share: share of the rows whose timestep lies in that part.
        channels: width at 16, 8 and 4 latent pixels; cross-attention at 16, 8 and the middle.
        text_width: width of the text encoder.
        text_layers: its depth.
        learning_rate: peak of the schedule.
        max_snr: the loss on v is weighted by min(1, max_snr / SNR).
        object_weight: how much more an object's latents weigh than the background's, where the
            noise is so low that x_t tells where the object is.
        grounding: weight of the grounding loss.
        grounding_from: share of the steps after which it is on.
        ema: decay of the weight average.
        compiled: whether to compile the loss.
    """

    focus: tuple[float, float] = (0.4, 0.98)
    focus_share: float = 0.7
    channels: tuple[int, ...] = (64, 128, 192)
    text_width: int = 128
    text_layers: int = 2
    learning_rate: float = 1.2e-3
    max_snr: float = 5.0
    object_weight: float = 2.0
    grounding: float = 0.05
    grounding_from: float = 0.7
    ema: float = 0.998
    compiled: bool = True

    def draw_levels(self, count: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Timesteps, see `draw_timesteps`."""
        return draw_timesteps(count, self.focus, self.focus_share, generator)


def build_unet(channels: tuple[int, ...], text_width: int) -> UNet2DConditionModel:
    """A U-Net with heads of 32 channels, cross-attention everywhere but at the lowest level's blocks."""
    inner = len(channels) - 1
    unet: UNet2DConditionModel = UNet2DConditionModel(
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
    return unet


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
    scheduler: DDIMScheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )
    return scheduler


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
        self.unet.set_attn_processor(KeepingAttnProcessor())  # type: ignore[arg-type]  # diffusers lists its own only
        for module in (self.unet, self.averaged_unet):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
        self._averages = (
            Average(self.unet, self.averaged_unet, recipe.ema),
            Average(self.text, self.averaged_text, recipe.ema),
        )
        self.register_buffer("alphas_cumprod", build_scheduler().alphas_cumprod, persistent=False)
        self._loss = torch.compile(self.loss) if recipe.compiled else self.loss

    def loss(
        self,
        latents: Tensor,
        objects: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        token_ids: Tensor,
        owners: Tensor,
        grounding: float,
    ) -> Tensor:
        """Mean weighted loss of a `DenoisingBatch`, given by its fields, with the grounding loss added."""
        # x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps
        # v   = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0
        alpha_bar = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)  # type: ignore[index]  # a buffer, typed Tensor | Module
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        x_t = signal * latents + spread * noise
        v = signal * noise - spread * latents
        maps: list[Tensor] | None = [] if grounding else None
        with torch.autocast(latents.device.type, torch.bfloat16):
            context = self.text(token_ids).last_hidden_state
            predicted = self.unet(x_t, timesteps, context, cross_attention_kwargs={"maps": maps}).sample
        snr = alpha_bar / (1 - alpha_bar)
        by_noise = (self.recipe.max_snr / snr).clamp(max=1.0)
        by_place = 1 + self.recipe.object_weight * objects.sum(1, keepdim=True) * snr.clamp(max=1.0)
        denoising: Tensor = (by_noise * by_place * (predicted.float() - v).square()).mean()
        if maps is None:
            return denoising
        # Where the noise hides the layout, no map can be right.
        visible = (10 * snr).clamp(max=1.0).flatten()
        return denoising + grounding * grounding_loss(maps, owners, place_masks(objects), visible)

    def training_step(self, batch: DenoisingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        grounded = self.global_step >= self.recipe.grounding_from * self.recipe.steps
        return self._loss(
            batch.latents.contiguous(memory_format=torch.channels_last),
            batch.objects,
            batch.noise,
            batch.levels,
            batch.token_ids,
            batch.owners,
            self.recipe.grounding if grounded else 0.0,
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the averaged weights."""
        for average in self._averages:
            average.update(self.global_step)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        return muon_adamw(muon_groups([self.unet, self.text]), self.recipe.learning_rate, self.recipe.steps)


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
    module = UNetModule(recipe, tokenizer)
    fit_denoiser(
        module,
        recipe,
        vae,
        tokenizer,
        name="unet",
        out_dir=out_dir,
        device=device,
        seed=seed,
        observers=observers,
    )
    return module
