"""Images to latents and back, through the autoencoder of a model."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from p2p_bench.hashing import digest
from p2p_bench.models.settings import Autoencoding
from p2p_bench.models.spec import ModelSpec

_BATCH = 8
"""Images through the VAE at once: its activations are large, and larger batches gain nothing."""


@torch.no_grad()
def encoded_images(
    vae: Any, spec: ModelSpec, images: Float[Tensor, "n 3 h w"], device: torch.device
) -> Float[Tensor, "n c k l"]:
    """Shifted and scaled latents: the mean of the VAE's posterior, not a sample of it.

    Args:
        vae: An `AutoencoderKL`.
        spec: Facts about the model.
        images: In [0, 1].
        device: Where the VAE is.
    """
    parts = []
    for part in torch.split(images, _BATCH):
        pixels = 2 * part.to(device=device, dtype=vae.dtype) - 1
        mean = vae.encode(pixels).latent_dist.mode()
        parts.append((mean - spec.vae_shift) * spec.vae_scaling)
    return torch.cat(parts)


@torch.no_grad()
def decoded_latents(
    vae: Any, spec: ModelSpec, latents: Float[Tensor, "n c k l"], device: torch.device
) -> Float[Tensor, "n 3 h w"]:
    """Images of such latents: float32 in [0, 1].

    Args:
        vae: An `AutoencoderKL`.
        spec: Facts about the model.
        latents: The latents.
        device: Where the VAE is.
    """
    parts = []
    for part in torch.split(latents, _BATCH):
        scaled = part.to(device=device, dtype=vae.dtype) / spec.vae_scaling + spec.vae_shift
        parts.append(vae.decode(scaled, return_dict=False)[0].float())
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def set_way(vae: Any, way: Autoencoding) -> None:
    """Sets how images go through a VAE, see `UNetCheckpoint`."""
    if way == "sliced":
        vae.enable_slicing()
    if way == "tiled":
        vae.enable_tiling()


def way_checksum(checksum: str, way: Autoencoding) -> str:
    """The checksum of a model's files with the way of its VAE, where that changes images."""
    return digest({"checkpoint": checksum, "vae": way}) if way == "tiled" else checksum
