"""Models in published layouts with random weights, and the diffusers pipelines of the same parts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import p2p_bench as p2p
from p2p_bench.attention.sites import unet_sites
from p2p_bench.models.schedule import schedule_from_config
from p2p_bench.models.sdxl import StableDiffusionXL, TwoClipReader
from p2p_bench.models.stable_diffusion import StableDiffusion
from p2p_bench.models.tokenizer import SharedTokenizer, TokenizerReader
from p2p_bench.resources import resource_path

_SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    "clip_sample": False, "set_alpha_to_one": False,
}  # fmt: skip
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_BIG_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a model is made of.

    Attributes:
        side: Side of a latent.
        unet: Arguments of the U-Net, as published.
        encoders: Arguments of each CLIP text encoder.
        guidance: Usual guidance scale.
        self_fraction: Self-attention is injected at every size, the largest included.
        vae: Arguments of the autoencoder.
    """

    side: int
    unet: Mapping[str, Any]
    encoders: tuple[Mapping[str, Any], ...]
    guidance: float
    self_fraction: float
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE)


LAYOUTS = {
    "sd15": Layout(
        64,
        {
            "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        (CLIP_L,), 7.5, 1.0,
    ),
    "sdxl": Layout(
        128,
        {
            "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048, "transformer_layers_per_block": [1, 2, 10],
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        },
        (CLIP_L, CLIP_BIG_G), 5.0, 0.5,
    ),
}  # fmt: skip
"""Layouts of the published checkpoints. The text encoders read the embedded model's tokens."""

SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16), "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
}  # fmt: skip
SMALL_CLIP = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "projection_dim": 16,
}  # fmt: skip
_SMALL_UNET = {
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "attention_head_dim": 2,
}  # fmt: skip
TINY = {
    "sd15": Layout(8, {**_SMALL_UNET, "cross_attention_dim": 16}, (SMALL_CLIP,), 7.5, 1.0, SMALL_VAE),
    "sdxl": Layout(
        8,
        {
            **_SMALL_UNET, "cross_attention_dim": 32, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 16 + 6 * 8,
            "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
        },
        (SMALL_CLIP, SMALL_CLIP), 5.0, 1.0, SMALL_VAE,
    ),
}  # fmt: skip
"""The same families, small enough for a test."""


@dataclass(frozen=True)
class Built:
    """A model here and in diffusers, of the same weights.

    Attributes:
        model: Ours.
        pipeline: Theirs.
        told: What the pipeline is told beside prompts, size and steps.
    """

    model: p2p.DiffusionModel
    pipeline: Any
    told: Mapping[str, Any] = field(default_factory=dict)


def build(name: str, layout: Layout, device: str, dtype: torch.dtype) -> Built:
    """Makes random weights in a layout, always the same ones.

    Args:
        name: Name of the layout; "sdxl" has two text encoders and a pooled vector.
        layout: Its parts.
        device: Where the weights are made.
        dtype: Number format of them all, the autoencoder's included.
    """
    torch.manual_seed(0)
    tokenizer = world_tokenizer(77 if layout.side > 8 else 24)
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=layout.side, **layout.unet)
        vae = AutoencoderKL(**layout.vae)
        encoders = [
            (CLIPTextModelWithProjection if place else CLIPTextModel)(clip_config(config, tokenizer))
            for place, config in enumerate(layout.encoders)
        ]
    parts = [part.to(device, dtype).eval().requires_grad_(False) for part in (unet, vae, *encoders)]
    scheduler = DDIMScheduler(**_SCHEDULE)
    pipeline: Any
    if name == "sdxl":
        pipeline = StableDiffusionXLPipeline(
            vae=vae, text_encoder=encoders[0], text_encoder_2=encoders[1], tokenizer=tokenizer,
            tokenizer_2=tokenizer, unet=unet, scheduler=scheduler, add_watermarker=False,
            force_zeros_for_empty_prompt=False,
        )  # fmt: skip
    else:
        pipeline = StableDiffusionPipeline(
            vae=vae, text_encoder=encoders[0], tokenizer=tokenizer, unet=unet, scheduler=scheduler,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return Built(_model(name, layout, tokenizer, parts, device, dtype), pipeline)


def world_tokenizer(width: int) -> SharedTokenizer:
    """The embedded model's, with so many text columns."""
    folder = resource_path("p2p_bench", "world", "weights", "pipeline") / "tokenizer"
    tokenizer: SharedTokenizer = SharedTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.model_max_length = width
    return tokenizer


def clip_config(config: Mapping[str, Any], tokenizer: SharedTokenizer) -> CLIPTextConfig:
    """Configuration of a text encoder that reads this tokenizer's tokens."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **config,
    )  # fmt: skip


def _model(
    name: str, layout: Layout, tokenizer: SharedTokenizer, parts: list[Any], device: str, dtype: torch.dtype
) -> p2p.DiffusionModel:
    unet, vae, *encoders = parts
    pixels = layout.side * 2 ** (len(layout.vae["block_out_channels"]) - 1)
    world = p2p.load_model("world").spec
    schedule = schedule_from_config(_SCHEDULE)
    spec = dataclasses.replace(
        world, name=name, latent_size=(layout.side, layout.side), image_size=(pixels, pixels),
        max_tokens=tokenizer.model_max_length, guidance=layout.guidance, self_fraction=layout.self_fraction,
        record_fraction=0.25, vae_scaling=vae.config.scaling_factor, checksum=f"random {name}",
        vocabulary=None, timesteps=schedule.layout,
    )  # fmt: skip
    reader = TokenizerReader(tokenizer)
    shared: dict[str, Any] = {
        "spec": spec, "schedule": schedule, "sites": unet_sites(unet), "unet": unet, "vae": vae,
        "encoders": tuple(encoders), "device": torch.device(device), "dtype": dtype,
    }  # fmt: skip
    if name == "sdxl":
        return StableDiffusionXL(reader=TwoClipReader(reader, reader), **shared)
    return StableDiffusion(reader=reader, **shared)
