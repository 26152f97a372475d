"""A family unlike the others: two text encoders, a pooled vector, pixels as latents, a rectified flow."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from p2p_bench.attention.plan import StepPlan
from p2p_bench.attention.processor import folded_attention
from p2p_bench.attention.sites import Site, unet_sites
from p2p_bench.models.conditioning import TEXT, Conditioning, EncodedPrompts
from p2p_bench.models.flow_levels import FlowLayout
from p2p_bench.models.level import Denoised, Level
from p2p_bench.models.model import DiffusionModel
from p2p_bench.models.spec import DIFFUSION, ModelSpec
from p2p_bench.models.tokenizer import TokenizerReader
from p2p_bench.prompts.words import PromptReader, TokenizedPrompt
from tests.models.tiny import WIDTH, tiny_checkpoint

SIDE = 16
SHIFT = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class FlowModel(DiffusionModel):
    """Random but fixed weights."""

    spec: ModelSpec
    sites: tuple[Site, ...]
    unet: nn.Module
    encoders: Sequence[Any]
    tokenizer: CLIPTokenizer
    device: torch.device
    dtype: torch.dtype
    encoded: EncodedPrompts = field(default_factory=EncodedPrompts)

    @property
    def network(self) -> nn.Module:
        return self.unet

    def ladder(self, steps: int) -> tuple[Level, ...]:
        parts = [1 - step / steps for step in range(steps + 1)]
        sigmas = [SHIFT * part / (1 + (SHIFT - 1) * part) for part in parts]
        return tuple(Level(1000 * sigma, 1 - sigma, sigma) for sigma in sigmas)

    def tokenize(
        self, text: str, truncate: bool = False, allow_empty: bool = False, role: str = "prompt"
    ) -> TokenizedPrompt:
        return TokenizerReader(self.tokenizer).tokenize(text, truncate, allow_empty, role)

    def encode_one(self, prompt: TokenizedPrompt) -> Conditioning:
        read = [encoder(torch.tensor([prompt.ids])) for encoder in self.encoders]
        text = torch.cat([one.last_hidden_state for one in read], 2)
        return {TEXT: text, "pooled": read[1].pooler_output}

    def predict(
        self, latents: Tensor, level: Level, conditioning: Conditioning, plan: StepPlan | None = None
    ) -> Denoised:
        extra = {} if plan is None else {"cross_attention_kwargs": {"plan": plan}}
        inputs, text, pooled = (
            one.to(self.dtype) for one in (latents, conditioning[TEXT], conditioning["pooled"])
        )
        velocity = self.unet(inputs, level.timestep, text, class_labels=pooled, return_dict=False, **extra)[0]
        return Denoised(latents, level, velocity.to(latents.dtype), "flow")

    def controlled(self) -> AbstractContextManager[object]:
        return folded_attention(self.unet)

    def encode_images(self, images: Tensor) -> Tensor:
        return (2 * images - 1).to(self.state_dtype)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return (latents.float() / 2 + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class FlowCheckpoint:
    """Spec, tokenizers and weights as separate steps; in double precision, so that equal is equal."""

    name: str = "flow"
    steps: int = 4

    def spec(self) -> ModelSpec:
        return ModelSpec(
            name=self.name, family="stub flow", latent_channels=3, latent_size=(SIDE, SIDE),
            image_size=(SIDE, SIDE), max_tokens=WIDTH, prediction_type="flow", guidance=5.0, steps=self.steps,
            self_fraction=0.5, record_fraction=0.5, vae_scaling=1.0, checksum="flow", timesteps=FlowLayout(),
            capabilities=DIFFUSION | {"flow"},
        )  # fmt: skip

    def reader(self) -> PromptReader:
        return tiny_checkpoint().reader()

    def load(self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> FlowModel:
        assert dtype in (None, torch.float64), "these weights have one number format"
        return replace(_weights(), spec=self.spec())


@functools.cache
def _weights() -> FlowModel:
    tokenizer = tiny_checkpoint().tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoders = [
            CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer), hidden_size=size, intermediate_size=32, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=WIDTH, eos_token_id=tokenizer.eos_token_id,
                )
            )
            for size in (8, 16)
        ]  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=SIDE, in_channels=3, out_channels=3, block_out_channels=(16, 32), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
            cross_attention_dim=24, attention_head_dim=2, norm_num_groups=4,
            class_embed_type="projection", projection_class_embeddings_input_dim=16,
        )  # fmt: skip
    # Sharper maps, as in the tiny checkpoint, and no runaway under guidance.
    unet.conv_out.weight.data *= 0.2
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.data *= 6
    parts = [part.double().eval().requires_grad_(False) for part in (unet, *encoders)]
    device = torch.device("cpu")
    return FlowModel(
        FlowCheckpoint().spec(), unet_sites(unet), parts[0], parts[1:], tokenizer, device, torch.float64
    )
