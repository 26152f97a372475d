"""Trains the autoencoder, an `AutoencoderKL` of diffusers, on rendered scenes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from p2p_bench.world.scenes import Scene
from p2p_bench.world.training.images import TRAIN_SEEDS, random_rows, render_bytes, to_float, training_scenes
from p2p_bench.world.training.runner import Average, adamw, fit


@dataclasses.dataclass(frozen=True)
class VAERecipe:
    """How the autoencoder is built and trained.

    Attributes:
        channels: width at 64, 32 and 16 pixels.
        steps: optimiser steps.
        batch: images a step.
        learning_rate: peak of the schedule.
        num_images: rendered training images.
        kl_weight: weight of the KL term per latent element, against the error per pixel.
        compiled: whether to compile the loss.
    """

    channels: tuple[int, ...] = (32, 64, 64)
    steps: int = 3600
    batch: int = 16
    learning_rate: float = 1.2e-3
    num_images: int = 16_000
    kl_weight: float = 3e-5
    compiled: bool = True


def build_vae(channels: tuple[int, ...]) -> AutoencoderKL:
    """An autoencoder with 4 latent channels and a side 4 times smaller (for three widths)."""
    num = len(channels)
    vae: AutoencoderKL = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * num,
        up_block_types=("UpDecoderBlock2D",) * num,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    return vae


class VAEModule(lightning.LightningModule):
    """L1 + L2 + KL on images in [-1, 1]; keeps an average of the weights."""

    def __init__(self, recipe: VAERecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.vae = build_vae(recipe.channels).to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
        self.averaged = build_vae(recipe.channels).to(memory_format=torch.channels_last)  # type: ignore[call-arg]  # torch stubs lack memory_format
        self.averaged.load_state_dict(self.vae.state_dict())
        self._average = Average(self.vae, self.averaged, 0.998)
        self._loss = torch.compile(self.loss) if recipe.compiled else self.loss

    def loss(self, images: Float[Tensor, "n 3 h w"], noise: Float[Tensor, "n 4 hl wl"]) -> Tensor:
        """Mean loss of images in [-1, 1]."""
        with torch.autocast(images.device.type, torch.bfloat16):
            posterior = self.vae.encode(images).latent_dist
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - images
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        loss: Tensor = 0.5 * error.abs().mean() + 2.0 * error.square().mean() + self.recipe.kl_weight * kl
        return loss

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        images = (to_float(batch) * 2 - 1).contiguous(memory_format=torch.channels_last)
        side = images.shape[-1] // 2 ** (len(self.recipe.channels) - 1)
        noise = torch.randn(len(images), 4, side, side, device=self.device)
        return self._loss(images, noise)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Updates the averaged weights."""
        self._average.update(self.global_step)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        return adamw(
            self.vae, self.recipe.learning_rate, self.recipe.steps, min(100, self.recipe.steps // 4 + 1)
        )


def vae_scenes(count: int) -> list[Scene]:
    """Scenes rich in everything that is hard to encode."""
    return training_scenes(count, TRAIN_SEEDS, two_objects=0.5, styled=0.35, weathered=0.3)


def train_vae(recipe: VAERecipe, out_dir: Path, device: str = "cpu", seed: int = 0) -> AutoencoderKL:
    """Trains, or resumes, or just loads; returns the averaged autoencoder, without scaling factor."""
    lightning.seed_everything(seed, verbose=False)
    module = VAEModule(recipe)

    def prepare() -> Callable[[int], Tensor]:
        images = render_bytes(vae_scenes(recipe.num_images))
        return lambda step: images[random_rows(len(images), recipe.batch, seed, step)]

    fit(module, prepare, name="vae", steps=recipe.steps, out_dir=out_dir, device=device)
    averaged: AutoencoderKL = module.averaged.to(memory_format=torch.contiguous_format).cpu().eval()
    return averaged


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, count: int = 512) -> None:
    """Gives the latents mean 0 per channel and a scaling factor of one over their deviation.

    The mean moves into the biases of the two 1 x 1 convolutions around the latents, so that images
    are encoded and decoded exactly as before.

    Args:
        vae: changed in place, its configuration's `scaling_factor` too.
        count: how many training scenes the statistics are taken from.
    """
    images = to_float(render_bytes(vae_scenes(count))) * 2 - 1
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in torch.split(images, 64)])
    mean = latents.mean((0, 2, 3))
    vae.quant_conv.bias[: len(mean)] -= mean  # type: ignore[index, union-attr]  # our VAE has quant_conv
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean  # type: ignore[operator, union-attr]  # our VAE has it
    vae.register_to_config(scaling_factor=round(1 / float((latents - mean[:, None, None]).std()), 5))
