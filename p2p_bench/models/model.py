"""A loaded text-to-image model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.spec import ModelSpec
from p2p_bench.prompts.words import TokenizedPrompt, tokenize

_VAE_BATCH = 8
"""Images through the VAE at once: its activations are large, and larger batches gain nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class DiffusionModel:
    """A latent text-to-image U-Net with its text encoder, VAE and noise levels.

    Weights are frozen and no method mutates the model; gradients with respect to inputs are allowed.

    Attributes:
        spec: Facts about it.
        tokenizer: CLIP tokenizer; its `model_max_length` is `spec.max_tokens`.
        schedule: Noise levels and the meaning of the network's output.
        sites: Attention sites of the U-Net.
        unet: The network, a `UNet2DConditionModel`.
        vae: Images to latents and back, an `AutoencoderKL`.
        text_encoder: Tokens to embeddings.
        device: Where the weights are.
        dtype: Number format of the weights.
    """

    spec: ModelSpec
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    sites: tuple[Site, ...]
    unet: nn.Module
    vae: Any
    text_encoder: CLIPTextModel
    device: torch.device
    dtype: torch.dtype

    def __repr__(self) -> str:
        """One line: name, size, place."""
        height, width = self.spec.image_size
        number_format = str(self.dtype).removeprefix("torch.")
        return (
            f"DiffusionModel({self.spec.name!r}, {width} x {height} pixels, {number_format} on {self.device})"
        )

    @property
    def state_dtype(self) -> torch.dtype:
        """Number format of latents between steps: the model's, and never below float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str], truncate: bool = False) -> Float[Tensor, "n l d"]:
        """Text embeddings of prompts; the empty prompt is the unconditional one.

        Args:
            prompts: At least one.
            truncate: Cut prompts that are too long instead of refusing them.

        Raises:
            PromptError: A prompt is longer than the model reads.
        """
        return self.encode_tokens(
            [
                tokenize(prompt, self.tokenizer, truncate, allow_empty=True, vocabulary=self.spec.vocabulary)
                for prompt in prompts
            ]
        )

    @torch.no_grad()
    def encode_tokens(self, prompts: Sequence[TokenizedPrompt]) -> Float[Tensor, "n l d"]:
        """Text embeddings of prompts that are tokens already."""
        ids = torch.tensor([prompt.ids for prompt in prompts], device=self.device)
        return self.text_encoder(ids).last_hidden_state

    def controlled(self) -> AbstractContextManager[object]:
        """Within this context the attention sites follow the plan given to `predict`."""
        return folded_attention(self.unet)

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        timestep: int | Tensor,
        embeddings: Float[Tensor, "n l d"],
        plan: StepPlan | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """One pass of the U-Net.

        Args:
            latents: One per network row, in any number format.
            timestep: 0..train timesteps - 1.
            embeddings: Text embedding of each network row.
            plan: What the attention sites do; needs `controlled`.

        Returns:
            The raw output (noise or velocity, see `schedule`), in the number format of `latents`.
        """
        extra = {} if plan is None else {"cross_attention_kwargs": {"plan": plan}}
        inputs, text = latents.to(self.dtype), embeddings.to(self.dtype)
        output = self.unet(inputs, timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]
        return output.to(latents.dtype)

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """Scaled latents of images in [0, 1]: the mean of the VAE's posterior, not a sample of it."""
        parts = []
        for part in images.split(_VAE_BATCH):
            pixels = 2 * part.to(device=self.device, dtype=self.dtype) - 1
            parts.append(self.vae.encode(pixels).latent_dist.mode() * self.spec.vae_scaling)
        return torch.cat(parts).to(self.state_dtype)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of scaled latents: float32 in [0, 1], on the model's device."""
        parts = []
        for part in latents.split(_VAE_BATCH):
            scaled = part.to(device=self.device, dtype=self.dtype) / self.spec.vae_scaling
            parts.append(self.vae.decode(scaled, return_dict=False)[0].float())
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
