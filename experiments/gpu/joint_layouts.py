"""Flow transformers in published layouts with random weights, and diffusers' pipelines of the same parts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from layouts import CLIP_BIG_G, CLIP_L, SMALL_CLIP, SMALL_VAE, VAE, Built, clip_config, world_tokenizer
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

import p2p_bench as p2p
from p2p_bench.attention.sites import transformer_sites
from p2p_bench.models.flow_levels import flow_layout
from p2p_bench.models.flux import Flux, T5AndClipReader
from p2p_bench.models.sd3 import ClipAndT5Reader, StableDiffusion3
from p2p_bench.models.sdxl import TwoClipReader
from p2p_bench.models.spec import DIFFUSION
from p2p_bench.models.t5 import NoT5Reader, SharedT5Tokenizer, T5Reader
from p2p_bench.models.tokenizer import TokenizerReader

_FLOW_VAE = {
    **VAE, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
_SMALL_FLOW_VAE = {**_FLOW_VAE, **SMALL_VAE}


@dataclass(frozen=True)
class JointLayout:
    """What a model is made of.

    Attributes:
        kind: Which family: "sd3" has two CLIPs and, as the pipeline may, zeros for T5's columns; "flux" has
            one CLIP and a T5 of one layer, whose work is no part of a step.
        side: Side of a latent.
        transformer: Arguments of the network, as published.
        encoders: Arguments of each CLIP text encoder.
        guidance: Usual guidance scale.
        t5_tokens: Text columns of T5.
        scheduler: Arguments of the noise levels.
        self_fraction: Pixel columns are injected at every size, the largest included.
        vae: Arguments of the autoencoder.
    """

    kind: str
    side: int
    transformer: Mapping[str, Any]
    encoders: tuple[Mapping[str, Any], ...]
    guidance: float
    t5_tokens: int
    scheduler: Mapping[str, Any]
    self_fraction: float = 1.0
    vae: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _FLOW_VAE)

    def cut(self, **blocks: int) -> "JointLayout":
        """The same widths with fewer blocks, and an autoencoder that costs nothing: what a CPU can time."""
        small = {**_FLOW_VAE, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
        small["latent_channels"] = self.vae["latent_channels"]
        return dataclasses.replace(self, transformer={**self.transformer, **blocks}, vae=small)


JOINT_LAYOUTS = {
    "sd3_medium": JointLayout(
        "sd3", 128,
        {
            "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
            "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
            "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
        },
        ({**CLIP_L, "projection_dim": 768}, CLIP_BIG_G), 7.0, 256, {"shift": 3.0},
    ),
    "flux_dev": JointLayout(
        "flux", 128,
        {
            "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
            "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
        },
        (CLIP_L,), 3.5, 512, {"use_dynamic_shifting": True, "shift": 3.0},
    ),
}  # fmt: skip
"""Layouts of the published checkpoints, at 1024 x 1024."""

TINY_JOINT = {
    "sd3_medium": JointLayout(
        "sd3", 8,
        {
            "sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2,
            "attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 48,
            "caption_projection_dim": 32, "pooled_projection_dim": 32, "pos_embed_max_size": 12,
        },
        (SMALL_CLIP, SMALL_CLIP), 7.0, 20, {"shift": 3.0}, 1.0, _SMALL_FLOW_VAE,
    ),
    "flux_dev": JointLayout(
        "flux", 8,
        {
            "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
            "num_attention_heads": 4, "joint_attention_dim": 32, "pooled_projection_dim": 16,
            "guidance_embeds": True, "axes_dims_rope": (4, 2, 2),
        },
        (SMALL_CLIP,), 3.5, 40, {"use_dynamic_shifting": True}, 1.0, _SMALL_FLOW_VAE,
    ),
}  # fmt: skip
"""The same families, small enough for a test."""


def build_joint(name: str, layout: JointLayout, device: str, dtype: torch.dtype) -> Built:
    """Makes random weights in a layout, always the same ones; see `layouts.build`."""
    torch.manual_seed(0)
    make = {"sd3": _sd3, "flux": _flux}[layout.kind]
    built = make(name, layout, device, dtype)
    built.pipeline.set_progress_bar_config(disable=True)
    return built


def _sd3(name: str, layout: JointLayout, device: str, dtype: torch.dtype) -> Built:
    tokenizer = world_tokenizer(77 if layout.side > 8 else 24)
    with torch.device(device):
        transformer = SD3Transformer2DModel(**layout.transformer)
        vae = AutoencoderKL(**layout.vae)
        encoders = [CLIPTextModelWithProjection(clip_config(one, tokenizer)) for one in layout.encoders]
    parts = _ready([transformer, vae, *encoders], device, dtype)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(**layout.scheduler), vae=vae,
        text_encoder=encoders[0], tokenizer=tokenizer, text_encoder_2=encoders[1], tokenizer_2=tokenizer,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    columns = tokenizer.model_max_length + layout.t5_tokens
    readers = [TokenizerReader(tokenizer) for _ in encoders]
    shared = _shared(name, layout, columns, parts, device, dtype)
    reader = ClipAndT5Reader(TwoClipReader(*readers), NoT5Reader(layout.t5_tokens))
    model = StableDiffusion3(reader=reader, encoders=tuple(encoders), **shared)
    return Built(model, pipeline, {"max_sequence_length": layout.t5_tokens})


def _flux(name: str, layout: JointLayout, device: str, dtype: torch.dtype) -> Built:
    tokenizer, t5_tokenizer = world_tokenizer(77 if layout.side > 8 else 24), letters_tokenizer()
    own = SharedT5Tokenizer(
        tokenizer_object=t5_tokenizer._tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=layout.t5_tokens,
    )  # fmt: skip
    width = layout.transformer["joint_attention_dim"]
    with torch.device(device):
        transformer = FluxTransformer2DModel(**layout.transformer)
        vae = AutoencoderKL(**layout.vae)
        clip, t5 = CLIPTextModel(clip_config(layout.encoders[0], tokenizer)), small_t5(t5_tokenizer, width)
    parts = _ready([transformer, vae, clip, t5], device, dtype)
    pipeline = FluxPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(**layout.scheduler), vae=vae,
        text_encoder=clip, tokenizer=tokenizer, text_encoder_2=t5, tokenizer_2=t5_tokenizer,
    )  # fmt: skip
    shared = _shared(name, layout, layout.t5_tokens, parts, device, dtype)
    reader = T5AndClipReader(T5Reader(own), TokenizerReader(tokenizer))
    model = Flux(reader=reader, encoders=(clip, t5), embedded=layout.guidance, **shared)
    return Built(model, pipeline, {"max_sequence_length": layout.t5_tokens})


def _ready(parts: list[Any], device: str, dtype: torch.dtype) -> list[Any]:
    return [part.to(device, dtype).eval().requires_grad_(False) for part in parts]


def _shared(
    name: str, layout: JointLayout, columns: int, parts: list[Any], device: str, dtype: torch.dtype
) -> dict[str, Any]:
    """Arguments that both families have."""
    transformer, vae = parts[:2]
    flux = layout.kind == "flux"
    pixels = layout.side * 2 ** (len(layout.vae["block_out_channels"]) - 1)
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", **layout.scheduler}
    spec = dataclasses.replace(
        p2p.load_model("world").spec, name=name, family=layout.kind,
        latent_channels=vae.config.latent_channels, latent_size=(layout.side, layout.side),
        image_size=(pixels, pixels), max_tokens=columns, prediction_type="flow", guidance=layout.guidance,
        self_fraction=layout.self_fraction, record_fraction=0.25, vae_scaling=vae.config.scaling_factor,
        vae_shift=vae.config.shift_factor, checksum=f"random {name}", vocabulary=None,
        timesteps=flow_layout(config, layout.side**2 // 4, from_one=flux),
        capabilities=(DIFFUSION | {"flow"}) - ({"unconditional"} if flux else set()),
        guided_by="input" if flux else "passes",
    )  # fmt: skip
    return {
        "spec": spec, "sites": transformer_sites(transformer), "transformer": transformer, "vae": vae,
        "device": torch.device(device), "dtype": dtype,
    }  # fmt: skip


def small_t5(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    """A text encoder of one layer, as wide as the network wants it."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        )
    )  # fmt: skip


def letters_tokenizer() -> T5Tokenizer:
    """T5's kind of tokenizer over letters: a word is as many tokens as it has letters, and one."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(
        vocab=[*pieces, *((letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz")], extra_ids=2
    )
