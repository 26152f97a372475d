"""A very small stage II of DeepFloyd IF with random weights in the real directory format, for `small_if`."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, IFSuperResolutionPipeline, UNet2DConditionModel

from p2p_bench.models import DeepFloydCheckpoint
from p2p_bench.models.deepfloyd_if import DeepFloydIF
from tests.models.small_if import SIDE, small_if

LARGE = 2 * SIDE
STEPS = 5
_FOLDER = tempfile.TemporaryDirectory(prefix="small-if-upscaler-")


@functools.cache
def small_upscaler() -> Path:
    """A directory that is made once per session."""
    path = Path(_FOLDER.name) / "upscaler"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        _pipeline().save_pretrained(path, safe_serialization=True)
    return path


@functools.cache
def small_cascade() -> DeepFloydCheckpoint:
    """Stage I with stage II."""
    return dataclasses.replace(
        small_if(), name="small_cascade", upscaler=small_upscaler(), upscaler_steps=STEPS
    )


@functools.cache
def small_cascade_model(dtype: torch.dtype = torch.float64) -> DeepFloydIF:
    """A model that is loaded once per session; nothing may change it."""
    return small_cascade().load(dtype=dtype)


def cascade(upscaler: Path | str, **settings: Any) -> DeepFloydCheckpoint:
    """Stage I with another stage II, or with other settings of it."""
    return dataclasses.replace(small_cascade(), upscaler=upscaler, **settings)


def _pipeline() -> IFSuperResolutionPipeline:
    """Settings as published, but for widths; its text encoder is left out, as `from_pretrained` may."""
    unet = UNet2DConditionModel(
        sample_size=LARGE, in_channels=6, out_channels=6, block_out_channels=(16, 32, 32),
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", layers_per_block=(1, 1, 2), cross_attention_dim=32,
        encoder_hid_dim=16, attention_head_dim=8, norm_num_groups=4, cross_attention_norm="group_norm",
        addition_embed_type="text", addition_embed_type_num_heads=4, class_embed_type="timestep",
        resnet_time_scale_shift="scale_shift", resnet_skip_time_act=True, time_embedding_act_fn="gelu",
        resnet_out_scale_factor=1 / 0.7071, mid_block_scale_factor=1 / 0.7071, only_cross_attention=True,
        act_fn="gelu",
    )  # fmt: skip
    unet.conv_out.weight.data *= 0.05  # see `small_if`
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "add_k_proj.weight", "add_v_proj.weight", "to_out.0.weight")):
            weight.data *= 3
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
        dynamic_thresholding_ratio=0.95, sample_max_value=1.0, prediction_type="epsilon",
    )  # fmt: skip
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return IFSuperResolutionPipeline(
        None, None, unet, scheduler, noising, None, None, None, requires_safety_checker=False
    )
