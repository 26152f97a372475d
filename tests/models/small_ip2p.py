"""A very small InstructPix2Pix checkpoint with random weights, in its published directory format."""

import functools
import tempfile
import warnings
from pathlib import Path

import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from transformers import CLIPTextModel

from p2p_bench.models import UNetCheckpoint
from tests.models.small import clip_config, sharpen, small_unet, small_vae
from tests.models.tiny import tiny_tokenizer

_FOLDER = tempfile.TemporaryDirectory(prefix="small-ip2p-")


@functools.cache
def small_ip2p() -> UNetCheckpoint:
    """The checkpoint, made once per session; 8 x 8 latents of 16 x 16 images."""
    path = Path(_FOLDER.name) / "ip2p"
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)  # of diffusers' scheduler
        torch.manual_seed(0)
        tokenizer = tiny_tokenizer(path / "made")
        scheduler = EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        pipeline = StableDiffusionInstructPix2PixPipeline(
            vae=small_vae(0.18215),
            text_encoder=CLIPTextModel(clip_config(len(tokenizer), 16, tokenizer)).eval(),
            tokenizer=tokenizer,
            unet=small_unet(8, in_channels=8, cross_attention_dim=16),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    sharpen(pipeline.unet)
    pipeline.save_pretrained(path, safe_serialization=True)
    return UNetCheckpoint(path, name="ip2p", steps=4)
