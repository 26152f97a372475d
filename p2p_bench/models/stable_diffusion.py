"""Stable Diffusion 1.x and 2.x: a latent U-Net with one CLIP text encoder and DDPM noise levels."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site
from p2p_bench.models.conditioning import TEXT, Conditioning, EncodedPrompts
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import Spacing, check_spacing
from p2p_bench.models.tokenizer import ClipReader
from p2p_bench.prompts.words import TokenizedPrompt

_VAE_BATCH = 8
"""Images through the VAE at once: its activations are large, and larger batches gain nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class StableDiffusion(DiffusionModel):
    """A loaded checkpoint of the family; see `DiffusionModel` for what is not said here.

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
        encoded: The prompts that were encoded before.
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
    encoded: EncodedPrompts = field(default_factory=EncodedPrompts)

    @property
    def network(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def ladder(self, steps: int) -> tuple[Level, ...]:
        """See `DiffusionModel.ladder`."""
        return self.schedule.ladder(steps)

    def spaced(self, spacing: Spacing | None) -> "StableDiffusion":
        """See `DiffusionModel.spaced`."""
        if spacing is None:
            return self
        check_spacing(spacing)
        schedule = replace(self.schedule, timestep_spacing=spacing)
        return replace(self, spec=self.spec.spaced(spacing), schedule=schedule)

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `DiffusionModel.tokenize`."""
        return ClipReader(self.tokenizer, self.spec.vocabulary).tokenize(text, truncate, allow_empty, role)

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        """See `DiffusionModel.encode_one`."""
        ids = torch.tensor([prompt.ids], device=self.device)
        return {TEXT: self.text_encoder(ids).last_hidden_state}

    def encode_prompts(self, prompts: Sequence[str], truncate: bool = False) -> Float[Tensor, "n l d"]:
        """Text embeddings of prompts; the empty prompt is the unconditional one.

        Raises:
            PromptError: A prompt is longer than the model reads.
        """
        return self.encode([self.tokenize(prompt, truncate, allow_empty=True) for prompt in prompts])[TEXT]

    def controlled(self) -> AbstractContextManager[object]:
        """See `DiffusionModel.controlled`."""
        return folded_attention(self.unet)

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        plan: StepPlan | None = None,
    ) -> Denoised:
        """See `DiffusionModel.predict`."""
        extra = {} if plan is None else {"cross_attention_kwargs": {"plan": plan}}
        inputs, text = latents.to(self.dtype), conditioning[TEXT].to(self.dtype)
        timestep = int(level.timestep)
        output = self.unet(inputs, timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]
        return Denoised(latents, level, self.schedule.to_epsilon(output.to(latents.dtype), latents, level))

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """Scaled latents of images in [0, 1]: the mean of the VAE's posterior, not a sample of it."""
        parts = []
        for part in torch.split(images, _VAE_BATCH):
            pixels = 2 * part.to(device=self.device, dtype=self.dtype) - 1
            parts.append(self.vae.encode(pixels).latent_dist.mode() * self.spec.vae_scaling)
        return torch.cat(parts).to(self.state_dtype)

    @torch.no_grad()
    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of scaled latents: float32 in [0, 1], on the model's device."""
        parts = []
        for part in torch.split(latents, _VAE_BATCH):
            scaled = part.to(device=self.device, dtype=self.dtype) / self.spec.vae_scaling
            parts.append(self.vae.decode(scaled, return_dict=False)[0].float())
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
