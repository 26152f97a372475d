"""What families share whose network is a U-Net with DDPM noise levels, and what those of latents share."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site
from p2p_bench.models.autoencoder import decoded_latents, encoded_images
from p2p_bench.models.calls import NetworkCall
from p2p_bench.models.conditioning import GUIDANCE, TEXT, VALUES, Conditioning, EncodedPrompts
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.schedule import NoiseSchedule
from p2p_bench.models.spec import ModelSpec
from p2p_bench.models.timesteps import LevelKind, Spacing
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DDPMUNet(DiffusionModel):
    """A U-Net with the noise levels of DDPM, of latents or of pixels.

    Attributes:
        spec: Facts about it.
        schedule: Noise levels and the meaning of the network's output.
        sites: Attention sites of the U-Net.
        unet: The network, a `UNet2DConditionModel`.
        device: Where the weights are.
        dtype: Number format of the U-Net and of what encodes text.
        encoded: The prompts that were encoded before.
        call: How the network is called; None: as it is.
    """

    spec: ModelSpec
    schedule: NoiseSchedule
    sites: tuple[Site, ...]
    unet: nn.Module
    device: torch.device
    dtype: torch.dtype
    encoded: EncodedPrompts = field(default_factory=EncodedPrompts)
    call: NetworkCall | None = None

    @property
    def network(self) -> nn.Module:
        """The U-Net."""
        return self.unet

    def ladder(self, steps: int) -> tuple[Level, ...]:
        """See `DiffusionModel.ladder`."""
        return self.schedule.ladder(steps)

    def laid_out(self, kind: LevelKind, spacing: Spacing | None = None) -> "DDPMUNet":
        """See `DiffusionModel.laid_out`."""
        own = self.schedule
        schedule = replace(own, kind=kind, timestep_spacing=spacing or own.timestep_spacing)
        return replace(self, spec=self.spec.laid_out(kind, spacing), schedule=schedule)

    def start(self, noise: Float[Tensor, "*shape"], steps: int) -> Float[Tensor, "*shape"]:
        """See `DiffusionModel.start`."""
        return noise * self.schedule.start_scale(steps)

    def controlled(self) -> AbstractContextManager[object]:
        """See `DiffusionModel.controlled`."""
        return folded_attention(self.unet)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LatentUNet(DDPMUNet):
    """A loaded checkpoint of such a family; see `DiffusionModel` for what is not said here.

    Attributes:
        reader: Its tokenizers.
        vae: Images to latents and back, an `AutoencoderKL`; in a number format of its own where it has to be.
        encoders: Tokens to embeddings, one for each tokenizer.
        guidance_width: Width of the embedding by which the U-Net is told the guidance scale; None: it is not.
    """

    reader: PromptReader
    vae: Any
    encoders: tuple[Any, ...]
    guidance_width: int | None = None

    @abstractmethod
    def inputs(self, conditioning: Conditioning) -> dict[str, Any]:
        """What the U-Net is given besides latents, timestep and text, by the names of its arguments."""

    def given(
        self, latents: Float[Tensor, "n c h w"], conditioning: Conditioning
    ) -> Float[Tensor, "n d h w"]:
        """What the U-Net denoises, with what it is shown beside: the latents alone."""
        return latents

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        """See `DiffusionModel.tokenize`."""
        return self.reader.tokenize(text, truncate, allow_empty, role)

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        level: Level,
        conditioning: Conditioning,
        plan: StepPlan | None = None,
    ) -> Denoised:
        """See `DiffusionModel.predict`."""
        extra = self.inputs(conditioning)
        if self.guidance_width is not None:
            scales = conditioning.get(GUIDANCE, latents.new_ones(len(latents)))
            extra["timestep_cond"] = guidance_embedding(scales, self.guidance_width).to(self.dtype)
        if VALUES in conditioning:
            plan = replace(plan or StepPlan(len(latents), {}), values=conditioning[VALUES].to(self.dtype))
        if plan is not None:
            extra["cross_attention_kwargs"] = {"plan": plan}
        inputs, text = self.given(latents, conditioning).to(self.dtype), conditioning[TEXT].to(self.dtype)
        output = self.ask(inputs, level.timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]
        return Denoised(latents, level, self.schedule.to_epsilon(output.to(latents.dtype), latents, level))

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c k l"]:
        """Scaled latents of images in [0, 1]: the mean of the VAE's posterior, not a sample of it."""
        return encoded_images(self.vae, self.spec, images, self.device).to(self.state_dtype)

    def decode_latents(self, latents: Float[Tensor, "n c k l"]) -> Float[Tensor, "n 3 h w"]:
        """Images of scaled latents: float32 in [0, 1], on the model's device."""
        return decoded_latents(self.vae, self.spec, latents, self.device)


def guidance_embedding(scales: Float[Tensor, " n"], width: int) -> Float[Tensor, "n d"]:
    """Sines and cosines of guidance scales, as latent consistency models are told them.

    Args:
        scales: Guidance scales.
        width: Of the embedding.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=scales.device) * (-log(10000.0) / (half - 1)))
    angles = 1000.0 * (scales[:, None] - 1) * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))
