"""DeepFloyd IF, stage I, in published widths with random weights, and the diffusers pipeline of its parts."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, IFPipeline, UNet2DConditionModel
from joint_layouts import letters_tokenizer, small_t5
from layouts import Built

import p2p_bench as p2p
from p2p_bench.attention.sites import unet_sites
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from p2p_bench.models.pixels import pixel_schedule, thresholding_from_config
from p2p_bench.models.spec import DIFFUSION
from p2p_bench.models.t5 import MAX_TOKENS, LowerT5Tokenizer

_SCHEDULE = {
    "beta_schedule": "squaredcos_cap_v2", "thresholding": True, "dynamic_thresholding_ratio": 0.95,
    "sample_max_value": 1.5, "clip_sample": True, "set_alpha_to_one": True,
}  # fmt: skip


@dataclass(frozen=True)
class PixelLayout:
    """What a model of pixels is made of; a T5 of one layer reads for it, whose work is no part of a step.

    Attributes:
        side: Side of an image.
        channels: Of the U-Net, by size; text and pixels are under one softmax at all sizes but the largest.
        layers: Layers of a block.
        head: Channels of a head of attention.
        t5_width: Channels of the text encoder.
        groups: Of its norms.
        guidance: Usual guidance scale.
    """

    side: int
    channels: tuple[int, ...]
    layers: int
    head: int
    t5_width: int
    groups: int = 32
    guidance: float = 7.0

    @property
    def unet(self) -> Mapping[str, Any]:
        """Arguments of the U-Net, as published but for the widths."""
        attending = len(self.channels) - 1
        return {
            "sample_size": self.side, "in_channels": 3, "out_channels": 6,
            "block_out_channels": self.channels, "norm_num_groups": self.groups,
            "down_block_types": ("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * attending),
            "up_block_types": (*("SimpleCrossAttnUpBlock2D",) * attending, "ResnetUpsampleBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "layers_per_block": self.layers,
            "cross_attention_dim": self.channels[-1], "encoder_hid_dim": self.t5_width,
            "attention_head_dim": self.head, "cross_attention_norm": "group_norm",
            "addition_embed_type": "text", "addition_embed_type_num_heads": 64 if self.t5_width > 64 else 4,
            "resnet_time_scale_shift": "scale_shift", "resnet_skip_time_act": True,
            "time_embedding_act_fn": "gelu", "act_fn": "gelu",
        }  # fmt: skip


PIXEL_LAYOUTS = {"if_xl": PixelLayout(64, (704, 1408, 2112, 2816), 3, 64, 4096)}
"""Layouts of the published checkpoints, at 64 x 64."""

IF_L = PixelLayout(64, (320, 640, 960, 1280), 3, 64, 4096)
"""The next smaller one, which a machine without a GPU holds in float32."""

TINY_PIXEL = {"if_xl": PixelLayout(16, (16, 32), 1, 8, 16, groups=4)}
"""The same family, small enough for a test."""


def build_pixel(name: str, layout: PixelLayout, device: str, dtype: torch.dtype) -> Built:
    """Makes random weights in a layout, always the same ones; see `layouts.build`."""
    torch.manual_seed(0)
    letters = letters_tokenizer()
    with torch.device(device):
        unet, encoder = UNet2DConditionModel(**layout.unet), small_t5(letters, layout.t5_width)
    # Fresh weights give no noise; smaller, the output keeps images within bounds.
    unet.conv_out.weight.data *= 0.05
    parts = [part.to(device, dtype).eval().requires_grad_(False) for part in (unet, encoder)]
    scheduler = DDIMScheduler(**_SCHEDULE)
    # Or the pipeline would hand the predicted variance on, and DDIM takes none.
    scheduler.register_to_config(variance_type="fixed_small")
    pipeline = IFPipeline(letters, encoder, unet, scheduler, None, None, None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    model = _model(name, layout, letters, parts, device, dtype)
    return Built(model, pipeline, {"clean_caption": False})


def _model(
    name: str, layout: PixelLayout, letters: Any, parts: list[Any], device: str, dtype: torch.dtype
) -> p2p.DiffusionModel:
    unet, encoder = parts
    schedule, size = pixel_schedule(_SCHEDULE), (layout.side, layout.side)
    spec = dataclasses.replace(
        p2p.load_model("world").spec, name=name, family="if", latent_channels=3, latent_size=size,
        image_size=size, max_tokens=MAX_TOKENS, prediction_type="epsilon", guidance=layout.guidance,
        self_fraction=1.0, record_fraction=0.25, vae_scaling=1.0, checksum=f"random {name}", vocabulary=None,
        timesteps=schedule.layout, capabilities=DIFFUSION,
    )  # fmt: skip
    tokenizer = LowerT5Tokenizer(
        tokenizer_object=letters._tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=MAX_TOKENS,
    )  # fmt: skip
    return DeepFloydIF(
        spec=spec, tokenizer=tokenizer, schedule=schedule, thresholding=thresholding_from_config(_SCHEDULE),
        sites=unet_sites(unet), unet=unet, text_encoder=encoder, device=torch.device(device), dtype=dtype,
    )  # fmt: skip
